//! The client's side: accept, log in, serve, relay, cancel. One file a step.
//!
//! A client is one task on one shard. The task holds no backend between transactions; when a
//! group of messages arrives it is classified, routed, given a backend from the shard's pools,
//! and relayed until the backend is free again.
//!
//! Invariants:
//! - Only a session that holds a backend can send to one.
//! - A group is sent at most once to a server that could have executed it.
//! - What the primary answers is passed on only while its epoch lasts.
//! - What a client did can't be felt by another, not even after an error.

mod abandon;
mod admit;
mod anew;
mod attach;
mod attached;
mod audit;
mod block;
pub mod cancel;
mod client;
mod confirm;
mod door;
mod exchange;
mod glance;
mod greet;
mod introduction;
mod hold;
mod lend;
mod line;
mod listening;
mod local;
pub mod login;
mod lost;
mod memory;
mod numbers;
mod obtain;
mod outcome;
mod overdue;
mod own;
mod params;
mod peers;
mod plan;
mod probe;
mod processes;
mod prove;
mod recount;
mod refuse;
mod replicate;
mod report;
mod reset;
mod runs;
mod seat;
mod send;
mod sense;
mod serve;
mod settle;
mod shard;
mod state;
mod withheld;

pub use cancel::Cancels;
pub use door::{Inlet, admit};
pub use introduction::Introduction;
pub use overdue::Overdue;
pub use peers::Peers;
pub use plan::{Material, Plan, Taint, Wishes, idle_hints, plan};
pub use report::No;
pub use serve::serve;
pub use shard::{Live, Shard, Shared};
