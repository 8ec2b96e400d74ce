//! Whether the primary lives.

use super::*;

/// Both standbys say that nothing comes in.
fn cut_off() -> Scene {
    scene().see(B, idle(END)).see(C, idle(END))
}

/// Both standbys have heard nothing for so long, on a connection that stands.
fn unheard(millis: u64) -> Scene {
    let unheard = standby(END, streams(A, millis));
    scene().see(B, unheard).see(C, unheard)
}

#[test]
fn a_primary_that_answers_lives() {
    assert_eq!(scene().verdict(), Verdict::Lives);
}

#[test]
fn a_primary_that_is_refused_twice_and_streams_to_nobody_is_dead() {
    assert_eq!(cut_off().see(A, gone(2)).verdict(), Verdict::Dead);
}

#[test]
fn one_refusal_may_be_a_full_queue() {
    assert_eq!(cut_off().see(A, gone(1)).verdict(), Verdict::Unsure);
}

#[test]
fn a_fresh_witness_vetoes() {
    for lost in [gone(50), silent(60_000), restarting(60_000)] {
        let scene = cut_off().see(A, lost).see(C, follows(A));
        assert_eq!(scene.verdict(), Verdict::Isolated(C), "{lost:?}");
    }
}

#[test]
fn a_witness_counts_only_if_it_was_asked_after_the_loss() {
    let before = |sight: Sight| match sight {
        Sight::Answers(answer) => Sight::Answers(Testimony { at: ms(NOW - 1_000), ..answer }),
        Sight::Awaited | Sight::Missing(_) => sight,
    };
    let scene = cut_off().see(A, gone(5));
    assert_eq!(scene.verdict(), Verdict::Dead);
    assert_eq!(scene.see(C, before(idle(END))).verdict(), Verdict::Unsure);
}

#[test]
fn silence_is_evidence_only_after_its_time() {
    assert_eq!(unheard(2_500).see(A, silent(2_999)).verdict(), Verdict::Unsure);
    assert_eq!(unheard(2_500).see(A, silent(3_000)).verdict(), Verdict::Hung);
}

#[test]
fn a_standby_is_silent_only_after_the_time_of_a_fresh_witness() {
    assert_eq!(unheard(2_000).see(A, silent(3_000)).verdict(), Verdict::Isolated(B));
    assert_eq!(unheard(2_001).see(A, silent(3_000)).verdict(), Verdict::Hung);
}

#[test]
fn silence_counts_only_on_a_link_that_is_known_to_be_kept_alive() {
    let scene = unheard(60_000).see(A, silent(60_000));
    assert_eq!(scene.verdict(), Verdict::Hung);
    let scene = scene.with(|scene| scene.at(C).keepalive = false);
    assert_eq!(scene.verdict(), Verdict::Isolated(C));
}

#[test]
fn a_silent_connection_is_not_a_lost_one() {
    let scene = cut_off().see(A, gone(5)).see(C, standby(END, streams(A, 60_000)));
    assert_eq!(scene.verdict(), Verdict::Unsure);
}

#[test]
fn a_receiver_that_can_not_be_seen_proves_nothing() {
    let scene = cut_off().see(C, standby(END, Receiver::Hidden));
    assert_eq!(scene.clone().see(A, gone(5)).verdict(), Verdict::Unsure);
    assert_eq!(scene.see(A, silent(60_000)).verdict(), Verdict::Unsure);
}

#[test]
fn what_was_seen_before_a_pause_of_ours_is_no_evidence() {
    let scene = cut_off().see(A, gone(5));
    assert_eq!(scene.clone().with(|s| s.awake_since = ms(NOW - 1_000)).verdict(), Verdict::Dead);
    assert_eq!(scene.with(|s| s.awake_since = ms(NOW - 999)).verdict(), Verdict::Unsure);
}

#[test]
fn without_a_witness_there_is_no_vote() {
    let scene = scene().see(A, gone(5)).see(B, gone(5)).see(C, silent(9_000));
    assert_eq!(scene.verdict(), Verdict::NoWitness);
}

#[test]
fn a_standby_of_a_standby_says_nothing_of_the_primary() {
    let scene = cut_off().see(A, gone(5)).see(C, follows(B));
    assert_eq!(scene.verdict(), Verdict::Dead);
    assert_eq!(scene.see(B, gone(5)).verdict(), Verdict::NoWitness);
}

#[test]
fn a_standby_of_another_system_is_no_witness() {
    let stranger = match idle(END) {
        Sight::Answers(answer) => Sight::Answers(Testimony { system: THEIRS, ..answer }),
        Sight::Awaited | Sight::Missing(_) => Sight::Awaited,
    };
    let scene = scene().see(A, gone(5)).see(B, gone(5)).see(C, stranger);
    assert_eq!(scene.verdict(), Verdict::NoWitness);
}

#[test]
fn a_primary_that_starts_up_is_restarting_and_not_dead() {
    assert_eq!(cut_off().see(A, restarting(9_000)).verdict(), Verdict::Restarting);
}

#[test]
fn a_primary_in_recovery_is_demoted() {
    assert_eq!(scene().see(A, idle(END)).verdict(), Verdict::Demoted);
}

#[test]
fn what_holds_another_log_is_a_stranger() {
    let role = Standing::Primary { flushed: lsn(END) };
    let timeline = Some(Timeline(1));
    let other = Sight::Answers(Testimony { at: ms(NOW), system: THEIRS, timeline, role });
    assert_eq!(scene().see(A, other).verdict(), Verdict::Stranger);
    let unknown = scene().with(|scene| scene.record.primary.server = Arc::from("z"));
    assert_eq!(unknown.verdict(), Verdict::Stranger);
}

#[test]
fn a_primary_that_lost_its_branch_is_a_stranger_and_one_on_a_newer_lives() {
    let scene = scene().with(|scene| scene.record.primary.timeline = Timeline(2));
    assert_eq!(scene.clone().see(A, primary_on(1)).verdict(), Verdict::Stranger);
    assert_eq!(scene.see(A, primary_on(3)).verdict(), Verdict::Lives);
}

#[test]
fn a_server_that_was_not_looked_at_yet_proves_nothing() {
    assert_eq!(cut_off().see(A, Sight::Awaited).verdict(), Verdict::Unsure);
}
