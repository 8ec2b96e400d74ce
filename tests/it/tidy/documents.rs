//! What is written about the house agrees with it: map, decisions, failures, commands, links.

use super::assert_none;
use super::source;
use crate::config::Said;
use clap::Parser as _;
use pgsteer::cli::args::Args;
use std::collections::BTreeSet;
use std::path::Path;

/// What ARCHITECTURE.md must name: every entry of `src`.
fn entries_of_src() -> BTreeSet<String> {
    let files = source::files_beneath("src");
    files
        .iter()
        .filter_map(|file| file.path.strip_prefix("src/"))
        .map(|inside| inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs").to_owned())
        .collect()
}

/// The modules that a map names: `name/` or `name.rs` at the beginning of a line of its block.
fn mapped(page: &str) -> BTreeSet<String> {
    let block = page.split("```").find(|block| block.starts_with("text\nsrc/")).unwrap_or("");
    let names = |line: &str| -> Vec<String> {
        let column = line.strip_prefix("  ").filter(|line| !line.starts_with([' ', '-']));
        let words = column.unwrap_or("").split_whitespace();
        let is_name = |word: &&str| word.ends_with('/') || source::is_rust(word);
        let bare = |word: &str| word.trim_end_matches('/').trim_end_matches(".rs").to_owned();
        words.take_while(is_name).map(bare).collect()
    };
    block.lines().skip(2).flat_map(names).collect()
}

#[test]
fn the_map_names_every_module_and_no_other() {
    let mapped = mapped(&source::read("ARCHITECTURE.md"));
    let there = entries_of_src();
    let mut found: Vec<_> = there
        .difference(&mapped)
        .map(|name| format!("ARCHITECTURE.md: the map lacks src/{name}"))
        .collect();
    found.extend(
        mapped
            .difference(&there)
            .map(|name| format!("ARCHITECTURE.md: the map names {name}, which is not there")),
    );
    assert_none(&found);
}

/// What is wrong with one decision record.
fn faults_of_decision(path: &str, text: &str) -> Vec<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let number = name.split('-').next().unwrap_or("");
    let mut lines = text.lines();
    let mut faults = Vec::new();
    let title = lines.next().unwrap_or("");
    if number.len() != 4 || !title.starts_with(&format!("# {number} ")) {
        faults.push(format!("{path}: the title must begin with `# {number} `"));
    }
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let status = field("- Status: ").unwrap_or("");
    let by = |start: &str| status.strip_prefix(start).is_some_and(|by| by.len() == 4);
    let known = ["template", "proposed", "accepted"].contains(&status)
        || by("superseded by ")
        || by("accepted; in part superseded by ");
    if !known {
        faults.push(format!(
            "{path}: `- Status: ` must be proposed, accepted, superseded by NNNN, or accepted; in \
             part superseded by NNNN"
        ));
    }
    let date = field("- Date: ").unwrap_or("");
    let shape: String =
        date.chars().map(|sign| if sign.is_ascii_digit() { '0' } else { sign }).collect();
    if shape != "0000-00-00" {
        faults.push(format!("{path}: `- Date: ` must be YYYY-MM-DD"));
    }
    for heading in ["## Context", "## Decision", "## Price", "## Revisit when"] {
        if !text.lines().any(|line| line == heading) {
            faults.push(format!("{path}: lacks `{heading}`"));
        }
    }
    faults
}

#[test]
fn decisions_have_a_number_a_status_and_a_date() {
    let files = source::files_beneath("docs/decisions");
    let mut found = Vec::new();
    for (file, number) in files.iter().zip(0..) {
        found.extend(faults_of_decision(&file.path, &file.text));
        if !file.path.starts_with(&format!("docs/decisions/{number:04}-")) {
            found.push(format!("{}: numbers follow each other; expected {number:04}", file.path));
        }
    }
    assert_none(&found);
    assert!(files.len() > 1, "no decisions");
}

/// The tests that a table's last column names, as `path::test`.
fn guards(page: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, number) in page.lines().zip(1..).filter(|(line, _)| line.starts_with('|')) {
        let Some(last) = line.trim_end().trim_end_matches('|').rsplit('|').next() else { continue };
        let quoted = last.split('`').skip(1).step_by(2);
        found.extend(quoted.filter(|name| name.contains(".rs")).map(|name| (number, name)));
    }
    found
}

/// Whether `tests/it/cli.rs::a_name` is a test in that file.
fn is_a_test(name: &str, read: impl Fn(&str) -> String) -> bool {
    let Some((path, test)) = name.split_once("::") else { return false };
    let file = read(path);
    let lines: Vec<_> = file.lines().map(str::trim_start).collect();
    let defines = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|line| line.strip_prefix(test))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let is_marked = |at: usize| {
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        attributes
            .into_iter()
            .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    // A case of a table of tests is written `name: ...`, a test of its own `fn name()`.
    file.contains(&format!("    {test}: "))
        || (0..lines.len()).any(|at| defines(lines[at]) && is_marked(at))
}

#[test]
fn every_failure_threat_and_invariant_names_a_test_that_exists() {
    let mut found = Vec::new();
    for path in ["docs/known-failures.md", "docs/security.md", "ARCHITECTURE.md"] {
        let page = source::read(path);
        let tests = guards(&page);
        assert!(tests.len() > 5, "{path} was not understood");
        for (line, name) in tests.iter().filter(|(_, name)| !is_a_test(name, source::read)) {
            found.push(format!("{path}:{line}: there is no test {name}"));
        }
    }
    assert_none(&found);
}

/// The rows of a page's tables, without their heads, that name no test.
fn unguarded(page: &str) -> Vec<usize> {
    let lines: Vec<_> = page.lines().collect();
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|--"));
    let rows = (0..lines.len()).filter(|at| lines[*at].starts_with("| ") && !is_head(*at));
    rows.filter(|at| guards(lines[*at]).is_empty()).map(|at| at + 1).collect()
}

#[test]
fn every_failure_and_every_threat_has_its_guard() {
    let mut found = Vec::new();
    for path in ["docs/known-failures.md", "docs/security.md"] {
        let rows = unguarded(&source::read(path));
        found.extend(rows.iter().map(|row| format!("{path}:{row}: names no test")));
    }
    assert_none(&found);
}

/// A part that says only what is guarded against says half.
#[test]
fn each_part_about_security_says_what_is_not_guarded_against() {
    let page = source::read("docs/security.md");
    let parts: Vec<_> = page.split("\n## ").skip(1).collect();
    let silent =
        parts.iter().filter(|part| !part.replace('\n', " ").contains("Not guarded against:"));
    let found: Vec<_> = silent.map(|part| part.lines().next().unwrap_or("").to_owned()).collect();
    assert_none(&found);
    assert!(parts.len() > 5, "docs/security.md was not understood");
}

/// What is fuzzed is what is tested, and the other way round.
#[test]
fn every_target_can_be_fuzzed() {
    let manifest = source::read("fuzz/Cargo.toml");
    let script = source::read("scripts/fuzz.sh");
    let listed = script.lines().find_map(|line| line.split_once("|| targets=("));
    let listed = listed.map(|(_, names)| names.trim_end_matches(')').split_whitespace());
    let names: Vec<_> = crate::hostile::TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(listed.into_iter().flatten().collect::<Vec<_>>(), names, "scripts/fuzz.sh");
    for name in names {
        let text = source::read(&format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(text.contains(&format!("pgsteer_fuzz::run(\"{name}\", data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}: fuzz/Cargo.toml");
    }
}

/// The commands of the blocks that show a shell: lines that begin with `pgsteer`, joined over `\`.
fn commands(page: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut shell, mut goes_on) = (false, false);
    for (line, number) in page.lines().zip(1..) {
        if line.starts_with("```") {
            shell = line == "```sh";
            continue;
        }
        let line = line.trim_start_matches("$ ");
        if let Some((_, command)) = found.last_mut().filter(|_| goes_on) {
            command.push_str(line.trim_end_matches('\\'));
        } else if shell && line.split_whitespace().next() == Some("pgsteer") {
            found.push((number, line.trim_end_matches('\\').to_owned()));
        } else {
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    found
}

/// A command as the shell splits it, up to a comment or a pipe.
fn split(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for sign in command.chars() {
        match (quote, sign) {
            (None, '#' | '|' | '>' | '&') => break,
            (None, ' ') => words.push(String::new()),
            (None, '\'' | '"') => quote = Some(sign),
            (Some(open), _) if open == sign => quote = None,
            (_, _) => words.last_mut().unwrap().push(sign),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_commands_that_pages_show_are_understood() {
    let mut found = Vec::new();
    let mut shown = 0;
    for file in source::files_beneath("").iter().filter(|file| source::is_page(&file.path)) {
        for (line, command) in commands(&file.text) {
            shown += 1;
            let words = split(&command);
            if let Err(error) = Args::try_parse_from(&words)
                && error.use_stderr()
            {
                found.push(format!("{}:{line}: {command}: {error}", file.path));
            }
        }
    }
    assert_none(&found);
    assert!(shown > 5, "the pages show {shown} commands");
}

/// The blocks of TOML in a page.
fn configurations(page: &str) -> impl Iterator<Item = &str> {
    page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// A configuration that cannot be read fails with its report.
#[test]
fn the_configurations_that_the_readme_shows_are_taken() {
    let page = source::read("README.md");
    let mut shown = 0;
    for file in configurations(&page) {
        shown += 1;
        let config = Said { file, ..Said::default() }.config();
        assert!(!config.servers.is_empty(), "{file}");
    }
    assert_eq!(shown, 1, "README.md shows one configuration");
}

/// What a page links to within the repository.
fn links(page: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, number) in page.lines().zip(1..) {
        for after in line.split("](").skip(1) {
            let target = after.split([')', '#']).next().unwrap_or("");
            if !target.is_empty() && !target.contains("://") {
                found.push((number, target));
            }
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    for file in source::files_beneath("").iter().filter(|file| source::is_page(&file.path)) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file.path);
        for (line, target) in links(&file.text) {
            if !root.parent().unwrap().join(target).exists() {
                found.push(format!("{}:{line}: {target} is not there", file.path));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn the_papers_of_the_house_are_there() {
    let papers = [
        ("README.md", "# pgsteer"),
        ("ARCHITECTURE.md", "# Architecture"),
        ("CONTRIBUTING.md", "# Contributing"),
        ("CHANGELOG.md", "# Changelog"),
        ("LICENSE-MIT", "MIT License"),
        ("LICENSE-APACHE", "Apache License"),
    ];
    for (path, title) in papers {
        assert!(source::read(path).contains(title), "{path} does not say {title}");
    }
    let version = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(source::read("CHANGELOG.md").contains(&version), "CHANGELOG.md lacks {version}");
}

#[test]
fn the_rules_of_documents_bite() {
    let map = "# A\n```text\nsrc/\n  lib.rs main.rs  the tour\n  -- ground ---\n  pg/  what is\n  \
               \x20                 more words/ here\n```\n";
    let expected: BTreeSet<_> = ["lib", "main", "pg"].map(str::to_owned).into();
    assert_eq!(mapped(map), expected);

    let decision = "# 0001 Why\n\n- Status: accepted\n- Date: 2026-11-21\n\n## Context\n\
                    ## Decision\n## Price\n## Revisit when\n";
    let path = "docs/decisions/0001-why.md";
    assert_eq!(faults_of_decision(path, decision), Vec::<String>::new());
    for (right, wrong) in [
        ("# 0001", "# 0002"),
        ("accepted", "perhaps"),
        ("accepted", "accepted; in part superseded by another"),
        ("2026-11-21", "today"),
        ("## Price", "## Cost"),
    ] {
        assert_eq!(faults_of_decision(path, &decision.replace(right, wrong)).len(), 1, "{wrong}");
    }

    let row = "| a | b `c.rs` | `tests/a.rs::one`, `tests/a.rs::two`, `Sync` |";
    let names: Vec<_> = guards(row).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["tests/a.rs::one", "tests/a.rs::two"]);
    let tables = format!("| head |\n|---|\n{row}\n| a | b |\n\n| head |\n|---|\n| c | `d` |\n");
    assert_eq!(unguarded(&tables), [4, 8]);
    let text = "#[test]\n#[cfg(unix)]\nfn one() {}\n    three: \"x\",\nasync fn four() {}\n\
                #[tokio::test(flavor = \"x\")]\nasync fn five() {}\n#[inline]\nfn six() {}\n";
    let is_there = |name: &str| is_a_test(name, |_| text.to_owned());
    for test in ["one", "three", "five"] {
        assert!(is_there(&format!("tests/a.rs::{test}")), "{test}");
    }
    for other in ["tests/a.rs::two", "tests/a.rs::four", "tests/a.rs::six", "one"] {
        assert!(!is_there(other), "{other}");
    }

    let page = "```sh\n$ pgsteer --server a \\\n  --server b # two\nmake\n```\n`pgsteer x`\n";
    let found = commands(page);
    assert_eq!(found.len(), 1);
    let words = split(&found[0].1);
    assert_eq!(words, ["pgsteer", "--server", "a", "--server", "b"]);
    assert!(Args::try_parse_from(&words).is_ok());
    assert!(Args::try_parse_from(split("pgsteer --sever a")).is_err());
    assert_eq!(split("pgsteer route 'SELECT 1; a'"), ["pgsteer", "route", "SELECT 1; a"]);

    let page = "a\n```toml\nb = 1\n```\n```sh\nc\n```\n";
    assert_eq!(configurations(page).collect::<Vec<_>>(), ["b = 1\n"]);

    let found = links("[a](b.md#c) [d](https://e) ![f](g.svg)");
    assert_eq!(found, [(1, "b.md"), (1, "g.svg")]);
}
