//! Servers that are not there, that refuse us, that are none, or that belong to somebody else.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::cluster;
use crate::support::connect;
use crate::support::proxy;
use pgsteer::sandbox::Auth;
use pgsteer::sandbox::Cluster;
use pgsteer::sandbox::Plan;
use pgsteer::sandbox::Port;
use pgsteer::sandbox::Postgres;
use pgsteer::sandbox::Template;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use tokio_postgres::NoTls;

/// A listener that says this to whoever comes, and then nothing more.
fn listener(word: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut guests = Vec::new();
        for guest in listener.incoming() {
            let mut guest = guest.unwrap();
            let mut heard = [0; 64];
            if !word.is_empty() && guest.read(&mut heard).is_ok() {
                guest.write_all(word).unwrap_or(());
            } else {
                guests.push(guest);
            }
        }
    });
    address
}

#[test]
fn without_any_server_it_runs_and_says_so() {
    let port = Port::free().unwrap();
    let nobody = format!("127.0.0.1:{}", port.number());
    let cluster = cluster(&Plan::new().standbys(0));
    let proxy = proxy(&cluster, "[routing]\nhold_max = \"300ms\"").args(["--server", &nobody]);
    proxy.start().unwrap();
    await_that("it answers", || proxy.get("/livez").is_ok_and(|answer| answer.status == 200));
    assert_eq!(proxy.get("/readyz").unwrap().status, 503);
    let refused = Wire::log_in(proxy.address(), "postgres").unwrap_err();
    assert_eq!(refused.ended, Ended::Closed, "{refused:?}");
    assert!(matches!(refused.code(), "57P03" | "08001"), "{refused:?}");
    assert_eq!(refused.error().severity, "FATAL");
    assert!(refused.error().message.contains("server"), "{refused:?}");
    assert!(!refused.error().hint.is_empty(), "{refused:?}");
    await_that("the log says why", || proxy.log().contains("connection refused"));
    assert!(proxy.is_running());
}

#[test]
fn a_wrong_password_of_the_control_user_is_named() {
    let cluster = cluster(&Plan::new().standbys(0).auth(Auth::Password));
    let address = cluster.primary().address();
    // A look that comes too late, on a crowded machine, is news, and so is the refusal behind it.
    let proxy = proxy(&cluster, "[routing]\nhold_max = \"300ms\"")
        .env("PGPASSWORD", "wrong")
        .args(["--set", "servers.check_timeout=1m", "--set", "routing.observation_age_max=10m"])
        .args(["--server", &address]);
    proxy.start().unwrap();
    await_that("the log says why", || proxy.log().contains("login refused"));
    let words = "password authentication failed for user \"postgres\"";
    await_that("in the server's words", || proxy.log().contains(words));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(proxy.log().matches(words).count(), 1, "once, not at each look");
    assert_eq!(proxy.get("/readyz").unwrap().status, 503);
    let status = proxy.get("/status").unwrap().body;
    assert!(status.contains("login refused"), "{status}");
    assert!(!proxy.log().contains("wrong"), "no password in the log");
    let refused = Wire::log_in(proxy.address(), "postgres").unwrap_err();
    assert_eq!((refused.codes().len(), refused.ended), (1, Ended::Closed), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_of_a_client_is_refused_as_by_postgresql() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).auth(Auth::Password))
        .toml("[auth]\nmethod = \"scram-sha-256\"")
        .build();
    let good = house.proxy_uri("postgres", "postgres");
    connect(&good).await.simple_query("SELECT 1").await.unwrap();
    for (user, password) in [("postgres", "wrong"), ("nobody", "throw-away")] {
        let bad = format!("postgresql://{user}:{password}@{}/postgres", house.proxy.address());
        let Err(error) = tokio_postgres::connect(&bad, NoTls).await else { panic!("{bad}") };
        let error = error.as_db_error().unwrap();
        let expected = format!("password authentication failed for user \"{user}\"");
        assert_eq!((error.code().code(), error.message()), ("28P01", expected.as_str()));
    }
    connect(&good).await.simple_query("SELECT 1").await.unwrap();
    // A database that is not there is the server's own word.
    let (place, _) = good.rsplit_once('/').unwrap();
    let Err(error) = tokio_postgres::connect(&format!("{place}/none"), NoTls).await else {
        panic!("there is no such database")
    };
    assert_eq!(
        error.as_db_error().map(|error| error.code().code().to_owned()).as_deref(),
        Some("3D000")
    );
}

/// Three that speak something else, and one of another system, beside a good set.
#[test]
fn servers_that_are_none_or_not_ours_get_nothing_and_are_named() {
    let template = Template::new(Postgres::find(None).unwrap()).unwrap();
    let foreign = Cluster::start(&template, &Plan::new().standbys(0)).unwrap();
    foreign.primary().rows("CREATE TABLE notes (i int)").unwrap();
    foreign.primary().set("log_statement", "all").unwrap();
    let http = listener(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let garbage = listener(b"\x00\xff\xff\xff\xff\x00garbage");
    let silent = listener(b"");
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1))
        .stranger(&http)
        .stranger(&garbage)
        .stranger(&silent)
        .stranger(&foreign.primary().address())
        .build();
    house.server("primary").rows("CREATE TABLE notes (i int)").unwrap();
    house.await_catalog();

    let unseen = |address: &str, why: &str| {
        await_that(why, || house.status_at(address)["unseen"] == why);
    };
    unseen(&http, "not a PostgreSQL server");
    unseen(&garbage, "not a PostgreSQL server");
    unseen(&silent, "no answer in time");
    let stranger = foreign.primary().address();
    await_that("the other system", || house.status_at(&stranger)["state"] == "stranger");
    let log = house.proxy.log();
    for line in log.lines().filter(|line| line.contains("another system")) {
        let named = line.contains(&format!("{stranger} belongs to another system"));
        assert!(named || line.contains(&format!("{stranger} serves no reads")), "{line}");
    }
    assert!(log.lines().any(|l| l.contains("ERROR") && l.contains("another system")), "{log}");
    for _ in 0..20 {
        let mut wire = house.wire();
        wire.run("INSERT INTO notes VALUES (1) /* marked */");
        wire.run("SELECT * FROM notes /* marked */");
        house.wire().run("SELECT * FROM notes /* marked */");
    }
    assert_eq!(foreign.primary().logged("marked"), 0, "the stranger gets nothing");
    assert_eq!(house.where_ran("marked"), ["primary", "standby1"]);
    assert!(!house.proxy.log().contains("panicked"));
}
