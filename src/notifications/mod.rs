//! One listener a database, for all sessions that listen there and hold no backend.
//!
//! `LISTEN` lives in a backend. A session that keeps its own for it costs a server connection for
//! doing nothing, so it gives the backend back, and its channels are listened to for it: one
//! connection to the primary for each database and encoding hears for everybody, and puts what it
//! hears into each listening session's [`Ear`].
//!
//! Invariants:
//! - Every notification that is committed after [`Listeners::follow`] was answered is put into the
//!   ear, in the server's order, or the ear is told that something may be missing.
//! - An ear is bounded: a session that does not empty it loses it, and nobody waits for it.
//! - The connection follows the primary.
//! - What a session of pgsteer notified is told under the process that its own client knows.
//!
//! Deliberately absent: what a session makes of it, and when it may be told (`frontend`); and
//! `NOTIFY`, which runs on a session's own backend as everything else does; only who notifies there
//! is noted.
//!
//! Source: PostgreSQL manual, `LISTEN`, `NOTIFY`, and 55.2.7 "Asynchronous Operations".

mod hub;
mod listeners;
mod senders;
mod table;

pub use listeners::{Deaf, Ear, Hearing, Listeners, Place};
pub use senders::{Noted, Process, Senders, process_of, renamed};
