//! When the servers are asked about a user, and when what they said before will do.

use super::door::{Door, WITHIN, gate, target};
use super::postgres::Postgres;
use crate::support::quickly_enough;
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
    let asked = format!("SELECT count(*) FROM asked WHERE whom = '{user}'");
    let questions = || server.sql(&asked).parse::<u32>().unwrap();
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

/// How long servers are waited for that have spoken before; the same as in `frontend::prove`.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// Logins, each of which is to end in its own way.
struct Logins<'a> {
    server: &'a Postgres,
    slowest: Duration,
    odd: Vec<String>,
}

impl Logins<'_> {
    /// Whether he is to be let in, and how many questions that is to take.
    async fn expect(&mut self, door: &Door, (user, password): (&str, &str), expected: (bool, u32)) {
        let began = clock::now();
        let told = log_in(self.server, door, user, password).await;
        self.slowest = self.slowest.max(clock::now().since(began));
        if told != expected {
            self.odd.push(format!("{user} with {password}: {told:?}, not {expected:?}"));
        }
    }

    /// An error if the server was too slow to be waited for, which decides otherwise.
    fn end(self) -> Result<(), String> {
        let Self { slowest, odd, .. } = self;
        if !odd.is_empty() && slowest >= HEARD_WITHIN {
            return Err(format!("{slowest:?}: {odd:?}"));
        }
        assert!(odd.is_empty(), "{odd:?}");
        Ok(())
    }
}

/// A user who comes again from where he has proved himself costs the servers nothing; one who
/// fails by what was remembered has them asked, and the next try is held against that. Without
/// the cache, which is the opposite, every login asks, and a new password counts at once.
#[test]
fn an_answer_is_remembered_and_asked_for_again_when_it_fails() {
    let server = server();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut number = 0;
    quickly_enough("the server is heard", || {
        number += 1;
        let (alice, nobody) = (format!("alice{number}"), format!("nobody{number}"));
        server.sql(&format!("CREATE ROLE {alice} LOGIN PASSWORD 'old'"));
        runtime.block_on(remembered_and_asked_again(&server, &alice, &nobody))
    });
}

async fn remembered_and_asked_again(
    server: &Postgres,
    alice: &str,
    nobody: &str,
) -> Result<(), String> {
    let (remembers, asks_always) =
        (&door(server, Duration::from_mins(1)), &door(server, Duration::ZERO));
    let mut logins = Logins { server, slowest: Duration::ZERO, odd: Vec::new() };

    logins.expect(remembers, (alice, "old"), (true, 1)).await;
    logins.expect(asks_always, (alice, "old"), (true, 1)).await;
    for _ in 0..5 {
        logins.expect(remembers, (alice, "old"), (true, 0)).await;
        logins.expect(asks_always, (alice, "old"), (true, 1)).await;
    }

    server.sql(&format!("ALTER ROLE {alice} PASSWORD 'new'"));
    logins.expect(asks_always, (alice, "old"), (false, 1)).await;
    logins.expect(asks_always, (alice, "new"), (true, 1)).await;
    // As long as it is remembered; then before it is refused; and it is no longer remembered.
    logins.expect(remembers, (alice, "old"), (true, 0)).await;
    logins.expect(remembers, (alice, "new"), (false, 1)).await;
    logins.expect(remembers, (alice, "old"), (false, 1)).await;
    logins.expect(remembers, (alice, "new"), (true, 1)).await;
    logins.expect(remembers, (alice, "new"), (true, 0)).await;

    // Who guesses has every name asked for, whether there is such a user or not.
    for _ in 0..3 {
        logins.expect(remembers, (nobody, "x"), (false, 1)).await;
    }
    logins.expect(remembers, (alice, "x"), (false, 1)).await;
    logins.expect(remembers, (alice, "x"), (false, 1)).await;
    logins.end()
}

/// What the servers said is believed for so long and no longer, also if it goes on being used.
#[test]
fn what_is_remembered_has_its_time() {
    let server = server();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut number = 0;
    quickly_enough("the server is heard", || {
        number += 1;
        let alice = format!("alice{number}");
        server.sql(&format!("CREATE ROLE {alice} LOGIN PASSWORD 'old'"));
        runtime.block_on(remembered_for_its_time(&server, &alice))
    });
}

async fn remembered_for_its_time(server: &Postgres, alice: &str) -> Result<(), String> {
    let age_max = Duration::from_millis(1500);
    let door = door(server, age_max);
    assert_eq!(log_in(server, &door, alice, "old").await, (true, 1));
    // On a crowded machine the time may be over before somebody comes again.
    let mut again = 1;
    for _ in 0..100 {
        let (is_let_in, questions) = log_in(server, &door, alice, "old").await;
        assert!(is_let_in && questions <= 1, "{questions}");
        again = questions;
        if again == 0 {
            break;
        }
    }
    assert_eq!(again, 0, "nothing is remembered");
    server.sql(&format!("ALTER ROLE {alice} PASSWORD 'new'"));
    let mut questions = 0;
    for _ in 0..15 {
        pgsteer::timer::sleep(age_max / 10).await;
        let began = clock::now();
        questions = log_in(server, &door, alice, "old").await.1;
        let took = clock::now().since(began);
        if took >= HEARD_WITHIN {
            return Err(format!("{questions} within {took:?}"));
        }
        if questions > 0 {
            break;
        }
    }
    assert_eq!(questions, 1, "the old password is good for ever");
    let mut logins = Logins { server, slowest: Duration::ZERO, odd: Vec::new() };
    logins.expect(&door, (alice, "old"), (false, 1)).await;
    logins.end()
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
