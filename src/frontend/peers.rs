//! Cancel requests that reached the wrong one of several pgsteers behind one address.
//!
//! A key says who gave it out: the first bytes of a long one, and the upper bits of the process in
//! a short one, hold the number of its pgsteer. There the request is sent, with a mark, as long as
//! it takes there, so that its client waits as it would at the right one. In session mode the
//! process of a short key is the server's own and has no room for a number; it is shown to all.
//!
//! Invariants:
//! - A request that carries the mark is never passed on: none goes round.
//! - So many are under way at a time and no more; one beyond is dropped, as a server may do.
//! - Nobody learns whether a request found anything, and no key is logged.
//!
//! Deliberately absent: a proof to a peer that we are one. Whoever has a key may cancel by it
//! anywhere. That a peer is one is shown by its certificate, if the operator wants that.

use crate::backend;
use crate::backend::{Security, Target, TlsPolicy};
use crate::frontend::cancel::{CANCEL_TIMEOUT, Identity};
use crate::net::TlsError;
use crate::tasks;
use crate::topology::ServerId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// All pgsteers behind one address.
#[derive(Debug)]
pub struct Peers {
    /// Which one this is, from 1.
    own: u8,
    /// All of them, in order.
    all: Box<[Target]>,
    /// How they are reached.
    security: Security,
    /// A permit for each request that may be under way.
    room: Arc<Semaphore>,
}

/// Most requests that are passed on at a time.
const UNDER_WAY_MAX: usize = 64;
/// Longest that one may take: the peer's own time, and the way there.
const WITHIN: Duration = CANCEL_TIMEOUT.saturating_add(Duration::from_secs(1));
/// What long keys begin with, before the number.
const FLEET: &[u8; 7] = b"pgsteer";
/// What the key of a request that was passed on begins with. No key of ours does.
const MARK: &[u8] = b"passed on by a pgsteer:";
/// The longest key that is passed on: longer than ours, and with the mark still a key.
const KEY_MAX: usize = 64;
/// How many bits of a short key's process are random, below the number.
const RANDOM_BITS: u32 = 23;
const RANDOM: i32 = (1 << RANDOM_BITS) - 1;

/// Whose a key is, as far as it says.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// Nobody's but ours, if anybody's.
    None,
    /// That peer's, by its number.
    Peer(u8),
    /// It does not say.
    Unknown,
}

impl Peers {
    /// The one of this number, from 1, of those at these hosts and ports, reached in this way.
    ///
    /// # Errors
    /// A certificate can't be used.
    pub fn new(own: u8, all: &[(Arc<str>, u16)], tls: TlsPolicy) -> Result<Self, TlsError> {
        let security = Security::load(tls)?;
        let target = |(host, port): &(Arc<str>, u16)| {
            Target::new(ServerId(0), &format!("{host}:{port}").into(), host, *port, &security)
        };
        let all = all.iter().map(target).collect();
        Ok(Self { own, all, security, room: Arc::new(Semaphore::new(UNDER_WAY_MAX)) })
    }

    /// Reads the certificates that are trusted again.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        self.security.reload()
    }

    /// What long keys begin with.
    pub(super) fn identity(&self) -> Identity {
        let mut identity = Identity::default();
        for (place, byte) in identity.iter_mut().zip(FLEET.iter().chain([&self.own])) {
            *place = *byte;
        }
        identity
    }

    /// A short key's process with these random bits.
    pub(super) fn process(&self, random: i32) -> i32 {
        (i32::from(self.own) << RANDOM_BITS) | (random & RANDOM)
    }

    /// Passes a request on, for which no session was found here, to whom it may concern. Not
    /// cancel-safe: dropped, it may or may not have arrived.
    pub(super) async fn pass_on(&self, pid: i32, key: &[u8]) {
        if key.starts_with(MARK) || key.len() > KEY_MAX {
            return;
        }
        let whose = owner(pid, key);
        let others = (1..).zip(&self.all).filter(|(number, _)| *number != self.own);
        let concerned = others.filter(|(number, _)| match whose {
            Owner::None => false,
            Owner::Peer(peer) => *number == peer,
            Owner::Unknown => true,
        });
        let key: Arc<[u8]> = [MARK, key].concat().into();
        let sent = concerned.map(|(_, target)| self.send(target, pid, &key));
        let sent: Vec<_> = sent.flatten().collect();
        for sent in sent {
            // It has told of its failure.
            drop(sent.await);
        }
    }

    fn send(
        &self,
        target: &Target,
        pid: i32,
        key: &Arc<[u8]>,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            tracing::warn!(peer = %target.name, "too many cancel requests are passed on; one was not");
            return None;
        };
        let (target, key) = (target.clone(), Arc::clone(key));
        Some(tasks::spawn("cancel at a peer", async move {
            if let Err(error) = backend::cancel(&target, pid, &key, WITHIN).await {
                tracing::warn!(peer = %target.name, %error, "a cancel request was not passed on");
            }
            drop(permit);
        }))
    }
}

/// The key without its mark.
pub(super) fn unmarked(key: &[u8]) -> &[u8] {
    key.strip_prefix(MARK).unwrap_or(key)
}

fn owner(pid: i32, key: &[u8]) -> Owner {
    if key.len() != 4 {
        let number = key.strip_prefix(FLEET).and_then(<[u8]>::first);
        return number.map_or(Owner::None, |number| Owner::Peer(*number));
    }
    match u8::try_from(pid >> RANDOM_BITS) {
        // No process of a server has so high a number (`PID_MAX_LIMIT` of Linux is 2^22).
        Ok(0) => Owner::Unknown,
        Ok(number) => Owner::Peer(number),
        Err(_) => Owner::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_owner() {
        let peers = |own| Peers::new(own, &[], TlsPolicy::default()).unwrap();
        let short = |pid| owner(pid, b"abcd");
        for own in [1, 2, 32, 255] {
            for random in [0, 1, -1, i32::MAX, i32::MIN] {
                let process = peers(own).process(random);
                assert!(process > 0, "{process}");
                assert_eq!(short(process), Owner::Peer(own));
            }
            let long = [&peers(own).identity()[..], &[7; 24]].concat();
            assert_eq!(owner(5, &long), Owner::Peer(own));
        }
        assert_eq!(short(4_194_304), Owner::Unknown, "a server's process");
        assert_eq!(short(-1), Owner::None);
        assert_eq!(owner(5, &[7; 32]), Owner::None, "somebody else's");
        assert_eq!(owner(5, b""), Owner::None);
        assert_eq!(unmarked(&[MARK, b"abcd"].concat()), b"abcd");
    }
}
