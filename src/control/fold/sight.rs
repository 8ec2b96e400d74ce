//! What is remembered of a server, as failover sees it.

use super::{Answer, Fold, Watched};
use crate::control::evidence::{Sighting, Testimony};
use crate::failover;
use crate::failover::{Missing, Receiver, ServerView, Sight, Tags};
use crate::topology::{Role, ServerId, Unseen};
use std::sync::Arc;
use std::time::Duration;

impl Fold {
    /// One server, as failover sees it; what our own acts did to it is not known here.
    pub(crate) fn view(&self, id: ServerId) -> Option<ServerView> {
        let server = self.servers.get(id.index())?;
        Some(ServerView {
            id,
            name: Arc::clone(&server.spec.name),
            sight: server.sight(),
            history: server.history(),
            frozen: None,
            fenced: None,
            tags: Tags::default(),
            keepalive: false,
        })
    }
}

impl Watched {
    /// The last look, as failover sees it.
    fn sight(&self) -> Sight {
        match &self.sighting {
            Sighting::Awaited => Sight::Awaited,
            Sighting::Missing(absence) => Sight::Missing(Missing {
                since: absence.counts_from,
                gone: absence.gone_attempts(),
                restarting: absence.why == Unseen::NotReady,
                silent: absence.silent_for(),
            }),
            Sighting::Seen(seen) => {
                let Some(answer) = &self.answer else { return Sight::Awaited };
                Sight::Answers(failover::Testimony {
                    at: seen.at,
                    system: seen.system,
                    timeline: answer.look.timeline,
                    role: self.stands(answer, seen),
                })
            }
        }
    }

    fn stands(&self, answer: &Answer, seen: &Testimony) -> failover::Standing {
        let look = &answer.look;
        match look.role {
            Role::Primary => {
                let newest = self.primary_at.map_or(look.lsn, |at| at.flush.max(look.lsn));
                failover::Standing::Primary { flushed: newest }
            }
            Role::Standby => {
                let sampled = self.sample.map_or(look.lsn, |sample| sample.position.lsn);
                let replayed = look.lsn.max(sampled);
                failover::Standing::Standby {
                    received: look.received.unwrap_or_default().max(replayed),
                    replayed,
                    receiver: match look.streaming {
                        None => Receiver::Hidden,
                        Some(false) => Receiver::Idle,
                        Some(true) => {
                            let heard = look.heard.unwrap_or(Duration::ZERO);
                            Receiver::Streams { from: seen.upstream, heard }
                        }
                    },
                }
            }
        }
    }
}
