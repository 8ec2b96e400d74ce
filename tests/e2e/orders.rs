//! What operators do on real servers: previews, orders, their history, a drill; and what keeps
//! them from it.

use crate::support::Blueprint;
use crate::support::House;
use crate::support::await_that;
use crate::support::changes;
use crate::support::command;
use crate::support::handed_over;
use crate::support::is_unheard;
use crate::support::replaced;
use crate::support::until_done;
use crate::support::{Answer, CALLED_OFF};
use pgsteer::sandbox::Quorum;
use pgsteer::sandbox::StatementLog;
use pgsteer::sandbox::eventually;
use serde_json::Value;
use std::io::Write as _;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

/// Servers as a failover needs them; commits wait for one standby.
fn quorum() -> Blueprint {
    servers(Quorum::AnyOne)
}

fn servers(quorum: Quorum) -> Blueprint {
    Blueprint::new()
        .servers(|plan| {
            plan.log(StatementLog::Off)
                .quorum(quorum)
                .keepalive("2s")
                .setting("wal_retrieve_retry_interval", "100ms")
        })
        .set("failover.demote", "crash_restart")
}

/// The binary, asked to do this of the house's proxy: to look, or something of which nothing comes.
/// So it is asked again if it had no answer in time.
fn pgsteer(house: &House, arguments: &[&str]) -> (i32, String, String) {
    let http = house.proxy.http_address().to_string();
    let answer = eventually(Duration::from_mins(1), || {
        let said = said(&command().args(["--http", &http]).args(arguments).output().unwrap());
        (!is_unheard(&said.2)).then_some(said)
    });
    answer.expect("pgsteer never answers in time")
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Waits until a primary was recorded with what it promises.
fn await_promise(house: &House, promise: &str) {
    await_that("the promise is known", || house.status()["failover"]["promise"] == *promise);
}

fn primary(house: &House) -> String {
    house.status()["primary"].as_str().unwrap_or("").to_owned()
}

/// An operator hands over, sees it in the history, and hands back; nothing is left to be done by
/// hand.
#[test]
fn an_operator_hands_over_and_sees_it_in_the_history() {
    let house = quorum().build();
    await_promise(&house, "quorum");
    let (first, second) = (primary(&house), house.server("standby2").address());

    let (code, out, err) = pgsteer(&house, &["failover", "--dry-run"]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.contains("the primary is well: use `pgsteer switchover`"), "{err}");
    let (code, out, err) = pgsteer(&house, &["switchover", "--to", "nobody", "--dry-run"]);
    assert_eq!((code, err.contains("nobody is none of the servers")), (4, true), "{out}{err}");
    let (code, out, err) = pgsteer(&house, &["failover", "--abort"]);
    assert_eq!((code, err.contains("no change of primary")), (4, true), "{out}{err}");

    let Answer { out, err, .. } = handed_over(&house, &["switchover", "--to", &second, "--yes"]);
    assert!(out.contains(&format!("{first} -> {second}")), "{out}");
    assert!(out.contains(&format!("done: {second} is the primary")), "{out}");
    assert!(err.contains("draining") && err.contains("promoting"), "{err}");
    assert_eq!(primary(&house), second);

    await_that("the old primary follows", || house.status_at(&first)["state"] == "streaming");
    let back = ["-o", "json", "switchover", "--to", &first, "--yes"];
    let out = handed_over(&house, &back).out;
    let account: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(account["change"]["to"], *first, "{account}");
    assert_eq!(account["change"]["loss"]["at_most_bytes"], 0, "{account}");

    let (code, out, _) = pgsteer(&house, &["history"]);
    let changes = changes(&house);
    assert_eq!((code, changes.to_another, out.lines().count()), (0, 2, changes.all), "{out}");
    assert!(out.lines().all(|line| line.contains("switchover") && line.contains("by operator")));
    // What the new primary promises is not known before its settings were seen.
    await_promise(&house, "quorum");
    let (_, status, _) = pgsteer(&house, &["status"]);
    assert!(status.contains("  Failover  manual; quorum: 1 of "), "{status}");
    assert!(status.contains("  Last      ") && status.contains("loss: none"), "{status}");
    let counted = r#"pgsteer_failover_changes_total{by="operator",kind="switchover"}"#;
    assert_eq!(house.metric(counted).unwrap().to_string(), changes.all.to_string());
    assert_eq!(house.metric("pgsteer_failover_last_loss_bytes"), Some(0.0));
}

/// A dead primary waits for its operator in mode manual; what he is shown is what he gets.
#[test]
fn an_operator_replaces_a_dead_primary() {
    let house = quorum().build();
    await_promise(&house, "quorum");
    house.wire().run("CREATE TABLE kept (x int)");
    let first = primary(&house);
    house.server("primary").kill9().unwrap();
    await_that("an operator is asked for", || {
        let why = house.status()["failover"]["why"].as_str().unwrap_or("").to_owned();
        why.contains("run `pgsteer failover`")
    });
    assert_eq!(house.metric(r#"pgsteer_failover_blocked{reason="manual"}"#), Some(1.0));

    let (code, out, err) = pgsteer(&house, &["failover", "--dry-run", "-o", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    let preview: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(preview["loss"]["at_most_bytes"], 0, "{preview}");
    let (code, _, err) = pgsteer(&house, &["failover"]);
    assert_eq!((code, err.contains("--yes")), (4, true), "{err}");
    assert_eq!(primary(&house), "", "somebody was promoted");
    replaced(&house, &["failover", "--yes"]);

    assert_eq!(primary(&house), *preview["to"].as_str().unwrap());
    assert_ne!(primary(&house), first);
    house.wire().run("INSERT INTO kept VALUES (1)");
    assert_eq!(house.metric(r#"pgsteer_failover_blocked{reason="manual"}"#), Some(0.0));
}

/// What would be lost is told before, must be accepted, and is what is written down.
#[test]
fn a_loss_is_told_accepted_and_written_down() {
    let house = servers(Quorum::None).build();
    await_promise(&house, "asynchronous");
    house.wire().run("CREATE TABLE lost (x text)");
    house.cluster.await_replay().unwrap();
    for standby in house.cluster.standbys() {
        standby.set("primary_conninfo", "").unwrap();
        standby.await_value("SELECT count(*) FROM pg_stat_wal_receiver", "0", "cut off").unwrap();
    }
    let mut wire = house.wire();
    wire.run("INSERT INTO lost SELECT repeat('x', 1000) FROM generate_series(1, 100)");
    // Another session of the proxy asks for the position behind that.
    await_that("the position is known", || wire.value("SELECT count(*) FROM lost") == "100");
    std::thread::sleep(Duration::from_secs(1));
    house.server("primary").kill9().unwrap();
    await_that("it is lost", || primary(&house).is_empty());

    await_that("it is known to be dead", || {
        let (code, _, err) = pgsteer(&house, &["failover", "--yes"]);
        code == 4 && err.contains("--accept-loss")
    });
    let (_, out, _) = pgsteer(&house, &["failover", "--dry-run", "-o", "json"]);
    let preview: Value = serde_json::from_str(&out).unwrap();
    assert!(!preview["loss_accepted"].as_bool().unwrap(), "{preview}");
    let told = preview["loss"].clone();
    let answer = replaced(&house, &["-o", "json", "failover", "--yes", "--accept-loss", "any"]);
    // Whoever had no answer in time has no account.
    let account: Value =
        if answer.is_heard() { serde_json::from_str(&answer.out).unwrap() } else { Value::Null };
    // Whoever did not see its end is told nothing of it.
    assert_eq!(account["change"].is_object(), answer.code == Some(0), "{account}");
    let change = house.status()["failover"]["last_change"].clone();
    for change in [&change, &account["change"]].into_iter().filter(|change| change.is_object()) {
        assert_eq!(change["loss"], told, "{change}");
    }
    assert!(change.is_object(), "nothing was written down");
    if let Some(most) = told["at_most_bytes"].as_u64() {
        assert!(most > 100_000, "a hundred thousand bytes were written: {told}");
    }
    assert_eq!(house.wire().value("SELECT count(*) FROM lost"), "0", "nothing was at stake");
}

/// Whoever is killed finds the truth again, and a second process keeps its hands off.
#[test]
fn the_record_outlives_the_process_and_is_one_processs_own() {
    let house = quorum().build();
    await_promise(&house, "quorum");
    let second = house.server("standby1").address();
    handed_over(&house, &["switchover", "--to", &second, "--yes"]);
    let epoch = house.status()["failover"]["epoch"].clone();

    let state = house.proxy.dir().join("state").display().to_string();
    let other = crate::support::proxy_at(&house.cluster, "other", "")
        .args(house.cluster.servers().iter().flat_map(|it| ["--server".to_owned(), it.address()]))
        .args(["--set", &format!("failover.state_dir={state}")]);
    other.start().unwrap();
    other.await_ready().unwrap();
    let status: Value = serde_json::from_str(&other.get("/status").unwrap().body).unwrap();
    let why = status["failover"]["unavailable"].as_str().unwrap();
    let pid = house.proxy.pid().unwrap();
    assert!(why.contains("another pgsteer") && why.contains(&pid.to_string()), "{why}");
    assert_eq!(other.log().matches("failover_unavailable").count(), 1, "{}", other.log());
    await_that("it serves all the same", || {
        crate::support::Wire::log_in(other.address(), "postgres").is_ok()
    });
    let http = other.http_address().to_string();
    let (code, _, err) =
        said(&command().args(["--http", &http, "switchover", "--yes"]).output().unwrap());
    assert_eq!((code, err.contains("failover is unavailable")), (1, true), "{err}");
    drop(other);

    house.proxy.signal(rustix::process::Signal::KILL);
    house.proxy.await_end().unwrap();
    house.proxy.start().unwrap();
    house.proxy.await_ready().unwrap();
    await_that("the record is read", || house.status()["failover"]["epoch"] == epoch);
    let (code, out, _) = pgsteer(&house, &["history"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    house.wire().run("CREATE TABLE after_the_restart ()");
}

/// The name typed at a terminal is the agreement; anything else changes nothing.
#[test]
fn the_name_is_typed_at_a_terminal() {
    let house = quorum().build();
    await_promise(&house, "quorum");
    let (first, second) = (primary(&house), house.server("standby1").address());
    let program = crate::support::program();
    let typed = |name: &str| {
        let line = format!(
            "{} --http {} switchover --to {second}",
            program.display(),
            house.proxy.http_address()
        );
        // A terminal of its own for the command.
        let mut script = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        script.stdin.take().unwrap().write_all(format!("{name}\n").as_bytes()).unwrap();
        Answer::from(&script.wait_with_output().unwrap())
    };

    let Answer { code, out, .. } = typed(&first);
    assert_eq!((code, out.contains("nothing was changed")), (CALLED_OFF, true), "{out}");
    assert_eq!(primary(&house), first);
    until_done(&house, || typed(&second));
    assert_eq!(primary(&house), second);
}

/// A drill hands over and back, and no client of it notices more than a wait.
#[test]
fn a_drill_hands_over_and_back_and_fails_no_statement() {
    let house = quorum().set("routing.hold_max", "1m").build();
    await_promise(&house, "quorum");
    let listen = house.proxy.address().to_string();
    let http = house.proxy.http_address().to_string();
    let mut drill = command();
    drill.args(["--http", &http, "--listen", &listen, "-o", "json"]).env("PGUSER", "postgres");
    for server in house.cluster.servers() {
        drill.args(["--server", &server.address()]);
    }
    drill.args(["drill", "--yes"]);

    let drilled = eventually(Duration::from_mins(3), || {
        // One that was called off half way left another as the primary.
        await_that("there is a primary", || !primary(&house).is_empty());
        let before = primary(&house);
        let Answer { code, out, err } = (&drill.output().unwrap()).into();
        if code == CALLED_OFF {
            eprintln!("called off: {err}");
            return None;
        }
        assert_eq!(code, Some(0), "{out}{err}");
        Some((before, out))
    });
    let (before, out) = drilled.expect("none comes to its end");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["passed"], true, "{report}");
    let acts = report["acts"].as_array().unwrap();
    let handed: Vec<_> = acts.iter().filter(|act| act["change"].is_object()).collect();
    assert_eq!(handed.len(), 2, "{report}");
    for act in acts {
        assert_eq!(act["clients"]["failed"], 0, "{act}");
        assert!(act["clients"]["reads"]["done"].as_u64().unwrap() > 0, "{act}");
    }
    assert_eq!(primary(&house), before);
}

/// Where the old primary could not come back by itself, a drill is refused.
#[test]
fn a_drill_that_could_not_go_back_is_refused() {
    let house = quorum().set("failover.demote", "fence").build();
    await_promise(&house, "quorum");
    let server = house.server("primary").address();
    let epoch = || house.status()["failover"]["epoch"].clone();
    let before = epoch();
    let (code, out, err) = pgsteer(&house, &["--server", &server, "drill", "--yes"]);
    let remedy = "set failover.demote = \"crash_restart\" and reload";
    assert_eq!((code, err.contains(remedy), &*out), (4, true, ""), "{err}");
    assert_eq!((primary(&house), epoch()), (server, before), "nothing was begun");
}

/// Where nobody may make the one that hands over a standby, a drill is refused, with what helps.
#[test]
fn a_drill_that_lacks_a_right_for_the_way_back_is_refused() {
    let house = quorum().set("servers.user", "control").build_after(|cluster| {
        let role = "CREATE ROLE control LOGIN REPLICATION IN ROLE pg_monitor";
        cluster.primary().rows(role).unwrap();
        cluster.await_replay().unwrap();
    });
    await_promise(&house, "quorum");
    let (server, second) = (primary(&house), house.server("standby1"));
    let to = second.address();
    let epoch = || house.status()["failover"]["epoch"].clone();
    let before = epoch();
    let drill = || pgsteer(&house, &["--server", &server, "drill", "--to", &to, "--yes"]);
    let refused = |remedy: &str| {
        // A survey that is late, on a crowded machine, is an obstacle as well.
        await_that(remedy, || {
            let (code, out, err) = drill();
            assert_eq!((code, &*out), (4, ""), "{err}");
            assert!(err.contains("nothing was changed"), "{err}");
            assert_eq!((primary(&house), epoch()), (server.clone(), before.clone()));
            err.contains(remedy)
        });
    };
    let obstacles = || house.status()["failover"]["undemotable"].as_array().unwrap().clone();
    await_that("every server was surveyed", || {
        obstacles().iter().all(|it| !it["why"].as_str().unwrap().contains("not reached"))
    });
    refused("ALTER ROLE \"control\" SUPERUSER");
    // So is a switchover, which would hold up everybody until it is called off.
    for way in ["--yes", "--dry-run"] {
        let (code, _, err) = pgsteer(&house, &["switchover", "--to", &to, way]);
        assert_eq!((code, err.contains("ALTER ROLE \"control\" SUPERUSER")), (4, true), "{err}");
        assert_eq!((primary(&house), epoch()), (server.clone(), before.clone()));
    }

    house.server("primary").rows("ALTER ROLE control SUPERUSER").unwrap();
    await_that("that helps", || obstacles().is_empty());
    second.set("restart_after_crash", "off").unwrap();
    await_that("one alone would not come back", || {
        let found = obstacles();
        found.len() == 1 && found[0]["server"] == *to
    });
    refused("restart_after_crash is off");
    // It concerns nobody who only looks on.
    let third = house.server("standby2").address();
    let (code, _, err) = pgsteer(&house, &["switchover", "--to", &third, "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    second.set("restart_after_crash", "on").unwrap();
    await_that("nothing is in the way", || obstacles().is_empty());
}

/// However long it takes: until it is written nobody is held, and the order can be taken back.
#[test]
fn the_checkpoint_of_a_switchover_holds_up_nobody_but_the_order() {
    let house = quorum().build();
    await_promise(&house, "quorum");
    let (mut wire, first) = (house.wire(), primary(&house));
    wire.run("CREATE TABLE kept (x int)");
    let ordered = || {
        let http = house.proxy.http_address().to_string();
        let mut order = command();
        order.args(["--http", &http, "switchover", "--yes"]);
        order.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let waits = || {
        await_that("it waits for the checkpoint", || {
            let why = house.status()["failover"]["why"].as_str().unwrap_or("").to_owned();
            why.contains("writes a checkpoint")
        });
    };
    house.server("primary").sigstop_process("checkpointer");

    let order = ordered();
    waits();
    wire.run("INSERT INTO kept VALUES (1)");
    assert_eq!(house.status()["failover"]["phase"], "stable");
    let (code, out, err) = pgsteer(&house, &["failover", "--abort"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = said(&order.wait_with_output().unwrap());
    assert_eq!((code, err.contains("an operator called it off")), (4, true), "{err}");
    assert_eq!(primary(&house), first);

    let mut order = Some(ordered());
    waits();
    wire.run("INSERT INTO kept VALUES (2)");
    house.server("primary").sigcont();
    let mut order = || order.take().unwrap_or_else(ordered).wait_with_output().unwrap();
    until_done(&house, || Answer::from(&order()));
    assert_ne!(primary(&house), first);
    wire.run("INSERT INTO kept VALUES (3)");
}

/// Mode and limits change while it runs; where the record lies does not.
#[test]
fn what_an_operator_chooses_counts_after_a_reload() {
    let house = quorum().build();
    await_promise(&house, "quorum");
    let server = house.server("primary").address();
    let mode = |mode: &str| format!(r#"pgsteer_failover_mode{{mode="{mode}"}}"#);
    assert_eq!(house.metric(&mode("manual")), Some(1.0));

    house.reload("[failover]\nmode = \"off\"\nstate_dir = \"/nowhere\"\n");
    assert_eq!(house.status()["failover"]["mode"], "off");
    assert_eq!((house.metric(&mode("off")), house.metric(&mode("manual"))), (Some(1.0), Some(0.0)));
    let (code, _, err) = pgsteer(&house, &["switchover", "--yes"]);
    assert_eq!((code, err.contains("failover.mode is \"off\"")), (4, true), "{err}");
    let restart = "takes effect after a restart";
    assert!(
        house
            .proxy
            .log()
            .lines()
            .any(|line| { line.contains("failover.state_dir") && line.contains(restart) })
    );

    house.reload("[failover]\nmode = \"auto\"\n");
    await_that("it is armed", || house.status()["failover"]["armed"] == true);
    assert_eq!(house.metric("pgsteer_failover_armed"), Some(1.0));
    assert_eq!(primary(&house), server);
}

/// The set was built anew on the same addresses; the record speaks of the one before.
#[test]
fn servers_that_were_all_replaced_are_refused_until_the_record_is_gone() {
    let house = House::build();
    house.wire().run("CREATE TABLE before ()");
    let state = house.proxy.dir().join("state");
    house.proxy.signal(rustix::process::Signal::TERM);
    house.proxy.await_end().unwrap();
    let named = house.proxy.log();
    let record = named.lines().find_map(|line| line.split_once("record=")).unwrap().1.trim();
    let record = std::path::PathBuf::from(record);
    assert!(record.starts_with(&state), "{}", record.display());
    let mut value: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    value["record"]["primary"]["system"] = serde_json::json!("7");
    std::fs::write(&record, value.to_string()).unwrap();

    house.proxy.start().unwrap();
    await_that("they are refused", || {
        house.proxy.log().contains("If all of them were replaced on purpose")
    });
    house.proxy.signal(rustix::process::Signal::TERM);
    house.proxy.await_end().unwrap();
    std::fs::remove_file(&record).unwrap();

    house.proxy.start().unwrap();
    house.proxy.await_ready().unwrap();
    house.wire().run("DROP TABLE before");
}
