//! What each key is and why, and what changes from one configuration to the next.

use crate::config::key::Counts;
use crate::config::keys;
use crate::config::setting::quoted;
use crate::config::types::{Config, Limits, ServerConfig};
use std::fmt;
use std::sync::Arc;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The file.
    File {
        /// As the user named it.
        path: Arc<str>,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Env(Arc<str>),
    /// A flag of the command line.
    Flag(Arc<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "{path}:{line}"),
            Self::Env(name) => write!(out, "environment {name}"),
            Self::Flag(name) => out.write_str(name),
        }
    }
}

/// One key as it is now. Secrets are stars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its full name.
    pub key: &'static str,
    /// Its value, as TOML.
    pub value: String,
    /// Its default, as TOML.
    pub default: String,
    /// Where the value comes from.
    pub source: Source,
}

/// One key that differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its full name.
    pub key: &'static str,
    /// What it was, as TOML.
    pub old: String,
    /// What it is now, as TOML.
    pub new: String,
    /// Whether it counts only after a restart.
    pub needs_restart: bool,
}

impl Config {
    /// What differs, in the order of the reference.
    pub fn changes(old: &Self, new: &Self) -> Vec<Change> {
        let pairs = old.sources.iter().zip(&new.sources);
        let differing = pairs.filter(|(was, is)| {
            was.value != is.value || (was.key == keys::PASSWORD.name && password_differs(old, new))
        });
        differing
            .map(|(was, is)| Change {
                key: is.key,
                old: was.value.clone(),
                new: is.value.clone(),
                needs_restart: needs_restart(is.key),
            })
            .collect()
    }

    /// This configuration as it counts in a process that was started with another one: what needs
    /// a restart stays as it was, whatever the file says by now. So servers keep their places,
    /// and what was said of one is never taken for another.
    #[must_use]
    pub fn in_process_of(self, started: &Self) -> Self {
        let server = |was: &ServerConfig| {
            let now = self.servers.iter().find(|now| now.name == was.name);
            ServerConfig { weight: now.map_or(was.weight, |now| now.weight), ..was.clone() }
        };
        let keys = self.sources.iter().zip(&started.sources);
        let kept = |(is, was): (&Shown, &Shown)| {
            if needs_restart(is.key) { was.clone() } else { is.clone() }
        };
        Self {
            servers: started.servers.iter().map(server).collect(),
            sources: keys.map(kept).collect(),
            listen: started.listen.clone(),
            http: started.http,
            server_tls: started.server_tls.clone(),
            peers: started.peers.clone(),
            control_login: started.control_login.clone(),
            state_dir: started.state_dir.clone(),
            limits: Limits {
                shards: started.limits.shards,
                scheduling: started.limits.scheduling,
                ..self.limits
            },
            observability: started.observability,
            ..self
        }
    }

    /// A file by which a command goes to the same servers, as the same user, with the same plans
    /// for them. No password is in it, but perhaps the name of the file in which one lies.
    pub fn told(&self) -> String {
        let login = [
            (keys::USER.name, &self.control_login.user),
            (keys::DATABASE.name, &self.control_login.database),
        ];
        let is_told = |shown: &&Shown| {
            let wanted = shown.key == keys::LISTEN.name
                || ["servers.", "failover."].iter().any(|part| shown.key.starts_with(part));
            let known = login.iter().any(|(key, _)| *key == shown.key);
            let secret = shown.key == keys::PASSWORD.name && !shown.value.starts_with("{ file");
            wanted && shown.value != shown.default && !known && !secret
        };
        let said = self.sources.iter().filter(is_told);
        let said = said.map(|shown| format!("{} = {}\n", shown.key, shown.value));
        let login = login.iter().map(|(key, value)| format!("{key} = {}\n", quoted(value)));
        said.chain(login).collect()
    }

    /// What tells one configuration from another: two proxies with the same have the same values,
    /// but for secrets, which are not in it.
    pub fn fingerprint(&self) -> String {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for shown in &self.sources {
            context.update(shown.key.as_bytes());
            context.update(b"=");
            context.update(shown.value.as_bytes());
            context.update(b"\n");
        }
        let digest = context.finish();
        let start = digest.as_ref().first_chunk().copied().unwrap_or_default();
        format!("{:016x}", u64::from_be_bytes(start))
    }

    /// The keys that differ and count only after a restart.
    pub fn changes_needing_restart(old: &Self, new: &Self) -> Vec<&'static str> {
        let changes = Self::changes(old, new);
        changes.into_iter().filter(|change| change.needs_restart).map(|change| change.key).collect()
    }
}

/// The same stars may stand for another password.
fn password_differs(old: &Config, new: &Config) -> bool {
    old.control_login.password != new.control_login.password
}

fn needs_restart(key: &str) -> bool {
    keys::find(key).is_some_and(|key| match key.counts() {
        Counts::OnRestart => true,
        Counts::OnReload => false,
    })
}
