//! `pgsteer demo`: ready soon, true to its word, and gone without a trace.

use crate::support::CALLED_OFF;
use crate::support::command;
use crate::support::connect;
use crate::support::copy_program;
use crate::support::quickly;
use crate::support::quickly_enough;
use pgsteer::sandbox::Scratch;
use pgsteer::sandbox::eventually;
use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

/// Time enough to end on a crowded machine.
const END_MAX: Duration = Duration::from_secs(30);
/// Time enough to replace a primary and to bring it back there.
const BACK_MAX: Duration = Duration::from_mins(2);
/// Within that a drill comes to its end that is begun again whenever it is called off.
const DRILLED_MAX: Duration = Duration::from_mins(3);
/// How often a scene is played in which a switchover may be called off.
const SCENES_MAX: usize = 10;

#[tokio::test]
async fn the_demo_says_in_one_line_where_everything_is() {
    let demo = Demo::start(command());

    let line = &demo.line;
    assert!(line["http"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    let roles: Vec<&str> =
        demo.servers().iter().map(|server| server["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["primary", "standby", "standby"]);
    for server in demo.servers() {
        let data = PathBuf::from(server["data"].as_str().unwrap());
        let pid_file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
        assert_eq!(pid_file.lines().next(), Some(server["pid"].to_string().as_str()));
        let direct = connect(server["uri"].as_str().unwrap()).await;
        let row = direct.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap();
        assert_eq!(row.get::<_, bool>(0), server["role"] == "standby");
    }
    let client = connect(line["uri"].as_str().unwrap()).await;
    client.batch_execute("CREATE TABLE t (x int); INSERT INTO t VALUES (1)").await.unwrap();
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 1, "a session reads what it wrote");
}

#[test]
fn the_demo_is_ready_in_ten_seconds() {
    quickly("ready", Duration::from_secs(10), || {
        let start = pgsteer::clock::now();
        let demo = Demo::start(command());
        let took = pgsteer::clock::now().since(start);
        demo.signal(Signal::TERM);
        took
    });
}

#[test]
fn the_demo_ends_well_when_it_is_told_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Demo::start(command());
        let dir = demo.dir();

        demo.signal(signal);
        let status = demo.await_end();

        assert!(status.success(), "{signal:?}: {status}");
        assert!(!dir.exists(), "{signal:?}: {} stayed", dir.display());
        assert_eq!(working_in(&dir), Vec::<u32>::new(), "{signal:?}");
    }
}

#[test]
fn a_killed_demo_leaves_nothing() {
    let mut demo = Demo::start(command());
    let dir = demo.dir();
    assert!(working_in(&dir).len() > 3, "the check sees too few processes");

    demo.signal(Signal::KILL);
    demo.await_end();

    let gone = || (!dir.exists() && working_in(&dir).is_empty()).then_some(());
    assert!(eventually(END_MAX, gone).is_some(), "{} stayed", dir.display());
}

#[test]
fn the_demo_ends_with_its_proxy_and_shows_why() {
    let mut demo = Demo::start(command());
    let dir = demo.dir();

    kill(demo.line["pid"].as_u64().unwrap(), Signal::KILL);
    let status = demo.await_end();

    assert_eq!(status.code(), Some(1));
    assert!(demo.said().contains("pgsteer ended; its log says"), "{}", demo.said());
    assert!(!dir.exists());
}

#[test]
fn a_demo_finds_other_ports_when_the_usual_ones_are_taken() {
    // Whether this listener or somebody else's has it: the port is taken.
    let _listener = TcpListener::bind("127.0.0.1:6432");
    let mut demo = Demo::start_at(command(), &[]);

    let uri = demo.line["uri"].as_str().unwrap().to_owned();
    assert!(!uri.contains(":6432/"), "{uri}");
    demo.signal(Signal::TERM);
    demo.await_end();
    assert!(demo.said().contains("127.0.0.1:6432 is in use"), "{}", demo.said());
}

#[test]
fn the_demo_of_lag_sees_a_standby_fall_out_and_come_back() {
    // On a crowded machine it may be noticed later than the play allows, or take no reads at all.
    quickly_enough("each act of the play ends well", || {
        let done = lag(&[]);
        let text = String::from_utf8_lossy(&done.stdout);
        if !done.status.success() {
            return Err(format!("{text}{}", String::from_utf8_lossy(&done.stderr)));
        }
        for check in ["standby1 got no reads", "reads went elsewhere", "standby1 got reads again"] {
            assert!(text.contains(&format!("ok     {check}")), "{text}");
        }
        Ok(())
    });
}

/// The opposite arm: without the limits the same play finds the accident.
#[test]
fn without_a_limit_the_demo_of_lag_sees_reads_on_the_standby_that_lags() {
    let off = ["--set", "routing.max_lag.time=off", "--set", "routing.max_lag.bytes=off"];
    // A crowded machine may serve no reads at all for some seconds.
    quickly_enough("there are reads to be seen", || {
        let done = lag(&off);
        let text = String::from_utf8_lossy(&done.stdout);
        let found = text.contains("FAIL   standby1 got no reads");
        let code = done.status.code();
        if found && code == Some(1) { Ok(()) } else { Err(format!("{code:?}: {text}")) }
    });
}

#[test]
fn what_keeps_the_demo_from_starting_is_said() {
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--pg-bin", "/nowhere"], 1, "there is no initdb and postgres in /nowhere"),
        (&["--server", "db1"], 2, "the demo makes its own servers"),
        (&["--listen", "nonsense"], 2, "the demo takes ADDRESS:PORT"),
        (&["--set", "routing.max_lag.time=5"], 1, "routing.max_lag.time"),
    ];
    for (args, code, text) in cases {
        let done = command().arg("demo").args(args).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
    }
}

/// As root the servers run as another user; here everything does. Whoever runs the tests as a
/// plain user has seen this in all the others.
#[test]
fn the_demo_works_without_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Where anybody may go: a checkout in /root is closed to others.
    let scratch = Scratch::new().unwrap();
    let copy = scratch.path().join("pgsteer");
    copy_program(&copy);
    let mut command = pgsteer::sandbox::Proxy::command(&copy);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");

    let mut demo = Demo::start(command);
    let dir = demo.dir();
    demo.signal(Signal::INT);

    assert!(demo.await_end().success());
    assert!(!dir.exists());
}

/// `nobody` on Debian.
const NOBODY: u32 = 65534;

fn lag(flags: &[&str]) -> std::process::Output {
    let scratch = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    command().args(["demo"]).args(scratch).args(flags).args(["lag", "6s"]).output().unwrap()
}

/// A demo that runs.
struct Demo {
    child: Child,
    line: Value,
    out: BufReader<std::process::ChildStdout>,
}

impl Demo {
    /// On ports of its own, so that two can run side by side.
    fn start(command: Command) -> Self {
        Self::start_at(command, &["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
    }

    fn start_at(mut command: Command, flags: &[&str]) -> Self {
        command.args(["demo", "-o", "json"]).args(flags);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let mut demo = Self { child, line: Value::Null, out };
        demo.line = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("{error} in {line:?}: {}", demo.said());
        });
        demo
    }

    fn servers(&self) -> &[Value] {
        self.line["servers"].as_array().unwrap()
    }

    /// The directory of all that it has.
    fn dir(&self) -> PathBuf {
        let data = PathBuf::from(self.servers()[0]["data"].as_str().unwrap());
        data.parent().unwrap().parent().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(self.child.id().into(), signal);
    }

    /// Waits for its end; it must have printed one line and no more.
    fn await_end(&mut self) -> ExitStatus {
        let ended = eventually(END_MAX, || self.child.try_wait().unwrap());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "one line only");
        ended.expect("the demo did not end")
    }

    /// What it said besides; it must have ended.
    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().unwrap_or(());
        drop(self.child.wait());
    }
}

fn kill(pid: u64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    match rustix::process::kill_process(pid, signal) {
        // It has ended since it was found.
        Ok(()) | Err(rustix::io::Errno::SRCH) => (),
        Err(error) => panic!("{error}"),
    }
}

/// The processes that work in a directory or beneath it.
fn working_in(dir: &Path) -> Vec<u32> {
    pgsteer::sandbox::working_in(dir).into_iter().map(|found| found.pid).collect()
}

/// The report of a scene, which must have passed. It is played again if pgsteer called off its
/// switchover, as it does where a step takes too long.
fn scene(args: &[&str]) -> Value {
    for _ in 0..SCENES_MAX {
        let done = command()
            .args(["demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "-o", "json"])
            .args(args)
            .output()
            .unwrap();
        let [out, err] = [done.stdout, done.stderr].map(|it| String::from_utf8(it).unwrap());
        if done.status.code() == Some(1) && err.contains("error: the switchover was not done: ") {
            eprintln!("{err}");
            continue;
        }
        assert!(done.status.success(), "{out}{err}");
        return serde_json::from_str(out.lines().last().unwrap()).unwrap();
    }
    panic!("no switchover comes to its end");
}

#[test]
fn the_demo_of_a_failover_loses_nothing_and_makes_the_set_whole() {
    quickly_enough("its clock is read when something happens", || {
        let report = scene(&["failover"]);
        assert!(report["acknowledged"].as_u64().unwrap() > 100, "{report}");
        assert_eq!((&report["lost"], &report["twice"]), (&0.into(), &0.into()), "{report}");
        let [detected, promoted, first, longest] =
            ["detected_ms", "promoted_ms", "first_write_ms", "longest_write_ms"]
                .map(|name| report[name].as_f64().unwrap());
        let adds_up = detected < promoted && promoted < first && longest >= first - detected;
        if adds_up { Ok(()) } else { Err(report.to_string()) }
    });
}

#[test]
fn the_demo_of_a_switchover_fails_no_statement() {
    // A crowded machine may take longer than statements are held otherwise.
    let report = scene(&["--set", "routing.hold_max=25s", "switchover"]);

    assert!(report["acknowledged"].as_u64().unwrap() > 100, "{report}");
    assert_eq!(report["clients"]["failed"], 0, "{report}");
    assert_eq!(report["in_doubt"], 0, "{report}");
}

/// The opposite arm: told to leave it to an operator, pgsteer replaces nobody, and the scene says
/// so.
#[test]
fn without_leave_to_act_the_demo_of_a_failover_says_why_not() {
    let done = command()
        .args(["demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .args(["--set", "failover.mode=manual", "failover"])
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("failover.mode is \"manual\""), "{said}");
}

/// With one standby nobody but the primary holds a write for certain: the scene says so, or tells
/// the loss that was allowed.
#[test]
fn a_demo_of_a_failover_with_one_standby_says_what_it_may_lose() {
    let done = command()
        .args(["demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--standbys", "1"])
        .arg("failover")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), said.contains("--standbys 2")), (Some(2), true), "{said}");

    let any = "failover.max_data_loss=any";
    let report = scene(&["--standbys", "1", "--set", any, "failover"]);
    assert_eq!(report["promise"], "asynchronous", "{report}");
    assert!(report["lost"] == 0 || report["loss"] != "none", "{report}");
}

/// Whoever plays with a demo may end its servers: the primary is replaced, and what ended is
/// brought back as a standby.
#[test]
fn the_demo_brings_back_what_somebody_ended() {
    let demo = Demo::start(command());
    let http = demo.line["http"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let status = || -> Value {
        let output = command().args(["--http", &http, "-o", "json", "status"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let armed = eventually(BACK_MAX, || {
        let failover = &status()["failover"];
        (failover["armed"] == true && failover["promise"] == "quorum").then_some(())
    });
    assert!(armed.is_some(), "{}", status());
    let old = status()["primary"].as_str().unwrap().to_owned();
    let primary = demo.servers().iter().find(|server| server["role"] == "primary").unwrap();

    for pid in working_in(Path::new(primary["data"].as_str().unwrap())) {
        kill(pid.into(), Signal::KILL);
    }

    let replaced = eventually(BACK_MAX, || {
        status()["primary"].as_str().filter(|primary| *primary != old).map(str::to_owned)
    });
    assert!(replaced.is_some(), "{}", status());
    let back = eventually(BACK_MAX, || {
        let status = status();
        let mut servers = status["servers"].as_array().into_iter().flatten();
        let server = servers.find(|server| server["name"] == *old)?;
        (server["role"] == "standby" && server["reads"] == true).then_some(())
    });
    assert!(back.is_some(), "{}", status());
}

/// Whoever names no server means those of the pgsteer that runs.
#[test]
fn beside_a_demo_every_command_finds_its_servers() {
    let demo = Demo::start(command());
    let http = demo.line["http"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let run = |args: &[&str]| {
        let done = command().args(["--http", &http, "-o", "json"]).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let fits = || (run(&["switchover", "--dry-run"]).0 == Some(0)).then_some(());
    assert!(eventually(BACK_MAX, fits).is_some(), "{:?}", run(&["switchover", "--dry-run"]));

    let (_, found, said) = run(&["doctor"]);
    let found: Value = serde_json::from_str(&found).unwrap_or_else(|_| panic!("{found}{said}"));
    let servers = found["servers"].as_array().unwrap();
    assert_eq!(servers.len(), demo.servers().len(), "{found:#}");
    assert!(servers.iter().all(|server| server["error"].is_null()), "{found:#}");
    assert_eq!(found["quorum"], true, "{found:#}");
    assert!(said.contains(&format!("those of the pgsteer on http://{http}")), "{said}");
    let (code, _, said) = run(&["setup", "--dry-run"]);
    assert!(code == Some(0) || code == Some(1), "{said}");
    assert!(!said.contains("error"), "{said}");

    let mut drill = (None, String::new(), String::new());
    let drilled = eventually(DRILLED_MAX, || {
        drill = run(&["drill", "--yes", "--clients", "1"]);
        (drill.0 != CALLED_OFF).then_some(())
    });
    assert!(drilled.is_some() && drill.0 == Some(0), "{drill:?}");

    // Nobody is led to servers by another user's pgsteer, not even root.
    if rustix::process::geteuid().is_root() {
        let status: Value = serde_json::from_str(&run(&["status"]).1).unwrap();
        let token = status["failover"]["token_file"].as_str().unwrap();
        std::os::unix::fs::chown(token, Some(65_534), None).unwrap();
        for args in [["doctor", "-q"], ["setup", "--dry-run"], ["drill", "--yes"]] {
            let (code, _, said) = run(&args);
            assert_eq!(code, Some(4), "{args:?}: {said}");
            assert!(said.contains("another user's") && said.contains("-c FILE"), "{said}");
        }
        assert_eq!(run(&["switchover", "--dry-run"]).0, Some(0), "root may order");
    }
}

#[test]
fn without_a_pgsteer_that_runs_it_is_said_how_to_name_the_servers() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for args in [["doctor", "-q"], ["setup", "--dry-run"], ["drill", "--yes"]] {
        let done = command().args(["--http", &nobody]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{args:?}: {said}");
        let told = format!("no pgsteer answers on http://{nobody}");
        assert!(said.contains(&told) && said.contains("--server HOST"), "{args:?}: {said}");
    }
}
