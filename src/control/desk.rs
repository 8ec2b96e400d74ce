//! Where all reports come in: folds them, publishes the topology, says what changed.
//!
//! One lock around the whole state, held for microseconds and never over a wait: reports come
//! from one task a server, and each must be published in the order in which it was folded.

use crate::board::Board;
use crate::clock;
use crate::control::Policy;
use crate::control::finding::Finding;
use crate::control::fold::{Fold, Report};
use crate::metrics::Metrics;
use crate::sql::Catalog;
use crate::topology::Primary;
use crate::topology::Seen;
use crate::topology::Server;
use crate::topology::ServerId;
use crate::topology::Topology;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{error, info, warn};

/// The one place that builds and publishes the topology.
pub(crate) struct Desk {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    /// The whole memory of the control plane.
    state: Mutex<State>,
    names: Vec<Arc<str>>,
}

struct State {
    fold: Fold,
    findings: BTreeSet<Finding>,
}

impl Desk {
    /// Publishes what `fold` knows: nothing yet.
    pub(crate) fn new(fold: Fold, board: Arc<Board>, metrics: Arc<Metrics>) -> Self {
        let first = fold.topology(clock::now());
        let names = first.servers.iter().map(|server| Arc::clone(&server.name)).collect();
        board.publish(Arc::new(first));
        let state = Mutex::new(State { fold, findings: BTreeSet::new() });
        Self { board, metrics, state, names }
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

    /// The operator changed the limits or the weights.
    pub(crate) fn adjust(&self, policy: &Policy, weights: &[u32]) {
        self.change(|fold| fold.adjust(policy.clone(), weights, clock::now()));
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
        self.tell_findings(&old, &findings);
        tell_changes(&before, &next);
    }

    /// Each finding is logged when it appears and when it is gone.
    fn tell_findings(&self, old: &BTreeSet<Finding>, new: &BTreeSet<Finding>) {
        for finding in new.difference(old) {
            let text = finding.text(&self.names);
            match finding {
                Finding::OtherSystem { .. } | Finding::Disputed { .. } => {
                    error!(event = "finding", "{text}");
                }
                Finding::Rogue { .. } if finding.is_passing() => {
                    info!(event = "finding", "{text}");
                }
                Finding::Rogue { .. } | Finding::Returned { .. } | Finding::LeftBehind { .. } => {
                    warn!(event = "finding", "{text}");
                }
            }
        }
        for finding in old.difference(new) {
            info!(event = "finding_gone", "no longer: {}", finding.text(&self.names));
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Desk").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Logs who the primary is, who answers, and who serves reads, whenever that changes.
fn tell_changes(old: &Topology, new: &Topology) {
    let name = |id| new.server(id).map_or("?", |server| &*server.name);
    if old.epoch != new.epoch
        || std::mem::discriminant(&old.primary) != std::mem::discriminant(&new.primary)
    {
        match new.primary {
            Primary::Open { server, timeline } => {
                let adopted = old.epoch != new.epoch;
                let event = if adopted { "primary_adopted" } else { "primary_back" };
                info!(event, server = name(server), %timeline, epoch = %new.epoch, "primary");
            }
            Primary::None { last, why } => {
                let server = last.map_or("-", name);
                warn!(event = "primary_lost", server, why = why.as_str(), "no primary");
            }
        }
    }
    for (before, after) in old.servers.iter().zip(&new.servers) {
        tell_server(before, after);
    }
}

fn tell_server(before: &Server, after: &Server) {
    let server = &*after.name;
    match (&before.seen, &after.seen) {
        (Seen::Answered(_), Seen::Not { why, .. }) => {
            warn!(event = "server_unseen", server, why = why.as_str(), "server does not answer");
        }
        (Seen::Not { why: was, .. }, Seen::Not { why, .. }) if was != why => {
            info!(event = "server_unseen", server, why = why.as_str(), "server does not answer");
        }
        (Seen::Not { .. }, Seen::Answered(seen)) => {
            let (role, timeline) = (seen.role.as_str(), seen.timeline);
            info!(event = "server_seen", server, role, %timeline, version = %seen.version, "server answers");
        }
        (Seen::Answered(_), Seen::Answered(_)) | (Seen::Not { .. }, Seen::Not { .. }) => {}
    }
    match (before.reads, after.reads) {
        (Err(_), Ok(())) => info!(event = "reads_on", server, "serves reads"),
        (Ok(()), Err(why)) => {
            warn!(event = "reads_off", server, why = why.as_str(), "serves no reads");
        }
        (Err(_), Err(_)) | (Ok(()), Ok(())) => {}
    }
}
