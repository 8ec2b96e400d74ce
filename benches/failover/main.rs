//! How long a failover takes: from `kill -9` of the primary to the first write that is accepted.
//!
//! Each round is a set of its own (a primary, two standbys, one of which confirms every commit, and
//! pgsteer in `auto`), under writers on their own connections. What is told is a distribution, with
//! what the writers were told meanwhile. Simulated are neither the network nor the disk of a real
//! site: everything runs on this machine, and shares its cores with the load.
//!
//!   make bench-failover                      fifty rounds
//!   make bench-failover ARGS="--rounds 5"    a look

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![expect(clippy::unwrap_used, reason = "a tool that may stop")]
#![expect(clippy::indexing_slicing, reason = "of JSON, where what is missing is null")]

#[path = "../place/mod.rs"]
mod place;

use clap::Parser as _;
use pgsteer::clock;
use pgsteer::clock::Moment;
use pgsteer::sandbox::{Cluster, Plan, Postgres, Proxy, Sql, SqlError, Template, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How it is measured.
#[derive(Debug, Clone, clap::Parser)]
struct Args {
    /// Rounds; each is a set of its own
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Writers
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Where the results go, without the extension  [default: only shown]
    #[arg(long)]
    out: Option<PathBuf>,
    /// cargo bench adds this
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one round came to.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// From the kill to the first acknowledgement of a write that was sent when all was dead.
    first_write: Duration,
    /// The longest that a writer waited for an acknowledgement.
    longest: Duration,
    /// Writes that were acknowledged and are not there.
    lost: usize,
}

/// What the writers share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// When all of the primary was dead, in nanoseconds of our clock; 0: not yet.
    killed: AtomicU64,
    acknowledged: AtomicU64,
    /// The first acknowledgement of a write that was sent after the kill.
    first: Mutex<Option<Moment>>,
}

/// Longest for anything to happen.
const PATIENCE: Duration = Duration::from_mins(1);
/// Acknowledgements before the kill, and after it.
const WARM: u64 = 200;

fn main() {
    let args = Args::parse();
    let postgres = Postgres::find(None).unwrap();
    let template = Template::new(postgres.clone()).unwrap();
    let place = format!("- machine: {}\n- commit: {}\n", place::machine(), place::commit());
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        let round = round(&template, args.writers);
        eprintln!(
            "{number}: first write after {:?}, longest wait {:?}, lost {}",
            round.first_write, round.longest, round.lost
        );
        rounds.push(round);
    }
    let text = told(&args, (&place, &postgres), &rounds);
    println!("{text}");
    if let Some(out) = &args.out {
        std::fs::write(out.with_extension("md"), &text).unwrap();
        std::fs::write(out.with_extension("json"), format!("{:#}\n", json(&rounds))).unwrap();
    }
}

fn round(template: &Template, writers: usize) -> Round {
    let plan = Plan::new()
        .setting("synchronous_standby_names", "ANY 1 (standby1, standby2)")
        .setting("wal_retrieve_retry_interval", "100ms")
        .setting("wal_receiver_status_interval", "1s")
        .setting("wal_sender_timeout", "1s");
    let cluster = Cluster::start(template, &plan).unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_pgsteer"));
    let mut proxy = Proxy::new(program, cluster.workshop("pgsteer").unwrap())
        .unwrap()
        .args(["--set", "failover.mode=auto"]);
    for server in cluster.servers() {
        proxy = proxy.args(["--server", &server.address()]);
    }
    proxy.start().unwrap();
    proxy.await_ready().unwrap();
    wait(|| {
        let status: Value = serde_json::from_str(&proxy.get("/status").ok()?.body).ok()?;
        let failover = &status["failover"];
        (failover["armed"] == true && failover["promise"] == "quorum").then_some(())
    });
    let mut sql = Sql::connect_tcp(proxy.address(), "postgres").unwrap();
    sql.rows("CREATE TABLE ledger (writer int, number int)").unwrap();
    let shared = Arc::new(Shared::default());
    let books: Vec<_> =
        (0..writers).map(|writer| write(writer, proxy.address(), &shared)).collect();
    let more = |wanted: u64| {
        let goal = shared.acknowledged.load(Ordering::SeqCst) + wanted;
        wait(|| (shared.acknowledged.load(Ordering::SeqCst) >= goal).then_some(()));
    };
    more(WARM);
    let killed = clock::now();
    cluster.primary().kill9().unwrap();
    // What is sent from here on nobody can acknowledge but the next primary.
    shared.killed.store(clock::now().nanos(), Ordering::SeqCst);
    more(WARM);
    shared.stop.store(true, Ordering::SeqCst);
    let books: Vec<(Vec<String>, Duration)> =
        books.into_iter().map(|book| book.join().unwrap()).collect();
    let first = shared.first.lock().unwrap().unwrap();
    let rows = sql.rows("SELECT writer || ' ' || number FROM ledger").unwrap();
    let there: std::collections::BTreeSet<_> =
        rows.into_iter().filter_map(|mut row| row.pop().flatten()).collect();
    Round {
        first_write: first.since(killed),
        longest: books.iter().map(|(_, longest)| *longest).max().unwrap_or_default(),
        lost: books.iter().flat_map(|(told, _)| told).filter(|told| !there.contains(*told)).count(),
    }
}

/// A writer: what it was told is there, and the longest that it waited for that.
fn write(
    writer: usize,
    address: SocketAddr,
    shared: &Arc<Shared>,
) -> JoinHandle<(Vec<String>, Duration)> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut sql = Sql::connect_tcp(address, "postgres").unwrap();
        let (mut told, mut longest) = (Vec::new(), Duration::ZERO);
        for number in 0.. {
            if shared.stop.load(Ordering::SeqCst) {
                break;
            }
            let sent = clock::now();
            let killed = Moment::from_nanos(shared.killed.load(Ordering::SeqCst));
            match sql.rows(&format!("INSERT INTO ledger VALUES ({writer}, {number})")) {
                Ok(_) => {
                    let now = clock::now();
                    longest = longest.max(now.since(sent));
                    told.push(format!("{writer} {number}"));
                    if killed != Moment::ORIGIN && sent > killed {
                        shared.first.lock().unwrap().get_or_insert(now);
                    }
                    shared.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                // In doubt, or rolled back: not acknowledged, and the next one is another.
                Err(SqlError::Refused { .. }) => {}
                Err(error) => {
                    eprintln!("a writer lost its connection: {error}");
                    break;
                }
            }
        }
        (told, longest)
    })
}

fn wait<T>(look: impl FnMut() -> Option<T>) -> T {
    eventually(PATIENCE, look).unwrap()
}

/// Milliseconds, sorted.
fn millis(rounds: &[Round], of: impl Fn(&Round) -> Duration) -> Vec<f64> {
    let mut all: Vec<f64> = rounds.iter().map(|round| of(round).as_secs_f64() * 1000.0).collect();
    all.sort_by(f64::total_cmp);
    all
}

fn quantile(sorted: &[f64], hundredths: usize) -> f64 {
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn told(args: &Args, (place, postgres): (&str, &Postgres), rounds: &[Round]) -> String {
    let row = |name: &str, all: &[f64]| {
        format!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
            quantile(all, 0),
            quantile(all, 50),
            quantile(all, 90),
            quantile(all, 99),
            quantile(all, 100),
        )
    };
    let lost: usize = rounds.iter().map(|round| round.lost).sum();
    let mut text = format!(
        "# How long a failover takes\n\n{place}- PostgreSQL {}, {} writers, {} rounds, \
         file store\n- command: make bench-failover ARGS=\"--rounds {} --writers {}\"\n\
         - acknowledged writes that were lost: {lost}\n\n\
         | milliseconds | min | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|\n",
        postgres.version(),
        args.writers,
        rounds.len(),
        args.rounds,
        args.writers,
    );
    text.push_str(&row(
        "kill -9 to the first accepted write",
        &millis(rounds, |round| round.first_write),
    ));
    text.push_str(&row("longest wait of a writer", &millis(rounds, |round| round.longest)));
    text
}

fn json(rounds: &[Round]) -> Value {
    let one = |round: &Round| {
        json!({
            "first_write_ms": round.first_write.as_secs_f64() * 1000.0,
            "longest_ms": round.longest.as_secs_f64() * 1000.0,
            "lost": round.lost,
        })
    };
    rounds.iter().map(one).collect()
}
