//! Many clients, few backends: how many there are, who gets one, and what becomes of those that
//! died at rest.
//!
//! A primary alone, so that every statement needs the same pool.

use crate::raw::{Message, Raw};
use crate::support::{Blueprint, House, end_backends};
use pgsteer::clock;
use pgsteer::sandbox::{Plan, SUPERUSER, StatementLog, eventually};
use pgsteer::tasks;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A house without standbys, whose role `app` nobody else uses: its backends are the pool's.
fn house(settings: &[(&str, &str)]) -> House {
    let mut blueprint = Blueprint::new().servers(|plan| plan.standbys(0).log(StatementLog::Off));
    for (key, value) in settings {
        blueprint = blueprint.set(key, value);
    }
    let house = blueprint.build();
    house.server("primary").rows("CREATE ROLE app LOGIN SUPERUSER").unwrap();
    house
}

/// How many backends the pool has, in the server's own words.
const COUNT: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";

async fn enter(house: &House) -> Raw {
    Raw::enter_as(house, "app").await
}

/// Watches how many backends there are, until it is told to stop; the most that it saw.
fn watch(house: &House) -> (Arc<AtomicBool>, std::thread::JoinHandle<usize>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut sql = house.server("primary").connect("postgres").unwrap();
    let stopped = Arc::clone(&stop);
    let watcher = std::thread::spawn(move || {
        let mut most = 0;
        while !stopped.load(Ordering::Relaxed) {
            most = most.max(sql.value(COUNT).unwrap().parse().unwrap());
        }
        most
    });
    (stop, watcher)
}

/// How many clients wait, in the proxy's words.
fn waiting(house: &House) -> usize {
    let metrics = house.http("/metrics").body;
    let of_clients =
        |line: &&str| line.starts_with("pgsteer_client_connections{state=\"waiting\"}");
    let line = metrics.lines().find(of_clients).unwrap();
    line.split(' ').next_back().unwrap().parse().unwrap()
}

fn await_waiting(house: &House, clients: usize) {
    let come = eventually(Duration::from_secs(30), || (waiting(house) == clients).then_some(()));
    come.unwrap_or_else(|| panic!("{clients} should wait, not {}", waiting(house)));
}

async fn many_share_few(shards: &str) {
    let house = house(&[("pool.size", "3"), ("limits.shards", shards)]);
    let (stop, watcher) = watch(&house);
    let mut clients = Vec::new();
    for number in 0..30 {
        let mut client = enter(&house).await;
        clients.push(tasks::spawn("client", async move {
            let mut pids = BTreeSet::new();
            for round in 0..20 {
                let sql = match (round + number) % 3 {
                    0 => "SELECT pg_backend_pid()",
                    1 => "SELECT pg_backend_pid() FROM pg_sleep(0.003)",
                    _ => "BEGIN; SELECT pg_backend_pid(); COMMIT",
                };
                pids.insert(client.value(sql).await);
            }
            pids
        }));
    }
    let mut pids = BTreeSet::new();
    for client in clients {
        pids.extend(client.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    let most = watcher.join().unwrap();
    assert!(most <= 3, "{most} backends, where 3 may be");
    assert_eq!(most, 3, "all three were needed");
    // Statements of one client ran on backends of others: 30 clients, at most a few processes.
    assert!(pids.len() <= 3 || shards != "1", "one shard opens no more than it may: {pids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_clients_share_three_backends() {
    many_share_few("1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_exact_over_three_shards() {
    many_share_few("3").await;
}

/// Two backends, three shards: whoever comes third finds them at rest in the other two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_starves_while_another_shard_has_idle_backends() {
    let house = house(&[("pool.size", "2"), ("limits.shards", "3"), ("pool.wait_timeout", "1m")]);
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(enter(&house).await);
    }
    served_at_once(&mut clients).await;
    // And with one of the two held.
    assert_eq!(clients[0].query("BEGIN").await.status(), 'T');
    served_at_once(&mut clients[1..]).await;
    let count = house.server("primary").value(COUNT).unwrap();
    assert!(count.parse::<usize>().unwrap() <= 2, "{count}");
}

/// Who is not called to an idle backend waits for the sweep, half a second on average. A third
/// or more of the statements would.
async fn served_at_once(clients: &mut [Raw]) {
    let mut misses = Vec::new();
    // Others may keep this machine busy for a while.
    for _ in 0..5 {
        let (mut statements, mut late) = (0, 0);
        for _ in 0..20 {
            for client in &mut *clients {
                let began = clock::now();
                assert_eq!(client.value("SELECT 7").await, "7");
                statements += 1;
                late += i32::from(clock::now().since(began) > Duration::from_millis(250));
            }
        }
        if late * 10 < statements {
            return;
        }
        misses.push(format!("{late} of {statements}"));
    }
    panic!("were late: {misses:?}");
}

async fn served_in_order(shards: &str) {
    let house =
        house(&[("pool.size", "1"), ("limits.shards", shards), ("pool.wait_timeout", "1m")]);
    let mut holder = enter(&house).await;
    holder.value("CREATE TABLE served (place serial, client int)").await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(enter(&house).await);
    }
    assert_eq!(holder.query("BEGIN").await.status(), 'T');
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("INSERT INTO served (client) VALUES ({number})");
        client.send(&crate::raw::query(&sql)).await;
        await_waiting(&house, number + 1);
    }
    assert_eq!(holder.query("COMMIT").await.status(), 'I');
    for client in &mut clients {
        assert_eq!(client.ready().await.code(), None);
    }
    let order = house.server("primary").rows("SELECT client FROM served ORDER BY place").unwrap();
    let order: Vec<_> = order.into_iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(order, ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_are_served_first_come_first_served() {
    served_in_order("1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_are_served_in_order_over_three_shards() {
    served_in_order("3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_is_told_so_and_can_go_on() {
    let house = house(&[("pool.size", "1"), ("pool.wait_timeout", "2s")]);
    let mut holder = enter(&house).await;
    assert_eq!(holder.query("BEGIN").await.status(), 'T');

    let mut simple = enter(&house).await;
    let answer = simple.query("SELECT 1").await;
    assert_eq!(answer.tags(), "EZ");
    assert_eq!(answer.code().as_deref(), Some("53300"));
    let error = answer.error().unwrap();
    assert!(error.field(b'H').unwrap().contains("pool.size"), "{error:?}");
    assert!(error.field(b'D').unwrap().contains("not sent"), "{error:?}");
    assert_eq!(error.field(b'S').as_deref(), Some("ERROR"), "the session goes on");
    let extended = simple
        .batch(&[
            crate::raw::parse("a", "SELECT 1"),
            crate::raw::bind("a", &[]),
            crate::raw::execute(),
        ])
        .await;
    assert_eq!(extended.tags(), "EZ");

    assert_eq!(holder.query("COMMIT").await.status(), 'I');
    assert_eq!(simple.value("SELECT 2").await, "2");
    // What was refused was not taken note of either.
    let again = simple
        .batch(&[
            crate::raw::parse("a", "SELECT 3"),
            crate::raw::bind("a", &[]),
            crate::raw::execute(),
        ])
        .await;
    assert_eq!(again.value(), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode_a_client_keeps_its_backend_and_leaves_it_clean() {
    let house = house(&[("pool.mode", "session"), ("pool.size", "2")]);
    let (mut one, mut two) = (enter(&house).await, enter(&house).await);
    let mine = one.value("SELECT pg_backend_pid()").await;
    let other = two.value("SELECT pg_backend_pid()").await;
    assert_ne!(mine, other);
    let dirt = "SET app.x = 'mine'; SET search_path = secret; CREATE TEMP TABLE t (i int); \
                SELECT pg_advisory_lock(1); LISTEN news; PREPARE p AS SELECT 1";
    assert_eq!(one.query(dirt).await.code(), None);
    one.batch(&[crate::raw::parse("named", "SELECT 1")]).await;
    for _ in 0..10 {
        assert_eq!(one.value("SELECT pg_backend_pid()").await, mine);
        assert_eq!(two.value("SELECT pg_backend_pid()").await, other);
    }
    assert_eq!(one.value("SHOW search_path").await, "secret");

    // A third one must wait until a backend is given up: at its login, for it is told the
    // process of its own backend.
    let login = [("user", "app"), ("database", "postgres")];
    let address = house.proxy.address();
    let three = tasks::spawn("three", async move { Raw::connect(address, &login).await });
    pgsteer::timer::sleep(Duration::from_millis(200)).await;
    assert!(!three.is_finished(), "both backends are taken");
    one.leave().await;
    let mut three = three.await.unwrap().unwrap();
    assert_eq!(three.pid.to_string(), mine);
    assert_eq!(three.value("SELECT pg_backend_pid()").await, mine, "it serves the next");
    let left = "SELECT coalesce(current_setting('app.x', true), '') || current_setting('search_path') \
                || (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()) \
                || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                    AND pid = pg_backend_pid()) \
                || (SELECT count(*) FROM pg_listening_channels()) \
                || (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)";
    assert_eq!(three.value(left).await, "\"$user\", public0000");
}

/// Those who wait have more at once; what is too many is closed as it comes free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_how_many_backends_there_are() {
    let size = |size| format!("[pool]\nsize = {size}\nwait_timeout = \"1m\"\n");
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).log(StatementLog::Off))
        .toml(&size(1))
        .build();
    house.server("primary").rows("CREATE ROLE app LOGIN SUPERUSER").unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(enter(&house).await);
    }
    assert_eq!(clients[0].query("BEGIN").await.status(), 'T');
    for (number, client) in clients.iter_mut().skip(1).enumerate() {
        client.send(&crate::raw::query("BEGIN")).await;
        await_waiting(&house, number + 1);
    }

    house.reload(&size(3));

    for client in clients.iter_mut().skip(1) {
        assert_eq!(client.ready().await.status(), 'T');
    }
    assert_eq!(house.server("primary").value(COUNT).unwrap(), "3");

    house.reload(&size(1));
    for client in &mut clients {
        assert_eq!(client.value("SELECT 1").await, "1", "nobody loses what he holds");
        assert_eq!(client.query("COMMIT").await.status(), 'I');
    }
    house.server("primary").await_value(COUNT, "1", "left with one backend").unwrap();
    for client in &mut clients {
        assert_eq!(client.value("SELECT 2").await, "2");
    }
    assert_eq!(house.server("primary").value(COUNT).unwrap(), "1");
}

/// However busy it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_lived_long_enough_is_replaced() {
    let house = house(&[("pool.size", "1"), ("pool.max_lifetime", "1s")]);
    let mut client = enter(&house).await;
    let mut pids = BTreeSet::new();
    let began = clock::now();
    while pids.len() < 3 {
        pids.insert(client.value("SELECT pg_backend_pid()").await);
        let late = clock::now().since(began) > Duration::from_secs(20);
        assert!(!late, "{} backends, each of which may live for 1 s", pids.len());
    }
    let address = house.server("primary").address();
    let series = |reason: &str| {
        format!("pgsteer_server_disconnects_total{{reason=\"{reason}\",server=\"{address}\"}}")
    };
    assert!(house.metric(&series("lifetime")).unwrap() >= 2.0);
    assert_eq!(house.metric(&series("idle")), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_more_than_may_be_is_refused_and_the_others_go_on() {
    let house = house(&[("pool.max_clients", "3")]);
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(enter(&house).await);
    }
    let login = [("user", "app"), ("database", "postgres")];
    let refused: Message = Raw::connect(house.proxy.address(), &login).await.unwrap_err();
    assert_eq!(refused.code().as_deref(), Some("53300"));
    assert_eq!(refused.field(b'S').as_deref(), Some("FATAL"));
    assert!(refused.field(b'H').unwrap().contains("pool.max_clients"));
    for client in &mut inside {
        assert_eq!(client.value("SELECT 1").await, "1");
    }
    inside.pop().unwrap().leave().await;
    let mut next = None;
    for _ in 0..200 {
        match Raw::connect(house.proxy.address(), &login).await {
            Ok(client) => {
                next = Some(client);
                break;
            }
            // The place is given up a moment after the connection is closed.
            Err(error) => assert_eq!(error.code().as_deref(), Some("53300")),
        }
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(next.expect("a place came free").value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_that_die_at_rest_are_noticed_and_nobody_sees_an_error() {
    let house = house(&[("pool.size", "3"), ("limits.shards", "2")]);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(enter(&house).await);
    }
    clients[0].value("CREATE TABLE t (i int)").await;
    let killed = AtomicUsize::new(0);
    for round in 0..15 {
        for client in &mut clients {
            // Writes: no retry would save a statement that went to a dead backend.
            let answer = client.query(&format!("INSERT INTO t VALUES ({round})")).await;
            assert_eq!(answer.code(), None, "{answer:?}");
        }
        let count = end_backends(house.server("primary"), "usename = 'app'");
        killed.fetch_add(count, Ordering::Relaxed);
    }
    assert!(killed.load(Ordering::Relaxed) >= 15, "backends were there to be killed");
    assert_eq!(house.server("primary").value("SELECT count(*) FROM t").unwrap(), "120");
}

/// Two clients, one after the other: which backend each had, and whether the second found what the
/// first had left.
async fn two_visits(reset: &str) -> (String, String, String) {
    let house = house(&[("pool.mode", "session"), ("pool.size", "1"), ("pool.reset", reset)]);
    let mut first = enter(&house).await;
    let its = first.value("SELECT pg_backend_pid()").await;
    first.query("CREATE TEMP TABLE t ()").await;
    first.leave().await;

    let mut second = enter(&house).await;
    let other = second.value("SELECT pg_backend_pid()").await;
    (its, other, second.value("SELECT pg_my_temp_schema()").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_close_every_session_begins_on_a_new_backend() {
    let (first, second, temporary) = two_visits("close").await;

    assert_ne!(first, second);
    assert_eq!(temporary, "0", "the server remembers another's temporary tables");
}

/// The opposite: `DISCARD ALL` does not undo everything, so the test above has something to find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_close_the_next_session_has_the_same_backend() {
    let (first, second, temporary) = two_visits("tracked").await;

    assert_eq!(first, second);
    assert_ne!(temporary, "0");
}

/// A session that ends its own backend is told what a server would tell it, and is disconnected;
/// nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_its_own_backend_is_told_as_by_a_server_and_nobody_else_is() {
    const END: &str = "SELECT pg_terminate_backend(pg_backend_pid())";
    for mode in ["transaction", "session"] {
        let house = house(&[("pool.mode", mode), ("pool.size", "2")]);
        let mut other = enter(&house).await;
        other.query("CREATE TABLE kept (i int)").await;
        for before in ["", "BEGIN", "BEGIN; INSERT INTO kept VALUES (1)"] {
            let mut told = Vec::new();
            for address in
                [house.proxy.address(), house.server("primary").address().parse().unwrap()]
            {
                let login = [("user", "app"), ("database", "postgres")];
                let mut client = Raw::connect(address, &login).await.unwrap();
                if !before.is_empty() {
                    assert_eq!(client.query(before).await.code(), None);
                }
                client.send(&crate::raw::query(END)).await;
                let last = client.end().await;
                let error = last.iter().find(|message| message.tag() == 'E').expect("an error");
                told.push([b'S', b'C', b'M'].map(|field| error.field(field)));
            }
            assert_eq!(told[0], told[1], "{mode}, after {before:?}");
        }
        assert_eq!(other.value("SELECT count(*) FROM kept").await, "0", "{mode}");
        assert_eq!(enter(&house).await.value("SELECT 1").await, "1", "{mode}");
    }
}

/// `\connect` of psql logs in anew before it ends its session: who holds the only backend would
/// wait for himself.
#[test]
fn who_connects_anew_needs_no_backend_for_it() {
    let servers = |plan: Plan| plan.standbys(0);
    let house = Blueprint::new()
        .servers(servers)
        .set("pool.size", "1")
        .set("pool.wait_timeout", "1s")
        .build();
    let target = format!(
        "host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres",
        house.proxy.address().port()
    );
    let mut psql = std::process::Command::new("psql");
    psql.args(["-XAt", "-v", "ON_ERROR_STOP=1", &target, "-c", "CREATE TEMP TABLE mine ()"]);
    // Neither when others, who are not here, come and go; they are looked for every second.
    psql.args(["-c", "CREATE ROLE passes LOGIN", "-c", "SELECT pg_sleep(2.5)"]);
    psql.args(["-c", "DROP ROLE passes", "-c", "SELECT pg_sleep(2.5)"]);
    psql.args(["-c", "\\c", "-c", "SELECT 'here'"]);
    let output = psql.env("PGCLIENTENCODING", "UTF8").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.ends_with("here\n"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
