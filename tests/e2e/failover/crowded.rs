//! The primary hands over under every kind of work at once: nobody notices more than a wait.

use super::crowd::{Crowd, Diaries, KINDS};
use super::switchovers::{CALLED_OFF, patient, rounds};
use super::{await_armed, epoch, new_primary, ordered, primaries, settle, writing};
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::end_backends;
use pgsteer::clock;
use pgsteer::clock::Moment;

/// Sessions that do nothing but listen.
const LISTENERS: usize = 3;

/// What came of the rounds.
#[derive(Debug, Default)]
struct Rounds {
    /// When each was ordered.
    ordered: Vec<Moment>,
    done: usize,
    called_off: Vec<String>,
}

/// Each listener is told that it may have missed something, and hears what the new primary says
/// from then on.
fn hear(house: &House, listeners: &mut [Wire], round: usize) {
    for wire in &mut *listeners {
        await_that("a listener is warned", || is_warning(&heard(wire)));
    }
    let news = format!("round {round}");
    // At the new primary itself: it is there that they listen.
    let tell = || new_primary(house).rows(&format!("NOTIFY news, '{news}'")).unwrap();
    tell();
    for wire in listeners {
        await_that("a listener hears the news", || {
            let message = heard(wire);
            // What listens for them was lost once more, and they were told.
            if is_warning(&message) {
                tell();
            }
            String::from_utf8_lossy(&message).contains(&news)
        });
    }
}

/// A notification, or a warning that one may have been missed: nothing else comes.
fn heard(wire: &mut Wire) -> Vec<u8> {
    let message = wire.message().expect("the listener is disconnected");
    let is_news = message[0] == b'A';
    assert!(is_news || is_warning(&message), "{}", String::from_utf8_lossy(&message));
    message
}

fn is_warning(message: &[u8]) -> bool {
    let said = String::from_utf8_lossy(message);
    message[0] == b'N' && said.contains("notifications may have been missed")
}

/// Hands over once. A switchover that is called off is no failure if no client felt it.
fn hand_over(house: &House, listeners: &mut [Wire], rounds: &mut Rounds) {
    let round = rounds.ordered.len();
    let (before, from) = (epoch(house), new_primary(house).name().to_owned());
    rounds.ordered.push(clock::now());
    let (code, said) = ordered(house, &["switchover", "--yes"]);
    if code == CALLED_OFF {
        assert_eq!(new_primary(house).name(), from, "round {round}: {said}");
        return rounds.called_off.push(said);
    }
    assert_eq!(code, Some(0), "round {round}: {said}\n{}", house.proxy.log());
    // Attempts that were called off have numbers of their own.
    assert!(epoch(house) > before, "round {round}");
    assert_ne!(new_primary(house).name(), from, "round {round}");
    rounds.done += 1;
    hear(house, listeners, round);
    await_that("the old primary follows", || {
        let servers = house.status()["servers"].as_array().unwrap().clone();
        servers.iter().filter(|server| server["state"] == "streaming").count() == 2
    });
    assert_eq!(primaries(house).len(), 1);
}

/// Tells what came of it, and fails if something failed, or if nothing was at stake: of each kind
/// some were in the middle when a switchover was ordered.
fn judge(diaries: &Diaries, rounds: &Rounds) {
    for kind in KINDS {
        let spanned = diaries.spanned(kind, &rounds.ordered);
        eprintln!("{kind:?}: {} turns, {spanned} in the middle", diaries.turns(kind));
    }
    let (longest, what) = diaries.longest();
    eprintln!(
        "{} switchovers, {} called off, {} failed; longest wait {longest:?}: {what}",
        rounds.done,
        rounds.called_off.len(),
        diaries.failed().len()
    );
    assert_eq!(diaries.failed(), [""; 0]);
    for kind in KINDS {
        assert!(diaries.spanned(kind, &rounds.ordered) > 0, "nothing of {kind:?} was at stake");
    }
}

#[test]
fn switchovers_under_every_kind_of_work_fail_nothing() {
    let house = patient().build();
    await_armed(&house, "quorum");
    house.await_catalog();
    let ledger = writing(&house);
    let crowd = Crowd::open(&house);
    let mut listeners: Vec<Wire> = (0..LISTENERS).map(|_| house.wire()).collect();
    for wire in &mut listeners {
        wire.run("LISTEN news");
    }
    let mut done = Rounds::default();
    while done.done < rounds() {
        ledger.await_more(200);
        hand_over(&house, &mut listeners, &mut done);
        // On a crowded machine one after the other may take too long.
        let (off, most) = (&done.called_off, 10 * rounds());
        assert!(off.len() <= most, "none comes to its end: {off:?}");
    }
    ledger.await_more(200);
    let diaries = crowd.close();
    let book = settle(ledger, new_primary(&house));
    judge(&diaries, &done);
    eprintln!("{} plain writes, longest wait {:?}", book.acknowledged.len(), book.longest);
    assert!(book.refused.is_empty() && book.in_doubt.is_empty(), "{:?}", book.refused);
    diaries.settle(new_primary(&house));
    for mut wire in listeners {
        assert_eq!(wire.value("SELECT * FROM pg_listening_channels()"), "news");
    }
}

/// What fails in a crowd is told: here is something that must.
#[test]
fn a_crowd_that_loses_its_backends_says_so() {
    let house = House::build();
    let crowd = Crowd::open(&house);
    let primary = house.server("primary");
    // Whoever has written in a block that is open feels that in any case.
    await_that("work is under way", || {
        let written = "state = 'idle in transaction' AND backend_xid IS NOT NULL";
        end_backends(primary, written) > 0
    });
    assert_ne!(crowd.close().failed(), [""; 0]);
}
