//! Channel binding: a proof that counts on one TLS connection and on no other.
//!
//! Somebody in between who shows a certificate of his own has another connection to either side,
//! and the proof that he passes on fails. What is bound to is `tls-server-end-point`, the digest
//! of the server's certificate: the one type that PostgreSQL has.
//!
//! Source: RFC 5802, section 6; RFC 5929, section 4; `libpq/auth-scram.c`.

use super::ScramError;
use crate::wire::message::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The only type of channel binding.
const END_POINT: &str = "tls-server-end-point";

/// What a connection can be bound to: the digest of the server's certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct EndPoint(pub Box<[u8]>);

impl fmt::Debug for EndPoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "EndPoint({} bytes)", self.0.len())
    }
}

/// What a client does about channel binding: its flag in the GS2 header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// It can't: no TLS, or a certificate whose digest nobody agrees upon.
    Unsupported,
    /// It could, and believes that the server can't.
    NotOffered,
    /// The proof is bound to this.
    Bound(EndPoint),
}

impl Binding {
    /// The mechanism that goes with it.
    pub const fn mechanism(&self) -> &'static str {
        match self {
            Self::Unsupported | Self::NotOffered => SCRAM_SHA_256,
            Self::Bound(_) => SCRAM_SHA_256_PLUS,
        }
    }

    pub(super) const fn gs2_header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::Bound(_) => "p=tls-server-end-point,,",
        }
    }

    /// What the last message of a client repeats, as it is sent.
    pub(super) fn repeated(&self) -> String {
        let end_point: &[u8] = match self {
            Self::Unsupported | Self::NotOffered => &[],
            Self::Bound(EndPoint(digest)) => digest,
        };
        STANDARD.encode([self.gs2_header().as_bytes(), end_point].concat())
    }
}

/// What a server offers on a connection, and what the client chose of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// `SCRAM-SHA-256`, for there was nothing else: no TLS, or no digest.
    OnlyPlain,
    /// `SCRAM-SHA-256`, although `SCRAM-SHA-256-PLUS` was offered.
    Plain,
    /// `SCRAM-SHA-256-PLUS`, on a connection with this end point.
    Plus(EndPoint),
}

impl Chosen {
    /// What a client chose by naming a mechanism; `None` if that was not offered.
    pub fn by_name(mechanism: &[u8], offered: Option<&EndPoint>) -> Option<Self> {
        let is = |name: &str| mechanism == name.as_bytes();
        match offered {
            None if is(SCRAM_SHA_256) => Some(Self::OnlyPlain),
            Some(_) if is(SCRAM_SHA_256) => Some(Self::Plain),
            Some(end_point) if is(SCRAM_SHA_256_PLUS) => Some(Self::Plus(end_point.clone())),
            Some(_) | None => None,
        }
    }

    /// The mechanisms that are offered, the best first.
    pub fn offer(end_point: Option<&EndPoint>) -> Vec<String> {
        let plus = end_point.map(|_| SCRAM_SHA_256_PLUS.to_owned());
        plus.into_iter().chain([SCRAM_SHA_256.to_owned()]).collect()
    }

    /// Holds the client's flag against what it chose, as `read_client_first_message` does.
    pub(super) fn check(self, flag: &str) -> Result<Binding, ScramError> {
        match (flag, self) {
            ("n", Self::OnlyPlain | Self::Plain) => Ok(Binding::Unsupported),
            ("y", Self::OnlyPlain) => Ok(Binding::NotOffered),
            // Somebody in between has taken the better mechanism off our list.
            ("y", Self::Plain) => Err(ScramError::Downgraded),
            ("n" | "y", Self::Plus(_)) => Err(ScramError::Malformed(
                "SCRAM-SHA-256-PLUS was selected, but there is no channel binding data",
            )),
            (flag, chosen) => match (flag.strip_prefix("p="), chosen) {
                (Some(_), Self::OnlyPlain | Self::Plain) => Err(ScramError::Malformed(
                    "SCRAM-SHA-256 was selected, but there is channel binding data",
                )),
                (Some(END_POINT), Self::Plus(end_point)) => Ok(Binding::Bound(end_point)),
                (Some(other), Self::Plus(_)) => Err(ScramError::BindingType(shown(other))),
                (None, _) => Err(ScramError::Malformed("an unexpected channel binding flag")),
            },
        }
    }
}

/// A stranger's word, as much of it as fits into a message.
fn shown(word: &str) -> String {
    word.chars().filter(char::is_ascii_graphic).take(40).collect()
}
