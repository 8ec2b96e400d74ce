//! What the data plane wishes for, and gets.

use super::*;
use crate::support::synchronous;
use pgsteer::clock::now;
use pgsteer::topology::Coverage;

/// Waits for the floor of a mark that is set now.
fn floor(watched: &Watched) -> pgsteer::pg::Position {
    let mark = now();
    watched.signals.want_position(mark);
    watched.wait("the mark is resolved", |topology| topology.samples.resolve(mark).is_some());
    watched.now().samples.resolve(mark).unwrap()
}

/// Waits until a standby is known to cover a floor.
fn covered(watched: &Watched, standby: ServerId, floor: pgsteer::pg::Position) {
    watched.wait("the standby covers it", |topology| {
        let sample = topology.server(standby).and_then(|server| server.sample);
        let covers = sample.is_some_and(|sample| {
            topology.history.covers(sample.position, floor) == Coverage::Covers
        });
        if !covers {
            watched.signals.want_sample(standby, now());
        }
        covers
    });
}

/// How often the primary was made to flush.
fn kicks(watched: &Watched) -> u64 {
    let name = &watched.now().servers[0].name;
    let series = format!("pgsteer_server_flush_kicks_total{{server=\"{name}\"}} ");
    let exposed = watched.metrics.expose().unwrap();
    exposed.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[test]
fn a_mark_is_resolved_by_a_sample_that_a_standby_reaches() {
    // The next look by itself would come when all patience is at its end: it was the wish that
    // was answered.
    let policy = Policy { check_interval: 2 * PATIENCE, ..calm() };
    let watched = Watched::over(cluster(&plan()), SUPERUSER, policy);
    watched.wait("all serve", |topology| reads(topology) == [FIRST, SECOND]);
    watched.server(PRIMARY).rows("CREATE TABLE notes (text text)").unwrap();

    for _ in 0..20 {
        watched.server(PRIMARY).rows("INSERT INTO notes VALUES ('x')").unwrap();
        let floor = floor(&watched);
        covered(&watched, FIRST, floor);
    }
}

/// The header of an empty page is no log that anybody has to wait for; nor to flush.
#[test]
fn an_idle_primary_behind_a_switch_of_segments_stalls_no_reader() {
    // The background writer would log something of its own.
    let watched = Watched::of(&plan().setting("bgwriter_delay", "10s"), SUPERUSER);
    watched.wait("all serve", |topology| reads(topology) == [FIRST, SECOND]);
    watched.server(PRIMARY).rows("CREATE TABLE notes (text text)").unwrap();

    for _ in 0..3 {
        watched.server(PRIMARY).rows("INSERT INTO notes VALUES ('x')").unwrap();
        watched.server(PRIMARY).rows("SELECT pg_switch_wal()").unwrap();
        watched.cluster.await_replay().unwrap();
        let floor = floor(&watched);
        covered(&watched, FIRST, floor);
        covered(&watched, SECOND, floor);
    }

    assert_eq!(kicks(&watched), 0, "a kick would hide what was not normalised");
}

/// An open transaction on an idle primary has written what nobody flushes, and a WAL writer that
/// sleeps does not help: the primary is kicked.
#[test]
fn an_idle_open_transaction_stalls_no_reader() {
    let plan = plan().setting("wal_writer_delay", "10s").setting("bgwriter_delay", "10s");
    let watched = Watched::of(&plan, SUPERUSER);
    watched.wait("all serve", |topology| reads(topology) == [FIRST, SECOND]);
    watched.server(PRIMARY).rows("CREATE TABLE notes (text text)").unwrap();
    let mut open = watched.server(PRIMARY).connect("postgres").unwrap();

    open.rows("BEGIN").unwrap();
    open.rows("INSERT INTO notes VALUES ('x')").unwrap();
    let floor = floor(&watched);
    covered(&watched, FIRST, floor);

    assert!(kicks(&watched) > 0);
}

#[test]
fn an_asynchronous_commit_stalls_no_reader() {
    let plan = plan().setting("wal_writer_delay", "10s").setting("synchronous_commit", "off");
    let watched = Watched::of(&plan, SUPERUSER);
    watched.wait("all serve", |topology| reads(topology) == [FIRST, SECOND]);
    watched.server(PRIMARY).rows("CREATE TABLE notes (text text)").unwrap();
    let mut client = watched.server(PRIMARY).connect("postgres").unwrap();

    client.rows("INSERT INTO notes VALUES ('x')").unwrap();
    let floor = floor(&watched);
    covered(&watched, FIRST, floor);

    let seen = watched.server(FIRST).value("SELECT count(*) FROM notes").unwrap();
    assert_eq!(seen, "1", "what covers the floor shows the write");
}

#[test]
fn what_a_standby_showed_is_known_to_be_visible_on_the_primary() {
    let watched = Watched::new();
    watched.server(PRIMARY).rows("CREATE TABLE notes (text text)").unwrap();

    quickly("it is known to be visible", Duration::from_secs(1), || {
        watched.server(PRIMARY).rows("INSERT INTO notes VALUES ('x')").unwrap();
        let seen = now();
        watched.signals.want_visibility(FIRST, seen);
        let (_, took) = watched.wait("it is visible", |topology| {
            topology.servers[1].visible_on_primary.is_some_and(|up_to| up_to >= seen)
        });
        took
    });
}

/// A commit that waits for its synchronous standby shows on standbys and not on the primary: the
/// guard must not vouch for it before it does.
#[test]
fn the_guard_waits_for_a_commit_that_only_standbys_show() {
    let watched = Watched::new();
    let primary = watched.server(PRIMARY);
    primary.rows("CREATE TABLE notes (text text)").unwrap();
    synchronous(primary, "nobody");
    let mut writer = primary.connect("postgres").unwrap();
    let writing = std::thread::spawn(move || writer.rows("INSERT INTO notes VALUES ('x')"));
    let count = "SELECT count(*) FROM notes";
    watched.server(FIRST).await_value(count, "1", "showing it").unwrap();
    assert_eq!(primary.value(count).unwrap(), "0", "the accident is there");

    let seen = now();
    watched.signals.want_visibility(FIRST, seen);
    watched.always("it is not vouched for", |topology| {
        topology.servers[1].visible_on_primary.is_none_or(|up_to| up_to < seen)
    });

    primary.set("synchronous_standby_names", "").unwrap();
    writing.join().unwrap().unwrap();
    watched.wait("it is vouched for", |topology| {
        topology.servers[1].visible_on_primary.is_some_and(|up_to| up_to >= seen)
    });
    assert_eq!(primary.value(count).unwrap(), "1");
}

/// A standby's crash leaves nothing that vouched for its backends.
#[test]
fn a_lost_connection_drops_what_vouched() {
    let watched = Watched::new();
    let seen = now();
    watched.signals.want_visibility(FIRST, seen);
    watched.wait("both are there", |topology| {
        let server = &topology.servers[1];
        server.sample.is_some() && server.visible_on_primary.is_some()
    });

    watched.server(FIRST).kill9().unwrap();
    watched.signals.lost_backend(FIRST);

    // In which order it is seen that the connection broke and that nobody answers is nobody's.
    watched.wait("both are gone, and it gets no reads", |topology| {
        let server = &topology.servers[1];
        let vouched = server.sample.is_some() || server.visible_on_primary.is_some();
        !vouched && server.reads.is_err()
    });
}

/// A catalog comes when it is asked for, goes when it changes, and comes anew.
#[test]
fn a_catalog_is_read_and_read_again_when_it_changes() {
    let watched = Watched::new();
    let database: Arc<str> = "postgres".into();
    watched.signals.want_catalog(&database, now());
    let (first, _) = watched.wait("it is read", |topology| topology.catalog("postgres").is_some());
    let before = first.catalog("postgres").unwrap().fingerprint().to_owned();

    let create = "CREATE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'";
    watched.server(PRIMARY).rows(create).unwrap();

    watched.wait("it is read again", |topology| {
        topology.catalog("postgres").is_some_and(|catalog| catalog.fingerprint() != before)
    });
}

/// Who might connect there before, and with which settings, nobody knows. Of what was opened behind
/// the wish that is known, if a server has answered soon.
#[test]
fn no_backend_of_before_is_relied_on_where_nobody_has_looked() {
    let watched = Watched::new();
    let (database, since): (Arc<str>, _) = ("postgres".into(), now());
    let all = (Arc::clone(&database), Box::from(""));
    watched.signals.want_catalog(&database, since);

    let told = watched.wait("they are renewed", |topology| topology.renewed.contains_key(&all));

    let until = told.0.renewed[&all];
    let late = now().since(since) >= Duration::from_secs(5);
    assert!(until < since || late, "{until:?} and not until {since:?}");
    watched.wait("the catalog is read", |topology| topology.catalog("postgres").is_some());
    let told = watched.now().renewed.get(&all).copied();
    assert!(told.is_none_or(|told| told == until), "it is done once: {told:?}");
}
