//! One that is to take over what another one holds more, and does not get it.

use super::*;
use crate::failover::Catching;

const PATIENCE: u64 = 10_000;

/// `c`, which may not lead, holds more than `b`, which was told to take that over, and has received
/// nothing for so many milliseconds.
fn idle_for(millis: u64) -> Scene {
    revoking().freeze(B, 900).freeze(C, 950).see(B, idle(900)).with(|scene| {
        scene.acknowledged = Acknowledged::UpTo(lsn(950));
        scene.at(C).tags.priority = 0;
        scene.at(B).frozen = None;
        let trouble = Some(Arc::from("nobody lets it in"));
        scene.at(B).catching = Some(Catching { from: C, since: ms(NOW - millis), trouble });
    })
}

fn stalled() -> Scene {
    idle_for(PATIENCE)
}

fn by(by: By, accepted: MaxLoss) -> Phase {
    let word = if by == By::Operator { accepted } else { MaxLoss::Bytes(0) };
    Phase::Revoking(Operation { by, accepted, word, ..failover() })
}

/// `b` would lose that much, and `c` may not lead.
fn cannot(loss: Loss) -> Why {
    let (trouble, instead) = (Some(Arc::from("nobody lets it in")), false);
    Why::CannotCatchUp { server: "b".into(), from: "c".into(), instead, loss, trouble }
}

/// It is waited for as long as it gets on: how long that takes in all does not matter.
#[test]
fn it_is_given_its_time() {
    let (server, from) = (Arc::from("b"), Arc::from("c"));
    let waits = Why::CatchingUp { server, from };
    for any in [MaxLoss::Bytes(0), MaxLoss::Any] {
        let scene = idle_for(PATIENCE - 1).phase(by(By::Operator, any));
        assert_eq!(scene.why(), waits);
        assert_eq!(scene.acts(), [Act::Repoint { server: B, to: C }]);
    }
    let hasty = idle_for(5_000).with(|scene| {
        scene.policy = Policy { mode: Mode::Auto, ..Policy::of(Profile::Aggressive) };
    });
    assert_eq!(hasty.why(), cannot(Loss::AtMost(50)), "the profile gives it");
    let other = stalled().with(|scene| scene.at(B).catching.as_mut().unwrap().from = A);
    assert_eq!(other.why(), waits, "it was told to take over from another one then");
}

/// By whom the failover is, what may be lost, what is promised: what is lost, if it goes on.
#[test]
fn it_goes_without_where_that_may_be_lost() {
    use By::{Evidence, Operator};
    let bytes = MaxLoss::Bytes;
    let (none, some) = (Some(Loss::None), Some(Loss::AtMost(50)));
    let either = || quorum(1, &["b", "c"]);
    let cases = [
        (either(), Evidence, bytes(0), None),
        (either(), Evidence, bytes(1000), None),
        (either(), Evidence, MaxLoss::Any, None),
        (either(), Operator, bytes(49), None),
        (either(), Operator, bytes(50), some),
        (either(), Operator, MaxLoss::Any, some),
        // Whatever was confirmed was confirmed by `b` as well.
        (quorum(2, &["b", "c"]), Evidence, bytes(0), none),
        (quorum(1, &["b"]), Evidence, bytes(0), none),
        (quorum(2, &["b", "c", "d"]), Evidence, bytes(0), None),
        (asynchronous(), Evidence, bytes(49), None),
        (asynchronous(), Evidence, bytes(50), some),
        (asynchronous(), Operator, bytes(50), some),
        (asynchronous(), Evidence, MaxLoss::Any, some),
    ];
    for (promise, who, accepted, expected) in cases {
        let told = format!("{promise:?}, {who:?}, {accepted:?}");
        let scene = stalled().promise(promise).phase(by(who, accepted));
        let Some(loss) = expected else {
            assert_eq!(scene.why(), cannot(Loss::AtMost(50)), "{told}");
            assert_eq!(scene.acts(), [Act::Repoint { server: B, to: C }], "{told}: it tries on");
            assert_eq!(scene.freeze(B, 900).chosen(), None, "{told}");
            continue;
        };
        assert_eq!(scene.acts(), [Act::Freeze(B)], "{told}");
        assert_eq!(scene.freeze(B, 900).chosen(), Some((Arc::from("b"), loss)), "{told}");
    }
}

/// What is configured for automatic failovers is not what an operator said.
#[test]
fn with_a_quorum_a_configured_loss_is_nobodys_word() {
    for accepted in [MaxLoss::Bytes(60), MaxLoss::Any] {
        let ordered = Operation { by: By::Operator, accepted, ..failover() };
        let scene = stalled().phase(Phase::Revoking(ordered));
        assert_eq!(scene.why(), cannot(Loss::AtMost(50)), "{accepted:?}");
    }
}

/// What only one that is not frozen may hold is not known, and no order but the one for any loss
/// goes on without it.
#[test]
fn too_few_that_are_frozen_stay_too_few() {
    let scene = |accepted| {
        let scene = stalled().promise(quorum(1, &["b", "c", "d"]));
        scene.phase(by(By::Operator, accepted))
    };
    assert!(matches!(scene(MaxLoss::Bytes(1000)).why(), Why::NotRevoked { frozen: 2, .. }));
    let any = scene(MaxLoss::Any);
    assert_eq!(any.acts(), [Act::Freeze(B)]);
    assert_eq!(any.freeze(B, 900).chosen(), Some((Arc::from("b"), Loss::AtMost(50))));
}

/// The one that is frozen holds more and may lead, and the operator wants the other one.
#[test]
fn the_one_that_holds_more_is_promoted_if_it_is_wanted() {
    let named = |to: Option<&str>| {
        let operation = Operation { to: to.map(Arc::from), by: By::Operator, ..failover() };
        let scene = stalled().phase(Phase::Revoking(operation));
        scene.with(|scene| scene.at(C).tags.priority = 1)
    };
    let why = named(Some("b")).why();
    assert!(matches!(why, Why::CannotCatchUp { instead: true, loss: Loss::AtMost(50), .. }));
    assert!(why.to_string().contains("`pgsteer failover --to c`"), "{why}");
    for to in [Some("c"), None] {
        let scene = named(to);
        assert_eq!(scene.acts(), [Act::Freeze(B)]);
        let chosen = scene.clone().freeze(B, 900).chosen();
        assert_eq!(chosen, Some((Arc::from("c"), Loss::None)), "{to:?}");
        let order = failover_order(to, MaxLoss::Bytes(0));
        let recorded = named(Some("b")).order(order).written().unwrap();
        assert_eq!(recorded.phase, scene.record.phase, "an order that comes later says the same");
    }
}

/// One does not get on, another may: before anything is given up each is tried.
#[test]
fn another_one_is_tried_before() {
    let scene = stalled().with(|scene| {
        scene.servers.push(server(D, "d", idle(800)));
        scene.at(D).frozen = Some(Frozen { at: lsn(800), timeline: Timeline(1) });
    });
    assert_eq!(scene.acts(), [Act::Freeze(B), Act::Repoint { server: D, to: C }]);
    let both = scene.freeze(B, 900).with(|scene| {
        scene.at(D).catching = scene.at(B).catching.clone();
    });
    assert_eq!(both.why(), cannot(Loss::AtMost(50)));
    assert_eq!(both.acts(), [Act::Repoint { server: B, to: C }]);
}

/// Whoever orders it is told at once what it waits for, and before what it would lose.
#[test]
fn an_operator_is_told() {
    let scene = stalled().phase(by(By::Operator, MaxLoss::Bytes(0)));
    let order = failover_order(None, MaxLoss::Bytes(0));
    let told = scene.preview(&order);
    assert_eq!((told.to.as_deref(), told.loss), (Some("b"), Loss::AtMost(50)));
    let why = cannot(Loss::AtMost(50));
    assert_eq!(scene.order(order).answer(), Some(Err(Refusal::Waits(Box::new(why.clone())))));
    for said in ["b can't take over what c holds more (nobody lets it in)", "--accept-loss any"] {
        assert!(why.to_string().contains(said), "{why}");
    }
    assert!(!why.to_string().contains("--to"), "{why}");
}

/// It may not have been frozen in time: it counts as one that will be.
#[test]
fn one_that_takes_over_is_not_missing() {
    let (server, from) = (Arc::from("b"), Arc::from("c"));
    assert_eq!(idle_for(100).why(), Why::CatchingUp { server, from });
}
