//! TOML, environment and flags, become one checked [`Config`]: the only module that knows keys.
//!
//! Every key is defined once, in the table of `keys`; the reader, the reference file and
//! `docs/configuration.md` are made from it. The layers are flag > environment > file > default,
//! and each value remembers where it came from.
//!
//! Invariants:
//! - No bytes of a file, a variable or a flag cause a panic; every mistake in them is reported
//!   in one go, at its place, with what to write instead.
//! - A number alone never means a time or a size; a key that nobody knows is an error.
//! - A [`Config`] exists only without errors: whoever holds one need not check it again.
//! - A secret is in no message, no `Debug`, no list of settings.
//!
//! Deliberately absent: a way to read a key in mid-flow. The parts of the house get their own
//! policy by value, and a reload hands them a new one.

mod access;
mod build;
mod changes;
mod choices;
mod hosts;
mod key;
mod keys;
mod layers;
mod limit_rules;
mod listen;
mod load;
mod login;
mod node;
mod pgpass;
mod problem;
pub mod reference;
mod secret;
mod peers;
mod server_tls;
mod setting;
mod state;
mod types;

pub use changes::{Change, Shown, Source};
pub use layers::Flag;
pub use load::{Loaded, Request};
pub use problem::{Problem, Report, Severity};
pub use setting::{duration, max_loss};
pub use types::{
    ClientTls, ClientTlsMode, Config, ControlLogin, Cores, Limits, Listen, ListenAt, LogFormat,
    LogLevel, Observability, Scheduling, ServerConfig,
};
