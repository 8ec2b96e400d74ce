//! How often one address makes us ask the servers about users.
//!
//! Names can be guessed without a password, and each new one is a question. A login that asks
//! beyond what its address has free waits; it is not refused, for many users may come from one
//! address, and what it waits does not depend on the user.
//!
//! Invariant: memory is bounded, however many addresses ask.

use super::Source;
use crate::clock::Moment;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What one question takes of an address's time: 500 a second. A server looks up a thousand
/// verifiers in less than a tenth of a second.
const EACH: Duration = Duration::from_millis(2);
/// So much may be asked at once: the users of a large application, when it starts.
const FREE: Duration = Duration::from_secs(8);
/// Nobody waits for longer: the login's own time is over by then.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most addresses that are remembered.
const SOURCES_MAX: usize = 10_000;

/// Who asked how much. Shared by all shards.
#[derive(Debug, Default)]
pub struct Quota {
    /// Until when each address's questions take. Guarded for a look-up, never over a wait.
    until: Mutex<BTreeMap<Source, Moment>>,
}

impl Quota {
    /// A login from there asks; how long it is to wait before.
    pub fn take(&self, source: Source, now: Moment) -> Duration {
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SOURCES_MAX && !all.contains_key(&source) {
            all.retain(|_, until| *until > now);
            // Whoever has asked least loses nothing.
            let least = all.iter().min_by_key(|(_, until)| **until).map(|(source, _)| *source);
            if let Some(least) = least.filter(|_| all.len() >= SOURCES_MAX) {
                all.remove(&least);
            }
        }
        let until = all.entry(source).or_insert(now);
        *until = ((*until).max(now) + EACH).min(now + FREE + WAIT_MAX);
        until.since(now + FREE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(1_000_000_000_000);

    fn source(number: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn who_asks_without_end_waits_and_nobody_else_does() {
        let quota = Quota::default();
        let free = FREE.as_millis() / EACH.as_millis();
        let waits: Vec<Duration> = (0..free).map(|_| quota.take(source(1), START)).collect();
        assert!(waits.iter().all(Duration::is_zero));
        assert_eq!(quota.take(source(1), START), EACH);
        assert_eq!(quota.take(source(1), START), EACH * 2);
        assert_eq!(quota.take(source(2), START), Duration::ZERO);
        assert_eq!(quota.take(source(1), START + FREE), Duration::ZERO, "time gives it back");

        for _ in 0..100_000 {
            quota.take(source(1), START + FREE);
        }
        assert_eq!(quota.take(source(1), START + FREE), WAIT_MAX, "no debt beyond that");
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let quota = Quota::default();
        for _ in 0..100 {
            quota.take(source(0), START);
        }
        for number in 1..=u32::try_from(SOURCES_MAX).unwrap() {
            quota.take(source(number), START);
        }
        let all = quota.until.lock().unwrap();
        assert_eq!(all.len(), SOURCES_MAX);
        assert!(all.contains_key(&source(0)), "who asks most is remembered");
    }
}
