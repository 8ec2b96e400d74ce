//! What keeps a throw-away cluster from standing, each with its cure.

use crate::sandbox::SqlError;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no cluster, or why one of its servers does not do as it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Cure: install it.
    #[error(
        "PostgreSQL's programs were not found on this machine (looked in: {looked})\n\
         install them with:  {line}\n\
         or say where they are with --pg-bin DIR or PGSTEER_PG_BIN"
    )]
    NoPostgres {
        /// Where they were looked for.
        looked: String,
        /// The command that installs them here.
        line: String,
    },
    /// Cure: name another directory.
    #[error("there is no initdb and postgres in {dir}, which {named_by} names")]
    NotPrograms {
        /// The directory that was named.
        dir: PathBuf,
        /// What named it.
        named_by: &'static str,
    },
    /// Cure: create such a user.
    #[error("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` here")]
    NoAccount,
    /// Cure: make room, or permit it.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Cure: what the program says.
    #[error("{program} failed: {said}")]
    Program {
        /// The program.
        program: PathBuf,
        /// Its last words.
        said: String,
    },
    /// Cure: what the server says.
    #[error("{server} ended while it was starting; its log says:\n{log}")]
    Start {
        /// The server.
        server: String,
        /// The end of its log.
        log: String,
    },
    /// Cure: a quieter machine, or what the server says.
    #[error("{server} was not {state} within {waited:?}; its log says:\n{log}")]
    Late {
        /// The server.
        server: String,
        /// What was waited for.
        state: &'static str,
        /// For how long.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// Cure: stop some of what listens here.
    #[error("no free TCP port on 127.0.0.1")]
    NoPort,
    /// Cure: a name of the plan.
    #[error("there is no server {server} in this cluster")]
    NoSuchServer {
        /// The name that was asked for.
        server: String,
    },
    /// Cure: start it.
    #[error("server {server} is not running")]
    NotRunning {
        /// The server.
        server: String,
    },
    /// Cure: what the server says.
    #[error("server {server}: {source}")]
    Sql {
        /// The server.
        server: String,
        /// What it said, or why it could not be asked.
        source: SqlError,
    },
}

impl SandboxError {
    /// For `map_err`: what was tried on which file.
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
