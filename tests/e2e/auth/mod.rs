//! Logging in to real servers by every method, and to things that are none.

mod asking;
mod backend;
mod binding;
mod direct;
mod door;
mod guessing;
mod impostor;
mod login;
mod oracles;
pub mod postgres;
mod renewal;
mod rules;
mod tls;
