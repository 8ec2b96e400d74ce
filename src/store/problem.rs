//! What can go wrong with a store, each with what to do about it.

use std::io;
use std::path::PathBuf;

/// Why nothing is known of the stored record, or why it can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refuses.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory can't be made or entered.
    #[error(
        "cannot {what} the directory of state {path}: {source}; make it, owned by the user that \
         runs pgsteer, or name another with failover.state_dir"
    )]
    Directory {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Anybody can put files into the directory.
    #[error(
        "anybody may write in {path} (mode {mode:04o}): run chmod o-w {path}, or name a \
             directory within it with failover.state_dir: pgsteer makes it"
    )]
    Open {
        /// Which directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another process works with it.
    #[error(
        "{path} is locked by another pgsteer{}: two must not decide about the same servers; stop \
         it, or name another directory with failover.state_dir", by(*.holder)
    )]
    Locked {
        /// The lock.
        path: PathBuf,
        /// The process that wrote its number into it.
        holder: Option<u32>,
    },
    /// Somebody else's file.
    #[error(
        "{path} belongs to user {owner}, and pgsteer runs as user {us}: chown it if it is yours"
    )]
    Owner {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others can change it, or read what is secret in it.
    #[error("{path} has mode {mode:04o}, so others can change or read it: chmod 0600 {path}")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is a directory, a pipe, a link.
    #[error("{path} is not a regular file: move it away")]
    Kind {
        /// Which.
        path: PathBuf,
    },
    /// A version of pgsteer wrote it that this one does not know.
    #[error(
        "{path} has format {found}, and this pgsteer knows format {known}: run the version that \
         wrote it"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What we know.
        known: u64,
    },
    /// It was cut off, or changed by hand.
    #[error(
        "{path} can't be understood ({what}): put a copy of it back; or, if all servers are well \
         and only one is a primary, move it away, and pgsteer begins with what it sees"
    )]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What about it.
        what: String,
    },
    /// The configured servers are those of several records.
    #[error(
        "both {one} and {other} are about some of the configured servers: move away the one that \
         is not true any more"
    )]
    Ambiguous {
        /// A record.
        one: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// The work was cut short by the end of the process.
    #[error("pgsteer is ending")]
    Ending,
}

/// Why a record was not put in the place of another.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// Another stands there than was expected: somebody was faster.
    #[error("the record was changed by somebody else")]
    Raced,
    /// It was not: what stood there still does.
    #[error("the record was not written: {0}")]
    Failed(#[source] StoreError),
    /// It is not there, as far as can be seen; but it may be when the machine comes back. Nothing
    /// is read or written until what stands there lasts.
    #[error("the record was not written, or may not last: {0}")]
    Unsure(#[source] StoreError),
}

fn by(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
