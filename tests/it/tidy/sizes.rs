//! Sizes, and the sign at every door. The length of functions and arguments is clippy's.

use super::assert_none;
use super::source;
use super::source::Keep;

/// Longest line, in characters. What stands in a string does not count: it can't be broken
/// without another text, or at least not to advantage, as in SQL.
const LINE_MAX: usize = 100;
/// Most lines of a file without its tests.
const FILE_MAX: usize = 600;

fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//! ") {
        found.push(format!("{path}:1: say why it exists, in a `//!` comment"));
    }
    let measured = source::only(Keep::CodeAndComments, text);
    for ((line, shown), number) in measured.lines().zip(text.lines()).zip(1..) {
        let in_text = line.chars().zip(shown.chars()).filter(|(kept, sign)| kept != sign).count();
        let length = shown.chars().count() - in_text;
        let is_row = ["//! |", "/// |"].iter().any(|row| shown.trim_start().starts_with(row));
        if length > LINE_MAX && !is_row {
            found.push(format!("{path}:{number}: {length} characters in a line"));
        }
    }
    if !source::is_test(path) {
        let code = source::without_tests(&source::only(Keep::Code, text));
        // What is blanked behind the last line of code are the tests.
        let lines = code.trim_end().lines().count();
        if lines > FILE_MAX {
            found.push(format!("{path}: {lines} lines without its tests: split it"));
        }
    }
    found
}

#[test]
fn lines_and_files_are_short_and_say_why_they_exist() {
    let files = source::rust_files();
    let found: Vec<_> = files.iter().flat_map(|file| violations(&file.path, &file.text)).collect();
    assert_none(&found);
}

#[test]
fn the_rule_of_sizes_bites() {
    let long = format!("//! Why.\n// {}\n", "x".repeat(98));
    assert_eq!(violations("src/pg/lsn.rs", &long).len(), 1);
    let text = format!("//! Why.\nconst A: &str = \"{}\";\n", "x".repeat(120));
    assert_eq!(violations("src/pg/lsn.rs", &text), Vec::<String>::new());
    assert_eq!(violations("src/pg/lsn.rs", "use std::fmt;\n").len(), 1);
    let lines = format!("//! Why.\n{}", "fn f() {}\n".repeat(600));
    assert_eq!(violations("src/pg/lsn.rs", &lines).len(), 1);
    assert_eq!(violations("tests/it/pg.rs", &lines), Vec::<String>::new());
    let tests = "fn f() {}\n".repeat(300);
    let lines = format!("//! Why.\n{tests}#[cfg(test)]\nmod tests {{\n{tests}{tests}}}\n");
    assert_eq!(violations("src/pg/lsn.rs", &lines), Vec::<String>::new());
}
