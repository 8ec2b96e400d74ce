//! One client's conversation, as far as it can be told without a socket: what its reads must
//! see, which settings it changed, which statements it prepared, and which replies are owed.
//!
//! Invariants:
//! - Nothing here owns a backend or sends anything; the frontend acts on what this says.
//! - A name that a client chose for a prepared statement never reaches a pooled backend.

mod floor;

pub use floor::{Anchor, Demand, Floor, Mark};
