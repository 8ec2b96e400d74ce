//! Who is how far behind, and who may serve.

use super::*;
use pgsteer::topology::Unfit;

const WRITE: &str = "INSERT INTO notes SELECT repeat('x', 100) FROM generate_series(1, 100)";

#[test]
fn a_paused_standby_falls_out_and_returns_by_itself() {
    let watched = Watched::unhurried();
    let primary = watched.server(PRIMARY);
    primary.rows("CREATE TABLE notes (text text)").unwrap();

    watched.server(FIRST).pause_replay().unwrap();
    primary.rows(WRITE).unwrap();
    let (late, _) = watched.wait("it falls out", |topology| reads(topology) == [SECOND]);

    assert_eq!(late.servers[1].reads, Err(Unfit::LagTime));
    let lag = late.servers[1].observation().unwrap().lag;
    assert!(lag.bytes.unwrap() > 10_000, "{lag:?}");
    assert!(lag.time.unwrap() > Duration::from_secs(1), "{lag:?}");
    watched.wait("it grows", |topology| {
        let lag = topology.servers[1].observation().and_then(|seen| seen.lag.time);
        lag.is_some_and(|lag| lag > Duration::from_secs(2))
    });

    watched.server(FIRST).resume_replay().unwrap();
    watched.wait("it returns", |topology| reads(topology) == [FIRST, SECOND]);
}

/// An idle primary's standbys have no lag, whatever the age of the last write; a page header
/// without a record, behind a switch of segments, is none.
#[test]
fn an_idle_primary_shows_no_lag() {
    // Idle in earnest: these would write something of their own now and then.
    let plan = plan().setting("bgwriter_delay", "10s").setting("autovacuum", "off");
    let watched = Watched::over(cluster(&plan), SUPERUSER, calm());
    watched.wait("all serve", |topology| reads(topology) == [FIRST, SECOND]);

    watched.server(PRIMARY).rows("SELECT pg_switch_wal()").unwrap();
    watched.cluster.await_replay().unwrap();
    std::thread::sleep(Duration::from_millis(600));

    let is_level = |topology: &Topology| {
        let level = topology.servers.iter().skip(1).all(|server| {
            let lag = server.observation().unwrap().lag;
            lag.bytes == Some(0) && lag.time == Some(Duration::ZERO)
        });
        level && reads(topology) == [FIRST, SECOND]
    };
    let end = || watched.server(PRIMARY).value("SELECT pg_current_wal_insert_lsn()").unwrap();
    // Now and then a server writes something of its own all the same.
    quickly_enough("no lag while nothing is written", || {
        watched.wait("what was written is there", is_level);
        let before = end();
        for _ in 0..100 {
            let topology = watched.now();
            if !is_level(&topology) {
                assert_ne!(end(), before, "it lags and nothing was written\n{topology:#?}");
                return Err("it has written something".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
}

/// A standby that was cut off from the primary knows nothing of its own lag; we do.
#[test]
fn a_cut_off_standby_shows_a_growing_lag() {
    let watched = Watched::unhurried();
    watched.server(PRIMARY).rows("CREATE TABLE notes (text text)").unwrap();

    watched.server(FIRST).set("primary_conninfo", "host=127.0.0.1 port=1").unwrap();
    watched.wait("it streams no more", |topology| {
        topology.servers[1].observation().and_then(|seen| seen.streaming) == Some(false)
    });
    watched.server(PRIMARY).rows(WRITE).unwrap();

    watched.wait("it falls out", |topology| reads(topology) == [SECOND]);
}

#[test]
fn reads_go_on_without_a_primary_and_lag_is_unknown() {
    let watched = Watched::over(cluster(&plan()), SUPERUSER, calm());
    watched.wait("all serve", |topology| reads(topology) == [FIRST, SECOND]);

    watched.server(PRIMARY).kill9().unwrap();
    watched.wait("it is missed", |topology| !is_open(topology));

    watched.always("reads go on", |topology| reads(topology) == [FIRST, SECOND]);
    watched.wait("the lag is unknown", |topology| {
        topology.servers[1].observation().is_some_and(|seen| seen.lag.bytes.is_none())
    });
}

#[test]
fn weights_and_limits_can_be_changed_while_it_runs() {
    let watched = Watched::unhurried();
    let lists = FunctionLists::default();

    let policy = unhurried();
    let failover = failover::Policy::default();
    watched.control.adjust(LiveControl { policy, failover, weights: vec![1, 0, 1], lists });

    watched.wait("no reads for weight 0", |topology| {
        topology.servers[1].reads == Err(Unfit::Weight) && reads(topology) == [SECOND]
    });
}
