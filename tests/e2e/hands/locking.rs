//! One pgsteer at a time acts on a server, and sees the others.

use super::*;

#[test]
fn who_acts_takes_over_and_the_one_before_loses_his_session() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let survey = grip.survey(FIRST);
    assert!(survey.locked && survey.others.is_empty(), "alone: {survey:?}");

    let rival = hands(&grip.cluster, SUPERUSER, Instance(7), &grip.store);
    let shutdown = CancellationToken::new();
    {
        let _entered = grip.runtime.enter();
        rival.keep(&policy(Mode::Manual), &shutdown);
    }
    await_that("the rival has looked", || rival.survey(FIRST).is_some());
    let second = rival.survey(FIRST).unwrap();
    assert!(!second.locked, "the first one holds it");
    assert_eq!(second.others, [Instance(0xabcd_0001)].into());
    assert_eq!(grip.survey(FIRST).others, [Instance(7)].into());

    grip.done(|| rival.freeze(FIRST));
    let log = grip.server(FIRST).log();
    assert!(log.contains("terminating connection due to administrator command"), "{log}");
    await_that("the first one is back, without the lock", || !grip.survey(FIRST).locked);
    grip.done(|| grip.hands.unfreeze(FIRST));
    assert!(streams(grip.server(FIRST)) || !conninfo(grip.server(FIRST)).is_empty());
    shutdown.cancel();
}

/// A connection that the server keeps after we lost it must not stand in our own way.
#[test]
fn an_earlier_session_of_our_own_gives_way() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let twin = hands(&grip.cluster, SUPERUSER, Instance(0xabcd_0001), &grip.store);
    assert!(grip.survey(FIRST).locked);

    grip.done(|| twin.freeze(FIRST));

    grip.done(|| twin.unfreeze(FIRST));
}

/// An act that is given up in the middle leaves an answer in the stream: the next one must not
/// take it for its own.
#[test]
fn an_act_that_is_given_up_spoils_nothing() {
    let grip = Grip::on(&Plan::new().standbys(1));
    for millis in 0..20 {
        let frozen = grip.wait(async {
            pgsteer::timer::timeout(Duration::from_millis(millis), grip.hands.freeze(FIRST)).await
        });
        drop(frozen);
        let survey = grip.survey(FIRST);
        assert!(!survey.is_primary(), "{survey:?}");
    }
    grip.done(|| grip.hands.freeze(FIRST));
    grip.done(|| grip.hands.unfreeze(FIRST));
    await_that("it streams", || streams(grip.server(FIRST)));
}

/// One whose mode is `off` may look beside the one that acts; a reload can change that.
#[test]
fn who_may_not_act_takes_no_lock_and_is_no_rival() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let watcher = hands(&grip.cluster, SUPERUSER, Instance(7), &grip.store);
    let (shutdown, mode) = (CancellationToken::new(), policy(Mode::Off));
    {
        let _entered = grip.runtime.enter();
        watcher.keep(&mode, &shutdown);
    }
    await_that("it has looked", || watcher.survey(FIRST).is_some());
    let survey = grip.survey(FIRST);
    assert!(survey.locked && survey.others.is_empty(), "{survey:?}");

    let manual = Policy { mode: Mode::Manual, ..Policy::default() };
    mode.store(Arc::new(manual));
    watcher.survey_soon(FIRST);
    await_that("it is seen", || grip.survey(FIRST).others == [Instance(7)].into());

    mode.store(Arc::new(Policy { mode: Mode::Off, ..Policy::default() }));
    watcher.survey_soon(FIRST);
    await_that("it is no rival any more", || grip.survey(FIRST).others.is_empty());
    shutdown.cancel();
}
