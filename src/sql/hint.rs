//! Hints: `/* pgsteer: role=primary, consistency=session */` before or after a statement.
//!
//! A comment counts only if nothing but blanks, comments and semicolons stand before it, or
//! behind it; so a text in quotes is never taken for one, and neither is a comment in the middle
//! of a statement that some tool assembled from pieces.

use super::Dialect;
use super::Encoding;
use super::facts::Hints;
use super::guard;
use super::lexer::{Lexer, Token};

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
    let mut lexer = Lexer::new(sql, dialect);
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
