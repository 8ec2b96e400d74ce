//! pgsteer: one address for a PostgreSQL primary and its standbys.

pub mod auth;
pub mod backend;
pub mod clock;
pub mod control;
pub mod pg;
pub mod pool;
pub mod route;
pub mod sql;
pub mod topology;
pub mod wire;
