//! The targets, as the tests have them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    unused_imports,
    reason = "a target that finds something panics"
)]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

/// Runs a target.
pub fn run(name: &str, data: &[u8]) {
    (hostile::target(name).run)(data);
}

/// The name of each target, and the bytes that it begins with.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    hostile::TARGETS.iter().map(|target| (target.name, (target.seeds)())).collect()
}
