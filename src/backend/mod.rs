//! One connection to one server.

mod policy;

pub use crate::auth::Secret;
pub use policy::{SslMode, TlsPolicy};
