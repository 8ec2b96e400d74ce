//! The sessions that keep their backend although they are between two transactions, and whose
//! application it is: for metrics by the reason alone, for `status` one by one.
//!
//! A pool is used up by few of them, and whoever looks for the reason needs a name. They are few,
//! there is one at most for each backend, and a session comes here only when its reasons change.

use crate::clock::Moment;
use crate::metrics::catalogue;
use crate::metrics::family::{Builder, ByLabel, by_label};
use crate::session::{Pin, Pins};
use crate::topology::ServerId;
use prometheus::IntGauge;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// All of them.
#[derive(Debug, Clone)]
pub struct PinnedSessions {
    by_reason: ByLabel<Pin, IntGauge>,
    /// In the order in which they came. Guards the list; held to change one, or to copy some.
    list: Arc<Mutex<BTreeMap<u64, PinnedSession>>>,
}

/// A session that keeps its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedSession {
    /// What its client called itself when it began.
    pub application: Box<str>,
    /// Who.
    pub user: Arc<str>,
    /// In which database.
    pub database: Arc<str>,
    /// On which server.
    pub server: ServerId,
    /// The server's process.
    pub pid: i32,
    /// Why.
    pub pins: Pins,
    /// Since when.
    pub since: Moment,
}

/// One of them, for as long as this lives.
#[derive(Debug)]
pub struct Pinned {
    all: PinnedSessions,
    number: u64,
    pins: Pins,
}

impl PinnedSessions {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        let by_reason = by_label(&build.int_gauges(&catalogue::PINNED)?)?;
        Ok(Self { by_reason, list: Arc::default() })
    }

    /// One more.
    pub fn add(&self, session: PinnedSession) -> Pinned {
        let pins = session.pins;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let number = list.last_key_value().map_or(0, |(last, _)| last + 1);
        list.insert(number, session);
        drop(list);
        self.shift(pins, 1);
        Pinned { all: self.clone(), number, pins }
    }

    /// How many there are, and the first `most` of them, the oldest first.
    pub fn oldest(&self, most: usize) -> (usize, Vec<PinnedSession>) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        (list.len(), list.values().take(most).cloned().collect())
    }

    fn shift(&self, pins: Pins, by: i64) {
        for gauge in pins.each().filter_map(|pin| self.by_reason.get(pin)) {
            gauge.add(by);
        }
    }
}

impl Pinned {
    /// It stays for these reasons now.
    pub fn turn(&mut self, pins: Pins) {
        if pins == self.pins {
            return;
        }
        self.all.shift(self.pins, -1);
        self.all.shift(pins, 1);
        self.pins = pins;
        let mut list = self.all.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = list.get_mut(&self.number) {
            session.pins = pins;
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.all.shift(self.pins, -1);
        let mut list = self.all.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.remove(&self.number);
    }
}
