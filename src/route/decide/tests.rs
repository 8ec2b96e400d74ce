//! One table a rule: what each rule forbids is in its own test, so that the rule's removal turns
//! that test red.

use super::*;
use crate::pg::{Lsn, Position, SystemId, Timeline, Version};
use crate::topology::{Epoch, History, Lag, Observation, Role, Seen, StandbySample, Unfit, Unseen};
use std::sync::Arc;

const PRIMARY: ServerId = ServerId(0);
const NEAR: ServerId = ServerId(1);
const FAR: ServerId = ServerId(2);
/// The moment at which everything is decided, in milliseconds.
const NOW_MS: u64 = 10_000;

fn ms(at: u64) -> Moment {
    Moment::from_nanos(at * 1_000_000)
}

fn position(lsn: u64) -> Position {
    Position { system: SystemId(1), timeline: Timeline(1), lsn: Lsn(lsn) }
}

fn server(id: ServerId, role: Role, replayed: u64) -> Server {
    let standby = role == Role::Standby;
    let observation = Observation {
        sent_at: ms(NOW_MS - 100),
        role,
        system: SystemId(1),
        timeline: Timeline(1),
        version: Version(150_018),
        lsn: Lsn(replayed),
        received: None,
        streaming: Some(standby),
        upstream: None,
        lag: Lag::default(),
    };
    Server {
        id,
        name: Arc::from("s"),
        host: Arc::from("s"),
        port: 5432,
        weight: 1,
        seen: Seen::Answered(observation),
        reads: if standby { Ok(()) } else { Err(Unfit::IsPrimary) },
        sample: standby
            .then(|| StandbySample { sent_at: ms(NOW_MS - 50), position: position(replayed) }),
        visible_on_primary: None,
    }
}

/// A primary at 300, a standby that has replayed 300, another that has replayed 100.
fn world() -> Topology {
    let servers = [
        server(PRIMARY, Role::Primary, 300),
        server(NEAR, Role::Standby, 300),
        server(FAR, Role::Standby, 100),
    ];
    let mut topology = Topology::unseen(Box::new(servers));
    topology.epoch = Epoch(1);
    topology.history = History::new(Timeline(1), vec![]);
    topology.primary = Primary::Open { server: PRIMARY, timeline: Timeline(1) };
    topology
}

fn request() -> Request<'static> {
    Request {
        need: Need::Read,
        consistency: Consistency::Session,
        demand: Demand::Nothing,
        anchor: Anchor::Nowhere,
        since: ms(NOW_MS),
        failed: 0,
        load: &[],
        turn: 0,
        patience: Patience::None,
    }
}

fn ask(request: &Request<'_>, topology: &Topology) -> Route {
    decide(ms(NOW_MS), request, topology, &Policy::default())
}

fn target(route: Route) -> Option<(ServerId, Why)> {
    match route {
        Route::Go { server, why, .. } => Some((server, why)),
        Route::Wait { .. } | Route::Refuse(_) => None,
    }
}

/// It may have restarted since, and show what none of its standbys holds.
#[test]
fn a_backend_of_the_primary_that_is_younger_than_what_vouches_for_it_is_not_used() {
    let mut vouched = world();
    vouched.vouched = Some(ms(500));
    let write = Request { need: Need::Primary(PrimaryReason::Statement), ..request() };
    let policy = Policy { reads: Reads::Any, ..Policy::default() };
    let read = Request { load: &[0, 9, 9], ..request() };
    for (request, policy) in [(write, Policy::default()), (read, policy)] {
        let proof = |topology: &Topology| match decide(ms(NOW_MS), &request, topology, &policy) {
            Route::Go { server: PRIMARY, proof, .. } => proof,
            other @ (Route::Go { .. } | Route::Wait { .. } | Route::Refuse(_)) => {
                panic!("{other:?}")
            }
        };
        let given = proof(&vouched);
        assert!(given.holds(ms(500)) && !given.holds(ms(501)), "{given:?}");
        assert!(proof(&world()).holds(ms(NOW_MS)), "no quorum is promised");
    }
}

#[test]
fn a_write_goes_to_the_primary_and_nowhere_else() {
    let write = Request { need: Need::Primary(PrimaryReason::Statement), ..request() };
    assert_eq!(target(ask(&write, &world())), Some((PRIMARY, Why::Write)));

    let mut without = world();
    without.primary = Primary::None { last: Some(PRIMARY), why: NoPrimary::Unseen };
    assert!(matches!(ask(&write, &without), Route::Wait { .. }));

    let late = Request { since: ms(NOW_MS - 10_000), ..write };
    let refused = Route::Refuse(Refusal::NoPrimary(NoPrimary::Unseen));
    assert_eq!(ask(&late, &without), refused, "after hold_max it is refused");
}

/// The control plane stands still: it does not see who is made the primary meanwhile.
#[test]
fn nothing_goes_to_the_primary_when_the_right_to_write_has_ended() {
    let needs = [
        Request { need: Need::Primary(PrimaryReason::Statement), ..request() },
        Request { consistency: Consistency::Primary, ..request() },
    ];
    for request in needs {
        let mut silent = world();
        silent.writes_until = ms(NOW_MS);
        assert!(target(ask(&request, &silent)).is_some(), "the last moment");
        silent.writes_until = ms(NOW_MS - 1);
        let held = ask(&request, &silent);
        assert!(
            matches!(held, Route::Wait { ask: Ask::Nothing, .. }),
            "any word ends it: {held:?}"
        );
        let late = Request { since: ms(NOW_MS - 10_000), ..request };
        let refused = Route::Refuse(Refusal::NoPrimary(NoPrimary::Unwatched));
        assert_eq!(ask(&late, &silent), refused);
    }
}

#[test]
fn a_read_goes_to_no_standby_that_has_not_replayed_its_floor() {
    let read = Request { demand: Demand::Position(position(200)), ..request() };
    for turn in 0..50 {
        let route = ask(&Request { turn, ..read }, &world());
        assert_eq!(target(route), Some((NEAR, Why::Read)));
    }
    let beyond = Request { demand: Demand::Position(position(301)), ..request() };
    assert_eq!(target(ask(&beyond, &world())), Some((PRIMARY, Why::Floor)));
}

#[test]
fn an_unresolved_floor_is_read_on_the_primary_or_waited_for() {
    let read = Request { demand: Demand::Unresolved(ms(NOW_MS - 1)), ..request() };
    assert_eq!(target(ask(&read, &world())), Some((PRIMARY, Why::Floor)));

    let mut without = world();
    without.primary = Primary::None { last: Some(PRIMARY), why: NoPrimary::Unseen };
    let expected = Ask::Position(ms(NOW_MS - 1));
    assert!(matches!(ask(&read, &without), Route::Wait { ask, .. } if ask == expected));
}

#[test]
fn a_patient_read_waits_a_little_for_a_standby_and_no_longer() {
    let patient = Request { patience: Patience::Some, ..request() };
    let read = Request { demand: Demand::Position(position(301)), ..patient };
    assert!(matches!(ask(&read, &world()), Route::Wait { ask: Ask::Samples, .. }));
    let late = Request { since: ms(NOW_MS - 50), ..read };
    assert_eq!(target(ask(&late, &world())), Some((PRIMARY, Why::Floor)));
    let ready = Request { demand: Demand::Position(position(300)), ..patient };
    assert_eq!(target(ask(&ready, &world())), Some((NEAR, Why::Read)));
    let none_fit = Request { failed: 0b110, ..read };
    assert_eq!(target(ask(&none_fit, &world())), Some((PRIMARY, Why::NoStandby)));
}

#[test]
fn a_bare_position_of_another_timeline_proves_nothing() {
    let mut moved = world();
    moved.history = History::new(Timeline(2), vec![]);
    let read = Request { demand: Demand::Position(position(50)), ..request() };
    assert_eq!(target(ask(&read, &moved)), Some((PRIMARY, Why::Floor)));
}

#[test]
fn a_session_stays_on_the_standby_that_it_read_from() {
    let seen = ms(NOW_MS - 5);
    let demand = Demand::Unresolved(seen);
    let read = Request { demand, anchor: Anchor::Standby(FAR, seen), ..request() };
    let expected = Route::Go { server: FAR, why: Why::Read, proof: Proof::Anchored(seen) };
    assert_eq!(ask(&read, &world()), expected);
    assert!(!Proof::Anchored(seen).holds(ms(NOW_MS)), "a backend opened later proves nothing");
    assert!(Proof::Anchored(seen).holds(ms(NOW_MS - 6)));
}

#[test]
fn a_sample_vouches_for_backends_only_that_were_open_when_it_was_asked_for() {
    for proof in [Proof::Sampled(ms(50)), Proof::Anchored(ms(50))] {
        assert_eq!([49, 50, 51].map(|opened| proof.holds(ms(opened))), [true, true, false]);
    }
    assert!(Proof::NoneNeeded.holds(ms(51)));
}

#[test]
fn a_move_from_a_standby_to_the_primary_waits_until_it_shows_as_much() {
    let seen = ms(NOW_MS - 5);
    let write = Request {
        need: Need::Primary(PrimaryReason::Statement),
        anchor: Anchor::Standby(NEAR, seen),
        ..request()
    };
    let mut world = world();
    let expected = Ask::Visibility(NEAR, seen);
    assert!(matches!(ask(&write, &world), Route::Wait { ask, .. } if ask == expected));

    world.servers[1].visible_on_primary = Some(ms(NOW_MS - 6));
    assert!(matches!(ask(&write, &world), Route::Wait { .. }), "that was before it was seen");
    world.servers[1].visible_on_primary = Some(seen);
    assert_eq!(target(ask(&write, &world)), Some((PRIMARY, Why::Write)));

    world.servers[1].visible_on_primary = None;
    let late = Request { since: ms(NOW_MS - 10_000), ..write };
    assert_eq!(ask(&late, &world), Route::Refuse(Refusal::NotVisible));
    let eventual = Request { consistency: Consistency::Eventual, ..write };
    assert_eq!(target(ask(&eventual, &world)), Some((PRIMARY, Why::Write)));
}

#[test]
fn unseen_lagging_failed_and_weightless_servers_get_no_reads() {
    let cases: [fn(&mut Server); 4] = [
        |server| server.seen = Seen::Not { since: None, why: Unseen::Refused },
        |server| server.reads = Err(Unfit::LagTime),
        |server| server.weight = 0,
        |server| {
            if let Seen::Answered(seen) = &mut server.seen {
                seen.sent_at = ms(NOW_MS - 2_001);
            }
        },
    ];
    for (case, spoil) in cases.iter().enumerate() {
        let mut world = world();
        spoil(&mut world.servers[1]);
        for turn in 0..20 {
            let route = ask(&Request { turn, ..request() }, &world);
            assert_eq!(target(route), Some((FAR, Why::Read)), "case {case}");
        }
        spoil(&mut world.servers[2]);
        let route = ask(&request(), &world);
        assert_eq!(target(route), Some((PRIMARY, Why::NoStandby)), "case {case}");
    }
    let failed = Request { failed: 0b110, ..request() };
    assert_eq!(target(ask(&failed, &world())), Some((PRIMARY, Why::NoStandby)));
}

#[test]
fn reads_go_on_without_a_primary() {
    let mut world = world();
    world.primary = Primary::None { last: Some(PRIMARY), why: NoPrimary::Unseen };
    assert!(matches!(target(ask(&request(), &world)), Some((NEAR | FAR, Why::Read))));
}

#[test]
fn what_happens_when_none_qualifies_is_the_policys_choice() {
    let mut world = world();
    world.servers[1].reads = Err(Unfit::LagBytes);
    world.servers[2].reads = Err(Unfit::LagBytes);
    let wait = Policy { on_all_stale: OnAllStale::Wait, ..Policy::default() };
    assert!(matches!(decide(ms(NOW_MS), &request(), &world, &wait), Route::Wait { .. }));
    let late = Request { since: ms(NOW_MS - 10_000), ..request() };
    let refused = Route::Refuse(Refusal::NoStandby);
    assert_eq!(decide(ms(NOW_MS), &late, &world, &wait), refused);
    let error = Policy { on_all_stale: OnAllStale::Error, ..Policy::default() };
    assert_eq!(decide(ms(NOW_MS), &request(), &world, &error), refused);
}

#[test]
fn a_wish_for_a_standby_never_reaches_the_primary() {
    let wish = Request { need: Need::Standby, ..request() };
    assert!(matches!(target(ask(&wish, &world())), Some((NEAR | FAR, Why::Wish))));
    let mut world = world();
    world.servers[1].reads = Err(Unfit::LagBytes);
    world.servers[2].reads = Err(Unfit::LagBytes);
    assert!(matches!(ask(&wish, &world), Route::Wait { .. }));
    let late = Request { since: ms(NOW_MS - 10_000), ..wish };
    assert_eq!(ask(&late, &world), Route::Refuse(Refusal::NoStandby));
}

#[test]
fn modes_that_ask_for_the_primary_get_it() {
    let primary = Request { consistency: Consistency::Primary, ..request() };
    assert_eq!(target(ask(&primary, &world())), Some((PRIMARY, Why::Mode)));
    let policy = Policy { reads: Reads::Primary, ..Policy::default() };
    let route = decide(ms(NOW_MS), &request(), &world(), &policy);
    assert_eq!(target(route), Some((PRIMARY, Why::Mode)));
}

#[test]
fn eventual_reads_ask_for_no_floor() {
    let eventual = Request {
        consistency: Consistency::Eventual,
        demand: Demand::Position(position(10_000)),
        ..request()
    };
    let picked: Vec<_> = (0..200)
        .filter_map(|turn| target(ask(&Request { turn, ..eventual }, &world())))
        .map(|(server, _)| server)
        .collect();
    assert!(picked.contains(&NEAR) && picked.contains(&FAR), "idle standbys share the work");
}

#[test]
fn the_least_active_standby_is_picked_relative_to_its_weight() {
    let busy = Request { load: &[0, 5, 1], ..request() };
    assert_eq!(target(ask(&busy, &world())), Some((FAR, Why::Read)));
    let mut world = world();
    world.servers[1].weight = 10;
    assert_eq!(target(ask(&busy, &world)), Some((NEAR, Why::Read)));
}

/// A primary and so many standbys that have replayed everything.
fn wide(standbys: u16) -> Topology {
    let mut world = world();
    let primary = world.servers[0].clone();
    let standbys = (1..=standbys).map(|id| server(ServerId(id), Role::Standby, 300));
    world.servers = std::iter::once(primary).chain(standbys).collect();
    world
}

/// Where so many reads in turn go, each with the load that those before it have made.
fn spread(world: &Topology, reads: u32, first: Request<'_>) -> Vec<u32> {
    let mut load = vec![0; world.servers.len()];
    for turn in 0..reads {
        let route = ask(&Request { turn, load: &load, ..first }, world);
        let (server, _) = target(route).unwrap();
        load[server.index()] += 1;
    }
    load
}

#[test]
fn of_many_standbys_none_is_left_out_and_none_is_overrun() {
    let world = wide(31);
    let load = spread(&world, 3_100, request());
    assert_eq!(load[0], 0, "the primary");
    assert!(load[1..].iter().all(|load| (90..=110).contains(load)), "{load:?}");
}

/// However few of them are fit, one of these is found.
#[test]
fn of_many_standbys_those_that_are_not_fit_are_passed_over() {
    let mut world = wide(31);
    for server in &mut world.servers[1..] {
        server.reads = Err(Unfit::LagBytes);
    }
    let Route::Go { why: Why::NoStandby, .. } = ask(&request(), &world) else { panic!() };
    world.servers[17].reads = Ok(());
    for turn in 0..100 {
        let only = ask(&Request { turn, ..request() }, &world);
        assert_eq!(target(only), Some((ServerId(17), Why::Read)));
    }
    // It has not replayed the floor.
    let ahead = Demand::Position(position(301));
    let floor = Request { demand: ahead, ..request() };
    assert_eq!(target(ask(&floor, &world)), Some((PRIMARY, Why::Floor)));
}

/// A move costs a proof; a session stays where it is until that is busier by more than that.
#[test]
fn of_many_standbys_a_sessions_own_is_always_looked_at() {
    let world = wide(31);
    let own = ServerId(23);
    let mut load = vec![1; 32];
    for (busy, stays) in [(1, true), (2, true), (4, false)] {
        load[own.index()] = busy;
        for turn in 0..100 {
            let anchor = Anchor::Standby(own, ms(NOW_MS));
            let read = Request { turn, anchor, load: &load, ..request() };
            let (server, _) = target(ask(&read, &world)).unwrap();
            assert_eq!(server == own, stays, "{busy}");
        }
    }
}

#[test]
fn weights_share_the_reads_in_proportion() {
    let mut world = world();
    world.servers[1].weight = 3;
    let policy = Policy { balance: Balance::Weighted, ..Policy::default() };
    let near = (0..4_000_u32)
        .filter(|turn| {
            let route = decide(ms(NOW_MS), &Request { turn: *turn, ..request() }, &world, &policy);
            target(route).is_some_and(|(server, _)| server == NEAR)
        })
        .count();
    assert!((2_800..3_200).contains(&near), "3 of 4 expected, got {near} of 4000");
}

#[test]
fn any_includes_the_primary_unless_it_would_have_to_catch_up() {
    let policy = Policy { reads: Reads::Any, ..Policy::default() };
    let picks = |anchor, load: &[u32]| {
        let request = Request { anchor, load, ..request() };
        target(decide(ms(NOW_MS), &request, &world(), &policy)).map(|(server, _)| server)
    };
    assert_eq!(picks(Anchor::Nowhere, &[0, 9, 9]), Some(PRIMARY));
    assert_ne!(picks(Anchor::Standby(NEAR, ms(NOW_MS)), &[0, 9, 9]), Some(PRIMARY));
}

#[test]
fn what_touches_no_data_goes_to_any_server_that_answers() {
    let anywhere = Request { need: Need::Anywhere, ..request() };
    assert_eq!(target(ask(&anywhere, &world())), Some((PRIMARY, Why::Anywhere)));
    let mut without = world();
    without.primary = Primary::None { last: Some(PRIMARY), why: NoPrimary::Unseen };
    assert_eq!(target(ask(&anywhere, &without)), Some((NEAR, Why::Anywhere)));
}
