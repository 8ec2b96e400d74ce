//! What is no reason for a failover, whatever the servers promise, and what is.

use super::settle;
use super::shut_out::Crowd;
use super::writing;
use super::{armed, await_armed, new_primary, quorum};
use super::{epoch, ledger::Ledger};
use crate::support::Blueprint;
use crate::support::House;
use crate::support::await_that;
use crate::support::quickly_enough;
use pgsteer::clock;
use pgsteer::sandbox::Plan;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// Longer than every limit after which a silent or lost primary is replaced.
const LONG: Duration = Duration::from_secs(8);
/// Less than the limit after which one that stands still is replaced.
const STILL_MAX: Duration = Duration::from_millis(2500);

/// A primary and two standbys that confirm nothing, whose loss may be whatever it is: nothing but
/// the evidence keeps pgsteer from promoting one of them.
fn eager() -> Blueprint {
    armed(&[("wal_sender_timeout", "400ms")]).set("failover.max_data_loss", "any")
}

/// The primary is still the one of before, and nothing but that was ever decided.
fn nothing_changed(house: &House, before: u64) {
    assert_eq!(new_primary(house).name(), "primary", "{}", house.proxy.log());
    nothing_was_begun(house, before);
}

fn nothing_was_begun(house: &House, before: u64) {
    assert_eq!(epoch(house), before, "{}", house.proxy.log());
    assert!(!house.proxy.log().contains("revoking"), "{}", house.proxy.log());
}

/// All connections of the primary are in use, and ours are no exception.
fn every_connection_is_in_use(house: &House) {
    let mut inside = house.server("primary").connect("postgres").unwrap();
    let crowd = Crowd::come_as(house, "primary", &[]);
    let refused = || house.server("primary").logged("too many clients already");
    let before = refused();
    // It comes back at once, and may be faster than the crowd.
    await_that("pgsteer is kept out", || {
        let out = house.status_of("primary")["role"].is_null() && refused() > before;
        if !out {
            let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                        WHERE application_name LIKE 'pgsteer%' AND pid <> pg_backend_pid()";
            inside.rows(ours).unwrap();
        }
        out
    });
    std::thread::sleep(LONG);
    crowd.leave();
    await_that("it is let in", || house.status_of("primary")["role"] == "primary");
    // One that has left it may still have its place.
    await_that("it is written to", || {
        house.wire().query("CREATE TABLE IF NOT EXISTS after_the_crowd ()").is_good()
    });
}

/// The primary restarts because one of its backends crashed.
fn a_backend_crashes(house: &House, ledger: &Ledger) {
    let victim = house.server("primary").value(
        "SELECT pid FROM pg_stat_activity WHERE application_name = '' \
         AND backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1",
    );
    pgsteer::sandbox::kill(victim.unwrap().parse().unwrap());
    // It may be back before anybody but the clients has felt it.
    await_that("it restarts", || house.server("primary").logged("was terminated by signal 9") > 0);
    ledger.await_more(500);
}

/// One of the witnesses dies.
fn a_standby_is_lost(house: &House, ledger: &Ledger) {
    house.server("standby1").kill9().unwrap();
    await_that("it is missed", || house.status_of("standby1")["state"] == "down");
    ledger.await_more(200);
    house.server("standby1").start().unwrap();
    await_that("it is back", || house.status_of("standby1")["state"] == "streaming");
}

/// A look at the primary is not answered in time: what was to answer it stands still, and so does
/// what would let the next one in. Standbys hear from it all the while.
fn one_probe_is_late(house: &House, ledger: &Ledger) {
    let address = house.server("primary").address();
    let name = format!(r#"pgsteer_server_checks_total{{result="timeout",server="{address}"}}"#);
    let late = || house.metric(&name).unwrap();
    let before = late();
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgsteer watch%'";
    let server = house.server("primary");
    let asked = server.rows(sql).unwrap();
    let asked = asked.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap());
    let postmaster = i32::try_from(server.pid().unwrap()).unwrap();
    let pids: Vec<_> = asked.chain([postmaster]).map(|pid| Pid::from_raw(pid).unwrap()).collect();
    // Some come and go by themselves.
    let send = |pid: &Pid, signal| match kill_process(*pid, signal) {
        Ok(()) | Err(Errno::SRCH) => (),
        Err(error) => panic!("{error}"),
    };
    let all = |signal| pids.iter().for_each(|pid| send(pid, signal));
    all(Signal::STOP);
    await_that("a look is late", || late() > before);
    all(Signal::CONT);
    ledger.await_more(200);
}

/// All of the primary stands still, for less than the limit of the `calm` profile: if it did for
/// longer, on a crowded machine, the rest proves nothing.
fn all_of_it_is_late(house: &House, ledger: &Ledger) -> Result<(), String> {
    let began = clock::now();
    house.server("primary").sigstop();
    std::thread::sleep(Duration::from_millis(1500));
    house.server("primary").sigcont();
    let late = clock::now().since(began);
    if late > STILL_MAX {
        return Err(format!("it stood still for {late:?}"));
    }
    ledger.await_more(200);
    Ok(())
}

/// Whatever pgsteer missed while it stood still proves nothing.
fn pgsteer_stands_still(house: &House, ledger: &Ledger) {
    house.proxy.signal(Signal::STOP);
    std::thread::sleep(LONG);
    house.proxy.signal(Signal::CONT);
    ledger.await_more(200);
}

/// All of that, one after the other; the ledger agrees, and nobody was replaced.
fn replaced_by_none_of_it(
    house: &House,
    promise: &str,
    more: impl FnOnce(&House, &Ledger) -> Result<(), String>,
) -> Result<(), String> {
    await_armed(house, promise);
    let before = epoch(house);
    every_connection_is_in_use(house);
    nothing_changed(house, before);
    let ledger = writing(house);
    a_backend_crashes(house, &ledger);
    nothing_changed(house, before);
    a_standby_is_lost(house, &ledger);
    one_probe_is_late(house, &ledger);
    more(house, &ledger)?;
    pgsteer_stands_still(house, &ledger);
    settle(ledger, house.server("primary"));
    nothing_changed(house, before);
    Ok(())
}

/// The opposite arm: one that is dead is replaced, so nothing but the evidence kept pgsteer from
/// it. It may have to arm itself anew first: a standby was away.
fn replaced_once_it_is_dead(house: &House, promise: &str) {
    await_armed(house, promise);
    let before = epoch(house);
    house.server("primary").kill9().unwrap();
    await_that("another takes over", || epoch(house) > before);
    assert_ne!(new_primary(house).name(), "primary");
    assert_eq!(epoch(house), before + 1, "one change of primary");
    house.wire().run("CREATE TABLE after_the_death ()");
}

/// Few connections, so that they can all be in use.
fn narrow(blueprint: Blueprint) -> House {
    blueprint.servers(|plan| plan.setting("max_connections", "110")).build()
}

#[test]
fn with_a_quorum_nothing_but_its_death_replaces_a_primary() {
    quickly_enough("it stands still for as long as it may", || {
        let house = narrow(quorum());
        replaced_by_none_of_it(&house, "quorum", all_of_it_is_late)?;
        replaced_once_it_is_dead(&house, "quorum");
        Ok(())
    });
}

#[test]
fn without_a_quorum_nothing_but_its_death_replaces_a_primary() {
    let house = narrow(eager());
    replaced_by_none_of_it(&house, "asynchronous", |_, _| Ok(())).unwrap();
    // As hasty as it can be: on a crowded machine it would find much of that to be a death.
    house.reload("[failover]\nprofile = \"aggressive\"\n");
    replaced_once_it_is_dead(&house, "asynchronous");
}

/// What `auto` needs is missing on one standby: until it is there, nobody is promoted by itself.
#[test]
fn without_what_it_needs_auto_replaces_nobody_and_says_what_that_is() {
    let lame = |plan: Plan| plan.server_setting("standby1", "wal_retrieve_retry_interval", "5s");
    let house = quorum().servers(lame).build();
    let lacks = format!("{}: wal_retrieve_retry_interval", house.server("standby1").address());
    // Nothing but that: what a primary promises that dies before it was asked is never known.
    await_that("it says what is missing", || {
        let failover = &house.status()["failover"];
        let lacking = failover["lacking"].as_array().unwrap();
        failover["armed"] == false
            && matches!(&lacking[..], [lack] if lack.to_string().contains(&lacks))
    });
    let before = epoch(&house);
    house.server("primary").kill9().unwrap();
    await_that("it says why it waits", || {
        let why = house.status()["failover"]["why"].to_string();
        why.contains("auto is not armed") && why.contains(&lacks)
    });
    std::thread::sleep(LONG);
    nothing_was_begun(&house, before);

    house.server("standby1").set("wal_retrieve_retry_interval", "100ms").unwrap();
    await_that("another takes over", || epoch(&house) > before);
    assert_ne!(new_primary(&house).name(), "primary");
}
