//! Prepared transactions that nobody ends: each is named in the log, once.

use crate::clock::Moment;
use crate::failover::{Prepared, Survey};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::{info, warn};

/// What was found on the primary.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// When this process saw the primary change last.
    since: Option<Moment>,
    now: Arc<[Prepared]>,
}

impl Left {
    /// Another server is the primary from now on.
    pub(super) fn changed(&mut self, now: Moment) {
        self.since = Some(now);
        self.now = Arc::default();
    }

    /// Takes in the last survey of the primary, and tells what is new.
    pub(super) fn look(&mut self, survey: Option<&Survey>) {
        let Some(survey) = survey else { return };
        let left: Arc<[Prepared]> = survey.left_prepared(self.since).into();
        if left == self.now {
            return;
        }
        let known = named(&self.now);
        for prepared in left.iter().filter(|it| !known.contains(&name(it))) {
            let age = prepared.age;
            warn!(event = "prepared_left", gid = %prepared.gid, ?age, "{prepared}");
        }
        if left.is_empty() {
            info!(event = "prepared_ended", "no prepared transaction is left over any more");
        }
        self.now = left;
    }

    /// What is there now.
    pub(super) fn now(&self) -> Arc<[Prepared]> {
        Arc::clone(&self.now)
    }
}

/// A name is given once in all databases of a server, and anew only after its end.
fn name(prepared: &Prepared) -> (&str, &str) {
    (&prepared.gid, &prepared.database)
}

fn named(prepared: &[Prepared]) -> BTreeSet<(&str, &str)> {
    prepared.iter().map(name).collect()
}
