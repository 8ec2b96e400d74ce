//! The proof that a client is who it says, and the two ways to it.

use super::Secret;
use super::login::md5_hash_response;
use super::rules::Rule;
use super::scram;
use super::scram::{Chosen, Keys, Nonce, ScramError, ServerFirst, Verifier};
use crate::pg::SqlState;
use crate::wire::message::ErrorReport;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// A client is who it says. Only this module can make one.
#[derive(Debug, Clone)]
pub struct Authenticated {
    user: Arc<str>,
}

impl Authenticated {
    /// Who.
    pub const fn user(&self) -> &Arc<str> {
        &self.user
    }
}

/// Where a client connects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This machine: loopback or a unix socket.
    SameMachine,
    /// Any other.
    Elsewhere,
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is asked of clients, so only this machine's are let in.
    #[error("no login from {peer}: auth.method is \"trust\", which is for this machine only")]
    TrustElsewhere {
        /// From where.
        peer: String,
    },
    /// `tls.mode` is `require`, and the client came without.
    #[error("no login from {peer} without TLS: tls.mode is \"require\"")]
    WithoutTls {
        /// From where.
        peer: String,
    },
    /// A rule says so.
    #[error("pgsteer's rules reject the connection: {visit}")]
    Rejected {
        /// Who, from where, to what.
        visit: String,
    },
    /// No rule says anything.
    #[error("no entry in pgsteer's rules: {visit}")]
    NoRule {
        /// Who, from where, to what.
        visit: String,
    },
    /// The rule wants a certificate, and there is none.
    #[error("connection requires a valid client certificate")]
    NoCertificate,
    /// The certificate is somebody else's.
    #[error("certificate authentication failed for user \"{user}\"")]
    Certificate {
        /// Who.
        user: String,
    },
    /// The operating system knows him by another name.
    #[error("peer authentication failed for user \"{user}\"")]
    Peer {
        /// Who.
        user: String,
    },
    /// A wrong password, or no such user: nobody is told which.
    #[error("password authentication failed for user \"{user}\"")]
    Password {
        /// Who.
        user: String,
    },
    /// It does not follow the exchange.
    #[error("{0}")]
    Exchange(ScramError),
}

impl Refusal {
    /// What the client is told, before the connection ends.
    pub fn report(&self) -> ErrorReport {
        let report = |code| ErrorReport::fatal(code, self.to_string());
        if let Self::Exchange(error) = self {
            return exchange(error, report(error.sqlstate()));
        }
        let (code, (cause, remedy)) = match self {
            Self::Password { .. } => (SqlState::INVALID_PASSWORD, self.cause_and_remedy()),
            Self::TrustElsewhere { .. }
            | Self::WithoutTls { .. }
            | Self::Rejected { .. }
            | Self::NoRule { .. }
            | Self::NoCertificate
            | Self::Certificate { .. }
            | Self::Peer { .. }
            | Self::Exchange(_) => (SqlState::INVALID_AUTHORIZATION, self.cause_and_remedy()),
        };
        report(code).with_detail(cause).with_hint(remedy)
    }

    /// A stranger reads this: it must not depend on who exists, or on what is stored of him.
    const fn cause_and_remedy(&self) -> (&'static str, &'static str) {
        match self {
            Self::TrustElsewhere { .. } => (
                "Nothing is asked of clients, so nobody is let in from another machine.",
                "Set auth.method = \"scram-sha-256\" in pgsteer's configuration, and auth.file or \
                 auth.query.",
            ),
            Self::WithoutTls { .. } => (
                "The connection is not encrypted.",
                "Connect with sslmode=require, or a stricter one.",
            ),
            Self::Rejected { .. } => {
                ("The first rule that fits rejects it.", "auth.hba_file has the rules.")
            }
            Self::NoRule { .. } => {
                ("Whom no rule fits is not let in.", "auth.hba_file has the rules.")
            }
            Self::NoCertificate => (
                "A rule asks for a certificate, and the client has shown none.",
                "Connect over TLS with sslcert and sslkey.",
            ),
            Self::Certificate { .. } => (
                "The certificate that the client has shown is for another name.",
                "Log in as the user whom the certificate names (CN), or show one that names this \
                 user.",
            ),
            Self::Peer { .. } => (
                "The operating system knows the client by another name.",
                "Log in as the user of the system that the client runs as; or let a rule of \
                 auth.hba_file ask such connections for a password.",
            ),
            Self::Password { .. } => (
                "The password is wrong, or there is none by which this user may log in: nobody is \
                 told which.",
                "Check the name and the password; pgsteer's log says more to its operator.",
            ),
            // It is told by `exchange`.
            Self::Exchange(_) => ("", ""),
        }
    }
}

/// What a client is told that left the exchange.
fn exchange(error: &ScramError, report: ErrorReport) -> ErrorReport {
    const IN_BETWEEN: &str = "Somebody stands between the client and pgsteer: a proxy that ends \
                              TLS, or worse. With such a proxy the client must set \
                              channel_binding=disable.";
    match error {
        ScramError::Downgraded => report
            .with_detail(
                "The client supports SCRAM channel binding but thinks the server does not. \
                 However, this server does support channel binding.",
            )
            .with_hint(IN_BETWEEN),
        ScramError::BoundElsewhere => report
            .with_detail("The proof was made for another TLS connection than this one.")
            .with_hint(IN_BETWEEN),
        ScramError::Malformed(_)
        | ScramError::BindingType(_)
        | ScramError::Unsupported(_)
        | ScramError::WrongProof
        | ScramError::WrongServer
        | ScramError::NotBound(_)
        | ScramError::TooManyIterations(_)
        | ScramError::Refused(_) => report
            .with_detail("The client has left the exchange of SCRAM-SHA-256.")
            .with_hint("Most likely a defect of the driver: use a newer one, or another."),
    }
}

/// Lets a client in without a question, if it is on this machine.
pub fn trust(
    user: &Arc<str>,
    origin: Origin,
    peer: impl fmt::Display,
) -> Result<Authenticated, Refusal> {
    match origin {
        Origin::SameMachine => Ok(Authenticated { user: Arc::clone(user) }),
        Origin::Elsewhere => Err(Refusal::TrustElsewhere { peer: peer.to_string() }),
    }
}

/// Lets a client in without a question, because a rule says so.
pub fn trust_by_rule(user: &Arc<str>, _rule: &Rule) -> Authenticated {
    Authenticated { user: Arc::clone(user) }
}

/// Lets a client in whose certificate has this name; it was verified in the handshake.
pub fn by_certificate(user: &Arc<str>, name: Option<&str>) -> Result<Authenticated, Refusal> {
    match name {
        Some(name) if *name == **user => Ok(Authenticated { user: Arc::clone(user) }),
        Some(_) | None => Err(Refusal::Certificate { user: user.to_string() }),
    }
}

/// Lets a client in whom the operating system knows by this name.
pub fn by_peer(user: &Arc<str>, name: Option<&str>) -> Result<Authenticated, Refusal> {
    match name {
        Some(name) if *name == **user => Ok(Authenticated { user: Arc::clone(user) }),
        Some(_) | None => Err(Refusal::Peer { user: user.to_string() }),
    }
}

/// Lets a client in that knows what this hash was made of. The hash is as it is stored: `md5` and
/// 32 digits.
pub fn by_md5(
    user: &Arc<str>,
    stored: &Secret,
    salt: [u8; 4],
    answer: &[u8],
) -> Result<Authenticated, Refusal> {
    let expected = md5_hash_response(stored.reveal().trim_start_matches("md5"), salt);
    if bool::from(expected.as_bytes().ct_eq(answer)) {
        Ok(Authenticated { user: Arc::clone(user) })
    } else {
        Err(Refusal::Password { user: user.to_string() })
    }
}

/// A login by SCRAM that waits for the client's proof.
#[derive(Debug)]
pub struct Challenge {
    user: Arc<str>,
    state: ServerFirst,
}

/// A client has proved that it is who it says.
#[derive(Debug)]
pub struct Entry {
    /// The last message, by which we prove ourselves.
    pub message: String,
    /// The proof of it.
    pub authenticated: Authenticated,
    /// What it showed on the way: it logs us in to the servers as this user.
    pub keys: Keys,
}

/// Takes the first message of a client that chose so; gives the answer, and what awaits the next
/// one.
pub fn challenge(
    user: &Arc<str>,
    verifier: Verifier,
    (chosen, client_first): (Chosen, &[u8]),
    nonce: &Nonce,
) -> Result<(String, Challenge), Refusal> {
    let begun = scram::begin(client_first, chosen, verifier, nonce);
    let (answer, state) = begun.map_err(Refusal::Exchange)?;
    Ok((answer, Challenge { user: Arc::clone(user), state }))
}

impl Challenge {
    /// Takes the client's last message.
    pub fn finish(self, client_final: &[u8]) -> Result<Entry, Refusal> {
        match self.state.finish(client_final) {
            Ok(proved) => Ok(Entry {
                message: proved.message,
                authenticated: Authenticated { user: self.user },
                keys: proved.keys,
            }),
            Err(ScramError::WrongProof) => Err(Refusal::Password { user: self.user.to_string() }),
            Err(other) => Err(Refusal::Exchange(other)),
        }
    }
}
