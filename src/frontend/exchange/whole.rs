//! The common case, in one pass: a chunk that is all that is due, of which nothing is to be looked
//! into, and which goes to the client as it is.
//!
//! Whatever is not certainly so is left to the message by message of `chunk`, which does the same
//! with it, more slowly.

use super::chunk::{Chunk, Stop};
use super::{Event, Exchange, Shown, Word};
use crate::frontend::glance::is_deallocation;
use crate::session::status_of;
use crate::wire::frame;
use crate::wire::frame::TxStatus;

/// How long a `ReadyForQuery` is, in bytes.
const READY: usize = frame::HEADER + 1;

/// The transaction's status behind `bytes`, if they are all that is due and the client's as they
/// are.
fn whole_answer(exchange: &Exchange, bytes: &[u8]) -> Option<TxStatus> {
    let plain = match &exchange.shown {
        Shown::Yes | Shown::NotYet(_) => true,
        Shown::Unsure(_) | Shown::Withdrawn(_) => false,
    };
    if !plain || exchange.word != Word::Taken || exchange.pass > 0 || exchange.copy_in.is_some() {
        return None;
    }
    if exchange.to_tell.is_some() {
        return None;
    }
    let last = bytes.len().checked_sub(READY)?;
    if bytes.get(last) != Some(&b'Z') {
        return None;
    }
    let mut due = exchange.replies.walk()?;
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        let header = frame::peek(rest).ok()??;
        if header.tag == b'Z' {
            return if at == last && due.is_at_ready() { status_of(rest) } else { None };
        }
        let is_told = header.tag == b'C' && is_deallocation(rest.get(..header.total)?);
        if is_told || !due.takes(header.tag) {
            return None;
        }
        at += header.total;
    }
}

impl Chunk<'_, '_> {
    /// Passes `bytes` on if they are a whole answer.
    pub(super) fn pass_whole(&mut self, bytes: &[u8]) -> Result<Option<Event>, Stop> {
        let Some(status) = whole_answer(self.exchange, bytes) else { return Ok(None) };
        self.acknowledge()?;
        self.exchange.replies.take_all();
        self.exchange.note_ready(status);
        match std::mem::replace(&mut self.exchange.shown, Shown::Yes) {
            // In one piece with what was put in before it.
            Shown::NotYet(mut held) if !held.is_empty() => {
                held.extend_from_slice(bytes);
                self.show_held(held)?;
            }
            Shown::NotYet(_) | Shown::Yes | Shown::Unsure(_) | Shown::Withdrawn(_) => {
                self.client.forward(self.context, bytes)?;
            }
        }
        Ok(Some(Event::Ready(status)))
    }
}
