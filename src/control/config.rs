//! What the control plane is told at the start, and what a reload can change.

use crate::auth::Secret;
use crate::backend::{Login, LoginSecret, Security};
use crate::control::Policy;
use crate::failover;
use crate::failover::Instance;
use crate::sql::FunctionLists;
use crate::store::Store;
use std::sync::Arc;

/// Everything that the control plane is told at the start.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// The servers, in the order of [`crate::topology::ServerId`].
    pub servers: Vec<WatchedServer>,
    /// TLS towards servers.
    pub tls: Security,
    /// The role that looks at the servers.
    pub user: String,
    /// The database that it logs in to.
    pub database: String,
    /// Where it is recorded who is the primary; the reason, if it can't be.
    pub store: Result<Store, Arc<str>>,
    /// What a reload can change.
    pub live: LiveControl,
}

/// One server to watch.
#[derive(Debug, Clone)]
pub struct WatchedServer {
    /// Its name everywhere.
    pub name: Arc<str>,
    /// Host name, address, or the directory of a unix socket.
    pub host: Arc<str>,
    /// TCP port, or the number in the unix socket's name.
    pub port: u16,
    /// The control user's password there; `None`: the server trusts us.
    pub password: Option<Secret>,
    /// Where other servers reach it: host and port.
    pub replication_address: (Arc<str>, u16),
    /// How gladly it is promoted among equals; 0: never.
    pub priority: u32,
}

/// What a reload can change.
#[derive(Debug, Clone)]
pub struct LiveControl {
    /// How the servers are watched.
    pub policy: Policy,
    /// What happens when the primary is lost.
    pub failover: failover::Policy,
    /// Each server's share of the reads.
    pub weights: Vec<u32>,
    /// The operator's word on functions.
    pub lists: FunctionLists,
}

impl ControlConfig {
    /// How the control plane of this process logs in to a server.
    pub(crate) fn login(&self, server: &WatchedServer, instance: Instance) -> Login {
        let secret = match &server.password {
            Some(password) => LoginSecret::Password(password.clone().into()),
            None => LoginSecret::None,
        };
        let mut login = Login::new(&self.user, &self.database, secret);
        login.params.push(("application_name".to_owned(), instance.watching_name()));
        login
    }
}
