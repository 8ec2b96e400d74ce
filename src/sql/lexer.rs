//! Just enough of PostgreSQL's lexer to know what of a text is quoted, for questions that are older
//! than the parse or need none.

use super::Dialect;
use super::Strings;

/// The first statement of a text that is not empty, without what ends it.
pub fn first_statement(sql: &[u8], dialect: Dialect) -> &[u8] {
    let mut lexer = Lexer::new(sql, dialect);
    let mut begun = false;
    loop {
        let before = sql.get(..sql.len() - lexer.rest.len()).unwrap_or(sql);
        let ends = begun && lexer.rest.first() == Some(&b';');
        match lexer.next() {
            _ if ends => return before,
            None => return sql,
            Some(Token::Other) => begun = true,
            Some(Token::Comment(_) | Token::Filler) => {}
        }
    }
}

/// Whether a server may make something else of the text than what it is as
/// [`Strings::Standard`]: by the setting of strings, or of letters, that it has read in its
/// configuration and that nobody has been told yet. A text that it would refuse then does nothing
/// anywhere, and is as good as one that reads alike.
///
/// What can differ is where a string ends, and so what is a string, by a backslash in front of a
/// quote: it is an escape, or is none, or is the second byte of a letter. No other byte that
/// tells what is quoted can be a part of a letter: no letter has a byte below `0`. (A name of other
/// letters may become another name; that something has just that one is not reckoned with.)
///
/// Source: `xqstart` in `parser/scan.l`; the `IS...TAIL` and `..._verifychar` of `common/wchar.c`.
pub(super) fn may_read_otherwise(sql: &[u8]) -> bool {
    // Nearly every text ends here.
    if !sql.windows(2).any(|pair| pair == b"\\'") {
        return false;
    }
    // With each backslash a part of the letter before it that may be one.
    let mut swallowed = sql.to_vec();
    for (at, pair) in sql.windows(2).enumerate() {
        if let ([0x80..=0xFF, b'\\'], Some(byte)) = (pair, swallowed.get_mut(at + 1)) {
            *byte = b'a';
        }
    }
    let others = [
        (sql, Strings::Escaping),
        (&swallowed, Strings::Standard),
        (&swallowed, Strings::Escaping),
    ];
    let of = |sql, strings| Lexer::new(sql, Dialect { strings, ..Dialect::default() });
    let standard = of(sql, Strings::Standard);
    others.into_iter().any(|(sql, strings)| standard.quotes_otherwise_than(of(sql, strings)))
}

/// What the lexer tells apart.
pub(super) enum Token<'a> {
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
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    dialect: Dialect,
    /// The word that ended just before `rest`, if one did: `E` before a quote, or anything
    /// before a dollar, changes what it means.
    last_word: Option<&'a [u8]>,
    /// What is open at the end: a syntax error.
    unclosed: Unclosed,
}

/// What the end of a text left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unclosed {
    /// Nothing that was looked at.
    Nothing,
    /// A string.
    String,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(rest: &'a [u8], dialect: Dialect) -> Self {
        Self { rest, dialect, last_word: None, unclosed: Unclosed::Nothing }
    }

    /// Whether in a text of the same length something else is quoted, and nothing in it is a syntax
    /// error that can be seen here.
    fn quotes_otherwise_than(&self, mut other: Lexer<'_>) -> bool {
        let mut own = Lexer::new(self.rest, self.dialect);
        while own.rest.len() == other.rest.len() {
            if own.next().is_none() {
                return false;
            }
            other.next();
        }
        // No statement has a backslash that is not quoted.
        while other.rest.first() != Some(&b'\\') {
            if other.next().is_none() {
                return other.unclosed == Unclosed::Nothing;
            }
        }
        false
    }

    pub(super) fn next(&mut self) -> Option<Token<'a>> {
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
                self.string(match word_before {
                    Some(b"e" | b"E") => Strings::Escaping,
                    Some(b"b" | b"B" | b"x" | b"X") => Strings::Standard,
                    Some(_) | None => self.dialect.strings,
                });
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
                    [] => {
                        self.unclosed = Unclosed::String;
                        return;
                    }
                }
            }
            self.skip(1);
            let Some(next) = self.continuation() else { return };
            self.rest = next;
        }
    }

    /// Where a string goes on: a quote behind blanks, with a line break among them.
    fn continuation(&self) -> Option<&'a [u8]> {
        let mut ahead = Lexer::new(self.rest, self.dialect);
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

    /// A text that nobody reads otherwise is judged as ever: it may go to a standby.
    #[test]
    fn what_may_be_read_otherwise_is_known() {
        let otherwise: [&[u8]; 5] = [
            br"SELECT '\' || ', pg_advisory_lock(7), ' --' FROM t",
            br"SELECT 'a\\\', f(), '",
            b"SELECT '\\' || ', f(), ' --\n' FROM t",
            "SELECT E'\u{3043}\\', f(), ' --' FROM t".as_bytes(),
            b"SELECT E'\x82\\\\', f(), ' --' FROM t",
        ];
        for sql in otherwise {
            assert!(may_read_otherwise(sql), "{}", sql.escape_ascii());
        }
        let alike: [&[u8]; 13] = [
            b"SELECT '\x95\\' FROM t",
            b"SELECT 1",
            br"SELECT E'it\'s'",
            br"SELECT e'\\' || E'a\'\'b'",
            br"SELECT '\d+', 'C:\dir\file'",
            br"SELECT 'C:\dir\\'",
            // An escape, the string would not end, or a backslash would be left alone.
            br"SELECT 1 FROM t WHERE x LIKE 'a\_' ESCAPE '\'",
            br"SELECT 1 FROM t WHERE x LIKE 'a\_' ESCAPE '\' AND y LIKE 'b' ESCAPE '\' AND z = 'c'",
            br#"SELECT "a\'b", $$\'$$, $a$'\'$a$ -- \'"#,
            br"SELECT 1 /* it\'s */",
            "SELECT '\u{3043}\\n'".as_bytes(),
            "SELECT '\u{3043}', E'\\''".as_bytes(),
            b"",
        ];
        for sql in alike {
            assert!(!may_read_otherwise(sql), "{}", sql.escape_ascii());
        }
    }

    #[test]
    fn the_first_statement_ends_where_the_second_begins() {
        let cases = [
            ("ROLLBACK", "ROLLBACK"),
            ("ROLLBACK TO \"a;b\" ; EXECUTE s", "ROLLBACK TO \"a;b\" "),
            (" ; -- a;\n/* b; */ COMMIT;EXECUTE s;", " ; -- a;\n/* b; */ COMMIT"),
            ("SELECT ';', $$;$$, E'\\';' ; SELECT 1", "SELECT ';', $$;$$, E'\\';' "),
            (";;", ";;"),
            ("", ""),
        ];
        for (sql, first) in cases {
            let found = first_statement(sql.as_bytes(), Dialect::default());
            assert_eq!(std::str::from_utf8(found), Ok(first), "{sql}");
        }
    }
}
