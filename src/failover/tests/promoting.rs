//! One was chosen: it is promoted, followed, proved and admitted.

use super::*;

fn repoints(scene: &Scene) -> Vec<ServerId> {
    let acts = scene.acts().into_iter().filter_map(|act| {
        let Act::Repoint { server, to } = act else { return None };
        assert_eq!(to, B);
        Some(server)
    });
    acts.collect()
}

fn fences(scene: &Scene) -> Vec<ServerId> {
    let fenced = scene.acts().into_iter().filter_map(|act| {
        let Act::Fence(server) = act else { return None };
        Some(server)
    });
    fenced.collect()
}

#[test]
fn the_chosen_one_alone_is_promoted_until_it_says_that_it_is() {
    let acts = promoting().acts();
    let promoted: Vec<_> = acts.iter().filter(|act| matches!(act, Act::Promote(_))).collect();
    assert_eq!(promoted, [&Act::Promote(B)]);
    assert!(!promoting().see(B, primary_on(2)).acts().contains(&Act::Promote(B)));
}

/// Both would be primaries of one number, and the other one's clients may write there already.
#[test]
fn the_chosen_one_is_not_promoted_beside_one_of_another_tool() {
    let why = Why::Barred { chosen: Arc::from("b"), by: Arc::from("c") };
    let beside = promoting().see(C, primary_on(2));
    assert_eq!(beside.decide(), Decision::wait(why));
    let promoted = promoted().see(C, primary_on(2));
    assert!(promoted.acts().contains(&Act::Prove(B)), "it is one already");
}

/// One look that failed is a full queue, or a crash after which it goes on.
#[test]
fn another_tools_primary_that_is_not_seen_bars_until_it_is_known_to_be_stopped() {
    let silent_after = promoting().policy.silent_after.as_millis().try_into().unwrap();
    let stopped = [gone(2), silent(silent_after)];
    let may_be_there = [gone(1), silent(silent_after - 1), restarting(60_000), full(60_000)];
    for name in [A, C] {
        let beside = promoting().see(name, primary_on(2));
        for sight in may_be_there {
            let bars = beside.clone().lose(name, sight);
            assert!(matches!(bars.why(), Why::Barred { .. }), "{sight:?}: {:?}", bars.decide());
            assert!(!bars.acts().contains(&Act::Promote(B)), "{sight:?}");
        }
        for sight in stopped {
            let goes_on = beside.clone().lose(name, sight);
            assert!(goes_on.acts().contains(&Act::Promote(B)), "{sight:?}");
        }
    }
    let standby = promoting().lose(C, gone(1));
    assert!(standby.acts().contains(&Act::Promote(B)), "it was no primary");
    let older = promoting().see(A, primary_on(1)).lose(A, gone(1));
    assert!(older.acts().contains(&Act::Promote(B)), "it is the one that is replaced");
}

/// A process that has just begun knows of nobody what he is.
#[test]
fn nobody_is_promoted_before_everybody_was_looked_at_once() {
    for name in [A, C] {
        let awaited = promoting().see(name, Sight::Awaited);
        assert_eq!(awaited.why(), Why::Promoting(Arc::from("b")));
        assert!(!awaited.acts().contains(&Act::Promote(B)));
    }
}

/// Whoever is waited for, the old primary takes no writes meanwhile, nor beside who is taken.
#[test]
fn while_another_tool_bars_it_the_old_primary_is_fenced() {
    let barred = promoting().see(C, primary_on(2)).see(A, primary_on(1));
    assert_eq!(barred.acts(), [Act::Fence(A)]);
    let history = |scene: &mut Scene| scene.at(C).history = Some(left_at(END));
    let barred = barred.with(history).order(failover_order(Some("c"), MaxLoss::Any));
    assert_eq!(barred.acts(), [Act::Fence(A)]);
    let taken = barred.fence(A, 0).written().unwrap();
    assert_eq!(&*taken.primary.server, "c");
}

/// The old primary is one that another tool may promote, too, once it has become a standby.
#[test]
fn the_chosen_one_is_not_promoted_beside_the_old_primary_on_a_branch_of_its_own() {
    let why = Why::Barred { chosen: Arc::from("b"), by: Arc::from("a") };
    let beside = promoting().see(A, primary_on(2));
    assert_eq!(beside.decide(), Decision::wait(why));
    let order = failover_order(Some("a"), MaxLoss::Any);
    let history = |scene: &mut Scene| scene.at(A).history = Some(left_at(END));
    let ordered = beside.clone().with(history).order(order);
    let fenced = ordered.clone().fence(A, 0);
    assert_eq!(fenced.acts(), [Act::Unfence(A)], "it was fenced before it followed");
    let taken = ordered.written().unwrap();
    assert_eq!((&*taken.primary.server, taken.primary.timeline), ("a", Timeline(2)));
    assert!(beside.see(A, gone(5)).acts().contains(&Act::Promote(B)), "it was stopped");
    let promoted = promoted().see(A, primary_on(2));
    assert_eq!(fences(&promoted), [A], "both are: one is fenced");
}

#[test]
fn while_the_chosen_one_is_not_seen_nobody_is_promoted() {
    for sight in [Sight::Awaited, gone(1), silent(1_000), restarting(60_000)] {
        let decision = promoting().see(B, sight).decide();
        assert_eq!(decision.why, Why::ChosenLost(Arc::from("b")), "{sight:?}");
        let harmless = |act: &Act| matches!(act, Act::Repoint { server: C, to: B });
        assert!(decision.acts.iter().all(harmless), "{decision:?}");
    }
}

#[test]
fn what_answers_in_the_chosen_ones_place_is_not_promoted() {
    let stranger = match idle(END) {
        Sight::Answers(answer) => Sight::Answers(Testimony { system: THEIRS, ..answer }),
        Sight::Awaited | Sight::Missing(_) => Sight::Awaited,
    };
    let scene = promoting().see(B, stranger);
    assert_eq!(scene.why(), Why::ChosenLost(Arc::from("b")));
    assert!(!scene.acts().contains(&Act::Promote(B)));
}

#[test]
fn a_primary_on_the_old_branch_is_not_the_one_that_was_promoted() {
    let scene = promoted().with(|scene| scene.proved = Some(ms(NOW))).see(B, primary_on(1));
    assert_eq!(scene.why(), Why::ChosenLost(Arc::from("b")));
    assert_eq!(scene.written(), None);
}

#[test]
fn the_others_follow_the_chosen_one() {
    assert_eq!(repoints(&promoting()), [C]);
    assert_eq!(repoints(&promoted()), [C]);
}

#[test]
fn one_that_is_ahead_of_the_chosen_one_never_follows_it() {
    assert_eq!(repoints(&promoting().freeze(C, END + 1)), []);
    assert_eq!(repoints(&promoted().freeze(C, END + 1)), []);
}

/// It was promoted by mistake, to a timeline that has the number of the new one.
#[test]
fn one_on_a_branch_of_the_new_number_that_began_elsewhere_never_follows() {
    let with = |left| {
        let scene = promoted().freeze_on_2(C, END);
        repoints(&scene.with(|scene| scene.at(C).history = Some(left_at(left))))
    };
    assert_eq!(with(END), [C]);
    assert_eq!(with(END - 8), []);
}

/// The rest of a record that never arrived whole is thrown away by both.
#[test]
fn what_was_received_of_a_record_in_part_keeps_nobody_from_following() {
    let role =
        Standing::Standby { received: lsn(END + 30), replayed: lsn(END), receiver: Receiver::Idle };
    let scene = promoted().freeze(C, END + 30).see(C, answers(1, role));
    assert_eq!(repoints(&scene), [C]);
}

/// A process that was restarted does not know whom it froze.
#[test]
fn a_standby_that_hears_from_nobody_is_told_whom_to_follow() {
    let loose = |receiver| {
        let scene = promoted().with(|scene| scene.at(C).frozen = None);
        repoints(&scene.see(C, standby(END, receiver)))
    };
    assert_eq!(loose(Receiver::Idle), [C]);
    assert_eq!(loose(streams(A, 1)), [C], "from the old primary");
    assert_eq!(loose(streams(B, 1)), [], "it does already");
    assert_eq!(loose(Receiver::Hidden), [], "that can't be told");
}

#[test]
fn the_old_primary_that_answers_is_fenced() {
    let back = promoting().see(A, primary_on(1));
    assert_eq!(fences(&back), [A]);
    assert_eq!(fences(&back.clone().fence(A, 0)), [], "it is already");
    assert_eq!(fences(&back.see(A, idle(END))), [], "a standby takes none");
}

#[test]
fn a_server_of_another_system_is_never_fenced() {
    let role = Standing::Primary { flushed: lsn(END) };
    let timeline = Some(Timeline(1));
    let other = Sight::Answers(Testimony { at: ms(NOW), system: THEIRS, timeline, role });
    assert_eq!(fences(&promoting().see(A, other)), []);
}

#[test]
fn a_former_primary_is_fenced_and_the_chosen_one_is_not() {
    let scene = promoted().with(|scene| {
        scene.record.changes.push(change(By::Operator, "b", "a"));
    });
    assert_eq!(fences(&scene), [], "the chosen one was the primary before, too");
    assert_eq!(fences(&scene.see(C, primary_on(1))), [C]);
}

/// An old primary that was made a standby may be promoted again: it is no rival of its own.
#[test]
fn an_old_primary_that_is_promoted_again_is_not_fenced() {
    let choice = Choice { server: Arc::from("a"), at: lsn(END), loss: Loss::None };
    let operation = Operation { to: Some(Arc::from("a")), ..switchover() };
    let scene = scene().phase(Phase::Promoting(operation, choice)).see(A, primary_on(2));
    assert_eq!(fences(&scene), []);
}

#[test]
fn what_is_left_of_a_fence_is_taken_from_the_chosen_one() {
    let scene = promoted().fence(B, 0).with(|scene| scene.proved = Some(ms(NOW)));
    assert!(scene.acts().contains(&Act::Unfence(B)));
    assert_eq!(scene.written(), None, "clients would be let through to it");
    let standby = promoting().fence(B, 0);
    assert!(standby.acts().contains(&Act::Promote(B)), "a standby is promoted as it is");
}

#[test]
fn with_a_quorum_a_commit_is_proved_before_anybody_is_admitted() {
    let since = |ago| promoted().with(|scene| scene.phase_since = ms(NOW - ago));
    assert!(since(1_999).acts().contains(&Act::Prove(B)));
    assert_eq!(since(1_999).written(), None);
    assert!(since(2_000).written().is_some(), "not longer than that");
    let asynchronous = since(100).promise(asynchronous());
    assert!(asynchronous.written().is_some());
}

#[test]
fn a_proof_from_before_the_choice_proves_nothing() {
    let proved = |at| {
        let scene = promoted().with(|scene| scene.phase_since = ms(NOW - 500));
        scene.with(|scene| scene.proved = Some(ms(at))).written()
    };
    assert_eq!(proved(NOW - 501), None);
    assert!(proved(NOW - 500).is_some());
}

#[test]
fn the_admitted_one_is_recorded_with_what_it_cost() {
    let scene = promoted().with(|scene| {
        scene.proved = Some(ms(NOW));
        let loss = Loss::AtMost(9);
        let choice = Choice { server: Arc::from("b"), at: lsn(END), loss };
        scene.record.phase = Phase::Promoting(failover(), choice);
    });
    let acts = scene.acts();
    let [Act::Write(record), Act::Answer(Ok(()))] = acts.as_slice() else { panic!("{acts:?}") };
    assert_eq!((record.epoch, &record.phase), (Epoch(5), &Phase::Stable));
    let primary = &record.primary;
    assert_eq!((&*primary.server, primary.epoch, primary.system), ("b", Epoch(5), OURS));
    assert_eq!((primary.timeline, primary.fork), (Timeline(2), Some(lsn(END))));
    assert_eq!(record.promise.revocation(), None, "its promise was not seen yet");
    let change = record.changes.last().unwrap();
    assert_eq!(
        (change.from.as_deref(), &*change.to, change.loss),
        (Some("a"), "b", Loss::AtMost(9))
    );
    assert_eq!((change.kind, change.by, change.ended), (Kind::Failover, By::Evidence, WALL));
}

#[test]
fn from_here_there_is_no_way_back() {
    let answer = |order| promoting().order(order).answer();
    assert_eq!(answer(Order::Abort), Some(Err(Refusal::TooLate)));
    assert_eq!(promoting().order(Order::Abort).written(), None);
    assert_eq!(answer(switchover_order(None)), Some(Err(Refusal::Busy)));
    assert_eq!(answer(failover_order(Some("c"), MaxLoss::Any)), Some(Err(Refusal::Busy)));
    assert_eq!(answer(failover_order(None, MaxLoss::Any)), None, "it is this one");
    assert_eq!(answer(failover_order(Some("b"), MaxLoss::Any)), None, "it is this one");
}
