//! Sessions that listen, and hold no backend for it.

use crate::raw::{Answer, Message, Raw};
use crate::support::Dice;
use crate::support::{Blueprint, House, await_that, end_backends};
use pgsteer::sandbox::Plan;
use pgsteer::tasks;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Sessions through a pool of a few backends.
fn house() -> House {
    Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "3").build()
}

/// The connections that listen for sessions.
fn listeners(house: &House) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsteer listener'";
    house.server("primary").value(sql).unwrap()
}

/// The process, channel and payload of a notification.
fn read(message: &Message) -> (i32, String, String) {
    assert_eq!(message.tag(), 'A');
    let body = &message.0[5..];
    let mut texts = body[4..].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text));
    let pid = i32::from_be_bytes(body[..4].try_into().unwrap());
    (pid, texts.next().unwrap().into_owned(), texts.next().unwrap().into_owned())
}

/// The notifications among an answer's messages.
fn heard(answer: &Answer) -> Vec<(i32, String, String)> {
    answer.0.iter().filter(|message| message.tag() == 'A').map(read).collect()
}

/// The payloads that come until this one.
async fn until(wire: &mut Raw, last: &str) -> Vec<String> {
    let mut payloads = Vec::new();
    loop {
        let message = wire.message().await.expect("it is still there");
        if message.tag() == 'A' {
            payloads.push(read(&message).2);
            if payloads.last().is_some_and(|payload| payload == last) {
                return payloads;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_listen_over_one_connection_and_hold_no_backend() {
    let house = house();
    let mut sessions = Vec::new();
    for number in 0..40 {
        let mut wire = Raw::enter(&house).await;
        wire.query(&format!("LISTEN everybody; LISTEN \"Only {number}\"")).await;
        sessions.push(wire);
    }
    assert_eq!(listeners(&house), "1");
    // With their backends, the pool of three would serve nobody any more.
    let mut other = Raw::enter(&house).await;
    other.query("NOTIFY everybody, 'hello'").await;
    for number in 0..40 {
        other.query(&format!("NOTIFY \"Only {number}\", '{number}'")).await;
    }
    for (number, wire) in sessions.iter_mut().enumerate() {
        let all = until(wire, &number.to_string()).await;
        assert_eq!(all, ["hello".to_owned(), number.to_string()], "each its own, and no other's");
    }
    let mine = sessions[0].query("SELECT * FROM pg_listening_channels() ORDER BY 1").await;
    let channels: Vec<_> = mine.rows().into_iter().flatten().flatten().collect();
    assert_eq!(channels, ["Only 0", "everybody"]);

    drop(sessions);
    await_that("nobody listens", || listeners(&house) == "0");
}

/// Clients tell who notified by the process: it is the one that the notifying client knows, however
/// fast its backend passes from hand to hand. What comes past pgsteer keeps the server's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_names_the_process_that_its_sender_knows() {
    // Before pgsteer reads the catalog: that a table has got a trigger is noticed after a while.
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .unhurried()
        .set("pool.size", "3")
        .set("pool.wait_timeout", "1m")
        .build_after(|cluster| {
            for sql in [
                "CREATE TABLE orders (note text)",
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN PERFORM pg_notify('news', NEW.note); RETURN NEW; END $$",
                "CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell()",
            ] {
                cluster.primary().rows(sql).unwrap();
            }
        });
    let mut wire = Raw::enter(&house).await;
    wire.query("LISTEN news").await;
    let mut notifying = Vec::new();
    for _ in 0..12 {
        let mut other = Raw::enter(&house).await;
        notifying.push(tasks::spawn("notifies", async move {
            let pid = other.pid;
            let ways = [
                format!("NOTIFY news, '{pid}'"),
                format!("SELECT pg_notify('news', '{pid}')"),
                format!("INSERT INTO orders VALUES ('{pid}')"),
                format!("BEGIN; SELECT 1; NOTIFY news, '{pid}'; COMMIT"),
                format!("BEGIN; INSERT INTO orders VALUES ('{pid}'); COMMIT"),
                "BEGIN; NOTIFY news, 'never'; ROLLBACK".to_owned(),
                format!("DO $$ BEGIN PERFORM pg_notify('news', '{pid}'); END $$"),
            ];
            let mut backends = std::collections::BTreeSet::new();
            for way in ways.iter().cycle().take(70) {
                assert_eq!(other.query(way).await.code(), None, "{way}");
                backends.insert(other.value("SELECT pg_backend_pid()").await);
            }
            backends
        }));
    }
    // Of each client 60 arrive: each seventh statement takes back what it said.
    for _ in 0..12 * 60 {
        let message = wire.until('A').await.0.pop().unwrap();
        let (process, _, payload) = read(&message);
        assert_eq!(process.to_string(), payload);
    }
    let mut shared = Vec::new();
    for task in notifying {
        shared.push(task.await.unwrap());
    }
    assert!(shared.iter().all(|backends| backends.len() > 1), "they came by: {shared:?}");

    let outside = house.server("primary").value("SELECT pg_notify('news', pg_backend_pid()::text)");
    outside.unwrap();
    let (process, _, payload) = read(wire.until('A').await.0.last().unwrap());
    assert_eq!(process.to_string(), payload, "it is nobody's whom pgsteer knows");
}

/// So it is told by a backend that listens itself: in session mode, and while a session writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_listens_itself_names_the_process_that_the_sender_knows() {
    let house = house();
    let (mut wire, mut other) = (Raw::enter(&house).await, Raw::enter(&house).await);
    wire.query("LISTEN news").await;
    for way in ["NOTIFY news, 'one'", "SELECT pg_notify('news', 'one')"] {
        wire.query("BEGIN").await;
        wire.query("CREATE TEMP TABLE IF NOT EXISTS mine (i int)").await;
        let backend = other.value("SELECT pg_backend_pid() FROM pg_notify('else', '')").await;
        assert_ne!(backend, other.pid.to_string(), "or there is nothing to be seen");
        other.query(way).await;
        let told = heard(&wire.query("COMMIT").await);
        assert_eq!(told, [(other.pid, "news".to_owned(), "one".to_owned())], "{way}");
    }
}

/// In session mode a client knows its session by the server's own process, and so do others: it
/// is told at once, at the end of a transaction, to oneself, and of a backend that has changed
/// hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode_the_servers_own_process_is_named() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .set("pool.mode", "session")
        .set("pool.size", "2")
        .build();
    let mut wire = Raw::enter(&house).await;
    wire.query("LISTEN news").await;
    assert_eq!(wire.value("SELECT pg_backend_pid()").await, wire.pid.to_string());
    let told = heard(&wire.query("NOTIFY news, 'own'").await);
    assert_eq!(told, [(wire.pid, "news".to_owned(), "own".to_owned())]);

    let mut backends = std::collections::BTreeSet::new();
    for round in 0..6 {
        let mut other = Raw::enter(&house).await;
        let process = other.value("SELECT pg_backend_pid()").await;
        assert_eq!(process, other.pid.to_string(), "it is what the client was told");
        let way = format!("SELECT pg_notify('news', '{round}')");
        other.query(&way).await;
        let told = read(wire.until('A').await.0.last().unwrap());
        assert_eq!(told, (other.pid, "news".to_owned(), round.to_string()), "at once");

        wire.query("BEGIN").await;
        other.query("NOTIFY news, 'later'").await;
        let told = heard(&wire.query("COMMIT").await);
        assert_eq!(told, [(other.pid, "news".to_owned(), "later".to_owned())], "at the end");
        backends.insert(other.pid);
        other.leave().await;
    }
    assert!(backends.len() < 6, "none has changed hands: {backends:?}");
}

/// What a session hears while it listens itself and while it is listened for, over and over: each
/// notification once, in order, whatever the session does in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_and_nothing_comes_twice() {
    let house = house();
    let mut wire = Raw::enter(&house).await;
    wire.query("CREATE TABLE noted (i int)").await;
    wire.query("LISTEN news").await;
    let (done, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (goes_on, count) = (Arc::clone(&done), Arc::clone(&sent));
    let address = house.proxy.address();
    let notifying = tasks::spawn("notifies", async move {
        let login = [("user", "postgres"), ("database", "postgres")];
        let mut other = Raw::connect(address, &login).await.unwrap();
        while !goes_on.load(Ordering::Relaxed) {
            let sent = count.fetch_add(1, Ordering::Relaxed) + 1;
            other.query(&format!("NOTIFY news, '{sent}'")).await;
        }
        other.query("NOTIFY news, 'end'").await;
    });
    let dice = &mut Dice::from_env();
    let (mut all, mut own, mut steps) = (Vec::new(), 0, 0);
    // So many of either that there is something to miss.
    while steps < 300 || sent.load(Ordering::Relaxed) < 300 {
        steps += 1;
        let text = match dice.below(8) {
            0 => "LISTEN more".to_owned(),
            1 => "UNLISTEN more".to_owned(),
            2 => "INSERT INTO noted VALUES (1)".to_owned(),
            3 => "BEGIN; LISTEN lost; ROLLBACK".to_owned(),
            4 => "BEGIN; UNLISTEN *; ROLLBACK".to_owned(),
            5 => "SELECT count(*) FROM noted".to_owned(),
            6 => "BEGIN; INSERT INTO noted VALUES (2); COMMIT".to_owned(),
            _ => {
                own += 1;
                format!("NOTIFY news, 'own {own}'")
            }
        };
        let answer = wire.query(&text).await;
        assert_eq!(answer.code(), None, "{text}");
        if text.starts_with("NOTIFY") {
            let mine = (wire.pid, "news".to_owned(), format!("own {own}"));
            assert!(
                heard(&answer).contains(&mine),
                "its own comes with the answer, and as its own"
            );
        }
        all.extend(heard(&answer).into_iter().map(|(_, _, payload)| payload));
    }
    done.store(true, Ordering::Relaxed);
    notifying.await.unwrap();
    let sent = sent.load(Ordering::Relaxed);
    all.extend(until(&mut wire, "end").await);

    let (mine, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.starts_with("own"));
    assert_eq!(mine, (1..=own).map(|number| format!("own {number}")).collect::<Vec<_>>());
    let expected = (1..=sent).map(|number| number.to_string()).chain(["end".to_owned()]);
    assert_eq!(others, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listening_begins_and_ends_as_the_server_says() {
    let house = house();
    let (mut wire, mut other) = (Raw::enter(&house).await, Raw::enter(&house).await);
    let mut last = 0;
    // What is said, and the channels that are listened to then.
    let steps: [(&[&str], &[&str]); 10] = [
        (&["NOTIFY a, 'too early'", "LISTEN a"], &["a"]),
        (&["BEGIN", "LISTEN b", "ROLLBACK"], &["a"]),
        (&["BEGIN", "LISTEN b", "SAVEPOINT s", "LISTEN c", "ROLLBACK TO s", "COMMIT"], &["a", "b"]),
        (&["BEGIN", "UNLISTEN a", "SELECT 1/0", "COMMIT"], &["a", "b"]),
        (&["UNLISTEN a"], &["b"]),
        (&["DO $$ BEGIN EXECUTE 'LISTEN c'; EXECUTE 'UNLISTEN b'; END $$"], &["c"]),
        (&["SET client_encoding = 'LATIN1'", "LISTEN a"], &["a", "c"]),
        (&["SET client_encoding = 'UTF8'", "SELECT 1"], &["a", "c"]),
        (&["CREATE TEMP TABLE mine (i int)", "LISTEN b", "DROP TABLE mine"], &["a", "b", "c"]),
        (&["DISCARD ALL"], &[]),
    ];
    for (said, listens) in steps {
        for sql in said {
            wire.query(sql).await;
        }
        last += 1;
        for channel in ["a", "b", "c"] {
            other.query(&format!("NOTIFY {channel}, '{channel}{last}'")).await;
        }
        // By the same listener, so that nothing is still on its way when it comes.
        let mut told: Vec<_> = Vec::new();
        if let Some(end) = listens.last() {
            told = until(&mut wire, &format!("{end}{last}")).await;
        }
        told.extend(
            heard(&wire.query("SELECT 1").await).into_iter().map(|(_, _, payload)| payload),
        );
        let expected: Vec<_> = listens.iter().map(|channel| format!("{channel}{last}")).collect();
        assert_eq!(told, expected, "{said:?}");
    }
}

/// One that does not read costs nobody anything but itself, and is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_does_not_read_is_not_waited_for() {
    let house = house();
    let (mut slow, mut quick) = (Raw::enter(&house).await, Raw::enter(&house).await);
    slow.query("LISTEN news").await;
    quick.query("LISTEN news").await;
    let mut other = Raw::enter(&house).await;
    // More than the sockets' buffers and its ear hold.
    let flood =
        "SELECT count(pg_notify('news', i || repeat('x', 7000))) FROM generate_series(1, 500) i";
    for round in 0..7 {
        other.query(flood).await;
        other.query(&format!("NOTIFY news, 'round {round}'")).await;
        assert_eq!(until(&mut quick, &format!("round {round}")).await.len(), 501);
    }
    let warned = slow.until('N').await;
    let notice = warned.0.last().unwrap().field(b'M').unwrap();
    assert!(notice.contains("notifications may have been missed"), "{notice}");
    other.query("NOTIFY news, 'after'").await;
    assert_eq!(until(&mut slow, "after").await.last().unwrap(), "after", "and goes on");
}

/// The connection that listens is lost: it is told, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_listener_comes_back_and_says_so() {
    let house = house();
    let mut wire = Raw::enter(&house).await;
    wire.query("LISTEN news").await;
    assert_eq!(end_backends(house.server("primary"), "application_name = 'pgsteer listener'"), 1);
    let notice = wire.until('N').await.0.last().unwrap().field(b'M').unwrap();
    assert!(notice.contains("notifications may have been missed"), "{notice}");
    Raw::enter(&house).await.query("NOTIFY news, 'after'").await;
    assert_eq!(until(&mut wire, "after").await, ["after"]);
}

/// Where pgsteer's own user is not let in, the session listens itself, and nobody else has its
/// backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_listen_for_it_a_session_keeps_its_backend() {
    let reject = "host closed postgres all reject";
    let plan = |plan: Plan| plan.standbys(0).hba(reject);
    let house = Blueprint::new().servers(plan).set("pool.size", "3").build();
    let server = house.server("primary");
    server.rows("CREATE DATABASE closed").unwrap();
    server.rows("CREATE ROLE guest LOGIN").unwrap();
    let enter = || async {
        let login = [("user", "guest"), ("database", "closed")];
        Raw::connect(house.proxy.address(), &login).await.unwrap()
    };
    let (mut wire, mut other) = (enter().await, enter().await);
    wire.query("LISTEN news").await;
    let mine = wire.value("SELECT pg_backend_pid()").await;
    for _ in 0..5 {
        assert_ne!(other.value("SELECT pg_backend_pid()").await, mine);
    }
    other.query("NOTIFY news, 'hello'").await;
    assert_eq!(until(&mut wire, "hello").await, ["hello"]);
    assert_eq!(listeners(&house), "0");
}
