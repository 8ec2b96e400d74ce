//! Who is promoted, and what is lost by it.

use super::*;

/// Both standbys are frozen, there.
fn frozen(b: u64, c: u64) -> Scene {
    revoking().freeze(B, b).freeze(C, c)
}

fn chosen(scene: &Scene) -> Option<Arc<str>> {
    scene.chosen().map(|(server, _)| server)
}

#[test]
fn the_most_advanced_is_chosen() {
    assert_eq!(chosen(&frozen(900, 901)).as_deref(), Some("c"));
    assert_eq!(chosen(&frozen(901, 900)).as_deref(), Some("b"));
    let preferred = frozen(900, 901).with(|scene| scene.at(B).tags.priority = 9);
    assert_eq!(chosen(&preferred).as_deref(), Some("c"), "whatever is preferred");
}

#[test]
fn among_equals_the_preferred_one_is_chosen_then_the_first() {
    assert_eq!(chosen(&frozen(900, 900)).as_deref(), Some("b"));
    let preferred = frozen(900, 900).with(|scene| scene.at(C).tags.priority = 2);
    assert_eq!(chosen(&preferred).as_deref(), Some("c"));
}

/// What it replayed in its life as a primary is the log as well.
#[test]
fn a_primary_in_recovery_is_chosen_if_it_holds_most() {
    let scene = frozen(900, 900).freeze(A, 950);
    assert_eq!(scene.chosen(), Some((Arc::from("a"), Loss::None)));
}

#[test]
fn one_that_must_not_lead_is_a_source_and_no_candidate() {
    let usual = Tags::default();
    for tags in [Tags { priority: 0, ..usual }, Tags { delayed: true, ..usual }] {
        let scene = frozen(900, 950).with(|scene| scene.at(C).tags = tags);
        let decision = scene.decide();
        assert_eq!(decision.acts, [Act::Repoint { server: B, to: C }]);
        let (server, from) = (Arc::from("b"), Arc::from("c"));
        assert_eq!(decision.why, Why::CatchingUp { server, from });
    }
}

#[test]
fn a_named_server_takes_over_first_what_another_holds_more() {
    let named = Operation { to: Some(Arc::from("b")), by: By::Operator, ..failover() };
    let scene = frozen(900, 950).phase(Phase::Revoking(named));
    assert_eq!(scene.acts(), [Act::Repoint { server: B, to: C }]);
    let caught_up = scene.freeze(B, 950);
    assert_eq!(chosen(&caught_up).as_deref(), Some("b"));
}

/// Nobody is sent to catch up while one holds more that can't be frozen: even then the next best
/// does not lead without what another frozen one holds more, which may have been acknowledged.
#[test]
fn nobody_leads_without_what_a_frozen_one_holds_more() {
    let scene = frozen(900, 950).promise(quorum(2, &["b", "c", "d"])).with(|scene| {
        scene.at(C).tags.priority = 0;
        scene.servers.push(server(ServerId(3), "d", standby(980, Receiver::Idle)));
    });
    let (server, from) = (Arc::from("b"), Arc::from("c"));
    assert_eq!(scene.why(), Why::CatchingUp { server, from });
    assert_eq!(scene.chosen(), None);
}

/// Frozen at once, it would never get what it is to take over.
#[test]
fn while_it_catches_up_it_is_not_frozen_again() {
    let catching = |received, receiver| {
        let scene = frozen(900, 950).with(|scene| {
            scene.at(C).tags.priority = 0;
            scene.at(B).frozen = None;
        });
        scene.see(B, standby(received, receiver)).acts()
    };
    let repoint = [Act::Repoint { server: B, to: C }];
    assert_eq!(catching(900, Receiver::Idle), repoint);
    assert_eq!(catching(949, streams(C, 1)), repoint);
    assert_eq!(catching(950, streams(C, 1)), [Act::Freeze(B)]);
}

/// One that answers and can't be frozen: it would be chosen, or sent to catch up, if it could. `b`
/// takes over what `c` holds more instead, which may not lead; in both promises, as long as those
/// that are frozen are enough.
#[test]
fn one_that_can_not_be_frozen_keeps_nobody_from_catching_up() {
    let scene = |held, stuck: Option<&str>| {
        frozen(900, 950).with(|scene| {
            scene.acknowledged = Acknowledged::UpTo(lsn(950));
            scene.at(C).tags.priority = 0;
            let d = server(D, "d", standby(held, streams(A, 1)));
            scene.servers.push(ServerView { stuck: stuck.map(Arc::from), ..d });
        })
    };
    let repoint = Act::Repoint { server: B, to: C };
    let promises = [quorum(2, &["b", "c", "d"]), quorum(1, &["b", "c"]), asynchronous()];
    for (promise, held) in promises.iter().flat_map(|promise| [(promise, 920), (promise, 980)]) {
        let awaited = scene(held, None).promise(promise.clone());
        assert!(!awaited.acts().contains(&repoint), "{held}: it may be frozen any moment");
        let stuck = scene(held, Some("it refuses")).promise(promise.clone());
        assert_eq!(stuck.acts(), [Act::Freeze(D), repoint.clone()], "{promise:?}, {held}");
        let caught_up = stuck.freeze(B, 950);
        assert_eq!(chosen(&caught_up).as_deref(), Some("b"), "{promise:?}, {held}");
    }
}

/// What it seems to hold more is a loss like any other, and in a quorum none.
#[test]
fn what_one_that_can_not_be_frozen_holds_more_is_weighed() {
    let scene = |promise: &Promise, accepted| {
        let operation = Operation { accepted, ..failover() };
        let scene = revoking().freeze(B, 900).see(C, standby(980, streams(A, 1)));
        scene.promise(promise.clone()).phase(Phase::Revoking(operation)).with(|scene| {
            scene.at(C).stuck = Some("it refuses".into());
            scene.acknowledged = Acknowledged::UpTo(lsn(980));
        })
    };
    let (refused, bytes) = (None, MaxLoss::Bytes);
    let lost = Some((Arc::from("b"), Loss::AtMost(80)));
    let cases = [
        (asynchronous(), bytes(79), refused.clone()),
        (asynchronous(), bytes(80), lost.clone()),
        (asynchronous(), MaxLoss::Any, lost),
        (quorum(1, &["b", "c"]), MaxLoss::Any, refused),
        (quorum(2, &["b", "c"]), bytes(0), Some((Arc::from("b"), Loss::None))),
    ];
    for (promise, accepted, expected) in cases {
        assert_eq!(scene(&promise, accepted).chosen(), expected, "{promise:?}, {accepted:?}");
    }
}

/// Who is waited for is told, why, and what helps.
#[test]
fn one_that_can_not_be_frozen_is_named_with_what_helps() {
    let stuck = || {
        let scene = revoking().freeze(B, 900).see(C, standby(980, streams(A, 1)));
        scene.with(|scene| scene.at(C).stuck = Some("it refuses".into()))
    };
    let told = stuck().why().to_string();
    for said in ["waiting for c (it answers, and can't be frozen: it refuses)", "--accept-loss any"]
    {
        assert!(told.contains(said), "{told}");
    }

    let named = Operation { to: Some("c".into()), by: By::Operator, ..failover() };
    let named = stuck().promise(asynchronous()).phase(Phase::Revoking(named));
    let told = named.why().to_string();
    for said in ["waiting for c (it answers, and can't be frozen: it refuses)", "--to SERVER"] {
        assert!(told.contains(said), "{told}");
    }
    let away = named.with(|scene| scene.at(C).stuck = None).see(C, gone(5));
    let told = away.why().to_string();
    assert!(told.contains("waiting for c; `pgsteer failover --to SERVER`"), "{told}");
}

/// What is told helps: an order that takes any loss goes on without it.
#[test]
fn an_order_goes_on_without_one_that_can_not_be_frozen() {
    for to in [None, Some("b")] {
        let scene = revoking().freeze(B, 900).see(C, standby(980, streams(A, 1)));
        let scene = scene.with(|scene| scene.at(C).stuck = Some("it refuses".into()));
        let recorded = scene.clone().order(failover_order(to, MaxLoss::Any)).written().unwrap();
        let ordered = scene.phase(recorded.phase);
        assert_eq!(chosen(&ordered).as_deref(), Some("b"), "{to:?}");
    }
}

#[test]
fn nobody_is_chosen_if_none_may_lead() {
    let scene = frozen(900, 900).with(|scene| {
        scene.at(B).tags.priority = 0;
        scene.at(C).tags.priority = 0;
    });
    assert_eq!(scene.why(), Why::NoCandidate(Vec::new()));
}

#[test]
fn a_standby_on_another_branch_is_never_chosen() {
    let scene = frozen(900, 950).promise(asynchronous()).with(|scene| {
        scene.acknowledged = Acknowledged::UpTo(lsn(900));
        scene.at(C).frozen = Some(Frozen { at: lsn(950), timeline: Timeline(2) });
    });
    assert_eq!(chosen(&scene).as_deref(), Some("b"));
}

#[test]
fn with_a_quorum_nothing_is_lost_whatever_is_known() {
    let scene = frozen(900, 950).with(|scene| scene.acknowledged = Acknowledged::Unknown);
    assert_eq!(scene.chosen(), Some((Arc::from("c"), Loss::None)));
}

/// What is known to have been acknowledged, what may be lost, and what comes of it.
#[test]
fn without_a_quorum_the_loss_is_weighed() {
    use Acknowledged::{Beyond, Unknown, UpTo};
    let bytes = MaxLoss::Bytes;
    let nothing = Loss::Unknown { at_least: 0 };
    let cases = [
        (UpTo(lsn(950)), bytes(0), Ok(Loss::None)),
        (UpTo(lsn(951)), bytes(0), Err(Loss::AtMost(1))),
        (UpTo(lsn(951)), bytes(1), Ok(Loss::AtMost(1))),
        (UpTo(lsn(951)), MaxLoss::Any, Ok(Loss::AtMost(1))),
        (Beyond(lsn(900)), bytes(0), Err(nothing)),
        (Beyond(lsn(951)), bytes(u64::MAX), Err(Loss::Unknown { at_least: 1 })),
        (Unknown, bytes(0), Err(nothing)),
        (Unknown, bytes(u64::MAX), Err(nothing)),
        (Unknown, MaxLoss::Any, Ok(nothing)),
    ];
    for (acknowledged, accepted, expected) in cases {
        let operation = Operation { accepted, ..failover() };
        let scene = frozen(900, 950).promise(asynchronous()).phase(Phase::Revoking(operation));
        let scene = scene.with(|scene| scene.acknowledged = acknowledged);
        match expected {
            Ok(loss) => assert_eq!(scene.chosen(), Some((Arc::from("c"), loss))),
            Err(loss) => {
                let candidate = Arc::from("c");
                assert_eq!(scene.why(), Why::TooMuchLoss { candidate, loss });
                assert_eq!(scene.chosen(), None);
            }
        }
    }
}
