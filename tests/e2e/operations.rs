//! What operators do and see: stopping, reloading, status, metrics.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::cluster;
use crate::support::command;
use crate::support::program;
use crate::support::proxy;
use crate::support::tool;
use pgsteer::sandbox::Plan;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

const READ: &str = "SELECT current_setting('cluster_name') FROM pg_class LIMIT 1";

fn small() -> House {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).build();
    house.server("primary").rows("CREATE TABLE notes (i int)").unwrap();
    house.await_catalog();
    house
}

#[test]
fn sigterm_lets_transactions_finish_and_closes_the_others() {
    let house = small();
    let mut idle = house.wire();
    let mut reader = house.wire();
    reader.run(READ);
    let mut pinned = house.wire();
    pinned.run("CREATE TEMP TABLE mine (i int)");
    let mut inside = house.wire();
    inside.run("BEGIN");
    inside.run("INSERT INTO notes VALUES (1)");
    let mut holder = house.server("primary").connect("postgres").unwrap();
    holder.rows("SELECT pg_advisory_lock(1)").unwrap();
    let mut busy = house.wire();
    let sql = "SELECT pg_advisory_xact_lock(1)";
    let statement = std::thread::spawn(move || (busy.query(sql), busy));
    await_that("a statement runs", || {
        house.metric(r#"pgsteer_client_connections{state="active"}"#) == Some(1.0)
    });

    house.proxy.signal(Signal::TERM);

    for wire in [&mut idle, &mut reader, &mut pinned] {
        let told = wire.reply();
        assert_eq!((told.codes(), told.ended), (vec!["57P01"], Ended::Closed), "{told:?}");
        assert!(told.error().message.contains("shutting down"), "{told:?}");
    }
    assert_eq!(house.http("/readyz").status, 503);
    assert_eq!(house.http("/livez").status, 200);
    assert_eq!(house.metric("pgsteer_draining"), Some(1.0), "metrics still answer");
    await_that("nobody new is let in", || Wire::connect(house.proxy.address()).is_err());
    inside.run("INSERT INTO notes VALUES (2)");
    assert_eq!(inside.run("COMMIT").tags, ["COMMIT"]);
    drop(holder);
    let (waited, mut busy) = statement.join().unwrap();
    assert!(waited.is_good(), "what was running was answered: {waited:?}");
    for wire in [&mut inside, &mut busy] {
        let told = wire.reply();
        assert_eq!((told.codes(), told.ended), (vec!["57P01"], Ended::Closed), "{told:?}");
    }
    assert!(house.proxy.await_end().unwrap().success());
    assert_eq!(house.server("primary").value("SELECT count(*) FROM notes").unwrap(), "2");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                AND pid <> pg_backend_pid()";
    house.server("primary").await_value(left, "0", "without our backends").unwrap();
}

#[test]
fn a_second_sigterm_waits_for_nobody() {
    let house = small();
    let mut inside = house.wire();
    inside.run("BEGIN");
    inside.run("INSERT INTO notes VALUES (1)");
    house.proxy.signal(Signal::TERM);
    await_that("it drains", || house.metric("pgsteer_draining") == Some(1.0));
    assert!(house.proxy.is_running(), "one is still inside");

    house.proxy.signal(Signal::TERM);

    assert!(house.proxy.await_end().unwrap().success());
    assert_eq!(inside.reply().ended, Ended::Closed);
    await_that("nothing of it is left", || {
        house.server("primary").value("SELECT count(*) FROM notes").unwrap() == "0"
    });
}

/// One house for what only looks, or changes one setting.
#[test]
fn operators_see_the_truth() {
    let house = Blueprint::new().unhurried().build();
    house.server("primary").rows("CREATE TABLE notes (i int)").unwrap();
    house.await_catalog();
    reloads(&house);
    metrics_are_well_formed(&house);
    status_and_metrics_agree_with_the_servers(&house);
    a_terminal_of_any_width_shows_the_status(&house);
    sessions_are_counted(&house);
    names_of_clients_never_become_series(&house);
}

fn reloads(house: &House) {
    let successful = "pgsteer_config_last_reload_successful";
    house.reload("[routing]\nconsistency = \"primary\"\nmax_lag.time = \"7s\"\n");
    assert_eq!(house.metric(successful), Some(1.0));
    assert_eq!(house.wire().value(READ), "primary");
    let wrong = [
        "[routing]\nconsistency = \"eventual\"\nmax_lag.time = 5\n",
        "[routing]\nconsistency = \"eventual\"\nmax_leg = \"5s\"\n",
        "[routing\n",
        "[routing]\nconsistency = \"eventual\"\n[auth]\nfile = \"/no/such/file\"\n",
    ];
    for text in wrong {
        house.reload(text);
        await_that("the refusal is seen", || house.metric(successful) == Some(0.0));
        assert_eq!(house.wire().value(READ), "primary", "the old one is still in use: {text}");
        let log = house.proxy.log();
        let line = log.lines().rfind(|line| line.contains("was not reloaded")).unwrap();
        assert!(line.contains("ERROR"), "{line}");
        assert_eq!(house.status()["max_lag"]["seconds"], 7.0);
    }
    assert!(house.proxy.log().contains("pgsteer.toml:3:16"), "it says where");
    // Some keys need a restart, and it says so; the others of the same file count.
    house.reload("[routing]\nmax_lag.time = \"3s\"\n[limits]\nshards = 7\n");
    assert_eq!(house.metric(successful), Some(1.0));
    assert_eq!(house.status()["max_lag"]["seconds"], 3.0);
    let log = house.proxy.log();
    assert!(log.lines().any(|l| l.contains("after a restart") && l.contains("limits.shards")));
    house.reload("");
    await_that("the defaults", || house.wire().value(READ).starts_with("standby"));
}

/// What needs a restart stays as it was, and what was said of a server is taken for no other:
/// servers are numbered in the order in which the process was told of them.
#[test]
fn a_reload_takes_no_server_for_another() {
    let cluster = cluster(&Plan::new());
    let [primary, first, second] =
        ["primary", "standby1", "standby2"].map(|name| cluster.server(name).unwrap().address());
    let told = |hosts: [&String; 3], weight: u32| {
        let hosts = hosts.map(|host| format!("{host:?}")).join(", ");
        format!(
            "[servers]\nhosts = [{hosts}]\n[servers.overrides]\n{first:?} = {{ weight = {weight} }}\n"
        )
    };
    let proxy = proxy(&cluster, &told([&primary, &first, &second], 1));
    proxy.start().unwrap();
    proxy.await_ready().unwrap();
    let house = House { proxy, cluster };
    house.await_catalog();
    let readers = || (0..20).map(|_| house.wire().value(READ)).collect::<BTreeSet<_>>();
    let both = || readers() == ["standby1", "standby2"].map(str::to_owned).into();
    await_that("both standbys serve", both);

    house.reload(&told([&first, &second, &primary], 0));

    await_that("standby1 serves no reads", || readers() == ["standby2".to_owned()].into());
    assert!(house.wire().query("CREATE TABLE written ()").is_good(), "writes go on");
    let order = |line: &str| line.contains("after a restart") && line.contains("servers.hosts");
    assert_eq!(house.proxy.log().lines().filter(|line| order(line)).count(), 1);
    house.reload(&told([&first, &second, &primary], 1));
    await_that("both standbys serve", both);
    let warned = house.proxy.log().lines().filter(|line| order(line)).count();
    assert_eq!(warned, 2, "it is said at each reload until the restart");
}

/// Prometheus's own checker; Debian's package prometheus has it.
fn metrics_are_well_formed(house: &House) {
    let mut checker = std::process::Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: scripts/setup.sh test fetches it");
    checker.stdin.take().unwrap().write_all(house.http("/metrics").body.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

fn of(house: &House, server: &str, metric: &str, more: &str) -> Option<f64> {
    let name = house.server(server).address();
    let with = if more.is_empty() { String::new() } else { format!(",{more}") };
    house
        .metric(&format!("{metric}{{server=\"{name}\"{with}}}"))
        .or_else(|| house.metric(&format!("{metric}{{{more},server=\"{name}\"}}")))
}

fn status_and_metrics_agree_with_the_servers(house: &House) {
    for (server, role) in [("primary", "primary"), ("standby1", "standby"), ("standby2", "standby")]
    {
        assert_eq!(of(house, server, "pgsteer_server_up", ""), Some(1.0));
        let is = |role: &str| of(house, server, "pgsteer_server_role", &format!("role=\"{role}\""));
        assert_eq!(is(role), Some(1.0), "{server}");
        let other = if role == "primary" { "standby" } else { "primary" };
        assert_eq!(is(other), Some(0.0), "{server}");
        assert_eq!(of(house, server, "pgsteer_server_timeline", ""), Some(1.0));
    }
    let http = house.proxy.http_address().to_string();
    let status = |form: &[&str]| {
        let output = command().args(["--http", &http]).args(form).arg("status").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown: Value = serde_json::from_str(&status(&["-o", "json"])).unwrap();
    assert_eq!(shown["primary"], *house.server("primary").address());
    let tree = status(&[]);
    for server in house.cluster.servers() {
        assert!(tree.contains(&server.address()), "{tree}");
    }
    let system = house.server("primary").value("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(shown["system"], *system.unwrap(), "{shown}");

    // A standby stands still while a known amount is written.
    house.server("standby1").pause_replay().unwrap();
    let at = "SELECT pg_current_wal_flush_lsn() - '0/0'";
    let position = || house.server("primary").value(at).unwrap().parse::<f64>().unwrap();
    let before = position();
    house.server("primary").rows("INSERT INTO notes SELECT generate_series(1, 20000)").unwrap();
    let written = position() - before;
    await_that("the lag is as much as was written", || {
        let lag = of(house, "standby1", "pgsteer_server_replay_lag_bytes", "").unwrap();
        let truth = "SELECT pg_last_wal_replay_lsn() - '0/0'";
        let replayed: f64 = house.server("standby1").value(truth).unwrap().parse().unwrap();
        lag >= written && (lag - (position() - replayed)).abs() < 1.0
    });
    await_that("it falls out by time", || {
        of(house, "standby1", "pgsteer_server_replay_lag_seconds", "").unwrap() > 1.0
            && of(house, "standby1", "pgsteer_server_usable", "for=\"reads\"") == Some(0.0)
    });
    let lagging = house.status_of("standby1");
    assert_eq!((&lagging["state"], &lagging["reads"]), (&"lagging".into(), &false.into()));
    assert!(status(&[]).contains("lagging"), "{}", status(&[]));
    assert!(of(house, "standby2", "pgsteer_server_replay_lag_bytes", "") < Some(written));
    house.server("standby1").resume_replay().unwrap();
    await_that("it is back", || house.status_of("standby1")["reads"] == true);
    // One that is down has no lag: unknown is not zero.
    house.server("standby2").kill9().unwrap();
    await_that("it is down", || house.status_of("standby2")["state"] == "down");
    assert_eq!(of(house, "standby2", "pgsteer_server_up", ""), Some(0.0));
    assert!(of(house, "standby2", "pgsteer_server_replay_lag_bytes", "").unwrap().is_nan());
    assert_eq!(house.status_of("standby2")["lag_bytes"], Value::Null);
    house.server("standby2").start().unwrap();
    await_that("it is back", || house.status_of("standby2")["reads"] == true);
}

/// On terminals of the narrowest and of a wide kind; `script` makes them.
fn a_terminal_of_any_width_shows_the_status(house: &House) {
    let shown = |columns: usize| {
        let asked = format!(
            "stty rows 24 cols {columns} && {} --http {} --color never status",
            program().display(),
            house.proxy.http_address()
        );
        let output = std::process::Command::new("script")
            .args(["--quiet", "--return", "--command", &asked, "/dev/null"])
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .expect("script is missing: bsdutils has it");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let narrow = shown(80);
    let longest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest(&narrow) <= 80, "{narrow}");
    for server in house.cluster.servers() {
        assert!(narrow.contains(&server.address()), "{narrow}");
    }
    let wide = shown(130);
    assert!(wide.contains("VERSION") && !narrow.contains("VERSION"), "{wide}");
    assert!(longest(&wide) <= 130, "{wide}");
}

fn sessions_are_counted(house: &House) {
    let state = |state: &str| {
        house.metric(&format!("pgsteer_client_connections{{state=\"{state}\"}}")).unwrap()
    };
    await_that("nobody is here", || house.status()["clients"]["connected"] == 0);
    assert_eq!(house.metric("pgsteer_client_limit_connections"), Some(10_000.0));
    let before = house.metric("pgsteer_client_connections_total{result=\"accepted\"}").unwrap();
    let mut clients: Vec<Wire> = (0..7).map(|_| house.wire()).collect();
    for wire in clients.iter_mut().take(3) {
        wire.run("BEGIN");
        wire.run("INSERT INTO notes VALUES (1)");
    }
    await_that("seven, three of them inside", || {
        (state("idle"), state("in_transaction"), state("active")) == (4.0, 3.0, 0.0)
    });
    let after = house.metric("pgsteer_client_connections_total{result=\"accepted\"}").unwrap();
    assert!((after - before - 7.0).abs() < 0.5, "{before} {after}");
    let active = of(house, "primary", "pgsteer_pool_connections", "state=\"active\"");
    assert_eq!(active, Some(3.0));
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    assert_eq!(house.server("primary").value(ours).unwrap(), "3");
    drop(clients);
    await_that("nobody is here", || state("idle") + state("in_transaction") < 0.5);
}

fn series(house: &House) -> BTreeSet<String> {
    let body = house.http("/metrics").body;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
}

fn names_of_clients_never_become_series(house: &House) {
    let knock = |number: usize| {
        let (user, database) = (format!("user{number}"), format!("database{number}"));
        let named = [("user", user.as_str()), ("database", &database)];
        let refused = Wire::log_in_with(house.proxy.address(), &named).unwrap_err();
        assert_eq!(refused.ended, Ended::Closed);
        assert_eq!(refused.codes().len(), 1, "{refused:?}");
    };
    // The first ones may bring codes of errors that were not there before.
    knock(0);
    house.wire().query("SELECT 1/0");
    let before = series(house);
    (1..=1000).for_each(knock);
    let after = series(house);
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(after.len() < 1000, "{} series", after.len());
    assert!(after.iter().all(|name| !name.contains("user1") && !name.contains("database1")));
}
