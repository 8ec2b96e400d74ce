//! The binary that is tested.

use pgsteer::sandbox::Proxy;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The binary that users run.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pgsteer"))
}

/// A copy of the binary, by another process: what is open for writing can't be run, and it would be
/// open in a child as well that another thread forks meanwhile.
pub fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(program()).arg(to).status().unwrap();
    assert!(copied.success(), "no copy: {}", to.display());
}

/// A run of the binary, with nothing of our environment that it would take for configuration.
pub fn command() -> Command {
    Proxy::command(Path::new(env!("CARGO_BIN_EXE_pgsteer")))
}
