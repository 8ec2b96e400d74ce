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
/// Parts whose medians tell how far medians of the same thing lie apart.
const PARTS: usize = 20;
/// What a server takes longer to find a row than to find none, which is not ours to hide.
const OF_THE_SERVER: Duration = Duration::from_micros(20);

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

fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// How far medians of the same thing lie apart: of parts that are dealt out in turn, so that each
/// spans the whole time, and whatever else this machine does meanwhile is in all of them.
fn spread(samples: &[Duration]) -> Duration {
    let part =
        |at: usize| -> Vec<Duration> { samples.iter().skip(at).step_by(PARTS).copied().collect() };
    let medians: Vec<Duration> = (0..PARTS).map(|at| median(&part(at))).collect();
    medians.iter().max().unwrap().abs_diff(*medians.iter().min().unwrap())
}

/// Tries of two users in turn: the medians' difference, and the spread of the first's.
async fn compare(port: u16, users: [&str; 2], between: impl Fn()) -> (Duration, Duration) {
    let tries = std::env::var("PGSTEER_TRIES").map_or(TRIES, |tries| tries.parse().unwrap());
    let wrong = || Password::from(Secret::new("wrong".to_owned()));
    let passwords = [wrong(), wrong()];
    let mut taken = [Vec::new(), Vec::new()];
    let mut words = [String::new(), String::new()];
    for turn in 0..=tries {
        for at in [turn % 2, 1 - turn % 2] {
            between();
            let (told, time) = guess(port, users[at], &passwords[at]).await;
            words[at] = told.replace(users[at], "USER");
            // The first of each opens connections.
            if turn > 0 {
                taken[at].push(time);
            }
        }
    }
    assert_eq!(words[0], words[1]);
    assert_eq!(words[0], "28P01 password authentication failed for user \"USER\"");
    let [known, unknown] = &taken;
    let difference = median(known).abs_diff(median(unknown));
    (difference, spread(known).max(spread(unknown)).max(OF_THE_SERVER))
}

/// Neither the words nor the time tell whether a user exists: what lies between him and one who
/// does not is no more than what lies between his own tries. Where a password is hashed anew at
/// each login, which is the opposite, it is found out.
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

    for (door, name) in [(&by_query, "auth.query"), (&by_file, "auth.file")] {
        let (difference, spread) = compare(door.port, ["alice", "nobody"], || ()).await;
        assert!(difference <= spread, "{name}: {difference:?} lies beyond {spread:?}");
    }
    let leaks = |keyring: &Keyring| keyring.replace_file(Userlist::parse(file).unwrap());
    let keyring = Arc::clone(&by_file.keyring);
    let (difference, spread) = compare(by_file.port, ["alice", "nobody"], || leaks(&keyring)).await;
    assert!(difference > spread, "{difference:?} within {spread:?}: nothing would be found");
}

/// Whoever fails again and again is answered later and later; whoever does not fail is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_later_and_later() {
    let longest = Duration::from_millis(400);
    let gate = gate(Method::ScramSha256, "\"alice\" \"secret\"");
    let slow = Door::open(Gate { failure_delay: longest, ..gate }, None);
    let wrong = Password::from(Secret::new("wrong".to_owned()));
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(guess(slow.port, "alice", &wrong).await.1);
    }
    assert!(waits[4] < Duration::from_millis(100), "{waits:?}");
    for (wait, least) in waits[5..].iter().zip([100, 200, 400, 400]) {
        assert!(*wait >= Duration::from_millis(least), "{waits:?}");
    }
    // Nor is one kept waiting who does not exist, or who is right: psql is let in and closed.
    let (_, other) = guess(slow.port, "nobody", &wrong).await;
    assert!(other >= longest, "{other:?}");
    let began = clock::now();
    let error = slow.psql("alice", &["-c", "SELECT 1"]).await.unwrap_err();
    assert!(error.contains("closed the connection"), "{error}");
    assert!(clock::now().since(began) < longest, "who is right waits");
}
