//! For each protection a run in which it is needed.

use super::Arm;
use crate::simulation::net::Way;
use crate::simulation::plan::{Direct, Fault, PhaseName, Plan, When, Whom};
use pgsteer::failover::{Demotion, MaxLoss, Mode, Order, Tags};
use std::time::Duration;

const PRIMARY: Whom = Whom::Primary;
const NEAR: Whom = Whom::Other(0);
const FAR: Whom = Whom::Other(1);

impl Arm {
    /// A run in which that protection is needed.
    pub(in crate::simulation) fn stage(self, seed: u64) -> Plan {
        let mut plan = Plan::plain(seed);
        match self {
            Self::Sound
            | Self::UnknownIsNone
            | Self::FreezeSkipped
            | Self::RevocationSkipped
            | Self::AnyChosen
            | Self::TagsIgnored
            | Self::PromiseUnproved
            | Self::LossAllowed => self.of_loss(&mut plan),
            Self::VetoOff
            | Self::KeepaliveAssumed
            | Self::WitnessAssumed
            | Self::PauseCounts
            | Self::PauseLasts
            | Self::LifeIgnored
            | Self::GraceForgotten
            | Self::GapForgotten
            | Self::ArmingIgnored
            | Self::ModeIgnored
            | Self::FollowedIgnored
            | Self::OutsiderIgnored => self.of_evidence(&mut plan),
            Self::ChoiceUnrecorded
            | Self::FenceSkipped
            | Self::EpochUnchecked
            | Self::FreeingCounts
            | Self::HandoverUnfenced
            | Self::ForeignIgnored
            | Self::AbortTooLate => self.of_steps(&mut plan),
            Self::NobodyClaims
            | Self::NobodyPromotes
            | Self::RepairForgotten
            | Self::UnfenceForgotten
            | Self::FenceForgotten
            | Self::SessionsKept
            | Self::AnewForgotten => self.of_progress(&mut plan),
        }
        plan
    }

    /// What was acknowledged is at stake.
    fn of_loss(self, plan: &mut Plan) {
        let lost = (When::At(1_500), Fault::Crash(PRIMARY, None));
        let unseen = |whom| (When::At(1_500), Fault::CutOff(whom, Way::Silent, 4_500));
        let lags = |whom| (When::At(1_400), Fault::CutStream(whom, 3_000));
        plan.faults = match self {
            // Clients that go past us still reach the primary, and its standbys still confirm.
            Self::FreezeSkipped => {
                let gone = Fault::CutOff(FAR, Way::Silent, 3_000);
                vec![unseen(PRIMARY), (When::In(PhaseName::Promoting, 0), gone)]
            }
            Self::RevocationSkipped => vec![unseen(PRIMARY), unseen(FAR)],
            Self::AnyChosen => vec![lags(NEAR), lost],
            Self::TagsIgnored => {
                plan.tags[1] = Tags { priority: 0, ..Tags::default() };
                vec![lost]
            }
            // What one standby confirmed alone is not confirmed by all from a new setting on.
            Self::PromiseUnproved => {
                plan.servers = 4;
                let cut = |whom| (When::At(1_200), Fault::CutStream(whom, 4_500));
                let gone = Fault::CutOff(NEAR, Way::Silent, 3_000);
                vec![
                    cut(FAR),
                    cut(Whom::Other(2)),
                    (When::At(1_500), Fault::Requorum(3)),
                    (When::At(3_700), gone),
                    (When::At(3_700), Fault::Crash(PRIMARY, None)),
                ]
            }
            _ => {
                plan.quorum = None;
                vec![lags(NEAR), lags(FAR), lost]
            }
        };
    }

    /// Whether to act at all is the question.
    fn of_evidence(self, plan: &mut Plan) {
        let at = When::At;
        let crash = |back| (at(1_500), Fault::Crash(PRIMARY, back));
        let cut = |whom, long| (at(1_500), Fault::CutOff(whom, Way::Silent, long));
        plan.faults = match self {
            Self::KeepaliveAssumed => {
                plan.quorum = None;
                plan.direct = Direct::Nobody;
                plan.keepalive.fill(false);
                vec![cut(PRIMARY, 4_000)]
            }
            Self::WitnessAssumed => {
                let later = Fault::CutOff(PRIMARY, Way::Silent, 3_000);
                vec![cut(NEAR, 5_000), cut(FAR, 5_000), (at(3_500), later)]
            }
            // While it sleeps, all is well again.
            Self::PauseCounts => vec![
                cut(PRIMARY, 1_400),
                (at(1_500), Fault::CutStream(NEAR, 1_400)),
                (at(1_500), Fault::CutStream(FAR, 1_400)),
                (at(2_450), Fault::ProxyPause(3_000)),
            ],
            // It is lost while it sleeps, and a look was under way.
            Self::PauseLasts => vec![
                (at(1_400), Fault::CutForth(PRIMARY, 500)),
                (at(1_500), Fault::ProxyPause(2_000)),
                (at(1_700), Fault::Crash(PRIMARY, None)),
            ],
            Self::LifeIgnored => vec![(at(1_500), Fault::Full(PRIMARY, 4_000))],
            Self::GraceForgotten => vec![(at(1_500), Fault::Relapse(PRIMARY, 900))],
            Self::GapForgotten => {
                vec![crash(Some(500)), (at(3_500), Fault::Crash(PRIMARY, None))]
            }
            Self::ArmingIgnored => vec![(at(1_200), Fault::Disarm(3_000)), crash(Some(2_000))],
            Self::ModeIgnored => {
                plan.policy.mode = Mode::Manual;
                vec![crash(Some(2_000))]
            }
            // Another tool hands over to one that only we can't see.
            Self::FollowedIgnored => {
                plan.direct = Direct::Nobody;
                vec![cut(NEAR, 4_500), (at(2_500), Fault::HandOutside(NEAR))]
            }
            Self::OutsiderIgnored => vec![
                (at(1_500), Fault::PromoteOutside(NEAR)),
                (at(4_500), Fault::Crash(PRIMARY, None)),
            ],
            _ => {
                plan.quorum = None;
                vec![(at(3_500), Fault::CutOff(PRIMARY, Way::Refused, 3_000))]
            }
        };
    }

    /// It is under way, and a step of it is at stake.
    fn of_steps(self, plan: &mut Plan) {
        let crash = |back| (When::At(1_500), Fault::Crash(PRIMARY, back));
        plan.faults = match self {
            Self::FenceSkipped => vec![crash(Some(500))],
            Self::EpochUnchecked => {
                plan.quorum = None;
                plan.policy.max_data_loss = MaxLoss::Any;
                vec![(When::At(1_500), Fault::Stop(PRIMARY, 3_000))]
            }
            Self::FreeingCounts => {
                let abort =
                    |delay| (When::In(PhaseName::Revoking, delay), Fault::Give(Order::Abort));
                let mut faults: Vec<_> = (0..20).map(|times| abort(30 + times * 3)).collect();
                plan.servers = 4;
                faults.push(crash(None));
                faults
            }
            Self::HandoverUnfenced => {
                plan.policy.demotion = Demotion::Fence;
                vec![handover()]
            }
            Self::ForeignIgnored => {
                plan.direct = Direct::Stubborn;
                plan.policy.demotion = Demotion::Fence;
                vec![handover()]
            }
            Self::AbortTooLate => {
                let abort = Fault::Give(Order::Abort);
                vec![crash(None), (When::In(PhaseName::Promoting, 5), abort)]
            }
            _ => vec![crash(None)],
        };
    }

    /// Nothing is unsafe, and somebody waits.
    fn of_progress(self, plan: &mut Plan) {
        let lost = (When::At(1_500), Fault::Crash(PRIMARY, None));
        plan.policy.gap = Duration::from_secs(1);
        plan.faults = match self {
            Self::RepairForgotten => {
                let away = Fault::CutOff(FAR, Way::Silent, 3_000);
                vec![lost, (When::In(PhaseName::Promoting, 0), away)]
            }
            Self::UnfenceForgotten => {
                plan.direct = Direct::Stubborn;
                plan.policy.demotion = Demotion::Fence;
                vec![handover()]
            }
            // It hangs with what was sent to it, and confirms none of it when it goes on.
            Self::SessionsKept => vec![
                (When::At(1_500), Fault::Stop(PRIMARY, 4_000)),
                (When::At(1_600), Fault::PromoteOutside(NEAR)),
                (When::At(3_500), Fault::CutOff(PRIMARY, Way::Refused, 1_500)),
            ],
            // The chosen one dies for good, and somebody who can't wait promotes the old one.
            Self::AnewForgotten => {
                plan.servers = 2;
                plan.policy.demotion = Demotion::CrashRestart;
                vec![
                    handover(),
                    (When::At(1_900), Fault::BadHands(PRIMARY, 2_000)),
                    (When::In(PhaseName::Promoting, 0), Fault::Crash(Whom::Chosen, None)),
                    (When::At(2_600), Fault::PromoteOutside(PRIMARY)),
                ]
            }
            // It dies after it recorded that it goes back, and before it did.
            Self::FenceForgotten => {
                plan.direct = Direct::Stubborn;
                plan.policy.demotion = Demotion::Fence;
                let back = |fault| (When::In(PhaseName::Draining, 0), fault);
                vec![handover(), back(Fault::Disarm(0)), back(Fault::ProxyCrash(50))]
            }
            _ => vec![lost],
        };
    }
}

fn handover() -> (When, Fault) {
    (When::At(1_500), Fault::Give(Order::Switchover { to: None }))
}
