//! How often a statement in steady state asks for memory: the aim is never.
//!
//! The whole proxy runs inside this process, in front of real servers, under an allocator that
//! counts what is asked for on the threads of its shards; so the binary that users run pays
//! nothing for it. Each test counts over many statements of one kind, after enough of them that
//! every buffer has its size and every cache its entry.
//!
//! Opposite arm: a statement that must allocate is seen, with the place where it did.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a failed test panics; not every test uses every helper"
)]

mod counting;
mod inside;
mod statements;

#[path = "../support/template.rs"]
mod template;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;
