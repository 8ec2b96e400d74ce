//! Servers, as the control plane sees them.

use crate::clock::Moment;
use crate::metrics::catalogue;
use crate::metrics::family::{Builder, ByLabel, ByServer};
use crate::metrics::label::{CheckResult, SeenRole, Use, WalPoint};
use crate::topology::Observation;
use crate::topology::Primary;
use crate::topology::Role;
use crate::topology::Seen;
use crate::topology::Server;
use crate::topology::ServerId;
use crate::topology::Topology;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use std::time::Duration;

/// What is seen of the servers.
#[derive(Debug)]
pub struct Servers {
    up: ByServer<IntGauge>,
    role: ByServer<ByLabel<SeenRole, IntGauge>>,
    usable: ByServer<ByLabel<Use, IntGauge>>,
    timeline: ByServer<Gauge>,
    position: ByServer<ByLabel<WalPoint, Gauge>>,
    lag_bytes: ByServer<Gauge>,
    lag_seconds: ByServer<Gauge>,
    checks: ByServer<ByLabel<CheckResult, IntCounter>>,
    check_time: ByServer<Histogram>,
    samples: ByServer<IntCounter>,
    kicks: ByServer<IntCounter>,
    primaries: IntGauge,
    epoch: IntGauge,
    findings: IntGauge,
}

impl Servers {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        let servers = Self {
            up: build.by_server(&build.int_gauges(&catalogue::SERVER_UP)?)?,
            role: build.by_server_and(&build.int_gauges(&catalogue::SERVER_ROLE)?)?,
            usable: build.by_server_and(&build.int_gauges(&catalogue::SERVER_USABLE)?)?,
            timeline: build.by_server(&build.gauges(&catalogue::SERVER_TIMELINE)?)?,
            position: build.by_server_and(&build.gauges(&catalogue::WAL_POSITION)?)?,
            lag_bytes: build.by_server(&build.gauges(&catalogue::LAG_BYTES)?)?,
            lag_seconds: build.by_server(&build.gauges(&catalogue::LAG_SECONDS)?)?,
            checks: build.by_server_and(&build.int_counters(&catalogue::CHECKS)?)?,
            check_time: build.by_server(&build.histograms(&catalogue::CHECK_TIME)?)?,
            samples: build.by_server(&build.int_counters(&catalogue::SAMPLES)?)?,
            kicks: build.by_server(&build.int_counters(&catalogue::KICKS)?)?,
            primaries: build.int_gauge(&catalogue::PRIMARIES)?,
            epoch: build.int_gauge(&catalogue::EPOCH)?,
            findings: build.int_gauge(&catalogue::FINDINGS)?,
        };
        for (at, _) in build.servers.iter().enumerate() {
            if let Ok(id) = u16::try_from(at) {
                servers.show_server(ServerId(id), None);
                servers.set_role(ServerId(id), SeenRole::Unknown);
            }
        }
        Ok(servers)
    }

    /// A look at a server ended.
    pub(crate) fn checked(&self, server: ServerId, result: CheckResult, took: Duration) {
        if let Some(results) = self.checks.get(server) {
            results.inc(result);
        }
        if let Some(time) = self.check_time.get(server) {
            time.observe(took.as_secs_f64());
        }
    }

    /// A position was asked for on a session's wish.
    pub(crate) fn sampled(&self, server: ServerId) {
        if let Some(samples) = self.samples.get(server) {
            samples.inc();
        }
    }

    /// The primary was made to flush.
    pub(crate) fn kicked(&self, server: ServerId) {
        if let Some(kicks) = self.kicks.get(server) {
            kicks.inc();
        }
    }

    /// Shows what was published; an observation older than `oldest` counts as none.
    pub(crate) fn show(&self, topology: &Topology, oldest: Moment, findings: usize) {
        let claims = topology.servers.iter().filter(|server| {
            server.observation().is_some_and(|seen| {
                seen.role == Role::Primary && topology.system == Some(seen.system)
            })
        });
        self.primaries.set(i64::try_from(claims.count()).unwrap_or(i64::MAX));
        self.epoch.set(i64::try_from(topology.epoch.0).unwrap_or(i64::MAX));
        self.findings.set(i64::try_from(findings).unwrap_or(i64::MAX));
        for server in &topology.servers {
            let seen = server.observation().filter(|seen| seen.sent_at >= oldest);
            self.show_server(server.id, seen);
            self.set_role(server.id, role(seen));
            self.show_use(server, topology, oldest);
        }
    }

    fn show_use(&self, server: &Server, topology: &Topology, oldest: Moment) {
        let Some(usable) = self.usable.get(server.id) else { return };
        let fresh = match &server.seen {
            Seen::Answered(seen) => seen.sent_at >= oldest,
            Seen::Not { .. } => false,
        };
        let writes = match topology.primary {
            Primary::Open { server: open, .. } => open == server.id,
            Primary::None { .. } => false,
        };
        usable.set(Use::Reads, i64::from(fresh && server.reads.is_ok()));
        usable.set(Use::Writes, i64::from(writes));
    }

    fn show_server(&self, server: ServerId, seen: Option<&Observation>) {
        if let Some(up) = self.up.get(server) {
            up.set(i64::from(seen.is_some()));
        }
        let timeline = seen.map(|seen| f64::from(seen.timeline.0)).filter(|known| *known > 0.0);
        set(self.timeline.get(server), timeline);
        let lag = seen.map(|seen| seen.lag).unwrap_or_default();
        set(self.lag_bytes.get(server), lag.bytes.map(float));
        set(self.lag_seconds.get(server), lag.time.map(|time| time.as_secs_f64()));
        let Some(points) = self.position.get(server) else { return };
        let at = |role| seen.filter(|seen| seen.role == role);
        let replay = at(Role::Standby);
        set(points.get(WalPoint::Flush), at(Role::Primary).map(|seen| float(seen.lsn.0)));
        set(points.get(WalPoint::Replay), replay.map(|seen| float(seen.lsn.0)));
        let received = replay.and_then(|seen| seen.received);
        set(points.get(WalPoint::Receive), received.map(|lsn| float(lsn.0)));
    }

    fn set_role(&self, server: ServerId, is: SeenRole) {
        let Some(roles) = self.role.get(server) else { return };
        for role in [SeenRole::Primary, SeenRole::Standby, SeenRole::Unknown] {
            roles.set(role, i64::from(role == is));
        }
    }
}

fn role(seen: Option<&Observation>) -> SeenRole {
    match seen.map(|seen| seen.role) {
        Some(Role::Primary) => SeenRole::Primary,
        Some(Role::Standby) => SeenRole::Standby,
        None => SeenRole::Unknown,
    }
}

/// Unknown is not a number, and never zero.
fn set(gauge: Option<&Gauge>, level: Option<f64>) {
    if let Some(gauge) = gauge {
        gauge.set(level.unwrap_or(f64::NAN));
    }
}

/// Prometheus knows only this kind of number; past 2^53 bytes it loses the last digits.
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "the format has no other")]
const fn float(number: u64) -> f64 {
    number as f64
}
