//! Promotion: without the five seconds that a standby may sleep first.

use super::*;
use pgsteer::pg::Timeline;

/// The sleep of a standby without a primary: by default 5 s, which a busy machine may need.
const SLEEP: &str = "1min";

/// Far below [`SLEEP`].
const AWAKE: Duration = Duration::from_secs(20);

/// Each standby is promoted at another moment of its sleep. All of them: nobody keeps them apart
/// here.
#[test]
fn no_promotion_sleeps() {
    let plan = Plan::new().standbys(6).setting("wal_retrieve_retry_interval", SLEEP);
    let grip = Grip::on(&plan);
    grip.server(PRIMARY).kill9().unwrap();

    for at in 1..=6 {
        let (promoted, took) = grip.time(|| grip.hands.promote(ServerId(at)));
        assert!(took < AWAKE, "standby {at}: {took:?}");
        assert_eq!(promoted.timeline, Timeline(2));
        assert!(promoted.fork.is_some());
    }
}

#[test]
fn promoting_tells_where_the_branch_began_and_can_be_asked_for_again() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let frozen = grip.done(|| grip.hands.freeze(FIRST));
    grip.server(PRIMARY).kill9().unwrap();

    let promoted = grip.done(|| grip.hands.promote(FIRST));

    let fork = promoted.fork.unwrap();
    assert!(fork <= frozen.at && frozen.at.bytes_since(fork) < 8192, "{fork} {frozen:?}");
    assert_eq!(grip.done(|| grip.hands.promote(FIRST)), promoted);
    grip.server(FIRST).rows("CREATE TABLE t ()").unwrap();
}

/// Left alone, it would take a second.
#[test]
fn a_paused_standby_is_resumed_first() {
    quickly("it is promoted", Duration::from_millis(800), || {
        let grip = Grip::on(&Plan::new().standbys(1));
        let server = grip.server(FIRST);
        server.pause_replay().unwrap();
        grip.server(PRIMARY).rows("CREATE TABLE t AS SELECT generate_series(1, 1000)").unwrap();
        let sent = grip.server(PRIMARY).value("SELECT pg_current_wal_flush_lsn()").unwrap();
        let received = format!("SELECT pg_last_wal_receive_lsn() >= '{sent}'");
        server.await_value(&received, "t", "level").unwrap();
        grip.server(PRIMARY).kill9().unwrap();
        grip.done(|| grip.hands.freeze(FIRST));

        let (_, took) = grip.time(|| grip.hands.promote(FIRST));

        let count = server.value("SELECT count(*) FROM t").unwrap();
        assert_eq!(count, "1000", "what it had received");
        took
    });
}

/// What it has received is replayed first, and a query may keep it from that for ever.
#[test]
fn a_query_that_a_lock_conflicts_with_is_ended() {
    let plan = Plan::new().standbys(1).setting("max_standby_streaming_delay", "-1");
    let grip = Grip::on(&plan);
    let (primary, standby) = (grip.server(PRIMARY), grip.server(FIRST));
    primary.rows("CREATE TABLE t AS SELECT 1").unwrap();
    grip.cluster.await_replay().unwrap();
    let mut reader = Writer::of(standby);
    reader.0.run("BEGIN; SELECT * FROM t");
    primary.rows("DROP TABLE t").unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup' \
                 AND wait_event_type = 'Lock'";
    standby.await_value(waits, "1", "waiting for a lock").unwrap();
    primary.kill9().unwrap();

    let (_, took) = grip.time(|| grip.hands.promote(FIRST));

    assert!(took < AWAKE, "{took:?}");
    assert_eq!(standby.value("SELECT count(*) FROM pg_class WHERE relname = 't'").unwrap(), "0");
}

/// A standby that still carries the fence of its time as a primary takes writes once promoted.
#[test]
fn a_promoted_standby_carries_no_fence() {
    let grip = Grip::on(&Plan::new());
    let standby = grip.server(FIRST);
    standby.set("default_transaction_read_only", "on").unwrap();
    standby.set("synchronous_standby_names", "pgsteer_fence").unwrap();
    standby.await_value("SHOW synchronous_standby_names", "pgsteer_fence", "fenced").unwrap();

    grip.done(|| grip.hands.freeze(FIRST));
    grip.done(|| grip.hands.promote(FIRST));

    assert_eq!(standby.value("SHOW synchronous_standby_names").unwrap(), "");
    assert!(Writer::of(standby).is_acknowledged());
}
