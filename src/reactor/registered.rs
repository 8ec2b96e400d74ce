//! A socket that wakes tasks of this thread.

use super::HERE;
use super::Reactor;
use super::poller::{Arrival, OtherSide, Place, Way};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketFlags,
};
use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

/// A socket that does not block, and its place in the thread's table.
#[derive(Debug)]
pub struct Registered<S> {
    place: Place,
    /// Closed when nobody finds it by its place any more: an event must find nobody, and a message
    /// to it no other socket of the same number.
    socket: ManuallyDrop<S>,
}

impl<S> Drop for Registered<S> {
    #[expect(unsafe_code, reason = "a field is closed or, elsewhere, left open")]
    fn drop(&mut self) {
        if self.leave() {
            // SAFETY: this is the end of the only one who has it: `into_socket` takes it out of one
            // that is not dropped.
            unsafe { ManuallyDrop::drop(&mut self.socket) };
        } else {
            tracing::error!("a socket of another thread is left open; this is a defect");
        }
    }
}

impl<S> Registered<S> {
    /// Sends what was posted, and gives the place back; whether nobody has it now.
    fn leave(&self) -> bool {
        HERE.with(|here| {
            here.outbox.send(&here.poller);
            here.poller.forget(&self.place)
        })
    }
}

impl<S: AsFd> Registered<S> {
    /// Registers it with this thread's reactor. It must not block.
    ///
    /// # Errors
    /// What the system says; or there is no reactor here.
    pub fn new(socket: S) -> io::Result<Self> {
        Self::with(socket, OtherSide::Server, Arrival::Nothing)
    }

    /// The same for a client's. It most likely has said something: who reads it tries at once and
    /// does not wait to be told. What it is told may be late.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_client(socket: S) -> io::Result<Self> {
        Self::with(socket, OtherSide::Client, Arrival::Something)
    }

    fn with(socket: S, other: OtherSide, arrival: Arrival) -> io::Result<Self> {
        let place = HERE.with(|here| here.poller.register(socket.as_fd(), other, arrival))?;
        Ok(Self { place, socket: ManuallyDrop::new(socket) })
    }

    /// The socket. Who reads from it by other means takes what somebody may wait for.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// The socket alone, to which all that was written was sent.
    ///
    /// # Errors
    /// What the system says, or there was no room; it is closed then. Or it is another thread's,
    /// and is left open.
    #[expect(unsafe_code, reason = "a field is moved out of what ends in another way otherwise")]
    pub fn into_socket(self) -> io::Result<S> {
        HERE.with(|here| {
            here.outbox.send(&here.poller);
            if !here.poller.has_caught_up(&self.place)? {
                return Err(io::Error::other("its other side does not read"));
            }
            here.poller.release(&self.place, self.socket.as_fd())
        })?;
        let mut left = ManuallyDrop::new(self);
        left.leave();
        // SAFETY: `left` is not dropped, and is not used any more.
        Ok(unsafe { ManuallyDrop::take(&mut left.socket) })
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
                here.poller.note_emptied(&self.place)?;
            } else if bytes == 0 {
                // Who could not be sent something has not merely said all that it had to say.
                here.poller.has_caught_up(&self.place)?;
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
            if !here.poller.is_ready(&self.place, Way::In).unwrap_or(true) {
                return true;
            }
            let peeked = rustix::net::recv(self.socket(), &mut [0_u8; 1], RecvFlags::PEEK);
            let quiet = peeked.is_err_and(|error| error == Errno::WOULDBLOCK);
            quiet && here.poller.note_exhausted(&self.place, Way::In).is_ok()
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
        let place = &self.place;
        let waker = context.waker();
        while here.poller.is_ready_or_awaited((place, Way::In), (&here.executor, waker))? {
            match retry_on_intr(|| call(self.socket())) {
                Err(Errno::WOULDBLOCK) => here.poller.note_exhausted(place, Way::In)?,
                done => {
                    here.executor.count_read();
                    return Poll::Ready(done.map_err(io::Error::from));
                }
            }
        }
        Poll::Pending
    }

    /// Writes as much as there is room for. What is short is sent when all who are ready have had
    /// their turn, or before: see [`Self::poll_sent`].
    pub fn poll_send(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_outgoing(context, &[bytes], |socket| {
            rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)
        })
    }

    /// The same with several pieces.
    pub fn poll_send_vectored(
        &self,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_outgoing(context, pieces, |socket| {
            let mut nothing = SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, pieces, &mut nothing, SendFlags::NOSIGNAL)
        })
    }

    /// Ready when the kernel has all that was written. Whoever closes a socket that should still
    /// say something waits for that.
    pub fn poll_sent(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        HERE.with(|here| {
            here.outbox.send(&here.poller);
            self.poll_caught_up(here, context)
        })
    }

    /// Ends our side of the connection at once. What was written and finds no room is not sent.
    ///
    /// # Errors
    /// What the system says.
    pub fn end_writing(&self) -> io::Result<()> {
        HERE.with(|here| {
            here.outbox.send(&here.poller);
            here.poller.give_up(&self.place);
        });
        rustix::net::shutdown(self.socket(), Shutdown::Write).map_err(io::Error::from)
    }

    /// Ready when nothing that was posted waits for room.
    fn poll_caught_up(&self, here: &Reactor, context: &Context<'_>) -> Poll<io::Result<()>> {
        while !here.poller.has_caught_up(&self.place)? {
            ready!(self.poll_room(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_outgoing<P: Deref<Target = [u8]>>(
        &self,
        context: &Context<'_>,
        pieces: &[P],
        mut call: impl FnMut(&S) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let posted = HERE.with(|here| {
            let caught_up = self.poll_caught_up(here, context);
            let to = (&self.place, self.socket.as_fd());
            caught_up.map_ok(|()| {
                // Who is alone has nobody to be sent with.
                let alone = here.outbox.is_empty() && !here.executor.has_ready();
                if alone { None } else { here.outbox.post(&here.poller, to, pieces) }
            })
        });
        if let Some(bytes) = ready!(posted)? {
            return Poll::Ready(Ok(bytes));
        }
        // There is nearly always room, so nobody asks before it is tried.
        loop {
            // What was posted may have found none meanwhile.
            ready!(HERE.with(|here| self.poll_caught_up(here, context)))?;
            match retry_on_intr(|| call(self.socket())) {
                Err(Errno::WOULDBLOCK) => {
                    HERE.with(|here| here.poller.note_exhausted(&self.place, Way::Out))?;
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
            match here.poller.is_ready_or_awaited((&self.place, Way::Out), waits) {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        })
    }
}
