//! `target_session_attrs` of libpq: a client that names several hosts finds the one it means.

use crate::protocol::tells;
use crate::raw::Raw;
use crate::support::{Blueprint, House, await_that};
use pgsteer::sandbox::{Port, StatementLog};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A set with a listener for everything and one that leads to standbys.
struct Doors {
    house: House,
    standby: SocketAddr,
    /// Nobody else gets it meanwhile.
    _port: Port,
}

fn doors(mode: &str, standbys: usize) -> Doors {
    let port = Port::free().unwrap();
    let standby = SocketAddr::from(([127, 0, 0, 1], port.number()));
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(standbys).log(StatementLog::Off))
        .unhurried()
        .any_lag()
        .set("pool.mode", mode)
        .set("routing.hold_max", "1s")
        .listen(&format!("{standby}?role=standby"))
        .build();
    Doors { house, standby, _port: port }
}

/// What a session through the first host that fits says of where it is: the host's port, and
/// whether what it reads from a table comes from a standby.
fn finds(hosts: &[SocketAddr], attributes: &str) -> Result<(u16, String), String> {
    finds_by(None, hosts, attributes)
}

/// The same by the libpq in this directory.
fn finds_by(
    libpq: Option<&Path>,
    hosts: &[SocketAddr],
    attributes: &str,
) -> Result<(u16, String), String> {
    let list =
        |part: &dyn Fn(&SocketAddr) -> String| hosts.iter().map(part).collect::<Vec<_>>().join(",");
    let info = format!(
        "host={} port={} user=postgres dbname=postgres {attributes}",
        list(&|host| host.ip().to_string()),
        list(&|host| host.port().to_string()),
    );
    let mut psql = Command::new("psql");
    psql.args(["-X", "-At", "-d", &info, "-c", "\\echo :PORT"]);
    psql.args(["-c", "SELECT pg_is_in_recovery() FROM (TABLE pg_class LIMIT 1) AS read"]);
    psql.envs(libpq.map(|libpq| ("LD_LIBRARY_PATH", libpq)));
    let output = psql.env_remove("PGOPTIONS").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    let said = text(&output.stdout);
    let (port, standby) = said.split_once('\n').unwrap();
    Ok((port.parse().unwrap(), standby.to_owned()))
}

#[test]
fn hosts_are_chosen_by_what_their_sessions_can_do() {
    for mode in ["transaction", "session"] {
        let Doors { house, standby, _port } = doors(mode, 1);
        house.cluster.await_replay().unwrap();
        let any = house.proxy.address();
        await_that("the standby takes reads", || finds(&[standby], "").is_ok());
        let (both, turned) = ([any, standby], [standby, any]);
        for (attributes, wanted) in [
            ("read-write", any),
            ("primary", any),
            ("read-only", standby),
            ("standby", standby),
            ("prefer-standby", standby),
        ] {
            let attributes = format!("target_session_attrs={attributes}");
            for hosts in [both, turned] {
                let (port, on_standby) = finds(&hosts, &attributes).unwrap();
                assert_eq!(port, wanted.port(), "{mode}: {attributes}, {hosts:?}");
                if wanted == standby {
                    assert_eq!(on_standby, "t", "{mode}: {attributes}");
                }
            }
        }
        for hosts in [both, turned] {
            let (port, _) = finds(&hosts, "target_session_attrs=any").unwrap();
            assert_eq!(port, hosts[0].port(), "{mode}: the first that answers");
        }
        // A wish in the options is as good as a listener's.
        let asked = "target_session_attrs=standby options='-c pgsteer.role=standby'";
        assert_eq!(finds(&[any], asked), Ok((any.port(), "t".to_owned())), "{mode}");
        for (host, attributes) in [(any, "standby"), (standby, "read-write"), (any, "read-only")] {
            let refused = finds(&[host], &format!("target_session_attrs={attributes}"));
            assert!(refused.is_err(), "{mode}: {attributes}: {refused:?}");
        }
        let told = "target_session_attrs=read-write options='-c default_transaction_read_only=on'";
        assert!(finds(&[any], told).is_err(), "{mode}: it would not be able to write");
    }
}

/// A directory with a libpq that knows `load_balance_hosts` (16 and later): that of the servers
/// under test, or one that an earlier run on other versions has fetched; the machine's own: `""`.
fn libpq_16() -> Option<PathBuf> {
    let bin = std::env::var_os("PGSTEER_PG_BIN").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pg");
    let fetched = std::fs::read_dir(fetched).into_iter().flatten().flatten();
    let fetched = fetched.map(|entry| entry.path().join("native/bin"));
    let dirs = bin.into_iter().chain(fetched).map(|bin| bin.join("../lib"));
    let knows = |dir: &PathBuf| {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-d", "host=127.0.0.1 port=1 load_balance_hosts=random"]);
        psql.env("LD_LIBRARY_PATH", dir);
        let told = psql.output().unwrap().stderr;
        // It can't connect, but it has understood.
        String::from_utf8_lossy(&told).contains("Connection refused")
    };
    [PathBuf::new()].into_iter().chain(dirs).find(knows)
}

/// `load_balance_hosts` of libpq 16: clients spread over the listeners, among those that fit;
/// without it, which is the opposite, all take the first.
#[test]
fn clients_spread_over_the_hosts_that_fit() {
    const CLIENTS: usize = 40;
    let Some(libpq) = libpq_16() else {
        eprintln!(
            "NOT RUN: no libpq of PostgreSQL 16 or later is here (`make test-all` brings it)"
        );
        return;
    };
    let Doors { house, standby, _port } = doors("transaction", 1);
    house.cluster.await_replay().unwrap();
    let any = house.proxy.address();
    await_that("the standby takes reads", || finds(&[standby], "").is_ok());
    let ports = |attributes: &str| -> BTreeSet<u16> {
        let find = |_| finds_by(Some(&libpq), &[any, standby], attributes).unwrap().0;
        (0..CLIENTS).map(find).collect()
    };
    let both = BTreeSet::from([any.port(), standby.port()]);
    // All forty at one of two by chance: once in 2^39 runs.
    assert_eq!(ports("load_balance_hosts=random"), both);
    assert_eq!(ports("load_balance_hosts=random target_session_attrs=any"), both);
    assert_eq!(ports("load_balance_hosts=disable"), BTreeSet::from([any.port()]));
    for (wanted, host) in [
        ("read-write", any),
        ("primary", any),
        ("read-only", standby),
        ("standby", standby),
        ("prefer-standby", standby),
    ] {
        let attributes = format!("load_balance_hosts=random target_session_attrs={wanted}");
        assert_eq!(ports(&attributes), BTreeSet::from([host.port()]), "{wanted}");
    }
}

/// Where there is no standby, its listener does not say that there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_standby_clients_go_on_to_the_next_host() {
    for mode in ["transaction", "session"] {
        let Doors { house, standby, _port } = doors(mode, 0);
        let any = house.proxy.address();
        let there = Ok((any.port(), "f".to_owned()));
        assert_eq!(finds(&[any, standby], "target_session_attrs=prefer-standby"), there, "{mode}");
        for attributes in ["standby", "read-only"] {
            let attributes = format!("target_session_attrs={attributes}");
            assert!(finds(&[standby, any], &attributes).is_err(), "{mode}: {attributes}");
        }
        let login = [("user", "postgres"), ("database", "postgres")];
        let mut raw = Raw::connect(standby, &login).await.unwrap();
        tells(&raw, "off");
        let refused = raw.query("TABLE pg_class").await;
        assert_eq!(refused.code().as_deref(), Some("57P03"), "{mode}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_gives_its_sessions_a_role_that_they_may_change() {
    let Doors { house, standby, _port } = doors("transaction", 1);
    house.await_catalog();
    let login = [("user", "postgres"), ("database", "postgres")];
    let mut raw = Raw::connect(standby, &login).await.unwrap();
    tells(&raw, "on");
    assert_eq!(raw.value("SHOW pgsteer.role").await, "standby");
    let refused = raw.query("CREATE TABLE t (i int)").await;
    assert_eq!(refused.code().as_deref(), Some("25006"));
    assert_eq!(raw.query("SET pgsteer.role = 'primary'").await.code(), None);
    assert_eq!(raw.query("CREATE TABLE t (i int)").await.code(), None);
    assert_eq!(raw.query("RESET pgsteer.role").await.code(), None);
    assert_eq!(raw.value("SHOW pgsteer.role").await, "standby");
    let asked = [login[0], login[1], ("options", "-c pgsteer.role=auto")];
    let auto = Raw::connect(standby, &asked).await.unwrap();
    tells(&auto, "off");
    let replicates = [login[0], login[1], ("replication", "database")];
    let replicates = Raw::connect(standby, &replicates).await.unwrap();
    tells(&replicates, "on");
}
