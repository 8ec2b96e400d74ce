//! What a session leaves on its backend although nobody could tell from its statements is found by
//! an audit, which names the application. The opposite arm has none, and the next client finds it.

use crate::raw::Raw;
use crate::support::{Blueprint, House};
use pgsteer::sandbox::{StatementLog, eventually};
use std::time::Duration;

/// A built-in function of which a superuser has made another: neither its name nor the catalog of
/// what a database has of its own tells.
const REPLACED: &str = "CREATE OR REPLACE FUNCTION pg_catalog.lpad(text, integer) RETURNS text \
    IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_advisory_lock(7); \
    PERFORM pg_catalog.set_config(''work_mem'', ''1234kB'', false); RETURN ''bad''; END'";

/// What is there that must not be.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND \
    pid = pg_backend_pid()) || ',' || current_setting('work_mem')";

fn house(every: &str) -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).log(StatementLog::Off))
        .set("pool.size", "1")
        .set("pool.audit_every", every)
        .build();
    house.server("primary").rows("CREATE ROLE app LOGIN").unwrap();
    // Before that, whatever names a function is probed.
    house.await_catalog();
    house
}

async fn enter(house: &House, application: &str) -> Raw {
    let login = [
        ("user", "app"),
        ("database", "postgres"),
        ("application_name", application),
        ("options", "-c pgsteer.role=primary"),
    ];
    Raw::connect(house.proxy.address(), &login).await.unwrap()
}

/// How many audits ended so.
fn audits(house: &House, result: &str) -> u64 {
    let series = format!("pgsteer_pool_audits_total{{result=\"{result}\"}} ");
    let body = house.http("/metrics").body;
    body.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

/// Waits until some have been audited; each needs a backend that comes free.
async fn await_audits(house: &House, client: &mut Raw, result: &str) {
    let before = audits(house, result);
    for _ in 0..600 {
        client.value("SELECT 1").await;
        if audits(house, result) > before {
            return;
        }
        pgsteer::timer::sleep(Duration::from_millis(100)).await;
    }
    panic!("no audit was {result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_unseen_is_found_and_its_application_named() {
    let house = house("1");
    let mut honest = enter(&house, "honest").await;
    await_audits(&house, &mut honest, "clean").await;
    house.server("primary").rows(REPLACED).unwrap();

    let mut careless = enter(&house, "careless").await;
    for _ in 0..600 {
        assert_eq!(careless.value("SELECT lpad('a', 2)").await, "bad");
        if audits(&house, "leak") > 0 {
            break;
        }
        pgsteer::timer::sleep(Duration::from_millis(100)).await;
    }

    let log = house.proxy.log();
    let told = log.lines().find(|line| line.contains("leak")).expect("the leak is logged");
    for word in ["careless", "app", "postgres", "work_mem", "advisory locks"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(!told.contains("honest") && !told.contains("1234"), "{told}");
    // Such a backend is closed: once the function is harmless, others get clean ones.
    let harmless = "CREATE OR REPLACE FUNCTION pg_catalog.lpad(text, integer) RETURNS text \
        IMMUTABLE LANGUAGE sql AS 'SELECT pg_catalog.lpad($1, $2, '' '')'";
    house.server("primary").rows(harmless).unwrap();
    for _ in 0..600 {
        if honest.value(LEFT).await == "0,4MB" {
            break;
        }
        pgsteer::timer::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(honest.value(LEFT).await, "0,4MB");
    let closed = format!(
        "pgsteer_server_disconnects_total{{reason=\"leak\",server=\"{}\"}}",
        house.server("primary").address()
    );
    assert!(house.metric(&closed).unwrap() >= 1.0);
    assert_eq!(audits(&house, "unanswered"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_audits_the_same_goes_unseen() {
    let house = house("0");
    house.server("primary").rows(REPLACED).unwrap();
    let mut careless = enter(&house, "careless").await;
    for _ in 0..20 {
        assert_eq!(careless.value("SELECT lpad('a', 2)").await, "bad");
    }

    let mut honest = enter(&house, "honest").await;
    assert_eq!(honest.value("SELECT current_setting('work_mem')").await, "1234kB");
    assert_eq!(audits(&house, "leak") + audits(&house, "clean"), 0);
    assert!(!house.proxy.log().contains("leak"));
}

/// Settings that a client gives at its start are carried as it wrote them, which is not how the
/// server shows them: that is no leak, and neither is anything that is followed or was cleaned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_has_openly_is_no_leak() {
    let house = house("1");
    let login = [
        ("user", "app"),
        ("database", "postgres"),
        ("application_name", "open"),
        (
            "options",
            "-c pgsteer.role=primary -c work_mem=8MB -c DateStyle=german -c my.setting=1 -c statement_timeout=9s",
        ),
    ];
    let mut client = Raw::connect(house.proxy.address(), &login).await.unwrap();
    let clean = || audits(&house, "clean");
    let mut round = 0;
    let enough = |round: u32| clean() >= 8 || round > 400;
    while !enough(round) {
        round += 1;
        client.value("SELECT 1").await;
        for sql in ["SET search_path = a, b", "SET my.other = 'x'", "RESET ALL", "SET role = none"]
        {
            assert_eq!(client.query(sql).await.code(), None);
            client.value("SELECT 2").await;
        }
        pgsteer::timer::sleep(Duration::from_millis(50)).await;
    }
    assert!(clean() >= 8, "{} audits in {round} rounds", clean());
    assert_eq!(audits(&house, "leak"), 0, "{}", house.proxy.log());
    let other =
        eventually(Duration::from_secs(1), || (audits(&house, "unanswered") > 0).then_some(()));
    assert!(other.is_none(), "a probe went unanswered");
}
