//! The client's side.

pub mod login;
