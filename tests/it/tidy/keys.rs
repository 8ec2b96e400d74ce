//! Keys of the configuration and files of the repository that texts name: they exist.

use super::assert_none;
use super::source;
use super::source::Keep;
use std::collections::BTreeSet;
use std::path::Path;

/// First parts of what looks like a key and is none: session variables, and examples of names.
const NO_SECTION: &[&str] = &["pgsteer", "app", "my", "pg_catalog"];

/// The page of all keys, made from their table.
const REFERENCE: &str = "docs/configuration.md";

/// Every key, and every section that holds some, as the reference names them.
fn known_keys(reference: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut section = String::new();
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix("## `[").and_then(|rest| rest.strip_suffix("]`")) {
            name.clone_into(&mut section);
        }
        let key = line.strip_prefix("| `").and_then(|rest| rest.split('`').next());
        if let Some(key) = key.filter(|_| !section.is_empty()) {
            found.insert(format!("{section}.{key}"));
        }
        if let Some((table, _)) = key.and_then(|key| key.split_once('.')) {
            found.insert(format!("{section}.{table}"));
        }
    }
    found
}

/// What is quoted by backticks in a page, with its line.
fn quoted(page: &str) -> impl Iterator<Item = (usize, &str)> {
    page.lines()
        .zip(1..)
        .flat_map(|(line, number)| line.split('`').skip(1).step_by(2).map(move |it| (number, it)))
}

/// The key in `text`, if it is written like one: `section.key`, perhaps with a value behind it.
fn key_in(text: &str) -> Option<&str> {
    let name = text.split([' ', '=']).next()?;
    let (section, key) = name.split_once('.')?;
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|sign| sign.is_ascii_lowercase() || sign == '_')
    };
    let is_file = ["rs", "md", "toml", "conf", "sh", "txt", "crt", "key", "service"];
    let like = is_word(section) && key.split('.').all(is_word) && !is_file.contains(&key);
    (like && !NO_SECTION.contains(&section)).then_some(name)
}

/// Keys that a page names and that are not there.
fn strange_keys(path: &str, page: &str, known: &BTreeSet<String>) -> Vec<String> {
    let keys = quoted(page).filter_map(|(line, text)| Some((line, key_in(text)?)));
    let strange = keys.filter(|(_, key)| !known.contains(*key));
    strange.map(|(line, key)| format!("{path}:{line}: no key is called {key}")).collect()
}

/// Keys that errors, hints and help name and that are not there.
fn strange_keys_in_source(path: &str, text: &str, known: &BTreeSet<String>) -> Vec<String> {
    let sections: BTreeSet<_> = known.iter().filter_map(|key| key.split('.').next()).collect();
    let code = source::without_tests(&source::only(Keep::Code, text));
    let strings = source::only(Keep::Strings, text);
    let mut found = Vec::new();
    for (line, number) in strings.lines().take(code.trim_end().lines().count()).zip(1..) {
        let words = line.split(|sign: char| !sign.is_ascii_alphanumeric() && !"_.".contains(sign));
        for word in words.map(|word| word.trim_matches('.')) {
            let section = word.split('.').next().unwrap_or("");
            if sections.contains(section) && key_in(word).is_some() && !known.contains(word) {
                found.push(format!("{path}:{number}: no key is called {word}"));
            }
        }
    }
    found
}

/// Files that a page names and that are not there.
fn strange_paths(path: &str, page: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let begins = ["src/", "tests/", "docs/", "config/", "scripts/"];
    let files = quoted(page)
        .map(|(line, text)| (line, text.split([':', ' ', '*']).next().unwrap_or(text)))
        .filter(|(_, text)| begins.iter().any(|begin| text.starts_with(begin)));
    let strange = files.filter(|(_, text)| !exists(text));
    strange.map(|(line, text)| format!("{path}:{line}: {text} is not there")).collect()
}

#[test]
fn keys_that_texts_name_are_there() {
    let known = known_keys(&source::read(REFERENCE));
    assert!(known.contains("routing.max_lag") && known.contains("pool.size"), "{known:?}");
    let mut found = Vec::new();
    for file in source::files_beneath("").iter().filter(|file| file.path != REFERENCE) {
        if source::is_page(&file.path) {
            found.extend(strange_keys(&file.path, &file.text, &known));
        } else if source::is_rust(&file.path) && !source::is_test(&file.path) {
            found.extend(strange_keys_in_source(&file.path, &file.text, &known));
        }
    }
    assert_none(&found);
}

#[test]
fn files_that_pages_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = source::files_beneath("");
    let pages = files.iter().filter(|file| source::is_page(&file.path));
    let found: Vec<_> = pages
        .flat_map(|file| strange_paths(&file.path, &file.text, |it| root.join(it).exists()))
        .collect();
    assert_none(&found);
}

#[test]
fn the_rules_of_keys_bite() {
    let known = known_keys("## `[pool]`\n| `size` | a |\n## `[routing]`\n| `max_lag.time` | b |\n");
    let expected = ["pool.size", "routing.max_lag", "routing.max_lag.time"];
    assert!(known.iter().eq(expected), "{known:?}");

    let page = "`pool.size = 4` `pgsteer.role` `a.rs` `routing.max_lag` `pg_authid` pool.none";
    assert_eq!(strange_keys("a.md", page, &known), Vec::<String>::new());
    for page in ["`pool.sise`", "`control.user`", "`routing.max_lag.bytes`", "`pool.mode = \"x\"`"]
    {
        assert_eq!(strange_keys("a.md", page, &known).len(), 1, "{page}");
    }
    let right = "const A: &str = \"raise pool.size. other.name\"; let pool = pool.none;";
    assert_eq!(strange_keys_in_source("a.rs", right, &known), Vec::<String>::new());
    let wrong = "const A: &str = \"raise pool.sizes\";";
    assert_eq!(strange_keys_in_source("a.rs", wrong, &known).len(), 1);

    let page = "`src/a.rs::test` `tests/it` `make` `src/b.rs`";
    let there = |path: &str| matches!(path, "src/a.rs" | "tests/it");
    assert_eq!(strange_paths("a.md", page, there), ["a.md:1: src/b.rs is not there"]);
}
