//! Throw-away PostgreSQL clusters: `pgsteer demo` shows the proxy on one, the tests break them.
//!
//! A [`Cluster`] is a primary and its standbys, as real as any other, in one fresh directory and
//! on free ports of 127.0.0.1. Who runs it needs PostgreSQL's programs and nothing else: no
//! service, no container, no configuration; as root it lets another user run them, because
//! PostgreSQL refuses root. A [`Proxy`] is pgsteer's own binary in front of it.
//!
//! Invariants:
//! - **Nothing stays behind.** Every process and every file of a cluster lies beneath one
//!   directory, and ends with its owner: with its value when that is dropped, with its process
//!   when that dies, even by `kill -9` ([`Scratch`]).
//! - **Nothing else is touched.** A process is ended only if its working directory lies beneath
//!   a directory that we made and whose owner is gone.
//! - **Every wait ends.** What does not start, stop or stream in time is an error with the
//!   server's last words in it.
//!
//! Deliberately absent: asynchrony. Whoever starts a server waits for it anyway; a test that
//! must not block its runtime calls from `spawn_blocking`.

mod account;
mod cluster;
mod copy;
mod error;
mod find;
mod http;
mod plan;
mod ports;
mod process;
mod proxy;
mod rejoin;
mod scratch;
mod server;
mod sql;
mod wait;

pub use account::Account;
pub use cluster::Cluster;
pub use cluster::Template;
pub use error::SandboxError;
pub use find::Postgres;
pub use http::Answer;
pub use http::get;
pub use plan::Auth;
pub use plan::Durability;
pub use plan::Naming;
pub use plan::Plan;
pub use plan::Quorum;
pub use plan::SUPERUSER;
pub use plan::SUPERUSER_PASSWORD;
pub use plan::StatementLog;
pub use ports::Port;
pub use process::Found;
pub use process::kill;
pub use process::working_in;
pub use proxy::Proxy;
pub use rejoin::Rejoined;
pub use scratch::Scratch;
pub use server::Server;
pub use server::Shutdown;
pub use sql::Row;
pub use sql::Sql;
pub use sql::SqlError;
pub use wait::eventually;
