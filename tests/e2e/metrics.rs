//! Metrics that count what sessions do: each is seen to move by as much as was done.

use crate::raw::Raw;
use crate::raw::bind;
use crate::raw::close;
use crate::raw::execute;
use crate::raw::parse;
use crate::support::Blueprint;
use crate::support::House;
use crate::support::await_that;
use pgsteer::clock;
use pgsteer::sandbox::eventually;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A primary alone with one backend for all.
fn narrow() -> House {
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).toml(ONE).build();
    house.wire().run("CREATE TABLE notes (i int PRIMARY KEY)");
    house
}

const ONE: &str = "[pool]\nsize = 1\n";

/// A series as it is shown.
fn shown(house: &House, series: &str) -> String {
    let body = house.http("/metrics").body;
    let mut lines = body.lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(name, _)| *name == series);
    found.unwrap_or_else(|| panic!("no {series}")).1.to_owned()
}

fn count(house: &House, series: &str) -> u64 {
    shown(house, series).parse().unwrap()
}

fn seconds(house: &House, series: &str) -> f64 {
    shown(house, series).parse().unwrap()
}

/// A series of the primary's.
fn of(house: &House, metric: &str, more: &str) -> String {
    format!("{metric}{{{more}server=\"{}\"}}", house.server("primary").address())
}

/// Transactions by how they ended.
fn ended(house: &House) -> [u64; 3] {
    ["commit", "rollback", "aborted"].map(|outcome| {
        let outcome = format!("outcome=\"{outcome}\",");
        count(house, &of(house, "pgsteer_transactions_total", &outcome))
    })
}

/// A client has its answer a moment before it is counted.
fn settles_at<T: Copy + PartialEq + std::fmt::Debug>(expected: T, what: impl Fn() -> T) {
    if eventually(Duration::from_mins(1), || (what() == expected).then_some(())).is_none() {
        assert_eq!(what(), expected);
    }
}

#[test]
fn transactions_are_counted_by_how_they_ended() {
    let house = narrow();
    let mut wire = house.wire();
    let cases: [(&[&str], [u64; 3]); 10] = [
        (&["INSERT INTO notes VALUES (1)"], [1, 0, 0]),
        (&["INSERT INTO notes VALUES (1)"], [0, 0, 1]),
        (&["SELECT 1/0"], [0, 0, 1]),
        (&["BEGIN", "INSERT INTO notes VALUES (2)", "SELECT 1", "COMMIT"], [1, 0, 0]),
        (&["BEGIN", "INSERT INTO notes VALUES (3)", "ROLLBACK"], [0, 1, 0]),
        // An error, and then what ends it: one transaction.
        (&["BEGIN", "SELECT 1/0", "SELECT 1", "ROLLBACK"], [0, 0, 1]),
        (&["BEGIN", "SELECT 1/0", "COMMIT"], [0, 0, 1]),
        // An error that was taken back ends nothing.
        (&["BEGIN", "SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO a", "COMMIT"], [1, 0, 0]),
        // Nor does one leave a trace behind it.
        (&["SELECT 1/0", "INSERT INTO notes VALUES (4)"], [1, 0, 1]),
        (&["BEGIN; INSERT INTO notes VALUES (5); COMMIT"], [1, 0, 0]),
    ];
    for (statements, expected) in cases {
        let before = ended(&house);
        for sql in statements {
            wire.query(sql);
        }
        eprintln!("{statements:?}");
        settles_at(expected, || {
            let now = ended(&house);
            [0, 1, 2].map(|at| now[at] - before[at])
        });
    }
}

#[test]
fn the_servers_time_is_without_the_wait_for_a_backend() {
    let house = narrow();
    let there = || seconds(&house, &of(&house, "pgsteer_server_query_seconds_sum", ""));
    let whole = || -> f64 {
        let body = house.http("/metrics").body;
        let sums = body.lines().filter(|line| line.starts_with("pgsteer_query_seconds_sum"));
        sums.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    let oldest = || seconds(&house, "pgsteer_client_oldest_wait_seconds");
    assert!(oldest() <= 0.0, "nobody waits");
    let groups = || count(&house, &of(&house, "pgsteer_server_query_seconds_count", ""));
    let groups_before = groups();
    let (served, answered) = (there(), whole());
    let mut holder = house.wire();
    holder.run("BEGIN");
    holder.run("INSERT INTO notes VALUES (1)");

    let mut waiting = house.wire();
    let waiter = std::thread::spawn(move || waiting.run("SELECT pg_sleep(0.2)"));
    await_that("the wait is a second old", || oldest() > 1.0);
    let mut later = house.wire();
    let second = std::thread::spawn(move || later.run("INSERT INTO notes VALUES (2)"));
    let waits = || count(&house, "pgsteer_client_connections{state=\"waiting\"}") == 2;
    await_that("a second one waits", waits);
    assert!(oldest() > 1.0, "the first one's wait counts: {}", oldest());
    holder.run("COMMIT");
    waiter.join().unwrap();
    second.join().unwrap();

    await_that("nobody waits any more", || oldest() <= 0.0);
    settles_at(5, || groups() - groups_before);
    let (served, answered) = (there() - served, whole() - answered);
    assert!(served >= 0.2, "the server slept: {served}");
    assert!(answered >= served + 1.0, "{answered} has the wait, {served} has not");
}

#[test]
fn a_backend_that_logs_in_is_told_from_those_at_work() {
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).unhurried().build();
    house.wire().run("CREATE TABLE notes (i int)");
    let address = house.server("primary").address();
    let backends = |state: &str| {
        count(
            &house,
            &format!("pgsteer_pool_connections{{server=\"{address}\",state=\"{state}\"}}"),
        )
    };
    let mut holder = house.wire();
    holder.run("BEGIN");
    holder.run("INSERT INTO notes VALUES (1)");
    settles_at((1, 0, 0), || (backends("active"), backends("login"), backends("idle")));
    house.server("primary").sigstop();

    let mut late = house.wire();
    let waiter = std::thread::spawn(move || late.run("INSERT INTO notes VALUES (2)"));

    settles_at((1, 1, 0), || (backends("active"), backends("login"), backends("idle")));
    house.server("primary").sigcont();
    waiter.join().unwrap();
    settles_at((1, 0, 1), || (backends("active"), backends("login"), backends("idle")));
}

#[test]
fn the_servers_time_is_without_what_the_client_does_between_two_statements() {
    let house = narrow();
    let mut wire = house.wire();
    let server = || seconds(&house, &of(&house, "pgsteer_server_query_seconds_sum", ""));
    wire.run("BEGIN");
    let before = server();
    std::thread::sleep(Duration::from_secs(1));
    let began = clock::now();
    wire.run("INSERT INTO notes VALUES (7)");
    await_that("it is counted", || server() > before);
    // The client waited for longer than the server took, whatever else this machine does.
    let (took, waited) = (server() - before, clock::now().since(began).as_secs_f64());
    assert!(took <= waited, "what the client did meanwhile is not the server's: {took}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_statements_are_counted_on_both_sides() {
    let house = narrow();
    let held =
        |side: &str| count(&house, &format!("pgsteer_prepared_statements{{side=\"{side}\"}}"));
    let asked = |result: &str| {
        count(&house, &format!("pgsteer_prepared_cache_requests_total{{result=\"{result}\"}}"))
    };
    settles_at((0, 0), || (held("client"), held("server")));
    let (mut one, mut other) = (Raw::enter(&house).await, Raw::enter(&house).await);

    // The same text is one statement on the backend.
    for client in [&mut one, &mut other] {
        assert_eq!(client.batch(&[parse("s", "SELECT 1")]).await.tags(), "1Z");
    }
    settles_at((2, 1), || (held("client"), held("server")));
    settles_at((1, 1), || (asked("miss"), asked("hit")));
    for _ in 0..3 {
        assert_eq!(one.batch(&[bind("s", &[]), execute()]).await.value(), "1");
    }
    settles_at((1, 4), || (asked("miss"), asked("hit")));

    // One that fails is none.
    assert_eq!(one.batch(&[parse("t", "SELECT nothing")]).await.code().as_deref(), Some("42703"));
    settles_at((2, 1), || (held("client"), held("server")));

    assert_eq!(other.batch(&[close("s")]).await.tags(), "3Z");
    settles_at(1, || held("client"));
    drop(one);
    await_that("its statements leave with a client", || held("client") == 0);

    // More than a backend holds: the oldest gives way.
    settles_at((0, 1), || (asked("evicted"), held("server")));
    for n in 0..600 {
        other.batch(&[parse(&format!("n{n}"), &format!("SELECT {n} AS a{n}"))]).await;
    }
    settles_at(600, || held("client"));
    assert!(asked("evicted") > 50 && held("server") < 600, "{}", held("server"));
    settles_at(601, || held("server") + asked("evicted"));
    let there = other.value("SELECT count(*) FROM pg_prepared_statements").await;
    assert_eq!(held("server").to_string(), there, "the backend holds as many");
    other.query("DISCARD ALL").await;
    settles_at((0, 0), || (held("client"), held("server")));
}

/// The labels of an information metric.
fn label(house: &House, metric: &str, label: &str) -> String {
    let body = house.http("/metrics").body;
    let lines: Vec<_> = body.lines().filter(|line| line.starts_with(metric)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let (_, rest) = lines[0].split_once(&format!("{label}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

/// Makes `tls.crt` and `tls.key`, and tells when the certificate runs out.
pub(crate) fn certificate(dir: &Path, days: &str) -> String {
    let openssl = |args: &[&str]| {
        let made = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        days,
        "-subj",
        "/CN=proxy",
        "-keyout",
        "tls.key",
        "-out",
        "tls.crt",
    ]);
    let end = openssl(&["x509", "-in", "tls.crt", "-noout", "-enddate"]);
    let end = end.trim().strip_prefix("notAfter=").unwrap();
    let unix = Command::new("date").args(["-u", "-d", end, "+%s"]).output().unwrap();
    String::from_utf8(unix.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_configuration_the_log_and_the_certificate_are_told_of() {
    let house = narrow();
    let hash = || label(&house, "pgsteer_config_hash_info{", "hash");
    let errors = || count(&house, "pgsteer_log_events_total{level=\"error\"}");
    let expiry = || shown(&house, "pgsteer_tls_certificate_expiry_timestamp_seconds");
    let made_by = label(&house, "pgsteer_build_info{", "rustc");
    assert!(made_by.starts_with("1."), "{made_by}");

    let (first, silent) = (hash(), errors());
    assert!(count(&house, "pgsteer_log_events_total{level=\"info\"}") > 0);
    house.reload("[pool]\nsize = 2\n");
    await_that("another configuration", || hash() != first);
    let second = hash();
    house.reload("[pool\n");
    await_that("the error is counted", || errors() > silent);
    assert_eq!(hash(), second, "what was refused is not in use");
    house.reload(ONE);
    await_that("the same again", || hash() == first);
    let told = house.proxy.log().lines().filter(|line| line.contains("ERROR")).count();
    assert_eq!(errors().to_string(), told.to_string(), "as many as there are");

    assert!(expiry() == "NaN", "there is none");
    let dir = house.proxy.dir();
    // From 2050 on a certificate tells its time in another form.
    for days in ["30", "12000"] {
        let end = certificate(dir, days);
        let file = |name: &str| dir.join(name).display().to_string();
        house.reload(&format!(
            "{ONE}[tls]\nmode = \"prefer\"\ncert = {:?}\nkey = {:?}\n",
            file("tls.crt"),
            file("tls.key"),
        ));
        await_that("its end is told", || expiry() == end);
    }
    house.reload(ONE);
    await_that("there is none any more", || expiry() == "NaN");
}

/// What pgsteer itself asks, on its own connections or on a session's, is no client's statement.
#[test]
fn only_what_clients_ask_is_counted() {
    let house = Blueprint::new().set("servers.check_interval", "20ms").build();
    let sum = |metric: &str| -> u64 {
        let body = house.http("/metrics").body;
        let lines = body.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    };
    let counted = || {
        ["queries_total", "routing_decisions_total", "query_seconds_count", "transactions_total"]
            .map(|metric| sum(&format!("pgsteer_{metric}")))
    };
    let looks = || sum("pgsteer_server_checks_total");
    let (mut wire, before) = (house.wire(), counted());
    // Each leaves something behind, which is asked for.
    for name in ["one", "two"] {
        wire.run(&format!("SELECT set_config('app.{name}', 'x', false)"));
        wire.run("CREATE TABLE IF NOT EXISTS t ()");
    }
    let (asked, looked) = (before.map(|value| value + 4), looks());
    settles_at(asked, counted);
    // Reads that wait for a standby make the control plane ask more often.
    await_that("it was looked many times", || looks() > looked + 50);
    assert_eq!(counted(), asked);
}

/// Also what it sends without waiting to be let in.
#[test]
fn what_a_client_sends_right_behind_its_login_is_counted() {
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).build();
    let received = || count(&house, "pgsteer_client_received_bytes_total");
    let before = received();
    let behind = crate::raw::query("SELECT 1");
    let login = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let mut stream = TcpStream::connect(house.proxy.address()).unwrap();
    stream.write_all(&[&login[..], &behind].concat()).unwrap();
    let (mut answer, mut place) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"SELECT 1\0Z\0\0\0\x05I") {
        let bytes = stream.read(&mut place).unwrap();
        assert_ne!(bytes, 0, "{}", answer.escape_ascii());
        answer.extend_from_slice(&place[..bytes]);
    }
    settles_at(u64::try_from(behind.len()).unwrap(), || received() - before);
}
