//! The clusters that all other tests stand on: they do as they are told, and leave nothing.

use crate::support::cluster;
use pgsteer::sandbox::Auth;
use pgsteer::sandbox::Cluster;
use pgsteer::sandbox::Durability;
use pgsteer::sandbox::Plan;
use pgsteer::sandbox::Postgres;
use pgsteer::sandbox::Rejoined;
use pgsteer::sandbox::Scratch;
use pgsteer::sandbox::Server;
use pgsteer::sandbox::Shutdown;
use pgsteer::sandbox::StatementLog;
use pgsteer::sandbox::Template;
use pgsteer::sandbox::eventually;
use pgsteer::sandbox::working_in;
use rustix::process::Pid;
use rustix::process::Signal;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use tokio_postgres::NoTls;

/// Time enough for a standby to replay a row on a crowded machine.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn standbys_stream_from_the_primary() {
    let cluster = cluster(&Plan::new());

    make_table(&cluster);
    cluster.await_replay().unwrap();

    assert!(!cluster.primary().is_standby().unwrap());
    for standby in cluster.standbys() {
        assert!(standby.is_standby().unwrap());
        assert_eq!(standby.value("SELECT count(*) FROM t").unwrap(), "1");
        let senders = "SELECT count(*) FROM pg_stat_replication WHERE application_name = ";
        let sender = cluster.primary().value(&format!("{senders}'{}'", standby.name())).unwrap();
        assert_eq!(sender, "1", "{} has its own name", standby.name());
    }
}

#[test]
fn a_dropped_cluster_leaves_nothing() {
    let cluster = cluster(&Plan::new());
    // Neither a frozen server nor one that was killed may stay behind.
    cluster.server("standby1").unwrap().sigstop();
    cluster.server("standby2").unwrap().kill9().unwrap();
    let traces = Traces::of(&cluster);

    drop(cluster);

    traces.assert_gone();
}

#[test]
fn a_cluster_leaves_nothing_when_its_owner_panics() {
    let traces = std::sync::Mutex::new(None);

    let panicked = std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let cluster = cluster(&Plan::new().standbys(0));
            *traces.lock().unwrap() = Some(Traces::of(&cluster));
            panic!("this panic is part of the test");
        });
        owner.join().is_err()
    });

    assert!(panicked);
    let traces = traces.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    traces.unwrap().assert_gone();
}

/// Not a test: the process that the two tests below kill. Run as a test, it does nothing.
#[test]
fn an_owner_that_is_killed() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let cluster = cluster(&Plan::new().standbys(1));
    // The proxy and whoever else works in the cluster's directory ends with it.
    let dir = cluster.workshop("worker").unwrap();
    let mut worker = Command::new("sleep").arg("600").current_dir(dir).spawn().unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "{READY}{}", cluster.primary().socket_dir().parent().unwrap().display()).unwrap();
    worker.wait().unwrap();
}

#[test]
fn a_cluster_leaves_nothing_when_its_owner_is_killed() {
    for signal in [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP] {
        let (mut owner, dir) = start_owner(&std::env::temp_dir());

        kill(signal, owner.id());
        owner.wait().unwrap();

        let gone = || (!dir.exists() && processes_in(&dir).is_empty()).then_some(());
        assert!(eventually(SOON, gone).is_some(), "{signal:?}: {} stayed", dir.display());
    }
}

#[test]
fn the_next_run_removes_what_a_killed_owner_and_a_killed_guard_left() {
    // A place for temporary files of its own: any other run would remove it as well.
    let scratch = Scratch::new().unwrap();
    let base = scratch.path().join("base");
    std::fs::create_dir(&base).unwrap();
    let (mut owner, dir) = start_owner(&base);
    for guard in guards_of(&dir) {
        kill(Signal::KILL, guard);
    }
    kill(Signal::KILL, owner.id());
    owner.wait().unwrap();
    assert!(!processes_in(&dir).is_empty(), "without a guard its servers live on");

    let (mut next, _) = start_owner(&base);

    assert!(!dir.exists(), "{} stayed", dir.display());
    assert_eq!(processes_in(&dir), Vec::<u32>::new());
    kill(Signal::KILL, next.id());
    next.wait().unwrap();
}

#[test]
fn a_paused_standby_stays_behind_until_it_is_resumed() {
    let cluster = cluster(&Plan::new().standbys(1));
    let standby = cluster.server("standby1").unwrap();
    make_table(&cluster);
    cluster.await_replay().unwrap();

    standby.pause_replay().unwrap();
    cluster.primary().rows("INSERT INTO t VALUES (2)").unwrap();
    let received = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    standby.await_value(received, "t", "ahead of its replay").unwrap();

    assert_eq!(standby.value("SELECT count(*) FROM t").unwrap(), "1");
    standby.resume_replay().unwrap();
    cluster.await_replay().unwrap();
    assert_eq!(standby.value("SELECT count(*) FROM t").unwrap(), "2");
}

#[test]
fn a_setting_of_one_server_delays_it_alone() {
    let plan = Plan::new().server_setting("standby1", "recovery_min_apply_delay", "1h");
    let cluster = cluster(&plan);
    make_table(&cluster);

    let seen = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    cluster.server("standby2").unwrap().await_value(seen, "1", "level").unwrap();

    assert_eq!(cluster.server("standby1").unwrap().value(seen).unwrap(), "0");
}

#[test]
fn a_server_comes_back_from_every_kind_of_end() {
    let cluster = cluster(&Plan::new().standbys(1).durability(Durability::Durable));
    let primary = cluster.primary();
    make_table(&cluster);

    for end in ["fast", "immediate", "kill -9", "restart"] {
        let pid = primary.pid();
        match end {
            "fast" => primary.stop(Shutdown::Fast).unwrap(),
            "immediate" => primary.stop(Shutdown::Immediate).unwrap(),
            "kill -9" => primary.kill9().unwrap(),
            _ => primary.restart().unwrap(),
        }
        assert_eq!(primary.is_running(), end == "restart", "after {end}");
        primary.start().unwrap();
        assert_ne!(primary.pid(), pid, "after {end}");
        assert_eq!(primary.value("SELECT count(*) FROM t").unwrap(), "1", "after {end}");
    }
}

#[test]
fn a_frozen_server_does_not_answer_until_it_goes_on() {
    let cluster = cluster(&Plan::new().standbys(0));
    let primary = cluster.primary();

    primary.sigstop();
    let asked = std::thread::scope(|scope| {
        let answer = scope.spawn(|| primary.value("SELECT 7").unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!answer.is_finished(), "a frozen server answered");
        primary.sigcont();
        answer.join().unwrap()
    });

    assert_eq!(asked, "7");
}

#[test]
fn a_promoted_standby_takes_writes() {
    let cluster = cluster(&Plan::new().standbys(1));
    let standby = cluster.server("standby1").unwrap();

    cluster.primary().stop(Shutdown::Fast).unwrap();
    standby.promote().unwrap();

    standby.rows("CREATE TABLE after (x int)").unwrap();
    assert!(!standby.is_standby().unwrap());
}

#[test]
fn the_log_says_where_a_statement_ran() {
    let cluster = cluster(&Plan::new().standbys(1).log(StatementLog::All));
    let standby = cluster.server("standby1").unwrap();

    standby.rows("SELECT 1 /* marker-1 */").unwrap();

    let logged = eventually(SOON, || (standby.logged("marker-1") > 0).then_some(()));
    assert!(logged.is_some());
    assert_eq!(standby.logged("marker-1"), 1);
    assert_eq!(cluster.primary().logged("marker-1"), 0);
}

#[test]
fn a_changed_setting_takes_effect() {
    let cluster = cluster(&Plan::new().standbys(0));

    cluster.primary().set("work_mem", "5MB").unwrap();

    cluster.primary().await_value("SHOW work_mem", "5MB", "reloaded").unwrap();
}

#[tokio::test]
async fn with_passwords_only_the_right_one_gets_in() {
    let cluster = cluster(&Plan::new().standbys(1).auth(Auth::Password));
    let port = cluster.server("standby1").unwrap().port();
    let uri = |password| format!("postgresql://postgres:{password}@127.0.0.1:{port}/postgres");

    let right = tokio_postgres::connect(&uri(pgsteer::sandbox::SUPERUSER_PASSWORD), NoTls).await;
    let wrong = tokio_postgres::connect(&uri("wrong"), NoTls).await;

    assert!(right.is_ok());
    let error = wrong.err().unwrap();
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("28P01"));
}

fn make_table(cluster: &Cluster) {
    cluster.primary().rows("CREATE TABLE t (x int); INSERT INTO t VALUES (1)").unwrap();
}

/// Makes `an_owner_that_is_killed` own a cluster.
const OWNER: &str = "SANDBOX_TEST_OWNER";
/// What that says when the cluster runs, before its directory.
const READY: &str = "cluster in ";

/// Starts this same binary as the owner of a cluster; gives the cluster's directory.
fn start_owner(base: &Path) -> (Child, PathBuf) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "sandbox::an_owner_that_is_killed", "--nocapture"]);
    let mut owner =
        command.env(OWNER, "1").env("TMPDIR", base).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    // libtest may have begun the line.
    let dir = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once(READY).map(|(_, dir)| PathBuf::from(dir)));
    let dir = dir.expect("the owner ended before its cluster ran");
    assert!(processes_in(&dir).len() > 2, "the check sees too few processes");
    (owner, dir)
}

fn kill(signal: Signal, pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The guards of this directory, which is one of their arguments.
fn guards_of(dir: &Path) -> Vec<u32> {
    let found = pids().filter(|pid| {
        let args = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut args = args.split(|byte| *byte == 0);
        args.any(|arg| arg == b"pgsteer-guard") && args.next() == Some(dir.as_os_str().as_bytes())
    });
    let found: Vec<u32> = found.collect();
    assert_eq!(found.len(), 1, "one guard a directory");
    found
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
}

/// What a cluster has on this machine while it runs.
struct Traces {
    dir: PathBuf,
    ports: Vec<u16>,
    /// Ids of System V shared memory.
    segments: Vec<String>,
}

impl Traces {
    fn of(cluster: &Cluster) -> Self {
        let dir = cluster.primary().socket_dir().parent().unwrap().to_owned();
        assert!(!processes_in(&dir).is_empty(), "the check sees no process at all");
        Self {
            dir,
            ports: cluster.servers().iter().map(Server::port).collect(),
            segments: cluster.servers().iter().filter_map(segment).collect(),
        }
    }

    fn assert_gone(&self) {
        assert!(!self.dir.exists(), "{} stayed", self.dir.display());
        assert_eq!(processes_in(&self.dir), Vec::<u32>::new());
        for port in &self.ports {
            let answer = std::net::TcpStream::connect(("127.0.0.1", *port));
            assert!(answer.is_err(), "port {port} still answers");
        }
        let shared = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let ids: Vec<&str> =
            shared.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        for segment in &self.segments {
            assert!(!ids.contains(&segment.as_str()), "shared memory {segment} stayed");
        }
    }
}

/// The id of a server's System V shared memory: the second number of line 7 of its pid file.
fn segment(server: &Server) -> Option<String> {
    let file = std::fs::read_to_string(server.data().join("postmaster.pid")).unwrap();
    Some(file.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())
}

/// The processes that work in a directory or beneath it.
fn processes_in(dir: &Path) -> Vec<u32> {
    working_in(dir).into_iter().map(|found| found.pid).collect()
}

/// A directory of the same programs without this one.
fn programs_without(program: &str, scratch: &Scratch) -> Postgres {
    let all = Postgres::find(None).unwrap();
    let dir = scratch.path().join("bin");
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(all.bin()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name != program {
            std::os::unix::fs::symlink(&path, dir.join(name)).unwrap();
        }
    }
    Postgres::find(Some(&dir)).unwrap()
}

/// A primary that died and was replaced becomes a standby of the new one, and what it had alone
/// is gone: by `pg_rewind`, and without that program by a copy.
#[test]
fn a_replaced_primary_becomes_a_standby_again() {
    let scratch = Scratch::new().unwrap();
    let ways = [
        (Postgres::find(None).unwrap(), Rejoined::Rewound),
        (programs_without("pg_rewind", &scratch), Rejoined::Copied),
    ];
    for (postgres, expected) in ways {
        let rewinds = postgres.bin().join("pg_rewind").is_file();
        let template = Template::new(postgres).unwrap();
        let plan = Plan::new().standbys(1).setting("wal_log_hints", "on");
        let cluster = Cluster::start(&template, &plan).unwrap();
        let (old, new) = (cluster.primary(), &cluster.standbys()[0]);
        old.rows("CREATE TABLE t (x text); INSERT INTO t VALUES ('both')").unwrap();
        cluster.await_replay().unwrap();
        new.set("primary_conninfo", "").unwrap();
        new.await_value("SELECT count(*) FROM pg_stat_wal_receiver", "0", "cut off").unwrap();
        old.rows("INSERT INTO t VALUES ('lost')").unwrap();
        old.kill9().unwrap();
        new.promote().unwrap();
        new.rows("INSERT INTO t VALUES ('new')").unwrap();

        let rejoined = cluster.rejoin(old, new).unwrap();

        // PostgreSQL from npm has no such program.
        assert_eq!(rejoined, if rewinds { expected } else { Rejoined::Copied });
        assert!(old.is_standby().unwrap());
        let rows = "SELECT string_agg(x, ',' ORDER BY x) FROM t";
        old.await_value(rows, "both,new", "level with the new primary").unwrap();
        assert_eq!(old.value("SHOW cluster_name").unwrap(), "primary");
    }
}
