//! What a run is made to do wrong, to see that the checks find it: one protection is taken away,
//! around the production decider, and nothing else is changed.

use super::acts::moment;
use super::net::Way;
use super::plan::{Fault, PhaseName, Plan, When, Whom};
use pgsteer::failover::{
    Acknowledged, Act, Choice, Decision, MaxLoss, Order, Phase, Policy, Promise, Receiver, Record,
    ServerView, Sight, Situation, Standing, Testimony, decide,
};
use pgsteer::pg::Lsn;
use std::sync::Arc;

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
}

impl Arm {
    /// A run in which that protection is needed.
    pub(super) fn stage(self, seed: u64) -> Plan {
        let mut plan = Plan::plain(seed);
        let at = When::At;
        let (primary, near, far) = (Whom::Primary, Whom::Other(0), Whom::Other(1));
        let unseen = |whom| Fault::CutOff(whom, Way::Silent, 4_500);
        let faults = match self {
            // Clients that go past us still reach the primary, and its standbys still confirm.
            Self::FreezeSkipped => {
                let gone = Fault::CutOff(far, Way::Silent, 3_000);
                vec![(at(1_500), unseen(primary)), (When::In(PhaseName::Promoting, 0), gone)]
            }
            Self::RevocationSkipped => vec![(at(1_500), unseen(primary)), (at(1_500), unseen(far))],
            Self::VetoOff => {
                plan.quorum = None;
                vec![(at(3_500), Fault::CutOff(primary, Way::Refused, 3_000))]
            }
            Self::AnyChosen => {
                vec![
                    (at(1_400), Fault::CutStream(near, 3_000)),
                    (at(1_500), Fault::Crash(primary, None)),
                ]
            }
            Self::ChoiceUnrecorded => vec![(at(1_500), Fault::Crash(primary, None))],
            Self::Sound | Self::UnknownIsNone => {
                plan.quorum = None;
                vec![
                    (at(1_400), Fault::CutStream(near, 3_000)),
                    (at(1_400), Fault::CutStream(far, 3_000)),
                    (at(1_500), Fault::Crash(primary, None)),
                ]
            }
            Self::GapForgotten => {
                vec![
                    (at(1_500), Fault::Crash(primary, Some(500))),
                    (at(3_500), Fault::Crash(primary, None)),
                ]
            }
            Self::FenceSkipped => vec![(at(1_500), Fault::Crash(primary, Some(500)))],
            Self::EpochUnchecked => {
                plan.quorum = None;
                plan.policy.max_data_loss = MaxLoss::Any;
                vec![(at(1_500), Fault::Stop(primary, 3_000))]
            }
            Self::FreeingCounts => {
                let abort =
                    |delay| (When::In(PhaseName::Revoking, delay), Fault::Give(Order::Abort));
                let mut faults: Vec<_> = (0..20).map(|times| abort(30 + times * 3)).collect();
                plan.servers = 4;
                faults.push((at(1_500), Fault::Crash(primary, None)));
                faults
            }
        };
        plan.faults = faults;
        plan
    }

    /// What the checks must say of it.
    pub(super) const fn accident(self) -> &'static str {
        match self {
            Self::Sound => "",
            Self::FreezeSkipped | Self::RevocationSkipped | Self::AnyChosen => {
                "was confirmed by a quorum"
            }
            Self::VetoOff => "a claim although a standby has been hearing",
            Self::ChoiceUnrecorded => "while None is recorded as chosen",
            Self::UnknownIsNone => "bytes are lost, and None is reported",
            Self::GapForgotten => "a second automatic failover within the gap",
            Self::FenceSkipped => "is out of order",
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
            Self::VetoOff => deafen(&mut servers, &record),
            Self::UnknownIsNone => seen.acknowledged = Acknowledged::UpTo(Lsn(0)),
            Self::GapForgotten => {
                seen.last_automatic = None;
                seen.phase_since = moment(0);
            }
            Self::Sound
            | Self::FreezeSkipped
            | Self::AnyChosen
            | Self::ChoiceUnrecorded
            | Self::FenceSkipped
            | Self::EpochUnchecked
            | Self::FreeingCounts => {}
        }
        let decision =
            decide(&Situation { record: &record, servers: &servers, ..seen }, policy, unix_now);
        self.bend(decision, situation)
    }

    fn bend(self, mut decision: Decision, situation: &Situation<'_>) -> Decision {
        for act in &mut decision.acts {
            let Act::Write(next) = act else { continue };
            if self == Self::RevocationSkipped && next.primary == situation.record.primary {
                next.promise = situation.record.promise.clone();
            }
            if situation.record.phase == Phase::Stable || next.epoch != situation.record.epoch {
                continue;
            }
            let Phase::Promoting(operation, choice) = &next.phase else { continue };
            let first = situation.servers.iter().find(|s| s.frozen.is_some() && s.tags.may_lead());
            let Some((server, frozen)) = first.and_then(|s| Some((s, s.frozen?))) else { continue };
            if self == Self::AnyChosen {
                let (at, name) = (frozen.at, Arc::clone(&server.name));
                let choice = Choice { server: name, at, loss: choice.loss };
                next.phase = Phase::Promoting(operation.clone(), choice);
            } else if self == Self::ChoiceUnrecorded {
                *act = Act::Promote(server.id);
            }
        }
        decision
    }
}

fn one_is_enough(record: &mut Record) {
    if let (Phase::Revoking(_), Promise::Quorum { w, cohort }) =
        (&record.phase, &mut record.promise)
    {
        *w = u16::try_from(cohort.len()).unwrap();
    }
}

/// No standby hears from the primary any more.
fn deafen(servers: &mut [ServerView], record: &Record) {
    let lost = servers
        .iter()
        .any(|s| s.name == record.primary.server && matches!(s.sight, Sight::Missing(_)));
    for server in servers.iter_mut().filter(|_| lost) {
        if let Sight::Answers(Testimony { role: Standing::Standby { receiver, .. }, .. }) =
            &mut server.sight
        {
            *receiver = Receiver::Idle;
        }
    }
}
