//! What of a group is run, where that counts more than what it mentions: everybody can prepare what
//! only others have the right to, and what is prepared has reset nothing yet.

use crate::frontend::attached::{Attached, Computed, GoesOn};
use crate::frontend::client::Client;
use crate::frontend::exchange::Erred;
use crate::frontend::reset;
use crate::frontend::state::Session;
use crate::session;
use crate::session::{Before, End, Group, Run};
use crate::sql::{Count, Effects, Facts};
use crate::wire::frame::TxStatus;
use std::sync::Arc;

/// Takes note of what the group says of settings, and of what it runs where that says more than
/// what it mentions.
pub(super) fn note(client: &Client, session: &Session, attached: &mut Attached, group: &Group) {
    reset::note((client, session), attached, group);
    if !attached.counts_runs(&session.mentioned) {
        return;
    }
    let (shard, dialect) = (&client.shard, client.reported.dialect());
    let mut examine = |sql: &[u8]| -> Arc<Facts> { shard.facts.borrow_mut().examine(sql, dialect) };
    let mut before = Before {
        names: &session.names,
        unnamed: session.unnamed.as_ref().map(|unnamed| &unnamed.facts),
        examine: &mut examine,
    };
    let bytes = client.inbox().get(..group.bytes).unwrap_or(&[]);
    // What is no message after all ends the session when it is built.
    if let Ok(runs) = session::runs(bytes, &mut before) {
        attached.note_runs(&runs, group);
    }
}

impl Attached {
    /// Whether it matters which of these are run, and not only prepared.
    fn counts_runs(&self, mentioned: &[Option<Arc<Facts>>]) -> bool {
        let resets = |facts: &Facts| self.computed == Computed::Yes && resets_all(facts);
        let mut known = mentioned.iter().flatten();
        known.any(|facts| !facts.defaults().is_empty() || resets(facts))
    }

    /// Notes what a group is to run, before it is sent.
    fn note_runs(&mut self, runs: &[Run], group: &Group) {
        for facts in runs.iter().flatten() {
            self.defaults.0.extend_from_slice(facts.defaults());
        }
        // What began before it could still be rolled back with it, or in part.
        let stands_alone = matches!(group.end, End::Query | End::Sync)
            && self.status == TxStatus::Idle
            && self.goes_on() == GoesOn::No;
        if let [Some(only)] = runs
            && only.count() == Count::One
            && resets_all(only)
            && stands_alone
            && self.computed == Computed::Yes
        {
            self.computed = Computed::UnlessReset;
        }
    }

    /// What was run is done. What failed has changed nobody's defaults: who may not change them
    /// must not have others' backends closed. What it committed before it failed is seen by who
    /// reads the catalogs.
    pub(super) fn settle_runs(&mut self) {
        self.resets.settle(self.exchange.erred);
        if self.computed == Computed::UnlessReset {
            self.computed = match (self.exchange.erred, self.status) {
                (Erred::No, TxStatus::Idle) => Computed::No,
                (Erred::Yes, _) | (_, TxStatus::Open | TxStatus::Failed) => Computed::Yes,
            };
        }
        let (defaults, done) = &mut self.defaults;
        match self.exchange.erred {
            Erred::No => *done = defaults.len(),
            Erred::Yes => defaults.truncate(*done),
        }
    }
}

/// Whether a statement takes away every setting, under whatever name.
fn resets_all(facts: &Facts) -> bool {
    facts.effects().any(Effects::DISCARD_ALL | Effects::RESET_ALL)
}
