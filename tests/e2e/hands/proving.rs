//! Proof that commits are confirmed, and that what only looks like it is none.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

fn quorum() -> Grip {
    Grip::on(&Plan::new().setting("synchronous_standby_names", QUORUM))
}

#[test]
fn a_commit_is_confirmed_while_one_of_two_is_there() {
    let grip = quorum();
    grip.prove(PRIMARY);
    grip.done(|| grip.hands.freeze(FIRST));
    grip.prove(PRIMARY);
    grip.done(|| grip.hands.freeze(SECOND));

    let proved = grip.wait(grip.hands.prove(PRIMARY));
    // On a crowded machine it may not even be told in time that nobody confirms it.
    assert!(is_unproved(&proved), "{proved:?}");

    // The hand is as good as before, and holds its lock.
    grip.done(|| grip.hands.position(PRIMARY));
    assert!(grip.survey(PRIMARY).locked);
    grip.done(|| grip.hands.unfreeze(SECOND));
    grip.prove(PRIMARY);
}

/// A cancelled wait ends in success, with a warning as the only sign.
#[test]
fn a_wait_that_somebody_cancelled_proves_nothing() {
    let grip = quorum();
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    let server = grip.server(PRIMARY);
    let cancel = "SELECT count(*) FROM (SELECT pg_cancel_backend(pid) \
                  FROM pg_stat_activity WHERE wait_event = 'SyncRep') AS c";
    // On a crowded machine the time of a proof may be over before anybody is cancelled.
    quickly_enough("a wait is cancelled", || {
        let over = AtomicBool::new(false);
        let (proved, cancelled) = std::thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                let mut cancelled = false;
                while !over.load(Ordering::SeqCst) {
                    cancelled |= server.value(cancel).unwrap() != "0";
                    std::thread::sleep(Duration::from_millis(1));
                }
                cancelled
            });
            let proved = grip.wait(grip.hands.prove(PRIMARY));
            over.store(true, Ordering::SeqCst);
            (proved, canceller.join().unwrap())
        });
        assert!(proved.is_err(), "it is proved");
        if cancelled && matches!(proved, Err(HandError::Unconfirmed)) {
            return Ok(());
        }
        Err(format!("{proved:?}, cancelled: {cancelled}"))
    });
}

/// The server shows its new names before its commits wait for anybody: its checkpointer has to take
/// them in, and that may be busy for long.
#[test]
fn a_commit_that_waits_for_nobody_proves_nothing() {
    let grip = Grip::on(&Plan::new());
    let server = grip.server(PRIMARY);
    server.sigstop_process("checkpointer");
    server.set("synchronous_standby_names", QUORUM).unwrap();
    await_that("the names are seen", || {
        let names = &grip.survey(PRIMARY).settings.synchronous_names;
        names.as_ref().is_ok_and(|names| names.names().len() == 2)
    });

    let mut unwaited = false;
    for _ in 0..10 {
        let proved = grip.wait(grip.hands.prove(PRIMARY));
        assert!(proved.is_err(), "it is proved");
        unwaited |= matches!(proved, Err(HandError::Unwaited));
    }
    assert!(unwaited, "it is not told why");
    assert!(grip.survey(PRIMARY).locked, "the hand is as good as before");
    // What is at stake: a commit is acknowledged that no standby has.
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    assert!(Writer::of(server).is_acknowledged());
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.unfreeze(standby));
    }

    server.sigcont();
    grip.prove(PRIMARY);
}

/// Without any names nothing is demanded.
#[test]
fn where_nobody_is_to_be_waited_for_every_commit_is_confirmed() {
    let grip = Grip::on(&Plan::new());
    grip.prove(PRIMARY);
}

/// That nobody confirms a commit, or that the answer took too long, which proves nothing either.
const fn is_unproved(proved: &Result<(), HandError>) -> bool {
    matches!(proved, Err(HandError::Unconfirmed | HandError::Late(_) | HandError::Lost(_)))
}
