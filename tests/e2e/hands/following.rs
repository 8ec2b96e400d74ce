//! Following another server: host and port change, the slot is there, the archive comes later.

use super::*;
use crate::support::Door;
use pgsteer::pg::Conninfo;
use pgsteer::timer;
use rustix::fs::OFlags;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_standby_follows_another_with_everything_else_as_it_was() {
    let plan = Plan::new().auth(Auth::Password).setting("wal_retrieve_retry_interval", "5s");
    let grip = Grip::on(&plan);
    let before = Conninfo::parse(&conninfo(grip.server(SECOND))).unwrap();
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    grip.server(PRIMARY).kill9().unwrap();

    let (promoted, _) = grip.time(|| grip.hands.promote(FIRST));
    follows_soon(&grip, SECOND, FIRST);

    let after = Conninfo::parse(&conninfo(grip.server(SECOND))).unwrap();
    let expected = before.to_server("127.0.0.1", grip.server(FIRST).port());
    assert!(after == expected, "{after:?} {expected:?}");
    grip.server(FIRST).rows("CREATE TABLE t ()").unwrap();
    let seen = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    grip.server(SECOND).await_value(seen, "1", "following").unwrap();
    assert_eq!(promoted.timeline.0, 2);

    // It is what a freeze of now would give back.
    grip.done(|| grip.hands.freeze(SECOND));
    grip.done(|| grip.hands.unfreeze(SECOND));
    assert!(Conninfo::parse(&conninfo(grip.server(SECOND))).unwrap() == expected);
}

/// What was noted of it before is older than that: a password that was changed a moment ago would
/// be lost with it.
#[test]
fn what_an_operator_changed_a_moment_ago_is_kept() {
    let grip = Grip::on(&Plan::new());
    grip.server(PRIMARY).rows("CREATE ROLE third REPLICATION LOGIN").unwrap();
    grip.cluster.await_replay().unwrap();
    let before = Conninfo::parse(&conninfo(grip.server(SECOND))).unwrap();
    let changed = before.with("user", "third");
    grip.server(SECOND).set("primary_conninfo", &changed.text()).unwrap();
    reloaded(grip.server(SECOND), "primary_conninfo", &changed.text());

    follows_soon(&grip, SECOND, FIRST);

    let after = Conninfo::parse(&conninfo(grip.server(SECOND))).unwrap();
    let expected = changed.to_server("127.0.0.1", grip.server(FIRST).port());
    assert!(after == expected, "{after:?} {expected:?}");
}

/// Whoever is to confirm a commit may be the one that does not follow yet.
#[test]
fn a_commit_that_waits_for_a_standby_does_not_keep_it_from_following() {
    let grip = Grip::on(&Plan::new());
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    grip.server(PRIMARY).kill9().unwrap();
    grip.done(|| grip.hands.promote(FIRST));
    grip.server(FIRST).set("synchronous_standby_names", "ANY 1 (standby2)").unwrap();
    let names = "SHOW synchronous_standby_names";
    grip.server(FIRST).await_value(names, "ANY 1 (standby2)", "waiting for it").unwrap();

    let mut proved = false;
    // On a crowded machine the second of a proof may be over before.
    for _ in 0..10 {
        grip.done(|| grip.hands.freeze(SECOND));
        let elsewhere = to_the_end();
        let repoint = grip.hands.repoint(SECOND, FIRST, &elsewhere);
        let together = async { tokio::join!(grip.hands.prove(FIRST), repoint) };
        proved |= grip.wait(together).0.is_ok();
        if proved {
            break;
        }
    }

    assert!(proved, "it never followed while a commit waited for it");
}

#[test]
fn the_slot_that_a_standby_receives_through_is_made_first() {
    let plan = Plan::new().setting("wal_retrieve_retry_interval", "5s");
    let grip = Grip::on(&plan);
    grip.server(PRIMARY).rows("SELECT pg_create_physical_replication_slot('two')").unwrap();
    grip.server(SECOND).set("primary_slot_name", "two").unwrap();
    let active = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'two' AND active";
    grip.server(PRIMARY).await_value(active, "1", "used").unwrap();
    grip.survey(SECOND);

    // Cascading, as a standby that is behind catches up.
    follows_soon(&grip, SECOND, FIRST);

    grip.server(FIRST).await_value(active, "1", "used").unwrap();
    grip.lead(SECOND, FIRST);
}

/// The slot that it was given a moment ago is the one through which it will ask to be let in.
#[test]
fn the_slot_of_a_moment_ago_is_made_as_well() {
    let plan = Plan::new().setting("wal_retrieve_retry_interval", "5s");
    let grip = Grip::on(&plan);
    grip.survey(SECOND);
    grip.server(SECOND).set("primary_slot_name", "new").unwrap();
    reloaded(grip.server(SECOND), "primary_slot_name", "new");
    // It is not waited for: there is no such slot where it receives from now.
    drop(in_time(&grip, SECOND, FIRST));

    let made = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'new'";
    assert_eq!(grip.server(FIRST).value(made).unwrap(), "1");
    let used = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'new' AND active";
    grip.server(FIRST).await_value(used, "1", "used").unwrap();
}

/// Between two branches an archive may hold more of the old one than the new one has.
#[test]
fn the_archive_comes_back_when_the_new_branch_is_followed() {
    let plan = Plan::new().setting("restore_command", "false");
    let grip = Grip::on(&plan);
    if !grip.server(FIRST).version().reloads_restore_command() {
        return a_standby_keeps_its_archive_and_is_not_frozen(&grip);
    }
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    let archive = |id| grip.server(id).value("SHOW restore_command").unwrap();
    // From the other standby, which is none that may be promoted any more: still no archive.
    grip.lead(SECOND, FIRST);
    grip.survey(SECOND);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(archive(SECOND), "");

    grip.server(PRIMARY).kill9().unwrap();
    grip.done(|| grip.hands.promote(FIRST));
    grip.lead(SECOND, FIRST);

    await_that("both have their archive again", || {
        grip.hands.survey_soon(FIRST);
        grip.hands.survey_soon(SECOND);
        archive(FIRST) == "false" && archive(SECOND) == "false"
    });
}

/// What holds instead before PostgreSQL 14: nothing is begun, it is said beforehand, and what helps
/// does.
fn a_standby_keeps_its_archive_and_is_not_frozen(grip: &Grip) {
    let server = grip.server(FIRST);
    let (before, policy) = (conninfo(server), Policy::default());
    let told = || grip.hands.lacking(&policy).iter().any(|gap| gap.contains("a restore_command"));
    assert!(told(), "{:?}", grip.hands.lacking(&policy));

    let frozen = grip.wait(grip.hands.freeze(FIRST));

    assert!(
        matches!(&frozen, Err(HandError::Unfit(why)) if why.contains("restore_command")),
        "{frozen:?}"
    );
    assert_eq!((streams(server), conninfo(server)), (true, before));
    let set = "SELECT count(*) FROM pg_file_settings WHERE name = 'restore_command' \
               AND sourcefile LIKE '%postgresql.auto.conf'";
    assert_eq!(server.value(set).unwrap(), "0");
    for server in grip.cluster.servers() {
        server.set("restore_command", "").unwrap();
        server.restart().unwrap();
    }
    await_that("nothing keeps it from being frozen", || {
        for id in [PRIMARY, FIRST, SECOND] {
            grip.hands.survey_soon(id);
        }
        !told() && grip.wait(grip.hands.freeze(FIRST)).is_ok()
    });
}

/// A peer that takes the connection and never answers.
#[test]
fn a_peer_that_hangs_is_left_for_another() {
    let grip = Grip::on(&Plan::new());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let server = grip.server(SECOND);
    let hung = Conninfo::parse(&conninfo(server)).unwrap().to_server("127.0.0.1", port);

    quickly_enough("it is left", || {
        server.set("primary_conninfo", &hung.text()).unwrap();
        await_that("it hangs", || !streams(server));
        grip.survey(SECOND);
        followed(&grip, SECOND, FIRST)
    });

    assert!(streams(server));
}

/// A primary, and a standby that holds more of the old branch, so that it never streams from there.
fn parted() -> Grip {
    let grip = Grip::on(&Plan::new());
    grip.done(|| grip.hands.freeze(FIRST));
    grip.server(PRIMARY).rows("CREATE TABLE t AS SELECT generate_series(1, 1000)").unwrap();
    let seen = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    grip.server(SECOND).await_value(seen, "1", "ahead").unwrap();
    grip.done(|| grip.hands.freeze(SECOND));
    grip.server(PRIMARY).kill9().unwrap();
    grip.done(|| grip.hands.promote(FIRST));
    grip
}

#[test]
fn one_that_holds_more_than_the_new_primary_does_not_follow_and_says_so() {
    let grip = parted();

    let followed = in_time(&grip, SECOND, FIRST);

    assert!(matches!(followed, Err(HandError::NoStream(_))), "{followed:?}");
}

/// In a switchover a standby is sent to the chosen one before that is promoted.
#[test]
fn a_standby_whose_new_upstream_is_promoted_meanwhile_follows_it() {
    // Only on a crowded machine is the time of an act over before.
    quickly_enough("it follows", follows_one_that_is_promoted_meanwhile);
}

fn follows_one_that_is_promoted_meanwhile() -> Result<(), String> {
    let grip = Grip::on(&Plan::new());
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    grip.server(PRIMARY).kill9().unwrap();
    let (first, second) = (grip.server(FIRST), grip.server(SECOND));
    let door = Door::shut(first, "host replication all all");
    let elsewhere = to_the_end();
    let promoted = async {
        leads_to(second, first).await;
        let promoted = grip.hands.promote(FIRST).await;
        door.open();
        promoted
    };

    let repoint = grip.hands.repoint(SECOND, FIRST, &elsewhere);
    let (followed, promoted) = grip.wait(async { tokio::join!(repoint, promoted) });

    let timeline = promoted.map_err(|error| format!("promoted: {error}"))?.timeline;
    followed.map_err(|error| error.to_string())?;
    let received = second.value("SELECT received_tli FROM pg_stat_wal_receiver").unwrap();
    assert_eq!(received, timeline.to_string());
    Ok(())
}

/// Whatever it is about when something else is to be done.
#[test]
fn a_standby_that_waits_for_a_stream_is_frozen_at_once_and_stays_so() {
    let grip = parted();
    let (first, second) = (grip.server(FIRST), grip.server(SECOND));
    for millis in [0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 300] {
        quickly_enough(&format!("frozen after {millis} ms"), || {
            let elsewhere = to_the_end();
            let told = async {
                timer::sleep(Duration::from_millis(millis)).await;
                if millis == 300 {
                    leads_to(second, first).await;
                }
                elsewhere.cancel();
                clock::now()
            };
            let repoint = grip.hands.repoint(SECOND, FIRST, &elsewhere);
            let (ended, told) = grip.wait(async { tokio::join!(repoint, told) });
            if is_over(&ended) {
                grip.done(|| grip.hands.freeze(SECOND));
                return Err(format!("it was over before it was told: {ended:?}"));
            }
            assert!(matches!(ended, Err(HandError::GaveWay)), "{millis} ms: {ended:?}");
            let begun = is_led_to(second, first);
            let frozen = grip.wait(grip.hands.freeze(SECOND));
            let took = clock::now().since(told);
            if frozen.is_err() || took >= Duration::from_secs(1) || (millis == 300 && !begun) {
                return Err(format!("{frozen:?} after {took:?}, begun: {begun}"));
            }
            for _ in 0..2 {
                let now = (conninfo(second), streams(second));
                assert_eq!(now, (String::new(), false), "{millis} ms");
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        });
    }
}

/// The change of the setting is on its way, and does not come to its end: so nothing else is begun
/// that it could undo.
#[test]
fn what_a_repoint_has_begun_ends_before_it_gives_way() {
    quickly_enough("it is told in time", begun_ends_before_it_gives_way);
}

fn begun_ends_before_it_gives_way() -> Result<(), String> {
    let grip = parted();
    let server = grip.server(SECOND);
    let held = Held::settings_of(server);
    let elsewhere = to_the_end();
    let pause = Duration::from_millis(300);
    let repoint = async {
        let ended = grip.hands.repoint(SECOND, FIRST, &elsewhere).await;
        (ended, clock::now())
    };
    // Sooner than the proxy would: while the other is not at its end.
    let freeze = async {
        elsewhere.cancelled().await;
        grip.hands.freeze(SECOND).await
    };
    let release = async {
        let held = held.once_read().await;
        elsewhere.cancel();
        timer::sleep(pause).await;
        let now = clock::now();
        held.release();
        now
    };

    let ((ended, at), frozen, released) =
        grip.wait(async { tokio::join!(repoint, freeze, release) });

    if is_over(&ended) {
        return Err(format!("it was over before it was told: {ended:?}"));
    }
    assert!(matches!(ended, Err(HandError::GaveWay)), "{ended:?}");
    assert!(at > released, "it gave way with its change under way");
    if is_over(&frozen) {
        grip.done(|| grip.hands.freeze(SECOND));
    } else {
        frozen.unwrap();
    }
    for _ in 0..5 {
        assert_eq!((conninfo(server), streams(server)), (String::new(), false));
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The settings of a server, in a pipe: whoever reads or changes them waits.
struct Held {
    path: PathBuf,
    text: String,
}

/// Somebody waits there.
struct Reader {
    pipe: File,
    text: String,
}

impl Held {
    fn settings_of(server: &Server) -> Self {
        let path = server.data().join("postgresql.auto.conf");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").args(["-m", "666"]).arg(&path).status().unwrap();
        assert!(made.success());
        Self { path, text }
    }

    async fn once_read(self) -> Reader {
        let unblocked = OFlags::NONBLOCK.bits().cast_signed();
        for _ in 0..60_000 {
            let opened = OpenOptions::new().write(true).custom_flags(unblocked).open(&self.path);
            if let Ok(pipe) = opened {
                return Reader { pipe, text: self.text };
            }
            timer::sleep(Duration::from_millis(1)).await;
        }
        panic!("nobody reads the settings");
    }
}

impl Reader {
    fn release(mut self) {
        self.pipe.write_all(self.text.as_bytes()).unwrap();
    }
}

/// Waits until every session of a server has been told of a change: a new one has it, and the
/// others were signalled before that began.
fn reloaded(server: &Server, name: &str, value: &str) {
    server.await_value(&format!("SHOW {name}"), value, "reloaded").unwrap();
}

/// Sends a standby to another server, and has it follow long before it would try again by itself.
fn follows_soon(grip: &Grip, standby: ServerId, to: ServerId) {
    quickly_enough("it follows", || {
        followed(grip, standby, to).inspect_err(|_| {
            // As it was before.
            grip.done(|| grip.hands.freeze(standby));
        })
    });
}

fn followed(grip: &Grip, standby: ServerId, to: ServerId) -> Result<(), String> {
    let began = clock::now();
    let followed = grip.wait(grip.hands.repoint(standby, to, &to_the_end()));
    let took = clock::now().since(began);
    let soon = took < Duration::from_secs(2);
    if followed.is_ok() && soon { Ok(()) } else { Err(format!("{followed:?} after {took:?}")) }
}

/// Sends a standby to another server, until that comes to another end than that of its time before
/// it is seen whether it streams.
fn in_time(grip: &Grip, standby: ServerId, to: ServerId) -> Result<(), HandError> {
    let ended = eventually(Duration::from_mins(1), || {
        match grip.wait(grip.hands.repoint(standby, to, &to_the_end())) {
            Err(HandError::Late(_) | HandError::Lost(_) | HandError::NoEffect(_)) => None,
            ended => Some(ended),
        }
    });
    ended.expect("its time is over each time")
}

/// Whether the time of an act was over by itself, as happens on a crowded machine.
fn is_over<T>(ended: &Result<T, HandError>) -> bool {
    use HandError::{Late, Lost, NoEffect, NoStream};
    matches!(ended, Err(Late(_) | Lost(_) | NoEffect(_) | NoStream(_)))
}

fn is_led_to(standby: &Server, upstream: &Server) -> bool {
    let told = Conninfo::parse(&conninfo(standby)).unwrap();
    told.leads_to("127.0.0.1", upstream.port())
}

/// Waits until it is, or an act that was to do it is long over.
async fn leads_to(standby: &Server, upstream: &Server) {
    for _ in 0..5000 {
        if is_led_to(standby, upstream) {
            return;
        }
        timer::sleep(Duration::from_millis(1)).await;
    }
}
