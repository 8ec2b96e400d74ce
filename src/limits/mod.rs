//! How much one client may take: rules by user, database and address.
//!
//! A rule names whom it is about and what they may take. Every rule counts that fits: of times
//! and sizes the smallest, of connections each by itself. What is counted for each user, database
//! or address apart is counted by name, so a reload goes on counting where the old rules stopped.
//!
//! Invariants:
//! - Of a rule that is about a user or a database nobody learns anything before it is proved who
//!   asks.
//! - A connection is counted once by each rule that fits, until it is gone, and by none if one of
//!   them refuses it.
//!
//! Deliberately absent: clocks and sockets; and limits of all clients together, which belong to
//! who has them to give (`pool.max_clients`, `routing.hold_memory`).

mod count;
mod rule;

pub use count::{Counts, Entry, Exceeded};
pub use rule::{Bounds, Caller, Each, Rule, Rules, Times, Who};
