//! Which server, and as whom.

use super::policy::{ChannelBinding, SslMode, TlsPolicy};
use crate::auth::LoginSecret;
use crate::net::{ClientTls, Roots, TlsError, Verification};
use crate::topology::ServerId;
use crate::wire::startup::Replication;
use std::path::PathBuf;
use std::sync::Arc;

/// A server to connect to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its place in the configuration.
    pub server: ServerId,
    /// What people call it.
    pub name: Arc<str>,
    /// Host name, address, or the directory of a unix socket.
    pub host: Arc<str>,
    /// TCP port, or the number in the unix socket's name.
    pub port: u16,
    pub(super) mode: SslMode,
    pub(super) tls: Option<ClientTls>,
    pub(super) channel_binding: ChannelBinding,
}

/// As whom, and into what.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: Arc<str>,
    /// The database.
    pub database: Arc<str>,
    /// What proves that it is the user.
    pub secret: LoginSecret,
    /// Whether the connection also takes replication commands.
    pub replication: Replication,
    /// Settings to start with: `application_name`, `client_encoding`, ...
    pub params: Vec<(String, String)>,
}

impl Target {
    /// Prepares for a server; reads the certificates that are trusted.
    pub fn new(
        server: ServerId,
        name: &str,
        host: &str,
        port: u16,
        policy: &TlsPolicy,
    ) -> Result<Self, TlsError> {
        let tls = if policy.mode == SslMode::Disable || is_directory(host) {
            None
        } else {
            Some(ClientTls::new(verification(policy), &roots(policy), policy.identity.as_ref())?)
        };
        let mode = if tls.is_some() { policy.mode } else { SslMode::Disable };
        let channel_binding = policy.channel_binding;
        Ok(Self { server, name: name.into(), host: host.into(), port, mode, tls, channel_binding })
    }

    /// The socket's file, if it is one.
    pub(super) fn socket_file(&self) -> Option<PathBuf> {
        let directory = PathBuf::from(&*self.host);
        is_directory(&self.host).then(|| directory.join(format!(".s.PGSQL.{}", self.port)))
    }
}

impl Login {
    /// A login with nothing special about it.
    pub fn new(user: &str, database: &str, secret: LoginSecret) -> Self {
        Self {
            user: user.into(),
            database: database.into(),
            secret,
            replication: Replication::None,
            params: Vec::new(),
        }
    }
}

/// libpq's rule: an absolute path is the directory of a unix socket.
fn is_directory(host: &str) -> bool {
    host.starts_with('/')
}

/// As libpq, which verifies by a root certificate that it has, whatever the mode.
///
/// Source: `initialize_SSL` in `interfaces/libpq/fe-secure-openssl.c`.
fn verification(policy: &TlsPolicy) -> Verification {
    match (policy.mode, &policy.root_cert) {
        (SslMode::Disable, _) | (SslMode::Allow | SslMode::Prefer | SslMode::Require, None) => {
            Verification::Nothing
        }
        (SslMode::Allow | SslMode::Prefer | SslMode::Require, Some(_)) | (SslMode::VerifyCa, _) => {
            Verification::Authority
        }
        (SslMode::VerifyFull, _) => Verification::AuthorityAndName,
    }
}

fn roots(policy: &TlsPolicy) -> Roots {
    policy.root_cert.clone().map_or(Roots::System, Roots::File)
}
