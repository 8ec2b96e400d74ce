//! What is folded in, and what of it counts: reports and moments are handed in.

use super::*;
use crate::topology::Fork;

const SYSTEM: SystemId = SystemId(7);
const OLD: ServerId = ServerId(0);
const NEW: ServerId = ServerId(1);

fn ms(at: u64) -> Moment {
    Moment::from_nanos(at * 1_000_000)
}

/// A primary and a standby, of which nothing is known.
fn fold() -> Fold {
    let spec = |name: &str| Spec { name: name.into(), host: name.into(), port: 5432, weight: 1 };
    Fold::new(Policy::default(), vec![spec("old"), spec("new")])
}

fn looked(at: u64, role: Role, timeline: u32, lsn: u64) -> Report {
    let primary = role == Role::Primary;
    let forks = (1..timeline).map(|number| Fork { timeline: Timeline(number), at: Lsn(150) });
    let history = History::new(Timeline(timeline), forks.collect());
    let look = Look {
        sent_at: ms(at),
        role,
        timeline: Some(Timeline(timeline)),
        insert: primary.then_some(Lsn(lsn)),
        lsn: Lsn(lsn),
        received: None,
        streaming: (!primary).then_some(false),
        heard: None,
        upstream: None,
        history: primary.then_some(history),
    };
    Report::Looked { system: SYSTEM, version: Version(150_018), look: Box::new(look) }
}

/// The first primary was seen at 10 ms, and its standby.
fn begun() -> Fold {
    let mut fold = fold();
    fold.take(OLD, looked(10, Role::Primary, 1, 100), ms(11));
    fold.take(NEW, looked(10, Role::Standby, 1, 100), ms(11));
    assert_eq!(fold.topology(ms(11)).writable(), Some(OLD));
    fold
}

fn lag(topology: &Topology) -> Option<u64> {
    topology.server(NEW).and_then(Server::observation).and_then(|seen| seen.lag.bytes)
}

/// Floors are of the insert position: what was acknowledged without a flush lies below it. Lag is
/// of the flush position: no standby can have more.
#[test]
fn floors_are_inserted_and_lag_is_flushed() {
    let mut fold = begun();
    let (timeline, insert, flush) = (Timeline(1), Lsn(90_000_000), Lsn(120));
    fold.take(
        OLD,
        Report::PrimaryAt(PrimaryAt { sent_at: ms(50), timeline, insert, flush }),
        ms(51),
    );
    fold.take(NEW, looked(60, Role::Standby, 1, 120), ms(61));
    let topology = fold.topology(ms(61));
    assert_eq!(topology.samples.resolve(ms(20)).map(|floor| floor.lsn), Some(insert));
    assert_eq!(lag(&topology), Some(0));
    assert_eq!(topology.server(NEW).map(|server| server.reads), Some(Ok(())));
}

/// Where a primary was says nothing in the next one's epoch.
#[test]
fn a_new_epoch_begins_without_positions() {
    let mut fold = begun();
    let before = fold.topology(ms(11)).epoch;
    assert!(fold.newest_sample().is_some());
    let epoch = Epoch(before.0 + 1);
    fold.appoint(
        Appointment {
            record: Some(adopt::Record {
                server: NEW,
                system: SYSTEM,
                timeline: Timeline(2),
                epoch,
            }),
            changing: None,
            epochs_used: epoch,
            succession: Succession::Unproven,
        },
        ms(20),
    );
    let changed = fold.topology(ms(20));
    assert_eq!((changed.epoch, changed.samples.newest()), (epoch, None));
    assert_eq!(changed.samples.resolve(ms(5)), None);
    assert_eq!(changed.former.resolve(before, ms(5)).map(|floor| floor.lsn), Some(Lsn(100)));
    assert_eq!(lag(&changed), None);
}

/// What vouched for backends through a connection vouches no more when that is lost.
#[test]
fn a_lost_connection_takes_what_vouched_with_it() {
    for loses in [
        Report::LinkLost,
        Report::Failed(Attempt { began: ms(30), ended: ms(31), why: Unseen::Refused }),
    ] {
        let mut fold = begun();
        let epoch = fold.topology(ms(11)).epoch;
        fold.take(NEW, Report::Visible { up_to: ms(12), epoch }, ms(13));
        let vouched = |fold: &Fold| {
            let topology = fold.topology(ms(32));
            let server = topology.server(NEW);
            server.map(|server| (server.sample.is_some(), server.visible_on_primary.is_some()))
        };
        assert_eq!(vouched(&fold), Some((true, true)));
        fold.take(NEW, loses, ms(32));
        assert_eq!(vouched(&fold), Some((false, false)));
    }
}
