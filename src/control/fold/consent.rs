//! An operator's word on a server that was promoted beside a primary that went on.

use crate::clock::Moment;
use crate::control::finding::{Finding, Refusal};
use crate::control::fold::{Fold, Watched};
use crate::topology::ServerId;

impl Fold {
    /// Whether nothing keeps this server from being adopted but that the primary, which is gone,
    /// had gone on beside it.
    pub(crate) fn lacks_consent(&self, server: ServerId) -> bool {
        let findings = self.verdict.iter().flat_map(|verdict| &verdict.findings);
        findings.into_iter().any(|finding| match finding {
            Finding::Rogue { server: rogue, refusal, .. } => {
                *rogue == server && *refusal == Refusal::WentOnBeside
            }
            Finding::OtherSystem { .. }
            | Finding::Returned { .. }
            | Finding::Disputed { .. }
            | Finding::LeftBehind { .. }
            | Finding::Unheld { .. } => false,
        })
    }

    /// The recorded primary, if it is to be found out whether it goes on beside another one, and
    /// since when.
    pub(crate) fn unsettled(&self) -> Option<(ServerId, Moment)> {
        self.recorded().zip(self.rogues.unsettled_since())
    }

    /// The recorded primary was done with something at this moment.
    pub(crate) fn went_on(&mut self, at: Moment) {
        self.rogues.went_on(at);
    }

    /// An operator takes this server as it is.
    pub(crate) fn consent(&mut self, server: ServerId, now: Moment) {
        let history = self.servers.get(server.index()).and_then(Watched::history);
        self.rogues.pardon(server, history.as_ref());
        self.reconsider(now);
    }
}
