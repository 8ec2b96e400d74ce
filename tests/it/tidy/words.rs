//! Words: what users read calls one thing by one name; and what stands nowhere.

use super::assert_none;
use super::source;
use super::source::Keep;

/// What users don't read, and what stands there instead.
const SAY: &[(&[&str], &str)] = &[
    (&["master", "masters", "leader", "leaders"], "primary"),
    (&["slave", "slaves", "follower", "followers", "secondary", "secondaries"], "standby"),
    (&["replica", "replicas"], "standby"),
    (&["node", "nodes"], "server"),
    (&["upstream", "downstream"], "backend, client, or the server that a standby follows"),
    (&["xlog"], "log, or write-ahead log"),
];

/// Words that are let through: the beginning of a path, the words, why.
const LET_THROUGH: &[(&str, &[&str], &str)] = &[
    ("src/config/setting.rs", ROLES_ELSEWHERE, "what others call a role, for \"did you mean\""),
    ("src/sandbox/plan.rs", &["replica"], "a value of PostgreSQL's wal_level"),
    ("src/sql/catalog_sql.rs", &["follower"], "a column of a query that nobody is shown"),
    ("src/sql/grammar/", &["nodes"], "of the tree that a text is parsed to"),
];
const ROLES_ELSEWHERE: &[&str] = &["replica", "replicas", "secondary", "slave", "master", "leader"];

/// What stands in no file, in pieces so that it does not stand in this one.
const NOWHERE: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/fa", "rm/"), "a path of one machine"),
    (concat!("../sha", "red"), "a path outside the repository"),
    (concat!("tod", "o!"), "finish it, or leave it out"),
    (concat!("unimplem", "ented!"), "finish it, or leave it out"),
    (concat!("FIX", "ME"), "finish it, or say in words what holds"),
    (concat!("XX", "X:"), "finish it, or say in words what holds"),
    (concat!("db", "g!("), "take it out"),
    (concat!("#[ign", "ore"), "a test that is not run proves nothing"),
];

/// What users read in a file.
fn shown(path: &str, text: &str) -> Option<String> {
    if source::is_page(path) || path.starts_with("config/") {
        return Some(text.to_owned());
    }
    let in_source = path.starts_with("src/") && source::is_rust(path) && !source::is_test(path);
    in_source.then(|| {
        // The tests are found by the code, and then taken out of the strings.
        let code = source::without_tests(&source::only(Keep::Code, text));
        let strings = source::only(Keep::Strings, text);
        let last = code.trim_end().lines().count();
        strings.lines().take(last).collect::<Vec<_>>().join("\n")
    })
}

fn wrong_words(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, word) in source::words(&shown(path, text).unwrap_or_default()) {
        let lower = word.to_lowercase();
        let Some((_, say)) = SAY.iter().find(|(not, _)| not.contains(&lower.as_str())) else {
            continue;
        };
        let allowed = LET_THROUGH
            .iter()
            .any(|(start, words, _)| path.starts_with(start) && words.contains(&lower.as_str()));
        if !allowed {
            found.push(format!("{path}:{line}: users read `{word}`: say {say}"));
        }
    }
    found
}

fn nowhere(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for (piece, why) in NOWHERE.iter().filter(|(piece, _)| line.contains(piece)) {
            found.push(format!("{path}:{number}: `{piece}`: {why}"));
        }
    }
    found
}

#[test]
fn users_read_one_word_for_one_thing() {
    let files = source::files_beneath("");
    let found: Vec<_> = files.iter().flat_map(|file| wrong_words(&file.path, &file.text)).collect();
    assert_none(&found);
}

#[test]
fn every_word_that_is_let_through_is_there() {
    let files = source::files_beneath("");
    for (start, words, _) in LET_THROUGH {
        let mut shown = files
            .iter()
            .filter(|file| file.path.starts_with(start))
            .filter_map(|file| shown(&file.path, &file.text));
        let used = shown.any(|text| source::words(&text).any(|(_, word)| words.contains(&word)));
        assert!(used, "{start} needs no {words:?} any more: take it out of LET_THROUGH");
    }
}

#[test]
fn nothing_is_left_lying_about() {
    let files = source::files_beneath("");
    let found: Vec<_> = files.iter().flat_map(|file| nowhere(&file.path, &file.text)).collect();
    assert_none(&found);
}

#[test]
fn the_rules_of_words_bite() {
    let wrong = [
        ("README.md", "Reads go to a Replica."),
        ("docs/limits.md", "one `master`"),
        ("src/pool/mod.rs", "const A: &str = \"no node answers\";"),
    ];
    for (path, text) in wrong {
        assert_eq!(wrong_words(path, text).len(), 1, "{path}: {text}");
    }
    let right = [
        ("README.md", "`session_replication_role`, `pg_replication_slots`"),
        ("src/pool/mod.rs", "use crate::sql::Node; // a node of the tree"),
        ("src/pool/mod.rs", "const A: u8 = 1;\n#[cfg(test)]\nmod t { const B: &str = \"node\"; }"),
        ("tests/it/cli.rs", "const A: &str = \"node\";"),
    ];
    for (path, text) in right {
        assert_eq!(wrong_words(path, text), Vec::<String>::new(), "{path}: {text}");
    }
    for (piece, _) in NOWHERE {
        assert_eq!(nowhere("Makefile", &format!("a\n{piece} b\n")).len(), 1, "{piece}");
    }
    assert_eq!(nowhere("a.rs", "let network = \"net/work\"; ignore()"), Vec::<String>::new());
}
