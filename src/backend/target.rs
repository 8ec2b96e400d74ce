//! Which server, and as whom.

use super::policy::{ChannelBinding, SslMode, SslNegotiation, TlsPolicy};
use crate::auth::LoginSecret;
use crate::net::{ClientTls, Roots, TlsError, Verification};
use crate::topology::ServerId;
use crate::wire::startup::Replication;
use std::fmt;
use std::ops::Deref;
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
    pub(super) negotiation: SslNegotiation,
}

/// By which a backend is cancelled: a secret of its server's.
#[derive(Clone, Default)]
pub struct CancelKey(Box<[u8]>);

impl CancelKey {
    /// As the server told it.
    pub(super) fn new(key: &[u8]) -> Self {
        Self(key.into())
    }
}

impl Deref for CancelKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
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

/// How the servers are reached, with the certificates that are trusted and shown. Clones, and the
/// targets that are made with it, share what was read.
#[derive(Debug, Clone)]
pub struct Security {
    policy: TlsPolicy,
    /// `None`: never TLS.
    tls: Option<ClientTls>,
}

impl Security {
    /// Reads the files.
    pub fn load(policy: TlsPolicy) -> Result<Self, TlsError> {
        let tls = match policy.mode {
            SslMode::Disable => None,
            SslMode::Allow
            | SslMode::Prefer
            | SslMode::Require
            | SslMode::VerifyCa
            | SslMode::VerifyFull => {
                let identity = policy.identity.clone();
                Some(ClientTls::new(verification(&policy), roots(&policy), identity)?)
            }
        };
        Ok(Self { policy, tls })
    }

    /// Reads the files again. Connections from now on use them, for the others nothing changes; if
    /// they can't be used, the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.tls.as_ref().map_or(Ok(()), ClientTls::reload)
    }

    /// What the operator chose.
    pub const fn policy(&self) -> &TlsPolicy {
        &self.policy
    }
}

impl Target {
    /// Prepares for a server, which is reached as the others are.
    pub fn new(
        server: ServerId,
        name: &Arc<str>,
        host: &Arc<str>,
        port: u16,
        security: &Security,
    ) -> Self {
        let tls = security.tls.clone().filter(|_| !is_directory(host));
        let TlsPolicy { mode, channel_binding, negotiation, .. } = security.policy;
        let mode = if tls.is_some() { mode } else { SslMode::Disable };
        let (name, host) = (Arc::clone(name), Arc::clone(host));
        Self { server, name, host, port, mode, tls, channel_binding, negotiation }
    }

    /// Prepares for a server by itself; reads the certificates that are trusted.
    pub fn alone(
        server: ServerId,
        name: &str,
        host: &str,
        port: u16,
        policy: &TlsPolicy,
    ) -> Result<Self, TlsError> {
        let security = Security::load(policy.clone())?;
        Ok(Self::new(server, &name.into(), &host.into(), port, &security))
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
