//! What is folded in, and what of it counts: reports and moments are handed in.

use super::*;
use crate::control::finding::Refusal;
use crate::topology::Fork;

const SYSTEM: SystemId = SystemId(7);
const OLD: ServerId = ServerId(0);
const NEW: ServerId = ServerId(1);

fn ms(at: u64) -> Moment {
    Moment::from_nanos(at * 1_000_000)
}

/// A primary and a standby, of which nothing is known.
fn fold() -> Fold {
    let spec = |name: &str| Spec {
        name: name.into(),
        host: name.into(),
        port: 5432,
        reached: (name.into(), 5432),
        weight: 1,
    };
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
        written: None,
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
                fork: None,
                epoch,
            }),
            changing: None,
            epochs_used: epoch,
            succession: Succession::Unproven,
            quorum: None,
        },
        ms(20),
    );
    let changed = fold.topology(ms(20));
    assert_eq!((changed.epoch, changed.samples.newest()), (epoch, None));
    assert_eq!(changed.samples.resolve(ms(5)), None);
    assert_eq!(changed.former.resolve(before, ms(5)).map(|floor| floor.lsn), Some(Lsn(100)));
    assert_eq!(lag(&changed), None);
}

/// Another tool promotes the standby, and the old one is gone.
fn promoted_elsewhere(fold: &mut Fold) {
    fold.take(NEW, looked(20, Role::Primary, 2, 200), ms(21));
    fold.take(OLD, looked(22, Role::Standby, 1, 100), ms(23));
}

fn on_record(server: ServerId, timeline: u32, epoch: u64) -> Appointment {
    let (timeline, epoch) = (Timeline(timeline), Epoch(epoch));
    Appointment {
        record: Some(adopt::Record { server, system: SYSTEM, timeline, fork: None, epoch }),
        changing: None,
        epochs_used: epoch,
        succession: Succession::Unproven,
        quorum: None,
    }
}

/// Who is started later goes by the record: what was written elsewhere meanwhile would be lost.
#[test]
fn who_takes_anothers_place_is_open_once_that_is_recorded() {
    let mut fold = fold();
    fold.keep(Book::Kept, ms(9));
    fold.take(OLD, looked(10, Role::Primary, 1, 100), ms(11));
    fold.take(NEW, looked(10, Role::Standby, 1, 100), ms(11));
    assert_eq!(fold.topology(ms(11)).writable(), Some(OLD), "there was none before");
    fold.appoint(on_record(OLD, 1, 1), ms(12));
    promoted_elsewhere(&mut fold);
    let behind = Primary::None { last: Some(NEW), why: NoPrimary::Unrecorded };
    assert_eq!(fold.topology(ms(24)).primary, behind);
    assert_eq!(fold.topology(ms(24)).epoch, Epoch(2), "the old one's is over");
    fold.reconsider(ms(25));
    assert_eq!(fold.topology(ms(25)).primary, behind);
    fold.appoint(on_record(NEW, 2, 2), ms(26));
    assert_eq!(fold.topology(ms(26)).writable(), Some(NEW));
}

/// The one on record may be away for a moment, and who led before it answer as if it led still.
#[test]
fn nobody_is_open_before_it_is_read_who_is_on_record() {
    // Another tool has replaced the one on record before that was read.
    let mut replaced = fold();
    replaced.keep(Book::Unread, ms(9));
    replaced.take(OLD, looked(10, Role::Standby, 1, 100), ms(11));
    replaced.take(NEW, looked(10, Role::Primary, 2, 200), ms(11));
    replaced.appoint(on_record(OLD, 1, 7), ms(12));
    replaced.keep(Book::Kept, ms(12));
    assert_eq!(replaced.topology(ms(12)).writable(), None);
    replaced.appoint(on_record(NEW, 2, 8), ms(13));
    assert_eq!(replaced.topology(ms(13)).writable(), Some(NEW));

    let unread = || {
        let mut fold = fold();
        fold.keep(Book::Unread, ms(9));
        fold.take(OLD, looked(10, Role::Primary, 1, 100), ms(11));
        let failed = Attempt { began: ms(10), ended: ms(11), why: Unseen::Refused };
        fold.take(NEW, Report::Failed(failed), ms(11));
        fold
    };
    let shut = Primary::None { last: None, why: NoPrimary::Unrecorded };
    let mut fold = unread();
    for at in [11, 1_000] {
        fold.reconsider(ms(at));
        assert_eq!(fold.topology(ms(at)).primary, shut);
    }
    assert_eq!(fold.adopted(), None, "nobody was adopted: a later change would pass for ours");
    fold.appoint(on_record(NEW, 2, 7), ms(1_001));
    fold.keep(Book::Kept, ms(1_001));
    assert_eq!(fold.topology(ms(1_001)).writable(), None, "it is another");
    fold.take(NEW, looked(1_010, Role::Primary, 2, 200), ms(1_011));
    assert_eq!(fold.topology(ms(1_011)).writable(), Some(NEW));

    let mut same = unread();
    same.appoint(on_record(OLD, 1, 7), ms(12));
    assert_eq!(same.topology(ms(12)).writable(), Some(OLD));
    for none in [Book::Kept, Book::Absent] {
        let mut fold = unread();
        fold.keep(none, ms(12));
        assert_eq!(fold.topology(ms(12)).writable(), Some(OLD), "there is none: {none:?}");
    }
}

#[test]
fn where_no_record_is_kept_nothing_waits_for_one() {
    let mut fold = begun();
    let fork = |fold: &Fold| fold.adopted().and_then(|record| record.fork);
    assert_eq!(fork(&fold), None);
    promoted_elsewhere(&mut fold);
    assert_eq!(fork(&fold), Some(Lsn(150)), "where the new branch began is known at once");
    assert_eq!(fold.topology(ms(24)).writable(), Some(NEW));
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

fn received(at: u64, lsn: u64) -> Report {
    let mut report = looked(at, Role::Standby, 1, 100);
    if let Report::Looked { look, .. } = &mut report {
        look.received = Some(Lsn(lsn));
    }
    report
}

/// One that promises a quorum, and was looked at since: all that is open at 30 ms is vouched for.
fn pledged() -> Fold {
    let mut fold = begun();
    let cohort = BTreeSet::from([NEW]);
    fold.pledge(Some(Quorum { w: 1, cohort }), ms(20));
    fold.take(OLD, looked(30, Role::Primary, 1, 100), ms(31));
    assert_eq!(fold.topology(ms(31)).vouched, Some(ms(30)));
    fold
}

const SETTLING: Primary = Primary::None { last: Some(OLD), why: NoPrimary::Settling };

/// It may have crashed, and show commits that nobody else has.
#[test]
fn a_primary_that_may_have_restarted_waits_until_its_standby_holds_its_log() {
    let mut fold = pledged();
    let now = |fold: &Fold, at| (fold.topology(ms(at)).primary, fold.topology(ms(at)).vouched);
    let open = fold.topology(ms(31)).primary;

    fold.take(OLD, Report::LinkLost, ms(40));
    assert_eq!(now(&fold, 40), (open, Some(ms(30))), "what was open before lives on, or is dead");
    fold.take(OLD, looked(50, Role::Primary, 1, 130), ms(51));
    assert_eq!(now(&fold, 51), (SETTLING, Some(ms(30))));
    fold.take(NEW, received(60, 129), ms(61));
    assert_eq!(now(&fold, 61).0, SETTLING, "the last of it is missing");
    fold.take(OLD, looked(70, Role::Primary, 1, 500), ms(71));
    fold.take(NEW, received(80, 130), ms(81));
    assert_eq!(now(&fold, 81), (open, Some(ms(70))));
    assert_eq!(fold.findings(), BTreeSet::new());
}

/// The same report, of a server whose timelines were left there, from the first one on.
fn left(mut report: Report, ends: &[u64]) -> Report {
    if let Report::Looked { look, .. } = &mut report {
        let forks = (1..).map(Timeline).zip(ends);
        let forks = forks.map(|(timeline, at)| Fork { timeline, at: Lsn(*at) });
        look.history = look.timeline.map(|timeline| History::new(timeline, forks.collect()));
    }
    report
}

/// It was promoted as well, elsewhere: what it holds is not the primary's log.
#[test]
fn a_standby_on_another_branch_of_the_same_number_holds_nothing_of_the_primarys() {
    for (end, firm) in [(150, true), (140, false)] {
        let mut fold = fold();
        let standby = |at| left(looked(at, Role::Standby, 2, 500), &[end]);
        fold.take(NEW, standby(10), ms(11));
        let cohort = BTreeSet::from([NEW]);
        fold.pledge(Some(Quorum { w: 1, cohort }), ms(12));
        fold.take(OLD, looked(20, Role::Primary, 2, 200), ms(21));
        fold.take(NEW, standby(30), ms(31));
        let topology = fold.topology(ms(31));
        assert_eq!(topology.primary != SETTLING, firm, "{end}");
        assert_eq!(topology.writable().is_some(), firm, "{end}");
    }
}

/// The primary of timeline 2 is gone, and a standby of the same number was promoted to timeline 3.
#[test]
fn whoever_comes_by_another_branch_of_the_same_number_is_no_heir() {
    let refused: fn(&mut Fold) = |fold| {
        for at in [100, 350, 600, 850, 1_100] {
            let attempt = Attempt { began: ms(at), ended: ms(at + 1), why: Unseen::Refused };
            fold.take(OLD, Report::Failed(attempt), ms(at + 1));
        }
    };
    let demoted: fn(&mut Fold) = |fold| fold.take(OLD, looked(900, Role::Standby, 2, 200), ms(901));
    for (end, heir) in [(150, Some(NEW)), (140, None)] {
        for leaves in [refused, demoted] {
            let mut fold = fold();
            fold.take(OLD, looked(10, Role::Primary, 2, 200), ms(11));
            fold.take(NEW, left(looked(10, Role::Standby, 2, 200), &[end]), ms(11));
            leaves(&mut fold);
            let promoted = left(looked(1_200, Role::Primary, 3, 300), &[end, 200]);
            fold.take(NEW, promoted, ms(1_201));
            assert_eq!(fold.topology(ms(1_201)).writable(), heir, "{end}");
            let refusal = Refusal::NotADescendant;
            let (timeline, primary) = (Timeline(3), OLD);
            let rogue = Finding::Rogue { server: NEW, timeline, primary, refusal };
            assert_eq!(fold.findings().contains(&rogue), heir.is_none(), "{end}");
        }
    }
}

/// One that was promoted beside a primary that went on, and is a standby on its own branch since:
/// the next primary took the same number.
#[test]
fn a_claim_is_not_forgotten_for_a_branch_of_the_same_number() {
    for (end, lacks) in [(150, false), (140, true)] {
        let mut fold = begun();
        fold.take(NEW, left(looked(20, Role::Primary, 2, 150), &[end]), ms(21));
        fold.take(OLD, looked(30, Role::Primary, 1, 150), ms(31));
        assert!(fold.rogues.lacks(NEW, None));
        fold.take(OLD, looked(40, Role::Primary, 2, 160), ms(41));
        fold.take(NEW, left(looked(50, Role::Standby, 2, 160), &[end]), ms(51));
        assert_eq!(fold.topology(ms(51)).writable(), Some(OLD));
        fold.reconsider(ms(52));
        assert_eq!(fold.rogues.lacks(NEW, None), lacks, "{end}");
    }
}

/// Whoever keeps the topology of a control plane that stands still does not write on by it. What it
/// heard before gives nobody the right back.
#[test]
fn the_right_to_write_ends_with_the_last_word_and_comes_back_with_a_new_look() {
    let mut fold = begun();
    fold.reconsider(ms(1_000));
    let topology = fold.topology(ms(1_000));
    assert_eq!(topology.may_write(ms(6_000)), Ok(OLD));
    assert_eq!(topology.may_write(ms(6_001)), Err(NoPrimary::Unwatched));
    let may_write = |fold: &mut Fold, at| {
        fold.reconsider(ms(at));
        fold.topology(ms(at)).may_write(ms(at))
    };
    assert_ne!(may_write(&mut fold, 9_000), Ok(OLD));
    fold.take(OLD, looked(8_999, Role::Primary, 1, 120), ms(9_001));
    assert_ne!(may_write(&mut fold, 9_002), Ok(OLD), "asked before the pause was over");
    fold.take(OLD, looked(9_010, Role::Primary, 1, 120), ms(9_011));
    assert_eq!(may_write(&mut fold, 9_012), Ok(OLD));
}

#[test]
fn a_primary_whose_log_nobody_takes_is_used_after_a_while_and_that_is_told() {
    let mut fold = pledged();
    fold.take(OLD, Report::LinkLost, ms(40));
    fold.take(OLD, looked(50, Role::Primary, 1, 130), ms(50));
    for at in [5_000, 6_000] {
        fold.take(OLD, looked(at, Role::Primary, 1, 140), ms(at));
        assert_eq!(fold.topology(ms(at)).primary, SETTLING);
    }
    fold.take(OLD, looked(6_051, Role::Primary, 1, 140), ms(6_051));
    let topology = fold.topology(ms(6_051));
    assert_eq!((topology.writable(), topology.vouched), (Some(OLD), Some(ms(6_051))));
    let unheld = Finding::Unheld { server: OLD, end: Lsn(130) };
    assert_eq!(fold.findings(), BTreeSet::from([unheld]));
    fold.take(NEW, received(6_100, 130), ms(6_100));
    assert_eq!(fold.findings(), BTreeSet::new());
}

#[test]
fn where_no_quorum_is_promised_nothing_is_waited_for() {
    let mut fold = begun();
    fold.take(OLD, Report::LinkLost, ms(40));
    fold.take(OLD, looked(50, Role::Primary, 1, 130), ms(51));
    let topology = fold.topology(ms(51));
    assert_eq!((topology.writable(), topology.vouched), (Some(OLD), None));
}

/// What a standby says of its upstream is what stands in its `primary_conninfo`.
#[test]
fn an_upstream_is_known_by_the_address_for_servers_too() {
    let spec = |name: &str, reached: &str, port| Spec {
        name: name.into(),
        host: name.into(),
        port: 5432,
        reached: (reached.into(), port),
        weight: 1,
    };
    let specs = [spec("a", "10.0.0.1", 5433), spec("b", "b", 5432)];
    let cases = [
        ("a", 5432, Some(0)),
        ("10.0.0.1", 5433, Some(0)),
        ("10.0.0.1", 5432, None),
        ("a", 5433, None),
        ("b", 5432, Some(1)),
        ("c", 5432, None),
    ];
    for (host, port, expected) in cases {
        assert_eq!(resolve(&specs, host, port), expected.map(ServerId), "{host}:{port}");
    }
}

#[test]
fn shards_are_told_for_a_while_that_backends_are_to_be_renewed() {
    let mut fold = begun();
    let shop: Arc<str> = Arc::from("shop");
    let at = |fold: &Fold, role: &str| {
        fold.topology(ms(0)).renewed.get(&(Arc::clone(&shop), role.into())).copied()
    };
    fold.renew(&shop, vec!["bob".into(), "eve".into()], ms(1_000));
    fold.renew(&shop, vec!["eve".into()], ms(5_000));
    fold.renew(&shop, vec!["eve".into()], ms(4_000));
    assert_eq!((at(&fold, "bob"), at(&fold, "eve")), (Some(ms(1_000)), Some(ms(5_000))));
    fold.reconsider(ms(60_999));
    assert!(at(&fold, "bob").is_some());
    fold.reconsider(ms(61_000));
    assert_eq!((at(&fold, "bob"), at(&fold, "eve")), (None, Some(ms(5_000))));
    fold.reconsider(ms(65_000));
    assert_eq!(fold.topology(ms(65_000)).renewed.len(), 0);
}
