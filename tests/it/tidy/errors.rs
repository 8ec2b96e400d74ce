//! `docs/errors.md` knows every SQLSTATE that pgsteer itself raises, and no other.

use super::assert_none;
use super::source;
use super::source::Keep;
use std::collections::{BTreeMap, BTreeSet};

/// Where the constants are defined.
const NAMES: &str = "src/pg/sqlstate.rs";
/// How reports are built in general; it raises nothing itself.
const BUILDER: &str = "src/wire/message/";

/// The codes by the names of their constants.
fn named_codes(text: &str) -> BTreeMap<String, String> {
    let code = source::only(Keep::CodeAndStrings, text);
    let pair = |line: &str| {
        let (name, code) = line.trim().strip_suffix("\";")?.split_once(" = b\"")?;
        Some((name.to_owned(), code.to_owned()))
    };
    code.lines().filter_map(pair).collect()
}

/// The codes that a file can raise: those it names, if it builds reports at all.
fn raised(path: &str, text: &str, names: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let builds = source::without_tests(&source::only(Keep::Code, text)).contains("ErrorReport");
    if source::is_test(path) || path.starts_with(BUILDER) || path == NAMES || !builds {
        return found;
    }
    let last = source::without_tests(&source::only(Keep::Code, text)).trim_end().lines().count();
    let code = source::only(Keep::CodeAndStrings, text);
    for line in code.lines().take(last) {
        for (at, sign) in line.match_indices("SqlState") {
            let rest = &line[at + sign.len()..];
            if let Some(literal) = rest.strip_prefix("(*b\"") {
                found.extend(literal.get(..5).map(str::to_owned));
            } else if let Some(rest) = rest.strip_prefix("::") {
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
                found.extend(names.get(&name).cloned());
            }
        }
    }
    found
}

/// The codes in the first column of the page's tables.
fn documented(page: &str) -> BTreeSet<String> {
    let code = |line: &str| {
        let code = line.strip_prefix("| `")?.split('`').next()?;
        (code.len() == 5).then(|| code.to_owned())
    };
    page.lines().filter_map(code).collect()
}

#[test]
fn every_sqlstate_of_ours_is_documented() {
    let names = named_codes(&source::read(NAMES));
    assert!(names.len() > 20, "{NAMES} was not understood");
    let files = source::files_beneath("src");
    let raised: BTreeSet<_> =
        files.iter().flat_map(|file| raised(&file.path, &file.text, &names)).collect();
    let documented = documented(&source::read("docs/errors.md"));
    let mut found: Vec<_> =
        raised.difference(&documented).map(|code| format!("docs/errors.md lacks {code}")).collect();
    found.extend(
        documented.difference(&raised).map(|code| format!("docs/errors.md: nothing raises {code}")),
    );
    assert_none(&found);
}

#[test]
fn the_rule_of_errors_bites() {
    let names = named_codes("    /// Why.\n    LOST = b\"08006\";\n    DOUBT = b\"08007\";\n");
    let text = "use a::ErrorReport; fn f() { g(SqlState::LOST); h(SqlState(*b\"42601\")) }\n\
                #[cfg(test)]\nmod t { fn i() { SqlState::DOUBT } }";
    let codes = BTreeSet::from(["08006".to_owned(), "42601".to_owned()]);
    assert_eq!(raised("src/frontend/report/mod.rs", text, &names), codes);
    assert_eq!(raised("src/frontend/report/mod.rs", "SqlState::LOST", &names), BTreeSet::new());
    let page = "| code | when |\n|---|---|\n| `08006` | lost |\n| `42601` | syntax |\n`57014`\n";
    assert_eq!(documented(page), codes);
}
