//! Users and their passwords or verifiers, from a file in PgBouncer's format.
//!
//! A line has two texts in double quotes, the name and the password or verifier; a quote within
//! a text is doubled. What follows on the line is ignored, and so are empty lines and those
//! that begin with `;` or `#`.
//!
//! Source: PgBouncer's manual, "Authentication file format".

use super::Password;
use super::Secret;
use super::scram::Verifier;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The longest password that the protocol can carry in one message, in bytes.
const PASSWORD_MAX: usize = 8192;

/// What is stored of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The password itself: for every method, towards clients and servers.
    Password(Password),
    /// A SCRAM verifier: clients can prove themselves against it.
    Verifier(Verifier),
    /// `md5` and 32 digits: only for servers that ask for md5.
    Md5(Secret),
}

/// All users of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Userlist(BTreeMap<Arc<str>, Stored>);

/// Where a file is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserlistError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for UserlistError {
    /// `line: what`, to be put behind the file's name and a colon.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.line, self.what)
    }
}

impl std::error::Error for UserlistError {}

impl Userlist {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, UserlistError> {
        let mut users = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |what| UserlistError { line: number, what };
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let (user, rest) = quoted(line).ok_or(wrong("expected \"user\" in double quotes"))?;
            let (stored, _) = quoted(rest.trim_start())
                .ok_or(wrong("expected \"password\" or \"verifier\" in double quotes"))?;
            if user.is_empty() {
                return Err(wrong("the user's name is empty"));
            }
            let stored = read(stored).map_err(wrong)?;
            if users.insert(Arc::from(user.as_str()), stored).is_some() {
                return Err(wrong("this user was listed before"));
            }
        }
        Ok(Self(users))
    }

    /// What is stored of a user.
    pub fn get(&self, user: &str) -> Option<&Stored> {
        self.0.get(user)
    }

    /// How often the passwords behind its verifiers are hashed; `None`: it has none.
    pub(super) fn iterations(&self) -> Option<NonZeroU32> {
        self.0.values().find_map(|stored| match stored {
            Stored::Verifier(verifier) => Some(verifier.iterations()),
            Stored::Password(_) | Stored::Md5(_) => None,
        })
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Takes a quoted text off the front.
///
/// What it gives is written once, into room that it never outgrows: no piece of a password stays
/// behind where a buffer was moved from.
fn quoted(line: &str) -> Option<(Zeroizing<String>, &str)> {
    let mut text = Zeroizing::new(String::with_capacity(line.len()));
    let mut rest = line.strip_prefix('"')?;
    loop {
        let (part, after) = rest.split_once('"')?;
        text.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                text.push('"');
                rest = after;
            }
            None => return Some((text, after)),
        }
    }
}

fn read(mut text: Zeroizing<String>) -> Result<Stored, &'static str> {
    if text.starts_with("SCRAM-SHA-256$") {
        return Verifier::parse(&text).map(Stored::Verifier).map_err(
            |_| "not a SCRAM verifier: SCRAM-SHA-256$<iterations>:<salt>$<stored>:<server>",
        );
    }
    let is_md5 = text.strip_prefix("md5").is_some_and(|hash| {
        hash.len() == 32 && hash.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    });
    match text.len() {
        0 => Err("the password is empty"),
        PASSWORD_MAX.. => Err("the password is too long"),
        _ if is_md5 => Ok(Stored::Md5(Secret::new(std::mem::take(&mut *text)))),
        _ => Ok(Stored::Password(Secret::new(std::mem::take(&mut *text)).into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pgbouncers_format_is_read() {
        let verifier = Verifier::from_password("x", b"salt");
        let text = format!(
            "; a comment\n# another\n\n\
             \"alice\" \"hush \"\"word\"\"\"\n\
             \"bob\"\t\"{}\" and what follows\r\n\
             \"old\" \"md5d41d8cd98f00b204e9800998ecf8427e\"\n",
            verifier.to_text(),
        );

        let users = Userlist::parse(&text).unwrap();

        let password = Stored::Password(Secret::new("hush \"word\"".to_owned()).into());
        assert_eq!(users.get("alice"), Some(&password));
        assert_eq!(users.get("bob"), Some(&Stored::Verifier(verifier)));
        assert!(matches!(users.get("old"), Some(Stored::Md5(_))));
        assert_eq!(users.get("eve"), None);
        assert!(!format!("{users:?}").contains("hush"), "secrets stay secret");
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let cases = [
            ("alice \"x\"", "1: expected \"user\" in double quotes"),
            ("\n\"alice\" x", "2: expected \"password\" or \"verifier\" in double quotes"),
            ("\"alice\" \"x", "1: expected \"password\" or \"verifier\" in double quotes"),
            ("\"\" \"x\"", "1: the user's name is empty"),
            ("\"a\" \"\"", "1: the password is empty"),
            ("\"a\" \"x\"\n\"a\" \"y\"", "2: this user was listed before"),
        ];
        for (text, expected) in cases {
            assert_eq!(Userlist::parse(text).unwrap_err().to_string(), expected);
        }
        let broken = Userlist::parse("\"a\" \"SCRAM-SHA-256$4096:broken\"").unwrap_err();
        assert!(broken.to_string().starts_with("1: not a SCRAM verifier"));
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(user in "[^\r\n\0]{1,20}", password in "[^\r\n\0]{1,20}") {
            let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let users = Userlist::parse(&format!("{} {}", quote(&user), quote(&password)));
            prop_assert!(users.unwrap().get(&user).is_some());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\"a;#\n ]{0,40}") {
            let _tried = Userlist::parse(&text);
        }
    }
}
