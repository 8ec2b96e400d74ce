//! `pgsteer doctor` and `pgsteer setup` on real servers: what is found is so, and what is said to
//! help does.

use crate::support::await_that;
use crate::support::cluster;
use crate::support::command;
use pgsteer::sandbox::{Auth, Cluster, Plan, SUPERUSER, SUPERUSER_PASSWORD, StatementLog};
use serde_json::Value;
use std::io::Write as _;
use std::process::{Output, Stdio};

const PASSWORD: &str = "control-password";

/// A cluster as its operator may have it, in quorum mode, and a control user with no right.
fn bare() -> Cluster {
    let plan = Plan::new()
        .auth(Auth::Password)
        .log(StatementLog::All)
        .setting("wal_retrieve_retry_interval", "5s")
        .setting("wal_log_hints", "on");
    let cluster = cluster(&plan);
    cluster.primary().rows(&format!("CREATE ROLE control LOGIN PASSWORD '{PASSWORD}'")).unwrap();
    cluster.primary().rows("SELECT pg_create_physical_replication_slot('two')").unwrap();
    cluster.await_replay().unwrap();
    cluster.server("standby2").unwrap().set("primary_slot_name", "two").unwrap();
    for name in ["primary", "standby1"] {
        let list = "ANY 1 (primary, standby1, standby2)";
        cluster.server(name).unwrap().set("synchronous_standby_names", list).unwrap();
    }
    cluster
}

fn run(cluster: &Cluster, args: &[&str]) -> Output {
    let mut command = command();
    command.args(args).args(["--set", "servers.user=control"]);
    for server in cluster.servers() {
        command.args(["--server", &server.address()]);
    }
    // The control user's own password lies in a file, the superuser's in the environment.
    let file = cluster.primary().socket_dir().join("control");
    std::fs::write(&file, PASSWORD).unwrap();
    let password = format!("servers.password={{ file = \"{}\" }}", file.display());
    command.args(["--set", &password]);
    command.env("PGPASSWORD", SUPERUSER_PASSWORD);
    command.output().unwrap()
}

fn doctor(cluster: &Cluster) -> (Option<i32>, Value) {
    let output = run(cluster, &["doctor", "-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}")))
}

fn blocking(found: &Value) -> Vec<String> {
    let gaps = found["gaps"].as_array().unwrap().iter();
    let blocks = gaps.filter(|gap| gap["weight"] == "blocks");
    blocks.map(|gap| format!("{}: {}", gap["server"], gap["what"])).collect()
}

/// What is left to the operator before PostgreSQL 15.
fn make_superuser(cluster: &Cluster) {
    cluster.primary().rows("ALTER ROLE control SUPERUSER").unwrap();
    cluster.await_replay().unwrap();
}

#[test]
fn what_setup_prints_makes_psql_mend_what_doctor_finds() {
    let cluster = bare();
    let grants_settings = cluster.primary().version().grants_settings();
    // What was set a moment ago takes effect when it is reloaded, and then shows what else lacks.
    await_that("each right that lacks is named", || {
        let (code, found) = doctor(&cluster);
        assert_eq!((code, &found["ready"]), (Some(1), &Value::Bool(false)), "{found:#}");
        let rights = blocking(&found).iter().filter(|gap| gap.contains("control user")).count();
        eprintln!("{rights}: {:?}", blocking(&found));
        rights == if grants_settings { 10 } else { 1 }
    });
    let text = String::from_utf8(run(&cluster, &["doctor"]).stdout).unwrap();
    if grants_settings {
        assert!(text.contains("GRANT pg_monitor TO \"control\";"), "{text}");
    } else {
        assert!(text.contains("ALTER ROLE \"control\" SUPERUSER"), "{text}");
        make_superuser(&cluster);
    }

    // What lies behind a missing right shows itself when that is there: twice is enough.
    for round in 0..2 {
        let printed = |args: &[&str]| String::from_utf8(run(&cluster, args).stdout).unwrap();
        let mut script = String::new();
        // A standby that connects anew is another finding between the two.
        await_that("printed, and nothing is done", || {
            script = printed(&["setup"]);
            printed(&["setup", "--dry-run"]) == script
        });
        assert!(!script.contains(SUPERUSER_PASSWORD), "{script}");
        for server in cluster.servers() {
            let mut parts = script.split("-- on ").skip(1);
            let own = parts.find(|part| part.starts_with(&format!("{},", server.address())));
            let Some(own) = own else { continue };
            let mut psql = std::process::Command::new("psql")
                .args(["-X", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", "postgres"])
                .args(["-h", "127.0.0.1", "-p", &server.port().to_string()])
                .env("PGPASSWORD", SUPERUSER_PASSWORD)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            psql.stdin.take().unwrap().write_all(format!("-- {own}").as_bytes()).unwrap();
            assert!(psql.wait().unwrap().success(), "round {round}: {own}");
        }
        cluster.await_replay().unwrap();
    }

    // A standby that was given another name connects anew, and is seen under it a moment later.
    await_that("nothing is left to mend", || {
        let (_, found) = doctor(&cluster);
        let left = blocking(&found);
        eprintln!("quorum: {}, left: {left:?}", found["quorum"]);
        found["quorum"] == true && left.is_empty()
    });
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    cluster.primary().await_value(streams, "2", "streaming").unwrap();
    let timeout = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'standby1'";
    cluster.primary().await_value(timeout, "1", "under its name").unwrap();
}

#[test]
fn setup_applies_it_once_and_finds_nothing_left() {
    let cluster = bare();
    let refused = run(&cluster, &["setup", "--apply", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "the control user may not grant itself anything");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--as USER"), "{said}");
    if !cluster.primary().version().grants_settings() {
        // Making somebody a superuser is nothing that is done unasked.
        let left = run(&cluster, &["setup", "--apply", "--as", SUPERUSER, "--yes"]);
        let said = String::from_utf8(left.stderr).unwrap();
        assert_eq!(left.status.code(), Some(1), "{said}");
        assert!(said.contains("left to you") && said.contains("is no superuser"), "{said}");
        make_superuser(&cluster);
    }
    let asked = run(&cluster, &["setup", "--apply", "--as", SUPERUSER]);
    assert_eq!(asked.status.code(), Some(4), "there is no terminal to ask at");

    let applied = applied(&cluster);
    let said = String::from_utf8(applied.stderr).unwrap();
    assert_eq!(applied.status.code(), Some(0), "{said}");
    await_that("nothing is left to mend", || {
        let (code, found) = doctor(&cluster);
        eprintln!("{code:?}: {:?}", blocking(&found));
        code == Some(0)
    });
    let said = String::from_utf8(self::applied(&cluster).stderr).unwrap();
    assert!(said.contains("nothing"), "{said}");
    for server in cluster.servers() {
        assert_eq!(server.logged("ALTER SYSTEM SET primary_conninfo"), 0, "it holds a password");
    }
}

/// Applies all that is missing; again, where a starved server has let it wait too long.
fn applied(cluster: &Cluster) -> Output {
    let apply = || run(cluster, &["setup", "--apply", "--as", SUPERUSER, "--yes"]);
    let late = |done: &Output| String::from_utf8_lossy(&done.stderr).contains("not done within");
    (1..PATIENCE).map(|_| apply()).find(|done| !late(done)).unwrap_or_else(apply)
}

/// How often it may be late.
const PATIENCE: usize = 10;

#[test]
fn a_server_that_is_not_reached_is_named() {
    let cluster = bare();
    cluster.standbys()[1].stop(pgsteer::sandbox::Shutdown::Immediate).unwrap();

    let (code, found) = doctor(&cluster);

    assert_eq!(code, Some(1));
    let error = found["servers"][2]["error"].as_str().unwrap();
    assert!(error.contains("connection refused"), "{found:#}");
}
