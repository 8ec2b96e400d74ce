//! Tidy: the rules of the house that no compiler checks.
//!
//! Each rule is a function from text to violations, and has two tests: that the house keeps it,
//! and that it bites, on a text that breaks it. A violation names file, line and remedy, and all
//! of them are reported at once.
//!
//! Deliberately absent: a way to switch a rule off. What is let through stands in a table beside
//! its rule, with the reason, and a line of such a table that is needed no more is itself a
//! violation.

mod documents;
mod errors;
mod events;
mod imports;
mod keys;
mod metrics;
mod purity;
mod sizes;
mod source;
mod words;

/// Fails with every violation, one a line.
#[track_caller]
fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}\n", violations.len(), violations.join("\n"));
}
