//! What every TCP connection is set to.

use socket2::{SockRef, Socket, TcpKeepalive};
use std::io;
use std::time::Duration;

/// How soon a peer that vanished without a word is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketPolicy {
    /// Silence after which the first probe is sent.
    pub keepalive_idle: Duration,
    /// Pause between two probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes after which the connection is given up.
    pub keepalive_retries: u32,
    /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`); `None`: the system's
    /// default, about a quarter of an hour.
    pub user_timeout: Option<Duration>,
}

impl SocketPolicy {
    /// Towards servers: one that vanished is noticed within about six seconds, whether we wait
    /// for its answer or our data is on the way.
    pub const TO_SERVERS: Self = Self {
        keepalive_idle: Duration::from_secs(1),
        keepalive_interval: Duration::from_secs(1),
        keepalive_retries: 5,
        user_timeout: Some(Duration::from_secs(6)),
    };

    /// Towards clients: there are many, they idle for long, and a sleeping laptop is no loss;
    /// one that vanished gives its slot back within about two minutes.
    pub const TO_CLIENTS: Self = Self {
        keepalive_idle: Duration::from_mins(1),
        keepalive_interval: Duration::from_secs(10),
        keepalive_retries: 6,
        user_timeout: Some(Duration::from_mins(2)),
    };

    /// Sets a connection so, and turns Nagle's algorithm off.
    pub fn apply<'s>(&self, tcp: impl Into<SockRef<'s>>) -> io::Result<()> {
        let socket = tcp.into();
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(self.keepalive_idle)
            .with_interval(self.keepalive_interval)
            .with_retries(self.keepalive_retries);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(self.user_timeout)?;
        Ok(())
    }
}

/// Whoever connects here is let in with the first that it says, or after about a second of silence:
/// a client always speaks first, and so it is read where it is let in and not waited for again.
///
/// Source: `TCP_DEFER_ACCEPT` in tcp(7). The kernel counts in resent answers to who connects, of
/// which the first is due after a second.
///
/// # Errors
/// The system has no such thing.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate sets it in stable Rust")]
pub(super) fn defer_accept(listening: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let seconds: libc::c_int = 1;
    let size = u32::try_from(size_of_val(&seconds)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `size` bytes of a
    // value that has as many and outlives the call.
    let set = unsafe {
        libc::setsockopt(
            listening.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Only Linux has such a thing.
#[cfg(not(target_os = "linux"))]
pub(super) fn defer_accept(_: &Socket) -> io::Result<()> {
    Ok(())
}
