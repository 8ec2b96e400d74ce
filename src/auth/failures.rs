//! How long somebody is kept waiting who fails to prove who he is.
//!
//! Each failure of an address raises its level, and time lowers it. Above a few free tries the
//! refusal is given later and later, so that passwords can't be guessed quickly over one
//! connection after the other. Only refusals wait: whoever proves himself gets in at once, also
//! behind an address that many share (a load balancer, a network with one address), and nobody
//! can lock others out.
//!
//! Invariants:
//! - Memory is bounded, however many addresses fail.
//! - What is waited depends on the address and its failures alone: not on the user, nor on what
//!   was wrong, of which it would tell.
//!
//! Deliberately absent: a limit on connections of one address, for which `pool.max_clients` stands,
//! and a reset by a success, with which somebody who has one account could go on for ever.

use crate::clock::Moment;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failures that cost nothing: a typing error, or a password that was changed.
const FREE: u32 = 5;
/// The first wait; each further failure doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// After so long one failure is forgiven.
const FORGIVEN: Duration = Duration::from_secs(10);
/// The level above which nothing changes any more: beyond any sane longest wait.
const LEVEL_MAX: u32 = FREE + 20;
/// Most addresses that are remembered.
const SOURCES_MAX: usize = 10_000;

/// Who failed how often. Shared by all shards.
#[derive(Debug, Default)]
pub struct Failures {
    /// Guarded for a look-up, never over a wait.
    levels: Mutex<BTreeMap<Source, Level>>,
}

/// Where somebody fails from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A socket file.
    Socket,
    /// An address; of IPv6 the network, whose addresses one machine may have all.
    Network(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Level {
    failures: u32,
    /// Until when they were counted, or forgiven.
    at: Moment,
}

impl Source {
    /// An address's.
    pub fn of(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl Failures {
    /// Somebody failed from there; how long he is to wait for the answer, at most `longest`.
    pub fn count(&self, source: Source, now: Moment, longest: Duration) -> Duration {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= SOURCES_MAX && !levels.contains_key(&source) {
            make_room(&mut levels, now);
        }
        let level = levels.entry(source).or_insert(Level { failures: 0, at: now });
        *level = level.as_of(now);
        level.failures = level.failures.saturating_add(1).min(LEVEL_MAX);
        let beyond = level.failures.saturating_sub(FREE);
        match beyond.checked_sub(1) {
            None => Duration::ZERO,
            Some(doubled) => {
                FIRST.saturating_mul(1_u32.checked_shl(doubled).unwrap_or(u32::MAX)).min(longest)
            }
        }
    }
}

impl Level {
    /// What is left of it.
    fn as_of(self, now: Moment) -> Self {
        let passed = now.since(self.at);
        let forgiven = u32::try_from(passed.as_nanos() / FORGIVEN.as_nanos()).unwrap_or(u32::MAX);
        let failures = self.failures.saturating_sub(forgiven);
        if failures == 0 {
            return Self { failures, at: now };
        }
        Self { failures, at: self.at + FORGIVEN.saturating_mul(forgiven) }
    }
}

/// Forgets whom everything was forgiven; if that is nobody, whoever has failed least.
fn make_room(levels: &mut BTreeMap<Source, Level>, now: Moment) {
    levels.retain(|_, level| level.as_of(now).failures > 0);
    if levels.len() < SOURCES_MAX {
        return;
    }
    let least = levels.iter().min_by_key(|(_, level)| (level.as_of(now).failures, level.at));
    if let Some(least) = least.map(|(source, _)| *source) {
        levels.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(1_000_000_000_000);
    const LONGEST: Duration = Duration::from_secs(3);

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn each_failure_beyond_the_free_ones_is_answered_later() {
        let failures = Failures::default();
        let one = source("192.0.2.1");
        let waits: Vec<u128> =
            (0..14).map(|_| failures.count(one, START, LONGEST).as_millis()).collect();
        let expected = [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3000, 3000, 3000, 3000];
        assert_eq!(waits, expected);
        assert_eq!(failures.count(source("192.0.2.2"), START, LONGEST), Duration::ZERO);
        assert_eq!(failures.count(Source::Socket, START, LONGEST), Duration::ZERO);
        assert_eq!(failures.count(one, START, Duration::ZERO), Duration::ZERO, "turned off");
    }

    #[test]
    fn time_forgives() {
        let failures = Failures::default();
        let one = source("192.0.2.1");
        let count = |at: u64| failures.count(one, START + Duration::from_secs(at), LONGEST);
        for _ in 0..7 {
            count(0);
        }
        assert_eq!(count(9), Duration::from_millis(400), "not yet");
        assert_eq!(count(21), Duration::from_millis(200), "two were forgiven, one came");
        assert_eq!(count(10_000), Duration::ZERO);
        for _ in 0..1000 {
            count(10_000);
        }
        assert_eq!(count(10_000 + 250), Duration::ZERO, "nobody waits for ever");
    }

    #[test]
    fn one_machines_addresses_are_one() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    /// Who fails from everywhere at once neither fills the memory nor buries who fails the most.
    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let failures = Failures::default();
        let worst = source("192.0.2.1");
        for _ in 0..10 {
            failures.count(worst, START, LONGEST);
        }
        let total = u32::try_from(SOURCES_MAX).unwrap() + 500;
        for number in 0..total {
            let address = Source::of(IpAddr::V4((0x0A00_0000 + number).into()));
            failures.count(address, START, LONGEST);
        }
        assert!(failures.levels.lock().unwrap().len() <= SOURCES_MAX);
        assert_eq!(failures.count(worst, START, LONGEST), LONGEST);
    }
}
