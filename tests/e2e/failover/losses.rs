//! What may be lost is known before, and is what is lost.

use super::asynchronous;
use super::kills::rounds;
use super::new_primary;
use super::writing;
use super::{
    WRITERS, await_armed, await_told_to_end, epoch, ordered, quorum, settle, stop_receiving,
    turned_down,
};
use crate::support::House;
use crate::support::await_that;
use crate::support::ledger;
use crate::support::ledger::Book;
use crate::support::replaced;
use pgsteer::pg::Lsn;
use pgsteer::sandbox::Plan;
use serde_json::Value;
use std::time::Duration;

/// Writes that reach no standby are acknowledged; then the primary dies. What the writers were
/// told, and where its log ended.
pub fn dies_ahead_of_all(house: &House) -> (Book, Lsn) {
    let ledger = writing(house);
    for server in house.cluster.standbys() {
        stop_receiving(server);
    }
    ledger.await_more(200);
    let book = ledger.close();
    let primary = house.server("primary");
    let end = || primary.value("SELECT pg_current_wal_insert_lsn()").unwrap();
    // A look at it after the last acknowledgement covers that one as well.
    let mut known = String::new();
    await_that("the end of the log is known", || {
        let seen = house.status_of("primary")["lsn"].clone();
        known = end();
        std::thread::sleep(Duration::from_secs(1));
        seen == *known && house.status_of("primary")["lsn"] == *known
    });
    primary.kill9().unwrap();
    (book, known.parse().unwrap())
}

/// The primary shows the names of its standbys, and its commits wait for nobody yet: not before its
/// checkpointer has taken them in.
#[test]
fn a_quorum_that_no_commit_waits_for_yet_is_not_counted_on() {
    let house = asynchronous().servers(|plan| plan.setting("bgwriter_delay", "10s")).build();
    await_armed(&house, "asynchronous");
    let before = epoch(&house);
    house.server("primary").sigstop_process("checkpointer");
    for server in house.cluster.servers() {
        server.set("synchronous_standby_names", "ANY 1 (primary, standby1, standby2)").unwrap();
    }
    await_that("a proof was tried", || house.proxy.log().contains(": prove "));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(house.status()["failover"]["promise"], "asynchronous");

    dies_ahead_of_all(&house);
    await_told_to_end(house.cluster.standbys());
    house.cluster.standbys().iter().for_each(pgsteer::sandbox::Server::sigcont);
    await_that("the loss is told", || {
        house.status()["failover"]["why"].as_str().is_some_and(|why| why.contains("at a loss"))
    });
    assert_eq!(epoch(&house), before, "nobody was promoted");
}

#[test]
fn an_asynchronous_loss_is_refused_then_accepted_and_is_what_was_told() {
    // What it writes by itself, it writes less often.
    let idle = |plan: Plan| plan.setting("bgwriter_delay", "10s");
    let house = asynchronous().servers(idle).build();
    await_armed(&house, "asynchronous");
    let before = epoch(&house);
    let (book, end) = dies_ahead_of_all(&house);
    await_told_to_end(house.cluster.standbys());
    house.cluster.standbys().iter().for_each(pgsteer::sandbox::Server::sigcont);
    await_that("the loss is told", || {
        house.status()["failover"]["why"].as_str().is_some_and(|why| why.contains("at a loss"))
    });
    assert_eq!(epoch(&house), before, "nobody was promoted");

    let (code, _) = turned_down(&house, &["failover", "--yes"]);
    assert_ne!(code, Some(0), "nobody accepted the loss");
    let (_, said) = ordered(&house, &["-o", "json", "failover", "--dry-run"]);
    let mut shown = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let shown = shown.next().unwrap().unwrap()["loss"]["at_most_bytes"].as_u64();
    replaced(&house, &["failover", "--accept-loss", "any", "--yes"]);
    await_that("the change is over", || house.status()["failover"]["last_change"].is_object());

    let change = house.status()["failover"]["last_change"].clone();
    let fork: Lsn = change["fork_lsn"].as_str().unwrap().parse().unwrap();
    let told = change["loss"]["at_most_bytes"].as_u64().unwrap();
    let rows = new_primary(&house).rows("SELECT writer, number FROM ledger").unwrap();
    let verdict = book.judge(&rows);
    assert!(!verdict.lost.is_empty(), "nothing was at stake");
    assert_eq!((verdict.twice.len(), verdict.undead.len()), (0, 0));
    assert_eq!(told, end.bytes_since(fork), "the report is what is missing, to the byte");
    assert_eq!(shown, Some(told), "and so is what was shown before it was accepted");
}

#[test]
fn nobody_is_promoted_while_one_that_may_hold_the_write_is_cut_off() {
    // As often as the primary is killed by either way, with nobody cut off.
    for round in 0..2 * rounds() {
        dies_with_the_one_that_confirms_cut_off(round);
    }
}

fn dies_with_the_one_that_confirms_cut_off(round: usize) {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let before = epoch(&house);
    house.wire().run(ledger::TABLE);
    house.cluster.await_replay().unwrap();
    // Only the second standby confirms commits.
    stop_receiving(house.server("standby1"));
    let ledger = writing(&house);
    house.server("standby2").sigstop();
    // What is sent may lie in the proxy still, and be executed by the next primary.
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE wait_event = 'SyncRep' AND application_name !~ '^pgsteer'";
    await_that("commits wait for it", || {
        let waiting = house.server("primary").value(waits).unwrap();
        waiting.parse::<usize>().unwrap() > WRITERS / 2
    });
    let (acknowledged, at_stake) = (ledger.acknowledged(), ledger.in_flight());
    house.server("primary").kill9().unwrap();
    await_told_to_end([house.server("standby1")]);
    house.server("standby1").sigcont();
    await_that("the missing one is named", || {
        let status = house.status();
        let why = status["failover"]["why"].as_str().unwrap_or("").to_owned();
        why.contains("1 of the 2 standbys") && why.contains(&house.server("standby2").address())
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(epoch(&house), before, "nobody was promoted");
    assert!(house.server("standby1").is_standby().unwrap());
    // What it would have lost.
    let held = house.server("standby1").value("SELECT count(*) FROM ledger").unwrap();
    assert!(held.parse::<usize>().unwrap() < acknowledged, "nothing was at stake");

    house.server("standby2").sigcont();
    ledger.await_more(300);
    let book = settle(ledger, new_primary(&house));
    assert!(!book.in_doubt.is_empty(), "no commit was in flight");
    eprintln!(
        "round {round}: {acknowledged} acknowledged before, of which standby1 held {held}; \
         {at_stake} in flight at the kill, {} in doubt",
        book.in_doubt.len()
    );
}
