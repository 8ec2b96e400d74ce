//! How soon the loss of the primary is known: by two refusals, and by no standby that receives.

use super::*;
use pgsteer::failover::{Profile, Promise, Verdict, WeakPromise, Why};
use pgsteer::store::MemoryStore;
use rustix::process::{Pid, Signal, kill_process};

/// A primary and two standbys whose conductor tells what it sees, and changes nothing.
fn conducted(plan: &Plan, policy: Policy, profile: Profile) -> Watched {
    let cluster = cluster(plan);
    let servers = cluster.servers().iter().map(watched_server).collect();
    let store = Store::Memory(MemoryStore::default());
    let failover = failover::Policy::of(profile);
    Watched::built(cluster, servers, (SUPERUSER, policy), (Ok(store), failover))
}

/// Waits until the conductor says this; how long it took.
fn says(watched: &Watched, what: &Why) -> Duration {
    let began = pgsteer::clock::now();
    let steward = watched.control.steward();
    let said =
        eventually(PATIENCE, || (steward.progress().why.as_ref() == Some(what)).then_some(()));
    assert!(said.is_some(), "never {what:?}: {:?}", steward.progress().why);
    pgsteer::clock::now().since(began)
}

/// How the primary dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// The postmaster alone: its children notice by and by.
    Postmaster,
    /// All processes at once.
    All,
}

/// The median of `rounds` deaths, each until it is known for certain.
fn median(death: Death, rounds: usize) -> Duration {
    let watched = conducted(&plan(), unhurried(), Profile::Calm);
    let mut times = Vec::new();
    for _ in 0..rounds {
        says(&watched, &Why::AllWell);
        std::thread::sleep(Duration::from_millis(300));
        let server = watched.server(PRIMARY);
        let began = pgsteer::clock::now();
        match death {
            Death::Postmaster => {
                let pid = Pid::from_raw(i32::try_from(server.pid().unwrap()).unwrap()).unwrap();
                kill_process(pid, Signal::KILL).unwrap();
            }
            Death::All => server.kill9().unwrap(),
        }
        says(&watched, &Why::Manual(Verdict::Dead));
        times.push(pgsteer::clock::now().since(began));
        // Its children end by themselves; it can't be started before. A process that is about to
        // end is in no directory any more, and runs yet.
        let ended = || (server.processes().is_empty() && !server.is_running()).then_some(());
        assert!(eventually(PATIENCE, ended).is_some());
        server.start().unwrap();
    }
    times.sort_unstable();
    eprintln!("{death:?}: {times:?}");
    times[rounds / 2]
}

/// On a quiet machine it takes about a tenth of a second; a look every 250 ms would take longer
/// than what is allowed here.
#[test]
fn a_death_is_known_before_the_next_look_would_be_due() {
    for death in [Death::All, Death::Postmaster] {
        let limit = Duration::from_millis(500);
        quickly(&format!("{death:?}"), limit, || median(death, 3));
    }
}

/// Nothing asks over the standing connection just then.
#[test]
fn a_connection_that_is_cut_is_noticed_at_once() {
    // The next look would come when all patience is at its end.
    let policy = Policy { check_interval: 10 * PATIENCE, ..calm() };
    let watched = Watched::over(cluster(&plan()), SUPERUSER, policy);
    watched.wait("all are seen", |topology| topology.writable() == Some(PRIMARY));
    watched.wait("it is there", |topology| role(topology, FIRST).is_some());
    std::thread::sleep(Duration::from_millis(100));

    watched.server(FIRST).kill9().unwrap();
    watched.wait("it is gone", |topology| role(topology, FIRST).is_none());
}

/// A hung primary is found out by the silence on links that are known to be kept alive, and not
/// by that on others.
#[test]
fn silence_is_evidence_only_on_links_that_are_kept_alive() {
    for (plan, found_out) in [(plan(), false), (plan().keepalive("400ms"), true)] {
        let watched = conducted(&plan, Policy::default(), Profile::Aggressive);
        says(&watched, &Why::AllWell);
        await_surveys(&watched);
        let hung = Why::Manual(Verdict::Hung);
        if found_out {
            quickly("it is found out", Duration::from_secs(4), || {
                watched.server(PRIMARY).sigcont();
                says(&watched, &Why::AllWell);
                watched.server(PRIMARY).sigstop();
                says(&watched, &hung)
            });
        } else {
            watched.server(PRIMARY).sigstop();
            let why = || watched.control.steward().progress().why.clone();
            for _ in 0..200 {
                assert_ne!(why(), Some(hung.clone()));
                std::thread::sleep(Duration::from_millis(20));
            }
            let is_isolated =
                |why: &Option<Why>| matches!(why, Some(Why::Manual(Verdict::Isolated(_))));
            let said = eventually(PATIENCE, || Some(why()).filter(is_isolated));
            assert!(said.is_some(), "{:?}", why());
        }
        watched.server(PRIMARY).sigcont();
        says(&watched, &Why::AllWell);
    }
}

/// Whether a link is kept alive is known by a survey; the first ones are taken side by side.
fn await_surveys(watched: &Watched) {
    let known = Promise::Asynchronous(WeakPromise::NoNames);
    let steward = watched.control.steward();
    let surveyed = eventually(PATIENCE, || {
        let record = steward.progress().record.clone()?;
        (record.promise == known).then_some(())
    });
    assert!(surveyed.is_some(), "{:?}", steward.progress());
    std::thread::sleep(Duration::from_millis(500));
}
