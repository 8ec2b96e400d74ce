//! Logging in to real servers by every method, and to things that are none.

mod backend;
mod impostor;
mod login;
pub mod postgres;
