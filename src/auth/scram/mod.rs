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
//! Channel binding is ours on both sides: a client is bound to its TLS connection with us, and we
//! are bound to ours with the server. The keys that a client shows have nothing of its connection
//! in them, so a bound login is passed on like any other.
//!
//! Source: RFC 5802, RFC 7677; PostgreSQL manual, 55.3 "SASL Authentication"; `libpq/auth-scram.c`.

mod binding;
mod client;
mod keys;
mod server;

pub use binding::{Binding, Chosen, EndPoint};
pub use client::{ClientFinal, ClientFirst, ClientSecret, Verified};
pub use keys::{ClientKey, Keys, ServerKey, Verifier, VerifierError};
pub use server::{Proved, ServerFirst, begin};

use crate::pg::SqlState;
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
    /// The client could bind and was told that we can't, which we never said.
    #[error("SCRAM channel binding negotiation error")]
    Downgraded,
    /// A type of channel binding that nobody has.
    #[error("unsupported SCRAM channel-binding type \"{0}\"")]
    BindingType(String),
    /// The proof is bound to another TLS connection: there is somebody in between.
    #[error("SCRAM channel binding check failed")]
    BoundElsewhere,
    /// The client speaks for somebody else, or wants an extension.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The proof is wrong: another password.
    #[error("the proof does not match the verifier")]
    WrongProof,
    /// The server doesn't know the verifier: an impostor.
    #[error("the server could not prove that it knows this user's verifier")]
    WrongServer,
    /// `servers.channel_binding` is `require`, and there is none.
    #[error("servers.channel_binding is \"require\", but {0}")]
    NotBound(&'static str),
    /// The server asks for more work than any sane verifier.
    #[error("the server asks for {0} iterations")]
    TooManyIterations(u32),
    /// The server ended it.
    #[error("the server ended the exchange: {0}")]
    Refused(String),
}

impl ScramError {
    /// Which error it is to a client that left the exchange, as with PostgreSQL.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::Downgraded | Self::BoundElsewhere => SqlState::INVALID_AUTHORIZATION,
            Self::Unsupported(_) => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Malformed(_)
            | Self::BindingType(_)
            | Self::WrongProof
            | Self::WrongServer
            | Self::NotBound(_)
            | Self::TooManyIterations(_)
            | Self::Refused(_) => SqlState::PROTOCOL_VIOLATION,
        }
    }
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
