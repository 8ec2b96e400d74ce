//! Pooled backends: check out, release, limits and queues.

mod policy;

pub use policy::{Mode, Policy, Reset};
