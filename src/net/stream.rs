//! One connection, whatever carries it.

use super::plain::Plain;
use super::tls::{client_stream, end_point, server_stream};
use crate::reactor;
use rustix::net::sockopt::socket_peercred;
use socket2::SockRef;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection to a client or to a server.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(Plain<TcpStream>),
    /// A unix socket.
    Unix(Plain<UnixStream>),
    /// TLS over TCP, from a client.
    TlsServer(Box<server_stream::TlsStream<Plain<TcpStream>>>),
    /// TLS over TCP, to a server.
    TlsClient(Box<client_stream::TlsStream<Plain<TcpStream>>>),
}

/// Who is on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address.
    Ip(SocketAddr),
    /// A process of this machine.
    Unix,
    /// It was gone before it could be asked.
    Unknown,
}

/// A connection that belongs to no runtime, on its way to another one.
#[derive(Debug)]
pub enum Detached {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

/// Who was let in, and is on no shard yet.
#[derive(Debug)]
pub struct Newcomer {
    /// Its connection.
    pub socket: Detached,
    /// Who it is.
    pub peer: Peer,
}

/// Why a connection was not detached.
#[derive(Debug)]
pub enum TlsStays {
    /// A TLS connection can't change its runtime; here it is, as good as before.
    Tls(Stream),
    /// The runtime would not let it go; it is closed.
    Closed(io::Error),
}

impl Stream {
    /// Takes the connection off its runtime, so that it can be moved to another thread's.
    ///
    /// # Errors
    /// [`TlsStays::Tls`] gives it back: rustls's state can't be moved out of its socket.
    pub fn detach(self) -> Result<Detached, TlsStays> {
        match self {
            Self::Tcp(tcp) => tcp.detach().map_err(TlsStays::Closed),
            Self::Unix(unix) => unix.detach().map_err(TlsStays::Closed),
            Self::TlsServer(_) | Self::TlsClient(_) => Err(TlsStays::Tls(self)),
        }
    }

    /// Whether what is sent can't be read on the way.
    pub const fn is_tls(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::TlsServer(_) | Self::TlsClient(_) => true,
        }
    }

    /// The operating system's name for the user at the other end of a socket file. Users that are
    /// not in `/etc/passwd` (LDAP and the like) have none.
    pub fn peer_user(&self) -> Option<String> {
        match self {
            Self::Unix(unix) => user_name(socket_peercred(unix.socket()).ok()?.uid.as_raw()),
            Self::Tcp(_) | Self::TlsServer(_) | Self::TlsClient(_) => None,
        }
    }

    /// Looks at the first bytes that have not been read, without taking them off, and returns how
    /// many there are: none at the end, and where they can't be seen. Waits for the first.
    /// Cancel-safe.
    pub async fn glimpse(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.peek(into).await,
            Self::Unix(_) | Self::TlsServer(_) | Self::TlsClient(_) => Ok(0),
        }
    }

    /// The digest of the certificate that the server showed, to bind a proof to; `None` without
    /// TLS to a server, or if nobody knows how to digest it.
    pub fn end_point(&self) -> Option<Box<[u8]>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) | Self::TlsServer(_) => None,
            Self::TlsClient(tls) => end_point(tls.get_ref().1.peer_certificates()?.first()?),
        }
    }

    /// Waits until there is something to read, or the other side is gone; takes nothing off.
    /// What a TLS connection has decrypted already is not seen; who waits in
    /// [`Self::poll_receive`] might not be woken, and must not be asked for meanwhile. Cancel-safe.
    pub async fn stirs(&self) {
        // An error is news, too.
        drop(match self {
            Self::Tcp(tcp) => tcp.peek(&mut [0]).await,
            Self::Unix(unix) => unix.peek(&mut [0]).await,
            Self::TlsServer(tls) => tls.get_ref().0.peek(&mut [0]).await,
            Self::TlsClient(tls) => tls.get_ref().0.peek(&mut [0]).await,
        });
    }

    /// Whether nothing has arrived: no byte, and no end. Otherwise a byte may be lost, so that the
    /// connection is of no more use. Costs no system call unless something did arrive.
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_quiet(),
            Self::Unix(unix) => unix.is_quiet(),
            Self::TlsServer(_) | Self::TlsClient(_) => {
                let mut byte = [0_u8; 1];
                let mut buffer = ReadBuf::new(&mut byte);
                let mut context = Context::from_waker(Waker::noop());
                let mut look = || Pin::new(&mut *self).poll_read(&mut context, &mut buffer);
                reactor::afresh(|| look().is_pending())
            }
        }
    }

    /// Reads what has arrived, and tells how many bytes; none: the end.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_receive(context, into),
            Self::Unix(unix) => unix.poll_receive(context, into),
            Self::TlsServer(_) | Self::TlsClient(_) => {
                let mut buffer = ReadBuf::new(into);
                let read = Pin::new(self).poll_read(context, &mut buffer);
                read.map_ok(|()| buffer.filled().len())
            }
        }
    }

    /// Ready when the kernel has all that was written, and TLS holds nothing back: what is closed
    /// before that may leave it unsaid.
    pub fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self).poll_flush(context))?;
        match self {
            Self::Tcp(tcp) => tcp.poll_sent(context),
            Self::Unix(unix) => unix.poll_sent(context),
            Self::TlsServer(tls) => tls.get_ref().0.poll_sent(context),
            Self::TlsClient(tls) => tls.get_ref().0.poll_sent(context),
        }
    }

    /// Waits for that. Cancel-safe.
    pub async fn sent(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_sent(context)).await
    }

    /// Ends our side of the connection at once: what has found no room is not sent, and TLS says no
    /// farewell.
    ///
    /// # Errors
    /// What the system says.
    pub fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.end_writing(),
            Self::Unix(unix) => unix.end_writing(),
            Self::TlsServer(tls) => tls.get_ref().0.end_writing(),
            Self::TlsClient(tls) => tls.get_ref().0.end_writing(),
        }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Peer {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Unix(_) => return Peer::Unix,
            Self::TlsServer(tls) => tls.get_ref().0,
            Self::TlsClient(tls) => tls.get_ref().0,
        };
        let address =
            SockRef::from(&tcp.socket()).peer_addr().ok().and_then(|address| address.as_socket());
        address.map_or(Peer::Unknown, Peer::Ip)
    }
}

/// The name of a user of this machine, by `/etc/passwd`.
pub fn user_name(uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    listed.filter(|name| !name.is_empty())
}

/// Whether an address is one of this machine's. Only such a one can be bound to.
pub fn is_ours(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address.to_canonical(), 0)).is_ok()
}

impl Detached {
    /// Whether nothing has arrived: no byte, and no end.
    pub fn is_quiet(&self) -> bool {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            Self::Unix(unix) => SockRef::from(unix),
        };
        // It does not block: it comes off a runtime.
        let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Puts the connection on the shard that this is called on, or else on the runtime.
    pub fn attach(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(tcp) => Plain::new(tcp).map(Stream::Tcp),
            Self::Unix(unix) => Plain::new(unix).map(Stream::Unix),
        }
    }
}

impl Newcomer {
    /// Puts the connection on the shard that this is called on, or else on the runtime. It is read
    /// at once: over TCP nobody is let in who has said nothing, unless that took too long.
    pub fn attach(self) -> io::Result<Stream> {
        match self.socket {
            Detached::Tcp(tcp) => Plain::of_client(tcp).map(Stream::Tcp),
            Detached::Unix(unix) => Plain::of_client(unix).map(Stream::Unix),
        }
    }
}

impl Peer {
    /// Whether it is a process of this machine, as far as the address tells.
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
            Self::Unknown => false,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(out),
            Self::Unix => out.write_str("unix socket"),
            Self::Unknown => out.write_str("unknown"),
        }
    }
}

impl From<TcpStream> for Detached {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(tcp)
    }
}

impl From<UnixStream> for Detached {
    fn from(unix: UnixStream) -> Self {
        Self::Unix(unix)
    }
}

impl From<tokio::net::UnixStream> for Stream {
    fn from(unix: tokio::net::UnixStream) -> Self {
        Self::Unix(Plain::Runtime(unix))
    }
}

impl From<tokio::net::TcpStream> for Stream {
    fn from(tcp: tokio::net::TcpStream) -> Self {
        Self::Tcp(Plain::Runtime(tcp))
    }
}

impl From<Plain<TcpStream>> for Stream {
    fn from(tcp: Plain<TcpStream>) -> Self {
        Self::Tcp(tcp)
    }
}

impl From<Plain<UnixStream>> for Stream {
    fn from(unix: Plain<UnixStream>) -> Self {
        Self::Unix(unix)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Unix(unix) => Pin::new(unix).poll_read(context, buffer),
            Self::TlsServer(tls) => Pin::new(tls).poll_read(context, buffer),
            Self::TlsClient(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => tcp.poll_send(context, bytes),
            Self::Unix(unix) => unix.poll_send(context, bytes),
            Self::TlsServer(tls) => Pin::new(tls).poll_write(context, bytes),
            Self::TlsClient(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(context, slices),
            Self::TlsServer(tls) => Pin::new(tls).poll_write_vectored(context, slices),
            Self::TlsClient(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Unix(unix) => unix.is_write_vectored(),
            Self::TlsServer(tls) => tls.is_write_vectored(),
            Self::TlsClient(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Unix(unix) => Pin::new(unix).poll_flush(context),
            Self::TlsServer(tls) => Pin::new(tls).poll_flush(context),
            Self::TlsClient(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(context),
            Self::TlsServer(tls) => Pin::new(tls).poll_shutdown(context),
            Self::TlsClient(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::path::Path;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn unix() -> (Detached, Detached) {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        (here.into(), there.into())
    }

    fn tcp() -> (Detached, Detached) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (there, _) = listener.accept().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        (here.into(), there.into())
    }

    fn on_the_runtime<T>(happens: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(happens)
    }

    /// With the timers of a runtime, as a shard has them.
    fn on_a_shard<T>(happens: impl Future<Output = T>) -> T {
        let mut timers = tokio::runtime::Builder::new_multi_thread();
        let timers = timers.worker_threads(1).enable_all().build().unwrap();
        let _there = timers.enter();
        reactor::run(happens).unwrap()
    }

    /// A rested backend must be able to follow a client to another shard.
    #[test]
    fn a_plain_connection_moves_between_shards_and_the_runtime() {
        for (here, there) in [unix(), tcp()] {
            let moved = on_a_shard(async { here.attach().unwrap().detach().unwrap() });
            let moved = on_the_runtime(async { moved.attach().unwrap().detach().unwrap() });
            let said = std::thread::spawn(move || {
                on_a_shard(async {
                    let mut stream = moved.attach().unwrap();
                    assert!(!stream.is_tls() && stream.peer().is_local());
                    stream.write_all(b"hello").await.unwrap();
                });
            });
            let mut bytes = [0; 5];
            on_the_runtime(async {
                there.attach().unwrap().read_exact(&mut bytes).await.unwrap();
            });
            said.join().unwrap();
            assert_eq!(&bytes, b"hello");
        }
    }

    /// One that was closed on its way must not be lent.
    #[test]
    fn a_detached_connection_is_quiet_until_something_arrives() {
        for (closed, there) in [unix(), tcp()] {
            assert!(closed.is_quiet());
            drop(there);
            assert!(!closed.is_quiet());
        }
        for (told, there) in [unix(), tcp()] {
            assert!(told.is_quiet());
            on_a_shard(async { there.attach().unwrap().write_all(b"E").await.unwrap() });
            assert!(!told.is_quiet());
        }
    }

    /// A standing connection that is not read must be known to be gone at once.
    async fn what_comes_and_an_end_stir_and_silence_does_not() {
        for (here, there) in [unix(), tcp()] {
            let (mut here, mut there) = (here.attach().unwrap(), there.attach().unwrap());
            let soon = Duration::from_millis(20);
            crate::timer::timeout(soon, here.stirs()).await.expect_err("nothing came");
            assert!(here.is_quiet());
            there.write_all(b"hello").await.unwrap();
            here.stirs().await;
            here.stirs().await;
            assert!(!here.is_quiet());
            here.read_exact(&mut [0; 5]).await.unwrap();
            crate::timer::timeout(soon, here.stirs()).await.expect_err("all was read");
            there.shutdown().await.unwrap();
            here.stirs().await;
            assert!(!here.is_quiet());
        }
    }

    #[test]
    fn what_stirs_is_known_on_a_shard() {
        on_a_shard(what_comes_and_an_end_stir_and_silence_does_not());
    }

    #[test]
    fn what_stirs_is_known_on_the_runtime() {
        on_the_runtime(what_comes_and_an_end_stir_and_silence_does_not());
    }

    async fn who_connects_is_heard_and_a_closed_door_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut here = Stream::from(Plain::connect_tcp(address).await.unwrap());
        let (mut there, _) = listener.accept().unwrap();
        there.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        here.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        drop((listener, there, here));
        let refused = Plain::connect_tcp(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let missing = Plain::connect_unix(Path::new("/nowhere/.s.PGSQL.1")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_shard_connects() {
        on_a_shard(who_connects_is_heard_and_a_closed_door_is_told());
    }

    #[test]
    fn the_runtime_connects() {
        on_the_runtime(who_connects_is_heard_and_a_closed_door_is_told());
    }

    #[test]
    fn only_this_machine_is_local() {
        let local = |text: &str| Peer::Ip(text.parse().unwrap()).is_local();
        assert!(local("127.0.0.9:1") && local("[::1]:1") && local("[::ffff:127.0.0.1]:1"));
        assert!(!local("10.0.0.1:1") && !local("0.0.0.0:1") && !Peer::Unknown.is_local());
    }
}
