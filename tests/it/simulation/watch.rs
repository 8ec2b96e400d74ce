//! What is really so, watched beside what the proxy sees of it: a failover that begins by itself
//! is wrong while there is enough to be seen that speaks against it.

use super::net::{PROXY, Way, place};
use super::plan::QUIET;
use super::server::{Life, Role};
use super::world::World;
use pgsteer::failover::{By, Kind, Mode, Phase, Record, Sight};

/// What has really been so for this long must have been seen: the limit of freshness, a look, and
/// a late message.
const SEEN_SURELY: u64 = 1_600;
/// Longest that a look took that was under way when a server was lost: it counts from its begin.
const LOOKED: u64 = 600;
/// Longest between a decision and its record, in milliseconds.
const RECORDED: u64 = 10;
/// How often it is watched, in milliseconds.
const PACE: u64 = 10;

/// Since when something has been so.
#[derive(Debug, Default)]
pub(super) struct Watched {
    at: u64,
    /// A standby has been hearing from the primary, and was in reach.
    hearing: Vec<Option<u64>>,
    /// The primary was there for everybody who asked.
    present: Option<u64>,
    /// No other server was in reach, nor did the primary say itself that it is in recovery.
    alone: Option<u64>,
    /// Another server was a primary, on a newer branch.
    rival: Option<u64>,
    /// No change was under way, and the proxy could look at the primary.
    pub calm: Option<u64>,
    /// Somebody changed the settings, and it has not been calm for long enough since.
    pub changed: bool,
    /// Something was lacking for acting by itself.
    pub disarmed: Option<u64>,
    /// The primary was well, and then restarted by itself: which one, and in which life.
    pub relapsed: Option<(usize, u64, u64)>,
}

fn hold(since: &mut Option<u64>, so: bool, now: u64) {
    *since = so.then(|| since.unwrap_or(now));
}

impl World {
    /// Looks at the world as it is.
    pub(super) fn watch(&mut self) {
        if self.now >= self.judge.watched.at + PACE {
            self.watch_now();
        }
    }

    fn watch_now(&mut self) {
        let now = self.now;
        let Some(primary) = self.recorded() else { return };
        let count = self.servers.len();
        let mut watched = std::mem::take(&mut self.judge.watched);
        watched.at = now;
        watched.hearing.resize(count, None);
        let others = || (0..count).filter(move |server| *server != primary);
        for server in 0..count {
            hold(&mut watched.hearing[server], self.is_hearing(server, primary), now);
        }
        // One that is full says so.
        let present = self.is_reached(primary) && self.servers[primary].is_primary();
        hold(&mut watched.present, present, now);
        let looks = self.proxy.up && !self.proxy.paused && self.is_seen(primary);
        let calm = present && looks && self.store.record.phase == Phase::Stable;
        hold(&mut watched.calm, calm, now);
        watched.changed &= !self.surely(watched.calm);
        let tells = self.is_seen(primary) && !self.servers[primary].is_primary();
        let alone = !tells && others().all(|server| !self.is_reached(server));
        hold(&mut watched.alone, alone, now);
        let newer = self.proxy.record.primary.timeline.0;
        let rival = |server: usize| {
            let own = &self.servers[server];
            self.is_seen(server) && own.role == Role::Primary && own.log.timeline > newer
        };
        hold(&mut watched.rival, others().any(rival), now);
        hold(&mut watched.disarmed, self.proxy.disarmed_until > now, now);
        self.judge.watched = watched;
    }

    /// Whether a standby hears from the primary, or would tell that it can't be known.
    fn is_hearing(&self, server: usize, primary: usize) -> bool {
        let Some(stream) = self.servers[server].stream.filter(|stream| stream.from == primary)
        else {
            return false;
        };
        (self.heard(server, stream) < 400 || !self.plan.keepalive[server])
            && self.is_seen(server)
            && self.servers[primary].is_awake()
            && self.servers[primary].is_primary()
            && self.net.open(place(primary), place(server))
    }

    /// Whether the primary was made a standby of one that only we can't see.
    fn follows_another(&self, primary: usize) -> bool {
        let own = &self.servers[primary];
        let hidden = |from: usize| {
            let to = &self.servers[from];
            let primary = to.is_primary() || to.promoting;
            to.is_awake() && primary && self.net.way(PROXY, place(from)) == Way::Silent
        };
        !own.is_primary() && own.upstream.is_some_and(hidden)
    }

    fn is_reached(&self, server: usize) -> bool {
        self.servers[server].is_awake() && self.net.open(PROXY, place(server))
    }

    fn is_seen(&self, server: usize) -> bool {
        self.is_reached(server) && self.proxy.full[server] <= self.now
    }

    /// A change is begun: by what was seen of the primary's settings, if that was all there is.
    pub(super) fn watch_begin(&mut self) {
        self.watch_now();
        self.judge.unseen = self.judge.watched.changed;
    }

    /// A failover is begun.
    pub(super) fn judge_claim(&mut self, after: &Record) {
        self.watch_begin();
        let Some(operation) = after.operation() else { return };
        if operation.kind == Kind::Failover && self.surely(self.judge.watched.rival) {
            self.judge.fail("a claim beside another primary".to_owned());
        }
        if operation.by != By::Evidence {
            return;
        }
        if self.plan.policy.mode != Mode::Auto {
            self.judge.fail("a claim without an operator".to_owned());
        }
        if self.judge.watched.disarmed.is_some_and(|since| self.now > since + RECORDED) {
            self.judge.fail("a claim although something is lacking".to_owned());
        }
        self.judge_evidence(after);
        let gap = u64::try_from(self.plan.policy.gap.as_millis()).unwrap();
        if self.judge.last_automatic.is_some_and(|last| self.now < last + gap) {
            self.judge.fail("a second automatic failover within the gap".to_owned());
        }
    }

    fn surely(&self, since: Option<u64>) -> bool {
        since.is_some_and(|since| self.now - since >= SEEN_SURELY)
    }

    /// The primary is lost, as far as that could be seen.
    fn judge_evidence(&mut self, after: &Record) {
        let Some(primary) = self.recorded() else { return };
        let watched = &self.judge.watched;
        let quorum = after.promise.revocation().is_some();
        let hears = watched.hearing.iter().any(|since| self.surely(*since));
        let grace = u64::try_from(self.plan.policy.restart_grace.as_millis()).unwrap();
        let restarts = watched.relapsed.is_some_and(|(server, boot, at)| {
            let own = &self.servers[server];
            // Where nobody is let through, it can't be told from a dead one.
            let told = self.net.open(PROXY, place(server));
            server == primary
                && told
                && own.boot == boot
                && own.life == Life::Booting
                && self.now + LOOKED < at + grace
        });
        let told = self.servers[primary].is_awake() && !self.servers[primary].is_primary();
        let others = (0..self.servers.len()).filter(|server| *server != primary);
        let unseen = others.into_iter().all(|server| !self.is_reached(server));
        self.judge.counts.by_its_own_word += usize::from(told && unseen);
        let follows = self.follows_another(primary);
        let found = if hears && !quorum {
            "a claim although a standby has been hearing from the primary"
        } else if self.surely(watched.present) {
            "a claim although the primary could be seen"
        } else if self.surely(watched.alone) {
            "a claim although nobody could be seen"
        } else if follows {
            "a claim although the primary follows another"
        } else if restarts {
            "a claim although the primary restarts by itself"
        } else {
            return;
        };
        self.judge.fail(found.to_owned());
    }

    /// The primary is about to crash and to restart by itself.
    pub(super) fn watch_relapse(&mut self, server: usize) {
        let well = matches!(self.proxy.seen[server].sight, Sight::Answers(_));
        let primary = self.recorded() == Some(server) && self.is_seen(server);
        if well && primary && self.proxy.up && self.now < QUIET {
            self.judge.watched.relapsed = Some((server, self.servers[server].boot + 1, self.now));
        }
    }
}
