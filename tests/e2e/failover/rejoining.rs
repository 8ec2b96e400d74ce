//! A former primary comes back: nobody is sent there before it follows, and it follows.

use super::{asynchronous, await_armed, await_told_to_end, losses, new_primary};
use super::{ordered, primaries, quorum, says, turned_down};
use crate::support::Blueprint;
use crate::support::House;
use crate::support::await_that;
use crate::support::replaced_by_and_by;
use pgsteer::sandbox::{Server, Shutdown, StatementLog};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Servers that log every statement: their logs are the witnesses.
fn logging(blueprint: Blueprint) -> House {
    blueprint.servers(|plan| plan.log(StatementLog::All)).build()
}

/// Clients that read and write all the while, each statement with a marker; none may fail.
struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn open(house: &House, marker: &str) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        house.wire().run("CREATE TABLE IF NOT EXISTS visited (i int)");
        let clients = (0..4).map(|_| {
            let (stop, done, mut wire) = (Arc::clone(&stop), Arc::clone(&done), house.wire());
            let marker = marker.to_owned();
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    wire.run(&format!("INSERT INTO visited VALUES (1) /* {marker} */"));
                    wire.run(&format!("SELECT count(*) FROM visited /* {marker} */"));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let clients = clients.collect();
        Self { stop, done, clients }
    }

    fn await_more(&self, more: usize) {
        let goal = self.done.load(Ordering::SeqCst) + more;
        await_that("clients are served", || self.done.load(Ordering::SeqCst) >= goal);
    }

    fn close(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
    }
}

/// Everything that the server logged, whoever started it.
fn log(server: &Server) -> String {
    let by_hand = std::fs::read(server.data().join("start.log")).unwrap_or_default();
    server.log() + &String::from_utf8_lossy(&by_hand)
}

/// It streams, and reads are served there again.
fn serves_again(house: &House, name: &str) {
    await_that("it follows", || house.status_of(name)["state"] == "streaming");
    await_that("it is fit for reads", || house.status_of(name)["reads"] == true);
    let traffic = Traffic::open(house, "again");
    await_that("it gets reads again", || log(house.server(name)).contains("/* again */"));
    traffic.close();
    await_that("it has what was written", || {
        let count = |server: &Server| server.value("SELECT count(*) FROM visited").unwrap();
        count(house.server(name)) == count(new_primary(house))
    });
}

/// By the server's own log, nothing of the clients was run there before it followed, and nothing
/// that writes at all.
fn followed_first(server: &Server) {
    let log = log(server);
    let follows = log.find("started streaming WAL from primary").expect("it never followed");
    let before = &log[..follows];
    assert!(!before.contains("visited"), "somebody was sent there before it followed:\n{before}");
    assert!(!log.contains("INSERT INTO visited"), "a write was sent there:\n{log}");
}

/// A shell script, run as the user who runs the server.
fn run_as_owner(server: &Server, script: &str) {
    let owner = std::fs::metadata(server.data()).unwrap().uid();
    let mut shell = if rustix::process::geteuid().as_raw() == owner {
        Command::new("sh")
    } else {
        let mut shell = Command::new("setpriv");
        let owner = owner.to_string();
        shell.args(["--reuid", &owner, "--regid", &owner, "--clear-groups", "sh"]);
        shell
    };
    let said = shell
        .args(["-e", "-x", "-c", script])
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [said.stdout, said.stderr].concat();
    eprintln!("{}", String::from_utf8_lossy(&text));
    assert!(said.status.success(), "{script}");
}

/// Whether the programs that are named by their path are there.
fn has_programs(commands: &[String]) -> bool {
    let mut named = commands.iter().filter(|command| command.starts_with('/'));
    named.all(|command| std::path::Path::new(command.split(' ').next().unwrap()).is_file())
}

/// The primary is stopped by its operator, and replaced.
fn stopped_and_replaced(house: &House) {
    await_armed(house, "quorum");
    house.await_catalog();
    house.server("primary").stop(Shutdown::Fast).unwrap();
    await_that("it is replaced", || {
        let status = house.status();
        status["primary"].is_string()
            && status["primary"] != house.server("primary").address()
            && status["failover"]["phase"] == "stable"
    });
}

#[test]
fn a_stopped_primary_that_is_started_as_a_standby_follows_by_itself() {
    let house = logging(quorum());
    stopped_and_replaced(&house);
    let traffic = Traffic::open(&house, "early");
    let old = house.server("primary");
    run_as_owner(old, &format!("touch {}/standby.signal", old.data().display()));

    old.start().unwrap();
    await_that("it follows", || house.status_of("primary")["state"] == "streaming");
    traffic.await_more(50);
    traffic.close();

    followed_first(old);
    serves_again(&house, "primary");
}

/// Whatever becomes of the old primary of a switchover.
#[test]
fn a_stopped_primary_that_is_started_as_a_primary_is_made_to_follow() {
    let house = logging(quorum().set("failover.demote", "fence"));
    stopped_and_replaced(&house);
    let traffic = Traffic::open(&house, "early");
    let old = house.server("primary");

    old.start().unwrap();
    await_that("it follows", || house.status_of("primary")["state"] == "streaming");
    traffic.await_more(50);
    traffic.close();

    assert_eq!(primaries(&house).len(), 1);
    followed_first(old);
    serves_again(&house, "primary");
}

/// It would not come back from a crash, so it can't be made to restart.
#[test]
fn a_stopped_primary_that_cannot_be_made_to_follow_is_fenced_and_its_operator_told_how() {
    let house = logging(quorum().servers(|plan| plan.setting("restart_after_crash", "off")));
    stopped_and_replaced(&house);
    let traffic = Traffic::open(&house, "early");
    let old = house.server("primary");

    old.start().unwrap();
    await_that("it is fenced", || {
        old.value("SHOW synchronous_standby_names").is_ok_and(|names| names == "pgsteer_fence")
    });
    await_that("the way back is known", || {
        house.status_of("primary")["rejoin"].as_array().is_some_and(|all| all.len() > 3)
    });
    traffic.await_more(50);
    traffic.close();

    await_that("it is cordoned", || house.status_of("primary")["state"] == "cordoned");
    assert_eq!(says(old, "SELECT pg_is_in_recovery()"), "f");
    assert!(!log(old).contains("visited"), "somebody was sent there:\n{}", log(old));
    assert!(!old.data().join("standby.signal").exists(), "the next start would surprise somebody");
}

/// With `wal_log_hints` it can be rewound.
#[test]
fn a_diverged_primary_is_fenced_and_rewound_by_the_commands_that_status_prints() {
    diverges_and_rejoins("on");
}

#[test]
fn a_diverged_primary_that_cannot_be_rewound_is_copied_by_the_commands_that_status_prints() {
    diverges_and_rejoins("off");
}

/// The commands that `status` prints for a server, in either form.
fn way_back(house: &House, server: &Server) -> Vec<String> {
    await_that("the way back is known", || {
        house.status_of(server.name())["rejoin"].as_array().is_some_and(|all| all.len() > 3)
    });
    let mut commands = Vec::new();
    // What is known of the server may be renewed between the two.
    await_that("both forms say the same", || {
        let (_, json) = ordered(house, &["status", "-o", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let mut servers = json["servers"].as_array().unwrap().iter();
        let told = servers.find(|told| told["name"] == server.address()).unwrap();
        let told = told["rejoin"].as_array().unwrap().iter();
        commands = told.map(|line| line.as_str().unwrap().to_owned()).collect();
        let (_, text) = ordered(house, &["status"]);
        let printed: Vec<_> = text.lines().map(str::trim).collect();
        // How it was started may be known later, where the machine is crowded.
        let whole = commands.iter().any(|command| command.starts_with('/'));
        whole && commands.iter().all(|command| printed.contains(&command.as_str()))
    });
    commands
}

fn diverges_and_rejoins(hints: &str) {
    let house = logging(asynchronous().servers(|plan| plan.setting("wal_log_hints", hints)));
    await_armed(&house, "asynchronous");
    let _told = losses::dies_ahead_of_all(&house);
    await_told_to_end(house.cluster.standbys());
    house.cluster.standbys().iter().for_each(Server::sigcont);
    replaced_by_and_by(&house, &["failover", "--accept-loss", "any", "--yes"]);
    let traffic = Traffic::open(&house, "early");
    let old = house.server("primary");
    let count = "SELECT count(*) FROM ledger";

    old.start().unwrap();
    await_that("it is cordoned", || house.status_of("primary")["state"] == "cordoned");
    await_that("it is fenced", || {
        old.value("SHOW synchronous_standby_names").is_ok_and(|names| names == "pgsteer_fence")
    });
    let ahead: u64 = says(old, count).parse().unwrap();
    await_that("it takes no writes", || {
        old.value("SHOW default_transaction_read_only").is_ok_and(|set| set == "on")
    });
    let here: u64 = new_primary(&house).value(count).unwrap().parse().unwrap();
    assert!(ahead > here, "it has not diverged: {ahead}, {here}");
    traffic.await_more(200);
    await_that("it is still cordoned", || house.status_of("primary")["state"] == "cordoned");

    let commands = way_back(&house, old);
    // Data checksums do as well; from PostgreSQL 18 on they are there unless one says otherwise.
    let rewound = hints == "on" || says(old, "SHOW data_checksums") == "on";
    let program = if rewound { "pg_rewind" } else { "pg_basebackup" };
    assert!(commands.join("\n").contains(program), "{commands:?}");
    if has_programs(&commands) {
        run_as_owner(old, &commands.join("\n"));
    } else {
        // As from npm, where nothing but the server is: all but these commands is tried there.
        eprintln!("not run, for want of the programs: {commands:#?}");
        house.cluster.rejoin(old, new_primary(&house)).unwrap();
    }
    await_that("it follows", || house.status_of("primary")["state"] == "streaming");
    traffic.await_more(50);
    traffic.close();

    followed_first(old);
    serves_again(&house, "primary");
    assert_eq!(old.value(count).unwrap(), new_primary(&house).value(count).unwrap());
}

/// Another tool promotes the first standby beside the primary, which goes on and dies; so does that
/// one, and the second standby is promoted. Then the first one is back: the timeline of each has
/// the number 2, and they are not the same.
fn two_of_a_number() -> House {
    let house = logging(asynchronous().servers(|plan| plan.setting("wal_log_hints", "on")));
    await_armed(&house, "asynchronous");
    let (rogue, next) = (house.server("standby1"), house.server("standby2"));
    assert_eq!(rogue.value("SELECT pg_promote()").unwrap(), "t");
    await_that("it is cordoned", || house.status_of("standby1")["state"] == "cordoned");
    // Whether the fence is there by now or not.
    let astray = "BEGIN READ WRITE; SET LOCAL synchronous_commit = off; \
                  CREATE TABLE IF NOT EXISTS astray (); COMMIT";
    await_that("it holds what nobody else has", || rogue.rows(astray).is_ok());
    house.wire().run("CREATE TABLE acknowledged AS SELECT generate_series(1, 100000)");
    let held = "SELECT count(*) FROM pg_class WHERE relname = 'acknowledged'";
    await_that("the other one has it", || next.value(held).is_ok_and(|count| count == "1"));
    house.server("primary").kill9().unwrap();
    rogue.kill9().unwrap();
    // By the evidence, or by an order where more may be lost than nothing.
    await_that("the other one is the primary", || {
        ordered(&house, &["failover", "--accept-loss", "any", "--yes"]);
        house.status()["primary"] == *next.address()
    });

    rogue.start().unwrap();
    await_that("it is cordoned", || house.status_of("standby1")["state"] == "cordoned");
    // On a crowded machine the last look at one of them may have come to nothing.
    for name in ["standby1", "standby2"] {
        await_that("it is on timeline 2", || house.status_of(name)["timeline"] == 2);
    }
    house
}

const ASTRAY: &str = "SELECT count(*) FROM pg_class WHERE relname = 'astray'";

/// `pg_rewind` would find that there is nothing to do.
#[test]
fn one_on_a_timeline_of_the_same_number_is_copied_by_the_commands_that_status_prints() {
    let house = two_of_a_number();
    let rogue = house.server("standby1");
    let commands = way_back(&house, rogue);
    if !has_programs(&commands) {
        assert!(commands.join("\n").contains("pg_basebackup -D"), "{commands:?}");
        return;
    }
    run_as_owner(rogue, &commands.join("\n"));

    await_that("it follows", || house.status_of("standby1")["state"] == "streaming");
    serves_again(&house, "standby1");
    assert_eq!(rogue.value(ASTRAY).unwrap(), "0", "it holds what was never acknowledged");
}

/// Its operator takes it for one that can follow as it is.
#[test]
fn one_on_a_timeline_of_the_same_number_that_is_started_as_a_standby_is_cut_off() {
    let house = two_of_a_number();
    let (rogue, primary) = (house.server("standby1"), house.server("standby2"));
    let link = says(rogue, "SHOW primary_conninfo") + " keepalives_idle=7";
    let old = format!("port={}", house.server("primary").port());
    assert!(link.contains(&old), "{link}");
    let link = link.replace(&old, &format!("port={}", primary.port())).replace('\'', "''");
    let setting = format!("primary_conninfo = '{link}'\n");
    rogue.stop(Shutdown::Fast).unwrap();
    let settings = rogue.data().join("postgresql.auto.conf");
    let before = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, before + &setting).unwrap();
    run_as_owner(rogue, &format!("touch {}/standby.signal", rogue.data().display()));
    rogue.start().unwrap();

    await_that("it is known", || house.status_of("standby1")["state"] == "diverged");
    assert_eq!(house.status_of("standby1")["reads"], false);
    let receivers = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'standby1'";
    await_that("it receives nothing, and confirms nothing", || {
        rogue.value("SHOW primary_conninfo").is_ok_and(|link| link.is_empty())
            && primary.value(receivers).unwrap() == "0"
    });
    let address = rogue.address();
    let (code, said) = turned_down(&house, &["switchover", "--to", &address, "--yes"]);
    assert_eq!(code, Some(4), "{said}");
    let mut commands = String::new();
    await_that("its link is not lost", || {
        commands = way_back(&house, rogue).join("\n");
        commands.contains("keepalives_idle")
    });
    assert!(commands.contains("pg_basebackup -D"), "{commands}");
    assert!(!commands.contains("pg_rewind -D"), "{commands}");
}
