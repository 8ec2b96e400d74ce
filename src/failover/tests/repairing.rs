//! While the primary is well: promises, lost standbys, former primaries.

use super::*;
use crate::failover::{Astray, Catching, CutOff, Demotable, Rejoin, WeakPromise};

const MANUAL: fn(&mut Scene) = |scene| scene.policy.mode = Mode::Manual;

/// Its settings have promised this for five seconds.
fn promises(promise: Promise) -> Scene {
    scene().with(|scene| scene.promise = Some((promise, ms(NOW - 5_000))))
}

fn recorded(scene: &Scene) -> Option<Promise> {
    scene.written().map(|record| record.promise)
}

/// `b` is the primary on timeline 2, which left timeline 1 at [`END`] by our doing.
fn changed() -> Scene {
    let role =
        Standing::Standby { received: lsn(END), replayed: lsn(END), receiver: streams(B, 1) };
    let mut scene = scene().see(B, primary_on(2)).see(A, gone(5)).see(C, answers(2, role));
    scene.at(B).history = Some(left_at(END));
    scene.record.primary.server = Arc::from("b");
    scene.record.primary.epoch = scene.record.epoch;
    scene.record.primary.timeline = Timeline(2);
    scene.record.primary.fork = Some(lsn(END));
    scene.record.promise = quorum(1, &["a", "c"]);
    let timeline = Timeline(2);
    scene.record.changes.push(Change { timeline, ..change(By::Evidence, "a", "b") });
    scene
}

#[test]
fn nothing_is_done_while_all_is_well() {
    assert_eq!(scene().decide(), Decision::wait(Why::AllWell));
    assert_eq!(changed().decide(), Decision::wait(Why::AllWell));
    assert_eq!(promises(quorum(1, &["b", "c"])).decide(), Decision::wait(Why::AllWell));
}

#[test]
fn a_weaker_promise_is_recorded_at_once() {
    let weak = Promise::Asynchronous(WeakPromise::Anyone);
    let scene = promises(weak.clone());
    assert_eq!(recorded(&scene), Some(weak));
    assert_eq!(scene.written().unwrap().epoch, scene.record.epoch);
}

#[test]
fn a_stronger_promise_is_recorded_once_a_commit_proved_it() {
    let strong = quorum(1, &["b", "c"]);
    let scene = promises(strong.clone()).promise(asynchronous());
    assert_eq!(scene.acts(), [Act::Prove(A)]);
    let proved = |at| scene.clone().with(|scene| scene.proved = Some(ms(at)));
    assert_eq!(recorded(&proved(NOW - 5_001)), None, "before it was seen");
    assert_eq!(recorded(&proved(NOW - 5_000)), Some(strong));
}

/// What is frozen by the recorded promise must be enough for the one in use.
#[test]
fn a_quorum_that_the_recorded_one_does_not_cover_is_not_counted_on() {
    let unproved = Promise::Asynchronous(WeakPromise::NotSeen);
    let cases = [
        ((2, &["b", "c", "d"][..]), (1, &["b", "c", "d"][..]), true),
        ((1, &["b", "c"][..]), (1, &["b", "c", "d"][..]), true),
        ((1, &["b", "c"][..]), (1, &["c", "d"][..]), true),
        ((1, &["b", "c", "d"][..]), (2, &["b", "c", "d"][..]), false),
        ((1, &["b", "c"][..]), (1, &["b"][..]), false),
        ((1, &["b", "c", "d"][..]), (2, &["b", "c"][..]), false),
        ((2, &["b", "c", "d"][..]), (2, &["b", "c"][..]), false),
        ((2, &["b", "c", "d"][..]), (1, &["b", "c"][..]), true),
    ];
    for ((w, cohort), (next, now), uncovered) in cases {
        let scene = promises(quorum(next, now)).promise(quorum(w, cohort));
        let expected = uncovered.then(|| unproved.clone());
        assert_eq!(recorded(&scene), expected, "{w} of {cohort:?}, then {next} of {now:?}");
    }
}

/// Whoever is missing may be the very one who is to confirm it.
#[test]
fn a_proof_that_does_not_come_holds_up_no_repair() {
    let scene = promises(quorum(1, &["b", "c"])).promise(asynchronous()).see(C, idle(END));
    assert_eq!(scene.acts(), [Act::Prove(A), Act::Repoint { server: C, to: A }]);
}

#[test]
fn a_fenced_primary_is_freed_and_not_asked_for_a_proof() {
    assert_eq!(scene().fence(A, 0).acts(), [Act::Unfence(A)]);
    let scene = promises(quorum(1, &["b", "c"])).promise(asynchronous()).fence(A, 0);
    assert_eq!(scene.acts(), [Act::Unfence(A)]);
}

#[test]
fn in_off_only_the_promise_is_followed() {
    let off = |scene: Scene| scene.with(|scene| scene.policy.mode = Mode::Off);
    let weak = Promise::Asynchronous(WeakPromise::Anyone);
    assert_eq!(recorded(&off(promises(weak.clone()))), Some(weak));
    assert_eq!(off(scene().freeze(C, END)).acts(), []);
    assert_eq!(off(changed().see(A, primary_on(1))).acts(), []);
}

#[test]
fn a_standby_that_hears_from_nobody_follows_the_primary_again() {
    let repoint = [Act::Repoint { server: C, to: A }];
    assert_eq!(scene().see(C, idle(END)).acts(), repoint);
    assert_eq!(scene().freeze(C, END).acts(), repoint, "one that we froze");
    assert_eq!(scene().see(C, standby(END, Receiver::Hidden)).acts(), []);
    let unknown = Receiver::Streams { from: None, heard: Duration::ZERO, written: None };
    assert_eq!(scene().see(C, standby(END, unknown)).acts(), [], "from whom can't be told");
}

#[test]
fn who_does_not_follow_is_named_and_what_is_in_the_way() {
    let lost = scene().see(C, idle(END));
    let astray = |trouble| vec![Astray { server: "c".into(), trouble }];
    assert_eq!(lost.why(), Why::Repairing(astray(None)));
    let trouble: Option<Arc<str>> = Some("nobody lets it in".into());
    let told = lost.with(|scene| {
        let trouble = trouble.clone();
        scene.at(C).catching = Some(Catching { from: A, since: ms(NOW), trouble });
    });
    assert_eq!(told.why(), Why::Repairing(astray(trouble)));
    let words = told.why().to_string();
    assert!(words.contains("c (it can't: nobody lets it in) is made to follow"), "{words}");
    let fenced = scene().with(|scene| {
        scene.at(A).fenced = Some(Fenced { end: lsn(END), foreign: 0 });
    });
    assert_eq!(fenced.why(), Why::Repairing(Vec::new()), "of nobody but the primary");
}

#[test]
fn in_manual_only_what_we_did_ourselves_is_put_in_order() {
    let quiet = |scene: Scene| scene.with(|scene| scene.record.epoch = scene.record.primary.epoch);
    let idle_one = scene().see(C, idle(END)).with(MANUAL);
    assert_eq!(quiet(idle_one.clone()).acts(), [], "an operator's business");
    let repoint = |to| [Act::Repoint { server: C, to }];
    assert_eq!(
        idle_one.clone().acts(),
        repoint(A),
        "an attempt was called off that may have frozen it"
    );
    assert_eq!(quiet(scene().freeze(C, END)).with(MANUAL).acts(), repoint(A));
    let noted = quiet(idle_one).with(|scene| scene.at(C).tags.cut_off = CutOff::ByUs);
    assert_eq!(noted.acts(), repoint(A), "we did freeze it, whoever changed the primary since");
    let missed = changed().see(C, idle(END)).with(MANUAL);
    assert_eq!(missed.acts(), repoint(B), "it missed our change");
    let theirs = missed.with(|scene| scene.record.changes = vec![change(By::Outside, "a", "b")]);
    assert_eq!(theirs.acts(), []);
    let role =
        Standing::Standby { received: lsn(END), replayed: lsn(END), receiver: Receiver::Idle };
    let followed = changed().see(C, answers(2, role)).with(MANUAL);
    assert_eq!(followed.acts(), [], "it had followed");
    let dropped = changed().see(A, answers(2, role)).with(MANUAL);
    assert_eq!(dropped.acts(), [Act::Repoint { server: A, to: B }]);
}

#[test]
fn a_standby_follows_only_if_it_holds_nothing_that_the_primary_lacks() {
    let held = |received, replayed| {
        let role = Standing::Standby {
            received: lsn(received),
            replayed: lsn(replayed),
            receiver: Receiver::Idle,
        };
        changed().see(C, answers(1, role)).acts()
    };
    let repoint = [Act::Repoint { server: C, to: B }];
    assert_eq!(held(END, END), repoint);
    assert_eq!(held(END + 30, END), repoint, "a record that never arrived whole");
    assert_eq!(held(END + 1, END + 1), []);
    let unknown = changed().see(C, idle(END)).with(|scene| scene.at(B).history = None);
    assert_eq!(unknown.acts(), [], "where the branch was left is not known");
}

#[test]
fn a_standby_behind_a_standby_stays_unless_its_word_counts() {
    let behind = scene().see(C, follows(B));
    assert_eq!(behind.acts(), [Act::Repoint { server: C, to: A }]);
    assert_eq!(behind.promise(quorum(1, &["b"])).acts(), []);
}

#[test]
fn a_standby_of_a_former_primary_is_taken_from_it() {
    let scene = changed().see(A, primary_on(1)).see(C, standby(END, streams(A, 1)));
    assert!(scene.acts().contains(&Act::Repoint { server: C, to: B }));
}

#[test]
fn a_standby_of_another_system_is_left_alone() {
    let stranger = match idle(END) {
        Sight::Answers(answer) => Sight::Answers(Testimony { system: THEIRS, ..answer }),
        Sight::Awaited | Sight::Missing(_) => Sight::Awaited,
    };
    assert_eq!(scene().see(C, stranger).acts(), []);
}

#[test]
fn a_former_primary_is_fenced_if_we_made_the_change() {
    let ahead = Standing::Primary { flushed: lsn(END + 1) };
    let scene = changed().see(A, answers(1, ahead));
    assert_eq!(scene.acts(), [Act::Fence(A)]);
    assert_eq!(scene.clone().fence(A, 0).acts(), [], "it is already");
    assert_eq!(scene.clone().with(MANUAL).acts(), [Act::Fence(A)]);
    let theirs = scene.with(|scene| scene.record.changes = vec![change(By::Outside, "a", "b")]);
    assert_eq!(theirs.acts(), [], "another tool puts its own changes in order");
}

/// It takes writes from whoever reaches it, and the more so while nobody else does.
#[test]
fn a_former_primary_is_fenced_while_its_successor_is_lost() {
    let lost = |back| changed().see(B, gone(5)).see(A, back);
    let soon = |scene: &mut Scene| scene.last_automatic = Some(ms(NOW));
    for waits in [MANUAL, soon] {
        assert_eq!(lost(primary_on(1)).with(waits).acts(), [Act::Fence(A)]);
        assert_eq!(lost(primary_on(3)).with(waits).acts(), [], "somebody has promoted it anew");
    }
    assert_eq!(lost(primary_on(1)).with(|scene| scene.policy.mode = Mode::Off).acts(), []);
}

/// A fence would write to its log, and so make it diverge.
#[test]
fn a_former_primary_that_lacks_nothing_is_made_to_follow_where_it_may_be_restarted() {
    let back = |flushed| {
        let role = Standing::Primary { flushed: lsn(flushed) };
        changed().see(A, answers(1, role))
    };
    let demote = [Act::Demote { server: A, to: B }];
    assert_eq!(back(END).acts(), demote);
    assert_eq!(back(END - 1).acts(), demote);
    assert_eq!(back(END + 1).acts(), [Act::Fence(A)], "it holds what the primary never will");
    let unknown = back(END).with(|scene| scene.at(B).history = None);
    assert_eq!(unknown.acts(), [Act::Fence(A)], "where the branch was left is not known");
    let cannot = back(END).with(|scene| scene.at(A).tags.demotable = Demotable::No);
    assert_eq!(cannot.acts(), [Act::Fence(A)], "it was tried in vain");
    let unwanted = back(END).with(|scene| scene.policy.rejoin = Rejoin::Fence);
    assert_eq!(unwanted.acts(), [Act::Fence(A)], "its operator is to do it");
    let theirs = back(END).with(|scene| scene.record.changes = vec![change(By::Outside, "a", "b")]);
    assert_eq!(theirs.acts(), []);
}

/// It was chosen, taken for lost and dropped, and promoted after all: its branch has the number of
/// the one that another was promoted to in its place, and is not that one.
#[test]
fn a_branch_of_the_same_number_as_one_that_was_left_is_not_followed_on() {
    let back = |server| {
        let (end, role) = (lsn(END), Standing::Primary { flushed: lsn(END) });
        let forks = [(1, END - 9), (2, END)].map(|(timeline, at)| {
            let (timeline, at) = (Timeline(timeline), lsn(at));
            Fork { timeline, at }
        });
        let scene = changed().see(B, gone(5)).see(A, primary_on(3)).see(server, answers(2, role));
        scene.with(|scene| {
            scene.at(A).history = Some(History::new(Timeline(3), forks.to_vec()));
            scene.record.primary.server = Arc::from("a");
            scene.record.primary.timeline = Timeline(3);
            let (timeline, fork) = (Timeline(3), Some(end));
            let change = Change { timeline, fork, ..change(By::Evidence, "b", "a") };
            scene.record.changes.push(change);
        })
    };
    assert!(back(B).acts().contains(&Act::Demote { server: B, to: A }));
    assert!(back(C).acts().contains(&Act::Fence(C)));
}

/// Two that were promoted from one branch give the next one the same number.
#[test]
fn a_rival_on_a_branch_of_the_same_number_is_fenced() {
    assert_eq!(changed().see(C, primary_on(2)).acts(), [Act::Fence(C)]);
}

#[test]
fn one_that_another_tool_promoted_is_not_fenced() {
    assert_eq!(changed().see(C, primary_on(3)).acts(), []);
}

/// It may have been promoted when it was taken for gone, and the old primary went on.
#[test]
fn one_that_was_chosen_and_dropped_is_fenced_whatever_its_branch() {
    let back = scene().see(B, primary_on(2)).with(|scene| {
        scene.record.changes.push(change(By::Evidence, "b", "a"));
    });
    assert_eq!(back.acts(), [Act::Fence(B)]);
}

#[test]
fn a_primary_of_another_system_is_left_alone() {
    let role = Standing::Primary { flushed: lsn(END) };
    let timeline = Some(Timeline(1));
    let other = Sight::Answers(Testimony { at: ms(NOW), system: THEIRS, timeline, role });
    assert_eq!(changed().see(A, other).acts(), []);
}

#[test]
fn behind_another_standby_is_well_unless_its_word_counts_or_will() {
    let relayed = scene().see(C, standby(END, streams(B, 1)));
    assert_eq!(relayed.acts(), [Act::Repoint { server: C, to: A }], "it is to confirm commits");
    let loose = |scene: Scene| {
        scene.with(|scene| scene.record.promise = Promise::Asynchronous(WeakPromise::NotSeen))
    };
    assert_eq!(loose(relayed.clone()).acts(), []);
    // The proof of the new promise waits for it, too.
    let both = quorum(1, &["b", "c"]);
    let promised = loose(relayed).with(|scene| scene.promise = Some((both, ms(NOW - 5_000))));
    assert_eq!(promised.acts(), [Act::Prove(A), Act::Repoint { server: C, to: A }]);
}

/// `c` was promoted as well, at another place, and was started as a standby: its timeline has the
/// number of the primary's.
fn astray() -> Scene {
    changed().with(|scene| scene.at(C).history = Some(left_at(END - 8)))
}

#[test]
fn one_on_a_branch_of_the_same_number_confirms_nothing() {
    let cut_off = [Act::Freeze(C)];
    let idle_on_2 =
        |scene: Scene| scene.freeze_on_2(C, END).with(|scene| scene.at(C).frozen = None);
    assert_eq!(astray().acts(), cut_off);
    assert_eq!(astray().why(), Why::CuttingOff(vec![Arc::from("c")]));
    assert_eq!(astray().with(MANUAL).acts(), cut_off);
    assert_eq!(idle_on_2(astray()).acts(), cut_off, "it may be let in any moment");
    assert_eq!(astray().freeze_on_2(C, END).acts(), [], "and is not sent there again");
    let same = astray().with(|scene| scene.at(C).history = Some(left_at(END)));
    assert_eq!(same.acts(), []);
    assert_eq!(idle_on_2(same).acts(), [Act::Repoint { server: C, to: B }]);
}

/// Also once the primary is away, and only the record knows where its branch began.
#[test]
fn one_on_a_branch_of_the_same_number_is_not_promoted() {
    let to_c = switchover_order(Some("c"));
    let refused = astray().see(A, idle(END)).order(to_c.clone()).answer();
    assert_eq!(refused, Some(Err(Refusal::NotAStandby(Arc::from("c")))));
    let lost = |scene: Scene| {
        scene
            .see(B, gone(5))
            .freeze_on_2(A, END)
            .freeze_on_2(C, END + 80)
            .promise(asynchronous())
            .phase(Phase::Revoking(failover()))
            .with(|scene| scene.acknowledged = Acknowledged::UpTo(lsn(END)))
    };
    let chosen = |scene: Scene| lost(scene).chosen().map(|(server, _)| server);
    assert_eq!(chosen(astray()), Some(Arc::from("a")), "whatever the other one holds");
    let same = |scene: &mut Scene| scene.at(C).history = Some(left_at(END));
    assert_eq!(chosen(astray().with(same)), Some(Arc::from("c")));
    assert_eq!(chosen(astray().with(|scene| scene.at(C).history = None)), Some(Arc::from("c")));
}

/// It is cut off, and would hear from nobody, whoever lives.
#[test]
fn one_on_a_branch_of_the_same_number_is_no_witness_of_an_end() {
    let lost = |scene: Scene| scene.see(B, gone(5)).freeze_on_2(C, END).verdict();
    assert_eq!(lost(astray()), Verdict::NoWitness);
    let same = astray().with(|scene| scene.at(C).history = Some(left_at(END)));
    assert_eq!(lost(same), Verdict::Dead);
    assert_eq!(astray().see(B, gone(5)).verdict(), Verdict::Isolated(C), "that it hears counts");
}

/// What it may have confirmed nobody knows: it counts as one that is not frozen.
#[test]
fn one_on_a_branch_of_the_same_number_revokes_nothing() {
    let lost = |scene: Scene| {
        let scene = scene.see(B, gone(5)).freeze_on_2(A, END).freeze_on_2(C, END);
        scene.phase(Phase::Revoking(failover()))
    };
    let missing = vec![loose("c")];
    assert_eq!(lost(astray()).why(), Why::NotRevoked { frozen: 1, needed: 2, missing });
    let same = astray().with(|scene| scene.at(C).history = Some(left_at(END)));
    assert!(lost(same).chosen().is_some());
}

/// A disk that is full must not keep a former primary writable.
#[test]
fn what_is_recorded_meanwhile_comes_behind_what_is_put_in_order() {
    let back = |scene: Scene| scene.with(|scene| scene.policy.rejoin = Rejoin::Fence);
    let back = |scene: Scene| back(scene).see(A, primary_on(1));
    let unknown = back(changed()).with(|scene| scene.record.primary.fork = None);
    let weaker = back(changed()).with(|scene| scene.promise = Some((asynchronous(), ms(NOW))));
    for scene in [unknown, weaker] {
        let acts = scene.acts();
        assert!(matches!(acts.as_slice(), [Act::Fence(A), Act::Write(_)]), "{acts:?}");
    }
}

/// What was there before us, what another tool promoted, and what a history told too late.
#[test]
fn where_the_primarys_branch_began_is_recorded_for_when_it_is_away() {
    let unknown = astray().with(|scene| scene.record.primary.fork = None);
    let completed = unknown.written();
    assert_eq!(completed.as_ref(), Some(&astray().record));
    for mode in [Mode::Off, Mode::Manual] {
        let other = unknown.clone().with(|scene| scene.policy.mode = mode);
        assert_eq!(other.written(), completed, "{mode:?}");
    }
    let lost = unknown.clone().with(|scene| scene.record = completed.unwrap()).see(B, gone(5));
    let lost = lost.freeze_on_2(A, END).freeze_on_2(C, END + 80);
    let missing = vec![loose("c")];
    let why = lost.phase(Phase::Revoking(failover())).why();
    assert_eq!(why, Why::NotRevoked { frozen: 1, needed: 2, missing });

    let nothing = |change: fn(&mut Scene)| unknown.clone().with(change).written();
    assert_eq!(nothing(|scene| scene.at(B).history = None), None);
    assert_eq!(nothing(|scene| scene.at(B).history = Some(History::default())), None);
    assert_eq!(nothing(|scene| scene.at(B).sight = gone(5)), None);
    assert_eq!(scene().written(), None, "the first branch began nowhere");
}
