//! `frontend::login` with real clients, and with everything else that may knock.

use super::door::{Door, Ear, WITHIN, files, gate, server, target, tls};
use super::postgres::{certificates, path, psql};
use pgsteer::auth::Method;
use pgsteer::backend::{Login, LoginSecret, Lookup, Target};
use pgsteer::board::Board;
use pgsteer::clock;
use pgsteer::frontend::login::{Entered, Gate, enter};
use pgsteer::metrics::Admission;
use pgsteer::net::{Listener, ServerFiles, ServerTls, UNIX_MODE};
use pgsteer::sandbox::Scratch;
use pgsteer::tasks;
use pgsteer::topology::Topology;
use pgsteer::wire::message::read_error;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const QUERY: &str = "SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = $1";

fn lookup(targets: Vec<Target>) -> Arc<Lookup> {
    let control = Login::new("postgres", "postgres", LoginSecret::None);
    let servers = targets.into_iter().map(|target| (target, control.clone())).collect();
    let board = Board::new(Topology::unseen(Box::default()));
    Arc::new(Lookup::new(servers, QUERY.to_owned(), Arc::new(board)))
}

/// psql proves itself to us by SCRAM; with the key that it showed we log in to the server as
/// the same user. Nobody but psql ever knows the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_passed_through_without_a_password() {
    let server = server();
    let unreachable = target(1);
    let gate = Gate {
        lookup: Some(lookup(vec![unreachable, target(server.port)])),
        ..gate(Method::ScramSha256, "")
    };
    let door = Door::open(gate, Some(target(server.port)));
    assert!(matches!(door.keyring.secret_for("alice"), LoginSecret::None));

    let who = door.psql("alice", &["-c", "SELECT session_user"]).await;
    assert_eq!(who.as_deref(), Ok("alice"));
    assert!(matches!(door.keyring.secret_for("alice"), LoginSecret::Keys(_)));

    // The same words for a wrong password, for no password, and for nobody.
    let mut told = BTreeSet::new();
    for user in ["bob", "nopass", "nobody"] {
        let error = door.psql(user, &["-c", "SELECT 1"]).await.unwrap_err();
        let (_, words) = error.split_once("failed: ").unwrap();
        told.insert(words.replace(&format!("\"{user}\""), "USER"));
    }
    let expected = "FATAL:  password authentication failed for user USER\nDETAIL:  ";
    assert!(told.len() == 1 && told.iter().all(|told| told.starts_with(expected)), "{told:?}");

    // A new password counts at once, also when our connection to the server was lost; and so does
    // the same one with another salt: the old key is of no use, the new one is learnt.
    server.sql("ALTER ROLE bob PASSWORD 'secret'");
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE usename = 'postgres' AND pid <> pg_backend_pid()",
    );
    assert_eq!(heard(&door, "bob", &["-c", "SELECT session_user"]).await.as_deref(), Ok("bob"));
    for _ in 0..10 {
        server.sql("ALTER ROLE alice PASSWORD 'secret'");
        assert_eq!(heard(&door, "alice", &["-c", "SELECT 1"]).await.as_deref(), Ok("1"));
    }
    server.sql("ALTER ROLE alice PASSWORD 'another'");
    let error = heard(&door, "alice", &["-c", "SELECT 1"]).await.unwrap_err();
    assert!(error.contains("password authentication failed for user \"alice\""), "{error}");
    server.sql("CREATE ROLE nobody LOGIN PASSWORD 'secret'");
    assert_eq!(heard(&door, "nobody", &["-c", "SELECT 1"]).await.as_deref(), Ok("1"));
}

/// How long servers are waited for that have spoken before; the same as in `frontend::prove`.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// The answer of a login for which the server was heard: one that is slow, on a crowded machine, is
/// not waited for, and what it says counts for the next login. So one of several counts.
async fn heard(
    door: &Door,
    user: &'static str,
    args: &'static [&'static str],
) -> Result<String, String> {
    for _ in 0..4 {
        let began = clock::now();
        let answer = door.psql(user, args).await;
        if clock::now().since(began) < HEARD_WITHIN {
            return answer;
        }
    }
    door.psql(user, args).await
}

/// Something that takes connections and says nothing.
struct Silent {
    _listener: std::net::TcpListener,
    port: u16,
}

impl Silent {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { _listener: listener, port }
    }
}

/// Asks about so many users at a time; how long the slowest took.
async fn slowest(lookup: &Arc<Lookup>, users: &[Arc<str>]) -> Duration {
    let began = clock::now();
    let asked: Vec<_> = users
        .iter()
        .map(|user| {
            let (lookup, user) = (Arc::clone(lookup), Arc::clone(user));
            tasks::spawn("question", async move { lookup.find(&user).await.is_ok() })
        })
        .collect();
    for question in asked {
        assert!(question.await.unwrap(), "a question was not answered");
    }
    clock::now().since(began)
}

/// Less than the two seconds that a silent server is waited for.
const SOON: Duration = Duration::from_millis(1500);
/// What a hundred questions took when each waited for the silent server, eight at a time.
const FOR_EACH: Duration = Duration::from_secs(25);
/// How long one that was late is asked after the others; the same as in `backend::lookup`.
const LATE: Duration = Duration::from_secs(5);
/// As long as a server is asked alone before others are: one that is silent is not asked first.
const AT_ONCE: Duration = Duration::from_millis(200);
/// How often it is measured before it counts as slow; on a crowded machine all is, now and then.
const ATTEMPTS: usize = 5;

/// Lets alice in, and says how long that took, with all that is none of ours.
async fn let_in(door: &Door) -> Duration {
    let began = clock::now();
    assert_eq!(door.psql("alice", &["-c", "SELECT 1"]).await.as_deref(), Ok("1"));
    clock::now().since(began)
}

/// Whether those who are remembered need not wait as for a silent server, beyond what logging in
/// takes on this machine now.
fn is_soon(asked: &[Duration], remembered: &[Duration]) -> bool {
    let (Some(asked), Some(remembered)) = (asked.iter().min(), remembered.iter().min()) else {
        return false;
    };
    remembered.saturating_sub(*asked) < SOON
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_holds_nobody_up() {
    let (first, second) = (server(), server());
    let verifier = first.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'");
    second.sql(&format!("ALTER ROLE alice PASSWORD '{verifier}'"));
    let silent = Silent::new();
    let users: Vec<Arc<str>> = (0..100).map(|number| format!("user{number}").into()).collect();
    let mut misses = Vec::new();
    for _ in 0..ATTEMPTS {
        let asked = lookup(vec![target(silent.port), target(first.port), target(second.port)]);
        let from_the_start = slowest(&asked, &users).await;
        // The one that answers falls silent in the middle, with our connections to it.
        first.freeze();
        let in_the_middle = slowest(&asked, &users).await;
        // Where all were late, also the one that answers is asked after others for a while.
        let (mut next, began) = (SOON, clock::now());
        while next >= AT_ONCE && clock::now().since(began) < 2 * LATE {
            next = next.min(slowest(&asked, &users[..1]).await);
        }
        first.thaw();
        if from_the_start.max(in_the_middle) < FOR_EACH / 2 && next < AT_ONCE {
            misses.clear();
            break;
        }
        misses.push([from_the_start, in_the_middle, next]);
    }
    assert!(misses.is_empty(), "{misses:?}");

    // All are silent: whoever logged in before gets in, and is refused as ever.
    let gate =
        Gate { lookup: Some(lookup(vec![target(second.port)])), ..gate(Method::ScramSha256, "") };
    let door = Door::open(gate, Some(target(first.port)));
    assert_eq!(door.psql("alice", &["-c", "SELECT 1"]).await.as_deref(), Ok("1"));
    assert!(door.psql("bob", &["-c", "SELECT 1"]).await.is_err());
    let (mut asked, mut remembered) = (Vec::new(), Vec::new());
    for _ in 0..ATTEMPTS {
        second.thaw();
        asked.push(let_in(&door).await);
        second.freeze();
        remembered.push(let_in(&door).await);
        if is_soon(&asked, &remembered) {
            break;
        }
    }
    let kept = "who is known is kept waiting";
    assert!(is_soon(&asked, &remembered), "{kept}: {asked:?} {remembered:?}");
    let error = door.psql("bob", &["-c", "SELECT 1"]).await.unwrap_err();
    assert!(error.contains("password authentication failed for user \"bob\""), "{error}");
    second.thaw();
}

/// Many who come at a time share questions and connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_asks_with_one_voice() {
    let server = server();
    let asked = lookup(vec![target(server.port)]);
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres' AND \
                       backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let counts = "SELECT sum(calls) FROM asked";
    server.sql("CREATE TABLE asked (calls int)");
    let counting = "WITH n AS (INSERT INTO asked VALUES (1)) SELECT rolname::text, rolpassword \
                    FROM pg_authid WHERE rolname = $1";
    let control = Login::new("postgres", "postgres", LoginSecret::None);
    let board = Board::new(Topology::unseen(Box::default()));
    let counted = Arc::new(Lookup::new(
        vec![(target(server.port), control)],
        counting.to_owned(),
        Arc::new(board),
    ));
    let alice: Vec<Arc<str>> = vec![Arc::from("alice"); 1000];
    slowest(&counted, &alice).await;
    let questions: u32 = server.sql(counts).parse().unwrap();
    assert!(questions < 100, "{questions} questions for a thousand logins");
    // A wrong password costs what a user costs that does not exist: nobody can tell by the time.
    let gate = Gate { lookup: Some(counted), ..gate(Method::ScramSha256, "") };
    let door = Door::open(gate, None);
    for _ in 0..2 {
        for user in ["bob", "nopass", "nobody"] {
            let before: u32 = server.sql(counts).parse().unwrap();
            assert!(door.psql(user, &["-c", "SELECT 1"]).await.is_err());
            assert_eq!(server.sql(counts).parse::<u32>().unwrap() - before, 1, "{user}");
        }
    }
    slowest(&asked, &alice).await;
    let open: u32 = server.sql(connections).parse().unwrap();
    assert!(open <= 8, "{open} connections");
}

/// Settings of the startup message arrive, and a verifier or a password in the file is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_users_log_in_without_a_lookup() {
    let server = server();
    let verifier = server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'");
    server.sql("ALTER ROLE bob PASSWORD 'secret'");
    let file = format!("\"alice\" \"{verifier}\"\n\"bob\" \"secret\"");
    let door = Door::open(gate(Method::ScramSha256, &file), Some(target(server.port)));

    assert_eq!(door.psql("alice", &["-c", "SELECT session_user"]).await.as_deref(), Ok("alice"));
    assert_eq!(door.psql("bob", &["-c", "SELECT session_user"]).await.as_deref(), Ok("bob"));
    let port = door.port;
    let shown = tokio::task::spawn_blocking(move || {
        let uri = format!(
            "postgresql://alice@127.0.0.1:{port}/postgres?options=-c%20work_mem%3D7MB&application_name=me"
        );
        psql(
            "127.0.0.1",
            port,
            "alice",
            &[
                "-d",
                &uri,
                "-c",
                "SELECT current_setting('work_mem') || current_setting('application_name')",
            ],
        )
    });
    assert_eq!(shown.await.unwrap().as_deref(), Ok("7MBme"));
}

/// Without any server that could be asked, who was seen before still gets in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_those_who_were_seen_before_get_in() {
    let server = server();
    let target = target(server.port);
    let gate = Gate { lookup: Some(lookup(vec![target.clone()])), ..gate(Method::ScramSha256, "") };
    let door = Door::open(gate, Some(target));
    assert_eq!(door.psql("alice", &["-c", "SELECT 1"]).await.as_deref(), Ok("1"));

    server.stop();
    let error = door.psql("alice", &["-c", "SELECT 1"]).await.unwrap_err();
    assert!(error.contains("cannot connect to server \"db1\": connection refused"), "{error}");
    let error = door.psql("bob", &["-c", "SELECT 1"]).await.unwrap_err();
    assert!(error.contains("FATAL:  cannot check the password of user \"bob\" now"), "{error}");
}

/// Through a socket file as psql looks for it; there is no TLS on it, whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_leads_in() {
    let server = server();
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    let listener = Listener::unix(dir, 6432, UNIX_MODE).unwrap();
    Door::at(listener, gate(Method::Trust, "\"alice\" \"secret\""), Some(target(server.port)));

    let host = path(dir).to_owned();
    let who = tokio::task::spawn_blocking(move || {
        psql(&host, 6432, "alice", &["-c", "SELECT session_user"])
    });
    assert_eq!(who.await.unwrap().as_deref(), Ok("alice"));
}

/// TLS as it is asked for, a certificate that is read again, and its opposite: none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_tls_if_we_have_it() {
    let server = server();
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    let tls = tls(dir, "server");
    let secured =
        Gate { tls: Some(Arc::clone(&tls)), ..gate(Method::ScramSha256, "\"alice\" \"secret\"") };
    let door = Door::open(secured, Some(target(server.port)));
    let plain =
        Door::open(gate(Method::ScramSha256, "\"alice\" \"secret\""), Some(target(server.port)));

    let with = |port: u16, mode: &str, root: &str| {
        let root = path(&dir.join(root)).to_owned();
        let info = format!(
            "host=localhost port={port} user=alice dbname=postgres sslmode={mode} sslrootcert={root}"
        );
        tokio::task::spawn_blocking(move || {
            psql("localhost", port, "alice", &["-d", &info, "-c", "\\conninfo"])
        })
    };
    let ca = "ca.crt";
    assert!(with(door.port, "verify-full", ca).await.unwrap().unwrap().contains("SSL"));
    assert!(with(door.port, "verify-full", "other-ca.crt").await.unwrap().is_err());
    assert!(!with(door.port, "disable", ca).await.unwrap().unwrap().contains("SSL"));
    assert!(
        with(plain.port, "verify-full", ca)
            .await
            .unwrap()
            .unwrap_err()
            .contains("does not support SSL")
    );
    assert!(!with(plain.port, "prefer", ca).await.unwrap().unwrap().contains("SSL"));

    std::fs::copy(dir.join("self.crt"), dir.join("server.crt")).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("server.crt"), "key of another");
    assert!(with(door.port, "verify-full", ca).await.unwrap().is_ok(), "the old one stays");
    std::fs::copy(dir.join("self.key"), dir.join("server.key")).unwrap();
    tls.reload().unwrap();
    assert!(with(door.port, "verify-full", ca).await.unwrap().is_err());
    assert!(with(door.port, "verify-full", "self.crt").await.unwrap().is_ok());

    let server = || files(dir, "server");
    let nowhere = ServerFiles { certificate: "/nonexistent".into(), ..server() };
    assert!(ServerTls::load(nowhere).unwrap_err().to_string().contains("/nonexistent"));
    let no_key = ServerFiles { key: dir.join("ca.crt"), ..server() };
    assert!(ServerTls::load(no_key).unwrap_err().to_string().contains("no private key"));
}

/// Sends bytes, reads until the end; the error that came, if one did.
async fn knock(port: u16, bytes: &[u8]) -> Result<(String, String), Vec<u8>> {
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = pgsteer::timer::timeout(WITHIN, client.read_to_end(&mut answer)).await;
    read.expect("the connection was not closed").unwrap();
    match read_error(&answer) {
        Ok(fields) if fields.is_fatal() => {
            Ok((fields.code.to_string(), String::from_utf8_lossy(fields.message).into_owned()))
        }
        Ok(_) | Err(_) => Err(answer),
    }
}

fn first(code: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap();
    [&length.to_be_bytes(), &code, body].concat()
}

/// Truncated, oversized, foreign, out of order: one clear error, and others are undisturbed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_anything_else_is_told_so() {
    let file = "\"alice\" \"secret\"";
    let door = Door::open(gate(Method::ScramSha256, file), None);
    let short = Duration::from_millis(600);
    let impatient = Door::open(Gate { timeout: short, ..gate(Method::ScramSha256, file) }, None);
    let port = door.port;
    let version = [0, 3, 0, 0];
    let alice = first(version, b"user\0alice\0\0");
    let after = |bytes: &[u8]| [&alice, bytes].concat();
    let huge = after(&[b"p\0\x01\0\0".as_slice(), &vec![b'x'; 65_536]].concat());

    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "08P01", "invalid length"),
        (vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3], "0A000", "direct TLS"),
        (first([0, 2, 0, 0], b""), "0A000", "unsupported frontend protocol 2.0"),
        (first(version, b"user\0alice"), "08P01", "invalid startup packet layout"),
        (first(version, b"database\0x\0\0"), "28000", "no PostgreSQL user name"),
        (first(version, b"user\0\xFF\xFE\0\0"), "22023", "not valid UTF-8"),
    ];
    for (bytes, code, message) in cases {
        let told = knock(port, &bytes).await.unwrap();
        assert!(told.0 == code && told.1.contains(message), "{bytes:?}: {told:?}");
    }
    // Behind a good startup message comes the wish for a proof, then the error.
    for bytes in
        [huge, after(b"Q\0\0\0\x0dSELECT 1\0"), after(b"p\0\0\0\x08zzzz"), after(b"p\0\0\0\x01")]
    {
        let answer = knock(port, &bytes).await.unwrap_err();
        assert_eq!(answer[0], b'R');
        let told = read_error(&answer[24..]).unwrap();
        assert_eq!(told.code.as_str(), "08P01", "{told:?}");
    }
    // The silent, and those who stop in the middle, cost no more than the timeout.
    for bytes in [&b""[..], &alice[..5], &alice[..]] {
        let answer = match knock(impatient.port, bytes).await {
            Ok((code, _)) => code,
            Err(answer) => read_error(&answer[24..]).unwrap().code.to_string(),
        };
        assert_eq!(answer, "57014", "{bytes:?}");
    }
    // A cancel that means nobody is closed without a word.
    assert_eq!(knock(port, &first([4, 0xD2, 0x16, 0x2E], b"\0\0\0\x01abcd")).await, Err(vec![]));
    assert!(
        door.psql("alice", &["-c", "SELECT 1"]).await.unwrap_err().contains("closed"),
        "it is let in; nobody serves it"
    );
}

/// Plaintext behind an `SSLRequest` never becomes a login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_behind_a_request_for_tls_is_not_heard() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    let secured = Gate { tls: Some(tls(dir, "server")), ..gate(Method::Trust, "") };
    let door = Door::open(secured, None);
    let injected =
        [pgsteer::wire::message::SSL_REQUEST.as_slice(), &first([0, 3, 0, 0], b"user\0alice\0\0")]
            .concat();
    let mut client = TcpStream::connect(("127.0.0.1", door.port)).await.unwrap();
    client.write_all(&injected).await.unwrap();
    let mut answer = Vec::new();
    let _read = pgsteer::timer::timeout(WITHIN, client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"", "it is closed, and told nothing");
}

/// Trust is for this machine; a newer protocol is offered ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_lets_this_machine_in() {
    let door = Door::open(gate(Method::Trust, ""), None);
    let answer = knock(door.port, &first([0, 3, 0, 2], b"user\0a\0_pq_.x\0on\0\0")).await;
    assert_eq!(
        answer,
        Err(b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0R\0\0\0\x08\0\0\0\0".to_vec())
    );

    let elsewhere = Command::new("hostname").arg("-I").output().unwrap();
    let elsewhere = String::from_utf8(elsewhere.stdout).unwrap();
    let Some(address) = elsewhere.split_whitespace().next() else {
        return; // a machine with loopback alone
    };
    let listener = Listener::tcp(format!("{address}:0").parse().unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    let gate = gate(Method::Trust, "");
    let mut client = TcpStream::connect(at).await.unwrap();
    client.write_all(&first([0, 3, 0, 0], b"user\0a\0\0")).await.unwrap();
    let stream = Ear::new(listener).accept().await;
    let entered = enter(stream, &gate).await;
    assert!(matches!(entered, Entered::Nobody(Admission::AuthFailed)), "{entered:?}");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(read_error(&answer).unwrap().code.as_str(), "28000");
}
