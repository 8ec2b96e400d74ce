//! One key for all texts that differ only in whole numbers: `WHERE id = 7` and `WHERE id = 8`.
//!
//! Clients of the simple protocol write their values into the text, so that hardly two are equal to
//! the byte, and parsing each costs more than everything else that is done to it. One pass over the
//! bytes, without the grammar, puts a mark in the place of each whole number. It is done only where
//! facts can't depend on a number, and only where the pass is certain to read as the grammar does;
//! everything else keeps its exact bytes as its key.
//!
//! Facts do depend on numbers in `EXPLAIN (ANALYZE 0)` and `SET pgsteer.x = 5`, so the text must be
//! a single statement that begins with one of [`BEGINNINGS`]. In a few places the grammar refuses
//! some numbers (`float(99)`): a text that it refuses does nothing anywhere, so it does not matter
//! where it is sent.
//!
//! Deliberately absent: strings, which `set_config` makes facts of.

use super::dialect::{Dialect, Encoding, Strings};

/// What stands for a whole number. No text holds it: it would end the message.
pub(super) const MARK: u8 = 0;

/// The first words of statements whose facts no number can change.
const BEGINNINGS: [&[u8]; 6] = [b"select", b"insert", b"update", b"delete", b"with", b"values"];

/// Writes `sql` with its whole numbers marked to `out`. Whether there were any, and the text is
/// one whose facts don't depend on them; otherwise `out` is worth nothing.
///
/// Source: `scan.l` of PostgreSQL: `decinteger`, `identifier`, `xqstart`, `xdstart`, `comment`.
pub(super) fn mark_numbers(sql: &[u8], dialect: Dialect, out: &mut Vec<u8>) -> bool {
    out.clear();
    let readable = match (dialect.encoding, dialect.strings) {
        (Encoding::Utf8 | Encoding::AsciiSafe, Strings::Standard) => true,
        (Encoding::Unsafe, _) | (_, Strings::Escaping) => false,
    };
    if !readable || !begins_well(sql) {
        return false;
    }
    let mut found = false;
    // What lies between the last number and here is copied in one piece.
    let (mut copied, mut at) = (0, 0);
    while let Some((begun, byte)) = next_to_look_at(sql, at) {
        let before = begun.checked_sub(1).and_then(|before| sql.get(before));
        let inside = before.is_some_and(|before| continues_word(*before));
        if kind(byte) == Kind::Digit {
            at = word_end(sql, begun);
            let word = sql.get(begun..at).unwrap_or_default();
            if !inside && word.iter().all(u8::is_ascii_digit) {
                found = true;
                out.extend_from_slice(sql.get(copied..begun).unwrap_or_default());
                out.push(MARK);
                copied = at;
            }
            continue;
        }
        // A quote right behind a word may belong to it: E'...', U&"...".
        if matches!(byte, b'\'' | b'"') && (inside || before == Some(&b'&')) {
            return false;
        }
        match passed_over(byte, sql.get(begun..).unwrap_or_default()) {
            Some(length) => at = begun + length,
            None => return false,
        }
    }
    out.extend_from_slice(sql.get(copied..).unwrap_or_default());
    found
}

/// The next byte, from there on, that does not simply stand for itself, and where it is.
fn next_to_look_at(sql: &[u8], from: usize) -> Option<(usize, u8)> {
    let rest = sql.get(from..)?;
    let (blocks, _) = rest.as_chunks::<BLOCK>();
    let passed = blocks.iter().take_while(|block| is_plain_throughout(block)).count() * BLOCK;
    let rest = rest.get(passed..)?;
    let at = rest.iter().position(|byte| kind(*byte) != Kind::Plain)?;
    Some((from + passed + at, *rest.get(at)?))
}

/// Bytes that are looked at together.
const BLOCK: usize = 16;

/// Whether these are letters, blanks and the like: none that is not plain, at the price of some
/// that are. Without a branch, so that the compiler looks at all of them at once.
fn is_plain_throughout(block: &[u8; BLOCK]) -> bool {
    block.iter().fold(true, |plain, byte| plain & is_surely_plain(*byte))
}

const fn is_surely_plain(byte: u8) -> bool {
    byte >= b'@' && byte != b'\\' || byte == b' '
}

/// How far the pass may go on behind a byte that may begin what it can't read; `rest` begins with
/// it.
fn passed_over(byte: u8, rest: &[u8]) -> Option<usize> {
    match (byte, rest.get(1)) {
        (b'\'' | b'"', _) => quoted(rest, byte),
        // Comments may hold hints, `$` begins quotes and parameters, a bar ends a statement in
        // psql alone.
        (b'-', Some(b'-')) | (b'/', Some(b'*')) | (b'$' | b'\\' | MARK, _) => None,
        (b';', _) => rest.get(1..)?.iter().all(u8::is_ascii_whitespace).then_some(rest.len()),
        _ => Some(1),
    }
}

fn begins_well(sql: &[u8]) -> bool {
    let text = sql.trim_ascii_start();
    let length = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let first = text.get(..length).unwrap_or_default();
    let ends = text.get(length).is_none_or(|byte| !continues_word(*byte));
    let alike =
        |beginning: &&[u8]| beginning.len() == length && first.eq_ignore_ascii_case(beginning);
    ends && BEGINNINGS.iter().any(alike)
}

/// What a byte is to the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It stands for itself.
    Plain,
    /// A part of a number, or of a word.
    Digit,
    /// It may begin a string, a comment, or the end.
    Careful,
}

impl Kind {
    const fn of(byte: u8) -> Self {
        match byte {
            b'0'..=b'9' => Self::Digit,
            b'\'' | b'"' | b'-' | b'/' | b'$' | b'\\' | b';' | MARK => Self::Careful,
            _ => Self::Plain,
        }
    }
}

/// One look a byte, for there are many.
#[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "while it is compiled")]
static KINDS: [Kind; 256] = {
    let mut table = [Kind::Plain; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = Kind::of(byte);
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

fn kind(byte: u8) -> Kind {
    KINDS.get(usize::from(byte)).copied().unwrap_or(Kind::Careful)
}

/// Letters, digits, `_`, `.` and every byte of a character beyond ASCII: what makes a number a
/// part of something else.
const fn continues_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte >= 0x80
}

/// Where the word ends that goes on at `from`.
fn word_end(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let length = rest.iter().position(|byte| !continues_word(*byte));
    length.map_or(text.len(), |length| from + length)
}

/// The length of a string or a quoted name, with its quotes; `None` if it does not end.
fn quoted(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text.get(at..)?.iter().position(|byte| *byte == quote)? + 1;
        if text.get(at) != Some(&quote) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::cache::Numbers;
    use crate::sql::examine;
    use crate::sql::recent::Recent;
    use proptest::prelude::*;

    fn marked(sql: &str) -> Option<String> {
        let mut out = Vec::new();
        let marked = mark_numbers(sql.as_bytes(), Dialect::default(), &mut out);
        marked.then(|| String::from_utf8(out).unwrap().replace('\0', "?"))
    }

    #[test]
    fn whole_numbers_are_marked_and_nothing_else() {
        let cases = [
            ("SELECT a FROM t WHERE id = 123;", Some("SELECT a FROM t WHERE id = ?;")),
            (" select -1, +22 ,(3)", Some(" select -?, +? ,(?)")),
            ("UPDATE t1 SET b2 = b2 + -42 WHERE a=7", Some("UPDATE t1 SET b2 = b2 + -? WHERE a=?")),
            ("SELECT 1.5, .5, 1e5, 0x1F, 1_000, 7", Some("SELECT 1.5, .5, 1e5, 0x1F, 1_000, ?")),
            ("SELECT 'a1 2', \"b 3\", 4", Some("SELECT 'a1 2', \"b 3\", ?")),
            ("SELECT 'it''s 1', 2", Some("SELECT 'it''s 1', ?")),
            ("SELECT ä1, 2", Some("SELECT ä1, ?")),
            ("SELECT a", None),
            ("SELECT 1x", None),
            ("SELECT 1; SET pgsteer.x = 5", None),
            ("SELECT E'\\'1', 2", None),
            ("SELECT U&'1', 2", None),
            ("SELECT $1, 2", None),
            ("SELECT $$ 1 $$, 2", None),
            ("SELECT 1 -- 2", None),
            ("/* pgsteer: role=primary */ SELECT 1", None),
            ("SELECT 1 /* 2 */", None),
            ("SELECT 'open, 1", None),
            ("EXPLAIN (ANALYZE 0) SELECT 1", None),
            ("SET pgsteer.x = 5", None),
            ("selected 1", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(marked(sql).as_deref(), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_surely_plain_is_plain() {
        for byte in 0..=u8::MAX {
            assert!(!is_surely_plain(byte) || kind(byte) == Kind::Plain, "{byte}");
        }
    }

    #[test]
    fn what_is_read_in_another_way_keeps_its_bytes() {
        let mut out = Vec::new();
        let sjis = Dialect::from_encoding_name("SJIS");
        assert!(!mark_numbers(b"SELECT 1", sjis, &mut out));
        let escaping = Dialect::default().with_standard_conforming_strings("off");
        assert!(!mark_numbers(b"SELECT 1", escaping, &mut out));
        assert!(!mark_numbers(b"SELECT 1, \0", Dialect::default(), &mut out));
    }

    /// Pieces that go together often enough to make statements of.
    const PIECES: [&str; 40] = [
        "SELECT",
        "FROM t",
        "WHERE a =",
        "1",
        "22",
        "4294967296",
        "99999999999999999999",
        ",",
        "(",
        ")",
        "AND b <",
        "OR",
        "LIMIT",
        "OFFSET",
        "ORDER BY",
        "GROUP BY",
        "f(",
        "set_config('a',",
        "'x'",
        "\"Q 1\"",
        "FOR UPDATE",
        "UNION SELECT",
        "IN (",
        "::int",
        "::numeric(",
        "*",
        "+",
        "-",
        "= ANY (ARRAY[",
        "]",
        "INSERT INTO t VALUES (",
        "UPDATE t SET a =",
        "DELETE FROM t",
        "RETURNING",
        "nextval('s')",
        "pg_sleep(",
        "WITH x AS (",
        "FETCH FIRST",
        "ROWS ONLY",
        ";",
    ];

    proptest! {
        /// What is told from a recent text is what marking it anew tells.
        #[test]
        fn a_recent_text_fits_what_is_marked_alike(
            pieces in prop::collection::vec(0..PIECES.len(), 1..8),
            changed in 0_usize..8,
            other in 0..PIECES.len(),
            between in prop::sample::select(vec!["", " "]),
        ) {
            let text = |pieces: &[usize]| {
                let words: Vec<_> = pieces.iter().map(|at| PIECES[*at]).collect();
                format!("SELECT {}", words.join(between))
            };
            let one = text(&pieces);
            let mut pieces = pieces;
            if let Some(piece) = pieces.get_mut(changed) {
                *piece = other;
            }
            let two = text(&pieces);
            let dialect = Dialect::default();
            let facts = std::sync::Arc::new(examine(one.as_bytes(), dialect));
            let mut key = Vec::new();
            let mut recent = Recent::default();
            let numbers = if mark_numbers(one.as_bytes(), dialect, &mut key) {
                Numbers::Marked
            } else {
                Numbers::Kept
            };
            recent.keep((one.as_bytes(), &key), dialect, (&facts, numbers));
            let alike = match numbers {
                Numbers::Kept => one == two,
                Numbers::Marked => marked(&one) == marked(&two),
            };
            let fits = recent.facts(two.as_bytes(), dialect).is_some();
            // Texts whose beginnings differ are kept in different places.
            let mixed = one.as_bytes().iter().take(40).any(u8::is_ascii_digit);
            prop_assert!(fits == alike || alike && mixed, "{one} | {two}");
        }

        /// Two texts of one key have the same facts, whatever the numbers are.
        #[test]
        fn numbers_change_no_facts(
            pieces in prop::collection::vec(0..PIECES.len(), 1..14),
            numbers in prop::collection::vec(0_u64..u64::MAX, 14),
        ) {
            let one = pieces.iter().map(|at| PIECES[*at]).collect::<Vec<_>>().join(" ");
            let mut next = numbers.iter();
            let other: Vec<_> = pieces
                .iter()
                .map(|at| match PIECES[*at] {
                    "1" | "22" | "4294967296" => next.next().unwrap().to_string(),
                    piece => piece.to_owned(),
                })
                .collect();
            let other = other.join(" ");
            let (key, same) = (marked(&one), marked(&other));
            prop_assert_eq!(&key, &same, "{} {}", one, other);
            if key.is_some() {
                let facts = |sql: &str| {
                    format!("{:?}", examine(sql.as_bytes(), Dialect::default()))
                };
                prop_assert_eq!(facts(&one), facts(&other), "{} {}", one, other);
            }
        }
    }
}
