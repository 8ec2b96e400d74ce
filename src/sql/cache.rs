//! The facts of statements that were seen before.
//!
//! One for each shard: nothing is shared, nothing is locked. By their exact bytes, because facts
//! may depend on a literal (`set_config('role', ...)`) and on a comment (hints); but for whole
//! numbers, where facts can't depend on them (`blind`).

use super::Class;
use super::Dialect;
use super::Effects;
use super::Facts;
use super::blind::mark_numbers;
use super::examine;
use super::recent::Recent;
use quick_cache::Equivalent;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

/// Longest text that is remembered, in bytes; longer ones are seldom repeated to the byte.
const MAX_REMEMBERED: usize = 8 * 1024;

/// Facts by exact bytes and dialect, within a bound of entries and of bytes.
pub struct FactsCache {
    known: Cache<Key, Arc<Facts>, ByBytes>,
    recent: Recent,
    /// The last text with its numbers marked; kept for its room.
    marked: Vec<u8>,
}

impl FactsCache {
    /// Remembers about `entries` texts, and at most so many bytes of them and their facts.
    pub fn new(entries: usize, bytes: u64) -> Self {
        let entries = entries.max(1);
        let floor = bytes / u64::try_from(entries).unwrap_or(u64::MAX);
        let weighter = ByBytes { floor: floor.max(1) };
        let known = Cache::with_weighter(entries, bytes, weighter);
        Self { known, recent: Recent::default(), marked: Vec::new() }
    }

    /// The facts of a text.
    pub fn examine(&mut self, sql: &[u8], dialect: Dialect) -> Arc<Facts> {
        if sql.len() > MAX_REMEMBERED {
            return Arc::new(examine(sql, dialect));
        }
        if let Some(facts) = self.recent.facts(sql, dialect) {
            return Arc::clone(facts);
        }
        let (facts, numbers) = self.look_up(sql, dialect);
        if may_set_a_password(sql, &facts) {
            return facts;
        }
        self.recent.keep((sql, &self.marked), dialect, (&facts, numbers));
        facts
    }

    fn look_up(&mut self, sql: &[u8], dialect: Dialect) -> (Arc<Facts>, Numbers) {
        let has_numbers = mark_numbers(sql, dialect, &mut self.marked);
        if has_numbers {
            let text = Text { sql: &self.marked, dialect, numbers: Numbers::Marked };
            if let Some(facts) = self.known.get(&text) {
                return (Arc::clone(facts), Numbers::Marked);
            }
        }
        if let Some(facts) = self.known.get(&Text { sql, dialect, numbers: Numbers::Kept }) {
            return (Arc::clone(facts), Numbers::Kept);
        }
        let facts = Arc::new(examine(sql, dialect));
        // What was not understood for one number may be for another.
        let (numbers, text) = if has_numbers && !facts.effects().any(Effects::UNKNOWN) {
            (Numbers::Marked, &*self.marked)
        } else {
            (Numbers::Kept, sql)
        };
        if may_set_a_password(text, &facts) {
            return (facts, numbers);
        }
        self.known.insert(Key { sql: text.into(), dialect, numbers }, Arc::clone(&facts));
        (facts, numbers)
    }

    /// How many texts are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Default for FactsCache {
    /// 16,384 texts, 16 MiB a shard.
    fn default() -> Self {
        Self::new(16 * 1024, 16 * 1024 * 1024)
    }
}

impl fmt::Debug for FactsCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("FactsCache").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Whether a text may have a password in it that it sets: `ALTER ROLE`, `CREATE SUBSCRIPTION`, a
/// `DO` that does so, or what was not understood. Such texts are seldom repeated.
fn may_set_a_password(sql: &[u8], facts: &Facts) -> bool {
    const WORD: &[u8] = b"password";
    matches!(facts.class(), Class::Utility | Class::Unknown)
        && sql.windows(WORD.len()).any(|word| word.eq_ignore_ascii_case(WORD))
}

/// Whether a key stands for one text, or for all that differ from it in whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Numbers {
    Kept,
    Marked,
}

/// A remembered text.
#[derive(PartialEq, Eq)]
struct Key {
    sql: Box<[u8]>,
    dialect: Dialect,
    numbers: Numbers,
}

/// A text that is asked for.
struct Text<'a> {
    sql: &'a [u8],
    dialect: Dialect,
    numbers: Numbers,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Text { sql: &self.sql, dialect: self.dialect, numbers: self.numbers }.hash(state);
    }
}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.sql);
        self.dialect.hash(state);
        self.numbers.hash(state);
    }
}

impl Equivalent<Key> for Text<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.sql == *key.sql && self.dialect == key.dialect && self.numbers == key.numbers
    }
}

/// Weighs an entry by its bytes, but at least by its share of the bound, so that the entries
/// are bounded as well.
#[derive(Clone)]
struct ByBytes {
    floor: u64,
}

impl Weighter<Key, Arc<Facts>> for ByBytes {
    fn weight(&self, key: &Key, facts: &Arc<Facts>) -> u64 {
        let bytes = size_of::<Key>() + key.sql.len() + facts.weight();
        u64::try_from(bytes).unwrap_or(u64::MAX).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_examined_once() {
        let mut cache = FactsCache::default();
        let first = cache.examine(b"SELECT 1", Dialect::default());
        let second = cache.examine(b"SELECT 1", Dialect::default());
        assert!(Arc::ptr_eq(&first, &second));
        let sjis = cache.examine(b"SELECT 1", Dialect::from_encoding_name("SJIS"));
        assert!(sjis.effects().any(Effects::UNKNOWN), "another dialect, other facts");
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn texts_that_differ_in_numbers_alone_are_examined_once() {
        let mut cache = FactsCache::default();
        let mut facts = |sql: &str| cache.examine(sql.as_bytes(), Dialect::default());
        let first = facts("SELECT a FROM t WHERE id = 7");
        assert!(Arc::ptr_eq(&first, &facts("SELECT a FROM t WHERE id = 8888")));
        assert!(!Arc::ptr_eq(&first, &facts("SELECT a FROM t WHERE id = '7'")));
        assert!(!Arc::ptr_eq(&first, &facts("SELECT a FROM t WHERE id = 7 FOR UPDATE")));
        assert!(!Arc::ptr_eq(&first, &facts("SELECT a FROM t WHERE id = \0")), "no number at all");
    }

    #[test]
    fn a_password_that_is_set_is_not_remembered() {
        let mut cache = FactsCache::default();
        for sql in [
            "ALTER ROLE carol PASSWORD 'secret' VALID UNTIL '2030-01-01' CONNECTION LIMIT 7",
            "create user dave encrypted password 'secret'",
            "DO $$ BEGIN EXECUTE 'ALTER ROLE carol PASSWORD ''secret'''; END $$",
            "ALTER ROLE carol PASSWORD 'secret' and nonsense",
        ] {
            let facts = cache.examine(sql.as_bytes(), Dialect::default());
            assert!(cache.is_empty(), "{sql} is kept: {facts:?}");
            assert!(cache.recent.facts(sql.as_bytes(), Dialect::default()).is_none(), "{sql}");
        }
        for sql in ["SELECT password FROM users WHERE id = 7", "ALTER ROLE carol NOLOGIN"] {
            cache.examine(sql.as_bytes(), Dialect::default());
        }
        assert_eq!(cache.len(), 2, "these hold none");
    }

    /// Texts that begin alike share a place among the recent ones.
    #[test]
    fn a_recent_text_fits_only_where_it_was_marked_alike() {
        let texts = [
            "SELECT a FROM t WHERE id = 7",
            "SELECT a FROM t WHERE id = 77 ",
            "SELECT a FROM t WHERE id = 7x",
            "SELECT a FROM t WHERE id = x7",
            "SELECT a FROM t WHERE id = 7.5",
            "SELECT a FROM t WHERE id = ",
            "SELECT a FROM t WHERE id = '7'",
            "SELECT a FROM t WHERE id = 7 AND f(8) > 9 FOR UPDATE",
            "SELECT a FROM t WHERE id = 7 AND f(8) > 9",
            "SELECT a FROM t WHERE id = 7 AND f(8) > ",
            "SELECT a FROM t WHERE id = 7; SELECT 8",
            "SELECT a FROM t WHERE id = \x007",
            "SELECT a FROM t WHERE id = \0",
        ];
        let mut cache = FactsCache::default();
        for (first, second) in texts.iter().flat_map(|a| texts.iter().map(move |b| (a, b))) {
            cache.examine(first.as_bytes(), Dialect::default());
            let found = cache.examine(second.as_bytes(), Dialect::default());
            let fresh = FactsCache::default().examine(second.as_bytes(), Dialect::default());
            assert_eq!(format!("{found:?}"), format!("{fresh:?}"), "{first:?}, then {second:?}");
        }
    }

    #[test]
    fn entries_and_bytes_are_bounded() {
        let mut few = FactsCache::new(10, 1024 * 1024);
        let mut small = FactsCache::new(10_000, 64 * 1024);
        for number in 0..5_000 {
            let sql = format!("SELECT a{number} /* {} */", "x".repeat(100));
            few.examine(sql.as_bytes(), Dialect::default());
            small.examine(sql.as_bytes(), Dialect::default());
        }
        assert!(few.len() <= 10, "{}", few.len());
        assert!(small.len() <= 64 * 1024 / 140, "{}", small.len());
        let long = format!("SELECT '{}'", "x".repeat(MAX_REMEMBERED));
        let before = small.len();
        small.examine(long.as_bytes(), Dialect::default());
        assert_eq!(small.len(), before, "long texts aren't remembered");
    }
}
