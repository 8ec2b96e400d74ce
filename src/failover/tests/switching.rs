//! The primary is well, and hands over.

use super::*;

/// Waits until nobody works on `a` any more.
fn draining(busy: usize) -> Scene {
    scene().phase(Phase::Draining(switchover())).with(|scene| {
        scene.busy = busy;
        scene.phase_since = ms(NOW - 100);
    })
}

/// `a` takes no writes any more, and its log ends at [`END`].
fn fenced() -> Scene {
    handing().fence(A, 0)
}

fn by_restart(scene: Scene) -> Scene {
    scene.with(|scene| scene.policy.demotion = crate::failover::Demotion::CrashRestart)
}

/// It is written that this is undone, and why.
fn undone(scene: &Scene) -> Option<Refusal> {
    let record = scene.written()?;
    match record.phase {
        Phase::Draining(operation) if operation.to.is_none() => {}
        Phase::Stable => {}
        Phase::Draining(_) | Phase::Revoking(_) | Phase::Promoting(..) => return None,
    }
    scene.answer()?.err()
}

#[test]
fn it_begins_with_a_checkpoint_and_then_holds_new_transactions() {
    let ordered = |checkpoint| {
        let scene = scene().order(switchover_order(Some("b")));
        scene.with(|scene| scene.checkpoint = checkpoint)
    };
    assert_eq!(ordered(Checkpoint::Wanted).acts(), [Act::Checkpoint(A)]);
    let wait = Decision::wait(Why::Checkpointing);
    assert_eq!(ordered(Checkpoint::Underway).decide(), wait, "nobody is held for it");
    assert_eq!(ordered(Checkpoint::Underway).see(A, gone(1)).decide(), wait, "a late answer");
    let rival = ordered(Checkpoint::Underway).with(|scene| {
        scene.record.changes.push(change(By::Operator, "c", "a"));
    });
    let rival = rival.promise(quorum(1, &["b"])).see(C, primary_on(1));
    assert_eq!(rival.acts(), [Act::Fence(C)], "one that was replaced is not waited for");
    let lost = dead(ordered(Checkpoint::Underway));
    assert_eq!(lost.answer(), Some(Err(Refusal::PrimaryLost)), "and it waits for nothing else");
    let acts = ordered(Checkpoint::Past).acts();
    let [Act::Write(record)] = acts.as_slice() else { panic!("{acts:?}") };
    assert_eq!(record.epoch, Epoch(6));
    assert_eq!(record.phase, Phase::Draining(switchover()));
}

#[test]
fn who_does_not_fit_is_refused_before_anything_is_done() {
    let name = Arc::from;
    let far = 16 * 1024 * 1024 + 1;
    let ahead = |scene: Scene, by: u64| {
        scene.see(A, answers(1, Standing::Primary { flushed: lsn(END + by) }))
    };
    let role =
        Standing::Standby { received: lsn(END), replayed: lsn(END), receiver: streams(A, 1) };
    let stranger = match answers(1, role) {
        Sight::Answers(answer) => Sight::Answers(Testimony { system: THEIRS, ..answer }),
        Sight::Awaited | Sight::Missing(_) => Sight::Awaited,
    };
    let cases = [
        ("unknown", scene(), Some("z"), Refusal::NoSuchServer(name("z"))),
        ("itself", scene(), Some("a"), Refusal::IsPrimary(name("a"))),
        (
            "never",
            scene().with(|s| s.at(B).tags.priority = 0),
            Some("b"),
            Refusal::MayNotLead(name("b")),
        ),
        ("not seen", scene().see(B, gone(1)), Some("b"), Refusal::NotAStandby(name("b"))),
        ("idle", scene().see(B, idle(END)), Some("b"), Refusal::NotAStandby(name("b"))),
        ("another system", scene().see(B, stranger), Some("b"), Refusal::NotAStandby(name("b"))),
        (
            "another branch",
            scene().see(B, answers(2, role)),
            Some("b"),
            Refusal::NotAStandby(name("b")),
        ),
        (
            "far behind",
            ahead(scene(), far),
            Some("b"),
            Refusal::TooFarBehind { server: name("b"), bytes: far },
        ),
        ("all far behind", ahead(scene(), far), None, Refusal::NoCandidate),
        (
            "not enough",
            scene().see(C, gone(1)),
            Some("b"),
            Refusal::TooFewStandbys { reached: 1, needed: 2 },
        ),
    ];
    for (case, scene, to, refusal) in cases {
        assert_eq!(scene.order(switchover_order(to)).acts(), [Act::Answer(Err(refusal))], "{case}");
    }
    assert!(ahead(scene(), far - 1).order(switchover_order(None)).written().is_some());
    let restart = by_restart(scene().see(C, gone(1))).order(switchover_order(None));
    assert!(restart.written().is_some(), "a standby needs no revocation");
}

#[test]
fn what_would_stop_it_half_way_refuses_it() {
    let what: Arc<str> = Arc::from("a: something is lacking");
    let scene = scene().with(|scene| {
        scene.obstacle = Some(Arc::clone(&what));
        scene.checkpoint = Checkpoint::Wanted;
    });
    let refusal = Refusal::Obstacle(what);
    let preview = scene.preview(&switchover_order(None));
    assert_eq!((preview.to.as_deref(), preview.refusal), (Some("b"), Some(refusal.clone())));
    let ordered = scene.clone().order(switchover_order(None));
    assert_eq!(ordered.acts(), [Act::Answer(Err(refusal))]);
    let dead = dead(scene);
    assert_eq!(dead.preview(&failover_order(None, MaxLoss::Any)).refusal, None, "it is tried");
    assert!(dead.order(failover_order(None, MaxLoss::Any)).written().is_some());
}

#[test]
fn the_preferred_standby_is_handed_over_to_then_the_nearest() {
    let to = |scene: &Scene| {
        let record = scene.clone().order(switchover_order(None)).written().unwrap();
        record.operation().unwrap().to.clone().unwrap()
    };
    let scene = scene().see(A, answers(1, Standing::Primary { flushed: lsn(50_000) }));
    let at = |scene: Scene, id, held| scene.see(id, standby(held, streams(A, 1)));
    let near = at(at(scene.clone(), B, 30_000), C, 49_000);
    assert_eq!(&*to(&near), "c");
    let preferred = near.with(|scene| scene.at(B).tags.priority = 2);
    assert_eq!(&*to(&preferred), "b");
    let equal = at(at(scene, B, 48_000), C, 49_000);
    assert_eq!(&*to(&equal), "b", "less than a page is no difference");
}

/// The transactions had their time.
fn overdue(scene: Scene) -> Scene {
    scene.with(|scene| scene.phase_since = ms(NOW - 5_000))
}

/// Nobody is at the primary's, and nobody hears from it.
fn dead(scene: Scene) -> Scene {
    scene.see(A, gone(2)).see(B, idle(END)).see(C, idle(END))
}

#[test]
fn transactions_get_their_time_to_end() {
    assert_eq!(draining(2).decide(), Decision::wait(Why::Draining { busy: 2 }));
    assert_eq!(undone(&overdue(draining(2))), Some(Refusal::DrainTimedOut { busy: 2 }));
    let record = draining(0).written().unwrap();
    assert_eq!(record.phase, Phase::Revoking(switchover()));
    let held_up = undone(&overdue(draining(0)));
    assert_eq!(held_up, Some(Refusal::StepTimedOut), "nobody expects it any more");
}

#[test]
fn an_answer_that_is_late_does_not_end_it() {
    let late = draining(0).see(A, gone(1));
    assert_eq!(late.decide(), Decision::wait(Why::Draining { busy: 0 }));
    assert_eq!(undone(&overdue(late)), Some(Refusal::LostInBetween));
    assert_eq!(undone(&dead(draining(0))), Some(Refusal::LostInBetween));
}

#[test]
fn while_they_end_it_is_called_off_for_any_reason() {
    let cases = [
        (draining(1).order(Order::Abort), Refusal::CalledOff),
        (overdue(draining(1)).see(A, gone(1)), Refusal::LostInBetween),
        (dead(draining(1)), Refusal::LostInBetween),
        (draining(1).see(A, idle(END)), Refusal::LostInBetween),
        (draining(0).see(B, gone(1)), Refusal::NotAStandby(Arc::from("b"))),
        (draining(0).see(C, primary_on(2)), Refusal::PromotedElsewhere(Arc::from("c"))),
    ];
    for (scene, refusal) in cases {
        assert_eq!(undone(&scene), Some(refusal));
        assert_eq!(scene.written().unwrap().phase, Phase::Stable, "nothing was done yet");
    }
}

/// This process was restarted in the middle, and looks at everybody first.
#[test]
fn one_that_is_not_seen_yet_does_not_end_it() {
    let wait = Decision::wait(Why::Draining { busy: 0 });
    let unseen = |phase, ago| {
        let scene = fenced().phase(phase).see(B, Sight::Awaited);
        scene.with(|scene| scene.phase_since = ms(NOW - ago))
    };
    assert_eq!(unseen(Phase::Draining(switchover()), 100).decide(), wait);
    // Else those that were frozen and are not seen would stay so, and a fence would.
    let undone_unseen = |ago| unseen(undoing(), ago).see(A, Sight::Awaited).see(C, idle(END));
    assert_eq!(undone_unseen(3_999).decide(), wait);
    assert_eq!(undone_unseen(4_000).why(), Why::Aborting(Refusal::CalledOff), "not for ever");
    let away = Why::Aborting(Refusal::NotAStandby(Arc::from("b")));
    assert_eq!(unseen(Phase::Draining(switchover()), 4_000).why(), away, "not for ever");
}

#[test]
fn an_order_that_is_not_this_is_refused() {
    for scene in [draining(1), fenced()] {
        let busy = Some(Err(Refusal::Busy));
        let answer = |order| scene.clone().order(order).answer();
        assert_eq!(answer(failover_order(None, MaxLoss::Any)), busy);
        assert_eq!(answer(switchover_order(Some("c"))), busy);
        assert_eq!(answer(switchover_order(Some("b"))), None);
        assert_eq!(answer(switchover_order(None)), None);
    }
}

#[test]
fn the_old_primary_is_fenced_before_anybody_is_frozen() {
    assert_eq!(handing().acts(), [Act::Fence(A)]);
}

#[test]
fn foreign_writers_end_it() {
    assert_eq!(undone(&handing().fence(A, 3)), Some(Refusal::ForeignWriters(3)));
}

#[test]
fn the_chosen_one_gets_the_tail_before_it_is_frozen() {
    let behind = fenced().see(B, standby(END - 1, streams(A, 1)));
    assert_eq!(behind.decide(), Decision::wait(Why::Tail(Arc::from("b"))));
    assert_eq!(fenced().acts(), [Act::Freeze(B), Act::Freeze(C)]);
    let frozen = fenced().freeze(B, END - 1);
    assert_eq!(frozen.acts(), [Act::Unfreeze(B)], "frozen too early, by a process before this one");
}

#[test]
fn a_standby_of_another_system_is_left_alone() {
    let stranger = match idle(END) {
        Sight::Answers(answer) => Sight::Answers(Testimony { system: THEIRS, ..answer }),
        Sight::Awaited | Sight::Missing(_) => Sight::Awaited,
    };
    assert_eq!(fenced().see(C, stranger).acts(), [Act::Freeze(B)]);
}

#[test]
fn one_that_was_frozen_later_may_hold_more_and_is_caught_up_with() {
    let scene = fenced().freeze(B, END).freeze(C, END + 56);
    assert_eq!(scene.acts(), [Act::Repoint { server: B, to: C }]);
}

#[test]
fn it_is_chosen_without_a_loss_whatever_was_acknowledged() {
    for acknowledged in [Acknowledged::Unknown, Acknowledged::Beyond(lsn(END))] {
        let scene = fenced().freeze(B, END).freeze(C, END).promise(asynchronous());
        let scene = scene.with(|scene| scene.acknowledged = acknowledged);
        assert_eq!(scene.chosen(), Some((Arc::from("b"), Loss::None)));
    }
}

#[test]
fn too_few_that_are_frozen_end_it_unless_the_old_one_is_a_standby() {
    let scene = fenced().freeze(B, END).see(C, gone(1));
    assert_eq!(undone(&scene), Some(Refusal::TooFewStandbys { reached: 1, needed: 2 }));
    let demoted = by_restart(scene).see(A, idle(END));
    assert_eq!(demoted.chosen(), Some((Arc::from("b"), Loss::None)));
}

#[test]
fn a_superuser_makes_it_restart_as_a_standby() {
    assert_eq!(by_restart(fenced()).acts(), [Act::Demote { server: A, to: B }]);
    let away = |ago| by_restart(fenced()).see(A, restarting(ago)).freeze(B, END).freeze(C, END);
    assert_eq!(away(1_999).decide(), Decision::wait(Why::Handing));
    assert!(away(2_000).chosen().is_some(), "it does not come back, and all of it is here");
}

/// What it replayed after its restart is all there is, and more than was known before.
#[test]
fn the_end_of_a_restarted_primary_is_what_it_replayed() {
    let scene = by_restart(fenced()).see(A, idle(END + 10));
    assert_eq!(scene.why(), Why::Tail(Arc::from("b")));
    let caught_up = scene.see(B, standby(END + 10, streams(A, 1)));
    assert!(caught_up.acts().contains(&Act::Freeze(B)));
    assert!(!caught_up.acts().contains(&Act::Freeze(A)), "it follows the other already");
}

/// Restarted in the middle, this process does not know that it had fenced it.
#[test]
fn a_restart_of_ours_does_not_take_a_demotion_for_a_loss() {
    let forgotten = |sight| by_restart(handing()).see(A, sight).freeze(B, END).freeze(C, END);
    assert_eq!(forgotten(restarting(500)).decide(), Decision::wait(Why::Handing));
    assert_eq!(undone(&forgotten(gone(5)).see(A, restarting(2_000))), Some(Refusal::LostInBetween));
    assert!(forgotten(idle(END)).chosen().is_some());
    let unseen = forgotten(idle(END)).see(C, Sight::Awaited);
    assert_eq!(unseen.decide(), Decision::wait(Why::Handing), "everybody is looked at first");
}

#[test]
fn a_primary_that_dies_before_it_was_fenced_ends_it() {
    assert_eq!(undone(&handing().see(A, gone(1))), Some(Refusal::LostInBetween));
}

#[test]
fn a_primary_that_dies_after_it_was_fenced_is_succeeded_all_the_same() {
    let scene = fenced().see(A, gone(5)).freeze(B, END).freeze(C, END);
    assert_eq!(scene.chosen(), Some((Arc::from("b"), Loss::None)));
}

#[test]
fn what_answers_in_the_old_ones_place_is_not_fenced() {
    let role = Standing::Primary { flushed: lsn(END) };
    let timeline = Some(Timeline(1));
    let other = Sight::Answers(Testimony { at: ms(NOW), system: THEIRS, timeline, role });
    assert_eq!(undone(&handing().see(A, other)), Some(Refusal::LostInBetween));
}

#[test]
fn a_step_that_takes_too_long_ends_it() {
    let late = |scene: Scene| scene.with(|scene| scene.phase_since = ms(NOW - 4_000));
    assert_eq!(undone(&late(handing())), Some(Refusal::StepTimedOut));
    let behind = fenced().see(B, standby(END - 1, streams(A, 1)));
    assert_eq!(undone(&late(behind)), Some(Refusal::StepTimedOut));
    let ready = late(fenced().freeze(B, END).freeze(C, END));
    assert!(ready.chosen().is_some(), "the choice is no wait");
}

#[test]
fn other_reasons_to_end_it() {
    let cases = [
        (fenced().order(Order::Abort), Refusal::CalledOff),
        (fenced().see(B, gone(1)), Refusal::NotAStandby(Arc::from("b"))),
        (fenced().see(C, primary_on(2)), Refusal::PromotedElsewhere(Arc::from("c"))),
        (
            fenced().freeze(B, END).freeze(C, END).with(|scene| scene.at(B).tags.priority = 0),
            Refusal::NoCandidate,
        ),
    ];
    for (scene, refusal) in cases {
        assert_eq!(undone(&scene), Some(refusal));
    }
}

/// Otherwise the next round would go on where it was, once the reason to end it is undone.
#[test]
fn that_it_is_undone_is_recorded_before_anything_is() {
    let scene = handing().fence(A, 3);
    let record = scene.written().unwrap();
    assert_eq!(record.phase, Phase::Draining(Operation { to: None, ..switchover() }));
    assert!(!scene.acts().contains(&Act::Unfence(A)));
    let next = scene.phase(record.phase);
    assert_eq!(next.acts(), [Act::Unfence(A)]);
    let free = next.with(|scene| scene.at(A).fenced = None);
    assert_eq!(free.written().unwrap().phase, Phase::Stable);
}

#[test]
fn while_it_is_undone_no_order_but_to_call_it_off_fits() {
    let undoing =
        handing().fence(A, 0).phase(Phase::Draining(Operation { to: None, ..switchover() }));
    for order in [switchover_order(None), failover_order(None, MaxLoss::Any)] {
        assert_eq!(undoing.clone().order(order).answer(), Some(Err(Refusal::Busy)));
    }
    assert_eq!(undoing.order(Order::Abort).acts(), [Act::Unfence(A)]);
}

/// It can't be made a primary again but by promoting it.
#[test]
fn a_primary_that_restarted_as_a_standby_is_promoted_again() {
    let choice = Choice { server: Arc::from("a"), at: lsn(END), loss: Loss::None };
    let operation = Operation { to: Some(Arc::from("a")), ..switchover() };
    let again = Phase::Promoting(operation, choice);
    let restarted = by_restart(fenced()).see(A, idle(END));
    let called_off = restarted.clone().order(Order::Abort);
    assert_eq!(called_off.written().unwrap().phase, again);
    assert_eq!(called_off.answer(), Some(Err(Refusal::CalledOff)));
    let undoing = restarted.phase(undoing());
    assert_eq!(undoing.written().unwrap().phase, again);
    let once_more = undoing.order(Order::Abort);
    assert_eq!(once_more.written().unwrap().phase, again, "whoever says so twice");
}

fn undoing() -> Phase {
    Phase::Draining(Operation { to: None, ..switchover() })
}

/// Clients may write to that one already: two of one number would take writes.
#[test]
fn nobody_is_promoted_again_beside_one_that_another_tool_promoted() {
    let elsewhere = || Refusal::PromotedElsewhere(Arc::from("c"));
    let scene = |sight| by_restart(fenced()).see(A, sight).see(C, primary_on(2));
    let given_up = |scene: &Scene| {
        assert_eq!(undone(scene), Some(elsewhere()));
        assert_eq!(scene.why(), Why::Aborting(elsewhere()));
        scene.written().unwrap().phase
    };
    for sight in [idle(END), restarting(500), gone(5)] {
        let scene = |sight| scene(sight).with(|scene| scene.at(C).history = Some(left_at(END)));
        assert_eq!(given_up(&scene(sight)), undoing());
        assert_eq!(given_up(&scene(sight).order(Order::Abort)), undoing());
        let next = scene(sight).phase(undoing());
        assert_eq!(given_up(&next), Phase::Stable, "and its return is not waited for: {sight:?}");
        assert_eq!(given_up(&next.order(Order::Abort)), Phase::Stable, "whoever says so");
    }
    let unseen = scene(idle(END)).lose(C, gone(1)).phase(undoing());
    assert_eq!(unseen.decide(), Decision::wait(Why::Aborting(elsewhere())), "what it holds shows");
    let standing = scene(primary_on(1)).phase(undoing());
    assert_eq!(standing.acts(), [Act::Unfence(A)], "one that never restarted is freed");
}

/// The old one is a standby by our doing, and not because somebody gave up what only it holds.
#[test]
fn one_that_lacks_what_the_old_one_wrote_does_not_get_its_place_unasked() {
    let choice = Choice { server: Arc::from("a"), at: lsn(END), loss: Loss::None };
    let again = Operation { to: Some(Arc::from("a")), ..switchover() };
    let again = Phase::Promoting(again, choice);
    let scene = |sight, left| {
        let scene = by_restart(fenced()).see(A, sight).see(C, primary_on(2)).phase(undoing());
        scene.with(|scene| scene.at(C).history = left)
    };
    for left in [None, Some(left_at(END - 8))] {
        let demoted = scene(idle(END), left.clone());
        assert_eq!(demoted.written().unwrap().phase, again, "it is chosen, and waits");
        let elsewhere = Refusal::PromotedElsewhere(Arc::from("c"));
        assert_eq!(demoted.why(), Why::Aborting(elsewhere.clone()));
        let restarts = scene(restarting(500), left.clone());
        assert_eq!(restarts.decide(), Decision::wait(Why::Aborting(elsewhere)));
        // It has not replayed to where it was fenced.
        let early = scene(idle(END - 8), left);
        assert!(matches!(early.written().unwrap().phase, Phase::Promoting(..)));
    }
    let waits = scene(idle(END), Some(left_at(END - 8))).phase(again);
    let why = Why::Barred { chosen: Arc::from("a"), by: Arc::from("c") };
    assert_eq!(waits.decide(), Decision::wait(why.clone()));
    let stopped = waits.clone().see(C, gone(5));
    assert!(stopped.acts().contains(&Act::Promote(A)), "once the other is stopped, it goes on");

    let order = |to, accept| waits.clone().order(failover_order(to, accept));
    let refused = Some(Err(Refusal::Waits(Box::new(why))));
    for (to, accept) in
        [(None, MaxLoss::Any), (Some("b"), MaxLoss::Any), (Some("c"), MaxLoss::Bytes(1 << 40))]
    {
        assert_eq!(order(to, accept).answer(), refused, "{to:?} {accept:?}");
        assert_eq!(order(to, accept).written(), None);
    }
    let taken = order(Some("c"), MaxLoss::Any);
    let record = taken.written().unwrap();
    assert_eq!((&*record.primary.server, &record.phase), ("c", &Phase::Stable));
    assert_eq!(record.primary.fork, Some(lsn(END - 8)));
    let change = record.changes.last().unwrap();
    assert_eq!(change.loss, Loss::Unknown { at_least: 0 });
    assert_eq!(taken.answer(), Some(Ok(())));
}

/// It was told to, or may have been, when the switchover was called off: nobody else would promote
/// what it is once it is back.
#[test]
fn a_primary_that_restarts_while_it_is_called_off_is_waited_for() {
    let wait = Decision::wait(Why::Aborting(Refusal::CalledOff));
    let away = |mode, sight| {
        let scene = by_restart(dead(fenced())).see(A, sight).phase(undoing());
        scene.with(|scene| scene.policy.mode = mode)
    };
    // An attempt to free it that failed leaves open whether it was freed.
    let unknown = |scene: Scene| scene.with(|scene| scene.at(A).fenced = None);
    for mode in [Mode::Manual, Mode::Auto] {
        let restarts = away(mode, restarting(9_999));
        assert_eq!(restarts.decide(), wait, "{mode:?}");
        assert_eq!(unknown(restarts.clone()).decide(), wait, "{mode:?}");
        assert_eq!(restarts.order(Order::Abort).decide(), wait, "{mode:?}");
        let too_long = away(mode, restarting(10_000));
        assert_eq!(undone(&too_long), Some(Refusal::CalledOff), "{mode:?}");
        let fenced = away(mode, restarting(500));
        let fenced = fenced.with(|s| s.policy.demotion = crate::failover::Demotion::Fence);
        assert_eq!(undone(&fenced), Some(Refusal::CalledOff), "{mode:?}: it was told nothing");
    }
    assert_eq!(away(Mode::Manual, gone(5)).decide(), wait);
    let replaced = away(Mode::Auto, gone(5));
    assert_eq!(undone(&replaced), Some(Refusal::CalledOff), "nobody is there, and auto goes on");
}

/// It answered as a primary, and was made to crash a moment later.
#[test]
fn an_answer_of_before_an_attempt_to_free_it_does_not_count_as_its_return() {
    let failed = |at| {
        let scene = by_restart(handing()).phase(undoing());
        scene.with(|scene| scene.at(A).failed = Some(ms(at)))
    };
    let asked = NOW - 50;
    assert_eq!(failed(asked).decide(), Decision::wait(Why::Aborting(Refusal::CalledOff)));
    assert_eq!(undone(&failed(asked - 1)), Some(Refusal::CalledOff));
}
