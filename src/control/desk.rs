//! Where all reports come in: folds them, publishes the topology, says what changed.
//!
//! One lock around the whole state, held for microseconds and never over a wait: reports come
//! from one task a server, and each must be published in the order in which it was folded.

use crate::board::Board;
use crate::clock;
use crate::clock::Moment;
use crate::control::Policy;
use crate::control::finding::Finding;
use crate::control::fold::{Appointment, Book, Fold, Report, Vacancy};
use crate::control::footing::Quorum;
use crate::control::tell::{tell_changes, tell_findings};
use crate::metrics::Metrics;
use crate::sql::Catalog;
use crate::topology::ServerId;
use crate::topology::Topology;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The one place that builds and publishes the topology.
pub(crate) struct Desk {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    /// The whole memory of the control plane.
    state: Mutex<State>,
    names: Vec<Arc<str>>,
    /// Rung when a server is to be looked at at once.
    looks: Vec<Notify>,
}

struct State {
    fold: Fold,
    findings: BTreeSet<Finding>,
}

impl Desk {
    /// Publishes what `fold` knows: nothing yet.
    pub(crate) fn new(fold: Fold, board: Arc<Board>, metrics: Arc<Metrics>) -> Self {
        let first = fold.topology(clock::now());
        let names: Vec<_> = first.servers.iter().map(|server| Arc::clone(&server.name)).collect();
        board.publish(Arc::new(first));
        let state = Mutex::new(State { fold, findings: BTreeSet::new() });
        let looks = names.iter().map(|_| Notify::new()).collect();
        Self { board, metrics, state, names, looks }
    }

    /// What a server's task has to report.
    pub(crate) fn report(&self, from: ServerId, report: Report) {
        self.change(|fold| fold.take(from, report, clock::now()));
    }

    /// Time went by.
    pub(crate) fn tick(&self) {
        self.change(|fold| fold.reconsider(clock::now()));
    }

    /// A database's catalog was read, or is not known any more.
    pub(crate) fn catalog(&self, database: &Arc<str>, catalog: Option<Arc<Catalog>>) {
        self.change(|fold| fold.set_catalog(database, catalog));
    }

    /// Somebody wants a database for himself, or no more.
    pub(crate) fn vacate(&self, database: &Arc<str>, vacancy: Vacancy) {
        self.change(|fold| fold.vacate(database, vacancy));
    }

    /// Roles begin with other settings in a database than until then.
    pub(crate) fn renew(&self, database: &Arc<str>, roles: Vec<Box<str>>, at: Moment) {
        self.change(|fold| fold.renew(database, roles, at));
    }

    /// The operator changed the limits or the weights.
    pub(crate) fn adjust(&self, policy: &Policy, weights: &[u32]) {
        self.change(|fold| fold.adjust(policy.clone(), weights, clock::now()));
    }

    /// Our own failover recorded something.
    pub(crate) fn appoint(&self, appointment: Appointment) {
        self.change(|fold| fold.appoint(appointment, clock::now()));
    }

    /// A record of who is the primary is kept, or is not.
    pub(crate) fn keep(&self, book: Book) {
        self.change(|fold| fold.keep(book, clock::now()));
    }

    /// The primary was done with a statement of ours at this moment. That changes nothing that is
    /// published; what hangs on it is decided with the next report.
    pub(crate) fn went_on(&self, at: Moment) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).fold.went_on(at);
    }

    /// An operator takes a server as the primary that was promoted beside another.
    pub(crate) fn consent(&self, server: ServerId) {
        self.change(|fold| fold.consent(server, clock::now()));
    }

    /// Others confirm the primary's commits than before, or fewer.
    pub(crate) fn pledge(&self, quorum: Option<Quorum>) {
        self.change(|fold| fold.pledge(quorum, clock::now()));
    }

    /// We were not awake for so long: what was seen until now proves nobody's absence.
    pub(crate) fn void_evidence(&self, asleep: Duration) {
        self.change(|fold| fold.void_evidence(clock::now(), asleep));
    }

    /// Wakes whenever something new was published.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.board.subscribe()
    }

    /// Has a server looked at now.
    pub(crate) fn look_at(&self, server: ServerId) {
        if let Some(look) = self.looks.get(server.index()) {
            look.notify_one();
        }
    }

    /// Waits until a server is to be looked at at once.
    pub(crate) async fn look_wanted(&self, server: ServerId) {
        match self.looks.get(server.index()) {
            Some(look) => look.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Reads what is remembered.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Fold) -> T) -> T {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        read(&state.fold)
    }

    /// What is published now.
    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.board.load()
    }

    /// The name of a server.
    pub(crate) fn name(&self, server: ServerId) -> &str {
        self.names.get(server.index()).map_or("?", |name| name)
    }

    fn change(&self, change: impl FnOnce(&mut Fold)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.fold);
        let now = clock::now();
        let next = Arc::new(state.fold.topology(now));
        let oldest = now - state.fold.policy().observation_age_max;
        let findings = state.fold.findings();
        let before = self.board.load();
        self.board.publish(Arc::clone(&next));
        let old = std::mem::replace(&mut state.findings, findings.clone());
        drop(state);
        self.metrics.servers.show(&next, oldest, findings.len());
        tell_findings(&old, &findings, &self.names);
        tell_changes(&before, &next);
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Desk").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Build;

    /// Whoever says it sees what is published, and says it again: it would go round and round, and
    /// wake every shard each time.
    #[test]
    fn that_the_primary_went_on_is_noted_and_wakes_nobody() {
        let board = Arc::new(Board::new(Topology::unseen(Box::new([]))));
        let metrics = Arc::new(Metrics::new(&[], Build::default()).unwrap());
        let desk = Desk::new(Fold::new(Policy::default(), Vec::new()), board, metrics);
        let published = desk.subscribe();
        desk.went_on(clock::now());
        assert!(!published.has_changed().unwrap());
        desk.tick();
        assert!(published.has_changed().unwrap(), "what hangs on it is decided then");
    }
}
