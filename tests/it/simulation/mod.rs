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
mod world;

use arms::Arm;
use judge::Counts;
use plan::Plan;
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

/// Runs a seed that fails again, and tells how it came to that.
fn tell(seed: u64) -> String {
    let mut world = World::new(seed, Plan::of(seed), Arm::Sound, Telling::Traced);
    let found = world.run().err().unwrap_or_default();
    let trace = world.trace();
    let shown = trace.get(trace.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n");
    let plan = Plan::of(seed);
    format!(
        "{plan:#?}\n{shown}\n\n{found}\nrepeat with: SEED={seed} cargo test --test it simulation"
    )
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
    std::env::var(variable).ok()?.parse().ok()
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
    if let Some(seed) = failed.iter().min() {
        panic!("{} of {count} seeds fail\n{}", failed.len(), tell(*seed));
    }
    if count >= SEEDS {
        total.assert_at_stake(count);
    }
}

/// With a protection taken away the checks find what it protects from, and with it they do not.
fn bites(arm: Arm) {
    let mut found = 0;
    for seed in 0..STAGED {
        let (sound, counts) = run(seed, arm.stage(seed), Arm::Sound);
        assert_eq!(sound, Ok(()), "{arm:?}, seed {seed}, with nothing taken away");
        assert!(counts.acknowledged > 0, "nothing was at stake");
        match run(seed, arm.stage(seed), arm).0 {
            Err(accident) if accident.contains(arm.accident()) => found += 1,
            Err(other) => panic!("{arm:?}, seed {seed}: another accident: {other}"),
            Ok(()) => {}
        }
    }
    assert!(found > 0, "{arm:?} is not found in {STAGED} seeds");
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
