//! Texts that were made to do harm, and random ones.

use super::catalog;
use super::facts;
use crate::floods::{since, worked};
use pgsteer::sql::Catalog;
use pgsteer::sql::Class;
use pgsteer::sql::Dialect;
use pgsteer::sql::NeedsPrimary;
use pgsteer::sql::examine;
use pgsteer::sql::explain;
use proptest::prelude::*;
use std::time::Duration;

/// In an encoding whose tail bytes look like ASCII, and with escaping strings, nothing is read
/// into the text.
#[test]
fn what_can_not_be_read_safely_goes_to_the_primary() {
    let sjis = Dialect::from_encoding_name("SJIS");
    let escaping = Dialect::default().with_standard_conforming_strings("off");
    for dialect in [sjis, escaping] {
        let judgement = examine(b"SELECT 1", dialect).judge(Some(&catalog()));
        assert_eq!(judgement.fit, Err(NeedsPrimary::Dialect));
        assert!(judgement.taints());
    }
    // LATIN1: an umlaut in a literal is no obstacle, in a name it makes the name unknown.
    let latin1 = Dialect::from_encoding_name("LATIN1");
    let judge = |sql: &[u8]| examine(sql, latin1).judge(Some(&catalog())).fit;
    assert_eq!(judge(b"SELECT id FROM items WHERE name = 'M\xfcller'"), Ok(()));
    assert_eq!(judge(b"SELECT * FROM m\xfcller"), Err(NeedsPrimary::RelationUnknown));
    let utf8 = examine(b"SELECT 'M\xfcller'", Dialect::default());
    assert_eq!(utf8.fixed(), Some(NeedsPrimary::Unparsed), "not UTF-8");
    assert_eq!(facts("SELECT 'Müller'").fixed(), None);
    assert_eq!(
        examine(b"SELECT 1\0; DELETE", Dialect::default()).fixed(),
        Some(NeedsPrimary::Unparsed)
    );
}

/// Runs on a stack as small as a thread's default.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).unwrap().join().unwrap();
}

/// Each of these overflows a stack if a tree is walked by recursion: 12 kB of `1+1+...` are
/// enough for the parser's own walk.
#[test]
fn deep_texts_do_not_overflow_a_stack() {
    on_a_small_stack(|| {
        let catalog = catalog();
        for depth in [100, 2_000, 9_000, 16_000, 30_000, 60_000] {
            let nested = |open: &str, inner: &str, close: &str| {
                format!("SELECT {}{inner}{}", open.repeat(depth), close.repeat(depth))
            };
            let texts = [
                format!("SELECT 1{}", "+1".repeat(depth)),
                format!("SELECT 1{}", " OR 1".repeat(depth)),
                format!("SELECT 1{}", " UNION SELECT 1".repeat(depth)),
                format!("SELECT a{}", "::int".repeat(depth)),
                format!("SELECT a{}", "[1]".repeat(depth)),
                format!("SELECT a{}", " COLLATE c".repeat(depth)),
                format!("SELECT * FROM a{}", " JOIN a ON true".repeat(depth)),
                format!("SELECT {}", "1,".repeat(depth)),
                format!("{}SELECT 1", "SELECT 1;".repeat(depth)),
                nested("(", "1", ")"),
                nested("NOT ", "true", ""),
                nested("- ", "1", ""),
                nested("f(", "1", ")"),
                nested("ARRAY[", "1", "]"),
                nested("(SELECT ", "1", ")"),
                nested("CASE WHEN true THEN ", "1", " END"),
                nested("ROW(", "1", ")"),
                nested("coalesce(", "1", ")"),
                format!("{}SELECT 1{}", "WITH a AS (".repeat(depth), ") SELECT 1".repeat(depth)),
                format!("{} SELECT 1", "EXPLAIN ".repeat(depth)),
            ];
            for text in texts {
                let facts = facts(&text);
                facts.judge(Some(&catalog));
            }
        }
        let deep = facts(&format!("SELECT 1{}", "+1".repeat(30_000)));
        assert_eq!(deep.class(), Class::Read, "deep, and read to the end");
    });
}

/// What can be put behind itself, or into itself, without an end: beginning, again and again,
/// middle, as often, end.
const ENDLESS: [[&str; 5]; 34] = [
    ["SELECT 1", "+1", "", "", ""],
    ["SELECT 1", " OR 1", "", "", ""],
    ["SELECT 1", " UNION SELECT 1", "", "", ""],
    ["SELECT 1", " UNION ALL (SELECT 1", "", ")", ""],
    ["SELECT a", "::int", "", "", ""],
    ["SELECT a", "[1]", "", "", ""],
    ["SELECT a", " COLLATE c", "", "", ""],
    ["SELECT a", ".a", "", "", ""],
    ["SELECT a", " IS NULL", "", "", ""],
    ["SELECT * FROM a", " JOIN a ON true", "", "", ""],
    ["SELECT * FROM ", "(a JOIN ", "a", " ON true)", ""],
    ["SELECT * FROM a", ",a", "", "", ""],
    ["SELECT * FROM ", "(SELECT * FROM ", "a", ") a", ""],
    ["SELECT ", "1,", "1", "", ""],
    ["SELECT a IN (", "1,", "1", "", ")"],
    ["SELECT ", "1 IN (", "1", ")", ""],
    ["", "SELECT 1;", "SELECT 1", "", ""],
    ["", ";", "", "", ""],
    ["SELECT ", "(", "1", ")", ""],
    ["SELECT ", "(", "", "", ""],
    ["SELECT ", "NOT ", "true", "", ""],
    ["SELECT ", "- ", "1", "", ""],
    ["SELECT ", "f(", "1", ")", ""],
    ["SELECT ", "ARRAY[", "1", "]", ""],
    ["SELECT ", "CASE WHEN true THEN ", "1", " END", ""],
    ["SELECT ", "CAST(", "1", " AS int)", ""],
    ["SELECT ", "json_object('a': ", "1", ")", ""],
    ["", "WITH a AS (", "SELECT 1", ") SELECT 1", ""],
    ["", "EXPLAIN ", "SELECT 1", "", ""],
    ["INSERT INTO t VALUES ", "(1, 'x'),", "(1, 'x')", "", ""],
    ["SELECT ", "'a' ", "", "", ""],
    ["SELECT 'a'", "\n'a'", "", "", ""],
    ["SELECT E'", "\\\\", "", "", "'"],
    ["SELECT \"a", "\"\"", "", "", "\""],
];

/// Of a processor, without optimisations and whatever else runs beside it. What takes more than a
/// time in proportion to the text's length would take minutes.
const ENOUGH: Duration = Duration::from_secs(2);

/// The longest text that is parsed costs a shard little, whatever is in it, and what is longer
/// hardly anything: a hundred thousand levels, and a megabyte.
#[test]
fn no_text_takes_long() {
    on_a_small_stack(|| {
        let catalog = catalog();
        for [begin, open, middle, close, end] in ENDLESS {
            let fixed = begin.len() + middle.len() + end.len();
            let parsed = (64 * 1024 - fixed) / (open.len() + close.len());
            for depth in [parsed, 100_000, 1_000_000] {
                let (open, close) = (open.repeat(depth), close.repeat(depth));
                let text = [begin, &open, middle, &close, end].concat();
                let began = worked();
                let facts = facts(&text);
                facts.judge(Some(&catalog));
                let took = since(began);
                assert!(took < ENOUGH, "{took:?}: {depth} of {}", &text[..40]);
                if text.len() > 64 * 1024 {
                    assert_eq!(facts.fixed(), Some(NeedsPrimary::TooLong));
                }
            }
        }
    });
}

/// PostgreSQL's own lexer takes seconds for comments that are nested thousands deep.
#[test]
fn nested_comments_do_not_stall() {
    let started = worked();
    for depth in [33, 2_000, 16_000, 32_000] {
        let text = format!("{}{} SELECT 1", "/*".repeat(depth), "*/".repeat(depth));
        let expected =
            if text.len() > 64 * 1024 { NeedsPrimary::TooLong } else { NeedsPrimary::TooDeep };
        assert_eq!(facts(&text).fixed(), Some(expected), "{depth}");
        assert_eq!(facts(&format!("SELECT '{}'", "/*".repeat(depth))).class(), Class::Unknown);
    }
    let harmless = format!("{} SELECT 1", "/* a */".repeat(1_000));
    assert_eq!(facts(&harmless).class(), Class::Read);
    let took = since(started);
    assert!(took.as_secs() < 5, "{took:?}");
}

#[test]
fn long_texts_are_not_parsed() {
    let long = format!("INSERT INTO items VALUES {}", "(1, 'x'),".repeat(10_000));
    let facts = facts(&long);
    assert_eq!(facts.fixed(), Some(NeedsPrimary::TooLong));
    assert!(facts.judge(Some(&catalog())).taints());
}

/// Pieces of SQL, so that random texts get past the lexer.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "SELECT ",
            "* ",
            "FROM ",
            "items ",
            "WHERE ",
            "1 ",
            "+ ",
            "( ",
            ") ",
            "'x' ",
            ", ",
            "; ",
            "WITH a AS ",
            "INSERT INTO ",
            "VALUES ",
            "UPDATE ",
            "SET ",
            "= ",
            "DELETE ",
            "bump() ",
            "numbers ",
            "a ",
            "/* ",
            "*/ ",
            "-- ",
            "\n",
            "$$",
            "E'",
            "\\",
            "\"",
            "[ ",
            "] ",
            "::int ",
            "FOR UPDATE ",
            "INTO ",
            "TEMP ",
            "COPY ",
            "TO STDOUT ",
            "EXPLAIN ",
            "ANALYZE ",
            "BEGIN ",
            "pgsteer: ",
            "role=primary ",
            "UNION ",
            "OVER ",
            "CASE ",
            "WHEN ",
            "END ",
            "NULL ",
            "\u{e9}",
        ][..],
    )
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["UTF8", "LATIN1", "SJIS"] {
            examine(&bytes, Dialect::from_encoding_name(name)).judge(None);
        }
    }

    #[test]
    fn no_text_panics(pieces in prop::collection::vec(piece(), 0..30)) {
        let text = pieces.concat();
        let facts = facts(&text);
        facts.judge(None);
        explain(&facts, facts.judge(None), None);
        examine(text.as_bytes(), Dialect::from_encoding_name("LATIN1"));
    }

    /// A statement that reads a table, and whatever is appended to it as further statements:
    /// nothing makes a write fit.
    #[test]
    fn a_write_is_never_fit(pieces in prop::collection::vec(piece(), 0..12)) {
        for write in ["DELETE FROM items", "SELECT bump()", "TABLE numbers", "BEGIN"] {
            for text in [
                format!("{write}; {}", pieces.concat()),
                format!("{write} {}", pieces.concat().replace("--", "").replace("/*", "")),
            ] {
                let fit = facts(&text).judge(Some(catalog_once())).fit;
                // `numbers` may have become an alias, or the name of a WITH.
                let excused = write == "TABLE numbers" && text.matches("numbers").count() > 1;
                prop_assert!(fit.is_err() || excused, "{text}");
            }
        }
    }
}

fn catalog_once() -> &'static Catalog {
    static CATALOG: std::sync::LazyLock<Catalog> = std::sync::LazyLock::new(catalog);
    &CATALOG
}
