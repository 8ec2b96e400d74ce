//! How the servers are reached.

use crate::net::Identity;
use std::path::PathBuf;

/// How a connection to a server is protected; libpq's names and meanings.
///
/// Source: PostgreSQL manual, 34.19.1 "Client Verification of Server Certificates".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsPolicy {
    /// Whether, and how strictly.
    pub mode: SslMode,
    /// The authorities that are trusted; `None`: the system's.
    pub root_cert: Option<PathBuf>,
    /// The certificate that servers are shown; `None`: none.
    pub identity: Option<Identity>,
    /// Whether our proof is bound to the connection.
    pub channel_binding: ChannelBinding,
    /// Whether the server is asked for TLS first.
    pub negotiation: SslNegotiation,
}

/// `sslnegotiation`: how TLS begins.
///
/// Source: PostgreSQL 17 manual, 32.1.2 "Parameter Key Words".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslNegotiation {
    /// The server is asked whether it has TLS.
    #[default]
    Postgres,
    /// The handshake comes first, and both sides name the protocol in it: a round trip less, and
    /// what passes TLS by name can lead it. Needs `Require` or more, and PostgreSQL 17.
    Direct,
}

/// `channel_binding`: whether the proof by SCRAM counts on the one TLS connection only.
///
/// Source: PostgreSQL manual, 34.1.2 "Parameter Key Words".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// It is not bound.
    Disable,
    /// It is bound where the server offers it over TLS.
    #[default]
    Prefer,
    /// It is bound, or there is no login.
    Require,
}

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists.
    Allow,
    /// TLS if the server has it. With `root_cert`, as with `Allow`, only if its certificate is
    /// of a trusted authority; else the connection is tried without.
    #[default]
    Prefer,
    /// TLS, whoever the server is; with `root_cert` as `VerifyCa`.
    Require,
    /// TLS, and a certificate of a trusted authority.
    VerifyCa,
    /// TLS, and a certificate of a trusted authority for that very host name.
    VerifyFull,
}
