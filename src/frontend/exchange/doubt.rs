//! A server that says yes to a commit, and may be wrong.
//!
//! With synchronous replication a commit waits for standbys after it was made. That wait ends
//! early when somebody cancels it: the server warns and then reports success, though no standby
//! may have what was committed, and the next failover may lose it. A client is not told such a
//! success. It is told that the statement is in doubt.
//!
//! A session can hide warnings (`client_min_messages`), so after a cancel of ours the missing
//! warning proves nothing: then the success is held back until the server was asked whether its
//! commits wait for anybody at all.
//!
//! Deliberately absent: a way to have the standbys confirm it after all.

use super::chunk::{Chunk, Stop};
use super::{Commits, Event, Shown, Word};
use crate::frontend::glance::gave_up_waiting;
use crate::frontend::report::{Doubt, No};
use crate::session::{Disposition, Success, status_of};
use crate::wire::frame::{Header, TxStatus};

/// What the server sends at any time, and whoever waits for an answer takes from it.
const fn is_aside(tag: u8) -> bool {
    matches!(tag, b'S' | b'A' | b'N')
}

impl Chunk<'_, '_> {
    /// Deals with a message if what it is part of is in doubt.
    pub(super) fn in_doubt(
        &mut self,
        header: Header,
        message: &[u8],
    ) -> Result<Option<(Disposition, Option<Event>)>, Stop> {
        if header.tag == b'N' && gave_up_waiting(message) {
            self.exchange.word = Word::NotTaken;
        }
        if is_aside(header.tag) {
            return Ok(None);
        }
        match self.exchange.word {
            Word::Taken => Ok(None),
            Word::Checked => self.check(header, message),
            Word::NotTaken => {
                self.deny();
                self.pass_over(header, message).map(Some)
            }
            Word::Replaced => self.pass_over(header, message).map(Some),
        }
    }

    /// Whether a message reaches the client past what is held back for it.
    pub(super) fn goes_past(&self, tag: u8) -> bool {
        match self.exchange.shown {
            Shown::Yes => false,
            // What is held back may be withdrawn, and what a setting has become stays true.
            Shown::NotYet(_) | Shown::Withdrawn(_) => tag == b'S',
            Shown::Unsure(_) => is_aside(tag),
        }
    }

    /// In place of a success, the client is told what it is worth.
    pub(super) fn deny(&mut self) {
        if let Shown::Unsure(held) = std::mem::replace(&mut self.exchange.shown, Shown::Yes) {
            self.client.shard.give_buffer(held);
        }
        self.client.report(&No::InDoubt(Doubt::Unconfirmed).report());
        self.exchange.word = Word::Replaced;
    }

    /// The rest of an answer of which the client has the end already.
    fn pass_over(
        &mut self,
        header: Header,
        message: &[u8],
    ) -> Result<(Disposition, Option<Event>), Stop> {
        let exchange = &mut *self.exchange;
        let undone = &mut exchange.undone;
        let taken = exchange.replies.take(header.tag, &mut |undo| undone.push(undo));
        taken.map_err(|_| Stop::OutOfStep)?;
        match header.tag {
            b'Z' => {
                let status = status_of(message).ok_or(Stop::OutOfStep)?;
                exchange.word = Word::Taken;
                exchange.note_ready(status);
                Ok((Disposition::Forward, Some(Event::Ready(status))))
            }
            // It waits for data that its client will not send.
            b'G' => Err(Stop::OutOfStep),
            _ => Ok((Disposition::Swallow, None)),
        }
    }

    /// A cancel was sent: from the first success on the answer is held back.
    fn check(
        &mut self,
        header: Header,
        message: &[u8],
    ) -> Result<Option<(Disposition, Option<Event>)>, Stop> {
        if self.exchange.commits == Commits::Never {
            return Ok(None);
        }
        let shown = matches!(self.exchange.shown, Shown::Yes);
        match header.tag {
            b'C' if shown => {
                match (self.exchange.replies.success(), self.exchange.commits) {
                    (Success::OfStep | Success::OfStepAlone, Commits::AtReady) => {}
                    (Success::OfStepAlone, _) => {
                        self.deny();
                        return self.pass_over(header, message).map(Some);
                    }
                    (Success::Whole | Success::OfStep, _) => {
                        self.exchange.shown = Shown::Unsure(self.client.shard.take_buffer());
                    }
                }
                return Ok(None);
            }
            // It was rolled back, or the cancel came after what had succeeded before.
            b'E' if shown => {
                self.exchange.commits = Commits::Never;
                return Ok(None);
            }
            b'Z' => {}
            _ => return Ok(None),
        }
        let status = status_of(message).ok_or(Stop::OutOfStep)?;
        let commits = self.exchange.commits == Commits::Maybe || status == TxStatus::Idle;
        if commits && shown {
            // The success itself was shown before the cancel; the commit comes behind it.
            self.exchange.shown = Shown::Unsure(self.client.shard.take_buffer());
            self.answer_own()?;
        }
        let Shown::Unsure(held) = &mut self.exchange.shown else { return Ok(None) };
        if commits {
            self.exchange.word = Word::Taken;
            let exchange = &mut *self.exchange;
            let undone = &mut exchange.undone;
            let taken = exchange.replies.take(b'Z', &mut |undo| undone.push(undo));
            taken.map_err(|_| Stop::OutOfStep)?;
            exchange.note_ready(status);
            return Ok(Some((Disposition::Swallow, Some(Event::Unconfirmed(status)))));
        }
        let held = std::mem::take(held);
        self.exchange.shown = Shown::Yes;
        self.show_held(held)?;
        Ok(None)
    }
}
