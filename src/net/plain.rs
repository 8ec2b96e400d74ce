//! Reads and writes of a socket without TLS, at the least that they can cost.
//!
//! A read that finds something is a look at what the runtime knows, and the system call; one that
//! finds nothing is registered to be woken. Which of the two it will be is nearly always known:
//! who waits was woken, and who has just read all that there was will have to wait.
//!
//! Invariants:
//! - Who is told to wait is woken: it is registered, or the runtime has seen to it that it is
//!   asked again.
//! - A task whose sockets are always ready gives way to others, by the runtime's own budget.

use rustix::fd::AsFd;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task;
use tokio::task::{Id, coop};

/// A socket, and who waits for what arrives.
#[derive(Debug)]
pub struct Plain<S> {
    socket: S,
    /// The task that was told to wait, and that has not been woken since: it need not be registered
    /// again. Whatever else reads here clears this.
    awaits: Option<Id>,
}

impl<S> From<S> for Plain<S> {
    fn from(socket: S) -> Self {
        Self { socket, awaits: None }
    }
}

impl<S> Plain<S> {
    /// The socket, for everything but reading.
    pub(super) const fn socket(&self) -> &S {
        &self.socket
    }

    /// The socket, to read from it.
    pub(super) fn socket_to_read(&mut self) -> &mut S {
        self.awaits = None;
        &mut self.socket
    }

    /// The socket, to write to it.
    pub(super) fn socket_to_write(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The socket alone.
    pub fn into_socket(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().socket_to_read()).poll_read(context, buffer)
    }
}

/// A socket of the runtime's, which says when it is ready.
trait Ready: AsFd {
    /// Calls `call` if the socket may be ready for `interest`; if it says that it was not, the
    /// runtime takes note of that.
    fn attempt<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>)
    -> io::Result<T>;

    /// Registers to be woken when there may be something to read.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Registers to be woken when there may be room.
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

macro_rules! ready_as_the_runtime_says {
    ($socket:ty) => {
        impl Ready for $socket {
            fn attempt<T>(
                &self,
                interest: Interest,
                call: impl FnOnce() -> io::Result<T>,
            ) -> io::Result<T> {
                self.try_io(interest, call)
            }

            fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(context)
            }

            fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_write_ready(context)
            }
        }
    };
}

ready_as_the_runtime_says!(TcpStream);
ready_as_the_runtime_says!(UnixStream);

#[expect(private_bounds, reason = "nobody outside has another kind of socket")]
impl<S: Ready> Plain<S> {
    /// Reads what has arrived, and tells how many bytes; none: the end.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let waits = self.awaits.take();
        let reader = task::try_id();
        let mut woken = waits.is_some() && waits == reader;
        loop {
            if !woken {
                // A task that has done enough for once is told to wait, too, and is not registered.
                let heard = coop::has_budget_remaining();
                let readable = self.socket.poll_readable(context);
                if heard && readable.is_pending() {
                    self.awaits = reader;
                }
                ready!(readable)?;
            }
            match receive(&self.socket, into) {
                Received::Done(read) => return Poll::Ready(read),
                Received::Silence if woken => {
                    self.awaits = reader;
                    return Poll::Pending;
                }
                // It was woken for nothing, or what it was woken for has been taken back.
                Received::Silence | Received::Nothing => woken = false,
            }
        }
    }

    /// Writes as much as there is room for.
    pub(super) fn poll_send(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &self.socket;
        loop {
            let sent = socket.attempt(Interest::WRITABLE, || {
                let sent = retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL));
                sent.map_err(io::Error::from)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(socket.poll_writable(context))?;
                }
                sent => return Poll::Ready(sent),
            }
        }
    }
}

/// What a read came to.
enum Received {
    /// This; no bytes: the end.
    Done(io::Result<usize>),
    /// The runtime knows of nothing: whoever waits was not woken.
    Silence,
    /// Nothing is there after all.
    Nothing,
}

/// Reads once, if there may be something.
fn receive(socket: &impl Ready, into: &mut [u8]) -> Received {
    let room = into.len();
    let mut received = Received::Silence;
    let attempted = socket.attempt(Interest::READABLE, || {
        let read = retry_on_intr(|| rustix::net::recv(socket, &mut *into, RecvFlags::empty()));
        let (bytes, _) = read.map_err(|errno| {
            received = Received::Nothing;
            io::Error::from(errno)
        })?;
        received = Received::Done(Ok(bytes));
        // Fewer than there was room for: that was all, which the runtime is told in this way. It
        // saves the call that would find nothing. At the end it is left as it is.
        if 0 < bytes && bytes < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match attempted {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Received::Done(Err(error)),
        Ok(()) | Err(_) => received,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::{LocalSet, yield_now};

    /// Longest for what is done at once, or never.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Runs this as a shard does, with tasks of its own.
    fn on_a_shard<T>(happens: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let happens = crate::timer::timeout(PATIENCE, happens).await;
            happens.expect("who was told to wait was never woken")
        })
    }

    fn pair() -> (Plain<UnixStream>, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        (Plain::from(here), there)
    }

    async fn receive(stream: &mut Plain<UnixStream>) -> Vec<u8> {
        let mut room = [0; 16];
        let bytes = poll_fn(|context| stream.poll_receive(context, &mut room)).await.unwrap();
        room[..bytes].to_vec()
    }

    /// Polls once: nothing is there, and this task waits from now on.
    async fn wait(stream: &mut Plain<UnixStream>) {
        let pending =
            poll_fn(|context| Poll::Ready(stream.poll_receive(context, &mut [0; 16]).is_pending()));
        assert!(pending.await, "nothing was sent");
    }

    /// Lets every other task come to its next wait.
    async fn let_others_wait() {
        for _ in 0..10 {
            yield_now().await;
        }
    }

    /// Waits until a reader has read so much.
    async fn until(read: &Cell<usize>, so_much: usize) {
        while read.get() < so_much {
            crate::timer::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn who_waits_is_woken_by_each_thing_that_comes_and_by_the_end() {
        on_a_shard(async {
            let (mut here, mut there) = pair();
            let read = Rc::new(Cell::new(0));
            let reads = Rc::clone(&read);
            let reader = tasks::spawn_local("a reader", async move {
                loop {
                    wait(&mut here).await;
                    wait(&mut here).await;
                    match receive(&mut here).await.len() {
                        0 => return reads.get(),
                        more => reads.set(reads.get() + more),
                    }
                }
            });
            for sent in 0..3 {
                until(&read, 4 * sent).await;
                let_others_wait().await;
                there.write_all(b"more").await.unwrap();
            }
            until(&read, 12).await;
            let_others_wait().await;
            drop(there);
            assert_eq!(reader.await.unwrap(), 12);
        });
    }

    /// A backend is read for its session, and between two of that one's statements for ours.
    #[test]
    fn who_reads_by_other_means_meanwhile_is_woken_nevertheless() {
        on_a_shard(async {
            let (mut here, mut there) = pair();
            let read = Rc::new(Cell::new(0));
            let reads = Rc::clone(&read);
            let reader = tasks::spawn_local("a reader", async move {
                wait(&mut here).await;
                // With more room than there is to read: so the runtime knows that this was all.
                assert_eq!(here.read(&mut [0; 16]).await.unwrap(), 4);
                reads.set(4);
                receive(&mut here).await
            });
            let_others_wait().await;
            there.write_all(b"ours").await.unwrap();
            until(&read, 4).await;
            let_others_wait().await;
            there.write_all(b"theirs").await.unwrap();
            assert_eq!(reader.await.unwrap(), b"theirs");
        });
    }

    /// A pooled backend goes from task to task.
    #[test]
    fn who_takes_over_is_woken_and_not_who_waited_before() {
        on_a_shard(async {
            let (mut here, mut there) = pair();
            let first = tasks::spawn_local("a reader", async move {
                wait(&mut here).await;
                here
            });
            let mut here = first.await.unwrap();
            let second = tasks::spawn_local("a reader", async move { receive(&mut here).await });
            let_others_wait().await;
            there.write_all(b"hello").await.unwrap();
            assert_eq!(second.await.unwrap(), b"hello");
        });
    }

    /// The runtime may wake a task for what is not there any more.
    #[test]
    fn who_was_woken_for_nothing_is_woken_again() {
        on_a_shard(async {
            let (mut here, mut there) = pair();
            let read = Rc::new(Cell::new(0));
            let taken = Rc::clone(&read);
            let reader = tasks::spawn_local("a reader", async move {
                wait(&mut here).await;
                poll_fn(|context| here.socket().poll_read_ready(context)).await.unwrap();
                let took = rustix::net::recv(here.socket(), &mut [0; 16], RecvFlags::empty());
                taken.set(took.unwrap().0);
                receive(&mut here).await
            });
            let_others_wait().await;
            there.write_all(b"gone").await.unwrap();
            until(&read, 4).await;
            let_others_wait().await;
            there.write_all(b"there").await.unwrap();
            assert_eq!(reader.await.unwrap(), b"there");
        });
    }

    /// Who has had its turn is told to wait although it was not registered.
    #[test]
    fn who_has_used_up_its_turn_is_woken_nevertheless() {
        on_a_shard(async {
            let (mut here, mut there) = pair();
            let reader = tasks::spawn_local("a reader", async move {
                let mut used_up = false;
                let mut room = [0; 16];
                poll_fn(|context| {
                    while !used_up && coop::has_budget_remaining() {
                        if let Poll::Ready(turn) = coop::poll_proceed(context) {
                            turn.made_progress();
                        }
                    }
                    used_up = true;
                    here.poll_receive(context, &mut room)
                })
                .await
            });
            let_others_wait().await;
            there.write_all(b"hello").await.unwrap();
            assert_eq!(reader.await.unwrap().unwrap(), 5);
        });
    }

    /// One that is always ready must not keep the others of its shard from their turn.
    #[test]
    fn who_always_finds_something_gives_way() {
        on_a_shard(async {
            const READS: usize = 4096;
            let (mut here, mut there) = pair();
            there.write_all(&[0; READS]).await.unwrap();
            let turns = Rc::new(Cell::new(0));
            let counted = Rc::clone(&turns);
            let other = tasks::spawn_local("a reader", async move {
                loop {
                    counted.set(counted.get() + 1);
                    yield_now().await;
                }
            });
            let reader = tasks::spawn_local("a reader", async move {
                for _ in 0..READS {
                    let one = poll_fn(|context| here.poll_receive(context, &mut [0; 1])).await;
                    assert_eq!(one.unwrap(), 1);
                }
                turns.get()
            });
            assert!(reader.await.unwrap() > 1, "{READS} reads, and nobody had a turn between");
            other.abort();
        });
    }
}
