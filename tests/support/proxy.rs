//! The binary that is tested.

use pgsteer::sandbox::Proxy;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The binary that users run.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pgsteer"))
}

/// A run of the binary, with nothing of our environment that it would take for configuration.
pub fn command() -> Command {
    Proxy::command(Path::new(env!("CARGO_BIN_EXE_pgsteer")))
}
