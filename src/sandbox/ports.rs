//! Ports that stay ours while their server is down.
//!
//! The kernel hands out ports above 32768 to outgoing connections, so a server that listened on
//! one of those may find it taken when it is started again. We look below, remember what this
//! process has handed out, and tell it to others of our kind by a name (Linux only: elsewhere two
//! processes may still take the same port, one while the other's server is down). A stranger that
//! takes one in between is noticed when the server starts, and another port is tried.

use crate::sandbox::SandboxError;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::PoisonError;

/// The ports that are tried: below Linux's `net.ipv4.ip_local_port_range`, above most services.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;

/// What this process has handed out.
static HANDED_OUT: Mutex<HandedOut> = Mutex::new(HandedOut { taken: BTreeSet::new(), count: 0 });

#[derive(Debug)]
struct HandedOut {
    /// Those that were not given back.
    taken: BTreeSet<u16>,
    /// How many places the search has passed. It goes on from there, so that a port which was
    /// given back is the last to be used again: somebody may still call at it.
    count: u32,
}

/// A port of 127.0.0.1 that nobody else of our kind uses.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: Claim,
}

impl Port {
    /// A port on which nobody listens.
    ///
    /// # Errors
    /// [`SandboxError::NoPort`] if all are in use.
    pub fn free() -> Result<Self, SandboxError> {
        let mut out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
        // Each process starts its search elsewhere, so that two rarely meet.
        let span = u32::from(LAST - FIRST);
        let start = std::process::id().wrapping_mul(61) % span;
        for _ in 0..span {
            out.count = out.count.wrapping_add(1) % span;
            let Ok(offset) = u16::try_from((start + out.count) % span) else { continue };
            let port = FIRST + offset;
            if !out.taken.contains(&port)
                && let Some(claim) = Claim::on(port)
                && is_free(port)
            {
                out.taken.insert(port);
                return Ok(Self { number: port, _claim: claim });
            }
        }
        Err(SandboxError::NoPort)
    }

    /// The number.
    pub const fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}

/// What other processes find that look for the same port, while nobody listens on it as well.
#[derive(Debug)]
struct Claim {
    /// Bound to a name that the kernel gives to one socket at a time, and frees with its process.
    ///
    /// Source: `unix(7)`, "Abstract sockets".
    #[cfg(target_os = "linux")]
    _socket: std::os::unix::net::UnixDatagram,
}

impl Claim {
    /// It is ours now, unless somebody else has it.
    #[cfg(target_os = "linux")]
    fn on(port: u16) -> Option<Self> {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::{SocketAddr, UnixDatagram};
        let name = SocketAddr::from_abstract_name(format!("pgsteer sandbox, port {port}")).ok()?;
        UnixDatagram::bind_addr(&name).ok().map(|socket| Self { _socket: socket })
    }

    #[cfg(not(target_os = "linux"))]
    const fn on(_: u16) -> Option<Self> {
        Some(Self {})
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::eventually;
    use std::time::Duration;

    #[test]
    fn two_ports_differ_and_a_listener_keeps_its_own() {
        let one = Port::free().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, one.number())).unwrap();
        let other = Port::free().unwrap();
        assert_ne!(one.number(), other.number());
        let given_back = other.number();
        drop(other);
        assert_ne!(Port::free().unwrap().number(), given_back);
    }

    /// As for a server that is down.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_that_nobody_listens_on_is_found_taken_by_other_processes() {
        let port = Port::free().unwrap();
        assert!(Claim::on(port.number()).is_none());
        let number = port.number();
        drop(port);
        // A process that is about to be begun elsewhere in this one may have it for a moment more.
        let given_back = eventually(Duration::from_mins(1), || Claim::on(number));
        assert!(given_back.is_some(), "it was given back");
    }
}
