//! A socket without TLS: a shard's own, or the runtime's where there is no shard.

use super::stream::Detached;
use crate::reactor;
use crate::reactor::Registered;
use rustix::io::retry_on_intr;
use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A socket, where it is waited for.
#[derive(Debug)]
pub enum Plain<S: Carrier> {
    /// By tasks of the shard that this is on.
    Shard(Registered<S>),
    /// By tasks of the runtime.
    Runtime(S::Enrolled),
}

/// A kind of socket.
pub trait Carrier: AsFd + Debug + Sized + Unpin {
    /// The same on the runtime.
    type Enrolled: Enrolled<Carrier = Self>;

    /// Puts it on the runtime.
    ///
    /// # Errors
    /// What the system says.
    fn enroll(self) -> io::Result<Self::Enrolled>;
}

/// A socket of the runtime's.
pub trait Enrolled: AsyncRead + AsyncWrite + AsFd + Debug + Unpin {
    /// What it is without the runtime.
    type Carrier;

    /// Takes it off the runtime.
    ///
    /// # Errors
    /// What the system says.
    fn withdraw(self) -> io::Result<Self::Carrier>;

    /// Registers to be woken when there may be something to read.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Calls this if there may be something to read.
    ///
    /// # Errors
    /// What it says; [`io::ErrorKind::WouldBlock`] if there can't be anything.
    fn if_readable<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T>;
}

macro_rules! carried {
    ($socket:ty, $enrolled:ty) => {
        impl Carrier for $socket {
            type Enrolled = $enrolled;

            fn enroll(self) -> io::Result<Self::Enrolled> {
                <$enrolled>::from_std(self)
            }
        }

        impl Enrolled for $enrolled {
            type Carrier = $socket;

            fn withdraw(self) -> io::Result<Self::Carrier> {
                self.into_std()
            }

            fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(context)
            }

            fn if_readable<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
                self.try_io(Interest::READABLE, call)
            }
        }
    };
}

carried!(TcpStream, tokio::net::TcpStream);
carried!(UnixStream, tokio::net::UnixStream);

impl Plain<TcpStream> {
    /// Connects. Cancel-safe: dropped, it is closed.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        if !reactor::is_here() {
            return tokio::net::TcpStream::connect(address).await.map(Self::Runtime);
        }
        connect(Domain::for_address(address), &address.into()).await.map(Self::Shard)
    }
}

impl Plain<UnixStream> {
    /// Connects to a socket file. Cancel-safe: dropped, it is closed.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        if !reactor::is_here() {
            return tokio::net::UnixStream::connect(path).await.map(Self::Runtime);
        }
        connect(Domain::UNIX, &SockAddr::unix(path)?).await.map(Self::Shard)
    }
}

async fn connect<S: From<Socket> + AsFd>(
    domain: Domain,
    address: &SockAddr,
) -> io::Result<Registered<S>> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    match socket.connect(address) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            // Not before it has begun: what is not connected is hung up.
            let connecting = Registered::new(S::from(socket))?;
            connecting.has_room().await?;
            let failed = SockRef::from(connecting.socket()).take_error()?;
            failed.map_or(Ok(connecting), Err)
        }
        connected => connected.and_then(|()| Registered::new(S::from(socket))),
    }
}

impl<S: Carrier> Plain<S> {
    /// A connection that does not block, for the tasks of this thread.
    pub(super) fn new(socket: S) -> io::Result<Self> {
        if reactor::is_here() {
            Registered::new(socket).map(Self::Shard)
        } else {
            socket.enroll().map(Self::Runtime)
        }
    }

    /// The same of a client's, who most likely has said something already.
    pub(super) fn of_client(socket: S) -> io::Result<Self> {
        if reactor::is_here() {
            Registered::of_client(socket).map(Self::Shard)
        } else {
            socket.enroll().map(Self::Runtime)
        }
    }

    /// The connection alone.
    pub(super) fn detach(self) -> io::Result<Detached>
    where
        Detached: From<S>,
    {
        let socket = match self {
            Self::Shard(registered) => registered.into_socket()?,
            Self::Runtime(enrolled) => enrolled.withdraw()?,
        };
        Ok(socket.into())
    }

    /// The system's socket, to be asked about.
    pub fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Shard(registered) => registered.socket().as_fd(),
            Self::Runtime(enrolled) => enrolled.as_fd(),
        }
    }

    /// Reads what has arrived, and tells how many bytes; none: the end.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Shard(registered) => registered.poll_receive(context, into),
            Self::Runtime(enrolled) => {
                let mut buffer = ReadBuf::new(into);
                let read = Pin::new(enrolled).poll_read(context, &mut buffer);
                read.map_ok(|()| buffer.filled().len())
            }
        }
    }

    /// Looks at what has arrived without taking it off.
    pub(super) fn poll_peek(
        &self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let enrolled = match self {
            Self::Shard(registered) => return registered.poll_peek(context, into),
            Self::Runtime(enrolled) => enrolled,
        };
        loop {
            ready!(enrolled.poll_readable(context))?;
            match peek(enrolled, into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                peeked => return Poll::Ready(peeked),
            }
        }
    }

    /// Looks at what has arrived without taking it off; waits for it. Cancel-safe.
    pub(super) async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_peek(context, into)).await
    }

    /// Whether nothing has arrived: no byte, and no end. Costs a system call only if something did.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::Shard(registered) => registered.is_quiet(),
            Self::Runtime(enrolled) => {
                let peeked = peek(enrolled, &mut [0]);
                peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }

    /// Ready when the kernel has all that was written.
    pub(super) fn poll_sent(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Shard(registered) => registered.poll_sent(context),
            Self::Runtime(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends our side of the connection at once, whatever was written and has found no room yet.
    pub(super) fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Shard(registered) => registered.end_writing(),
            Self::Runtime(enrolled) => SockRef::from(enrolled).shutdown(Shutdown::Write),
        }
    }

    /// Writes as much as there is room for.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Shard(registered) => registered.poll_send(context, bytes),
            Self::Runtime(enrolled) => Pin::new(enrolled).poll_write(context, bytes),
        }
    }
}

fn peek<E: Enrolled>(enrolled: &E, into: &mut [u8]) -> io::Result<usize> {
    enrolled.if_readable(|| {
        let peeked = retry_on_intr(|| rustix::net::recv(enrolled, &mut *into, RecvFlags::PEEK));
        peeked.map(|(bytes, _)| bytes).map_err(io::Error::from)
    })
}

impl<S: Carrier> AsyncRead for Plain<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Shard(registered) => {
                let room = buffer.initialize_unfilled();
                let read = ready!(registered.poll_receive(context, room))?;
                buffer.advance(read);
                Poll::Ready(Ok(()))
            }
            Self::Runtime(enrolled) => Pin::new(enrolled).poll_read(context, buffer),
        }
    }
}

impl<S: Carrier> AsyncWrite for Plain<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Shard(registered) => registered.poll_send_vectored(context, slices),
            Self::Runtime(enrolled) => Pin::new(enrolled).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What a shard keeps back is sent soon, and unasked.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(context))?;
        Poll::Ready(SockRef::from(&self.socket()).shutdown(Shutdown::Write))
    }
}
