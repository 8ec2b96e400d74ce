//! Sockets: listeners, streams with or without TLS, and the limits of each.
//!
//! Everything above reads and writes a [`Stream`] and does not care what carries it. The
//! data plane has no generic code over sockets: the dispatch is one `match`.
//!
//! Invariants:
//! - Every TCP connection has `TCP_NODELAY` and keepalives, so that a peer which vanished is
//!   found without a byte being sent.
//! - TLS is 1.2 or later, and its provider is always named: a second provider compiled in by a
//!   dependency can't make it panic.
//! - A socket file that somebody still listens on is never removed.
//!
//! Deliberately absent: the protocol spoken over the stream.

mod listener;
mod plain;
mod socket;
mod stream;
mod tls;

pub use listener::{BindError, Doorway, Listener, SocketFile, UNIX_MODE};
pub use plain::Plain;
pub use socket::SocketPolicy;
pub use stream::{Detached, Newcomer, Peer, Stream, TlsStays, is_ours, user_name};
pub use tls::{
    ClientCertificate, ClientTls, Identity, Roots, Secured, ServerFiles, ServerTls, TlsError,
    Verification,
};
