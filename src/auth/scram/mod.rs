//! SCRAM-SHA-256: proving that one knows a password without sending it.
//!
//! Both sides are here as exchanges of messages: each step takes the state by value and hands
//! out the text to be sent and the next state. Randomness comes in as a nonce, so that the same
//! arguments always give the same messages.
//!
//! A client that proves itself to us shows us its *client key* on the way: enough to prove
//! itself, as that user, to every server that holds the same verifier, and nothing from which
//! the password could be had without guessing. That is how we log in to the servers as each
//! user without knowing a password.
//!
//! Channel binding is neither offered to clients nor asked of servers: `SCRAM-SHA-256-PLUS`
//! binds the proof to one TLS connection, and ours are two.
//!
//! Source: RFC 5802, RFC 7677; PostgreSQL manual, 55.3 "SASL Authentication"; `libpq/auth-scram.c`.

mod client;
mod keys;
mod server;

pub use client::{ClientFinal, ClientFirst, ClientSecret, Verified};
pub use keys::{ClientKey, Keys, ServerKey, Verifier, VerifierError};
pub use server::{Proved, ServerFirst, begin};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Random bytes in a nonce, as PostgreSQL has them (`SCRAM_RAW_NONCE_LEN`).
pub const NONCE_BYTES: usize = 18;

/// A nonce for one exchange, from bytes that must be random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// The text form of random bytes.
    pub fn new(random: [u8; NONCE_BYTES]) -> Self {
        Self(STANDARD.encode(random))
    }
}

/// Why an exchange ended without success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message is not one of SCRAM's.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The client insists on channel binding.
    #[error("the client requires channel binding, which pgsteer does not offer")]
    ChannelBinding,
    /// The proof is wrong: another password.
    #[error("the proof does not match the verifier")]
    WrongProof,
    /// The server doesn't know the verifier: an impostor.
    #[error("the server could not prove that it knows this user's verifier")]
    WrongServer,
    /// The server asks for more work than any sane verifier.
    #[error("the server asks for {0} iterations")]
    TooManyIterations(u32),
    /// The server ended it.
    #[error("the server ended the exchange: {0}")]
    Refused(String),
}

/// Takes `text` apart into attributes, `x=value` each, and gives the values of those named by
/// `names`, which must come first and in this order; what follows them is ignored, as the RFC
/// asks for extensions.
fn attributes<const N: usize>(text: &str, names: [char; N]) -> Result<[&str; N], ScramError> {
    let mut found = [""; N];
    let mut parts = text.split(',');
    for (place, name) in found.iter_mut().zip(names) {
        let part = parts.next().ok_or(ScramError::Malformed("an attribute is missing"))?;
        let value = part.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        *place = value.ok_or(ScramError::Malformed("an unexpected attribute"))?;
    }
    Ok(found)
}

fn utf8(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is not UTF-8"))
}

fn printable(nonce: &str) -> Result<&str, ScramError> {
    let good = !nonce.is_empty() && nonce.bytes().all(|byte| matches!(byte, 0x21..=0x7E));
    if good { Ok(nonce) } else { Err(ScramError::Malformed("the nonce is not printable")) }
}

fn decoded(value: &str) -> Result<Vec<u8>, ScramError> {
    STANDARD.decode(value).map_err(|_| ScramError::Malformed("it is not base64"))
}

#[cfg(test)]
mod tests;
