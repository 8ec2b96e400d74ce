//! Hints: `/* pgsteer: role=primary, consistency=session */` before or after a statement.
//!
//! A comment counts only if nothing but blanks, comments and semicolons stand before it, or
//! behind it; so a text in quotes is never taken for one, and neither is a comment in the middle
//! of a statement that some tool assembled from pieces.

use super::Dialect;
use super::Encoding;
use super::Strings;
use super::facts::Hints;
use super::guard;

/// What a hint begins with, inside the comment.
const PREFIX: &str = "pgsteer:";

/// Longest comment that is looked at, in bytes.
const MAX_HINT: usize = 512;

/// Most names in one text.
const MAX_WISHES: usize = 16;

/// The hints of a text, if it has any.
pub(super) fn find(sql: &[u8], dialect: Dialect) -> Option<Hints> {
    // Of a text that is too long to be parsed only the beginning is looked at.
    let is_long = sql.len() > guard::MAX_PARSED;
    let sql = if is_long { sql.get(..MAX_HINT).unwrap_or(sql) } else { sql };
    let leading_only = is_long || dialect.encoding == Encoding::Unsafe;
    // Nearly every text ends here.
    if !sql.windows(PREFIX.len()).any(|window| window == PREFIX.as_bytes()) {
        return None;
    }
    let mut lexer = Lexer { rest: sql, dialect, last_word: None };
    let (mut leading, mut trailing) = (Vec::new(), Vec::new());
    let mut begun = false;
    while let Some(token) = lexer.next() {
        match token {
            Token::Comment(text) if !begun => leading.push(text),
            Token::Comment(text) => trailing.push(text),
            Token::Filler => {}
            Token::Other => {
                begun = true;
                trailing.clear();
                // In an unsafe encoding a byte that looks like a quote may be none.
                if leading_only {
                    break;
                }
            }
        }
    }
    let mut hints = Hints::default();
    for comment in leading.into_iter().chain(trailing) {
        read(comment, &mut hints);
    }
    (hints != Hints::default()).then_some(hints)
}

/// Reads one comment's inside.
fn read(comment: &[u8], hints: &mut Hints) {
    let Ok(text) = std::str::from_utf8(comment) else { return };
    let Some(body) = text.trim().strip_prefix(PREFIX) else { return };
    if text.len() > MAX_HINT {
        hints.malformed = Some(body.chars().take(MAX_HINT).collect::<String>().into());
        return;
    }
    for wish in body.split(',') {
        match one(wish) {
            Some(pair) if hints.wishes.len() < MAX_WISHES => hints.wishes.push(pair),
            Some(_) | None => {
                hints.malformed.get_or_insert_with(|| body.trim().into());
            }
        }
    }
}

/// Reads `name=value`; a value may be quoted in `'...'`.
fn one(wish: &str) -> Option<(Box<str>, Box<str>)> {
    let (name, value) = wish.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let value = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.()/:+-".contains(letter);
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let valued = !value.is_empty() && value.chars().all(plain);
    (named && valued).then(|| (name.to_ascii_lowercase().into(), value.into()))
}

/// What the lexer tells apart.
enum Token<'a> {
    /// The inside of `/* ... */`.
    Comment(&'a [u8]),
    /// A blank, a line comment, a semicolon.
    Filler,
    /// Anything of a statement.
    Other,
}

/// Just enough of PostgreSQL's lexer to know what is quoted.
///
/// Source: PostgreSQL manual, 4.1 "Lexical Structure"; `parser/scan.l`.
struct Lexer<'a> {
    rest: &'a [u8],
    dialect: Dialect,
    /// The word that ended just before `rest`, if one did: `E` before a quote, or anything
    /// before a dollar, changes what it means.
    last_word: Option<&'a [u8]>,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        let word_before = self.last_word.take();
        let rest = self.rest;
        match rest {
            [] => None,
            [b'/', b'*', ..] => Some(self.block_comment()),
            [b'-', b'-', ..] => {
                let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                self.skip(end.unwrap_or(rest.len()));
                Some(Token::Filler)
            }
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b';', ..] => {
                self.skip(1);
                Some(Token::Filler)
            }
            [b'\'', ..] => {
                let marked = word_before.is_some_and(|word| matches!(word, b"e" | b"E"));
                self.string(if marked { Strings::Escaping } else { self.dialect.strings });
                Some(Token::Other)
            }
            [b'"', ..] => {
                let closing = rest.iter().skip(1).position(|b| *b == b'"');
                self.skip(closing.map_or(rest.len(), |at| at + 2));
                Some(Token::Other)
            }
            [b'$', ..] => {
                self.dollar();
                Some(Token::Other)
            }
            [first, ..] if in_word(*first) => {
                let end = rest.iter().position(|b| !in_word(*b) && *b != b'$');
                let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest);
                self.skip(word.len());
                self.last_word = Some(word);
                Some(Token::Other)
            }
            [_, ..] => {
                self.skip(1);
                Some(Token::Other)
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or(&[]);
    }

    /// Comments nest.
    fn block_comment(&mut self) -> Token<'a> {
        let all = self.rest;
        let mut depth = 0_usize;
        loop {
            match self.rest {
                [b'/', b'*', ..] => {
                    depth += 1;
                    self.skip(2);
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    self.skip(2);
                    if depth == 0 {
                        let length = all.len() - self.rest.len();
                        return Token::Comment(all.get(2..length - 2).unwrap_or(&[]));
                    }
                }
                [_, ..] => self.skip(1),
                // Not closed: a syntax error, so no hint.
                [] => return Token::Other,
            }
        }
    }

    /// A string, and what continues it behind a line break in the same kind of quotes.
    fn string(&mut self, strings: Strings) {
        loop {
            self.skip(1);
            loop {
                match self.rest {
                    [b'\'', b'\'', ..] => self.skip(2),
                    [b'\\', _, ..] if strings == Strings::Escaping => self.skip(2),
                    [b'\'', ..] => break,
                    [_, ..] => self.skip(1),
                    [] => return,
                }
            }
            self.skip(1);
            let Some(next) = self.continuation() else { return };
            self.rest = next;
        }
    }

    /// Where a string goes on: a quote behind blanks, with a line break among them.
    fn continuation(&self) -> Option<&'a [u8]> {
        let mut ahead = Lexer { rest: self.rest, dialect: self.dialect, last_word: None };
        let mut broken = false;
        loop {
            match ahead.rest {
                [b'\'', ..] => return broken.then_some(ahead.rest),
                [b'\n' | b'\r', ..] => {
                    broken = true;
                    ahead.skip(1);
                }
                [b' ' | b'\t' | 0x0b | 0x0c, ..] => ahead.skip(1),
                [b'-', b'-', ..] => {
                    let end = ahead.rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                    ahead.skip(end?);
                }
                _ => return None,
            }
        }
    }

    /// `$tag$ ... $tag$`, or a lone dollar, as in `$1`.
    fn dollar(&mut self) {
        let rest = self.rest;
        let tag_end = rest.iter().skip(1).position(|b| !in_word(*b)).map(|at| at + 1);
        let Some(end) = tag_end.filter(|end| rest.get(*end) == Some(&b'$')) else {
            return self.skip(1);
        };
        let Some(tag) = rest.get(..=end) else { return self.skip(1) };
        if tag.get(1).is_some_and(u8::is_ascii_digit) {
            return self.skip(1);
        }
        self.skip(tag.len());
        match self.rest.windows(tag.len()).position(|window| window == tag) {
            Some(at) => self.skip(at + tag.len()),
            None => self.rest = &[],
        }
    }
}

/// What may stand in a word, without the dollar.
const fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(sql: &str) -> Vec<(String, String)> {
        let hints = find(sql.as_bytes(), Dialect::default()).unwrap_or_default();
        hints.wishes.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn a_comment_before_or_after_is_a_hint() {
        let role = vec![("role".to_owned(), "primary".to_owned())];
        for sql in [
            "/* pgsteer: role=primary */ SELECT 1",
            "SELECT 1 /* pgsteer: role=primary */",
            "SELECT 1; /*pgsteer:role=primary*/ ;",
            "-- a line\n/* a */ /* pgsteer: role = 'primary' */ SELECT 1",
            "SELECT E'a\\'' /* pgsteer: role=primary */",
            "SELECT $a$ ' $a$ /* pgsteer: role=primary */ -- end",
            "SELECT a$b FROM c$d /* pgsteer: role=primary */",
            "SELECT 'a'\n'b' /* pgsteer: role=primary */",
            "SELECT $1 /* pgsteer: role=primary */",
        ] {
            assert_eq!(wishes(sql), role, "{sql}");
        }
        assert_eq!(
            wishes("/* pgsteer: role=primary, Consistency=bounded(500ms) */ SELECT 1"),
            [("role".into(), "primary".into()), ("consistency".into(), "bounded(500ms)".into())]
        );
    }

    #[test]
    fn what_is_quoted_or_in_the_middle_is_no_hint() {
        for sql in [
            "SELECT '/* pgsteer: role=primary */'",
            "SELECT \"/* pgsteer: role=primary */\"",
            "SELECT $$ /* pgsteer: role=primary */ $$",
            "SELECT $a$ $$ /* pgsteer: role=primary */ $a$",
            "SELECT E'\\' /* pgsteer: role=primary */ '",
            "SELECT E'a'\n'\\' /* pgsteer: role=primary */ '",
            "SELECT 1 -- /* pgsteer: role=primary */",
            "SELECT /* pgsteer: role=primary */ 1",
            "SELECT 1 /* /* pgsteer: role=primary */ */",
            "SELECT 1 /* pgsteer: role=primary ",
            "/* pgsteer: role=primary",
        ] {
            assert_eq!(wishes(sql), [], "{sql}");
        }
    }

    #[test]
    fn a_hint_that_cannot_be_read_is_kept_for_a_warning() {
        for sql in [
            "/* pgsteer: role */ SELECT 1",
            "/* pgsteer: role=pri mary */ SELECT 1",
            "/* pgsteer: */ SELECT 1",
            "SELECT 1 /* pgsteer: role=; drop */",
        ] {
            let hints = find(sql.as_bytes(), Dialect::default()).unwrap();
            assert!(hints.malformed.is_some(), "{sql}");
        }
    }

    #[test]
    fn of_a_long_text_only_the_beginning_is_read() {
        let long = format!("SELECT '{}'", "x".repeat(guard::MAX_PARSED));
        let hint = "/* pgsteer: role=primary */";
        assert_eq!(wishes(&format!("{hint} {long}")).len(), 1);
        assert_eq!(wishes(&format!("{long} {hint}")), []);
    }

    #[test]
    fn in_an_unsafe_encoding_only_what_comes_first_counts() {
        let sjis = Dialect::from_encoding_name("SJIS");
        let hint = |sql: &[u8]| find(sql, sjis).is_some();
        assert!(hint(b"/* pgsteer: role=primary */ SELECT '\x83\x5c'"));
        assert!(!hint(b"SELECT '\x83\x5c' /* pgsteer: role=primary */"));
    }
}
