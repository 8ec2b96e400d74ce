//! Backends: how many, and why they come and go.

use crate::metrics::catalogue;
use crate::metrics::family::{Builder, ByLabel, ByServer, by_label};
use crate::metrics::label::{AuditResult, BackendState, ConnectResult, DisconnectReason};
use crate::topology::ServerId;
use prometheus::{Histogram, IntCounter, IntGauge};
use std::time::Duration;

/// What backends do.
#[derive(Debug)]
pub struct Backends {
    states: ByServer<ByLabel<BackendState, IntGauge>>,
    limits: ByServer<IntGauge>,
    connects: ByServer<ByLabel<ConnectResult, IntCounter>>,
    connect_time: ByServer<Histogram>,
    disconnects: ByServer<ByLabel<DisconnectReason, IntCounter>>,
    audits: ByLabel<AuditResult, IntCounter>,
}

/// Counts a backend that is being opened.
#[derive(Debug)]
pub struct Opening(Option<IntGauge>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.iter().for_each(IntGauge::dec);
    }
}

impl Backends {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        let connects = build.int_counters(&catalogue::CONNECTS)?;
        let disconnects = build.int_counters(&catalogue::DISCONNECTS)?;
        Ok(Self {
            states: build.by_server_and(&build.int_gauges(&catalogue::POOL)?)?,
            limits: build.by_server(&build.int_gauges(&catalogue::POOL_LIMIT)?)?,
            connects: build.by_server_and(&connects)?,
            connect_time: build.by_server(&build.histograms(&catalogue::CONNECT_TIME)?)?,
            disconnects: build.by_server_and(&disconnects)?,
            audits: by_label(&build.int_counters(&catalogue::AUDITS)?)?,
        })
    }

    /// Opening a backend ended, and how long it took.
    pub fn connected(&self, server: ServerId, result: ConnectResult, took: Duration) {
        if let Some(results) = self.connects.get(server) {
            results.inc(result);
        }
        if let Some(time) = self.connect_time.get(server) {
            time.observe(took.as_secs_f64());
        }
    }

    /// A backend is being opened, for as long as this lives.
    pub fn opening(&self, server: ServerId) -> Opening {
        let states = self.states.get(server);
        let gauge = states.and_then(|states| states.get(BackendState::Login)).cloned();
        gauge.iter().for_each(IntGauge::inc);
        Opening(gauge)
    }

    /// A backend was closed.
    pub fn disconnected(&self, server: ServerId, reason: DisconnectReason) {
        if let Some(reasons) = self.disconnects.get(server) {
            reasons.inc(reason);
        }
    }

    /// A backend was audited.
    pub fn audited(&self, result: AuditResult) {
        self.audits.inc(result);
    }

    /// How many backends of a server are in a state now.
    pub fn set(&self, server: ServerId, state: BackendState, count: i64) {
        if let Some(states) = self.states.get(server) {
            states.set(state, count);
        }
    }

    /// Most backends of a server's pools.
    pub fn set_limit(&self, server: ServerId, limit: i64) {
        if let Some(gauge) = self.limits.get(server) {
            gauge.set(limit);
        }
    }

    /// How many backends are in a state.
    pub fn count(&self, server: ServerId, state: BackendState) -> i64 {
        let states = self.states.get(server);
        states.and_then(|states| states.get(state)).map_or(0, IntGauge::get)
    }

    /// Most backends of a server's pools.
    pub fn limit(&self, server: ServerId) -> i64 {
        self.limits.get(server).map_or(0, IntGauge::get)
    }
}
