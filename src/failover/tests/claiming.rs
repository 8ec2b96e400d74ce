//! While nothing is under way: who may begin what.

use super::*;

/// `a` is dead, and both standbys say so.
fn dead() -> Scene {
    scene().see(A, gone(5)).see(B, idle(END)).see(C, idle(END))
}

fn claims(scene: &Scene) -> bool {
    let record = scene.written();
    record.is_some_and(|record| matches!(record.phase, Phase::Revoking(_)))
}

#[test]
fn auto_claims_the_next_epoch_and_does_nothing_else_before_it_is_recorded() {
    let decision = dead().decide();
    assert_eq!(decision.why, Why::Claiming(Verdict::Dead));
    let [Act::Write(record)] = decision.acts.as_slice() else { panic!("{:?}", decision.acts) };
    assert_eq!(record.epoch, Epoch(6));
    assert_eq!(record.phase, Phase::Revoking(failover()));
    assert_eq!(record.primary, scene().record.primary);
}

#[test]
fn manual_and_off_wait_for_somebody() {
    let manual = dead().with(|scene| scene.policy.mode = Mode::Manual).decide();
    assert_eq!(manual, Decision::wait(Why::Manual(Verdict::Dead)));
    let off = dead().with(|scene| scene.policy.mode = Mode::Off).decide();
    assert_eq!(off, Decision::wait(Why::Off(Verdict::Dead)));
}

#[test]
fn evidence_that_is_not_complete_claims_nothing() {
    let cases = [
        scene().see(A, gone(5)),
        dead().see(A, gone(1)),
        dead().see(A, silent(1_000)),
        dead().see(B, gone(5)).see(C, gone(5)),
        dead().with(|scene| scene.record.primary.server = Arc::from("z")),
    ];
    for scene in cases {
        assert_eq!(scene.decide(), Decision::wait(Why::Evidence(scene.verdict())));
    }
}

#[test]
fn a_hung_and_a_demoted_primary_are_replaced() {
    let unheard = standby(END, streams(A, 60_000));
    let hung = scene().see(A, silent(60_000)).see(B, unheard).see(C, unheard);
    assert!(claims(&hung));
    assert!(claims(&scene().see(A, idle(END))));
}

/// Another tool may have handed over to it.
#[test]
fn a_demoted_primary_that_may_have_been_handed_over_is_not_replaced() {
    let demoted = |receiver, sight| scene().see(A, standby(END, receiver)).see(B, sight);
    let heard = |millis| demoted(streams(B, millis), gone(5));
    let elsewhere =
        Receiver::Streams { from: None, heard: Duration::from_millis(10), written: None };
    let loose = |scene: &mut Scene| scene.at(A).keepalive = false;
    for scene in [heard(10), demoted(elsewhere, idle(END)), heard(60_000).with(loose)] {
        assert_eq!(scene.decide(), Decision::wait(Why::HandedOver));
        let ordered = scene.order(failover_order(None, MaxLoss::Any));
        assert!(claims(&ordered), "an operator may know better");
    }
    assert!(claims(&heard(60_000)), "the link is kept alive, and silent");
    for sight in [gone(1), silent(60_000), full(60_000), Sight::Awaited] {
        let unseen = scene().see(A, idle(END)).see(B, sight);
        assert_eq!(unseen.decide(), Decision::wait(Why::HandedOver), "{sight:?}");
    }
    assert!(claims(&scene().see(A, idle(END)).see(B, gone(2))), "nobody is there");
    assert!(claims(&demoted(streams(B, 10), idle(END))), "it is a standby itself");
    assert!(claims(&demoted(Receiver::Hidden, gone(5))));
}

#[test]
fn a_disarmed_auto_waits_and_says_what_it_lacks() {
    let lacking = vec![Arc::from("keepalives")];
    let scene = dead().with(|scene| scene.arming = Arming::Disarmed(lacking.clone()));
    let told = Why::Disarmed(lacking);
    assert!(told.to_string().contains("keepalives; `pgsteer failover` goes on"), "{told}");
    assert_eq!(scene.decide(), Decision::wait(told));
}

#[test]
fn a_restarting_primary_gets_its_grace() {
    for promise in [quorum(1, &["b", "c"]), asynchronous()] {
        let scene = dead().promise(promise);
        assert_eq!(scene.clone().see(A, restarting(4_999)).decide(), Decision::wait(Why::Grace));
        assert!(claims(&scene.see(A, restarting(5_000))));
    }
}

#[test]
fn an_isolated_primary_is_pulled_only_in_quorum_and_after_a_while() {
    let scene = scene().see(A, silent(5_000));
    assert_eq!(scene.verdict(), Verdict::Isolated(B));
    assert!(claims(&scene));
    assert!(!claims(&scene.clone().see(A, silent(4_999))));
    assert!(!claims(&scene.clone().promise(asynchronous())));
    assert!(!claims(&scene.see(A, full(5_000))), "it answers that it is full");
}

#[test]
fn no_second_automatic_failover_within_the_gap() {
    let soon = dead().with(|scene| scene.last_automatic = Some(ms(NOW - 29_999)));
    assert_eq!(soon.decide(), Decision::wait(Why::TooSoon));
    let later = dead().with(|scene| scene.last_automatic = Some(ms(NOW - 30_000)));
    assert!(claims(&later));
}

#[test]
fn a_process_that_was_restarted_knows_the_gap_from_the_record() {
    let changed = |by| dead().with(|scene| scene.record.changes.push(change(by, "c", "a")));
    let soon = changed(By::Evidence);
    assert_eq!(soon.decide(), Decision::wait(Why::TooSoon));
    assert!(claims(&soon.with(|scene| scene.began = ms(NOW - 30_000))), "whatever was done since");
    let later = changed(By::Evidence);
    assert!(claims(&later.with(|scene| scene.last_automatic = Some(ms(NOW - 30_000)))));
    assert!(claims(&changed(By::Operator)));
}

#[test]
fn an_operator_needs_neither_evidence_nor_a_gap() {
    let order = failover_order(None, MaxLoss::Bytes(0));
    let scene = scene().see(A, silent(1_000)).order(order).with(|scene| {
        scene.policy.mode = Mode::Manual;
        scene.arming = Arming::Disarmed(vec![Arc::from("x")]);
        scene.last_automatic = Some(ms(NOW - 1));
    });
    assert!(claims(&scene));
}

#[test]
fn what_another_tool_promoted_is_not_rivalled() {
    let refused = Refusal::PromotedElsewhere(Arc::from("c"));
    let scene = dead().see(C, primary_on(2));
    assert_eq!(scene.decide(), Decision::wait(Why::PromotedElsewhere(Arc::from("c"))));
    let failover = scene.order(failover_order(None, MaxLoss::Any));
    assert_eq!(failover.answer(), Some(Err(refused.clone())));
    let well = super::scene().see(C, primary_on(2));
    assert_eq!(well.order(switchover_order(None)).answer(), Some(Err(refused)));
}

/// A former primary, or another system's, is no reason to wait.
#[test]
fn only_a_newer_branch_of_ours_is_another_tools_promotion() {
    let role = Standing::Primary { flushed: lsn(END) };
    let (at, timeline) = (ms(NOW), Some(Timeline(9)));
    let theirs = Sight::Answers(Testimony { at, system: THEIRS, timeline, role });
    for other in [primary_on(1), theirs] {
        assert!(claims(&dead().see(C, other)), "{other:?}");
    }
}

#[test]
fn orders_that_do_not_fit_are_refused() {
    let well = scene;
    let name = Arc::from;
    let any = MaxLoss::Any;
    let off = |scene: Scene| scene.with(|scene| scene.policy.mode = Mode::Off);
    let never = dead().with(|scene| scene.at(C).tags.priority = 0);
    let delayed = dead().with(|scene| scene.at(C).tags.delayed = true);
    let cases = [
        (off(dead()), failover_order(None, any), Refusal::ModeOff),
        (off(well()), switchover_order(None), Refusal::ModeOff),
        (well(), Order::Abort, Refusal::Idle),
        (well(), failover_order(None, any), Refusal::PrimaryLives),
        (dead(), switchover_order(None), Refusal::PrimaryLost),
        (dead(), failover_order(Some("z"), any), Refusal::NoSuchServer(name("z"))),
        (dead(), failover_order(Some("a"), any), Refusal::IsPrimary(name("a"))),
        (never, failover_order(Some("c"), any), Refusal::MayNotLead(name("c"))),
        (delayed, failover_order(Some("c"), any), Refusal::MayNotLead(name("c"))),
    ];
    for (scene, order, refusal) in cases {
        let acts = scene.order(order).acts();
        assert_eq!(acts, [Act::Answer(Err(refusal))]);
    }
}

/// In recovery it is a standby like the others, and perhaps the one that holds most.
#[test]
fn a_primary_in_recovery_may_be_named() {
    let order = failover_order(Some("a"), MaxLoss::Bytes(0));
    assert!(claims(&scene().see(A, idle(END)).order(order)));
}

#[test]
fn an_order_accepts_what_it_says_or_what_is_configured() {
    let accepted = |configured, ordered| {
        let scene = dead().with(|scene| scene.policy.max_data_loss = configured);
        let record = scene.order(failover_order(Some("c"), ordered)).written().unwrap();
        let Phase::Revoking(operation) = record.phase else { panic!("{record:?}") };
        assert_eq!((operation.by, operation.to.as_deref()), (By::Operator, Some("c")));
        assert_eq!(operation.word, ordered, "what is configured is not his word");
        operation.accepted
    };
    assert_eq!(accepted(MaxLoss::Bytes(10), MaxLoss::Bytes(0)), MaxLoss::Bytes(10));
    assert_eq!(accepted(MaxLoss::Bytes(10), MaxLoss::Bytes(20)), MaxLoss::Bytes(20));
    assert_eq!(accepted(MaxLoss::Bytes(10), MaxLoss::Any), MaxLoss::Any);
    assert_eq!(accepted(MaxLoss::Any, MaxLoss::Bytes(0)), MaxLoss::Any);
}
