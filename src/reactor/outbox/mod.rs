//! What the tasks of one thread have written, until it is sent.
//!
//! A send runs through half of the kernel: the network's way down, its way up at the other end of a
//! loopback, and the waking of who waits there. After each one both the kernel's code and ours have
//! to be fetched into the processor's nearest memory again. So short messages are put here, and
//! sent one behind the other when everybody who was ready has had his turn (decision 0034).
//!
//! To whoever writes, this is a part of the socket's own buffer, and keeps what that promises:
//! - All that was posted is sent before the thread sleeps, before the socket is closed or given
//!   away, and before anything else is sent on it; in the order in which it was posted.
//! - What the socket has no room for follows as soon as there is some, though nobody waits for
//!   that; until then nothing more is taken for it.
//! - A message that can't be sent is the end of its connection: nothing follows a gap.
//! - What pgsteer slept upon is not sent to a server: whoever it was written for may not be the
//!   primary any more. To a client it is: what it is told was true when it was written.
//!
//! Never: more than [`LETTERS`] messages held back, or more than [`LETTER_MAX`] of each.

use super::poller::{Place, Poller};
use crate::clock;
use crate::clock::Moment;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, Shutdown};
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Longest message that is held back, in bytes: what is longer costs more to copy than it saves.
const LETTER_MAX: usize = 2048;
/// Most of them at once: the first waits for all that is done until the last is posted.
const LETTERS: usize = 32;
/// Nobody is kept waiting for so long unless the whole process stood still.
const STALE: Duration = Duration::from_secs(5);

/// What is to be sent.
pub(super) struct Outbox {
    letters: RefCell<Vec<Letter>>,
    /// Of all letters, one behind the other.
    bytes: RefCell<Vec<u8>>,
    /// When the first was posted.
    since: Cell<Moment>,
}

/// One message.
struct Letter {
    to: Place,
    bytes: usize,
}

/// What was posted to a socket and found no room there. Bounded by what is posted in one turn.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "each socket has room for it, and hardly one has any")]
pub(super) struct Behind(Option<Box<Vec<u8>>>);

/// Whether a socket takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Some,
    None,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self {
            letters: RefCell::new(Vec::new()),
            bytes: RefCell::new(Vec::new()),
            since: Cell::new(Moment::ORIGIN),
        }
    }

    /// Takes a message, if it is short; else the caller sends it, to whom the way is free then.
    pub(super) fn post<P>(&self, poller: &Poller, to: &Place, pieces: &[P]) -> Option<usize>
    where
        P: Deref<Target = [u8]>,
    {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if length > LETTER_MAX {
            self.send(poller);
            return None;
        }
        let mut letters = self.letters.borrow_mut();
        if letters.is_empty() {
            self.since.set(clock::now());
        }
        letters.push(Letter { to: *to, bytes: length });
        let full = letters.len() >= LETTERS;
        drop(letters);
        let mut bytes = self.bytes.borrow_mut();
        for piece in pieces {
            bytes.extend_from_slice(piece);
        }
        drop(bytes);
        if full {
            self.send(poller);
        }
        Some(length)
    }

    /// Sends all that was posted.
    pub(super) fn send(&self, poller: &Poller) {
        let mut letters = self.letters.borrow_mut();
        if letters.is_empty() {
            return;
        }
        let stale = clock::now().since(self.since.get()) > STALE;
        let mut bytes = self.bytes.borrow_mut();
        let mut rest = bytes.as_slice();
        for letter in letters.drain(..) {
            let (message, others) = rest.split_at(letter.bytes.min(rest.len()));
            rest = others;
            if stale {
                poller.send_late(&letter.to, message);
            } else {
                poller.send(&letter.to, message);
            }
        }
        bytes.clear();
    }

    /// Nothing is posted any more; gives the memory back.
    pub(super) fn close(&self) {
        self.letters.take();
        self.bytes.take();
    }
}

impl Behind {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Sends this behind all that came before.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, message: &[u8]) -> Room {
        if let Some(behind) = &mut self.0 {
            behind.extend_from_slice(message);
            return Room::None;
        }
        let sent = send(socket, message);
        match message.get(sent..) {
            None | Some([]) => Room::Some,
            Some(rest) => {
                self.0 = Some(Box::new(rest.to_vec()));
                Room::None
            }
        }
    }

    /// There is room again.
    pub(super) fn catch_up(&mut self, socket: BorrowedFd<'_>) -> Room {
        let Some(behind) = &mut self.0 else { return Room::Some };
        let sent = send(socket, behind);
        behind.drain(..sent.min(behind.len()));
        if !behind.is_empty() {
            return Room::None;
        }
        self.0 = None;
        Room::Some
    }
}

/// Sends until there is no more room, and tells how many bytes are dealt with. Those that can't be
/// sent are, with the connection: what follows would not make sense without them, and its reader
/// finds the end.
fn send(socket: BorrowedFd<'_>, message: &[u8]) -> usize {
    let mut sent = 0;
    while let Some(rest) = message.get(sent..).filter(|rest| !rest.is_empty()) {
        match retry_on_intr(|| rustix::net::send(socket, rest, SendFlags::NOSIGNAL)) {
            Ok(more) => sent += more,
            // Not before that does the kernel tell when there is room.
            Err(Errno::WOULDBLOCK) => return sent,
            Err(error) => {
                tracing::debug!(%error, "a connection broke");
                hang_up(socket);
                return message.len();
            }
        }
    }
    sent
}

/// Ends a connection for both sides. Its reader still finds what had arrived, and then the end.
pub(super) fn hang_up(socket: BorrowedFd<'_>) {
    if let Err(error) = rustix::net::shutdown(socket, Shutdown::Both) {
        tracing::debug!(%error, "a connection had ended");
    }
}

#[cfg(test)]
mod tests;
