//! One connection to one server.

mod policy;

pub use policy::{Secret, SslMode, TlsPolicy};
