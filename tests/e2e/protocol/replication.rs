//! Replication connections pass through: PostgreSQL's own tools, and a subscriber.

use crate::protocol::{release, tells};
use crate::raw::{Message, Raw, message_of, query};
use crate::support::{Blueprint, Ended, House, Wire, await_that, cluster};
use pgsteer::pg::Lsn;
use pgsteer::sandbox::{Plan, StatementLog};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn blueprint(standbys: usize) -> Blueprint {
    Blueprint::new()
        .servers(|plan| {
            plan.standbys(standbys).log(StatementLog::Off).setting("wal_level", "logical")
        })
        .unhurried()
        .any_lag()
}

/// What `pg_config` says of the programs that are installed.
fn installed(what: &str) -> String {
    let said = Command::new("pg_config").arg(what).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// By how many releases the servers are newer than the programs, or older.
fn newer(house: &House) -> std::cmp::Ordering {
    let version = installed("--version");
    let release = version.split([' ', '.']).nth(1).unwrap().parse::<u32>().unwrap();
    house.server("primary").version().major().cmp(&release)
}

/// Servers from elsewhere are newer than the programs: those say so, and do nothing.
fn is_too_new(house: &House, tool: &mut Command) -> bool {
    if newer(house).is_le() {
        return false;
    }
    let output = tool.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("incompatible server version"), "{tool:?}: {said}");
    true
}

/// One of PostgreSQL's programs, which connects to pgsteer as the superuser.
fn tool(house: &House, name: &str) -> Command {
    let address = house.proxy.address();
    let mut tool = Command::new(Path::new(&installed("--bindir")).join(name));
    tool.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-U", "postgres", "--no-password"])
        .env_remove("PGOPTIONS")
        .stdin(Stdio::null());
    tool
}

fn done(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A program that runs until it is told to end, or ends with the test.
struct Runs(Child);

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.kill().unwrap_or(());
        self.0.wait().unwrap();
    }
}

impl Runs {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What it said, when it ends by itself.
    fn said(mut self) -> String {
        let mut said = String::new();
        std::io::Read::read_to_string(self.0.stderr.as_mut().unwrap(), &mut said).unwrap();
        said
    }
}

fn size_of(place: &Path) -> u64 {
    let files = std::fs::read_dir(place).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn pg_basebackup_copies_the_primary_or_a_standby() {
    let house = blueprint(1).build();
    house.server("primary").rows("CREATE TABLE t AS SELECT generate_series(1, 100000) i").unwrap();
    house.cluster.await_replay().unwrap();
    let place = house.cluster.workshop("backups").unwrap();
    for (role, from) in [("primary", "primary"), ("standby", "standby"), ("auto", "primary")] {
        let target = place.join(role);
        let mut backup = tool(&house, "pg_basebackup");
        backup.args(["-c", "fast", "--no-sync", "-X", "stream", "-D"]).arg(&target);
        backup.env("PGOPTIONS", format!("-c pgsteer.role={role}"));
        if is_too_new(&house, &mut backup) {
            continue;
        }
        done(backup);
        let label = std::fs::read_to_string(target.join("backup_label")).unwrap();
        let from = named(from, house.server("primary").version().major());
        assert!(label.contains(&format!("BACKUP FROM: {from}")), "{role}: {label}");
        let mut verify = Command::new(Path::new(&installed("--bindir")).join("pg_verifybackup"));
        if newer(&house).is_ne() {
            // Each release reads its own log, and no other's.
            verify.arg("--no-parse-wal");
        }
        verify.arg(&target);
        done(verify);
    }
}

/// What a backup says of the server that it is from.
const fn named(role: &str, release: u32) -> &str {
    match (role.as_bytes(), release) {
        (b"primary", ..14) => "master",
        _ => role,
    }
}

/// What makes a server send a copy of itself.
fn base_backup(client: &Raw) -> Vec<u8> {
    let (old, new) = ("BASE_BACKUP FAST NOWAIT", "BASE_BACKUP (CHECKPOINT 'fast', WAIT false)");
    query(if release(client) < 15 { old } else { new })
}

/// The same without a program, for servers that are newer than those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_by_hand_copies_the_primary_or_a_standby() {
    let house = blueprint(1).build();
    for (role, from) in [("primary", "primary"), ("standby", "standby"), ("auto", "primary")] {
        let options = format!("-c pgsteer.role={role}");
        let mut client = enter(&house, &[("options", &options)]).await.unwrap();
        client.send(&base_backup(&client)).await;
        let (mut bytes, mut label) = (0, false);
        let wanted = format!("BACKUP FROM: {}", named(from, release(&client)));
        loop {
            let message = client.message().await.expect("it was cut off");
            assert_ne!(message.tag(), 'E', "{role}: {:?}", message.code());
            bytes += message.0.len();
            label |= message.0.windows(wanted.len()).any(|part| part == wanted.as_bytes());
            if message.tag() == 'Z' {
                break;
            }
        }
        assert!(label, "{role}: not from the {from}");
        assert!(bytes > 10_000_000, "{role}: {bytes}");
    }
}

#[test]
fn pg_receivewal_streams_until_pgsteer_ends() {
    let house = blueprint(0).build();
    let primary = house.server("primary");
    let place = house.cluster.workshop("wal").unwrap();
    let mut slot = tool(&house, "pg_receivewal");
    slot.args(["--create-slot", "--slot", "received", "-D"]).arg(&place);
    done(slot);
    let mut receive = tool(&house, "pg_receivewal");
    receive.args(["--slot", "received", "--no-loop", "--synchronous", "-D"]).arg(&place);
    if is_too_new(&house, &mut receive) {
        return;
    }
    let receives = Runs::start(receive);
    primary
        .rows("CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 300000)")
        .unwrap();
    let written = primary.value("SELECT pg_current_wal_flush_lsn()").unwrap();
    let flushed = format!(
        "SELECT flush_lsn >= '{written}' FROM pg_stat_replication \
         WHERE application_name = 'pg_receivewal'"
    );
    primary.await_value(&flushed, "t", "received to its end").unwrap();
    assert!(size_of(&place) >= 32 * 1024 * 1024);
    // It has nothing to finish: it is sent away at once, and told why.
    house.proxy.signal(Signal::TERM);
    let said = receives.said();
    assert!(said.contains("pgsteer is shutting down"), "{said}");
    assert!(house.proxy.await_end().unwrap().success());
}

/// The same without a program, for servers that are newer than those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_by_hand_lasts_until_pgsteer_ends() {
    let house = blueprint(0).build();
    let primary = house.server("primary");
    let mut client = enter(&house, &[]).await.unwrap();
    let begin = primary.value("SELECT pg_current_wal_flush_lsn()").unwrap();
    client.send(&query(&format!("START_REPLICATION PHYSICAL {begin}"))).await;
    primary
        .rows("CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 300000)")
        .unwrap();
    let written = primary.value("SELECT pg_current_wal_flush_lsn()").unwrap();
    let (begin, written): (Lsn, Lsn) = (begin.parse().unwrap(), written.parse().unwrap());
    assert!(written.bytes_since(begin) > 32 * 1024 * 1024);
    let mut received = begin;
    while received < written {
        let message = client.message().await.expect("it was cut off");
        assert_ne!(message.tag(), 'E', "{:?}", message.code());
        // A piece of the log: where it begins, two more numbers, and the piece itself.
        if let (5.., Some((b'w', piece))) = (message.0.len(), message.0[5..].split_first())
            && message.tag() == 'd'
        {
            let at = u64::from_be_bytes(piece[..8].try_into().unwrap());
            assert_eq!(Lsn(at), received, "without a gap");
            received = Lsn(at + u64::try_from(piece.len() - 24).unwrap());
        }
    }
    // It has nothing to finish: it is sent away at once, and told why.
    house.proxy.signal(Signal::TERM);
    let end = client.end().await;
    assert_eq!(end.last().and_then(Message::code).as_deref(), Some("57P01"));
    assert!(house.proxy.await_end().unwrap().success());
}

#[test]
fn pg_recvlogical_decodes_what_others_write() {
    let house = blueprint(0).build();
    let (primary, mut wire) = (house.server("primary"), house.wire());
    let logical = |more: &[&str]| {
        let mut logical = tool(&house, "pg_recvlogical");
        logical.args(["-d", "postgres", "--slot", "decoded"]).args(more);
        logical
    };
    done(logical(&["--create-slot", "--plugin", "test_decoding"]));
    wire.run("CREATE TABLE t (i int, x text)");
    wire.run("INSERT INTO t SELECT 7, repeat('long', 5000000)");
    wire.run("INSERT INTO t SELECT i, 'short' FROM generate_series(1, 1000) i");
    let end = primary.value("SELECT pg_current_wal_insert_lsn()").unwrap();
    let output = done(logical(&["--start", "--no-loop", "--endpos", &end, "-f", "-"]));
    let decoded = String::from_utf8(output.stdout).unwrap();
    assert_eq!(decoded.matches("table public.t: INSERT").count(), 1001);
    assert_eq!(decoded.matches("longlong").count() * 8, 20_000_000);
    done(logical(&["--drop-slot"]));
}

#[test]
fn a_subscriber_follows_through_pgsteer() {
    let house = blueprint(1).build();
    let mut wire = house.wire();
    let other = cluster(&Plan::new().standbys(0));
    let subscriber = other.primary();
    let table = "CREATE TABLE t (i int PRIMARY KEY, x text)";
    wire.run(table);
    subscriber.rows(table).unwrap();
    wire.run("INSERT INTO t SELECT i, 'copied' FROM generate_series(1, 10000) i");
    wire.run("CREATE PUBLICATION p FOR TABLE t");
    let address = house.proxy.address();
    let (host, port) = (address.ip(), address.port());
    let subscribe = format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={host} port={port} user=postgres dbname=postgres' \
         PUBLICATION p"
    );
    subscriber.rows(&subscribe).unwrap();
    subscriber.await_value("SELECT count(*) FROM t", "10000", "given what was there").unwrap();
    wire.run("UPDATE t SET x = 'changed' WHERE i % 2 = 0");
    wire.run("DELETE FROM t WHERE i > 9000");
    let changed = "SELECT count(*) FILTER (WHERE x = 'changed') || ' of ' || count(*) FROM t";
    subscriber.await_value(changed, "4500 of 9000", "given what was changed").unwrap();
    // The primary, whatever reads do.
    assert_eq!(house.server("primary").value(SUBSCRIBED).unwrap(), "1");
    assert_eq!(house.server("standby1").value(SUBSCRIBED).unwrap(), "0");
    subscriber.rows("DROP SUBSCRIPTION s").unwrap();
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's'";
    assert_eq!(house.server("primary").value(slots).unwrap(), "0", "by another connection");
}

const SUBSCRIBED: &str = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 's'";

/// By hand, in a database.
async fn enter(house: &House, more: &[(&str, &str)]) -> Result<Raw, Message> {
    let login = [("user", "postgres"), ("database", "postgres"), ("replication", "database")];
    let minor = if more.is_empty() { 2 } else { 0 };
    Raw::connect_by(house.proxy.address(), minor, &[&login, more].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_the_clients_own_as_it_asked_for_it() {
    let house = blueprint(1)
        .set("pool.size", "1")
        .set("pool.wait_timeout", "2s")
        .set("routing.hold_max", "5s")
        .build();
    house.server("primary").rows("CREATE ROLE plain LOGIN").unwrap();
    let login = [("user", "postgres"), ("database", "postgres")];
    let mut other = Raw::connect(house.proxy.address(), &login).await.unwrap();
    // Its backend rests on the primary, and makes room.
    other.query("CREATE TABLE before (i int)").await;
    let options = "-c pgsteer.role=primary -c work_mem=7MB -c statement_timeout=1h";
    let more = [("options", options), ("application_name", "mine"), ("work_mem", "8MB")];
    let mut mine = enter(&house, &more).await.unwrap();
    assert_eq!(mine.params["application_name"], "mine");
    tells(&mine, "off");
    assert_eq!(mine.value("SHOW work_mem").await, "8MB");
    assert_eq!(mine.value("SHOW statement_timeout").await, "1h");
    assert_eq!(mine.value("SELECT pg_backend_pid()").await, mine.pid.to_string());
    assert_eq!(mine.query("IDENTIFY_SYSTEM").await.tags(), "TDCZ");
    // It is counted, and its place is given back.
    let write = query("CREATE TABLE t (i int)");
    other.send(&write).await;
    assert_eq!(other.ready().await.code().as_deref(), Some("53300"));
    let full = enter(&house, &[("application_name", "two")]).await.unwrap_err();
    assert_eq!(full.code().as_deref(), Some("53300"));
    mine.leave().await;
    let mut tried = 0;
    loop {
        other.send(&write).await;
        match other.ready().await.code() {
            None => break,
            Some(code) => assert_eq!(code, "53300"),
        }
        tried += 1;
        assert!(tried < 100, "its place was not given back");
    }
    // One that rests in the pool makes room.
    let mut long = enter(&house, &[]).await.unwrap();
    assert_eq!(long.secret.len(), 32);
    tells(&long, "off");
    long.send(&query("SELECT pg_sleep(3600)")).await;
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    house.server("primary").await_value(sleeps, "1", "running it").unwrap();
    long.cancel().await;
    assert_eq!(long.ready().await.code().as_deref(), Some("57014"));
    let standby = enter(&house, &[("options", "-c pgsteer.role=standby")]).await.unwrap();
    tells(&standby, "on");
    drop((long, standby));

    // What is refused.
    let refusals = [
        (vec![("options", "-c pgsteer.role=what")], "postgres", "22023"),
        (vec![("options", "-c pgsteer.what=1")], "postgres", "42704"),
        (vec![("work_mem", "what")], "postgres", "22023"),
        (vec![], "plain", "42501"),
        (vec![], "nobody", "28000"),
    ];
    for (more, user, code) in refusals {
        let login = [("user", user), ("database", "postgres"), ("replication", "database")];
        let login = [login.as_slice(), &more].concat();
        let refused = Raw::connect(house.proxy.address(), &login).await.unwrap_err();
        assert_eq!(refused.code().as_deref(), Some(code), "{login:?}: {refused:?}");
        assert_eq!(refused.field(b'S').as_deref(), Some("FATAL"), "{login:?}");
    }
}

/// The most memory that the proxy ever had, in kB.
fn peak(house: &House) -> usize {
    let path = format!("/proc/{}/status", house.proxy.pid().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A client that does not read stops its server, and costs nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_costs_two_buffers() {
    let house = blueprint(0).build();
    house
        .server("primary")
        .rows("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
        .unwrap();
    let mut lazy = Vec::new();
    for _ in 0..4 {
        lazy.push(enter(&house, &[("application_name", "lazy")]).await.unwrap());
    }
    let before = peak(&house);
    for lazy in &mut lazy {
        lazy.send(&base_backup(lazy)).await;
    }
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lazy' \
                 AND wait_event IN ('WalSenderWriteData', 'ClientWrite')";
    house.server("primary").await_value(waits, "4", "stopped by its clients").unwrap();
    pgsteer::timer::sleep(Duration::from_millis(500)).await;
    let after = peak(&house);
    assert!(after < before + 8 * 1024, "from {before} kB to {after} kB");
    // And who reads gets all of it.
    let mut bytes = 0;
    while let Some(message) = lazy[0].message().await {
        bytes += message.0.len();
        if message.tag() == 'Z' {
            break;
        }
    }
    assert!(bytes > 100_000_000, "{bytes}");
}

/// What is no message ends the connection, and nothing else.
#[test]
fn a_broken_stream_ends_with_its_backend() {
    let house = blueprint(0).build();
    let login = [
        ("user", "postgres"),
        ("database", "postgres"),
        ("replication", "database"),
        ("application_name", "broken"),
    ];
    let senders = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'broken'";
    for bytes in [b"Q\0\0\0\x01".to_vec(), message_of(b'y', |_| ()), b"Q\0\0".to_vec(), vec![]] {
        let mut wire = Wire::log_in_with(house.proxy.address(), &login).unwrap();
        wire.send(&bytes).unwrap();
        wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let reply = wire.reply();
        assert_eq!(reply.ended, Ended::Closed, "{bytes:?}");
    }
    await_that("no backend is left", || house.server("primary").value(senders).unwrap() == "0");
    assert_eq!(house.wire().value("SELECT 1"), "1");
}

/// As in PostgreSQL, `all` does not mean physical replication, and `replication` means only that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_tell_replication_from_databases() {
    let scratch = pgsteer::sandbox::Scratch::new().unwrap();
    let file = scratch.path().join("hba");
    std::fs::write(&file, "host all all all trust\n").unwrap();
    let toml = format!("[auth]\nhba_file = {file:?}\n");
    let house = blueprint(0).toml(&toml).build();
    let config = std::fs::read_to_string(house.proxy.file()).unwrap();
    let cases = [
        ("host all all all trust", [Ok(()), Ok(()), Err(())]),
        ("host replication all all trust", [Err(()), Err(()), Ok(())]),
        (
            "host replication postgres all reject\nhost all,replication all all trust",
            [Ok(()), Ok(()), Err(())],
        ),
    ];
    for (rules, expected) in cases {
        std::fs::write(&file, rules).unwrap();
        house.reload(&config);
        let mut found = Vec::new();
        for replication in ["off", "database", "on"] {
            let login =
                [("user", "postgres"), ("database", "postgres"), ("replication", replication)];
            let came = Raw::connect(house.proxy.address(), &login).await;
            found.push(came.map(|_| ()).map_err(|error| {
                assert_eq!(error.code().as_deref(), Some("28000"), "{rules}: {error:?}");
            }));
        }
        assert_eq!(found, expected, "{rules}");
    }
}
