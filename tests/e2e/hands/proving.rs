//! Proof that commits are confirmed, and that what only looks like it is none.

use super::*;
use pgsteer::sandbox::eventually;

fn quorum() -> Grip {
    Grip::on(&Plan::new().setting("synchronous_standby_names", QUORUM))
}

#[test]
fn a_commit_is_confirmed_while_one_of_two_is_there() {
    let grip = quorum();
    grip.wait(grip.hands.prove(PRIMARY)).unwrap();
    grip.wait(grip.hands.freeze(FIRST)).unwrap();
    grip.wait(grip.hands.prove(PRIMARY)).unwrap();
    grip.wait(grip.hands.freeze(SECOND)).unwrap();

    let (proved, took) = (grip.wait(grip.hands.prove(PRIMARY)), clock::now());
    assert!(matches!(proved, Err(HandError::Unconfirmed)), "{proved:?} {took:?}");

    // The hand is as good as before, and holds its lock.
    grip.wait(grip.hands.position(PRIMARY)).unwrap();
    assert!(grip.survey(PRIMARY).locked);
    grip.wait(grip.hands.unfreeze(SECOND)).unwrap();
    await_that("it is confirmed again", || grip.wait(grip.hands.prove(PRIMARY)).is_ok());
}

/// A cancelled wait ends in success, with a warning as the only sign.
#[test]
fn a_wait_that_somebody_cancelled_proves_nothing() {
    let grip = quorum();
    for standby in [FIRST, SECOND] {
        grip.wait(grip.hands.freeze(standby)).unwrap();
    }
    let server = grip.server(PRIMARY);
    let proving = async {
        tokio::join!(grip.hands.prove(PRIMARY), async {
            tokio::task::block_in_place(|| {
                let cancel = "SELECT count(*) FROM (SELECT pg_cancel_backend(pid) \
                              FROM pg_stat_activity WHERE wait_event = 'SyncRep') AS c";
                eventually(Duration::from_secs(1), || {
                    (server.value(cancel).unwrap() != "0").then_some(())
                })
            })
        })
    };
    let (proved, cancelled) = grip
        .wait(async { pgsteer::timer::timeout(Duration::from_secs(10), proving).await.unwrap() });
    assert!(cancelled.is_some(), "nobody waited");
    assert!(matches!(proved, Err(HandError::Unconfirmed)), "{proved:?}");
}
