//! Claimed: who is frozen, how many must be, and what becomes of orders meanwhile.

use super::*;

fn freezes(scene: &Scene) -> Vec<ServerId> {
    let frozen = scene.acts().into_iter().filter_map(|act| {
        let Act::Freeze(server) = act else { return None };
        Some(server)
    });
    frozen.collect()
}

#[test]
fn every_standby_that_answers_and_is_loose_is_frozen() {
    assert_eq!(freezes(&revoking()), [B, C]);
    assert_eq!(freezes(&revoking().freeze(B, END)), [C]);
    assert_eq!(freezes(&revoking().see(B, gone(3))), [C]);
    assert_eq!(freezes(&revoking().see(A, idle(END))), [A, B, C], "a primary in recovery, too");
}

#[test]
fn a_standby_of_another_system_is_left_alone() {
    let stranger = match idle(END) {
        Sight::Answers(answer) => Sight::Answers(Testimony { system: THEIRS, ..answer }),
        Sight::Awaited | Sight::Missing(_) => Sight::Awaited,
    };
    assert_eq!(freezes(&revoking().see(C, stranger)), [B]);
}

/// `N - W + 1` of the cohort: with fewer, those that are left could confirm a commit.
#[test]
fn nobody_is_chosen_before_enough_are_frozen() {
    let cases =
        [(1, 2, false), (1, 1, true), (2, 2, true), (2, 3, false), (3, 3, true), (1, 3, false)];
    for (w, cohort, enough) in cases {
        let names = ["b", "c", "d"];
        let promise = quorum(w, names.get(..cohort).unwrap());
        // Of all of them `b` alone answers.
        let scene = revoking().promise(promise).freeze(B, END).see(C, gone(5));
        assert_eq!(scene.chosen().is_some(), enough, "{w} of {cohort}");
        if !enough {
            let why = scene.why();
            assert!(matches!(why, Why::NotRevoked { frozen: 1, .. }), "{w} of {cohort}: {why:?}");
        }
    }
}

#[test]
fn only_those_count_who_can_acknowledge() {
    let scene = revoking().promise(quorum(1, &["b"])).freeze(C, END).see(B, gone(5));
    let missing = vec![loose("b")];
    assert_eq!(scene.why(), Why::NotRevoked { frozen: 0, needed: 1, missing });
}

#[test]
fn a_frozen_standby_that_does_not_answer_does_not_count() {
    let scene = revoking().freeze(B, END).freeze(C, END);
    assert!(scene.chosen().is_some());
    assert_eq!(scene.see(C, gone(5)).chosen(), None);
}

/// One on another branch may hold what was acknowledged, or may not.
#[test]
fn a_frozen_standby_on_another_branch_does_not_count() {
    let scene = revoking().freeze(B, END).freeze(C, END);
    let older = scene
        .with(|scene| scene.at(C).frozen = Some(Frozen { at: lsn(END), timeline: Timeline(9) }));
    assert_eq!(older.chosen(), None);
}

#[test]
fn one_that_takes_over_from_a_frozen_one_is_cut_off_as_well() {
    let scene = revoking().freeze(B, END).see(C, standby(END, streams(B, 1)));
    assert!(scene.chosen().is_some());
    let early = scene.with(|scene| scene.phase_since = ms(NOW - 100));
    assert_eq!(freezes(&early), [C], "it is frozen, too");
    let from_old = revoking().freeze(B, END).see(C, standby(END, streams(A, 1)));
    assert!(matches!(from_old.why(), Why::NotRevoked { .. }));
}

#[test]
fn without_a_quorum_one_frozen_standby_is_enough() {
    let scene = revoking().promise(asynchronous()).see(C, gone(5));
    assert!(matches!(scene.why(), Why::NotRevoked { frozen: 0, needed: 1, .. }));
    assert!(scene.freeze(B, END).chosen().is_some());
}

#[test]
fn a_standby_that_answers_is_waited_for_a_moment() {
    let entered = |ago| {
        let scene = revoking().promise(quorum(2, &["b", "c"])).freeze(B, END);
        scene.with(|scene| scene.phase_since = ms(NOW - ago))
    };
    assert_eq!(entered(499).why(), Why::Freezing);
    assert_eq!(entered(499).chosen(), None);
    assert!(entered(500).chosen().is_some(), "one that can't be frozen does not hold it up");
}

#[test]
fn the_choice_is_recorded_before_anybody_is_promoted() {
    let acts = revoking().freeze(B, END).freeze(C, END).acts();
    let [Act::Write(record)] = acts.as_slice() else { panic!("{acts:?}") };
    let choice = Choice { server: Arc::from("b"), at: lsn(END), loss: Loss::None };
    assert_eq!(record.phase, Phase::Promoting(failover(), choice));
    assert_eq!(record.epoch, Epoch(5));
    assert_eq!(&*record.primary.server, "a");
}

#[test]
fn an_order_that_comes_later_is_recorded_first() {
    let scene = revoking().freeze(B, END).freeze(C, END);
    let acts = scene.order(failover_order(Some("c"), MaxLoss::Bytes(7))).acts();
    let [Act::Write(record)] = acts.as_slice() else { panic!("{acts:?}") };
    let wished = Operation {
        by: By::Operator,
        to: Some(Arc::from("c")),
        accepted: MaxLoss::Bytes(7),
        word: MaxLoss::Bytes(7),
        ..failover()
    };
    assert_eq!(record.phase, Phase::Revoking(wished));
}

/// Otherwise nobody could go back on a name that turned out to be of no use.
#[test]
fn the_last_order_says_who_is_wanted() {
    let named = Operation { by: By::Operator, to: Some(Arc::from("c")), ..failover() };
    let scene = revoking().phase(Phase::Revoking(named));
    let record = scene.order(failover_order(None, MaxLoss::Bytes(0))).written().unwrap();
    assert_eq!(record.operation().unwrap().to, None);
}

#[test]
fn only_an_operator_promotes_without_enough_that_are_frozen() {
    let at = |by, accepted, word| {
        let operation = Operation { by, accepted, word, ..failover() };
        let scene = revoking().phase(Phase::Revoking(operation)).freeze(B, END).see(C, gone(5));
        scene.with(|scene| scene.acknowledged = Acknowledged::Unknown).chosen()
    };
    let unknown = Loss::Unknown { at_least: 0 };
    let (none, most, any) = (MaxLoss::Bytes(0), MaxLoss::Bytes(u64::MAX), MaxLoss::Any);
    assert_eq!(at(By::Operator, any, any), Some((Arc::from("b"), unknown)));
    assert_eq!(at(By::Operator, most, most), None);
    assert_eq!(at(By::Operator, any, none), None, "he said nothing of a loss");
    assert_eq!(at(By::Evidence, any, none), None, "what is configured is no order");
}

#[test]
fn whoever_orders_it_is_told_what_it_waits_for() {
    let operation = Operation { by: By::Operator, ..failover() };
    let scene = revoking().phase(Phase::Revoking(operation)).freeze(B, END).see(C, gone(5));
    let scene = scene.order(failover_order(None, MaxLoss::Bytes(0)));
    let Some(Err(Refusal::Waits(why))) = scene.answer() else { panic!("{:?}", scene.answer()) };
    assert_eq!(*why, scene.why());
    let early = scene.with(|scene| scene.phase_since = ms(NOW - 100));
    assert_eq!(early.answer(), None, "it has only begun");
}

#[test]
fn whoever_orders_it_is_told_late_that_a_server_which_answers_is_not_frozen() {
    let operation = Operation { by: By::Operator, ..failover() };
    let at = |elapsed| {
        let scene = revoking().phase(Phase::Revoking(operation.clone())).freeze(B, END);
        let scene = scene.order(failover_order(None, MaxLoss::Bytes(0)));
        scene.with(|scene| scene.phase_since = ms(NOW - elapsed))
    };
    assert!(at(600).acts().contains(&Act::Freeze(C)), "{:?}", at(600).acts());
    assert_eq!(at(600).answer(), None);
    assert!(matches!(at(3_000).answer(), Some(Err(Refusal::Waits(_)))), "{:?}", at(3_000).answer());
}

#[test]
fn an_order_that_is_not_this_is_refused_at_once() {
    let refused = |order| revoking().order(order).answer();
    assert_eq!(refused(switchover_order(None)), Some(Err(Refusal::Busy)));
    let nobody = failover_order(Some("z"), MaxLoss::Any);
    assert_eq!(refused(nobody), Some(Err(Refusal::NoSuchServer(Arc::from("z")))));
}

#[test]
fn a_former_primary_that_answers_meanwhile_is_fenced() {
    let scene = revoking().see(C, primary_on(1)).with(|scene| {
        scene.record.changes.push(change(By::Operator, "c", "a"));
    });
    assert!(scene.acts().contains(&Act::Fence(C)));
}
