//! A client that does not read, reads slowly, or asks on and never reads, costs pgsteer its slot
//! and a bounded piece of memory, whatever it asks and whoever answers.

use crate::auth::postgres::certificates;
use crate::memory::private_bytes;
use crate::raw::{Raw, query};
use crate::rust_drivers::config;
use crate::support::{Blueprint, House, await_that};
use pgsteer::sandbox::Scratch;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// What one may cost, in bytes: what is queued for it, what it has asked, and what has arrived of a
/// row of its.
const STALLED_MAX: u64 = 256 * 1024;
/// What the first ones of a fresh process cost beside that, once for all, in bytes: each shard's
/// stores and buffers, code that was never run before, and the allocator's holes.
const ONCE_MAX: u64 = 3 << 20;
/// How many of them are measured: enough for what each costs to be far more than what all do.
const CROWD: usize = 48;
/// What they ask in all, in bytes: far more than may be kept.
const ASKED: usize = 8 << 20;
/// How often one that reads slowly reads, and how much at a time, in bytes.
const SIPS: usize = 100;
const SIP: usize = 16 * 1024;

/// A client that is a burden.
struct Burden {
    what: &'static str,
    begins: &'static str,
    asks: Vec<u8>,
    reads: Reads,
    tls: Option<TlsConnector>,
}

/// Whether it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Nothing,
    Slowly,
}

fn house(toml: &str) -> House {
    let plan = |plan: pgsteer::sandbox::Plan| plan.standbys(0);
    // In huge pages memory would be told by four megabytes at a time.
    let blueprint = Blueprint::new().env("MIMALLOC_ALLOW_THP", "0");
    let house = blueprint.servers(plan).toml(toml).set("pool.size", "80").build();
    house.server("primary").rows("CREATE ROLE app LOGIN").unwrap();
    house
}

/// How much went to clients and came from them.
fn moved(house: &House) -> [String; 2] {
    let body = house.http("/metrics").body;
    ["sent", "received"].map(|way| {
        let series = format!("pgsteer_client_{way}_bytes_total ");
        body.lines().find_map(|line| line.strip_prefix(&series)).unwrap().to_owned()
    })
}

/// Some of these, when nothing moves any more.
async fn crowd(house: &House, burden: &Burden) -> Vec<Raw> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut client = Raw::enter_narrow(house, "app", burden.tls.as_ref()).await;
        client.query(burden.begins).await;
        // Its socket takes a part, the proxy a part, and the rest is not sent.
        let sending = client.send(&burden.asks);
        drop(pgsteer::timer::timeout(Duration::from_millis(100), sending).await);
        crowd.push(client);
    }
    if burden.reads == Reads::Slowly {
        for _ in 0..SIPS {
            for client in &mut crowd {
                client.sip(SIP).await;
            }
        }
    }
    await_that("nothing moves any more", || {
        let before = moved(house);
        std::thread::sleep(Duration::from_secs(1));
        moved(house) == before
    });
    crowd
}

/// What the proxy needs for all of these.
async fn cost(house: &House, burden: &Burden) -> u64 {
    let resident = || private_bytes(&house.proxy.pid().unwrap().to_string()).unwrap();
    Raw::enter_narrow(house, "app", burden.tls.as_ref()).await.query("SELECT 1").await;
    let before = resident();
    let crowd = crowd(house, burden).await;
    let after = resident();
    drop(crowd);
    after.saturating_sub(before)
}

fn burdens(tls: &TlsConnector) -> Vec<Burden> {
    let again = |one: &[u8]| one.iter().copied().cycle().take(ASKED).collect::<Vec<u8>>();
    let short = query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)");
    let long = query("SELECT repeat('x', 60000) FROM generate_series(1, 10000)");
    let huge = query("SELECT repeat('x', 4000000)");
    let own = query("SHOW pgsteer.role");
    let plain = [
        ("does not read short rows", short.clone(), Reads::Nothing),
        ("does not read long rows", long.clone(), Reads::Nothing),
        ("does not read a huge row", huge, Reads::Nothing),
        ("reads slowly", short.clone(), Reads::Slowly),
        ("asks on", again(&short), Reads::Nothing),
        ("asks pgsteer itself on", again(&own), Reads::Nothing),
        ("asks pgsteer itself on in a transaction", again(&own), Reads::Nothing),
    ];
    let secured = [
        ("does not read long rows, over TLS", long, Reads::Nothing),
        ("reads slowly, over TLS", short.clone(), Reads::Slowly),
        ("asks on, over TLS", again(&short), Reads::Nothing),
    ];
    let by = |tls: Option<TlsConnector>| {
        move |(what, asks, reads): (&'static str, _, _)| {
            let begins = if what.contains("transaction") { "BEGIN; SELECT 1" } else { "SELECT 1" };
            Burden { what, begins, asks, reads, tls: tls.clone() }
        }
    };
    let plain = plain.into_iter().map(by(None));
    plain.chain(secured.into_iter().map(by(Some(tls.clone())))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_at_most_a_quarter_of_a_megabyte() {
    let files = Scratch::new().unwrap();
    certificates(files.path());
    let at = |name: &str| files.path().join(name).display().to_string();
    let toml = format!("[tls]\ncert = {:?}\nkey = {:?}", at("server.crt"), at("server.key"));
    let tls = TlsConnector::from(Arc::new(config(&files.path().join("ca.crt"))));
    let mut costly = Vec::new();
    for burden in burdens(&tls) {
        // Each in a fresh process: what one has taken, the next one would be given.
        let all = cost(&house(&toml), &burden).await;
        let told = format!("{CROWD} clients, each of which {}: {} kB", burden.what, all / 1024);
        eprintln!("{told}");
        if all > ONCE_MAX + STALLED_MAX * u64::try_from(CROWD).unwrap() {
            costly.push(told);
        }
    }
    assert!(costly.is_empty(), "{costly:?}");
}
