//! `synchronous_standby_names`, read by PostgreSQL's own grammar: who can acknowledge a commit.
//!
//! Source: `replication/syncrep_gram.y` and `syncrep_scanner.l` of PostgreSQL.

use std::fmt;
use std::sync::Arc;

/// What `synchronous_standby_names` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncNames {
    /// It is empty: nobody is waited for.
    None,
    /// Some of a list are waited for.
    Listed {
        /// Which of the list.
        method: SyncMethod,
        /// How many.
        count: u16,
        /// The names, as they are written.
        names: Vec<Arc<str>>,
    },
}

/// Which standbys of a list are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMethod {
    /// The first ones that are connected.
    First,
    /// Any.
    Any,
}

/// The text is not what PostgreSQL would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of synchronous standbys")]
pub struct InvalidSyncNames;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Any,
    First,
    Name(Arc<str>),
    Number(Arc<str>),
    Comma,
    Open,
    Close,
}

impl SyncNames {
    /// Reads the value of the setting.
    ///
    /// # Errors
    /// [`InvalidSyncNames`], where PostgreSQL would refuse the value, too.
    pub fn parse(text: &str) -> Result<Self, InvalidSyncNames> {
        if text.is_empty() {
            return Ok(Self::None);
        }
        let tokens = tokens(text)?;
        let (method, rest) = match tokens.as_slice() {
            [Token::Any, rest @ ..] => (Some(SyncMethod::Any), rest),
            [Token::First, rest @ ..] => (Some(SyncMethod::First), rest),
            rest => (None, rest),
        };
        match (method, rest) {
            (method, [Token::Number(count), Token::Open, list @ .., Token::Close]) => {
                // More than can be counted is as good as more than there are.
                let count = count.parse().unwrap_or(u16::MAX);
                if count == 0 {
                    return Err(InvalidSyncNames);
                }
                let method = method.unwrap_or(SyncMethod::First);
                Ok(Self::Listed { method, count, names: names(list)? })
            }
            (Some(_), _) => Err(InvalidSyncNames),
            (None, list) => {
                Ok(Self::Listed { method: SyncMethod::First, count: 1, names: names(list)? })
            }
        }
    }

    /// Whether any receiver at all counts, whatever it calls itself. Quoted or not is the same.
    pub fn takes_anyone(&self) -> bool {
        self.names().iter().any(|name| &**name == "*")
    }

    /// The names in the list.
    pub fn names(&self) -> &[Arc<str>] {
        match self {
            Self::None => &[],
            Self::Listed { names, .. } => names,
        }
    }
}

/// Whether a receiver that calls itself so is the one that a list means: letters count as the
/// same in either case.
///
/// Source: `SyncRepGetStandbyPriority` in `replication/syncrep.c` of PostgreSQL (`pg_strcasecmp`).
pub(super) fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn names(list: &[Token]) -> Result<Vec<Arc<str>>, InvalidSyncNames> {
    let mut names = Vec::new();
    for (token, at) in list.iter().zip(0..) {
        match (token, at % 2) {
            (Token::Name(name) | Token::Number(name), 0) => names.push(Arc::clone(name)),
            (Token::Comma, 1) => {}
            (
                Token::Any
                | Token::First
                | Token::Name(_)
                | Token::Number(_)
                | Token::Comma
                | Token::Open
                | Token::Close,
                _,
            ) => return Err(InvalidSyncNames),
        }
    }
    if list.len() % 2 == 1 { Ok(names) } else { Err(InvalidSyncNames) }
}

fn tokens(text: &str) -> Result<Vec<Token>, InvalidSyncNames> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            ' ' | '\t' | '\n' | '\r' | '\x0c' | '\x0b' => (None, 1),
            ',' => (Some(Token::Comma), 1),
            '(' => (Some(Token::Open), 1),
            ')' => (Some(Token::Close), 1),
            '*' => (Some(Token::Name("*".into())), 1),
            '"' => {
                let (name, length) = quoted(rest)?;
                (Some(Token::Name(name.into())), length)
            }
            '0'..='9' => {
                let length = end_of(rest, |sign| sign.is_ascii_digit());
                (Some(Token::Number(rest.get(..length).unwrap_or_default().into())), length)
            }
            _ if begins_word(first) => {
                let length = end_of(rest, continues_word);
                (Some(word(rest.get(..length).unwrap_or_default())), length)
            }
            _ => return Err(InvalidSyncNames),
        };
        tokens.extend(token);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(tokens)
}

fn word(text: &str) -> Token {
    if text.eq_ignore_ascii_case("any") {
        Token::Any
    } else if text.eq_ignore_ascii_case("first") {
        Token::First
    } else {
        Token::Name(text.into())
    }
}

/// A quoted name at the beginning of the text, and how long it is there.
fn quoted(text: &str) -> Result<(String, usize), InvalidSyncNames> {
    let mut name = String::new();
    let mut signs = text.char_indices().skip(1).peekable();
    while let Some((at, sign)) = signs.next() {
        if sign != '"' {
            name.push(sign);
        } else if signs.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Ok((name, at + 1));
        }
    }
    Err(InvalidSyncNames)
}

fn end_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|sign| !belongs(sign)).unwrap_or(text.len())
}

fn begins_word(sign: char) -> bool {
    sign.is_ascii_alphabetic() || sign == '_' || !sign.is_ascii()
}

fn continues_word(sign: char) -> bool {
    begins_word(sign) || sign.is_ascii_digit() || sign == '$'
}

impl fmt::Display for SyncNames {
    /// As PostgreSQL reads it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Listed { method, count, names } = self else { return Ok(()) };
        let method = match method {
            SyncMethod::First => "FIRST",
            SyncMethod::Any => "ANY",
        };
        let names: Vec<_> =
            names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        write!(out, "{method} {count} ({})", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(method: SyncMethod, count: u16, names: &[&str]) -> SyncNames {
        let names = names.iter().map(|name| Arc::from(*name)).collect();
        SyncNames::Listed { method, count, names }
    }

    /// Each was tried on PostgreSQL 15: what is refused here, `ALTER SYSTEM` refuses.
    #[test]
    fn the_list_is_read_as_postgresql_reads_it() {
        use SyncMethod::{Any, First};
        let cases = [
            ("", Ok(SyncNames::None)),
            ("a", Ok(listed(First, 1, &["a"]))),
            ("a, b ,c", Ok(listed(First, 1, &["a", "b", "c"]))),
            ("2 (a, b)", Ok(listed(First, 2, &["a", "b"]))),
            ("FIRST 1 (a)", Ok(listed(First, 1, &["a"]))),
            ("any 2(a,b,c)", Ok(listed(Any, 2, &["a", "b", "c"]))),
            ("ANY 1 (*)", Ok(listed(Any, 1, &["*"]))),
            ("*", Ok(listed(First, 1, &["*"]))),
            ("ANY 1 (\"db-1:5432\", \"a\"\"b\")", Ok(listed(Any, 1, &["db-1:5432", "a\"b"]))),
            ("\"any\"", Ok(listed(First, 1, &["any"]))),
            ("anyone", Ok(listed(First, 1, &["anyone"]))),
            ("ANY 99999999999 (a)", Ok(listed(Any, u16::MAX, &["a"]))),
            ("ANY 1 (1, 2)", Ok(listed(Any, 1, &["1", "2"]))),
            ("12", Ok(listed(First, 1, &["12"]))),
            ("s1$x", Ok(listed(First, 1, &["s1$x"]))),
            ("é", Ok(listed(First, 1, &["é"]))),
            (" ", Err(InvalidSyncNames)),
            ("any", Err(InvalidSyncNames)),
            ("ANY 0 (a)", Err(InvalidSyncNames)),
            ("ANY (a)", Err(InvalidSyncNames)),
            ("ANY 1 a", Err(InvalidSyncNames)),
            ("ANY 1 ()", Err(InvalidSyncNames)),
            ("a,", Err(InvalidSyncNames)),
            ("a b", Err(InvalidSyncNames)),
            ("db-1", Err(InvalidSyncNames)),
            ("a.b", Err(InvalidSyncNames)),
            ("\"a", Err(InvalidSyncNames)),
            ("2 (a, any)", Err(InvalidSyncNames)),
        ];
        for (text, expected) in cases {
            assert_eq!(SyncNames::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_quoted_star_is_a_star() {
        for text in ["*", "ANY 1 (a, \"*\")"] {
            assert!(SyncNames::parse(text).unwrap().takes_anyone(), "{text}");
        }
        assert!(!SyncNames::parse("ANY 1 (\"**\")").unwrap().takes_anyone());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            names in proptest::collection::vec(".{1,12}", 1..5),
            count in 1_u16..9,
            any in any::<bool>(),
        ) {
            let method = if any { SyncMethod::Any } else { SyncMethod::First };
            let names = names.iter().map(|name| Arc::from(name.as_str())).collect();
            let list = SyncNames::Listed { method, count, names };
            prop_assert_eq!(SyncNames::parse(&list.to_string()), Ok(list));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _read = SyncNames::parse(&text);
        }
    }
}
