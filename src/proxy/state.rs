//! The directory of state: opened once, at the start. Without it everything goes on but failover.

use crate::auth::{Access, Method};
use crate::backend;
use crate::config::Config;
use crate::failover::Mode;
use crate::store;
use crate::store::{FileStore, Store, StoreError, Token};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{debug, info, warn};

/// What came of opening it.
#[derive(Debug)]
pub(super) struct State {
    /// Where it is recorded who is the primary; the reason, if it can't be.
    pub store: Result<Store, Arc<str>>,
    /// What operators must show, and where it lies.
    pub token: Option<(Token, PathBuf)>,
}

impl State {
    /// Opens it, and says so.
    pub(super) fn open(config: &Config) -> Self {
        match Self::try_open(config) {
            Ok(state) => state,
            Err(why) => {
                match config.failover.mode {
                    // Nobody wanted it.
                    Mode::Off => info!(event = "failover_unavailable", "no state is kept: {why}"),
                    Mode::Manual | Mode::Auto => {
                        warn!(event = "failover_unavailable", "failover is unavailable: {why}");
                    }
                }
                Self { store: Err(why), token: None }
            }
        }
    }

    fn try_open(config: &Config) -> Result<Self, Arc<str>> {
        let Some(directory) = &config.state_dir else {
            return Err("no directory for state is known: set failover.state_dir".into());
        };
        let names: Vec<_> = config.servers.iter().map(|server| Arc::clone(&server.name)).collect();
        let told = |error: StoreError| Arc::from(error.to_string());
        let store = FileStore::open(directory, &names).map_err(told)?;
        let token = store.new_token().map_err(told)?;
        info!(record = %store.path().display(), "state is kept");
        Ok(Self { store: Ok(Store::File(store)), token: Some(token) })
    }
}

/// What the salts of users who do not exist are made of. Where it can't be kept it is another one
/// after each start, and logins go on.
pub(super) fn salts(config: &Config) -> io::Result<[u8; 32]> {
    let Some(directory) = &config.state_dir else { return backend::random() };
    store::salts(directory).or_else(|why| {
        let what = "a restart will tell strangers which users do not exist";
        match config.auth.access {
            // Nobody is given a salt.
            Access::Everybody(Method::Trust) => debug!(%why, "{what}"),
            Access::Everybody(Method::ScramSha256) | Access::ByRules(_) => warn!(%why, "{what}"),
        }
        backend::random()
    })
}
