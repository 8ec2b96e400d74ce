//! What is remembered of a server, as failover sees it.

use super::{Answer, Fold, Watched};
use crate::clock::Moment;
use crate::control::evidence::{Sighting, Testimony};
use crate::failover;
use crate::failover::{Missing, Receiver, ServerView, Sight, Tags};
use crate::topology::{Primary, PrimarySample, Role, ServerId, Unseen};
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
            last: None,
            history: server.history(),
            frozen: None,
            stuck: None,
            failed: None,
            catching: None,
            fenced: None,
            tags: Tags::default(),
            keepalive: false,
        })
    }

    /// The newest position of the primary in this epoch.
    pub(crate) fn newest_sample(&self) -> Option<PrimarySample> {
        self.samples.newest()
    }

    /// When the primary was asked what it answered last, if it answers.
    pub(super) fn asked(&self, primary: Primary) -> Option<Moment> {
        let Primary::Open { server, .. } = primary else { return None };
        match &self.servers.get(server.index())?.sighting {
            Sighting::Seen(seen) => Some(seen.at),
            Sighting::Awaited | Sighting::Missing(_) => None,
        }
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
                            let written = look.written;
                            Receiver::Streams { from: seen.upstream, heard, written }
                        }
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Policy;
    use crate::control::evidence::Attempt;
    use crate::control::fold::{Report, Spec};

    const A: ServerId = ServerId(0);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn missing(fold: &Fold) -> Missing {
        match fold.view(A).unwrap().sight {
            Sight::Missing(missing) => missing,
            Sight::Awaited | Sight::Answers(_) => panic!("it does not answer"),
        }
    }

    /// A look that was under way while we stood still is no evidence, and is no reason either to
    /// take none from those that follow.
    #[test]
    fn a_server_that_is_lost_while_we_sleep_is_missing_from_when_we_wake() {
        let name: Arc<str> = Arc::from("a");
        let reached = (Arc::clone(&name), 5432);
        let spec = Spec { host: Arc::clone(&name), name, port: 5432, reached, weight: 1 };
        for asleep in [300, 20_000] {
            let mut fold = Fold::new(Policy::default(), vec![spec.clone()]);
            let awake = 1_000 + asleep;
            let fail = |fold: &mut Fold, began, ended| {
                let why = Unseen::Refused;
                let attempt = Attempt { began: at(began), ended: at(ended), why };
                fold.take(A, Report::Failed(attempt), at(ended));
            };
            fold.void_evidence(at(awake), Duration::from_millis(asleep));
            fail(&mut fold, 990, awake + 10);
            let seen = missing(&fold);
            assert_eq!((seen.since, seen.gone, seen.silent), (at(awake), 0, None), "{asleep}");
            fail(&mut fold, awake + 20, awake + 30);
            fail(&mut fold, awake + 40, awake + 50);
            let seen = missing(&fold);
            let silent = Some(Duration::from_millis(30));
            assert_eq!((seen.since, seen.gone, seen.silent), (at(awake), 2, silent), "{asleep}");
        }
    }
}
