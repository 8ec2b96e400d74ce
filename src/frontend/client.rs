//! A client's connection: its bytes in, its bytes out, and nothing in between.
//!
//! Bytes arrive in the shard's own buffer and are kept only while they are part of a group that
//! has not been answered. Output is kept only while the client has not taken it. So an idle
//! client owns no buffer at all.

use crate::frontend::Shard;
use crate::frontend::exchange::Untold;
use crate::frontend::params::Reported;
use crate::metrics::ErrorOrigin;
use crate::net::Stream;
use crate::timer;
use crate::wire::message;
use crate::wire::message::ErrorReport;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// One end of the conversation.
#[derive(Debug)]
pub struct Client {
    /// Whose buffers it borrows.
    pub shard: Rc<Shard>,
    /// What it believes of the servers' parameters.
    pub reported: Reported,
    stream: Stream,
    inbox: Vec<u8>,
    /// How much of the inbox was dealt with.
    taken: usize,
    /// How much of what was not dealt with is known to be whole messages of an unfinished group.
    pub framed: usize,
    out: Vec<u8>,
    /// How much of the output was written.
    written: usize,
    /// Whether the stream may hold back what was written to it.
    held_back: HeldBack,
    /// Bytes of a message that is passed over and has not arrived.
    skip: usize,
    /// Whether the client has closed its side.
    ended: Ended,
}

/// Whether more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Yes,
}

/// Whether the stream may have taken more than it has sent: TLS does, while the socket is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldBack {
    No,
    Maybe,
}

/// The client is gone: its socket is closed or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

/// Output beyond this stops the reading of more from the server, in bytes.
const OUT_MAX: usize = 48 * 1024;
/// What a read from the server may add to that, in bytes: enough for a read to be worth its while.
const OUT_ROOM: usize = OUT_MAX + 16 * 1024;
/// Output beyond this gets all its room at once, in bytes: it will take it, and would leave a hole
/// of every size that it grew through.
const OUT_SHORT: usize = 8 * 1024;
/// While it does not take its output, no more is read from it than this, in bytes: a server that
/// can't write does not read, either.
const AHEAD_MAX: usize = 16 * 1024;
/// Chunks from this size on are written as they came, without a copy, in bytes.
const DIRECT_WRITE_MIN: usize = 8 * 1024;
/// How long a client that is closed may take to read why, behind all that it has not read yet.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

impl Client {
    /// A client on this shard.
    pub fn new(shard: Rc<Shard>, stream: Stream) -> Self {
        Self {
            shard,
            reported: Reported::default(),
            stream,
            inbox: Vec::new(),
            taken: 0,
            framed: 0,
            out: Vec::new(),
            written: 0,
            held_back: HeldBack::No,
            skip: 0,
            ended: Ended::No,
        }
    }

    /// What has arrived and was not dealt with.
    pub fn inbox(&self) -> &[u8] {
        self.inbox.get(self.taken..).unwrap_or(&[])
    }

    /// So many bytes of the inbox were dealt with; those that have not arrived are passed over
    /// when they do.
    pub fn take(&mut self, bytes: usize) {
        self.framed = 0;
        let here = bytes.min(self.inbox.len() - self.taken);
        self.taken += here;
        self.skip += bytes - here;
        if self.taken == self.inbox.len() {
            self.taken = 0;
            self.shard.give_buffer(std::mem::take(&mut self.inbox));
        }
    }

    /// Whether the client has closed its side.
    pub fn has_ended(&self) -> bool {
        self.ended == Ended::Yes
    }

    /// Output that the client has not taken, in bytes.
    pub fn backlog(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether the client takes its output too slowly for more to be read for it.
    pub fn is_backed_up(&self) -> bool {
        self.backlog() >= OUT_MAX
    }

    /// How much more may be read for it at once.
    pub fn room(&self) -> usize {
        OUT_ROOM.saturating_sub(self.backlog())
    }

    /// Whether it asks on and does not take its answers.
    pub fn is_far_ahead(&self) -> bool {
        self.is_backed_up() && self.inbox().len() >= AHEAD_MAX
    }

    /// Whether something is still to be written, or to be pushed out of the stream.
    pub fn has_output(&self) -> bool {
        self.backlog() > 0 || self.held_back == HeldBack::Maybe
    }

    /// The output, to append to.
    pub fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = self.shard.take_buffer();
        }
        if self.out.len() > OUT_SHORT && self.out.capacity() < OUT_ROOM {
            self.out.reserve_exact(OUT_ROOM - self.out.len());
        }
        &mut self.out
    }

    /// Appends an error.
    pub fn report(&mut self, report: &ErrorReport) {
        let statements = &self.shard.shared.metrics.statements;
        statements.failed(ErrorOrigin::Proxy, report.code);
        message::write_error(self.out(), report);
    }

    /// Appends what settings are, where it believes something else.
    pub fn tell(&mut self, untold: Untold) {
        for (name, value) in untold {
            let mut told = Vec::new();
            self.reported.tell((&name, &value), &mut told);
            self.out().extend_from_slice(&told);
        }
    }

    /// Sends bytes of the server: at once if they are many and nothing is queued, else later.
    pub fn forward(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Result<(), Gone> {
        let mut rest = bytes;
        if bytes.len() >= DIRECT_WRITE_MIN && self.backlog() == 0 {
            match Pin::new(&mut self.stream).poll_write(context, bytes) {
                Poll::Ready(Ok(written)) => {
                    self.note_sent(written);
                    rest = bytes.get(written..).unwrap_or(&[]);
                }
                Poll::Ready(Err(_)) => return Err(Gone),
                Poll::Pending => {}
            }
        }
        if !rest.is_empty() {
            let out = self.out();
            if rest.len() > OUT_SHORT {
                out.reserve_exact(rest.len());
            }
            out.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Writes what is queued.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Pending => {
                    forget_written(&mut self.out, &mut self.written);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Ready(Ok(written)) => {
                    self.written += written;
                    self.note_sent(written);
                }
            }
        }
        self.written = 0;
        if self.out.capacity() > 0 {
            self.shard.give_buffer(std::mem::take(&mut self.out));
        }
        if self.held_back == HeldBack::No {
            return Poll::Ready(Ok(()));
        }
        // TLS holds records back until it is told.
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(Gone)),
            Poll::Ready(Ok(())) => {
                self.held_back = HeldBack::No;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The same for who is closed then: the kernel has it.
    pub fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        ready!(self.poll_flush(context))?;
        self.stream.poll_sent(context).map_err(|_| Gone)
    }

    /// Reads what has arrived into the inbox. The end of the stream is noted, not an error: what
    /// was asked before it is still to be done.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_fill_by(context, usize::MAX)
    }

    /// The same for what is to wait here: no more than is enough.
    pub fn poll_fill_ahead(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_fill_by(context, AHEAD_MAX)
    }

    fn poll_fill_by(&mut self, context: &mut Context<'_>, most: usize) -> Poll<Result<(), Gone>> {
        if self.has_ended() {
            return Poll::Pending;
        }
        let shard = Rc::clone(&self.shard);
        let mut lent = shard.read_buffer.borrow_mut();
        let most = most.min(lent.len());
        let place = lent.get_mut(..most).unwrap_or_default();
        let read = ready!(self.stream.poll_receive(context, place));
        let Ok(bytes) = read else { return Poll::Ready(Err(Gone)) };
        let mut arrived = place.get(..bytes).unwrap_or_default();
        if arrived.is_empty() {
            self.ended = Ended::Yes;
            return Poll::Ready(Ok(()));
        }
        self.note_received(arrived.len());
        let skipped = self.skip.min(arrived.len());
        self.skip -= skipped;
        arrived = arrived.get(skipped..).unwrap_or(&[]);
        self.take_in(arrived);
        Poll::Ready(Ok(()))
    }

    /// This has arrived with its login, and is to be dealt with.
    pub fn take_in_ahead(&mut self, ahead: &[u8]) {
        self.note_received(ahead.len());
        self.take_in(ahead);
    }

    /// This has arrived, and is to be dealt with.
    fn take_in(&mut self, arrived: &[u8]) {
        if self.inbox.capacity() == 0 && !arrived.is_empty() {
            self.inbox = self.shard.take_buffer();
        }
        make_room(&mut self.inbox, &mut self.taken, arrived.len());
        self.inbox.extend_from_slice(arrived);
    }

    fn note_received(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.shard.shared.metrics.clients.received.inc_by(bytes);
    }

    fn note_sent(&mut self, bytes: usize) {
        if self.stream.is_tls() {
            self.held_back = HeldBack::Maybe;
        }
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.shard.shared.metrics.clients.sent.inc_by(bytes);
    }

    /// Waits until more has arrived, writing meanwhile what is queued.
    ///
    /// # Errors
    /// [`Gone`] if the connection broke, or ended.
    pub fn more(&mut self) -> impl Future<Output = Result<(), Gone>> + Unpin {
        poll_fn(|context| self.poll_more(context))
    }

    /// The same, for who waits for other things as well.
    pub fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let flushed =
            if self.has_output() { self.poll_flush(context) } else { Poll::Ready(Ok(())) };
        if let Poll::Ready(Err(Gone)) = flushed {
            return Poll::Ready(Err(Gone));
        }
        if self.is_backed_up() {
            // It asks on and does not take its answers: what it asks waits in its socket.
            return Poll::Pending;
        }
        if self.has_ended() {
            // It has said all that it had to say, and may still listen.
            return self.poll_sent(context).map(|_| Err(Gone));
        }
        self.poll_fill(context)
    }

    /// Takes in what has arrived, and waits for nothing.
    ///
    /// # Errors
    /// [`Gone`] if the connection broke, or ended.
    pub async fn look(&mut self) -> Result<(), Gone> {
        poll_fn(|context| match self.poll_fill(context) {
            Poll::Ready(Err(Gone)) => Poll::Ready(Err(Gone)),
            Poll::Ready(Ok(())) | Poll::Pending if self.has_ended() => Poll::Ready(Err(Gone)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Writes the last that is queued. The client is told if it still listens; it is closed
    /// either way.
    pub async fn farewell(&mut self) {
        let said = poll_fn(|context| self.poll_sent(context));
        match timer::timeout(FAREWELL_MAX, said).await {
            Ok(Ok(())) => {}
            Ok(Err(Gone)) => tracing::debug!("a client left before it was told why it is closed"),
            Err(_) => tracing::debug!("a client did not read why it is closed"),
        }
    }

    /// Waits until it has taken so much of its output that more may be asked for it.
    pub fn poll_relief(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self.poll_flush(context) {
            Poll::Pending if !self.is_backed_up() => Poll::Ready(Ok(())),
            polled @ (Poll::Ready(_) | Poll::Pending) => polled,
        }
    }

    /// Writes all that is queued.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        poll_fn(|context| self.poll_flush(context)).await
    }
}

/// Forgets what was taken if what arrives has no room otherwise, and if that is at least as much as
/// what must be moved for it: so a byte that arrives costs no more than a few moves, however full
/// the inbox is and however little is taken from it at a time.
pub(super) fn make_room(inbox: &mut Vec<u8>, taken: &mut usize, arriving: usize) {
    let unread = inbox.len().saturating_sub(*taken);
    if *taken > 0 && *taken >= unread && inbox.len() + arriving > inbox.capacity() {
        inbox.drain(..*taken);
        *taken = 0;
    }
}

/// Forgets what was written, for more is appended: who reads slowly never takes all that there is.
fn forget_written(out: &mut Vec<u8>, written: &mut usize) {
    out.drain(..(*written).min(out.len()));
    *written = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that takes as much as comes, and is always a little behind.
    #[test]
    fn what_a_slow_client_took_is_not_kept() {
        let (mut out, mut written) = (Vec::new(), 0);
        for _ in 0..1_000 {
            out.resize(out.len() + OUT_MAX, 0);
            written += out.len() - written - 1;
            forget_written(&mut out, &mut written);
            assert_eq!((out.len(), written), (1, 0));
        }
        assert!(out.capacity() <= 3 * OUT_MAX, "{} bytes of room", out.capacity());
    }

    /// A client that is a megabyte ahead and sends as little as it is answered.
    #[test]
    fn a_full_inbox_is_not_moved_for_each_small_message() {
        const AHEAD: usize = 1 << 20;
        const SMALL: usize = 20;
        let (mut inbox, mut taken, mut moved, mut arrived) = (vec![0; AHEAD], 0, 0, 0);
        inbox.shrink_to_fit();
        for _ in 0..500_000 {
            taken += SMALL;
            let before = taken;
            make_room(&mut inbox, &mut taken, SMALL);
            if taken < before {
                moved += inbox.len();
            }
            inbox.extend_from_slice(&[0; SMALL]);
            arrived += SMALL;
            assert_eq!(inbox.len() - taken, AHEAD);
        }
        assert!(moved <= arrived, "{moved} bytes were moved for {arrived}");
        assert!(inbox.capacity() <= 4 * AHEAD, "{} bytes of room", inbox.capacity());
    }
}
