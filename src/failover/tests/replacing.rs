//! The chosen one is gone before it was admitted.

use super::*;

/// `b` was chosen and is gone, `a` is dead, `c` is frozen where `b` was.
fn lost() -> Scene {
    promoting().see(B, gone(5))
}

/// The same, and `a` answers as what it was.
fn old_is_back() -> Scene {
    lost().see(A, primary_on(1))
}

#[test]
fn another_takes_its_place_under_a_new_epoch() {
    let record = lost().written().unwrap();
    assert_eq!(record.epoch, Epoch(6));
    let choice = Choice { server: Arc::from("c"), at: lsn(END), loss: Loss::None };
    assert_eq!(record.phase, Phase::Promoting(failover(), choice));
    assert_eq!(&*record.primary.server, "a");
}

#[test]
fn whoever_could_follow_it_is_frozen_first() {
    let scene = lost().see(C, idle(END)).with(|scene| scene.at(C).frozen = None);
    assert_eq!(scene.acts(), [Act::Freeze(C)]);
}

#[test]
fn what_it_held_more_is_lost_and_must_be_accepted() {
    let less = |accepted, loss| {
        let choice = Choice { server: Arc::from("b"), at: lsn(END), loss };
        let operation = Operation { accepted, ..failover() };
        lost().freeze(C, END - 10).phase(Phase::Promoting(operation, choice)).chosen()
    };
    assert_eq!(less(MaxLoss::Bytes(9), Loss::None), None);
    let lost = |loss| Some((Arc::from("c"), loss));
    assert_eq!(less(MaxLoss::Bytes(10), Loss::None), lost(Loss::AtMost(10)));
    assert_eq!(less(MaxLoss::Bytes(20), Loss::AtMost(5)), lost(Loss::AtMost(15)));
    let unknown = |at_least| Loss::Unknown { at_least };
    assert_eq!(less(MaxLoss::Bytes(99), unknown(5)), None);
    assert_eq!(less(MaxLoss::Any, unknown(5)), lost(unknown(15)));
}

/// It would begin the timeline that the chosen one may have begun: one that is not seen may be on
/// it already, and could not be told from those on the new one.
#[test]
fn on_the_old_branch_nobody_is_promoted_while_one_is_not_seen() {
    let more = |sight| {
        let scene = lost().promise(asynchronous()).with(|scene| {
            scene.servers.push(server(ServerId(3), "d", sight));
        });
        scene.freeze(C, END)
    };
    assert_eq!(more(gone(5)).chosen(), None);
    assert!(more(idle(END)).freeze(ServerId(3), END).chosen().is_some());
    // On the chosen one's branch the next timeline is a new number.
    let onward = more(gone(5)).freeze_on_2(C, END + 5);
    assert_eq!(onward.chosen(), Some((Arc::from("c"), Loss::None)));
}

#[test]
fn who_followed_the_chosen_one_goes_before_who_did_not() {
    let scene = lost().promise(quorum(2, &["b", "c", "d"])).with(|scene| {
        scene.servers.push(server(ServerId(3), "d", idle(END)));
    });
    let scene = scene.freeze(ServerId(3), END).freeze_on_2(C, END + 5);
    assert_eq!(scene.chosen(), Some((Arc::from("c"), Loss::None)));
}

/// Those that are not frozen might confirm a commit of the chosen one, if it was promoted.
#[test]
fn enough_are_frozen_that_the_chosen_one_could_confirm_nothing() {
    let onward = |w, operation: Operation| {
        let scene = lost().promise(quorum(w, &["b", "c", "d"])).with(|scene| {
            scene.servers.push(server(ServerId(3), "d", gone(5)));
            let choice = Choice { server: Arc::from("b"), at: lsn(END), loss: Loss::None };
            scene.record.phase = Phase::Promoting(operation, choice);
        });
        scene.freeze_on_2(C, END + 5).chosen()
    };
    assert_eq!(onward(1, failover()), None);
    assert!(onward(2, failover()).is_some());
    let accepted = MaxLoss::Any;
    let any = Operation { accepted, ..failover() };
    assert_eq!(onward(1, any.clone()), None, "what is configured is no order");
    assert!(onward(1, Operation { by: By::Operator, ..any }).is_some());
}

#[test]
fn one_that_must_not_lead_does_not_take_its_place() {
    assert_eq!(lost().with(|scene| scene.at(C).tags.priority = 0).chosen(), None);
    assert_eq!(lost().freeze(C, END).with(|scene| scene.at(C).frozen = None).chosen(), None);
}

#[test]
fn whoever_named_the_chosen_one_is_asked_before_another_is_promoted() {
    let named = Operation { to: Some(Arc::from("b")), by: By::Operator, ..failover() };
    let choice = Choice { server: Arc::from("b"), at: lsn(END), loss: Loss::None };
    let scene = lost().phase(Phase::Promoting(named, choice));
    assert!(scene.chosen().is_some(), "auto does not ask");
    let manual = scene.with(|scene| scene.policy.mode = Mode::Manual);
    assert_eq!(manual.decide(), Decision::wait(Why::ChosenLost(Arc::from("b"))));
    let ordered = manual.order(failover_order(None, MaxLoss::Bytes(0)));
    assert!(ordered.chosen().is_some());
}

#[test]
fn the_old_primary_goes_on_if_it_answers() {
    let record = old_is_back().written().unwrap();
    assert_eq!((record.epoch, &record.phase), (Epoch(6), &Phase::Stable));
    let primary = &record.primary;
    assert_eq!((&*primary.server, primary.epoch, primary.timeline), ("a", Epoch(6), Timeline(1)));
    let change = record.changes.last().unwrap();
    assert_eq!((change.from.as_deref(), &*change.to, change.loss), (Some("b"), "a", Loss::None));
}

#[test]
fn a_fenced_old_primary_is_freed_before_it_goes_on() {
    assert_eq!(old_is_back().fence(A, 0).acts(), [Act::Unfence(A)]);
}

/// Whoever follows the chosen one already has what the old primary has not.
#[test]
fn the_old_primary_does_not_go_on_if_somebody_followed_the_chosen_one() {
    let scene = old_is_back().freeze_on_2(C, END + 5);
    assert_eq!(scene.chosen(), Some((Arc::from("c"), Loss::None)));
    let nobody = scene.with(|scene| scene.at(C).tags.priority = 0);
    assert_eq!(nobody.decide(), Decision::wait(Why::ChosenLost(Arc::from("b"))));
    let forced = nobody.order(failover_order(None, MaxLoss::Any));
    let record = forced.written().unwrap();
    assert_eq!(&*record.primary.server, "a");
    assert_eq!(record.changes.last().unwrap().loss, Loss::Unknown { at_least: 0 });
}

#[test]
fn the_old_primary_does_not_go_on_while_one_could_have_followed_unseen() {
    let scene = old_is_back().see(C, gone(5));
    assert_eq!(scene.decide(), Decision::wait(Why::ChosenLost(Arc::from("b"))));
    assert!(scene.promise(asynchronous()).written().is_some());
}

/// With one standby there is nobody else to say that it is gone.
#[test]
fn where_nobody_could_follow_the_old_primary_is_the_witness() {
    let pair = |chosen, old| {
        let mut scene = old_is_back().promise(quorum(1, &["b"])).see(B, chosen).see(A, old);
        scene.servers.truncate(2);
        scene.written()
    };
    assert!(pair(gone(2), primary_on(1)).is_some());
    assert!(pair(silent(3_000), primary_on(1)).is_some());
    assert_eq!(pair(gone(1), primary_on(1)), None);
    assert_eq!(pair(silent(2_999), primary_on(1)), None);
    assert_eq!(pair(restarting(9_000), primary_on(1)), None, "it comes back");
    assert_eq!(pair(gone(2), gone(2)), None, "we may be cut off");
}

#[test]
fn a_chosen_one_that_is_only_not_seen_is_not_replaced() {
    for sight in [gone(1), silent(2_999), restarting(60_000), Sight::Awaited] {
        assert_eq!(old_is_back().see(B, sight).written(), None, "{sight:?}");
        assert_eq!(lost().see(B, sight).written(), None, "{sight:?}");
    }
    let followed = lost().see(C, follows(B));
    assert_eq!(followed.written(), None, "somebody hears from it");
}

#[test]
fn whoever_ordered_the_chosen_one_is_told_of_its_loss() {
    let told = Some(Err(Refusal::ChosenLost(Arc::from("b"))));
    let named = lost().order(failover_order(Some("b"), MaxLoss::Bytes(0)));
    assert_eq!(named.chosen(), None, "nobody else was wanted");
    let back = old_is_back().order(failover_order(None, MaxLoss::Bytes(0)));
    assert_eq!(back.answer(), told);
    let best = lost().order(failover_order(None, MaxLoss::Bytes(0)));
    assert!(best.chosen().is_some());
    assert_eq!(best.answer(), None, "it goes on");
}
