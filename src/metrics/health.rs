//! Whether we live, and whether we are ready.

use crate::clock::Moment;
use crate::topology::Primary;
use crate::topology::Seen;
use crate::topology::Topology;
use crate::topology::Unseen;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A shard that did not turn for so long hangs. A loop turns in milliseconds; so much later an
/// orchestrator does better to start us anew.
const BEAT_MAX: Duration = Duration::from_secs(30);

/// What the rest of the process says of itself.
#[derive(Debug)]
pub struct Health {
    /// Whether clients can connect.
    listening: AtomicBool,
    /// Whether we shut down.
    draining: AtomicBool,
    /// Whether every server was looked at once; it stays so.
    looked: AtomicBool,
    /// When each shard last turned; 0: it never said so.
    beats: Box<[AtomicU64]>,
}

/// What `?require=` asks for beyond readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// A primary that takes writes.
    Primary,
}

/// One condition, and whether it holds.
pub(crate) type Condition = (&'static str, bool);

impl Health {
    /// Of a process with so many shards, none of which has turned yet.
    pub fn new(shards: usize) -> Self {
        Self {
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            looked: AtomicBool::new(false),
            beats: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Clients can connect from now on.
    pub fn listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// We shut down: no new clients, please.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A shard turns; to be said every second or so.
    pub fn beat(&self, shard: usize, now: Moment) {
        if let Some(beat) = self.beats.get(shard) {
            beat.store(now.nanos(), Ordering::Relaxed);
        }
    }

    /// Whether our own threads turn.
    pub(crate) fn alive(&self, now: Moment) -> Vec<Condition> {
        let turning = self.beats.iter().all(|beat| {
            let last = beat.load(Ordering::Relaxed);
            last == 0 || now.since(Moment::from_nanos(last)) <= BEAT_MAX
        });
        vec![("shards turn", turning)]
    }

    /// Whether clients can be served.
    pub(crate) fn ready(&self, topology: &Topology, require: Requirement) -> Vec<Condition> {
        if topology.system.is_some() && topology.servers.iter().all(|server| asked(&server.seen)) {
            self.looked.store(true, Ordering::Relaxed);
        }
        let mut conditions = vec![
            ("configuration loaded", true),
            ("listening", self.listening.load(Ordering::Relaxed)),
            ("servers seen", self.looked.load(Ordering::Relaxed)),
            ("not draining", !self.draining.load(Ordering::Relaxed)),
        ];
        if require == Requirement::Primary {
            let open = match topology.primary {
                Primary::Open { .. } => true,
                Primary::None { .. } => false,
            };
            conditions.push(("primary", open));
        }
        conditions
    }
}

/// Whether the first look at a server is over.
fn asked(seen: &Seen) -> bool {
    match seen {
        Seen::Answered(_) => true,
        Seen::Not { why, .. } => *why != Unseen::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::SystemId;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_shard_that_stands_still_is_no_life() {
        let health = Health::new(2);
        assert_eq!(health.alive(at(100)), [("shards turn", true)], "none has begun yet");
        health.beat(0, at(100));
        health.beat(1, at(100));
        assert_eq!(health.alive(at(120)), [("shards turn", true)]);
        health.beat(0, at(200));
        assert_eq!(health.alive(at(200)), [("shards turn", false)]);
    }

    #[test]
    fn readiness_is_gained_by_seeing_the_servers_and_lost_only_by_draining() {
        let health = Health::new(1);
        let ready = |topology: &Topology| {
            health.ready(topology, Requirement::Nothing).iter().all(|(_, holds)| *holds)
        };
        let unseen = Topology::unseen(Box::new([]));
        let seen = Topology { system: Some(SystemId(1)), ..unseen.clone() };
        health.listening();
        assert!(!ready(&unseen));
        assert!(ready(&seen));
        assert!(ready(&unseen), "what was seen stays seen");
        let strict = health.ready(&seen, Requirement::Primary);
        assert!(strict.contains(&("primary", false)));
        health.draining();
        assert!(!ready(&seen));
    }
}
