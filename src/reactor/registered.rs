//! A socket that wakes tasks of this thread.

use super::HERE;
use super::Reactor;
use super::poller::{Arrival, Place, Way};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

/// A socket that does not block, and its place in the thread's table.
#[derive(Debug)]
pub struct Registered<S> {
    /// Dropped first: an event for a number that is used again must find nobody.
    held: Held,
    socket: S,
}

#[derive(Debug)]
struct Held(Place);

impl Drop for Held {
    fn drop(&mut self) {
        HERE.with(|here| here.poller.forget(&self.0));
    }
}

impl<S: AsFd> Registered<S> {
    /// Registers it with this thread's reactor. It must not block.
    ///
    /// # Errors
    /// What the system says; or there is no reactor here.
    pub fn new(socket: S) -> io::Result<Self> {
        Self::with(socket, Arrival::Nothing)
    }

    /// The same for one that most likely has something to be read: who reads it tries at once and
    /// does not wait to be told.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_something(socket: S) -> io::Result<Self> {
        Self::with(socket, Arrival::Something)
    }

    fn with(socket: S, arrival: Arrival) -> io::Result<Self> {
        let place = HERE.with(|here| here.poller.register(socket.as_fd(), arrival))?;
        Ok(Self { held: Held(place), socket })
    }

    /// The socket. Who reads from it by other means takes what somebody may wait for.
    pub const fn socket(&self) -> &S {
        &self.socket
    }

    /// The socket alone.
    ///
    /// # Errors
    /// What the system says; it is closed then.
    pub fn into_socket(self) -> io::Result<S> {
        let Self { held, socket } = self;
        HERE.with(|here| here.poller.release(&held.0, socket.as_fd()))?;
        Ok(socket)
    }

    /// Reads what has arrived, and tells how many bytes; none: the end.
    pub fn poll_receive(
        &self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        HERE.with(|here| {
            let read = ready!(self.poll_incoming(here, context, |socket| {
                rustix::net::recv(socket, &mut *into, RecvFlags::empty())
            }));
            let (bytes, _) = read?;
            // Fewer than there was room for: that was all. It saves the call that would find
            // nothing.
            if 0 < bytes && bytes < into.len() {
                here.poller.note_emptied(&self.held.0)?;
            }
            Poll::Ready(Ok(bytes))
        })
    }

    /// The same, and what was read is still there.
    pub fn poll_peek(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        HERE.with(|here| {
            let peeked = self.poll_incoming(here, context, |socket| {
                rustix::net::recv(socket, &mut *into, RecvFlags::PEEK)
            });
            peeked.map_ok(|(bytes, _)| bytes)
        })
    }

    /// The next connection, which does not block, and where it comes from.
    pub fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(OwnedFd, Option<SocketAddrAny>)>> {
        HERE.with(|here| {
            self.poll_incoming(here, context, |socket| {
                rustix::net::acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
            })
        })
    }

    /// Whether nothing has arrived: no byte, and no end. Costs a system call only if something did.
    pub fn is_quiet(&self) -> bool {
        HERE.with(|here| {
            if !here.poller.is_ready(&self.held.0, Way::In).unwrap_or(true) {
                return true;
            }
            let peeked = rustix::net::recv(&self.socket, &mut [0_u8; 1], RecvFlags::PEEK);
            let quiet = peeked.is_err_and(|error| error == Errno::WOULDBLOCK);
            quiet && here.poller.note_exhausted(&self.held.0, Way::In).is_ok()
        })
    }

    fn poll_incoming<T>(
        &self,
        here: &Reactor,
        context: &Context<'_>,
        mut call: impl FnMut(&S) -> rustix::io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if !here.executor.may_read() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let place = &self.held.0;
        let waker = context.waker();
        while here.poller.is_ready_or_awaited((place, Way::In), (&here.executor, waker))? {
            match retry_on_intr(|| call(&self.socket)) {
                Err(Errno::WOULDBLOCK) => here.poller.note_exhausted(place, Way::In)?,
                done => {
                    here.executor.count_read();
                    return Poll::Ready(done.map_err(io::Error::from));
                }
            }
        }
        Poll::Pending
    }

    /// Writes as much as there is room for.
    pub fn poll_send(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_outgoing(context, |socket| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL))
    }

    /// The same with several pieces.
    pub fn poll_send_vectored(
        &self,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_outgoing(context, |socket| {
            let mut nothing = SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, pieces, &mut nothing, SendFlags::NOSIGNAL)
        })
    }

    fn poll_outgoing(
        &self,
        context: &Context<'_>,
        mut call: impl FnMut(&S) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        HERE.with(|here| here.poller.check(&self.held.0))?;
        // There is nearly always room, so nobody asks before it is tried.
        loop {
            match retry_on_intr(|| call(&self.socket)) {
                Err(Errno::WOULDBLOCK) => {
                    HERE.with(|here| here.poller.note_exhausted(&self.held.0, Way::Out))?;
                    ready!(self.poll_room(context))?;
                }
                sent => return Poll::Ready(sent.map_err(io::Error::from)),
            }
        }
    }

    /// Waits until there is room to write, or will never be. Cancel-safe.
    pub async fn has_room(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_room(context)).await
    }

    fn poll_room(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        HERE.with(|here| {
            let waits = (&here.executor, context.waker());
            match here.poller.is_ready_or_awaited((&self.held.0, Way::Out), waits) {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        })
    }
}
