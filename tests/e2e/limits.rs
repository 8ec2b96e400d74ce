//! What single clients may take: `limits.rules`.

use crate::raw::{Raw, bind, close, copy_data, copy_done, execute, parse, query, sync};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::Port;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

fn house(rules: &str) -> House {
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0));
    let house = blueprint.toml(&format!("[limits]\nrules = [{rules}]\n")).build();
    house.server("primary").rows("CREATE ROLE app LOGIN").unwrap();
    house.server("primary").rows("CREATE TABLE noted (i int)").unwrap();
    house.server("primary").rows("GRANT ALL ON noted TO app").unwrap();
    house
}

/// One who is let in as soon as there is a place: whoever had it before may not be gone yet, and a
/// connection from elsewhere on this machine counts, too, before it is closed.
async fn entered(house: &House, user: &str) -> Raw {
    let login = [("user", user), ("database", "postgres")];
    for _ in 0..500 {
        if let Ok(client) = Raw::connect(house.proxy.address(), &login).await {
            return client;
        }
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
    panic!("a place that is free was not given");
}

/// What a client is told that connects and is not let in.
async fn refused(house: &House, user: &str) -> String {
    let login = [("user", user), ("database", "postgres")];
    match Raw::connect(house.proxy.address(), &login).await {
        Ok(_) => panic!("{user} was let in"),
        Err(message) => {
            let (code, text) = (message.code().unwrap(), message.field(b'M').unwrap());
            format!("{code} {text}")
        }
    }
}

/// The last error before the connection is closed.
async fn last_word(wire: &mut Raw) -> String {
    let messages = wire.end().await;
    messages.iter().find_map(crate::raw::Message::code).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_by_each_rule() {
    let house = house(
        r#"{ user = "app", connections = 2 }, { address = "127.0.0.0/8", connections = 4 },
           { each = "database", connections = 3 }"#,
    );
    let first = Raw::enter_as(&house, "app").await;
    let _second = Raw::enter_as(&house, "app").await;
    let told = refused(&house, "app").await;
    assert!(told.starts_with("53300 2 connections are open of user \"app\""), "{told}");
    let _third = Raw::enter(&house).await;
    let told = refused(&house, "postgres").await;
    assert!(told.starts_with("53300 3 connections are open of database \"postgres\""), "{told}");

    // Those who have not logged in are counted where they come from.
    let _knocks = tokio::net::TcpStream::connect(house.proxy.address()).await.unwrap();
    let mut told = String::new();
    for _ in 0..50 {
        told = refused(&house, "postgres").await;
        if told.contains("127.0.0.0/8") {
            break;
        }
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
    assert!(told.contains("4 connections are open of network 127.0.0.0/8"), "{told}");

    drop(first);
    entered(&house, "app").await;
}

/// A cancel comes by a connection of its own: it needs no place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_connect_again_can_cancel_all_the_same() {
    let crowded = [
        house(r#"{ address = "127.0.0.0/8", connections = 1 }"#),
        Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.max_clients", "1").build(),
    ];
    for house in crowded {
        let mut only = entered(&house, "postgres").await;
        for _ in 0..3 {
            only.send(&query("SELECT pg_sleep(3600)")).await;
            let runs = "SELECT count(*) FROM pg_stat_activity \
                        WHERE state = 'active' AND query = 'SELECT pg_sleep(3600)'";
            house.server("primary").await_value(runs, "1", "running the statement").unwrap();
            assert!(refused(&house, "postgres").await.starts_with("53300"));
            only.cancel().await;
            assert_eq!(only.ready().await.code().as_deref(), Some("57014"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_lasts_too_long_is_cancelled_and_its_session_goes_on() {
    let house = house(r#"{ user = "app", query_timeout = "10s" }"#);
    let mut wire = Raw::enter_as(&house, "app").await;
    let mut other = Raw::enter(&house).await;
    let slow = other.query("SELECT pg_sleep(12)");
    let cancelled = wire.query("SELECT pg_sleep(60)");
    let (slow, cancelled) = tokio::join!(slow, cancelled);
    assert_eq!((slow.code(), cancelled.code().as_deref()), (None, Some("57014")));
    let hint = cancelled.error().unwrap().field(b'H').unwrap();
    assert_eq!(hint, "A rule of limits.rules allows 10s; raise query_timeout in it.");
    // One that somebody else cancels is told nothing of rules.
    let own = "DO $$BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(9); END$$";
    let cancelled = wire.query(own).await;
    assert_eq!(cancelled.code().as_deref(), Some("57014"));
    assert_eq!(cancelled.error().unwrap().field(b'H'), None);
    assert_eq!(wire.value("SELECT 1").await, "1");
    wire.query("BEGIN").await;
    let write = wire.query("INSERT INTO noted SELECT 1 FROM pg_sleep(60)").await;
    assert_eq!((write.code().as_deref(), write.status()), (Some("57014"), 'E'));
    wire.query("ROLLBACK").await;
    // Two short ones are no long one.
    wire.send(&[query("SELECT pg_sleep(6)"), query("SELECT pg_sleep(6)")].concat()).await;
    for _ in 0..2 {
        assert_eq!(wire.ready().await.code(), None);
    }
}

/// A server that waits for a client to read heeds no cancel, and nobody else has its backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_read_keeps_no_backend_for_longer_than_its_statement_may_run() {
    let rows = "SELECT repeat('x', 60000) FROM generate_series(1, 100000)";
    for (rule, begins, wait, served) in [
        (r#"query_timeout = "3s""#, "SELECT 1", "60s", true),
        (r#"transaction_timeout = "3s""#, "BEGIN", "60s", true),
        (r#"idle_timeout = "10s""#, "SELECT 1", "20s", false),
    ] {
        let house = Blueprint::new()
            .servers(|plan| plan.standbys(0))
            .toml(&format!("[limits]\nrules = [{{ user = \"app\", {rule} }}]\n"))
            .set("pool.size", "1")
            .set("pool.wait_timeout", wait)
            .build();
        house.server("primary").rows("CREATE ROLE app LOGIN").unwrap();
        let mut lazy = Raw::enter_narrow(&house, "app", None).await;
        lazy.query(begins).await;
        lazy.send(&query(rows)).await;
        lazy.sip(1_000).await;
        let mut other = Raw::enter_as(&house, "app").await;
        let answer = other.query("SELECT 1").await;
        assert_eq!(answer.code().is_none(), served, "{rule}: {:?}", answer.code());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_does_nothing_for_too_long_is_closed() {
    let house = house(
        r#"{ user = "app", idle_timeout = "2s" },
           { user = "postgres", idle_in_transaction_timeout = "1s" }"#,
    );
    let mut idle = Raw::enter_as(&house, "app").await;
    let mut holds = Raw::enter(&house).await;
    let mut rests = Raw::enter(&house).await;
    holds.query("BEGIN; LOCK TABLE noted").await;
    assert_eq!(last_word(&mut holds).await, "25P03");
    // Its transaction is gone, and the lock with it.
    assert_eq!(rests.value("SELECT count(*) FROM noted").await, "0");
    assert_eq!(last_word(&mut idle).await, "57P05");
    assert_eq!(rests.value("SELECT 1").await, "1", "the other rule is not about this one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_lasts_too_long_is_ended() {
    let house = house(r#"{ transaction_timeout = "5s" }"#);
    let mut wire = Raw::enter(&house).await;
    wire.query("BEGIN; INSERT INTO noted VALUES (1)").await;
    let long = wire.query("SELECT pg_sleep(60)").await;
    assert_eq!(long.code().as_deref(), Some("57014"), "what runs is cancelled first");
    assert_eq!(last_word(&mut wire).await, "25P04");
    let mut next = Raw::enter(&house).await;
    assert_eq!(next.value("SELECT count(*) FROM noted").await, "0");
    assert_eq!(next.query("SELECT pg_sleep(60)").await.code().as_deref(), Some("57014"));
    for _ in 0..4 {
        assert_eq!(next.query("SELECT pg_sleep(1.5)").await.code(), None, "each is its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_statements_have_their_longest() {
    let house = house(r#"{ user = "app", max_message = "64kB", max_statement = "4kB" }"#);
    let long = "x".repeat(5_000);
    let mut wire = Raw::enter_as(&house, "app").await;
    wire.send(&query(&format!("SELECT '{long}'"))).await;
    assert_eq!(last_word(&mut wire).await, "54000");
    let mut wire = Raw::enter_as(&house, "app").await;
    wire.send(&parse("", &format!("SELECT '{long}'"))).await;
    assert_eq!(last_word(&mut wire).await, "54000");

    let mut wire = Raw::enter_as(&house, "app").await;
    let bound = |value: &[u8]| [parse("", "SELECT length($1)"), bind("", &[value])].concat();
    let some = wire.batch(&[bound(&vec![b'x'; 60_000]), execute(), sync()]).await;
    assert_eq!(some.code(), None, "a value is no statement");
    // The header alone says it: nothing that long is waited for, or kept.
    wire.send(&bound(&vec![b'x'; 70_000])[..1_000]).await;
    assert_eq!(last_word(&mut wire).await, "54000");

    let mut wire = Raw::enter_as(&house, "app").await;
    wire.send(&query("COPY noted FROM STDIN")).await;
    wire.until('G').await;
    let rows = "1\n".repeat(100_000);
    wire.send(&[copy_data(rows.as_bytes()), copy_done()].concat()).await;
    assert_eq!(wire.ready().await.code(), None, "COPY data streams");
    let mut other = Raw::enter(&house).await;
    assert_eq!(other.query(&format!("SELECT '{long}'")).await.code(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_by_where_they_come_in() {
    let port = Port::free().unwrap();
    let second = SocketAddr::from(([127, 0, 0, 1], port.number()));
    let rules = format!("[limits]\nrules = [{{ listener = \"{second}\", connections = 1 }}]\n");
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0));
    let house = blueprint.toml(&rules).listen(&format!("{second}?role=primary")).build();
    let login = [("user", "postgres"), ("database", "postgres")];
    let only = Raw::connect(second, &login).await.unwrap();
    let told = Raw::connect(second, &login).await.unwrap_err();
    let text = told.field(b'M').unwrap();
    assert_eq!(told.code().as_deref(), Some("53300"));
    assert!(
        text.starts_with(&format!("1 connections are open of listener \"{second}\"")),
        "{text}"
    );
    assert!(told.field(b'H').unwrap().contains("limits.rules"), "and what to do about it");
    // The other one is not meant.
    let _others = [Raw::enter(&house).await, Raw::enter(&house).await];
    drop(only);
    for _ in 0..500 {
        if Raw::connect(second, &login).await.is_ok() {
            return;
        }
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
    panic!("a place that came free was not given again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_are_counted_and_one_too_many_is_refused_by_itself() {
    let house = house(r#"{ user = "app", max_prepared = 3 }"#);
    let mut wire = Raw::enter_as(&house, "app").await;
    let one = |name: &str| parse(name, &format!("SELECT '{name}'"));
    for name in ["a", "b", "c"] {
        assert_eq!(wire.batch(&[one(name)]).await.code(), None);
    }
    let refused = wire.batch(&[one("d")]).await;
    assert_eq!(refused.code().as_deref(), Some("53400"));
    let field = |field| refused.error().unwrap().field(field).unwrap();
    assert!(field(b'M').contains("3 statements are prepared, as many as max_prepared"));
    assert!(field(b'H').contains("max_prepared in limits.rules"), "{}", field(b'H'));
    // The session goes on, with what it has, without a name, and in the place of another.
    let run = |name: &str| [bind(name, &[]), execute()].concat();
    assert_eq!(wire.batch(&[run("a")]).await.value(), "a");
    assert_eq!(wire.batch(&[parse("", "SELECT 7"), run("")]).await.value(), "7");
    assert_eq!(wire.batch(&[close("a"), parse("d", "SELECT 'd'"), run("d")]).await.value(), "d");
    assert_eq!(wire.batch(&[one("e")]).await.code().as_deref(), Some("53400"));
    assert_eq!(wire.query("DEALLOCATE ALL").await.code(), None);
    assert_eq!(wire.batch(&[one("e")]).await.code(), None);
    // In a transaction it ends as any error does.
    wire.batch(&[one("f")]).await;
    wire.batch(&[one("g")]).await;
    wire.query("BEGIN").await;
    let refused = wire.batch(&[one("h")]).await;
    assert_eq!((refused.code().as_deref(), refused.status()), (Some("53400"), 'E'));
    assert_eq!(wire.query("ROLLBACK").await.code(), None);
    // Whom no rule limits has as many as he likes.
    let mut other = Raw::enter(&house).await;
    let all: Vec<u8> =
        (0..2000).flat_map(|at| parse(&format!("s{at}"), &format!("SELECT {at}"))).collect();
    assert_eq!(other.batch(&[all]).await.code(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_a_session_is_bounded() {
    let house = house(r#"{ user = "app", max_memory = "64kB" }"#);
    let long = "x".repeat(40_000);
    let one = |name: &str| parse(name, &format!("SELECT '{name}{long}'"));
    let mut wire = Raw::enter_as(&house, "app").await;
    assert_eq!(wire.batch(&[one("a")]).await.code(), None);
    let refused = wire.batch(&[one("b")]).await;
    assert_eq!(refused.code().as_deref(), Some("53400"));
    let hint = refused.error().unwrap().field(b'H').unwrap();
    assert!(hint.contains("max_memory in limits.rules"), "{hint}");
    assert_eq!(wire.batch(&[close("a")]).await.code(), None);
    assert_eq!(wire.batch(&[one("b")]).await.code(), None);
    // What streams through is not kept.
    let many = "y".repeat(2_000_000);
    assert_eq!(wire.query(&format!("SELECT length('{many}')")).await.value(), "2000000");
    // Settings count, too; a session that has too many can only begin anew.
    let mut wire = Raw::enter_as(&house, "app").await;
    assert_eq!(wire.query(&format!("SET app.one = '{long}'")).await.code(), None);
    assert_eq!(wire.value("SELECT length(current_setting('app.one'))").await, "40000");
    assert_eq!(wire.query(&format!("SET app.two = '{long}'")).await.code(), None);
    wire.send(&query("SELECT 1")).await;
    assert_eq!(last_word(&mut wire).await, "54000");
    let mut other = Raw::enter(&house).await;
    for name in ["a", "b", "c"] {
        assert_eq!(other.batch(&[one(name)]).await.code(), None);
    }
}

/// A rule may give those who come in somewhere less time to say who they are.
#[test]
fn who_says_nothing_has_the_time_that_a_rule_gives() {
    let port = Port::free().unwrap();
    let second = SocketAddr::from(([127, 0, 0, 1], port.number()));
    let rules = format!(
        "[limits]\nlogin_timeout = \"1h\"\n\
         rules = [{{ listener = \"{second}\", login_timeout = \"1s\" }}]\n"
    );
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0));
    let house = blueprint.toml(&rules).listen(&format!("{second}?role=primary")).build();
    let [mut patient, mut hurried] = [house.proxy.address(), second].map(|address| {
        let mut stream = TcpStream::connect(address).unwrap();
        // Of a startup packet, so that it is let in.
        stream.write_all(&[0]).unwrap();
        stream
    });
    hurried.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut said = Vec::new();
    hurried.read_to_end(&mut said).unwrap();
    patient.set_nonblocking(true).unwrap();
    let other = patient.read(&mut [0]).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::WouldBlock, "it has its time");
}
