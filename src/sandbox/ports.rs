//! Ports that stay ours while their server is down.
//!
//! The kernel hands out ports above 32768 to outgoing connections, so a server that listened on
//! one of those may find it taken when it is started again. We look below, and remember what
//! this process has handed out; another process that takes the same one in between is noticed
//! when the server starts, and another port is tried.

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

/// A port of 127.0.0.1 that nothing else of this process uses.
#[derive(Debug, PartialEq, Eq)]
pub struct Port(u16);

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
            if !out.taken.contains(&port) && is_free(port) {
                out.taken.insert(port);
                return Ok(Self(port));
            }
        }
        Err(SandboxError::NoPort)
    }

    /// The number.
    pub const fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.0);
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_differ_and_a_listener_keeps_its_own() {
        let one = Port::free().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, one.number())).unwrap();
        let other = Port::free().unwrap();
        assert_ne!(one, other);
        let given_back = other.number();
        drop(other);
        assert_ne!(Port::free().unwrap().number(), given_back);
    }
}
