//! When the servers are asked about a user, and when what they said before will do.

use super::door::{Door, WITHIN, gate, target};
use super::postgres::Postgres;
use pgsteer::auth::{Method, Secret};
use pgsteer::backend::{ConnectError, Login, LoginSecret, Lookup, connect};
use pgsteer::board::Board;
use pgsteer::clock;
use pgsteer::frontend::login::Gate;
use pgsteer::pg::SqlState;
use pgsteer::topology::Topology;
use std::sync::Arc;
use std::time::Duration;

/// A server that believes everybody, so that what decides is what pgsteer was told of the user.
fn server() -> Postgres {
    let server = Postgres::start(|_| ("host all all 127.0.0.1/32 trust".into(), String::new()));
    server.sql("CREATE ROLE alice LOGIN PASSWORD 'old'");
    server.sql("CREATE TABLE asked (whom text)");
    server
}

/// A door that notes each question, and remembers answers for so long.
fn door(server: &Postgres, remembers: Duration) -> Door {
    let query = "WITH n AS (INSERT INTO asked VALUES ($1)) SELECT rolname::text, rolpassword \
                 FROM pg_authid WHERE rolname = $1";
    door_by(query, server, remembers)
}

fn door_by(query: &str, server: &Postgres, remembers: Duration) -> Door {
    let control = Login::new("postgres", "postgres", LoginSecret::None);
    let board = Arc::new(Board::new(Topology::unseen(Box::default())));
    let lookup = Lookup::new(vec![(target(server.port), control)], query.to_owned(), board);
    let gate = gate(Method::ScramSha256, "");
    let asks = Gate { lookup: Some(Arc::new(lookup)), lookup_age_max: remembers, ..gate };
    Door::open(asks, Some(target(server.port)))
}

/// Whether the user is let in with this password, and how many questions that took.
async fn log_in(server: &Postgres, door: &Door, user: &str, password: &str) -> (bool, u32) {
    let questions = || server.sql("SELECT count(*) FROM asked").parse::<u32>().unwrap();
    let before = questions();
    let secret = LoginSecret::Password(Secret::new(password.to_owned()).into());
    let login = Login::new(user, "postgres", secret);
    let let_in = match connect(&target(door.port), &login, WITHIN).await {
        Ok(_) => true,
        Err(error @ ConnectError::LoginRefused(_)) => {
            assert_eq!(error.sqlstate(), SqlState::INVALID_PASSWORD, "{error}");
            false
        }
        Err(error) => panic!("{user}: {error}"),
    };
    (let_in, questions() - before)
}

/// A user who comes again from where he has proved himself costs the servers nothing; one who
/// fails by what was remembered has them asked, and the next try is held against that. Without
/// the cache, which is the opposite, every login asks, and a new password counts at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_remembered_and_asked_for_again_when_it_fails() {
    let server = server();
    let remembers = door(&server, Duration::from_mins(1));
    let asks_always = door(&server, Duration::ZERO);
    let of = async |door, password| log_in(&server, door, "alice", password).await;

    assert_eq!(of(&remembers, "old").await, (true, 1));
    assert_eq!(of(&asks_always, "old").await, (true, 1));
    for _ in 0..5 {
        assert_eq!(of(&remembers, "old").await, (true, 0));
        assert_eq!(of(&asks_always, "old").await, (true, 1));
    }

    server.sql("ALTER ROLE alice PASSWORD 'new'");
    assert_eq!(of(&asks_always, "old").await, (false, 1));
    assert_eq!(of(&asks_always, "new").await, (true, 1));
    assert_eq!(of(&remembers, "old").await, (true, 0), "as long as it is remembered");
    assert_eq!(of(&remembers, "new").await, (false, 1), "before it is refused");
    assert_eq!(of(&remembers, "old").await, (false, 1), "no longer remembered");
    assert_eq!(of(&remembers, "new").await, (true, 1));
    assert_eq!(of(&remembers, "new").await, (true, 0));

    // Who guesses has every name asked for, whether there is such a user or not.
    for _ in 0..3 {
        assert_eq!(log_in(&server, &remembers, "nobody", "x").await, (false, 1));
    }
    assert_eq!(of(&remembers, "x").await, (false, 1));
    assert_eq!(of(&remembers, "x").await, (false, 1));
}

/// What the servers said is believed for so long and no longer, also if it goes on being used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_has_its_time() {
    let server = server();
    let age_max = Duration::from_millis(1500);
    let door = door(&server, age_max);
    assert_eq!(log_in(&server, &door, "alice", "old").await, (true, 1));
    // On a crowded machine the time may be over before somebody comes again.
    let mut again = 1;
    for _ in 0..100 {
        let (is_let_in, questions) = log_in(&server, &door, "alice", "old").await;
        assert!(is_let_in && questions <= 1, "{questions}");
        again = questions;
        if again == 0 {
            break;
        }
    }
    assert_eq!(again, 0, "nothing is remembered");
    server.sql("ALTER ROLE alice PASSWORD 'new'");
    let mut questions = 0;
    for _ in 0..15 {
        pgsteer::timer::sleep(age_max / 10).await;
        questions = log_in(&server, &door, "alice", "old").await.1;
        if questions > 0 {
            break;
        }
    }
    assert_eq!(questions, 1, "the old password is good for ever");
    assert_eq!(log_in(&server, &door, "alice", "old").await, (false, 1));
}

/// Servers that are slow to answer are not waited for where they have said something before. What
/// they say then counts for the next login; it was not listened to, and an old password was good
/// for as long as they were slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_counts_for_the_next_login() {
    let server = server();
    server.sql("CREATE TABLE slow AS SELECT 0 AS seconds");
    let query = "SELECT rolname::text, rolpassword FROM pg_authid, \
                 (SELECT pg_sleep(seconds) FROM slow) AS s WHERE rolname = $1";
    let door = door_by(query, &server, Duration::ZERO);
    assert!(log_in(&server, &door, "alice", "old").await.0);
    server.sql("UPDATE slow SET seconds = 1; ALTER ROLE alice PASSWORD 'new'");
    let began = clock::now();
    while log_in(&server, &door, "alice", "old").await.0 {
        let late = clock::now().since(began) > Duration::from_mins(1);
        assert!(!late, "the old password is good for ever");
        pgsteer::timer::sleep(Duration::from_millis(500)).await;
    }
    assert!(log_in(&server, &door, "alice", "new").await.0);
}
