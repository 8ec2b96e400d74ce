//! Whether the primary lives: evidence, not a timeout.
//!
//! A dead one is refused twice and streams to nobody: that needs no time. A hung one is silent,
//! and so is every witness whose link is known to be kept alive. One standby that still hears
//! from it speaks for its life, whatever we can't reach.

use crate::clock::Moment;
use crate::failover::situation::Standing;
use crate::failover::{Missing, Policy, Receiver, ServerView, Sight, Situation};
use crate::topology::ServerId;
use std::fmt;

/// What the evidence says of the recorded primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers as the primary that was recorded.
    Lives,
    /// It answers, and is in recovery.
    Demoted,
    /// Nobody is there, and nobody hears from it.
    Dead,
    /// It crashed and starts up again; nobody hears from it.
    Restarting,
    /// It gives no sign of life to anybody.
    Hung,
    /// We can't reach it, and this standby still hears from it.
    Isolated(ServerId),
    /// Not enough is known yet.
    Unsure,
    /// It, or what answers in its place, holds another log, or it is not configured any more.
    Stranger,
    /// No standby is seen: we may be the ones who are cut off.
    NoWitness,
}

impl Verdict {
    /// Whether it proves that the primary can be replaced.
    pub const fn is_lost(self) -> bool {
        match self {
            Self::Dead | Self::Restarting | Self::Hung | Self::Demoted => true,
            Self::Lives | Self::Isolated(_) | Self::Unsure | Self::Stranger | Self::NoWitness => {
                false
            }
        }
    }
}

/// Judges the recorded primary.
#[must_use]
pub fn verdict(situation: &Situation<'_>, policy: &Policy) -> Verdict {
    let Some(primary) = situation.primary() else { return Verdict::Stranger };
    fate(situation, policy, primary)
}

/// Judges a server that is the primary, or may have become it.
pub(super) fn fate(situation: &Situation<'_>, policy: &Policy, server: &ServerView) -> Verdict {
    let recorded = &situation.record.primary;
    match &server.sight {
        Sight::Awaited => Verdict::Unsure,
        Sight::Answers(answer) if answer.system != recorded.system => Verdict::Stranger,
        Sight::Answers(answer) => match answer.role {
            // It lost the branch that it wrote: somebody restored it from before.
            Standing::Primary { .. } if answer.timeline.is_some_and(|t| t < recorded.timeline) => {
                Verdict::Stranger
            }
            // On a newer branch than the recorded one: others promoted it, and it is followed.
            Standing::Primary { .. } => Verdict::Lives,
            Standing::Standby { .. } => Verdict::Demoted,
        },
        Sight::Missing(missing) => of_missing(situation, policy, server, *missing),
    }
}

fn of_missing(
    situation: &Situation<'_>,
    policy: &Policy,
    primary: &ServerView,
    missing: Missing,
) -> Verdict {
    // What was seen before a pause of ours is no evidence.
    if missing.since < situation.awake_since {
        return Verdict::Unsure;
    }
    let others = situation.servers.iter().filter(|other| other.id != primary.id);
    let witnesses: Vec<Witness> =
        others.filter_map(|other| witness(situation, other, primary, policy)).collect();
    if witnesses.is_empty() {
        return Verdict::NoWitness;
    }
    if let Some(hearing) = witnesses.iter().find(|witness| witness.says == Says::Hears) {
        return Verdict::Isolated(hearing.who);
    }
    // A witness counts once it was asked after the primary was lost.
    let asked_since = |witness: &Witness| witness.asked > missing.since;
    if !witnesses.iter().all(asked_since) {
        return Verdict::Unsure;
    }
    let gone = missing.gone >= ATTEMPTS;
    let cut = witnesses.iter().all(|witness| witness.says == Says::Cut);
    if gone && cut {
        return if missing.restarting { Verdict::Restarting } else { Verdict::Dead };
    }
    let silent = missing.silent.is_some_and(|silent| silent >= policy.silent_after);
    let all_silent = witnesses.iter().all(|w| matches!(w.says, Says::Cut | Says::Silent));
    if silent && all_silent { Verdict::Hung } else { Verdict::Unsure }
}

/// Whether a server that was chosen is gone. Where there is nobody who could follow it, another
/// primary of that system, if one answers, shows that it is not us who are cut off: the old one,
/// or one that somebody promoted because nothing went on.
pub(super) fn is_gone(situation: &Situation<'_>, policy: &Policy, chosen: &ServerView) -> bool {
    match (fate(situation, policy, chosen), &chosen.sight) {
        (Verdict::Dead | Verdict::Hung, _) => true,
        (Verdict::NoWitness, Sight::Missing(missing)) => {
            let system = situation.record.primary.system;
            let answers = situation.servers.iter().any(|other| {
                let ours = other.answer().is_some_and(|answer| answer.system == system);
                let old = other.name == situation.record.primary.server;
                (ours && other.as_primary().is_some()) || (old && other.answer().is_some())
            });
            answers && is_stopped(*missing, policy)
        }
        (
            Verdict::Lives
            | Verdict::Demoted
            | Verdict::Restarting
            | Verdict::Isolated(_)
            | Verdict::Unsure
            | Verdict::Stranger
            | Verdict::NoWitness,
            _,
        ) => false,
    }
}

/// Whether nobody is there, or nothing was heard for long enough. One that starts up is there.
pub(super) fn is_stopped(missing: Missing, policy: &Policy) -> bool {
    let silent = missing.silent.is_some_and(|silent| silent >= policy.silent_after);
    !missing.restarting && (missing.gone >= ATTEMPTS || silent)
}

/// One refusal may be a full queue; two are not.
pub(super) const ATTEMPTS: u32 = 2;

struct Witness {
    who: ServerId,
    asked: Moment,
    says: Says,
}

/// What a standby says of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Nothing comes in: the connection is gone.
    Cut,
    /// The connection stands, and is silent for longer than its keepalive would be.
    Silent,
    /// It heard from it a moment ago.
    Hears,
    /// It can't be told.
    Nothing,
}

/// What a server that answers has to say of the primary, if it is a standby of that system.
fn witness(
    situation: &Situation<'_>,
    other: &ServerView,
    primary: &ServerView,
    policy: &Policy,
) -> Option<Witness> {
    let answer = other.answer()?;
    let Standing::Standby { receiver, .. } = answer.role else { return None };
    if answer.system != situation.record.primary.system {
        return None;
    }
    let says = match receiver {
        // It would hear from nobody, whoever lives.
        Receiver::Idle if situation.is_astray(other) => return None,
        Receiver::Idle => Says::Cut,
        // It follows another standby: it is as alive as that one, which speaks for itself.
        Receiver::Streams { from: Some(from), .. } if from != primary.id => return None,
        Receiver::Streams { heard, .. } if heard <= policy.witness_fresh => Says::Hears,
        Receiver::Streams { .. } if other.keepalive => Says::Silent,
        // Silence on a link that is not known to be kept alive means nothing.
        Receiver::Streams { .. } => Says::Hears,
        Receiver::Hidden => Says::Nothing,
    };
    Some(Witness { who: other.id, asked: answer.at, says })
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Lives => "is well",
            Self::Demoted => "is in recovery",
            Self::Dead => "is dead",
            Self::Restarting => "crashed and restarts",
            Self::Hung => "hangs, or is cut off from everybody",
            Self::Isolated(_) => "can't be reached from here, and a standby still hears from it",
            Self::Unsure => "does not answer, and it is not proved to be lost",
            Self::Stranger => "is not what was recorded",
            Self::NoWitness => "does not answer, and no standby is seen that could tell",
        })
    }
}
