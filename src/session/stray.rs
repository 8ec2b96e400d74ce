//! Names of a client's that a backend was given for a while, though it knows statements by names
//! of ours only: what is there under them is taken off before the backend serves another session.

use crate::session::Prepared;
use std::sync::Arc;

/// A client's name that a backend was given for a while.
#[derive(Debug)]
pub struct Stray {
    /// As the client wrote it.
    pub name: Box<[u8]>,
    /// What is to have it again if it is there still.
    pub before: Option<Arc<Prepared>>,
    /// The encoding in which it was given, if that has been noted: a server converts names.
    pub letters: Option<Box<str>>,
    /// Whether the backend was lent what it stands for.
    pub lent: Lent,
}

/// Whether a backend was lent a statement under its client's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lent {
    /// Just now, for the group that is sent next.
    Now,
    /// Not for that.
    No,
}

impl Stray {
    /// Of this name, and what is to have it again.
    pub const fn new(name: Box<[u8]>, before: Option<Arc<Prepared>>) -> Self {
        Self { name, before, letters: None, lent: Lent::No }
    }

    /// One that the next group is to find there.
    pub const fn lent(name: Box<[u8]>) -> Self {
        Self { name, before: None, letters: None, lent: Lent::Now }
    }
}
