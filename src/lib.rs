//! pgsteer: one address for a PostgreSQL primary and its standbys.

pub mod pg;
pub mod clock;

pub mod wire;
pub mod auth;
pub mod sql;
pub mod topology;
pub mod session;
pub mod route;

pub mod board;
pub mod metrics;
pub mod tasks;
pub mod net;
pub mod backend;
pub mod pool;

pub mod frontend;
pub mod control;
pub mod admin;

pub mod config;
pub mod sandbox;
pub mod cli;
pub mod proxy;
