//! How the servers are reached.

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
}

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists.
    Allow,
    /// TLS if the server has it.
    #[default]
    Prefer,
    /// TLS, whoever the server is; with `root_cert` as `VerifyCa`.
    Require,
    /// TLS, and a certificate of a trusted authority.
    VerifyCa,
    /// TLS, and a certificate of a trusted authority for that very host name.
    VerifyFull,
}
