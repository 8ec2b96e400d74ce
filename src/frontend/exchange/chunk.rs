//! The server's messages, one chunk at a time: what is passed on, held back, swallowed or put in.
//!
//! Rows and everything else that nobody needs to look into pass as they came; the run of bytes
//! between two messages that need something is sent in one piece.

use super::{
    Erred, Event, Exchange, LOOKED_AT_MAX, Leftover, OnError, Reopened, Shown, Word, hold_back,
};
use crate::clock;
use crate::frontend::attached::{Relies, Stale};
use crate::frontend::client::{Client, Gone};
use crate::frontend::glance::{
    by_clients_names, cancelled_as_overdue, is_bulk, is_stale, may_not_fit, may_run_again,
};
use crate::frontend::lost::Loss;
use crate::frontend::params::Cause;
use crate::frontend::state::Session;
use crate::metrics::ErrorOrigin;
use crate::pg::SqlState;
use crate::pool::Reports;
use crate::session::{CopyIn, Disposition, find_ours, status_of};
use crate::topology::{Void, Wish};
use crate::wire::frame;
use crate::wire::frame::Header;
use crate::wire::message;
use std::task::Context;

/// Why a chunk was not processed to its end.
pub(super) enum Stop {
    ClientGone,
    OutOfStep,
    /// What the server says is worth nothing: it is not the primary any more, or may not be.
    Void(Void),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::ClientGone
    }
}

/// One chunk of the server's bytes on its way through.
pub(super) struct Chunk<'a, 'c> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) client: &'a mut Client,
    pub(super) context: &'a mut Context<'c>,
    reports: &'a mut Reports,
    session: &'a Session,
    marked: Marked,
    /// What the session wants of the primary, if this chunk ends its transaction.
    wish: Wish,
}

/// `ReadyForQuery` outside a transaction.
const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

/// Whether it was reported that the primary is done with something in this chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marked {
    No,
    Yes,
}

impl<'a, 'c> Chunk<'a, 'c> {
    /// What has just arrived on this exchange.
    pub(super) const fn new(
        exchange: &'a mut Exchange,
        client: &'a mut Client,
        context: &'a mut Context<'c>,
        (reports, session): (&'a mut Reports, &'a Session),
    ) -> Self {
        Self { exchange, client, context, reports, session, marked: Marked::No, wish: Wish::None }
    }

    /// Goes through the messages in `bytes`; what is left of one that has not arrived whole is
    /// kept in `partial`.
    pub(super) fn process(
        &mut self,
        bytes: &[u8],
        partial: &mut Vec<u8>,
    ) -> Result<Option<Event>, Stop> {
        // One that seems to end it and does not costs a sample too many.
        self.wish = if bytes.ends_with(&READY) { self.exchange.wish } else { Wish::None };
        if let Some(event) = self.pass_whole(bytes)? {
            return Ok(Some(event));
        }
        let mut at = 0;
        // Where the run of bytes begins that goes to the client as it is.
        let mut run = 0;
        let mut event = None;
        while at < bytes.len() && event.is_none() {
            if self.exchange.pass > 0 {
                let passing = self.exchange.pass.min(bytes.len() - at);
                self.exchange.pass -= passing;
                if self.exchange.pass_as == Disposition::Swallow {
                    self.emit(bytes, run, at)?;
                    run = at + passing;
                }
                at += passing;
                continue;
            }
            if self.exchange.replies.puts_in_now() {
                self.emit(bytes, run, at)?;
                run = at;
                self.put_in()?;
            }
            let rest = bytes.get(at..).unwrap_or(&[]);
            let Some(header) = frame::peek(rest).map_err(|_| Stop::OutOfStep)? else { break };
            if header.total <= LOOKED_AT_MAX && rest.len() < header.total {
                break;
            }
            let short = header.total <= LOOKED_AT_MAX && !is_bulk(header.tag);
            if !matches!(self.exchange.shown, Shown::Yes)
                || matches!(header.tag, b'A' | b'E')
                || header.tag == b'Z' && self.is_joined_by_more()
                || self.exchange.word != Word::Taken
            {
                // What came before is held back in its order, and may yet be withdrawn; and what
                // comes now may be replaced, behind what came before.
                self.emit(bytes, run, at)?;
                run = at;
            }
            let message = rest.get(..header.total.min(rest.len())).unwrap_or(rest);
            let (mut disposition, happened) = self.message(header, message)?;
            event = happened;
            if disposition == Disposition::Forward && self.goes_past(header.tag) {
                self.client.forward(self.context, message)?;
                disposition = Disposition::Swallow;
            }
            if !short {
                self.exchange.pass = header.total;
                self.exchange.pass_as = disposition;
                continue;
            }
            if disposition == Disposition::Swallow {
                self.emit(bytes, run, at)?;
                run = at + header.total;
            }
            at += header.total;
        }
        self.emit(bytes, run, at)?;
        self.put_in()?;
        partial.extend_from_slice(bytes.get(at..).unwrap_or(&[]));
        Ok(event)
    }

    /// Puts in the answers that the server will not give.
    fn put_in(&mut self) -> Result<(), Gone> {
        if !self.exchange.replies.puts_in_now() {
            return Ok(());
        }
        let answers = self.exchange.replies.put_in();
        self.emit(&answers, 0, answers.len())
    }

    /// Deals with one message (whole, or the start of a bulk one).
    fn message(
        &mut self,
        header: Header,
        message: &[u8],
    ) -> Result<(Disposition, Option<Event>), Stop> {
        let exchange = &mut *self.exchange;
        let ours = exchange.replies.is_ours_next();
        if header.tag == b'S' {
            return Ok((self.status(message), None));
        }
        if header.tag == b'A' {
            let senders = self.client.shard.shared.listeners.senders();
            if let Some(told) = exchange.processes.as_clients_know(message, senders) {
                self.emit(&told, 0, told.len())?;
                return Ok((Disposition::Swallow, None));
            }
        }
        if header.tag == b'E' {
            let fields = message::read_error(message).ok();
            if let Some(fields) = fields.filter(message::ErrorFields::is_fatal) {
                // The backend ends, not the client's session. It is not waited for: meanwhile a
                // statement could be sent there.
                let gone = Event::ServerGone(Loss::Broken(Some(fields.code)));
                return Ok((Disposition::Swallow, Some(gone)));
            }
            if !ours && let Some(told) = self.in_doubt(header, message)? {
                return Ok(told);
            }
            let disposition = if ours { Disposition::Swallow } else { self.error(message) };
            return Ok((self.explain(message, disposition)?, None));
        }
        if matches!(header.tag, b'C' | b'Z') && !ours {
            self.acknowledge()?;
        }
        if let Some(told) = self.in_doubt(header, message)? {
            return Ok(told);
        }
        if header.tag == b'Z' {
            self.answer_own()?;
        }
        let exchange = &mut *self.exchange;
        let undone = &mut exchange.undone;
        let mut disposition = exchange
            .replies
            .take(header.tag, &mut |undo| undone.push(undo))
            .map_err(|_| Stop::OutOfStep)?;
        match header.tag {
            b'Z' => {
                let status = status_of(message).ok_or(Stop::OutOfStep)?;
                exchange.note_ready(status);
                if let Shown::Withdrawn(code) = exchange.shown {
                    return Ok((Disposition::Swallow, Some(Event::Withdrawn(code, status))));
                }
                self.show()?;
                self.tell()?;
                return Ok((disposition, Some(Event::Ready(status))));
            }
            b'D' | b'C' | b'G' | b'H' | b'W' | b'd' | b'I' | b's' | b'V' if !ours => {
                self.show()?;
                let exchange = &mut *self.exchange;
                if header.tag == b'G' {
                    let copy = exchange.replies.copy_in_begins();
                    if copy == CopyIn::Extended {
                        exchange.reopened = Reopened::Yes;
                    }
                    exchange.copy_in = Some(copy);
                }
                if header.tag == b'C' {
                    exchange.note_completed(message);
                }
            }
            _ => {}
        }
        if matches!(self.exchange.shown, Shown::Withdrawn(_)) {
            disposition = Disposition::Swallow;
        }
        Ok((disposition, None))
    }

    /// Whether something goes to the client right before this end of an answer.
    fn is_joined_by_more(&self) -> bool {
        self.exchange.to_tell.is_some() || self.exchange.replies.is_own_next()
    }

    /// What was for pgsteer is answered where the server is done with what it ends.
    pub(super) fn answer_own(&mut self) -> Result<(), Gone> {
        match self.exchange.replies.take_own() {
            Some(answer) => self.emit(&answer, 0, answer.len()),
            None => Ok(()),
        }
    }

    /// The primary is done with something. It is reported before it is shown, and shown only if
    /// the server is still the primary: one that was replaced may have slept through it, and then
    /// its success is worth nothing. So it is if we slept ourselves, and can't know.
    pub(super) fn acknowledge(&mut self) -> Result<(), Stop> {
        let Some(epoch) = self.exchange.epoch else { return Ok(()) };
        if self.marked == Marked::Yes {
            return Ok(());
        }
        self.marked = Marked::Yes;
        let (shard, now) = (&self.client.shard, clock::now());
        shard.shared.signals.acknowledge(shard.pools.shard, now, self.wish);
        self.exchange.answered = Some(now);
        if self.wish == Wish::Position {
            self.exchange.wished = now;
        }
        shard.counts(epoch, now).map_err(Stop::Void)
    }

    /// Adds to an error that a rule is behind it, if one is, and has it speak of statements by the
    /// client's names.
    fn explain(&mut self, message: &[u8], disposition: Disposition) -> Result<Disposition, Stop> {
        if disposition != Disposition::Forward {
            return Ok(disposition);
        }
        let overdue = self.exchange.overdue;
        let told = overdue.and_then(|allowed| cancelled_as_overdue(message, allowed));
        let told = told.or_else(|| {
            let session = self.session;
            by_clients_names(message, |id| session.name_of(id))
        });
        let Some(told) = told else { return Ok(disposition) };
        self.emit(&told, 0, told.len())?;
        Ok(Disposition::Swallow)
    }

    /// Deals with an error: it is shown, unless it answers us, or the group may be run again.
    fn error(&mut self, message: &[u8]) -> Disposition {
        let fields = message::read_error(message);
        let code = fields.map_or(SqlState::INTERNAL_ERROR, |fields| fields.code);
        let stale = code == SqlState::FEATURE_NOT_SUPPORTED && is_stale(message);
        let exchange = &mut *self.exchange;
        if stale {
            exchange.stale = Stale::Yes;
        }
        // What is noted of the backend is not there: a client's own names are none of ours.
        let gone = code == SqlState::UNDEFINED_PREPARED_STATEMENT
            && exchange.replies.is_planning()
            && find_ours(message).is_some();
        if gone {
            exchange.stale = Stale::Gone;
        }
        // What others prepared may have been read under other circumstances: it is planned when it
        // is bound or described, before anything is run.
        let in_vain = gone
            || exchange.relies == Relies::Yes
                && (stale || exchange.replies.is_planning() && may_not_fit(code));
        if exchange.copy_in.take().is_some() && exchange.client_pass > 0 {
            exchange.leftover = Leftover::Passing;
        }
        let undone = &mut exchange.undone;
        // An error is never out of step: a server may always send one.
        if exchange.replies.take(b'E', &mut |undo| undone.push(undo)).is_err() {
            return Disposition::Forward;
        }
        let statements = &self.client.shard.shared.metrics.statements;
        statements.failed(ErrorOrigin::Server, code);
        if let Shown::NotYet(held) = &mut exchange.shown
            && exchange.on_error == OnError::Withdraw
            && (may_run_again(code) || in_vain)
        {
            if in_vain {
                exchange.relies = Relies::InVain;
            }
            held.clear();
            exchange.shown = Shown::Withdrawn(code);
            return Disposition::Swallow;
        }
        exchange.erred = Erred::Yes;
        Disposition::Forward
    }

    /// From here on the client sees the answer: what was held back goes first.
    pub(super) fn show(&mut self) -> Result<(), Gone> {
        match &mut self.exchange.shown {
            Shown::Yes | Shown::Unsure(_) => Ok(()),
            Shown::Withdrawn(_) => {
                self.exchange.shown = Shown::Yes;
                Ok(())
            }
            Shown::NotYet(held) => {
                let held = std::mem::take(held);
                self.exchange.shown = Shown::Yes;
                self.show_held(held)
            }
        }
    }

    /// Deals with a `ParameterStatus`.
    fn status(&mut self, message: &[u8]) -> Disposition {
        self.reports.hear(message);
        let ours = self.exchange.replies.is_ours_next();
        self.client.reported.take(message, if ours { Cause::Ours } else { Cause::Client })
    }

    /// Tells the client what this backend's settings are, where it knows something else and the
    /// backend has said nothing of it to this client.
    fn tell(&mut self) -> Result<(), Gone> {
        let Some(untold) = self.exchange.to_tell.take() else { return Ok(()) };
        let mut told = Vec::new();
        for (name, value) in untold {
            let value = self.reports.said(&name).unwrap_or(&value);
            self.client.reported.tell((&name, value), &mut told);
        }
        if told.is_empty() { Ok(()) } else { self.client.forward(self.context, &told) }
    }

    /// Gives the client what was held back for it.
    pub(super) fn show_held(&mut self, held: Vec<u8>) -> Result<(), Gone> {
        if !held.is_empty() {
            self.client.forward(self.context, &held)?;
        }
        self.client.shard.give_buffer(held);
        Ok(())
    }

    /// Sends `bytes[from..to]` to the client, or holds them back.
    fn emit(&mut self, bytes: &[u8], from: usize, to: usize) -> Result<(), Gone> {
        let Some(run) = bytes.get(from..to).filter(|run| !run.is_empty()) else { return Ok(()) };
        match &mut self.exchange.shown {
            Shown::Yes => self.client.forward(self.context, run),
            Shown::Withdrawn(_) => Ok(()),
            Shown::NotYet(held) | Shown::Unsure(held)
                if held.len() + run.len() <= LOOKED_AT_MAX =>
            {
                hold_back(held, &self.client.shard, run);
                Ok(())
            }
            Shown::NotYet(_) => {
                self.show()?;
                self.client.forward(self.context, run)
            }
            // Too much to be held back until it is known.
            Shown::Unsure(_) => {
                self.deny();
                Ok(())
            }
        }
    }
}
