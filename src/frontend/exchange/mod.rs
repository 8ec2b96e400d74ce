//! The exchange between a client and the backend that its session holds: bytes both ways, until
//! something happens that the session must decide about.
//!
//! One task waits on both sockets; there is no task per backend and no channel. The server's
//! messages are told apart by their headers. Rows pass in the chunks in which they arrived, and,
//! unless they are very long, only whole: a client that was given half a row can't be told that
//! the server is gone. Only short messages are looked at. What the client sends meanwhile stays in
//! its inbox, except the data of a COPY.
//!
//! Invariants:
//! - The client never sees an answer to something that we sent.
//! - While a read may still be run again elsewhere, the client has seen nothing of its answer.
//! - A slow client stops the reading from the server, and a slow server the reading from the
//!   client: no buffer grows beyond its bound.

mod chunk;
mod doubt;
mod whole;

use crate::clock::Moment;
use crate::frontend::attached::{Relies, Stale};
use crate::frontend::client::{Client, Gone, make_room};
use crate::frontend::glance::is_deallocation;
use crate::frontend::lost::Loss;
use crate::frontend::overdue::Allowed;
use crate::frontend::processes::Processes;
use crate::frontend::sense::Reshapes;
use crate::frontend::shard::Shard;
use crate::frontend::state::Session;
use crate::pg::SqlState;
use crate::pool::Conn;
use crate::session::{CopyIn, Disposition, Replies, Room, Undo};
use crate::topology::{Epoch, Wish};
use crate::wire::frame;
use crate::wire::frame::{Header, TxStatus};
use chunk::{Chunk, Stop};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// The state of one exchange, from the check-out of a backend to its release.
#[derive(Debug)]
pub struct Exchange {
    /// What the server owes.
    pub replies: Replies,
    /// The epoch in which this is with the primary; `None`: with a standby.
    pub epoch: Option<Epoch>,
    /// Whether the session wants the primary's position after each answer.
    pub wish: Wish,
    /// For when it was last wished for.
    pub wished: Moment,
    /// When the primary was done with something last.
    pub answered: Option<Moment>,
    /// What is to be written to the server.
    pub to_server: Vec<u8>,
    written: usize,
    /// `conn.partial` holds more than the start of one message.
    unread: Unread,
    /// Bytes of the server's present message that have not arrived, and where they go.
    pass: usize,
    pass_as: Disposition,
    /// Whether the answer may still be withdrawn.
    pub shown: Shown,
    /// Whether a success that arrives now tells of a commit.
    pub commits: Commits,
    /// Whether the server's word on a commit is taken.
    pub word: Word,
    /// What an error is to an answer that may still be withdrawn.
    pub on_error: OnError,
    /// What the client sends now is COPY data.
    copy_in: Option<CopyIn>,
    /// Bytes of the client's present message that go to the server as they arrive.
    pub client_pass: usize,
    /// Whether a COPY has swallowed the `Sync` of its batch: the batch goes on.
    pub reopened: Reopened,
    /// The backend's process, and what the client knows as its own.
    pub processes: Processes,
    /// How much of the client's bytes is taken in.
    pub appetite: Appetite,
    /// Notes to be undone, for messages that the server never ran.
    pub undone: Vec<Undo>,
    /// Tags of the statements that were completed, if somebody wants to know.
    pub completed: Completed,
    /// Whether an error was among the answers.
    pub erred: Erred,
    /// That a rule has what runs cancelled: by how long it may run.
    pub overdue: Option<Allowed>,
    /// Whether the backend holds a statement whose result has changed since it was prepared.
    pub stale: Stale,
    /// Whether the group relies on a statement that the backend held before.
    pub relies: Relies,
    /// That what runs may change what others' statements mean.
    pub reshapes: Option<Reshapes>,
    /// What came of a COPY that the server ended before the client did.
    leftover: Leftover,
    /// Settings of which the client knows something else than the backend had when it was taken.
    /// It is told with the first answer, if that has not told it.
    pub(in crate::frontend) to_tell: Option<Untold>,
}

/// Names and values that a client is to be told.
pub(in crate::frontend) type Untold = Box<[(Box<str>, Box<str>)]>;

/// Whether the server ended a COPY in the middle of one of the client's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    /// No.
    None,
    /// Yes: its rest still goes to the server, which passes over it.
    Passing,
}

/// Whether the server answered a part of the present group with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Erred {
    /// No.
    #[default]
    No,
    /// Yes.
    Yes,
}

/// How much of the client's bytes is taken in before its next group is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appetite {
    /// Nothing: it waits, and has sent enough.
    Nothing,
    /// As much as a group may have: more waits in the socket.
    OneGroup,
    /// Also the rest of the message without which the next group is none; its kind bounds it.
    WholeMessage,
}

/// Whether messages that arrived were left for the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    No,
    Yes,
}

/// What was seen of completed statements that concern prepared statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Completed {
    /// Nothing of note.
    #[default]
    Nothing,
    /// `DISCARD ALL` or `DEALLOCATE ALL`: the backend holds no prepared statement any more.
    AllDeallocated,
}

/// Whether the client has seen any of the present group's answer.
#[derive(Debug)]
pub enum Shown {
    /// It has, or it may: the group can't be run again.
    Yes,
    /// It has not: its answer so far is held back here.
    NotYet(Vec<u8>),
    /// It has not, and what came is an error after which the group may be run again.
    Withdrawn(SqlState),
    /// It has, up to a success that may have to be taken back; that, and what is behind it, is held
    /// back here.
    Unsure(Vec<u8>),
}

/// Whether a success tells of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Commits {
    /// Never: nothing of what was sent can commit anything that matters.
    Never,
    /// If no transaction is open behind it.
    AtReady,
    /// Perhaps, whatever comes behind it.
    Maybe,
}

/// Whether the server's word on a commit is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is.
    Taken,
    /// A cancel was sent: its success may be one that waited for nobody.
    Checked,
    /// It said that it did not wait for its standbys; a success is still to come.
    NotTaken,
    /// The client was told so in place of the success; the rest of the answer is passed over.
    Replaced,
}

/// What an error is to an answer that may still be withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The answer: the client is to have it.
    Show,
    /// A reason to try another server, if it is the server's fault.
    Withdraw,
}

/// What the exchange stopped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The server is done with a group.
    Ready(TxStatus),
    /// The server is done, and says that it has committed; a cancel was on its way, so that may be
    /// true of itself alone. The answer is held back.
    Unconfirmed(TxStatus),
    /// The group failed before the client saw anything of it, with this code, and its backend is
    /// ready again.
    Withdrawn(SqlState, TxStatus),
    /// The backend is gone.
    ServerGone(Loss),
    /// The server sent what it must not.
    OutOfStep,
    /// More has arrived from the client.
    ClientBytes,
    /// The client has closed its side; what it asked for is still under way.
    ClientEnded,
    /// The client takes nothing any more.
    ClientGone,
}

/// Whether a batch whose `Sync` was sent goes on nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reopened {
    /// It does not.
    #[default]
    No,
    /// It does: the server passed over the `Sync`.
    Yes,
}

/// Adds to what is held back. Most answers are whole when they arrive, and need no room here.
fn hold_back(held: &mut Vec<u8>, shard: &Shard, bytes: &[u8]) {
    if held.capacity() == 0 {
        *held = shard.take_buffer();
    }
    held.extend_from_slice(bytes);
}

/// So many bytes of a client's next groups are enough while one is under way: one that asks on and
/// on takes no more memory than others.
const AHEAD_MAX: usize = 16 * 1024;
/// So many bytes that wait for a server to take them are enough: its socket is full by then, and no
/// client's data pile up before a slow server.
const UNSENT_MAX: usize = 64 * 1024;
/// The longest message that is looked at whole, in bytes; longer ones pass unseen.
const LOOKED_AT_MAX: usize = 64 * 1024;

impl Exchange {
    /// An exchange in which nothing was asked yet.
    pub fn new((to_server, room): (Vec<u8>, Room), processes: Processes) -> Self {
        Self {
            replies: Replies::within(room),
            epoch: None,
            wish: Wish::None,
            wished: Moment::ORIGIN,
            answered: None,
            to_server,
            written: 0,
            unread: Unread::No,
            pass: 0,
            pass_as: Disposition::Forward,
            shown: Shown::Yes,
            commits: Commits::Never,
            word: Word::Taken,
            on_error: OnError::Show,
            copy_in: None,
            client_pass: 0,
            reopened: Reopened::No,
            processes,
            appetite: Appetite::OneGroup,
            undone: Vec::new(),
            completed: Completed::Nothing,
            erred: Erred::No,
            overdue: None,
            stale: Stale::No,
            relies: Relies::No,
            reshapes: None,
            leftover: Leftover::None,
            to_tell: None,
        }
    }

    /// Notes that a statement was completed: the backend may hold no prepared statement any more,
    /// and that be news.
    fn note_completed(&mut self, message: &[u8]) {
        if is_deallocation(message) && !self.replies.has_forgotten() {
            self.completed = Completed::AllDeallocated;
        }
    }

    /// Takes note that the server is done with a group, and with a transaction if it is, before
    /// anybody is told.
    fn note_ready(&mut self, status: TxStatus) {
        self.copy_in = None;
        if status == TxStatus::Idle {
            self.reshapes = None;
        }
    }

    /// Puts in, or holds back, answers that the server will not give to what was just built.
    pub fn put_in(&mut self, client: &mut Client) {
        if !self.replies.puts_in_now() {
            return;
        }
        let answers = self.replies.put_in();
        match &mut self.shown {
            Shown::NotYet(held) | Shown::Unsure(held) => {
                hold_back(held, &client.shard, &answers);
            }
            Shown::Yes => client.out().extend_from_slice(&answers),
            Shown::Withdrawn(_) => {}
        }
    }

    /// Whether what the client sends goes straight to the server.
    pub const fn is_copying_in(&self) -> bool {
        self.copy_in.is_some()
    }

    /// Moves bytes both ways until something happens. Cancel-safe: what was moved is noted in
    /// `self` and the two connections.
    pub fn next(
        &mut self,
        client: &mut Client,
        conn: &mut Conn,
        session: &Session,
    ) -> impl Future<Output = Event> + Unpin {
        poll_fn(|context| match self.poll_next(context, client, (conn, session)) {
            // Whatever the server had said by then was heard.
            Poll::Pending if session.seat.is_cut() => {
                Poll::Ready(Event::ServerGone(Loss::Replaced))
            }
            polled @ (Poll::Ready(_) | Poll::Pending) => polled,
        })
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        client: &mut Client,
        (conn, session): (&mut Conn, &Session),
    ) -> Poll<Event> {
        loop {
            if client.has_output()
                && let Poll::Ready(Err(Gone)) = client.poll_flush(context)
            {
                return Poll::Ready(Event::ClientGone);
            }
            if self.is_copying_in() && self.has_room() {
                // Data that came before the server had asked for it is in the inbox already.
                self.passes_on(client);
            }
            if self.poll_send(context, conn).is_err() {
                // What the server said before it closed is still to be read.
                self.to_server.clear();
                self.written = 0;
            }
            if self.leftover == Leftover::Passing
                && self.client_pass == 0
                && self.to_server.is_empty()
            {
                self.leftover = Leftover::None;
                return Poll::Ready(Event::ClientBytes);
            }
            if !client.is_backed_up() {
                match self.poll_receive(context, client, (conn, session)) {
                    Poll::Ready(Some(event)) => return Poll::Ready(event),
                    Poll::Ready(None) => continue,
                    Poll::Pending => {}
                }
            }
            let wanted = match self.appetite {
                Appetite::Nothing => false,
                Appetite::OneGroup => client.inbox().len() < AHEAD_MAX,
                Appetite::WholeMessage => true,
            };
            if wanted && self.has_room() && !client.has_ended() && !self.is_ahead(client) {
                let waits = self.appetite == Appetite::OneGroup
                    && !self.is_copying_in()
                    && self.client_pass == 0;
                let filled =
                    if waits { client.poll_fill_ahead(context) } else { client.poll_fill(context) };
                match filled {
                    Poll::Ready(Ok(())) if client.has_ended() => {
                        return Poll::Ready(Event::ClientEnded);
                    }
                    Poll::Ready(Ok(())) => {
                        if self.passes_on(client) {
                            continue;
                        }
                        return Poll::Ready(Event::ClientBytes);
                    }
                    Poll::Ready(Err(Gone)) => return Poll::Ready(Event::ClientGone),
                    Poll::Pending => {}
                }
            }
            // It ended while something was under way, which has come to its end by now.
            if client.has_ended()
                && self.replies.is_settled()
                && !client.has_output()
                && client.poll_sent(context).is_ready()
            {
                return Poll::Ready(Event::ClientEnded);
            }
            return Poll::Pending;
        }
    }

    /// Whether more may be read from the client: its data must not pile up before a slow server.
    const fn has_room(&self) -> bool {
        self.to_server.len() - self.written < UNSENT_MAX
    }

    /// So many bytes more are to be sent. What the server has taken is not kept: one that is slow
    /// may never take all that there is.
    pub(super) fn make_room(&mut self, bytes: usize) {
        make_room(&mut self.to_server, &mut self.written, bytes);
    }

    /// Whether the client asks on and does not take its answers. Where the server owes nothing,
    /// those are ours, and nobody else holds it up.
    fn is_ahead(&self, client: &Client) -> bool {
        let ours = self.replies.is_settled() && !self.is_copying_in();
        client.is_far_ahead() || ours && client.is_backed_up()
    }

    /// Sends on what needs no decision: the rest of a cut message, and COPY data. Whether all of
    /// it was such.
    pub fn passes_on(&mut self, client: &mut Client) -> bool {
        loop {
            let inbox = client.inbox();
            if inbox.is_empty() {
                return true;
            }
            if self.client_pass > 0 {
                let bytes = self.client_pass.min(inbox.len());
                make_room(&mut self.to_server, &mut self.written, bytes);
                self.to_server.extend_from_slice(inbox.get(..bytes).unwrap_or(&[]));
                self.client_pass -= bytes;
                client.take(bytes);
                continue;
            }
            let Some(copy) = self.copy_in else { return false };
            let Ok(Some(Header { tag, total })) = frame::peek(inbox) else { return false };
            match tag {
                b'd' => self.client_pass = total,
                b'c' | b'f' if inbox.len() >= total => {
                    self.client_pass = total;
                    self.copy_in = None;
                }
                b'S' | b'H' if inbox.len() >= total => {
                    // The server passes over these while it copies in.
                    self.client_pass = total;
                    debug_assert!(matches!(copy, CopyIn::Simple | CopyIn::Extended));
                }
                _ => return false,
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, conn: &mut Conn) -> Result<(), ()> {
        while let Some(rest) = self.to_server.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut conn.backend.stream).poll_write(context, rest) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(()),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Pending => return Ok(()),
            }
        }
        self.to_server.clear();
        self.written = 0;
        if !conn.backend.stream.is_tls() {
            return Ok(());
        }
        match Pin::new(&mut conn.backend.stream).poll_flush(context) {
            Poll::Ready(Err(_)) => Err(()),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads a chunk from the server and deals with it; `None` if nothing happened that the
    /// session must know.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        client: &mut Client,
        (conn, session): (&mut Conn, &Session),
    ) -> Poll<Option<Event>> {
        if self.unread == Unread::Yes {
            let left = std::mem::take(&mut conn.partial);
            return Poll::Ready(self.process(context, client, &left, (conn, session)));
        }
        let shard = Rc::clone(&client.shard);
        let mut lent = shard.read_buffer.borrow_mut();
        // What is left of a message that was cut off goes in front of what follows it, so that
        // they are one piece.
        let before = conn.partial.len();
        let fits = before <= lent.len() / 2;
        let place = lent.get_mut(if fits { before } else { 0 }..).unwrap_or_default();
        // No more than the client has room for, if it has not taken what came before.
        let most = place.len().min(client.room());
        let place = place.get_mut(..most).unwrap_or_default();
        let read = conn.backend.stream.poll_receive(context, place);
        let arrived = ready!(read).unwrap_or(0);
        if self.word == Word::Taken && conn.running.was_cancelled() {
            self.word = Word::Checked;
        }
        if arrived == 0 {
            return Poll::Ready(Some(Event::ServerGone(Loss::Broken(None))));
        }
        if fits {
            if let Some(front) = lent.get_mut(..before) {
                front.copy_from_slice(&conn.partial);
            }
            conn.partial.clear();
            let bytes = lent.get(..before + arrived).unwrap_or_default();
            return Poll::Ready(self.process(context, client, bytes, (conn, session)));
        }
        let mut whole = std::mem::take(&mut conn.partial);
        whole.extend_from_slice(lent.get(..arrived).unwrap_or_default());
        Poll::Ready(self.process(context, client, &whole, (conn, session)))
    }

    fn process(
        &mut self,
        context: &mut Context<'_>,
        client: &mut Client,
        bytes: &[u8],
        (conn, session): (&mut Conn, &Session),
    ) -> Option<Event> {
        self.unread = Unread::No;
        let Conn { reports, partial, .. } = conn;
        let told = (reports, session);
        let processed = Chunk::new(self, client, context, told).process(bytes, partial);
        match processed {
            // Something may have waited for the answers up to `Flush`, or be data for a COPY that
            // has just begun.
            Ok(None)
                if (self.replies.is_settled() || self.is_copying_in())
                    && !client.inbox().is_empty() =>
            {
                Some(Event::ClientBytes)
            }
            Ok(event) => {
                if event.is_some() && !partial.is_empty() {
                    self.unread = Unread::Yes;
                }
                event
            }
            Err(Stop::ClientGone) => Some(Event::ClientGone),
            Err(Stop::OutOfStep) => Some(Event::OutOfStep),
            Err(Stop::Void(why)) => Some(Event::ServerGone(why.into())),
        }
    }

    /// Whether the client has half a message: nothing else can be sent to it.
    pub fn is_mid_message(&self) -> bool {
        self.pass > 0 && self.pass_as == Disposition::Forward && matches!(self.shown, Shown::Yes)
    }
}
