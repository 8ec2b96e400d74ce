//! What a run is made to do wrong, to see that the checks find it: one protection is taken away,
//! around the production decider, and nothing else is changed.

mod stages;

use super::acts::moment;
use pgsteer::failover::{
    Acknowledged, Act, Arming, Choice, Decision, MaxLoss, Mode, Order, Phase, Policy, Promise,
    Receiver, Record, ServerView, Sight, Situation, Standing, Tags, Testimony, decide,
};
use pgsteer::pg::Lsn;
use std::sync::Arc;
use std::time::Duration;

/// One protection that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arm {
    /// None.
    Sound,
    /// A freeze is answered, and not done.
    FreezeSkipped,
    /// One frozen standby is taken for enough.
    RevocationSkipped,
    /// Standbys that hear from the primary are not asked.
    VetoOff,
    /// The first frozen standby is promoted, whatever it holds.
    AnyChosen,
    /// The chosen one is promoted, and it is not recorded.
    ChoiceUnrecorded,
    /// What is not known counts as not acknowledged.
    UnknownIsNone,
    /// The last automatic failover is forgotten.
    GapForgotten,
    /// A fence is answered, and not done.
    FenceSkipped,
    /// An acknowledgement counts whatever epoch it belongs to.
    EpochUnchecked,
    /// A standby that is being freed counts as frozen until it is free.
    FreeingCounts,
    /// A standby that is not to lead may be chosen.
    TagsIgnored,
    /// A new promise is counted on before a commit proved it.
    PromiseUnproved,
    /// Whatever is lost, it is not too much.
    LossAllowed,
    /// Silence counts on links that nobody is known to keep alive.
    KeepaliveAssumed,
    /// Standbys that don't answer are taken for witnesses.
    WitnessAssumed,
    /// What was seen before a pause of its own counts as evidence.
    PauseCounts,
    /// What was under way in a pause of its own is never replaced by what was seen later.
    PauseLasts,
    /// A primary that answers that it can't be looked at is taken for silent.
    LifeIgnored,
    /// One that restarts by itself gets no time for it.
    GraceForgotten,
    /// It acts by itself although something is lacking for that.
    ArmingIgnored,
    /// It acts by itself although it is to wait for an operator.
    ModeIgnored,
    /// A server that another tool promoted is not seen.
    OutsiderIgnored,
    /// It hands over without a fence.
    HandoverUnfenced,
    /// It hands over while others still write.
    ForeignIgnored,
    /// It is called off after somebody was chosen.
    AbortTooLate,
    /// Nobody ever begins a failover.
    NobodyClaims,
    /// Nobody is ever promoted.
    NobodyPromotes,
    /// A standby that was away is not made to follow.
    RepairForgotten,
    /// What was fenced stays so.
    UnfenceForgotten,
    /// A fence is not found again by the next process.
    FenceForgotten,
    /// What was begun on a primary that another tool replaced is not cut off.
    SessionsKept,
    /// Of the old primary it is not seen that another tool promoted it anew.
    AnewForgotten,
    /// A primary in recovery is taken for one to which nobody was preferred.
    FollowedIgnored,
}

impl Arm {
    /// What the checks must say of it.
    pub(super) const fn accident(self) -> &'static str {
        match self {
            Self::Sound => "",
            Self::FreezeSkipped
            | Self::RevocationSkipped
            | Self::AnyChosen
            | Self::PromiseUnproved => "was confirmed by a quorum",
            Self::VetoOff | Self::KeepaliveAssumed => "a claim although a standby has been hearing",
            Self::WitnessAssumed => "a claim although nobody could be seen",
            Self::PauseCounts | Self::LifeIgnored => "a claim although the primary could be seen",
            Self::GraceForgotten => "a claim although the primary restarts by itself",
            Self::FollowedIgnored => "a claim although the primary follows another",
            Self::ArmingIgnored => "a claim although something is lacking",
            Self::ModeIgnored => "a claim without an operator",
            Self::OutsiderIgnored => "a claim beside another primary",
            Self::TagsIgnored => "is chosen and may not lead",
            Self::LossAllowed => "is more than may be lost",
            Self::HandoverUnfenced => "still takes writes",
            Self::ForeignIgnored => "while others still write",
            Self::AbortTooLate => "a change that is not told",
            Self::NobodyClaims => "is not the primary",
            Self::SessionsKept => "nothing is acknowledged",
            Self::NobodyPromotes | Self::AnewForgotten => "the record is in Promoting",
            Self::UnfenceForgotten => "the record is in Draining",
            Self::PauseLasts => "is still not sure",
            Self::FenceForgotten => "the primary is fenced",
            Self::ChoiceUnrecorded => "while None is recorded as chosen",
            Self::UnknownIsNone => "bytes are lost, and None is reported",
            Self::GapForgotten => "a second automatic failover within the gap",
            Self::FenceSkipped | Self::RepairForgotten => "is out of order",
            Self::EpochUnchecked => "acknowledges after epoch",
            Self::FreeingCounts => "are cut off from",
        }
    }

    /// The decision, with that protection taken away.
    pub(super) fn decide(
        self,
        situation: &Situation<'_>,
        policy: &Policy,
        unix_now: u64,
    ) -> Decision {
        let mut seen = situation.clone();
        let (mut record, mut servers) = (seen.record.clone(), seen.servers.to_vec());
        match self {
            Self::RevocationSkipped => one_is_enough(&mut record),
            Self::UnknownIsNone => seen.acknowledged = Acknowledged::UpTo(Lsn(0)),
            Self::GapForgotten => {
                seen.last_automatic = None;
                seen.began = moment(0);
            }
            Self::PromiseUnproved => seen.proved = Some(seen.now),
            Self::PauseCounts => seen.awake_since = moment(0),
            Self::ArmingIgnored => seen.arming = &Arming::Armed,
            _ => self.blind(&mut servers, situation),
        }
        let mut policy = policy.clone();
        match self {
            Self::LossAllowed => policy.max_data_loss = MaxLoss::Any,
            Self::GraceForgotten => policy.restart_grace = Duration::ZERO,
            Self::ModeIgnored => policy.mode = Mode::Auto,
            _ => {}
        }
        let seen = Situation { record: &record, servers: &servers, ..seen };
        self.bend(decide(&seen, &policy, unix_now), situation)
    }

    /// What is seen of the servers, with something left out.
    fn blind(self, servers: &mut [ServerView], situation: &Situation<'_>) {
        let primary = &situation.record.primary;
        let since = situation.primary().and_then(|primary| match primary.sight {
            Sight::Missing(missing) => Some(missing.since),
            Sight::Awaited | Sight::Answers(_) => None,
        });
        for server in servers {
            let other = server.name != primary.server;
            match self {
                Self::VetoOff if since.is_some() => deafen(server),
                Self::TagsIgnored => server.tags = Tags::default(),
                Self::KeepaliveAssumed => server.keepalive = true,
                Self::WitnessAssumed if other => pretend(server, situation),
                Self::OutsiderIgnored if other && server.as_primary().is_some() => {
                    server.sight = Sight::Awaited;
                }
                Self::FollowedIgnored => unfollowed(server, other),
                Self::AnewForgotten if !other => server.history = None,
                Self::LifeIgnored if !other => {
                    if let Sight::Missing(missing) = &mut server.sight {
                        missing.silent = Some(situation.now.since(missing.since));
                    }
                }
                _ => {}
            }
        }
    }

    /// What is decided, with something left out or changed.
    fn bend(self, mut decision: Decision, situation: &Situation<'_>) -> Decision {
        let phase = &situation.record.phase;
        let left_out = |act: &Act| match self {
            Self::NobodyClaims => {
                matches!(act, Act::Write(next) if next.epoch > situation.record.epoch)
            }
            Self::NobodyPromotes => matches!(act, Act::Promote(_)),
            Self::UnfenceForgotten => matches!(act, Act::Unfence(_)),
            Self::RepairForgotten => matches!(act, Act::Repoint { .. }) && *phase == Phase::Stable,
            _ => false,
        };
        decision.acts.retain(|act| !left_out(act));
        let too_late = matches!(phase, Phase::Promoting(..));
        if self == Self::AbortTooLate && too_late && situation.order == Some(&Order::Abort) {
            let back = situation.record.in_phase(Phase::Stable);
            decision.acts = vec![Act::Write(Box::new(back))];
        }
        for act in &mut decision.acts {
            self.bend_act(act, situation);
        }
        decision
    }

    fn bend_act(self, act: &mut Act, situation: &Situation<'_>) {
        let Act::Write(next) = act else { return };
        if self == Self::RevocationSkipped && next.primary == situation.record.primary {
            next.promise = situation.record.promise.clone();
        }
        if situation.record.phase == Phase::Stable || next.epoch != situation.record.epoch {
            return;
        }
        let Phase::Promoting(operation, choice) = &next.phase else { return };
        let first = situation.servers.iter().find(|s| s.frozen.is_some() && s.tags.may_lead());
        let Some((server, frozen)) = first.and_then(|s| Some((s, s.frozen?))) else { return };
        if self == Self::AnyChosen {
            let (at, name) = (frozen.at, Arc::clone(&server.name));
            let choice = Choice { server: name, at, loss: choice.loss };
            next.phase = Phase::Promoting(operation.clone(), choice);
        } else if self == Self::ChoiceUnrecorded {
            *act = Act::Promote(server.id);
        }
    }
}

fn one_is_enough(record: &mut Record) {
    if let (Phase::Revoking(_), Promise::Quorum { w, cohort }) =
        (&record.phase, &mut record.promise)
    {
        *w = u16::try_from(cohort.len()).unwrap();
    }
}

/// This standby does not hear from the primary any more.
fn deafen(server: &mut ServerView) {
    if let Sight::Answers(Testimony { role: Standing::Standby { receiver, .. }, .. }) =
        &mut server.sight
    {
        *receiver = Receiver::Idle;
    }
}

/// Whom a primary in recovery hears from is not seen, nor that one is out of sight.
fn unfollowed(server: &mut ServerView, other: bool) {
    match &mut server.sight {
        Sight::Missing(missing) if other => missing.gone = 9,
        _ if !other => deafen(server),
        _ => {}
    }
}

/// A server that does not answer is taken for one that does, and hears from nobody.
fn pretend(server: &mut ServerView, seen: &Situation<'_>) {
    if !matches!(server.sight, Sight::Missing(_)) {
        return;
    }
    let (nothing, receiver) = (Lsn(0), Receiver::Idle);
    server.sight = Sight::Answers(Testimony {
        at: seen.now,
        system: seen.record.primary.system,
        timeline: Some(seen.record.primary.timeline),
        role: Standing::Standby { received: nothing, replayed: nothing, receiver },
    });
}
