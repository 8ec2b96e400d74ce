//! Texts of statements: what they are, and that a cache makes nothing else of them.

use pgsteer::sql::{Class, Dialect, Facts, FactsCache, NeedsPrimary, examine, explain};
use std::fmt::Write as _;
use std::sync::Arc;

/// What tells the facts of a text, as [`FactsCache::examine`] does.
pub(crate) type Examine<'e> = &'e mut dyn FnMut(&[u8], Dialect) -> Arc<Facts>;

/// Texts, parted by a byte that is in none.
pub(crate) fn run(data: &[u8]) {
    for text in data.split(|byte| *byte == PART).take(TEXTS_MAX) {
        for dialect in dialects() {
            look(text, dialect);
        }
    }
    let mut cache = FactsCache::default();
    facts_do_not_depend_on(data, &mut |sql, dialect| cache.examine(sql, dialect));
}

const PART: u8 = 0xFE;
/// Each costs a parse in each dialect.
const TEXTS_MAX: usize = 6;

/// Every way of reading that there is.
fn dialects() -> [Dialect; 4] {
    let named = Dialect::from_encoding_name;
    let escaping = Dialect::default().with_standard_conforming_strings("off");
    [Dialect::default(), named("LATIN1"), named("SJIS"), escaping]
}

/// Whatever it is, something true is said of it.
fn look(text: &[u8], dialect: Dialect) {
    let facts = examine(text, dialect);
    let judgement = facts.judge(None);
    drop(explain(&facts, judgement, None));
    let readable = dialect == Dialect::default() || dialect == dialects()[1];
    if !readable {
        assert!(judgement.fit.is_err(), "read in a way that nobody knows");
    }
    if text.contains(&0) || text.len() > 64 * 1024 {
        assert!(judgement.fit.is_err(), "it was not parsed");
    }
    // A write in front makes a write of it, or something that is not understood.
    let written = examine(&[b"DELETE FROM t; ", text].concat(), dialect);
    assert!(written.class() >= Class::Write, "a read: {written:?}");
    assert!(written.judge(None).fit.is_err());
    if readable && facts.fixed() == Some(NeedsPrimary::Unparsed) {
        assert_eq!(facts.class(), Class::Unknown);
    }
}

/// The facts of each text, and of each with other numbers in it, are those that it has by itself,
/// whatever was asked for before and in which dialect.
pub(crate) fn facts_do_not_depend_on(data: &[u8], known: Examine<'_>) {
    let texts: Vec<&[u8]> = data.split(|byte| *byte == PART).take(TEXTS_MAX).collect();
    for text in texts {
        let others = [text.to_vec(), renumbered(text, "7"), renumbered(text, "4294967296")];
        for other in others {
            for dialect in dialects() {
                let alone = told(&examine(&other, dialect));
                let by_cache = told(&known(&other, dialect));
                assert_eq!(by_cache, alone, "{}", String::from_utf8_lossy(&other));
            }
        }
    }
}

/// The same text with its runs of digits replaced.
fn renumbered(text: &[u8], number: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut inside = false;
    for byte in text {
        let digit = byte.is_ascii_digit();
        if digit && !inside {
            out.extend_from_slice(number.as_bytes());
        } else if !digit {
            out.push(*byte);
        }
        inside = digit;
    }
    out
}

/// Everything that is said of a text, but for what a judgement leaves in it.
fn told(facts: &Facts) -> String {
    let mut out = String::new();
    let f = facts;
    write!(
        out,
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        f.count(),
        f.class(),
        f.transaction(),
        f.commits(),
        f.effects(),
        f.fixed(),
        f.functions(),
        f.relations(),
        f.targets(),
        f.operators(),
        f.settings(),
        f.wishes(),
        f.hints(),
        f.shown(),
        f.prepared(),
    )
    .unwrap();
    out
}

/// Texts in which a mistake would cost something.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "SELECT a FROM t WHERE id = 1",
        "SELECT a FROM t WHERE id = 1 FOR UPDATE",
        "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
        "INSERT INTO t VALUES (1, 'a''b', E'\\'c'), (2, $$d$$, U&'\\0041')",
        "SELECT nextval('s'), set_config('role', 'x', false), pg_sleep(1)",
        "EXPLAIN (ANALYZE 0) SELECT 1",
        "/* pgsteer: role=primary */ SELECT 1 -- 2",
        "SET pgsteer.role = 5; RESET ALL",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; COMMIT AND CHAIN",
        "DEALLOCATE \"Q 1\"; SHOW pgsteer.role",
        "SELECT 1.5, .5, 1e5, 0x1F, 1_000, 7, a1, \"b 2\", '3', $1",
        "COPY t FROM STDIN; PREPARE TRANSACTION 'x'",
        "SELECT CASE WHEN a THEN ARRAY[1] ELSE (SELECT 2 UNION TABLE u) END::int[]",
        "DO $x$ BEGIN COMMIT; END $x$; CALL p(1)",
    ];
    let mut seeds: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.push([texts[0].as_bytes(), &[PART], texts[1].as_bytes()].concat());
    seeds.push("/*".repeat(20).into_bytes());
    seeds.push("(".repeat(100).into_bytes());
    seeds.push(b"SELECT 'M\xFCller' FROM m\xFC".to_vec());
    seeds
}
