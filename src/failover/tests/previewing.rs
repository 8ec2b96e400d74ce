//! What an order would do, told before it is given.

use super::*;

/// `a` is dead, and both standbys are there.
fn dead() -> Scene {
    scene().see(A, gone(5)).see(B, idle(900)).see(C, idle(950))
}

fn any(to: Option<&str>) -> Order {
    failover_order(to, MaxLoss::Any)
}

#[test]
fn a_failover_names_its_candidate_and_its_loss() {
    let told = dead().preview(&any(None));
    let expected = Preview {
        kind: Kind::Failover,
        verdict: Verdict::Dead,
        from: Arc::from("a"),
        to: Some(Arc::from("c")),
        loss: Loss::None,
        busy: 0,
        refusal: None,
    };
    assert_eq!(told, expected);
}

#[test]
fn without_enough_standbys_the_loss_is_what_is_known() {
    let loss = |scene: Scene| scene.preview(&any(None)).loss;
    assert_eq!(loss(dead().see(B, gone(5))), Loss::AtMost(50));
    assert_eq!(loss(dead().promise(asynchronous())), Loss::AtMost(50));
    let unknown = dead().promise(asynchronous()).with(|s| s.acknowledged = Acknowledged::Unknown);
    assert_eq!(loss(unknown), Loss::Unknown { at_least: 0 });
}

/// It is tried again, but nobody should count on it.
#[test]
fn one_that_can_not_be_frozen_promises_nothing() {
    let stuck = || {
        let scene = dead().phase(Phase::Revoking(failover()));
        scene.with(|scene| scene.at(C).stuck = Some("it refuses".into()))
    };
    let told = stuck().preview(&any(None));
    assert_eq!((told.to.as_deref(), told.loss), (Some("b"), Loss::AtMost(100)));
    let enough = stuck().promise(quorum(2, &["b", "c"])).preview(&any(None));
    assert_eq!((enough.to.as_deref(), enough.loss), (Some("b"), Loss::None));
    let named = stuck().preview(&any(Some("c")));
    let c = Loose { server: Arc::from("c"), stuck: Some("it refuses".into()) };
    assert_eq!(named.refusal, Some(Refusal::Waits(Box::new(Why::NoCandidate(vec![c])))));
}

/// It is never chosen, whatever it holds, and freezing it revokes nothing.
#[test]
fn one_that_is_not_on_the_primarys_branch_is_not_promised() {
    let lost = |timeline, left| {
        let on = |held, timeline| {
            let held = lsn(held);
            let receiver = Receiver::Idle;
            answers(timeline, Standing::Standby { received: held, replayed: held, receiver })
        };
        let scene = dead().see(B, on(900, 2)).see(C, on(950, timeline)).with(|scene| {
            scene.record.primary.timeline = Timeline(2);
            scene.record.primary.fork = Some(lsn(END));
            scene.at(B).history = Some(left_at(END));
            scene.at(C).history = left;
        });
        let told = scene.preview(&any(None));
        (told.to, told.loss)
    };
    let b = (Some(Arc::from("b")), Loss::AtMost(100));
    assert_eq!(lost(2, Some(left_at(END))), (Some(Arc::from("c")), Loss::None));
    assert_eq!(lost(2, Some(left_at(END - 8))), b, "a branch of the same number");
    assert_eq!(lost(1, None), b, "an older branch");
}

/// What another one holds more is taken over before.
#[test]
fn whoever_is_named_loses_no_more_than_the_most_advanced() {
    let told = dead().promise(asynchronous()).preview(&any(Some("b")));
    assert_eq!((told.to.as_deref(), told.loss), (Some("b"), Loss::AtMost(50)));
}

#[test]
fn a_failover_that_would_be_refused_says_so() {
    let off = |scene: Scene| scene.with(|scene| scene.policy.mode = Mode::Off);
    let name = Arc::from;
    let never = dead().with(|scene| scene.at(B).tags.priority = 0);
    let cases = [
        (off(dead()), None, Refusal::ModeOff),
        (scene(), None, Refusal::PrimaryLives),
        (dead(), Some("z"), Refusal::NoSuchServer(name("z"))),
        (dead(), Some("a"), Refusal::IsPrimary(name("a"))),
        (never, Some("b"), Refusal::MayNotLead(name("b"))),
        (dead().see(B, gone(5)), Some("b"), Refusal::NotAStandby(name("b"))),
        (dead().see(B, gone(5)).see(C, gone(5)), None, Refusal::NoCandidate),
        (dead().see(C, primary_on(2)), None, Refusal::PromotedElsewhere(name("c"))),
        (dead().phase(Phase::Draining(switchover())), None, Refusal::Busy),
    ];
    for (scene, to, refusal) in cases {
        assert_eq!(scene.preview(&any(to)).refusal, Some(refusal));
    }
    let waiting = dead().phase(Phase::Revoking(failover()));
    assert_eq!(waiting.preview(&any(None)).refusal, None, "it adds to the one under way");
}

#[test]
fn a_switchover_names_its_candidate_or_why_not() {
    let told = scene().with(|scene| scene.busy = 3).preview(&switchover_order(Some("c")));
    assert_eq!((told.to.as_deref(), told.loss, told.busy), (Some("c"), Loss::None, 3));
    assert_eq!((told.kind, told.refusal), (Kind::Switchover, None));
    let refused = |scene: Scene, to| scene.preview(&switchover_order(to)).refusal;
    assert_eq!(refused(dead(), None), Some(Refusal::PrimaryLost));
    let far = scene().see(B, gone(1));
    assert_eq!(refused(far, Some("b")), Some(Refusal::NotAStandby(Arc::from("b"))));
    let busy = scene().phase(Phase::Draining(switchover()));
    assert_eq!(refused(busy, None), Some(Refusal::Busy));
}

#[test]
fn to_call_it_off_is_possible_until_somebody_was_chosen() {
    let refused = |scene: Scene| scene.preview(&Order::Abort).refusal;
    assert_eq!(refused(scene()), Some(Refusal::Idle));
    assert_eq!(refused(revoking()), None);
    assert_eq!(refused(handing()), None);
    assert_eq!(refused(promoting()), Some(Refusal::TooLate));
}

/// Whoever is to help sees before what his order would do, and which one is needed.
#[test]
fn who_takes_the_place_of_a_lost_chosen_one_is_told() {
    let told = |scene: &Scene, to, accept| {
        let Preview { to, loss, refusal, .. } = scene.preview(&failover_order(to, accept));
        (to.unwrap_or_else(|| Arc::from("nobody")), loss, refusal)
    };
    let none = MaxLoss::Bytes(0);
    let (b, c, a) = (Arc::from("b"), Arc::from("c"), Arc::from("a"));
    let well = promoting().phase(Phase::Promoting(switchover(), at_end("b")));
    assert_eq!(told(&promoting(), None, none), (Arc::clone(&b), Loss::None, None));
    let busy = (b, Loss::None, Some(Refusal::Busy));
    assert_eq!(told(&promoting(), Some("c"), none), busy);
    assert_eq!(told(&well, None, none), busy, "a failover is not what is under way");

    let lost = well.see(B, gone(5));
    assert_eq!(told(&lost, None, none), (Arc::clone(&c), Loss::None, None));
    let less = lost.clone().freeze(C, END - 10);
    assert_eq!(told(&less, None, none), (c, Loss::AtMost(10), None), "the loss is to be taken");
    let unknown = Loss::Unknown { at_least: 0 };
    let back = lost.see(C, gone(5)).see(A, primary_on(1));
    assert_eq!(told(&back, None, none), (a, unknown, None));
    let nobody = back.see(A, gone(5)).see(C, idle(END)).with(|scene| {
        scene.at(C).tags.priority = 0;
    });
    let (_, _, refusal) = told(&nobody, None, MaxLoss::Any);
    assert_eq!(refusal, Some(Refusal::Waits(Box::new(Why::NoCandidate(Vec::new())))));
}

#[test]
fn what_it_takes_to_have_one_of_another_tool_is_told() {
    let scene = promoting().see(C, primary_on(2));
    let scene = scene.with(|scene| scene.at(C).history = Some(left_at(END - 8)));
    let why = Why::Barred { chosen: Arc::from("b"), by: Arc::from("c") };
    let waits = Some(Refusal::Waits(Box::new(why)));
    for to in [None, Some("b")] {
        assert_eq!(scene.preview(&failover_order(to, MaxLoss::Any)).refusal, waits, "{to:?}");
    }
    let told = scene.preview(&failover_order(Some("c"), MaxLoss::Bytes(0)));
    let loss = Loss::Unknown { at_least: 0 };
    assert_eq!((told.to.as_deref(), told.loss, told.refusal), (Some("c"), loss, None));
}

fn at_end(server: &str) -> Choice {
    Choice { server: Arc::from(server), at: Lsn(END), loss: Loss::None }
}
