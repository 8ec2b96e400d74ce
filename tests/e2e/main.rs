//! Tests on real servers, in one binary. Each has its own cluster, so they run side by side.

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
    reason = "a failed test panics and says where its logs are; not every test uses every helper"
)]

#[path = "../support/statements.rs"]
mod statements;
#[path = "../support/syscalls.rs"]
mod syscalls;
#[path = "../support/mod.rs"]
mod support;

mod abandoned;
mod control;
mod sandbox;
mod splits;
mod stalled;
mod taking;
mod audits;
mod kernel_calls;
mod auth;
mod bad_input;
mod cancel;
mod catalogs;
mod computed;
mod custom;
mod consistency;
mod dashboards;
mod demo;
mod deployment;
mod disguised;
mod doctor;
mod drivers;
mod failover;
mod fitness;
mod handover;
mod limits;
mod listening;
mod logins;
mod lookalikes;
mod own;
mod lost_servers;
mod flow;
mod hands;
mod lasting;
mod leaks;
mod memory;
mod metrics;
mod peers;
mod pieces;
mod pooling;
mod prepared;
mod protocol;
mod raw;
mod read_only;
mod operations;
mod orders;
mod refusals;
mod refused_settings;
mod reloads;
mod renewals;
mod resets;
mod roles;
mod secrets;
mod settings;
mod shapes;
mod routing;
mod rust_drivers;
