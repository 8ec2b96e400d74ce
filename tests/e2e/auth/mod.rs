//! Logging in to real servers by every method, and to things that are none.

mod backend;
mod login;
pub mod postgres;
