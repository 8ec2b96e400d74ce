//! What proves that whoever orders may read the directory of state.

use crate::store::StoreError;
use crate::store::files;
use crate::store::files::{Owner, Privacy, Unwritten};
use ring::rand::SecureRandom as _;
use std::fmt;
use std::io;
use std::path::Path;
use subtle::ConstantTimeEq as _;

/// What every token begins with, so that no other file is taken for one.
const PREFIX: &str = "pgsteer-token-";
/// Random bytes of a token.
const LENGTH: usize = 32;

/// A secret that lives as long as the process which made it, in a file of mode 0600: who can
/// read the state may give orders.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Makes one and writes it to a file, in the place of the last one.
    pub(super) fn write_new(path: &Path) -> Result<Self, StoreError> {
        let mut bytes = [0; LENGTH];
        let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
        let none = |_| io::Error::other("the system has no randomness");
        filled.map_err(none).map_err(files::io_error("make", path))?;
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        let token = format!("{PREFIX}{}", digits.collect::<String>());
        files::write(path, &format!("{token}\n")).map_err(Unwritten::into_error)?;
        Ok(Self(token))
    }

    /// Reads the token of a running proxy.
    ///
    /// # Errors
    /// [`StoreError`]: there is none, or it is not ours to read.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        Self::read_of(path, Owner::UsOrAnybodyForRoot)
    }

    /// The same of a proxy that runs as our own user, also if we are the superuser: another user
    /// can have made a token, and answer to it.
    ///
    /// # Errors
    /// [`StoreError`]: there is none, or it is not ours.
    pub fn read_own(path: &Path) -> Result<Self, StoreError> {
        Self::read_of(path, Owner::Us)
    }

    fn read_of(path: &Path, owner: Owner) -> Result<Self, StoreError> {
        let missing = || files::io_error("read", path)(io::ErrorKind::NotFound.into());
        let text = files::read_of(path, Privacy::Secret, owner)?.ok_or_else(missing)?;
        let token = text.trim_end();
        let digits = token.strip_prefix(PREFIX).filter(|digits| digits.len() == 2 * LENGTH);
        if digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            return Ok(Self(token.to_owned()));
        }
        Err(StoreError::Broken { path: path.to_owned(), what: "it is not a token".to_owned() })
    }

    /// Whether this text is the token, in a time that tells nothing about it.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// The token itself, for the one header in which it is sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(***)")
    }
}
