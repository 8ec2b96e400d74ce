//! pgsteer: one address for a PostgreSQL primary and its standbys.
//!
//! The modules stand in their order: each imports only what stands above it. `ARCHITECTURE.md`
//! is the map, and follows a statement through them.

pub mod pg;
pub mod clock;

pub mod wire;
pub mod auth;
pub mod sql;
pub mod topology;
pub mod session;
pub mod route;
pub mod limits;
pub mod failover;

pub mod board;
pub mod latest;
pub mod metrics;
pub mod reactor;
pub mod tasks;
pub mod vital;
pub mod timer;
pub mod net;
pub mod backend;
pub mod pool;
pub mod store;
pub mod notifications;

pub mod frontend;
pub mod control;
pub mod admin;

pub mod config;
pub mod sandbox;
pub mod proxy;
pub mod cli;
