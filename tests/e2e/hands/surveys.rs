//! What a survey says of real servers.

use super::*;
use pgsteer::failover::{
    Promise, ReceiverRow, Right, SlotState, SurveyedRole, Switch, SyncNames, WeakPromise,
};
use pgsteer::pg::quote_literal;

/// Nothing is on record yet.
const UNSEEN: Promise = Promise::Asynchronous(WeakPromise::NotSeen);

#[test]
fn a_survey_says_what_failover_must_know() {
    let plan = Plan::new()
        .setting("synchronous_standby_names", QUORUM)
        .server_setting("standby2", "recovery_min_apply_delay", "100ms")
        .setting("wal_receiver_timeout", "7s");
    let grip = Grip::on(&plan);
    grip.server(PRIMARY).rows("SELECT pg_create_physical_replication_slot('fresh')").unwrap();
    grip.server(FIRST).pause_replay().unwrap();

    let mut primary = grip.survey(PRIMARY);
    await_that("both receive", || {
        primary = grip.survey(PRIMARY);
        let is_fit = |row: &ReceiverRow| &*row.state == "streaming" && &*row.sync_state == "quorum";
        matches!(
            &primary.role,
            SurveyedRole::Primary { receivers: Some(rows) }
                if rows.len() > 1 && rows.iter().all(is_fit)
        )
    });
    let SurveyedRole::Primary { receivers: Some(rows) } = &primary.role else { panic!() };
    let mut names: Vec<_> = rows.iter().map(|row: &ReceiverRow| &*row.application).collect();
    names.sort_unstable();
    assert_eq!(names, ["standby1", "standby2"], "our own connections are no receivers");
    assert!(rows.iter().all(|row| &*row.state == "streaming" && &*row.sync_state == "quorum"));
    assert_eq!(primary.settings.synchronous_names, Ok(SyncNames::parse(QUORUM).unwrap()));
    assert_eq!(&*primary.settings.synchronous_commit, "on", "not what our session is set to");
    assert!(!primary.settings.read_only);
    assert_eq!(primary.settings.receiver_timeout, Some(Duration::from_secs(7)));
    assert!(primary.settings.on.contains(&Switch::RestartsAfterCrash));
    assert!(primary.rights.have(Right::Promote), "a superuser may do everything");
    let slots = primary.slots.clone().unwrap();
    assert!(slots.iter().any(|s| &*s.name == "fresh" && s.state == SlotState::Fresh));

    let paused = grip.survey(FIRST);
    assert_eq!(paused.role, SurveyedRole::Standby { paused: true, receiving: Some(true) });
    assert_eq!(paused.application_name().as_deref(), Some("standby1"));
    assert_eq!(paused.keepalive(Some(&primary.settings)), Some(Duration::from_secs(30)));
    assert_eq!(grip.survey(SECOND).settings.apply_delay, Duration::from_millis(100));

    let cohort = ["standby1", "standby2"].map(Arc::from).into();
    assert_eq!(grip.hands.promise("primary", &UNSEEN), Some(Promise::Quorum { w: 1, cohort }));
    grip.server(PRIMARY).set("synchronous_standby_names", "*").unwrap();
    await_that("the change is seen", || {
        grip.survey(PRIMARY);
        grip.hands.promise("primary", &UNSEEN) == Some(Promise::Asynchronous(WeakPromise::Anyone))
    });
}

/// In whatever words, and for whomever.
#[test]
fn whose_commits_are_outside_of_the_promise_is_known_by_name() {
    let grip = Grip::on(&Plan::new().setting("synchronous_standby_names", QUORUM));
    let known = |grip: &Grip| {
        let settings = &grip.survey(PRIMARY).settings;
        [&settings.weak_commits, &settings.hidden_warnings].map(|names| names.join(", "))
    };
    assert_eq!(known(&grip), ["", ""]);
    let changes = [
        "CREATE ROLE hasty",
        "CREATE ROLE careful",
        "CREATE DATABASE shop",
        "ALTER ROLE hasty SET synchronous_commit = 'OFF'",
        "ALTER ROLE hasty IN DATABASE shop SET synchronous_commit = no",
        "ALTER DATABASE shop SET synchronous_commit = local",
        "ALTER ROLE careful SET synchronous_commit = remote_apply",
        "ALTER ROLE ALL SET client_min_messages = Error",
        "ALTER ROLE careful SET client_min_messages = warning",
    ];
    for sql in changes {
        grip.server(PRIMARY).rows(sql).unwrap();
    }
    await_that("they are seen", || {
        known(&grip) == ["database shop, role hasty, role hasty in database shop", "all roles"]
    });
}

/// A receiver that is none of our servers takes the name of one.
#[test]
fn a_second_receiver_of_the_same_name_makes_the_set_asynchronous() {
    let grip = Grip::on(&Plan::new().setting("synchronous_standby_names", QUORUM));
    assert!(matches!(grip.hands.promise("primary", &UNSEEN), Some(Promise::Quorum { .. })));
    let primary = grip.server(PRIMARY);
    let login = [("user", SUPERUSER), ("replication", "true"), ("application_name", "standby1")];
    let mut stranger = Wire::log_in_with(primary.address().parse().unwrap(), &login).unwrap();
    let end = primary.value("SELECT pg_current_wal_flush_lsn()").unwrap();
    let mut query = Vec::new();
    message::write_query(&mut query, &format!("START_REPLICATION PHYSICAL {end}"));
    stranger.send(&query).unwrap();
    assert_eq!(stranger.message().unwrap()[0], b'W', "it receives");
    await_that("it is seen", || {
        grip.survey(PRIMARY);
        let shared = WeakPromise::SharedName("standby1".into());
        grip.hands.promise("primary", &UNSEEN) == Some(Promise::Asynchronous(shared))
    });
}

/// What our reader of the list takes, PostgreSQL takes, and the other way round.
#[test]
fn lists_of_standbys_are_read_as_the_server_reads_them() {
    let cluster = cluster(&Plan::new().standbys(0));
    let lists = [
        "",
        "a",
        "a, b ,c",
        "2 (a, b)",
        "FIRST 1 (a)",
        "any 2(a,b,c)",
        "ANY 1 (*)",
        "*",
        "ANY 1 (\"db-1:5432\", \"a\"\"b\")",
        "\"any\"",
        "anyone",
        "ANY 1 (1, 2)",
        "12",
        "s1$x",
        "é",
        " ",
        "any",
        "ANY 0 (a)",
        "ANY (a)",
        "ANY 1 a",
        "ANY 1 ()",
        "a,",
        "a b",
        "db-1",
        "a.b",
        "\"a",
        "2 (a, any)",
        "first",
        "\"\"",
        "ANY 1 (a",
        "ANY 99999999999 (a)",
        "a\x0bb",
        "\x0ba",
    ];
    for list in lists {
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = {}", quote_literal(list));
        let taken = cluster.primary().rows(&sql).is_ok();
        assert_eq!(SyncNames::parse(list).is_ok(), taken, "{list:?}");
    }
}

/// What is done next to a server does not wait for it; it comes behind.
#[test]
fn no_survey_comes_between_two_acts() {
    let grip = Grip::on(&Plan::new());
    let asked = || grip.hands.survey(SECOND).unwrap().asked;

    quickly_enough("no survey in between", || {
        let before = grip.survey(SECOND).asked;
        for _ in 0..3 {
            grip.done(|| grip.hands.freeze(SECOND));
            grip.done(|| grip.hands.unfreeze(SECOND));
        }
        if asked() == before { Ok(()) } else { Err("one was taken".to_owned()) }
    });

    let last = asked();
    await_that("it is surveyed behind them", || asked() > last);
}
