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
//! - A message that can't be sent is the end of its connection: nothing follows a gap, and whoever
//!   writes more is told so.
//! - What pgsteer slept upon is sent to a server only if it may be sent there now ([`Late`]):
//!   whoever it was written for may not be the primary any more. To a client it is sent: what it is
//!   told was true when it was written.
//!
//! Never: more than [`LETTERS`] messages held back, or more than [`LETTER_MAX`] of each.

use super::poller::{OtherSide, Place, Poller};
use crate::clock;
use crate::clock::Moment;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, Shutdown};
use std::cell::RefCell;
use std::fmt::{Debug, Formatter};
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Longest message that is held back, in bytes: what is longer costs more to copy than it saves.
const LETTER_MAX: usize = 2048;
/// Most of them at once: the first waits for all that is done until the last is posted.
const LETTERS: usize = 32;
/// Nobody is kept waiting for so long unless the thread stood still.
const LATE: Duration = Duration::from_millis(500);

/// What becomes of something that was to be sent to a server half a second ago or longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is still wanted.
    Send,
    /// It must not be sent any more, so its connection ends.
    HangUp,
}

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Outbox {
    posted: RefCell<Posted>,
    judge: RefCell<Option<Judge>>,
}

#[derive(Debug)]
struct Posted {
    letters: Vec<Letter>,
    /// Of all letters, one behind the other.
    bytes: Vec<u8>,
    /// When the first to a server was posted.
    since: Option<Moment>,
}

/// One message.
#[derive(Debug)]
struct Letter {
    to: Place,
    /// The socket of that place, which is open until all that was posted to it is sent.
    socket: RawFd,
    bytes: usize,
}

/// Who knows what is still wanted.
struct Judge(Box<dyn Fn() -> Late>);

/// What has become of what was posted to a socket.
#[derive(Debug, Default)]
pub(super) enum Owed {
    /// The kernel has all of it.
    #[default]
    Nothing,
    /// This found no room. Bounded by what is posted in one turn.
    #[expect(
        clippy::box_collection,
        reason = "each socket has room for it, and hardly one has any"
    )]
    Behind(Box<Vec<u8>>),
    /// It can't be sent, and so nothing else can be.
    Broken,
}

/// What came of a try to send something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// So many bytes were; there is no room for the rest.
    Part(usize),
    /// All.
    All,
    /// Nothing more ever will be.
    Failed,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self { posted: RefCell::new(Posted::NOTHING), judge: RefCell::new(None) }
    }

    /// Asks this of what is late.
    pub(super) fn judge_by(&self, judge: impl Fn() -> Late + 'static) {
        self.judge.replace(Some(Judge(Box::new(judge))));
    }

    /// Whether nothing was posted.
    pub(super) fn is_empty(&self) -> bool {
        self.posted.borrow().letters.is_empty()
    }

    /// Takes a message, if it is short; else the caller sends it, to whom the way is free then.
    pub(super) fn post<P>(
        &self,
        poller: &Poller,
        (to, socket): (&Place, BorrowedFd<'_>),
        pieces: &[P],
    ) -> Option<usize>
    where
        P: Deref<Target = [u8]>,
    {
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        if bytes > LETTER_MAX {
            self.send(poller);
            return None;
        }
        let mut posted = self.posted.borrow_mut();
        if posted.since.is_none() && to.other == OtherSide::Server {
            posted.since = Some(clock::now());
        }
        posted.letters.push(Letter { to: *to, socket: socket.as_raw_fd(), bytes });
        for piece in pieces {
            posted.bytes.extend_from_slice(piece);
        }
        if posted.letters.len() >= LETTERS {
            drop(posted);
            self.send(poller);
        }
        Some(bytes)
    }

    /// Sends all that was posted.
    pub(super) fn send(&self, poller: &Poller) {
        if self.posted.borrow().letters.is_empty() {
            return;
        }
        // Nobody finds what is half sent, whatever happens here.
        let mut posted = self.posted.replace(Posted::NOTHING);
        let to_servers = self.late(posted.since.take());
        let mut rest = posted.bytes.as_slice();
        for letter in posted.letters.drain(..) {
            let (message, others) = rest.split_at(letter.bytes.min(rest.len()));
            rest = others;
            match (to_servers, letter.to.other) {
                (Late::Send, OtherSide::Client | OtherSide::Server)
                | (Late::HangUp, OtherSide::Client) => letter.send(poller, message),
                (Late::HangUp, OtherSide::Server) => poller.break_off(&letter.to),
            }
        }
        posted.bytes.clear();
        self.posted.replace(posted);
    }

    /// What becomes of what was posted to servers, the first of it then.
    fn late(&self, since: Option<Moment>) -> Late {
        if since.is_none_or(|since| clock::now().since(since) <= LATE) {
            return Late::Send;
        }
        self.judge.borrow().as_ref().map_or(Late::Send, |Judge(judge)| judge())
    }

    /// Nothing is posted any more; gives the memory back.
    pub(super) fn close(&self) {
        self.posted.replace(Posted::NOTHING);
        let judge = self.judge.take();
        // What it may take with it may ask for us.
        drop(judge);
    }
}

impl Posted {
    const NOTHING: Self = Self { letters: Vec::new(), bytes: Vec::new(), since: None };
}

impl Letter {
    /// Sends it behind what was posted before; what finds no room follows when there is some.
    #[expect(unsafe_code, reason = "a letter can't borrow the socket, which its owner gets back")]
    fn send(&self, poller: &Poller, message: &[u8]) {
        match poller.has_caught_up(&self.to) {
            Ok(true) => {
                // SAFETY: `Registered` has all that was posted sent before it closes its socket or
                // gives it away, and does neither where it can't.
                let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
                match send(socket, message) {
                    Sent::All => (),
                    Sent::Part(sent) => poller.keep(&self.to, message.get(sent..).unwrap_or(&[])),
                    Sent::Failed => poller.break_off(&self.to),
                }
            }
            Ok(false) => poller.keep(&self.to, message),
            // Whoever writes to it has been told, or will be.
            Err(error) => tracing::debug!(%error, "a message was not sent"),
        }
    }
}

impl Debug for Judge {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str("Judge")
    }
}

impl Owed {
    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Keeps this behind all that came before.
    pub(super) fn keep(&mut self, message: &[u8]) {
        match self {
            Self::Nothing => *self = Self::Behind(Box::new(message.to_vec())),
            Self::Behind(behind) => behind.extend_from_slice(message),
            Self::Broken => (),
        }
    }

    /// There is room again: what is left of it then.
    pub(super) fn catch_up(&mut self, socket: BorrowedFd<'_>) {
        let Self::Behind(behind) = self else { return };
        match send(socket, behind) {
            Sent::All => *self = Self::Nothing,
            Sent::Part(sent) => drop(behind.drain(..sent.min(behind.len()))),
            Sent::Failed => {
                *self = Self::Broken;
                hang_up(socket);
            }
        }
    }
}

/// Sends until there is no more room.
fn send(socket: BorrowedFd<'_>, message: &[u8]) -> Sent {
    let mut sent = 0;
    while let Some(rest) = message.get(sent..).filter(|rest| !rest.is_empty()) {
        match retry_on_intr(|| rustix::net::send(socket, rest, SendFlags::NOSIGNAL)) {
            Ok(more) => sent += more,
            // Not before that does the kernel tell when there is room.
            Err(Errno::WOULDBLOCK) => return Sent::Part(sent),
            Err(error) => {
                tracing::debug!(%error, "a connection broke");
                return Sent::Failed;
            }
        }
    }
    Sent::All
}

/// Ends a connection for both sides. Its reader still finds what had arrived, and then the end.
pub(super) fn hang_up(socket: BorrowedFd<'_>) {
    if let Err(error) = rustix::net::shutdown(socket, Shutdown::Both) {
        tracing::debug!(%error, "a connection had ended");
    }
}

#[cfg(test)]
mod tests;
