//! The primary is lost, and clients carry on: each promise judged by a ledger that is kept outside
//! pgsteer, and by what the servers themselves say.

mod catching;
mod crowd;
mod crowded;
mod deciders;
mod kills;
mod losses;
mod names;
mod others;
mod pauses;
mod prepared;
mod rejoining;
mod records;
mod restarts;
mod shut_out;
mod slots;
mod slow;
mod stuck;
mod switchovers;
mod vetoes;

use crate::support::Blueprint;
use crate::support::House;
use crate::support::await_that;
use crate::support::command;
use crate::support::heard;
use crate::support::is_unheard;
use crate::support::ledger;
use crate::support::ledger::Ledger;
use pgsteer::sandbox::Server;
use pgsteer::sandbox::StatementLog;
use pgsteer::sandbox::eventually;
use std::net::TcpStream;
use std::time::Duration;

/// Writers that are at work when something happens.
const WRITERS: usize = 16;

/// A primary and two standbys, one of which must confirm every commit; pgsteer may act by itself.
fn quorum() -> Blueprint {
    armed(&[("synchronous_standby_names", "ANY 1 (standby1, standby2)")])
}

/// A primary and two standbys that need not confirm anything; pgsteer may act by itself.
fn asynchronous() -> Blueprint {
    armed(&[])
}

fn armed(settings: &[(&str, &str)]) -> Blueprint {
    let blueprint = Blueprint::new().servers(|plan| {
        let plan = plan
            .log(StatementLog::Off)
            .setting("wal_retrieve_retry_interval", "100ms")
            .setting("wal_receiver_status_interval", "1s")
            // The links are kept alive often enough for silence on them to mean something.
            .setting("wal_sender_timeout", "1s");
        settings.iter().fold(plan, |plan, (name, value)| plan.setting(name, value))
    });
    blueprint.set("failover.mode", "auto").set("failover.demote", "crash_restart")
}

/// Waits until pgsteer may act by itself, and promises what the settings say.
fn await_armed(house: &House, promise: &str) {
    await_that("pgsteer is armed", || {
        let failover = &house.status()["failover"];
        failover["armed"] == true && failover["promise"] == *promise
    });
}

/// Stops a standby's walreceiver while it waits for more: one that is stopped in the middle of
/// what it has received goes on with that, and all behind it, before it heeds that it is to end.
fn stop_receiving(standby: &Server) {
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE backend_type = 'walreceiver' AND wait_event = 'WalReceiverMain'";
    let stands_still = || {
        let all = standby.processes();
        all.iter().filter(|found| found.title.contains("walreceiver")).all(|found| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", found.pid));
            status.is_ok_and(|status| status.contains("\nState:\tT"))
        })
    };
    await_that("its walreceiver is stopped while it waits", || {
        standby.sigstop_process("walreceiver");
        await_that("it stands still", stands_still);
        let at_rest = standby.value(waits).unwrap() == "1";
        if !at_rest {
            standby.sigcont();
        }
        at_rest
    });
}

/// Waits until the walreceivers of these standbys, which stand still, are told to end: when they
/// wake up they read nothing more of what has come for them meanwhile.
fn await_told_to_end<'a>(standbys: impl IntoIterator<Item = &'a Server>) {
    // As `proc_pid_status(5)` has it: bit 14 is that of `SIGTERM`.
    const SIGTERM: u64 = 1 << 14;
    let is_told = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pending = status.lines().filter_map(|line| line.strip_prefix("ShdPnd:"));
        let mut pending = pending.map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
        pending.next().is_some_and(|mask| mask & SIGTERM != 0)
    };
    for standby in standbys {
        await_that("its walreceiver is told to end", || {
            let all = standby.processes();
            all.iter().any(|found| found.title.contains("walreceiver") && is_told(found.pid))
        });
    }
}

/// The names of the servers that take themselves for the primary now.
fn primaries(house: &House) -> Vec<&str> {
    let servers = house.cluster.servers().iter();
    let claims = |server: &&Server| server.is_running() && server.is_standby().is_ok_and(|is| !is);
    servers.filter(claims).map(Server::name).collect()
}

/// What one says that is being fenced: that ends the sessions that are there, perhaps also the one
/// that asks.
fn says(fenced: &Server, sql: &str) -> String {
    let patience = Duration::from_mins(1);
    eventually(patience, || fenced.value(sql).ok()).expect("it answers whoever asks anew")
}

/// The server that writes go to now: somebody is there, or it died a moment ago and pgsteer has not
/// seen that yet.
fn new_primary(house: &House) -> &Server {
    let found = eventually(Duration::from_mins(1), || {
        let status = house.status();
        let address = status["primary"].as_str();
        let mut servers = house.cluster.servers().iter();
        let named = servers.find(|server| Some(&*server.address()) == address);
        named.filter(|server| TcpStream::connect(server.address()).is_ok())
    });
    found.unwrap_or_else(|| panic!("no primary: {}\n{}", house.status(), house.proxy.log()))
}

/// Writers at work through the proxy, and enough done that something is at stake.
fn writing(house: &House) -> Ledger {
    house.wire().run(ledger::TABLE);
    let ledger = Ledger::open(house.proxy.address(), WRITERS);
    ledger.await_more(500);
    await_that("commits are in flight", || ledger.in_flight() > WRITERS / 2);
    ledger
}

/// The books are closed, and agree with what the server holds.
fn settle(ledger: Ledger, server: &Server) -> ledger::Book {
    let book = ledger.close();
    let rows = server.rows("SELECT writer, number FROM ledger").unwrap();
    assert_eq!(book.judge(&rows), ledger::Verdict::default(), "{book:?}");
    assert_eq!(book.disconnected, 0, "clients keep their connection");
    book
}

/// Runs a command of the program that asks the running proxy: its exit code, and what it said.
fn ordered(house: &House, arguments: &[&str]) -> (Option<i32>, String) {
    heard(arguments, || {
        let done = command()
            .arg("-c")
            .arg(house.proxy.file())
            .args(["--http", &house.proxy.http_address().to_string()])
            .args(arguments)
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let is_heard = !is_unheard(&said);
        ((done.status.code(), said), is_heard)
    })
}

/// The same of an order of which nothing comes: it is given again if it had no answer in time.
fn turned_down(house: &House, arguments: &[&str]) -> (Option<i32>, String) {
    let told = eventually(Duration::from_mins(1), || {
        let (code, said) = ordered(house, arguments);
        (!is_unheard(&said)).then_some((code, said))
    });
    told.expect("pgsteer never answers in time")
}

/// Whether `pgsteer status` says all of these words now.
fn tells(house: &House, words: &[&str]) -> bool {
    let (_, said) = ordered(house, &["status"]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    words.iter().all(|word| said.contains(word))
}

/// How often the primary changed.
fn epoch(house: &House) -> u64 {
    house.status()["epoch"].as_u64().unwrap()
}
