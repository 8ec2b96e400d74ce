//! A seeded simulation of whole failovers, with the production decider in the middle.
//!
//! Virtual time, fake servers that behave as PostgreSQL was measured to behave, a net that cuts
//! and delays, clients with a ledger of what they were told, an operator, another tool, and a
//! conductor that can die or stand still between any two steps. What must always hold is checked
//! against what really lies on the servers' disks (`judge`), and at the end all must be well
//! again, or the decider must name what an operator has to do.
//!
//! A run follows from its seed alone. `SEED=7 cargo test --test it simulation` repeats one and
//! tells it step by step if it fails; `FROM=3000 SEEDS=1000000` goes on for longer than
//! `make test` does. With a protection taken away (`arms`), the same checks must find the
//! accident.
//!
//! Deliberately absent: threads, a real clock, SQL. What an act really does to a server is tested
//! on real ones, in `tests/e2e`.

#![expect(
    clippy::struct_excessive_bools,
    clippy::fn_params_excessive_bools,
    reason = "a model: what is so and what is not, of fake things that have no other states"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each part of the model deals with its own events and acts, and passes the others on"
)]

mod acts;
mod adopt;
mod arms;
mod chance;
mod clients;
mod event;
mod faults;
mod judge;
mod log;
mod looks;
mod net;
mod plan;
mod postgres;
mod proxy;
mod server;
mod store;
mod watch;
mod world;

use arms::Arm;
use judge::Counts;
use net::Way;
use pgsteer::failover::{Demotion, MaxLoss, Mode, Order};
use plan::{Fault, PhaseName, Plan, When, Whom};
use world::{Telling, World};

/// Seeds in `make test`.
const SEEDS: u64 = 3_000;
/// Seeds of a staged run.
const STAGED: u64 = 20;
/// Lines of the trace that are shown of a run that failed.
const SHOWN: usize = 400;

fn run(seed: u64, plan: Plan, arm: Arm) -> (Result<(), String>, Counts) {
    let mut world = World::new(seed, plan, arm, Telling::Silent);
    let result = world.run();
    (result, world.judge.counts)
}

/// Runs what failed again, and tells how it came to that.
fn tell(seed: u64, plan: &Plan, arm: Arm) -> String {
    let mut world = World::new(seed, plan.clone(), arm, Telling::Traced);
    let found = world.run().err().unwrap_or_default();
    let trace = world.trace();
    let shown = trace.get(trace.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n");
    format!("{plan:#?}\n{shown}\n\n{found}")
}

/// Every so many-th seed of a range: those that fail, and what was in all of them.
fn strand(seeds: impl Iterator<Item = u64>) -> (Vec<u64>, Counts) {
    let (mut failed, mut total) = (Vec::new(), Counts::default());
    for seed in seeds {
        let (result, counts) = run(seed, Plan::of(seed), Arm::Sound);
        total.add(counts);
        if result.is_err() {
            failed.push(seed);
        }
    }
    (failed, total)
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_and_all_is_well_in_the_end() {
    let (from, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS)),
    };
    let strands = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut failed, mut total) = (Vec::new(), Counts::default());
    std::thread::scope(|scope| {
        let strands: Vec<_> = (0..strands)
            .map(|at| scope.spawn(move || strand((from..from + count).skip(at).step_by(strands))))
            .collect();
        for one in strands {
            let (seeds, counts) = one.join().unwrap();
            failed.extend(seeds);
            total.add(counts);
        }
    });
    failed.sort_unstable();
    if let Some(seed) = failed.first() {
        panic!(
            "{} of {count} seeds fail: {failed:?}\n{}\nrepeat with: SEED={seed} cargo test --test it simulation",
            failed.len(),
            tell(*seed, &Plan::of(*seed), Arm::Sound)
        );
    }
    if count >= SEEDS {
        total.assert_at_stake(count);
    }
}

/// With a protection taken away the checks find what it protects from, and with it they do not.
fn bites(arm: Arm) {
    let mut found = 0;
    for seed in 0..STAGED {
        let plan = arm.stage(seed);
        let (sound, counts) = run(seed, plan.clone(), Arm::Sound);
        if sound.is_err() {
            let told = tell(seed, &plan, Arm::Sound);
            panic!("{told}\n{arm:?}, seed {seed}, with nothing taken away");
        }
        assert!(counts.acknowledged > 0, "nothing was at stake");
        match run(seed, plan.clone(), arm).0 {
            Err(accident) if accident.contains(arm.accident()) => found += 1,
            Err(other) => {
                panic!(
                    "{}\n{arm:?}, seed {seed}: another accident: {other}",
                    tell(seed, &plan, arm)
                );
            }
            Ok(()) => {}
        }
    }
    assert!(found >= STAGED / 5, "{arm:?} is found in {found} of {STAGED} seeds only");
}

#[test]
fn without_the_freeze_a_confirmed_write_is_lost() {
    bites(Arm::FreezeSkipped);
}

#[test]
fn without_enough_that_are_frozen_a_confirmed_write_is_lost() {
    bites(Arm::RevocationSkipped);
}

#[test]
fn without_the_veto_a_living_primary_is_replaced() {
    bites(Arm::VetoOff);
}

#[test]
fn if_any_is_chosen_a_confirmed_write_is_lost() {
    bites(Arm::AnyChosen);
}

#[test]
fn without_the_record_somebody_is_promoted_of_whom_nobody_knows() {
    bites(Arm::ChoiceUnrecorded);
}

#[test]
fn if_unknown_counts_as_none_a_loss_is_not_reported() {
    bites(Arm::UnknownIsNone);
}

#[test]
fn without_the_gap_failovers_chase_each_other() {
    bites(Arm::GapForgotten);
}

#[test]
fn without_the_fence_a_former_primary_takes_writes() {
    bites(Arm::FenceSkipped);
}

#[test]
fn without_the_epoch_an_old_primary_acknowledges() {
    bites(Arm::EpochUnchecked);
}

#[test]
fn if_one_that_is_being_freed_counts_as_frozen_too_few_are() {
    bites(Arm::FreeingCounts);
}

#[test]
fn if_one_that_may_not_lead_is_chosen_it_is_found() {
    bites(Arm::TagsIgnored);
}

#[test]
fn if_a_promise_counts_before_it_is_proved_a_confirmed_write_is_lost() {
    bites(Arm::PromiseUnproved);
}

#[test]
fn without_a_limit_more_is_lost_than_may_be() {
    bites(Arm::LossAllowed);
}

#[test]
fn if_silence_counts_on_any_link_a_living_primary_is_replaced() {
    bites(Arm::KeepaliveAssumed);
}

#[test]
fn without_witnesses_one_that_is_cut_off_itself_acts() {
    bites(Arm::WitnessAssumed);
}

#[test]
fn without_heed_of_its_own_pause_a_living_primary_is_replaced() {
    bites(Arm::PauseCounts);
}

#[test]
fn if_what_a_pause_left_lasts_nobody_acts() {
    bites(Arm::PauseLasts);
}

#[test]
fn if_a_sign_of_life_counts_for_nothing_a_full_primary_is_replaced() {
    bites(Arm::LifeIgnored);
}

#[test]
fn without_the_grace_a_restarting_primary_is_replaced() {
    bites(Arm::GraceForgotten);
}

#[test]
fn without_its_arming_one_acts_that_must_not() {
    bites(Arm::ArmingIgnored);
}

#[test]
fn without_its_mode_one_acts_without_an_operator() {
    bites(Arm::ModeIgnored);
}

#[test]
fn if_an_outsider_is_not_seen_another_primary_is_made_beside_it() {
    bites(Arm::OutsiderIgnored);
}

#[test]
fn without_the_fence_a_handover_leaves_two_that_take_writes() {
    bites(Arm::HandoverUnfenced);
}

#[test]
fn if_foreign_writers_count_for_nothing_it_is_handed_over_under_them() {
    bites(Arm::ForeignIgnored);
}

#[test]
fn if_a_choice_can_be_called_off_the_old_primary_is_recorded_beside_the_new() {
    bites(Arm::AbortTooLate);
}

#[test]
fn if_nobody_begins_a_failover_it_is_found() {
    bites(Arm::NobodyClaims);
}

#[test]
fn if_nobody_is_promoted_it_is_found() {
    bites(Arm::NobodyPromotes);
}

#[test]
fn if_a_standby_that_was_away_is_left_alone_it_is_found() {
    bites(Arm::RepairForgotten);
}

#[test]
fn if_a_fence_stays_up_it_is_found() {
    bites(Arm::UnfenceForgotten);
}

#[test]
fn if_the_next_process_forgets_a_fence_it_is_found() {
    bites(Arm::FenceForgotten);
}

#[test]
fn without_heed_of_whom_a_former_primary_follows_another_is_promoted_beside_it() {
    bites(Arm::FollowedIgnored);
}

#[test]
fn if_sessions_stay_with_a_primary_that_another_tool_replaced_they_wait_for_ever() {
    bites(Arm::SessionsKept);
}

#[test]
fn if_nobody_sees_that_the_old_primary_was_promoted_anew_a_change_waits_for_ever() {
    bites(Arm::AnewForgotten);
}

/// Another tool made it a standby of the other one, which is dead before it was promoted. When it
/// is seen again its own word is enough, and nobody beside it is needed as a witness.
#[test]
fn a_primary_that_says_that_it_is_in_recovery_is_replaced_though_nobody_else_is_seen() {
    let mut alone = 0;
    for seed in 0..STAGED {
        let mut plan = Plan::plain(seed);
        plan.servers = 2;
        plan.faults = vec![
            (When::At(1_500), Fault::HandOutside(Whom::Other(0))),
            (When::At(1_505), Fault::Crash(Whom::Other(0), None)),
        ];
        let (result, counts) = run(seed, plan.clone(), Arm::Sound);
        assert_eq!(result, Ok(()), "{}", tell(seed, &plan, Arm::Sound));
        alone += counts.by_its_own_word;
    }
    assert!(alone > 0, "nobody was replaced by its own word");
}

/// Whoever calls it off, there is a primary again, without an order: in `manual` nobody else would
/// see to it.
#[test]
fn a_switchover_that_is_called_off_while_the_old_primary_restarts_ends_with_it() {
    let mut again = 0;
    for seed in 0..STAGED {
        let mut plan = Plan::plain(seed);
        plan.policy.mode = Mode::Manual;
        plan.policy.demotion = Demotion::CrashRestart;
        let delay = 20 + seed * 7 % 200;
        plan.faults = vec![
            (When::At(1_500), Fault::Give(Order::Switchover { to: None })),
            (When::In(PhaseName::Revoking, delay), Fault::Give(Order::Abort)),
        ];
        let (result, counts) = run(seed, plan.clone(), Arm::Sound);
        assert_eq!(result, Ok(()), "{}", tell(seed, &plan, Arm::Sound));
        assert_eq!((counts.failovers, counts.helped), (0, 0), "{}", tell(seed, &plan, Arm::Sound));
        again += counts.promoted_again;
    }
    assert!(again > 0, "none was promoted again");
}

/// Nobody can know of it, and so what was promised before is what counts.
#[test]
fn settings_that_change_out_of_sight_are_held_against_nobody() {
    let out_of_reach = vec![
        (When::At(1_400), Fault::Disarm(2_100)),
        (When::At(1_500), Fault::Isolate(Whom::Primary, 4_000)),
        (When::At(1_600), Fault::Requorum(1)),
        (When::At(3_400), Fault::Stop(Whom::Other(2), 3_000)),
    ];
    let just_before = vec![
        (When::At(1_500), Fault::Requorum(1)),
        (When::At(1_500), Fault::Give(Order::Switchover { to: Some(plan::name(1)) })),
        (When::In(PhaseName::Draining, 0), Fault::Stop(Whom::Other(2), 3_000)),
    ];
    for faults in [out_of_reach, just_before] {
        let mut changes = 0;
        for seed in 0..STAGED {
            let mut plan = Plan::plain(seed);
            (plan.servers, plan.quorum) = (4, Some(3));
            plan.policy.demotion = Demotion::Fence;
            plan.faults.clone_from(&faults);
            let (result, counts) = run(seed, plan.clone(), Arm::Sound);
            assert_eq!(result, Ok(()), "{}", tell(seed, &plan, Arm::Sound));
            changes += counts.failovers + counts.switchovers;
        }
        assert!(changes > 0, "{faults:?}: nobody took over");
    }
}

/// The one before it restarts by itself, and another tool replaced it; it says nothing of the next.
#[test]
fn one_that_restarts_gives_no_time_to_the_primary_after_it() {
    let mut failovers = 0;
    for seed in 0..STAGED {
        let mut plan = Plan::plain(seed);
        plan.quorum = None;
        plan.policy.max_data_loss = MaxLoss::Any;
        plan.faults = vec![
            (When::At(1_400), Fault::PromoteOutside(Whom::Other(0))),
            (When::At(1_500), Fault::Relapse(Whom::Primary, 3_000)),
            (When::At(2_180), Fault::Crash(Whom::Primary, Some(2_000))),
        ];
        let (result, counts) = run(seed, plan.clone(), Arm::Sound);
        assert_eq!(result, Ok(()), "{}", tell(seed, &plan, Arm::Sound));
        failovers += counts.failovers;
    }
    assert!(failovers > 0, "nobody took over");
}

/// However a primary is lost, another takes over, and soon: in half of the runs within that many
/// milliseconds after the last sign of life, of which silence takes a second by itself.
#[test]
fn an_ordinary_loss_of_the_primary_ends_in_a_failover() {
    let primary = Whom::Primary;
    let losses = [
        (Fault::Crash(primary, None), 1_000),
        (Fault::Crash(primary, Some(2_000)), 1_000),
        (Fault::Relapse(primary, 5_000), 2_500),
        (Fault::Stop(primary, 5_000), 2_500),
        (Fault::Isolate(primary, 5_000), 2_500),
        (Fault::CutOff(primary, Way::Refused, 5_000), 2_500),
        (Fault::CutOff(primary, Way::Silent, 5_000), 2_500),
    ];
    for (loss, soon) in losses {
        let mut times: Vec<_> = (0..STAGED).map(|seed| failover(seed, &loss)).collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        assert!(median <= soon, "{loss:?}: half of the failovers take {median} ms or more");
    }
}

/// How long a failover takes after that.
fn failover(seed: u64, loss: &Fault) -> u64 {
    let begins = 1_500;
    let mut plan = Plan::plain(seed);
    plan.faults = vec![(When::At(begins), loss.clone())];
    let mut world = World::new(seed, plan.clone(), Arm::Sound, Telling::Silent);
    match (world.run(), world.judge.first_failover) {
        (Ok(()), Some(at)) => at - begins,
        (result, _) => {
            let told = tell(seed, &plan, Arm::Sound);
            panic!("{told}\n{loss:?}, seed {seed}: {result:?}, and nobody took over")
        }
    }
}

/// The asynchronous arm with stopped receivers: it loses what it acknowledged, and says so.
#[test]
fn without_a_quorum_a_loss_is_real_and_reported() {
    let mut lost = 0;
    for seed in 0..STAGED {
        let (result, counts) = run(seed, Arm::UnknownIsNone.stage(seed), Arm::Sound);
        assert_eq!(result, Ok(()), "seed {seed}");
        lost += counts.lost;
    }
    assert!(lost > 0, "nothing was lost");
}
