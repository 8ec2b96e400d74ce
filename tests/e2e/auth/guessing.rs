//! What somebody learns who guesses: nothing by the words, nothing by the time, and ever later.

use super::door::{Door, gate, server, target};
use pgsteer::auth::scram::{Binding, ClientFirst, ClientSecret, NONCE_BYTES, Nonce};
use pgsteer::auth::{Keyring, Method, Password, Secret, Userlist};
use pgsteer::backend::{Login, LoginSecret, Lookup};
use pgsteer::board::Board;
use pgsteer::clock;
use pgsteer::frontend::login::Gate;
use pgsteer::topology::Topology;
use pgsteer::wire::frame;
use pgsteer::wire::message::{
    AuthRequest, read_auth_request, read_error, write_sasl_initial, write_sasl_response,
    write_startup,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads SQL of verifiers as the proxy does by default.
const QUERY: &str = "SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = $1";
/// Tries of each kind; `make test-all` makes 2,000.
const TRIES: usize = 300;
/// How often it is measured, each time longer, before what is found counts: other tests keep the
/// same cores busy.
const ATTEMPTS: usize = 4;
/// Parts that tell how far apart the same thing lies from itself.
const PARTS: usize = 20;
/// What a server takes longer to find a row than to find none, which is not ours to hide.
const OF_THE_SERVER: Duration = Duration::from_micros(20);
/// After so long a failure is forgiven; the same as in `auth::failures`.
const FORGIVEN: Duration = Duration::from_secs(10);
const USERS: [&str; 2] = ["alice", "nobody"];

async fn message(tcp: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; frame::HEADER];
    tcp.read_exact(&mut message).await.unwrap();
    let total = frame::peek(&message).unwrap().unwrap().total;
    message.resize(total, 0);
    tcp.read_exact(&mut message[frame::HEADER..]).await.unwrap();
    message
}

/// One try with a wrong password; what it was told, and how long all answers took together,
/// without what the client itself computes.
async fn guess(port: u16, user: &str, password: &Password) -> (String, Duration) {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut waited = Duration::ZERO;
    let mut ask = async |bytes: &[u8]| {
        let began = clock::now();
        tcp.write_all(bytes).await.unwrap();
        let answer = message(&mut tcp).await;
        waited += clock::now().since(began);
        answer
    };
    let mut out = Vec::new();
    write_startup(&mut out, &[("user", user)]).unwrap();
    ask(&out).await;
    let secret = ClientSecret::Password(password.clone());
    let nonce = Nonce::new([7; NONCE_BYTES]);
    let (hello, client) = ClientFirst::new(secret, Binding::Unsupported, nonce);
    out.clear();
    write_sasl_initial(&mut out, "SCRAM-SHA-256", hello.as_bytes()).unwrap();
    let AuthRequest::SaslContinue(salt) = read_auth_request(&ask(&out).await).unwrap() else {
        panic!("no salt")
    };
    let (proof, _) = client.next(&salt).unwrap();
    out.clear();
    write_sasl_response(&mut out, proof.as_bytes()).unwrap();
    let answer = ask(&out).await;
    let told = read_error(&answer).unwrap();
    (format!("{} {}", told.code, String::from_utf8_lossy(told.message)), waited)
}

/// By which of the tries they are compared, in the order of the time that they took.
#[derive(Debug, Clone, Copy)]
enum Rank {
    /// That behind the first tenth: nobody else on this machine was in the way of those, which is
    /// all that differs between a busy one and an idle one.
    Undisturbed,
    Median,
}

impl Rank {
    fn of(self, samples: &[Duration]) -> Duration {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        match self {
            Self::Undisturbed => sorted[sorted.len() / 10],
            Self::Median => sorted[sorted.len() / 2],
        }
    }

    /// How far the same thing lies apart from itself: in parts that are dealt out in turn, so that
    /// each spans the whole time, and whatever else this machine does meanwhile is in all of them.
    fn spread(self, samples: &[Duration]) -> Duration {
        let part = |at| samples.iter().skip(at).step_by(PARTS).copied().collect::<Vec<_>>();
        let parts: Vec<Duration> = (0..PARTS).map(|at| self.of(&part(at))).collect();
        parts.iter().max().unwrap().abs_diff(*parts.iter().min().unwrap())
    }
}

/// A door, what happens before each try at it, and how long the tries of each user took.
struct Arm<'a> {
    name: &'static str,
    door: &'a Door,
    before: &'a dyn Fn(),
    taken: [Vec<Duration>; 2],
}

/// What lies between the two users, and what lies between tries of the same one.
#[derive(Debug)]
struct Found {
    name: &'static str,
    #[expect(dead_code, reason = "it is shown")]
    by: Rank,
    difference: Duration,
    spread: Duration,
}

impl Arm<'_> {
    fn found(&self) -> [Found; 2] {
        let [known, unknown] = &self.taken;
        [Rank::Undisturbed, Rank::Median].map(|by| Found {
            name: self.name,
            by,
            difference: by.of(known).abs_diff(by.of(unknown)),
            spread: by.spread(known).max(by.spread(unknown)).max(OF_THE_SERVER),
        })
    }
}

impl Found {
    fn tells(&self) -> bool {
        self.difference > self.spread
    }
}

/// So many tries of both users at each of the doors, all in turn.
async fn compare(arms: &mut [Arm<'_>], passwords: &[Password; 2], tries: usize) -> Vec<[Found; 2]> {
    for turn in 0..=tries {
        for arm in &mut *arms {
            for at in [turn % 2, 1 - turn % 2] {
                (arm.before)();
                let (told, time) = guess(arm.door.port, USERS[at], &passwords[at]).await;
                let told = told.replace(USERS[at], "USER");
                assert_eq!(told, "28P01 password authentication failed for user \"USER\"");
                // The first of each opens connections.
                if turn > 0 {
                    arm.taken[at].push(time);
                }
            }
        }
    }
    arms.iter().map(Arm::found).collect()
}

/// Neither the words nor the time tell whether a user exists: what lies between him and one who
/// does not is no more than what lies between his own tries. Where a password is hashed anew at
/// each login, which is the opposite, it is found out, at the same time and in the same noise: a
/// measurement that does not find that much judges nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_does_not_tell_who_exists() {
    let server = server();
    let control = Login::new("postgres", "postgres", LoginSecret::None);
    let servers = vec![(target(server.port), control)];
    let board = Arc::new(Board::new(Topology::unseen(Box::default())));
    let lookup = Lookup::new(servers, QUERY.to_owned(), board);
    let asks = Gate { lookup: Some(Arc::new(lookup)), ..gate(Method::ScramSha256, "") };
    let by_query = Door::open(asks, None);
    let file = "\"alice\" \"secret\"";
    let by_file = Door::open(gate(Method::ScramSha256, file), None);
    let anew = Door::open(gate(Method::ScramSha256, file), None);
    let keyring = Arc::clone(&anew.keyring);
    let forgets = move || keyring.replace_file(Userlist::parse(file).unwrap());
    let wrong = || Password::from(Secret::new("wrong".to_owned()));
    let passwords = [wrong(), wrong()];
    let tries = std::env::var("PGSTEER_TRIES").map_or(TRIES, |tries| tries.parse().unwrap());

    let mut misses = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let arm = |name, door, before| Arm { name, door, before, taken: Default::default() };
        let mut arms = [
            arm("auth.query", &by_query, &|| ()),
            arm("auth.file", &by_file, &|| ()),
            arm("hashed anew", &anew, &forgets),
        ];
        let found = compare(&mut arms, &passwords, attempt * tries).await;
        eprintln!("{found:?}");
        // Noise may hide that much from the medians.
        let [asked, kept, anew] = found.as_slice() else { panic!("three doors") };
        if !asked.iter().chain(kept).any(Found::tells) && anew.iter().any(Found::tells) {
            return;
        }
        misses.push(found);
    }
    panic!("either it tells, or nothing would be found: {misses:#?}");
}

/// Whoever fails again and again is answered later and later; whoever does not fail is not. How
/// much longer it took than it must is this machine's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_later_and_later() {
    let longest = Duration::from_secs(8);
    let wrong = Password::from(Secret::new("wrong".to_owned()));
    let mut misses = Vec::new();
    // Of the tries that are free; at the first one the door makes a verifier.
    let mut shortest = [longest; 4];
    for _ in 0..2 * ATTEMPTS {
        let gate = gate(Method::ScramSha256, "\"alice\" \"secret\"");
        let slow = Door::open(Gate { failure_delay: longest, ..gate }, None);
        let mut waits = Vec::new();
        let first = clock::now();
        for _ in 0..9 {
            waits.push(guess(slow.port, "alice", &wrong).await.1);
        }
        let (_, other) = guess(slow.port, "nobody", &wrong).await;
        if clock::now().since(first) > FORGIVEN {
            misses.push(waits);
            continue;
        }
        for (wait, least) in waits[5..].iter().zip([100, 200, 400, 800]) {
            assert!(*wait >= Duration::from_millis(least), "{waits:?}");
        }
        // Nor is one kept waiting less who does not exist.
        assert!(other >= Duration::from_millis(1600), "{other:?}");
        // Who is right is not kept waiting at all: psql is let in and closed.
        let began = clock::now();
        let error = slow.psql("alice", &["-c", "SELECT 1"]).await.unwrap_err();
        assert!(error.contains("closed the connection"), "{error}");
        let right = clock::now().since(began);
        for (shortest, wait) in shortest.iter_mut().zip(&waits[1..5]) {
            *shortest = (*shortest).min(*wait);
        }
        let free = shortest.iter().all(|wait| *wait < Duration::from_millis(100));
        if free && right < Duration::from_millis(3200) {
            return;
        }
        waits.push(right);
        misses.push(waits);
    }
    panic!("nobody is answered in time: {misses:?}");
}

/// However often somebody fails, there is a longest wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_a_longest_wait() {
    let longest = Duration::from_millis(400);
    let gate = gate(Method::ScramSha256, "\"alice\" \"secret\"");
    let slow = Door::open(Gate { failure_delay: longest, ..gate }, None);
    let wrong = Password::from(Secret::new("wrong".to_owned()));
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(guess(slow.port, "alice", &wrong).await.1);
    }
    // Doubled each time, the last one would be 6.4 s.
    let shortest = *waits[8..].iter().min().unwrap();
    assert!(shortest >= longest && shortest < 3 * longest, "{waits:?}");
}
