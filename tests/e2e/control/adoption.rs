//! Whose word is taken on who is the primary.

use super::*;
use pgsteer::sandbox::Postgres;
use pgsteer::sandbox::Shutdown;
use pgsteer::sandbox::Template;
use pgsteer::topology::NoPrimary;
use pgsteer::topology::Unfit;

#[test]
fn roles_timelines_and_positions_are_seen() {
    let watched = Watched::unhurried();

    let (topology, _) = watched.wait("a standby streams, and its lag is known", |topology| {
        let standby = topology.servers[1].observation();
        standby.is_some_and(|seen| seen.streaming == Some(true) && seen.lag.bytes.is_some())
    });

    assert_eq!(role(&topology, PRIMARY), Some(Role::Primary));
    assert_eq!(role(&topology, FIRST), Some(Role::Standby));
    assert_eq!(topology.servers[0].reads, Err(Unfit::IsPrimary));
    let standby = topology.servers[1].observation().unwrap();
    assert_eq!(standby.timeline, topology.servers[0].observation().unwrap().timeline);
    assert_eq!(standby.system, topology.system.unwrap());
    let exposed = watched.metrics.expose().unwrap();
    assert!(exposed.contains("\npgsteer_primaries 1\n"), "{exposed}");
}

/// The primary dies, somebody promotes a standby by hand: it is followed within a second or so,
/// and the old primary, started again, is cordoned.
#[test]
fn a_promotion_after_the_primarys_death_is_followed() {
    quickly_enough("noticed within 1 s, followed within 1.5 s", || {
        let (noticed, followed) = followed();
        let quick = noticed < Duration::from_secs(1) && followed < Duration::from_millis(1500);
        if quick { Ok(()) } else { Err(format!("{noticed:?} and {followed:?}")) }
    });
}

/// How long it took to notice the death, and to adopt the promoted one.
fn followed() -> (Duration, Duration) {
    let watched = Watched::unhurried();
    let epoch = watched.now().epoch;

    watched.server(PRIMARY).kill9().unwrap();
    let (lost, noticed) = watched.wait("the loss is noticed", |topology| !is_open(topology));
    assert!(matches!(lost.primary, Primary::None { why: NoPrimary::Unseen, .. }));
    watched.wait("reads go on", |topology| reads(topology) == [FIRST, SECOND]);

    watched.server(FIRST).promote().unwrap();
    let (adopted, followed) =
        watched.wait("it is adopted", |topology| topology.writable() == Some(FIRST));
    assert_eq!(adopted.epoch.0, epoch.0 + 1);
    assert_eq!(adopted.history.forks().len(), 1);

    watched.server(PRIMARY).start().unwrap();
    watched.wait("it is cordoned", |topology| topology.servers[0].reads == Err(Unfit::Cordoned));
    assert_eq!(watched.now().writable(), Some(FIRST));
    (noticed, followed)
}

#[test]
fn a_promotion_beside_a_living_primary_is_a_rogue() {
    let watched = Watched::over(cluster(&plan()), SUPERUSER, calm());
    watched.wait("all are seen", |topology| topology.writable() == Some(PRIMARY));

    watched.server(FIRST).promote().unwrap();

    watched.wait("it is cordoned", |topology| topology.servers[1].reads == Err(Unfit::Cordoned));
    watched.always("the old one stays", |topology| {
        topology.writable() == Some(PRIMARY) && topology.servers[1].reads.is_err()
    });
    let exposed = watched.metrics.expose().unwrap();
    assert!(exposed.contains("\npgsteer_primaries 2\n"), "{exposed}");
    assert!(exposed.contains("\npgsteer_findings 1\n"), "{exposed}");
}

/// It lacks what the primary acknowledged since: that one restarts, or dies, and nobody takes its
/// place.
#[test]
fn a_rogue_takes_no_primarys_place() {
    let watched = Watched::unhurried();
    watched.server(FIRST).promote().unwrap();
    watched.wait("it is cordoned", |topology| topology.servers[1].reads == Err(Unfit::Cordoned));

    watched.always("the old one goes on", is_open);
    watched.server(PRIMARY).stop(Shutdown::Fast).unwrap();
    watched.wait("it is missed", |topology| !is_open(topology));
    watched.always("nobody takes its place", |topology| topology.writable().is_none());
    watched.server(PRIMARY).start().unwrap();
    watched.wait("it is back", |topology| topology.writable() == Some(PRIMARY));

    // Whoever makes it a standby says what that gives up.
    watched.server(PRIMARY).stop(Shutdown::Fast).unwrap();
    std::fs::write(watched.server(PRIMARY).data().join("standby.signal"), "").unwrap();
    watched.server(PRIMARY).start().unwrap();
    watched.wait("the other one is", |topology| topology.writable() == Some(FIRST));
}

#[test]
fn a_restart_of_the_primary_keeps_the_epoch() {
    let watched = Watched::unhurried();
    let epoch = watched.now().epoch;

    for stop in [Shutdown::Fast, Shutdown::Immediate] {
        watched.server(PRIMARY).stop(stop).unwrap();
        watched.wait("it is missed", |topology| !is_open(topology));
        watched.server(PRIMARY).start().unwrap();
        let (back, _) = watched.wait("it is back", is_open);
        assert_eq!((back.epoch, back.writable()), (epoch, Some(PRIMARY)));
        watched.wait("reads go on", |topology| reads(topology) == [FIRST, SECOND]);
    }
}

/// A server that hangs, rather than dies, delays no look at the others.
#[test]
fn a_hanging_primary_is_soon_missed() {
    let watched = Watched::new();
    quickly("its silence is noticed", Duration::from_secs(4), || {
        watched.server(PRIMARY).sigcont();
        watched.wait("it is there", is_open);
        watched.server(PRIMARY).sigstop();
        let (_, noticed) = watched.wait("it is missed", |topology| !is_open(topology));
        noticed
    });
    watched.server(PRIMARY).sigcont();
}

/// Its standbys' walreceivers keep anyone else from taking its place, for as long as they stream.
#[test]
fn a_hanging_primary_is_not_replaced_while_standbys_stream() {
    // It has been silent for long enough when somebody else is promoted; a witness is one for as
    // long as it is not.
    const SILENT: Duration = Duration::from_secs(4);
    let policy = Policy { silent_after: SILENT, ..Policy::default() };
    let watched = Watched::over(cluster(&plan()), SUPERUSER, policy);
    watched.wait("all are seen", |topology| {
        topology.writable() == Some(PRIMARY) && reads(topology) == [FIRST, SECOND]
    });
    watched.server(PRIMARY).sigstop();
    watched.wait("it is missed", |topology| !is_open(topology));
    std::thread::sleep(SILENT);
    watched.server(FIRST).promote().unwrap();
    watched.wait("the newcomer is seen", |topology| role(topology, FIRST) == Some(Role::Primary));
    watched.always("the newcomer is not adopted", |topology| topology.writable() != Some(FIRST));

    watched.server(SECOND).set("primary_conninfo", "").unwrap();
    watched.wait("nobody streams", |topology| topology.writable() == Some(FIRST));
    watched.server(PRIMARY).sigcont();
}

#[test]
fn two_primaries_at_the_start_are_nobodys_until_one_is_left() {
    let cluster = cluster(&plan());
    cluster.servers()[1].promote().unwrap();

    let watched = Watched::over(cluster, SUPERUSER, unhurried());

    watched.wait("it is disputed", |topology| {
        matches!(topology.primary, Primary::None { why: NoPrimary::Disputed, .. })
    });
    watched.always("no writes", |topology| !is_open(topology));
    watched.wait("reads go on", |topology| reads(topology) == [SECOND]);
    watched.server(FIRST).stop(Shutdown::Fast).unwrap();
    watched.wait("one is left", |topology| topology.writable() == Some(PRIMARY));
}

#[test]
fn another_systems_server_gets_nothing() {
    // A template of its own: the others' servers are copies of one `initdb`.
    let template = Template::new(Postgres::find(None).unwrap()).unwrap();
    let stranger = Cluster::start(&template, &plan().standbys(0)).unwrap();
    let ours = cluster(&plan().standbys(1));
    let mut servers: Vec<_> = ours.servers().iter().map(watched_server).collect();
    servers.push(watched_server(stranger.primary()));
    let watched = Watched::servers(ours, servers, SUPERUSER, unhurried());

    watched.wait("the stranger is named", |topology| {
        topology.servers[2].reads == Err(Unfit::OtherSystem)
    });
    watched.wait("the others serve", |topology| {
        topology.writable() == Some(PRIMARY) && reads(topology) == [FIRST]
    });
}

/// Half of the servers hang, and the others are looked at many times while a look at one that hangs
/// lasts.
#[test]
fn a_hanging_server_delays_no_look_at_the_others() {
    let policy = Policy {
        check_interval: Duration::from_millis(50),
        check_timeout: Duration::from_secs(3),
        ..Policy::default()
    };
    let watched = Watched::over(cluster(&plan()), SUPERUSER, policy);
    watched.wait("all are seen", |topology| reads(topology) == [FIRST, SECOND]);

    watched.server(FIRST).sigstop();
    watched.wait("it is missed", |topology| role(topology, FIRST).is_none());

    let await_miss = || {
        let before = looks(&watched, FIRST, "timeout");
        let missed = || looks(&watched, FIRST, "timeout") > before;
        assert_eq!(eventually(PATIENCE, || missed().then_some(())), Some(()), "no look ends");
    };
    quickly_enough("the others are looked at", || {
        await_miss();
        let seen = || [PRIMARY, SECOND].map(|server| looks(&watched, server, "ok"));
        let before = seen();
        await_miss();
        let often = before.iter().zip(seen()).all(|(before, after)| after >= before + 5);
        if often { Ok(()) } else { Err(format!("from {before:?} to {:?}", seen())) }
    });
    watched.server(FIRST).sigcont();
    watched.wait("it returns", |topology| reads(topology) == [FIRST, SECOND]);
}

/// How many looks at a server ended so.
fn looks(watched: &Watched, server: ServerId, result: &str) -> u64 {
    let exposed = watched.metrics.expose().unwrap();
    let (name, result) = (watched.server(server).address(), format!("result=\"{result}\""));
    let mut lines = exposed.lines().filter(|line| line.starts_with("pgsteer_server_checks_total"));
    let line = lines.find(|line| line.contains(&name) && line.contains(&result)).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}
