//! Back to the primary of before.

use super::*;

fn settles(scene: &Scene) -> bool {
    let before = &scene.record;
    scene.written().is_some_and(|record| {
        assert_eq!((&record.primary, record.epoch), (&before.primary, before.epoch));
        assert_eq!((&record.promise, &record.changes), (&before.promise, &before.changes));
        record.phase == Phase::Stable
    })
}

/// Both standbys are frozen, and `a` answers again.
fn back() -> Scene {
    revoking().freeze(B, END).freeze(C, END).see(A, primary_on(1))
}

#[test]
fn a_primary_that_comes_back_before_the_choice_stays() {
    for by in [By::Evidence, By::Operator] {
        let scene = back().phase(Phase::Revoking(Operation { by, ..failover() }));
        assert_eq!(scene.why(), Why::Aborting(Refusal::PrimaryBack));
        assert!(settles(&scene));
        assert_eq!(scene.answer(), Some(Err(Refusal::PrimaryBack)));
    }
}

#[test]
fn an_operator_calls_it_off_before_the_choice() {
    let scene = revoking().freeze(B, END).freeze(C, END).order(Order::Abort);
    assert!(settles(&scene));
    assert_eq!(scene.answer(), Some(Err(Refusal::CalledOff)));
}

#[test]
fn everybody_gets_back_what_he_had() {
    let unfrozen = |scene: &Scene| {
        let undo = scene.acts().into_iter().filter(|act| matches!(act, Act::Unfreeze(_)));
        undo.collect::<Vec<_>>()
    };
    assert_eq!(unfrozen(&back()), [Act::Unfreeze(B), Act::Unfreeze(C)]);
    let forgotten = |scene: Scene| scene.with(|scene| scene.at(C).frozen = None);
    let restarted = forgotten(back());
    assert_eq!(
        unfrozen(&restarted),
        [Act::Unfreeze(B), Act::Unfreeze(C)],
        "frozen before a restart"
    );
    assert_eq!(unfrozen(&forgotten(back().see(C, follows(A)))), [Act::Unfreeze(B)]);
    let demoted = back().see(A, idle(END)).order(Order::Abort);
    assert_eq!(unfrozen(&demoted), [Act::Unfreeze(B), Act::Unfreeze(C)], "it followed nobody");
}

#[test]
fn a_standby_that_does_not_answer_holds_up_nothing() {
    let scene = back().see(C, gone(5));
    assert!(settles(&scene));
    assert!(!scene.acts().contains(&Act::Unfreeze(C)));
}

/// Recorded as stable, clients would be let through to it.
#[test]
fn a_primary_that_takes_no_writes_is_freed_before_it_is_recorded_as_stable() {
    let scene = back().fence(A, 0);
    assert_eq!(scene.acts(), [Act::Unfence(A)]);
    assert!(settles(&scene.with(|scene| scene.at(A).fenced = None)));
}

#[test]
fn a_fenced_primary_of_which_nothing_is_known_yet_is_waited_for() {
    let order =
        |scene: Scene| scene.order(Order::Abort).fence(A, 0).see(B, idle(END)).see(C, idle(END));
    let unsure = order(revoking()).see(A, gone(1));
    assert_eq!(unsure.acts(), []);
    assert!(settles(&order(revoking()).see(A, gone(2))), "it is dead, and frees nobody");
}

/// Nobody says what became of it where our user can't see who receives from it: to wait for that
/// for ever would leave everybody without a primary, and no order would fit.
#[test]
fn a_fenced_primary_that_does_not_come_back_is_not_waited_for_for_ever() {
    let hidden = || standby(END, Receiver::Hidden);
    let calls_off = |phase| {
        let scene = revoking().phase(phase).fence(A, 0).see(B, hidden()).see(C, hidden());
        scene.with(|scene| scene.policy.mode = Mode::Manual).order(Order::Abort)
    };
    let called_off = Phase::Draining(Operation { to: None, ..switchover() });
    for phase in [Phase::Revoking(failover()), called_off] {
        let away = |sight| calls_off(phase.clone()).see(A, sight);
        for lost in [silent, full] {
            assert_eq!(away(lost(60_000)).verdict(), Verdict::Unsure);
            assert_eq!(away(lost(9_999)).acts(), [], "it may be back any moment");
            assert!(settles(&away(lost(10_000))));
            assert_eq!(away(lost(60_000)).answer(), Some(Err(Refusal::CalledOff)));
        }
        assert_eq!(away(Sight::Awaited).acts(), [], "it is being looked at");
    }
}

#[test]
fn the_fence_of_one_that_comes_back_later_is_lifted() {
    let hidden = || standby(END, Receiver::Hidden);
    for mode in [Mode::Manual, Mode::Auto] {
        for (sight, acts) in
            [(primary_on(1), vec![Act::Unfence(A)]), (gone(5), vec![]), (silent(60_000), vec![])]
        {
            let stable = scene().fence(A, 0).see(B, hidden()).see(C, hidden()).see(A, sight);
            let stable = stable.with(|scene| scene.policy.mode = mode);
            assert_eq!(stable.acts(), acts, "{mode:?}: {sight:?}");
        }
    }
}

#[test]
fn what_another_tool_promoted_meanwhile_ends_it() {
    let scene = revoking().freeze(B, END).see(C, primary_on(2));
    assert_eq!(scene.why(), Why::Aborting(Refusal::PromotedElsewhere(Arc::from("c"))));
    assert!(settles(&scene));
}

/// It has an upstream from which it would take what is not of its branch, and confirm commits.
#[test]
fn one_on_a_branch_of_the_same_number_stays_cut_off() {
    let unfrozen = |left, cut_off: fn(&mut Scene)| {
        let scene = back().see(A, primary_on(2)).freeze_on_2(B, END).freeze_on_2(C, END);
        let scene = scene.with(cut_off).with(|scene| {
            scene.record.primary.timeline = Timeline(2);
            scene.record.primary.fork = Some(lsn(END));
            scene.at(A).history = Some(left_at(END));
            scene.at(B).history = Some(left_at(END));
            scene.at(C).history = Some(left_at(left));
        });
        assert!(settles(&scene));
        scene.acts().into_iter().filter(|act| matches!(act, Act::Unfreeze(_))).collect::<Vec<_>>()
    };
    for cut_off in [|_: &mut Scene| (), |scene: &mut Scene| scene.at(C).frozen = None] {
        assert_eq!(unfrozen(END, cut_off), [Act::Unfreeze(B), Act::Unfreeze(C)]);
        assert_eq!(unfrozen(END - 8, cut_off), [Act::Unfreeze(B)]);
    }
}
