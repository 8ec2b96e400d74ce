//! Where clients knock.
//!
//! Who is let in is on no shard yet: it goes to one, and is registered there only. What
//! its socket is set to it has from the one that is listened at, where the system does so.

use super::SocketPolicy;
use super::socket::defer_accept;
use super::stream::{Detached, Newcomer, Peer};
use crate::reactor::Registered;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The port of PgBouncer, in whose place we can stand.
const PGBOUNCER_PORT: u16 = 6432;
/// Connections that may wait for us to accept them; the system lowers it to its own limit.
const BACKLOG: i32 = 4096;
/// Who may connect through a socket file unless told otherwise: everybody, as with PostgreSQL's
/// `unix_socket_permissions`.
pub const UNIX_MODE: u32 = 0o777;

/// One place where clients connect.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A socket file; removed when this is dropped.
    Unix(UnixListener, SocketFile),
}

/// The same, on the shard that accepts.
#[derive(Debug)]
pub enum Doorway {
    /// A TCP port.
    Tcp(Registered<TcpListener>),
    /// A socket file; removed when this is dropped.
    Unix(Registered<UnixListener>, SocketFile),
}

/// A socket file of ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that somebody else has put in its place stays.
    identity: Option<(u64, u64)>,
}

/// Why a place can't be listened at.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("cannot listen on {address}: somebody else listens there already{}", pgbouncer(*port))]
    InUse {
        /// Where.
        address: String,
        /// The port of it.
        port: u16,
    },
    /// Anything else: no such address here, no permission, no such directory, ...
    #[error("cannot listen on {address}")]
    Io {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

fn pgbouncer(port: u16) -> &'static str {
    if port == PGBOUNCER_PORT {
        " (6432 is PgBouncer's port: stop it, or choose another address)"
    } else {
        ""
    }
}

impl Listener {
    /// Listens on a TCP address; on `[::]` for IPv4, too, and where this machine has no IPv6,
    /// for IPv4 alone.
    pub fn tcp(address: SocketAddr) -> Result<Self, BindError> {
        let bound = match bind(address) {
            Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !has_ipv6() => {
                bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
            }
            other => other,
        };
        bound.map(Self::Tcp).map_err(|source| failed(address.to_string(), address.port(), source))
    }

    /// Listens on `.s.PGSQL.<port>` in `directory`, where libpq looks for it. A file that is
    /// left from a process that died is replaced.
    pub fn unix(directory: &Path, port: u16, mode: u32) -> Result<Self, BindError> {
        let path = directory.join(format!(".s.PGSQL.{port}"));
        let failed = |source| failed(path.display().to_string(), port, source);
        if is_stale(&path) {
            std::fs::remove_file(&path).map_err(failed)?;
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let file = SocketFile { identity: identity(&path), path: path.clone() };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self::Unix(listener, file))
    }

    /// Has the shard that this is called on accept here.
    ///
    /// # Errors
    /// What the system says; the place is closed then.
    pub fn open(self) -> io::Result<Doorway> {
        match self {
            Self::Tcp(listener) => Registered::new(listener).map(Doorway::Tcp),
            Self::Unix(listener, file) => Ok(Doorway::Unix(Registered::new(listener)?, file)),
        }
    }

    /// The TCP address that is listened at: with port 0, the one that the system chose.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

impl Doorway {
    /// The next client. Cancel-safe. An error (out of file descriptors, say) says nothing about
    /// the next one: pause and try again.
    pub async fn accept(&self) -> io::Result<Newcomer> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, from) = poll_fn(|context| listener.poll_accept(context)).await?;
                #[cfg(not(target_os = "linux"))]
                SocketPolicy::TO_CLIENTS.apply(&tcp)?;
                let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                let peer = from.map_or(Peer::Unknown, Peer::Ip);
                Ok(Newcomer { socket: Detached::Tcp(tcp.into()), peer })
            }
            Self::Unix(listener, _) => {
                let (unix, _) = poll_fn(|context| listener.poll_accept(context)).await?;
                Ok(Newcomer { socket: Detached::Unix(unix.into()), peer: Peer::Unix })
            }
        }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(out),
                Err(_) => out.write_str("tcp"),
            },
            Self::Unix(_, file) => file.path.display().fmt(out),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// On Linux the sockets of who connects have these settings from the beginning: the kernel clones
/// what is listened at (`tcp_create_openreq_child`), keepalive timer included.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    SocketPolicy::TO_CLIENTS.apply(&socket)?;
    // Where the system knows no such thing, who connects is told of at once.
    drop(defer_accept(&socket));
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn failed(address: String, port: u16, source: io::Error) -> BindError {
    if source.kind() == io::ErrorKind::AddrInUse {
        BindError::InUse { address, port }
    } else {
        BindError::Io { address, source }
    }
}

/// Whether the file is a socket that nobody listens on.
fn is_stale(path: &Path) -> bool {
    let tried = std::os::unix::net::UnixStream::connect(path);
    tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor;
    use std::io::Write;
    use std::task::{Context, Poll, Waker};

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pgsteer-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let first = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();

        let error = Listener::tcp(address).unwrap_err().to_string();

        assert_eq!(
            error,
            format!("cannot listen on {address}: somebody else listens there already")
        );
        assert!(pgbouncer(6432).contains("PgBouncer"));
    }

    fn accepted(listener: Listener) -> Detached {
        let accept = async { listener.open().unwrap().accept().await };
        reactor::run(accept).unwrap().unwrap().socket
    }

    #[test]
    fn every_address_means_ipv4_too() {
        let listener = Listener::tcp("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let Detached::Tcp(tcp) = accepted(listener) else { panic!("no TCP") };
        assert!(tcp.peer_addr().unwrap().ip().to_canonical().is_loopback());
    }

    /// A client that vanishes is to be noticed, and none is to wait for Nagle's algorithm.
    #[test]
    fn who_is_let_in_is_set_as_clients_are() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let Detached::Tcp(tcp) = accepted(listener) else { panic!("no TCP") };
        let socket = socket2::SockRef::from(&tcp);
        let policy = SocketPolicy::TO_CLIENTS;
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert!(socket.nonblocking().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), policy.keepalive_idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), policy.keepalive_interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), policy.keepalive_retries);
        assert_eq!(socket.tcp_user_timeout().unwrap(), policy.user_timeout);
    }

    #[test]
    fn a_socket_file_is_replaced_only_if_it_is_stale() {
        let directory = scratch("socket-file");
        let path = directory.join(".s.PGSQL.7");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left by a process that died");

        let listener = Listener::unix(&directory, 7, 0o700).unwrap();
        let second = Listener::unix(&directory, 7, 0o700);
        assert!(matches!(second, Err(BindError::InUse { .. })));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

        drop(listener);
        assert!(!path.exists(), "removed by its owner");
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// Who speaks is let in before those who only came, and what it said is read without a wait.
    #[cfg(target_os = "linux")]
    #[test]
    fn who_speaks_comes_first_and_is_read_at_once() {
        // The silent one is let in by itself when a second has passed, and a machine may take that
        // long for these lines.
        let tried = (0..20).any(|_| {
            let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let silent = std::net::TcpStream::connect(address).unwrap();
            let mut speaks = std::net::TcpStream::connect(address).unwrap();
            speaks.write_all(b"hello").unwrap();
            let let_in = async {
                let doorway = listener.open().unwrap();
                let first = doorway.accept().await.unwrap();
                let is_first = first.peer == Peer::Ip(speaks.local_addr().unwrap());
                let mut stream = first.attach().unwrap();
                let mut said = [0; 8];
                let mut context = Context::from_waker(Waker::noop());
                let read = stream.poll_receive(&mut context, &mut said);
                let second = doorway.accept().await.unwrap();
                assert!(is_first || second.peer == Peer::Ip(speaks.local_addr().unwrap()));
                is_first.then_some(read)
            };
            let read = reactor::run(let_in).unwrap();
            drop(silent);
            matches!(read, Some(Poll::Ready(Ok(5))))
        });
        assert!(tried);
    }
}
