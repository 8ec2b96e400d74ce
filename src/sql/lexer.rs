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
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(rest: &'a [u8], dialect: Dialect) -> Self {
        Self { rest, dialect, last_word: None }
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
