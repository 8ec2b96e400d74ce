//! What is to be promoted takes over first what another one holds more, and that one never lets it
//! in: no change waits for ever, nothing that was acknowledged is given up by itself, and the
//! operator is told why, and what helps.

use super::shut_out::Crowd;
use super::{asynchronous, await_armed, await_told_to_end, epoch, new_primary, stop_receiving};
use super::{quorum, settle, tells, turned_down, writing};
use crate::support::Blueprint;
use crate::support::Door;
use crate::support::House;
use crate::support::await_that;
use crate::support::ledger;
use crate::support::ledger::Ledger;
use crate::support::replaced;

/// What keeps one standby from receiving from another one.
const RULE: &str = "host replication all all";

/// Only the second standby, which may not lead, holds the last writes that were acknowledged; the
/// primary is dead, and the first one is to take over from it.
pub fn one_that_may_not_lead_holds_more(house: &House) -> Ledger {
    house.wire().run(ledger::TABLE);
    house.cluster.await_replay().unwrap();
    stop_receiving(house.server("standby1"));
    let ledger = writing(house);
    house.server("primary").kill9().unwrap();
    await_told_to_end([house.server("standby1")]);
    house.server("standby1").sigcont();
    ledger
}

pub fn build_from(blueprint: Blueprint, promise: &str) -> House {
    let house = blueprint.never_leads("standby2").build();
    await_armed(&house, promise);
    house
}

/// Nobody is promoted, and nothing is given up.
fn nothing_is_given_up(house: &House, before: u64) {
    let (code, said) = turned_down(house, &["failover", "--yes"]);
    assert_ne!(code, Some(0), "{said}");
    assert_eq!(epoch(house), before, "nobody was promoted");
    let (less, more) = (held(house, "standby1"), held(house, "standby2"));
    assert!(less < more, "nothing was at stake: {less}, {more}");
}

/// Waits until `pgsteer status` names the obstacle, in these words as well. That a step of an
/// attempt was late is an obstacle, too, until the next attempt.
fn await_told(house: &House, words: &[&str]) {
    let from = house.server("standby2").address();
    let words = [&["can't take over", &from], words].concat();
    await_that(&format!("it says {words:?}"), || tells(house, &words));
}

fn blocked(house: &House) -> Option<f64> {
    house.metric(r#"pgsteer_failover_blocked{reason="cannot_catch_up"}"#)
}

/// How many writes a server holds.
pub fn held(house: &House, server: &str) -> usize {
    house.server(server).value("SELECT count(*) FROM ledger").unwrap().parse().unwrap()
}

/// The positive control: where it is let in, the one that may lead takes over all of it.
#[test]
fn one_that_may_lead_takes_over_what_another_holds_more() {
    let house = build_from(quorum(), "quorum");
    let ledger = one_that_may_not_lead_holds_more(&house);
    assert_eq!(new_primary(&house).name(), "standby1");
    ledger.await_more(300);
    settle(ledger, house.server("standby1"));
    assert!(house.proxy.log().contains("takes over what"), "{}", house.proxy.log());
    assert!(!house.proxy.log().contains("can't take over"), "{}", house.proxy.log());
}

#[test]
fn with_a_quorum_nothing_is_given_up_for_a_source_that_lets_nobody_in() {
    let house = build_from(quorum(), "quorum");
    let before = epoch(&house);
    let door = Door::shut(house.server("standby2"), RULE);
    let ledger = one_that_may_not_lead_holds_more(&house);

    await_told(&house, &["pg_hba.conf", "--accept-loss any"]);
    await_that("it is counted", || blocked(&house) == Some(1.0));
    assert!(house.proxy.log().contains("can't take over"), "{}", house.proxy.log());
    nothing_is_given_up(&house, before);

    // What it says helps: it is let in, and takes over all of it.
    door.open();
    ledger.await_more(300);
    settle(ledger, new_primary(&house));
    assert_eq!(blocked(&house), Some(0.0));
}

#[test]
fn with_a_quorum_nothing_is_given_up_for_a_source_that_has_no_place() {
    let places = quorum().servers(|plan| plan.setting("max_wal_senders", "10"));
    let house = build_from(places, "quorum");
    let before = epoch(&house);
    let crowd = Crowd::come(&house, "standby2");
    let ledger = one_that_may_not_lead_holds_more(&house);

    await_told(&house, &["all 10 places", "max_wal_senders", "--accept-loss any"]);
    nothing_is_given_up(&house, before);

    crowd.leave();
    ledger.await_more(300);
    settle(ledger, new_primary(&house));
    assert_eq!(blocked(&house), Some(0.0));
}

#[test]
fn an_operator_goes_on_without_a_source_that_lets_nobody_in() {
    let house = build_from(quorum(), "quorum");
    let _door = Door::shut(house.server("standby2"), RULE);
    let ledger = one_that_may_not_lead_holds_more(&house);
    await_told(&house, &[]);

    replaced(&house, &["failover", "--accept-loss", "any", "--yes"]);
    assert_eq!(new_primary(&house).name(), "standby1");
    drop(ledger);
}

/// What is lost is within what may be.
#[test]
fn without_a_quorum_a_source_that_lets_nobody_in_holds_up_nobody() {
    let house = build_from(asynchronous().set("failover.max_data_loss", "any"), "asynchronous");
    let _door = Door::shut(house.server("standby2"), RULE);
    let ledger = one_that_may_not_lead_holds_more(&house);
    ledger.await_more(300);
    assert_eq!(new_primary(&house).name(), "standby1");
    drop(ledger.close());
}
