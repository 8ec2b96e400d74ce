//! The chosen one is gone before it was admitted.

use super::*;

const UNKNOWN: Loss = Loss::Unknown { at_least: 0 };

fn not_taken(candidate: &str, loss: Loss) -> Why {
    Why::NotTaken { candidate: Arc::from(candidate), loss }
}

fn chosen_lost() -> Why {
    Why::ChosenLost(Arc::from("b"))
}

fn any_loss(to: Option<&str>) -> Order {
    failover_order(to, MaxLoss::Any)
}

impl Scene {
    /// It is frozen there on the chosen one's branch, which left timeline 1 where it was chosen.
    fn freeze_onward(self, id: ServerId, at: u64) -> Self {
        self.freeze_on_2(id, at).with(|scene| scene.at(id).history = Some(left_at(END)))
    }
}

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
    let onward = more(gone(5)).freeze_onward(C, END + 5);
    assert_eq!(onward.chosen(), Some((Arc::from("c"), Loss::None)));
}

#[test]
fn who_followed_the_chosen_one_goes_before_who_did_not() {
    let scene = lost().promise(quorum(2, &["b", "c", "d"])).with(|scene| {
        scene.servers.push(server(ServerId(3), "d", idle(END)));
    });
    let scene = scene.freeze(ServerId(3), END).freeze_onward(C, END + 5);
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
        scene.freeze_onward(C, END + 5).chosen()
    };
    assert_eq!(onward(1, failover()), None);
    assert!(onward(2, failover()).is_some());
    let accepted = MaxLoss::Any;
    let any = Operation { accepted, ..failover() };
    assert_eq!(onward(1, any.clone()), None, "what is configured is no order");
    let ordered = Operation { by: By::Operator, ..any };
    assert_eq!(onward(1, ordered.clone()), None, "nor does an order say it that names no loss");
    assert!(onward(1, Operation { word: accepted, ..ordered }).is_some());
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
    let scene = old_is_back().freeze_onward(C, END + 5);
    assert_eq!(scene.chosen(), Some((Arc::from("c"), Loss::None)));
    let nobody = scene.with(|scene| scene.at(C).tags.priority = 0);
    assert_eq!(nobody.decide(), Decision::wait(not_taken("a", UNKNOWN)));
    let forced = nobody.order(failover_order(None, MaxLoss::Any));
    let record = forced.written().unwrap();
    assert_eq!(&*record.primary.server, "a");
    assert_eq!(record.changes.last().unwrap().loss, UNKNOWN);
    assert_eq!(forced.answer(), Some(Ok(())));
}

#[test]
fn the_old_primary_does_not_go_on_while_one_could_have_followed_unseen() {
    let scene = old_is_back().see(C, gone(5));
    assert_eq!(scene.decide(), Decision::wait(not_taken("a", UNKNOWN)));
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
    // Of several, `c` alone is seen.
    let gone_for = |seen| lost().see(C, seen).with(|scene| scene.at(C).frozen = None).why();
    assert_ne!(gone_for(primary_on(2)), chosen_lost(), "one of ours says that it is not us");
    assert_eq!(gone_for(of_theirs()), chosen_lost(), "one of theirs says nothing");
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

/// `a` was handed over, is a standby, and `b` was chosen and is gone; then another tool promotes
/// `a` anew, on a branch that left the recorded one there.
fn promoted_anew(left: u64) -> Scene {
    let choice = Choice { server: Arc::from("b"), at: lsn(END), loss: Loss::None };
    let scene = old_is_back().see(A, primary_on(2)).phase(Phase::Promoting(switchover(), choice));
    scene.with(|scene| scene.at(A).history = Some(left_at(left)))
}

#[test]
fn the_old_primary_goes_on_if_another_tool_promoted_it_anew() {
    let record = promoted_anew(END).written().unwrap();
    assert_eq!((record.epoch, &record.phase), (Epoch(6), &Phase::Stable));
    let Appointed { server, epoch, timeline, fork, .. } = &record.primary;
    let expected = ("a", Epoch(6), Timeline(2), Some(lsn(END)));
    assert_eq!((&**server, *epoch, *timeline, *fork), expected);
    let change = record.changes.last().unwrap();
    assert_eq!((change.from.as_deref(), change.loss), (Some("b"), Loss::None));
    assert_eq!(promoted_anew(END).fence(A, 0).acts(), [Act::Unfence(A)]);
    assert!(promoted_anew(END + 5).written().is_some());
}

/// What it may lack, who may rival it, and what is not known of it: an operator must say so.
#[test]
fn a_primary_that_was_promoted_anew_goes_on_by_itself_only_if_it_lacks_nothing() {
    let waits = |scene: Scene, why: Why| assert_eq!(scene.decide(), Decision::wait(why));
    let never = |scene: Scene| scene.with(|scene| scene.at(C).tags.priority = 0);
    waits(never(promoted_anew(END - 1)), not_taken("a", UNKNOWN));
    let lossy = Choice { server: Arc::from("b"), at: lsn(END), loss: Loss::AtMost(5) };
    let phase = Phase::Promoting(switchover(), lossy);
    waits(never(promoted_anew(END).phase(phase)), not_taken("a", UNKNOWN));
    waits(promoted_anew(END).see(C, gone(5)), not_taken("a", UNKNOWN));
    let onward = promoted_anew(END).freeze_onward(C, END + 5);
    assert_eq!(onward.chosen(), Some((Arc::from("c"), Loss::None)));

    let rival = promoted_anew(END).promise(asynchronous()).see(C, primary_on(2));
    let rival = rival.with(|scene| scene.at(C).history = Some(left_at(END)));
    let both = vec![Arc::from("a"), Arc::from("c")];
    waits(rival, Why::SeveralPrimaries(both));

    let unknown = |change: fn(&mut Scene)| never(promoted_anew(END)).with(change);
    for scene in [
        unknown(|scene| scene.at(A).history = None),
        unknown(|scene| scene.at(A).history = Some(History::new(Timeline(2), Vec::new()))),
        unknown(|scene| {
            let fork = Fork { timeline: Timeline(1), at: lsn(END) };
            scene.at(A).history = Some(History::new(Timeline(3), vec![fork]));
        }),
    ] {
        waits(scene.clone(), Why::NoCandidate(Vec::new()));
        assert_eq!(scene.order(any_loss(None)).written(), None);
    }
}

/// A person promoted `c` by hand, because nothing else went on.
fn by_hand() -> Scene {
    let scene = lost().promise(asynchronous()).see(C, primary_on(2));
    scene.with(|scene| {
        scene.at(C).frozen = None;
        scene.at(C).history = Some(left_at(END));
    })
}

#[test]
fn one_that_was_promoted_by_hand_goes_on_by_an_order() {
    assert_eq!(by_hand().decide(), Decision::wait(not_taken("c", Loss::None)));
    let ordered = by_hand().order(failover_order(None, MaxLoss::Bytes(0)));
    let record = ordered.written().unwrap();
    assert_eq!((&*record.primary.server, record.primary.timeline), ("c", Timeline(2)));
    let change = record.changes.last().unwrap();
    assert_eq!((change.by, change.loss), (By::Operator, Loss::None));
    assert_eq!(ordered.answer(), Some(Ok(())));
    assert_eq!(ordered.fence(C, 0).acts(), [Act::Unfence(C)]);

    // Somebody may have gone to the chosen one, and had a commit confirmed.
    let quorum = by_hand().promise(quorum(1, &["b", "c"]));
    assert_eq!(quorum.why(), not_taken("c", UNKNOWN));
    let exact = quorum.clone().order(failover_order(Some("c"), MaxLoss::Bytes(9)));
    assert_eq!((exact.written(), exact.why()), (None, not_taken("c", UNKNOWN)));
    let record = quorum.order(any_loss(Some("c"))).written().unwrap();
    assert_eq!(record.changes.last().unwrap().loss, UNKNOWN);
}

/// A primary whose log is not ours: of another cluster, in the place of one of these servers.
fn of_theirs() -> Sight {
    let role = Standing::Primary { flushed: lsn(END) };
    Sight::Answers(Testimony { at: ms(NOW), system: THEIRS, timeline: Some(Timeline(2)), role })
}

#[test]
fn a_primary_of_another_system_is_nobodys_heir() {
    let both = by_hand().promise(quorum(1, &["b", "c"])).see(A, primary_on(1)).see(C, of_theirs());
    assert_eq!(both.why(), not_taken("a", UNKNOWN));
    let refused = Refusal::Waits(Box::new(Why::NoCandidate(Vec::new())));
    assert_eq!(both.clone().order(any_loss(Some("c"))).acts(), [Act::Answer(Err(refused))]);
    let old = both.order(any_loss(Some("a"))).written().unwrap();
    assert_eq!(&*old.primary.server, "a", "and the other is not fenced for it");
}

/// There are never two that take writes by an order of ours.
#[test]
fn of_several_primaries_an_order_names_one_and_the_others_are_fenced_first() {
    let both = || by_hand().promise(quorum(1, &["b", "c"])).see(A, primary_on(1));
    let several = Why::SeveralPrimaries(vec![Arc::from("a"), Arc::from("c")]);
    assert_eq!(both().decide(), Decision::wait(several.clone()));
    let unnamed = both().order(any_loss(None));
    assert_eq!((unnamed.written(), unnamed.why()), (None, several));
    let named = both().order(any_loss(Some("c"))).fence(C, 0);
    assert_eq!(named.acts(), [Act::Fence(A)]);
    let fenced = named.fence(A, 0);
    assert_eq!(fenced.acts(), [Act::Unfence(C)]);
    let free = fenced.with(|scene| scene.at(C).fenced = None);
    assert_eq!(&*free.written().unwrap().primary.server, "c");
    let old = both().order(any_loss(Some("a"))).fence(C, 0).written().unwrap();
    assert_eq!(&*old.primary.server, "a");
}

#[test]
fn who_is_waited_for_is_named() {
    let more = |sight| {
        lost().promise(asynchronous()).with(|scene| {
            scene.servers.push(server(ServerId(3), "d", sight));
        })
    };
    let unseen = vec![Arc::from("d")];
    let follows = Why::MayFollow { chosen: Arc::from("b"), unseen };
    assert_eq!(more(gone(5)).why(), follows.clone());
    let rival = more(primary_on(2)).order(any_loss(None));
    assert_eq!((rival.written(), rival.why()), (None, follows), "its number is taken");
    // A former primary follows nobody.
    assert!(more(primary_on(1)).chosen().is_some());

    let few = lost().promise(quorum(1, &["b", "c", "d"])).freeze_onward(C, END);
    let few = few.with(|scene| scene.servers.push(server(ServerId(3), "d", gone(5))));
    let missing = vec![loose("d")];
    assert_eq!(few.why(), Why::NotRevoked { frozen: 2, needed: 3, missing });
    let less = lost().freeze(C, END - 10);
    let too_much = Why::TooMuchLoss { candidate: Arc::from("c"), loss: Loss::AtMost(10) };
    assert_eq!(less.why(), too_much);
}

/// It will never be seen again, and so it can't be proved to be gone.
#[test]
fn one_that_is_not_configured_any_more_is_replaced_by_an_order() {
    let removed = |order: Option<Order>| {
        let mut scene = promoting();
        scene.servers.remove(B.index());
        scene.servers[1].id = B;
        scene.order = order;
        scene
    };
    assert_eq!(removed(None).decide(), Decision::wait(chosen_lost()));
    let ordered = removed(Some(failover_order(None, MaxLoss::Bytes(0))));
    assert_eq!(ordered.chosen(), Some((Arc::from("c"), Loss::None)));
    let abort = removed(Some(Order::Abort));
    assert_eq!((abort.written(), abort.answer()), (None, Some(Err(Refusal::TooLate))));
}

/// `c` and `d` are on timeline 2, the one at [`END`] + 5, the other one at [`END`]; both confirm
/// nothing, or nothing more.
fn on_newer(c: Option<History>, d: Option<History>) -> Scene {
    let scene = lost().promise(quorum(1, &["b"])).with(|scene| {
        scene.servers.push(server(D, "d", idle(END)));
    });
    scene.freeze_on_2(C, END + 5).freeze_on_2(D, END).with(|scene| {
        scene.at(C).history = c;
        scene.at(D).history = d;
    })
}

/// It was promoted by mistake and started as a standby again, before the chosen one was chosen.
#[test]
fn whoever_is_on_a_newer_branch_has_it_from_the_chosen_one_only_if_it_left_there() {
    let stray = |history: Option<History>| {
        let scene = on_newer(history, None).promise(quorum(1, &["b", "d"]));
        scene.freeze(D, END)
    };
    let too_much = |loss| Why::TooMuchLoss { candidate: Arc::from("c"), loss };
    for left in [END, END + 5] {
        let chosen = stray(Some(left_at(left))).chosen();
        assert_eq!(chosen, Some((Arc::from("c"), Loss::None)), "{left}");
    }
    let earlier = stray(Some(left_at(END - 500)));
    assert_eq!(earlier.chosen(), None);
    assert_eq!(earlier.why(), too_much(Loss::AtMost(500)));
    let of_3 = History::new(Timeline(3), left_at(END).forks().to_vec());
    for unknown in [None, Some(History::new(Timeline(2), Vec::new())), Some(of_3)] {
        assert_eq!(stray(unknown.clone()).why(), too_much(UNKNOWN), "{unknown:?}");
    }
    let ordered = earlier.order(failover_order(None, MaxLoss::Bytes(500)));
    assert_eq!(ordered.chosen(), Some((Arc::from("c"), Loss::AtMost(500))));
}

/// One of them is not the chosen one's, whichever.
#[test]
fn on_two_newer_branches_nobody_goes_on_by_itself() {
    let both = |c, d| on_newer(Some(left_at(c)), Some(left_at(d)));
    assert_eq!(both(END, END).chosen(), Some((Arc::from("c"), Loss::None)));
    for (c, d) in [(END, END - 500), (END - 500, END), (END, END + 1)] {
        // Which one left later has all of the choice, and is proposed.
        let (scene, candidate) = (both(c, d), Arc::from(if c > d { "c" } else { "d" }));
        assert_eq!(scene.chosen(), None, "{c} {d}");
        assert_eq!(scene.why(), Why::TooMuchLoss { candidate, loss: UNKNOWN }, "{c} {d}");
    }
    let one = on_newer(Some(left_at(END)), None);
    assert_eq!(one.chosen(), None, "the other one's is not known");
}

/// `a` was the primary of timeline 2, which left timeline 1 at [`END`]; `c` is on timeline 3, and
/// has left timelines 1 and 2 there.
fn on_3(scene: Scene, left: [u64; 2]) -> Scene {
    let forks = [1, 2].into_iter().zip(left);
    let forks = forks.map(|(timeline, at)| Fork { timeline: Timeline(timeline), at: lsn(at) });
    scene.with(|scene| {
        scene.record.primary.timeline = Timeline(2);
        scene.record.primary.fork = Some(lsn(END));
        let choice = Choice { server: Arc::from("b"), at: lsn(END + 20), loss: Loss::None };
        scene.record.phase = Phase::Promoting(failover(), choice);
        scene.at(C).history = Some(History::new(Timeline(3), forks.collect()));
    })
}

/// Where that was left tells nothing of the recorded one.
#[test]
fn one_that_comes_by_another_branch_of_the_recorded_number_does_not_stand_in() {
    let by_hand = |left| on_3(by_hand().see(C, primary_on(3)), left);
    assert_eq!(by_hand([END, END + 20]).why(), not_taken("c", Loss::None));
    let elsewhere = by_hand([END - 8, END + 20]);
    assert_eq!(elsewhere.order(any_loss(Some("c"))).written(), None);

    let frozen = |left| {
        let scene = on_3(lost().freeze_on_2(C, END + 30), left);
        scene.with(|scene| {
            scene.at(C).frozen = Some(Frozen { at: lsn(END + 30), timeline: Timeline(3) });
        })
    };
    assert_eq!(frozen([END, END + 20]).chosen(), Some((Arc::from("c"), Loss::None)));
    assert_eq!(frozen([END - 8, END + 20]).chosen(), None);
}
