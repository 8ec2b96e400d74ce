//! Who a client is: SCRAM as an exchange of messages, and where its verifiers come from.

mod policy;

pub use policy::{Method, Policy};
