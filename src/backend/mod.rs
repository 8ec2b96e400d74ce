//! One connection to one server: opening it, logging in, asking, cancelling.
//!
//! [`connect`] gives a [`Backend`] that has nothing pending: every message of the server up to
//! its `ReadyForQuery` was read, and not a byte behind it is held back, so the relay can take
//! the stream as it is. What goes wrong comes out as a [`ConnectError`], one variant for each
//! cure.
//!
//! Invariants:
//! - A backend is given out only after its server proved itself as far as `servers.sslmode` and the
//!   login method let it: after SCRAM, never without the server's own signature.
//! - Every wait is inside the time that the caller gives.
//! - A login is bounded in messages and in bytes, whatever listens there.
//!
//! Deliberately absent: pools, retries, and any opinion on which server is asked.

mod cancel;
mod connect;
mod error;
mod handshake;
mod io;
mod listen;
mod lookup;
mod open;
mod policy;
mod query;
mod target;

pub use crate::auth::LoginSecret;
pub use crate::auth::Secret;
pub use crate::wire::startup::Replication;
pub use cancel::cancel;
pub use connect::{Backend, Detached, Reported, connect};
pub use error::{ConnectError, ServerError, Stage};
pub(crate) use io::random;
pub use listen::Heard;
pub use lookup::{Answer, Lookup, LookupError};
pub use policy::{ChannelBinding, SslMode, SslNegotiation, TlsPolicy};
pub use query::{QueryError, ResultSet, Row};
pub use target::{CancelKey, Login, Security, Target};
