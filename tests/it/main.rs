//! Fast tests without an outside world, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed test panics"
)]

mod admin;
mod classify;
mod cli;
mod config;
mod floods;
mod fuzzed;
#[path = "../hostile/mod.rs"]
mod hostile;
mod session;
mod simulation;
mod store;
mod tidy;
mod timelines;
