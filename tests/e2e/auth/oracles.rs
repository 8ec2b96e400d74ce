//! What a login tells somebody who has no password: the same of every name, message by message,
//! and no more than PostgreSQL does.
//!
//! That the time does not tell either is `guessing`'s.

use super::door::{Door, by_rules, target};
use super::postgres::Postgres;
use crate::support::{Blueprint, House};
use pgsteer::auth::Secret;
use pgsteer::auth::scram::{Binding, ClientFirst, ClientSecret, NONCE_BYTES, Nonce};
use pgsteer::backend::{Login, LoginSecret, Lookup};
use pgsteer::board::Board;
use pgsteer::frontend::login::Gate;
use pgsteer::sandbox::{Auth, SUPERUSER};
use pgsteer::topology::Topology;
use pgsteer::wire::frame;
use pgsteer::wire::message::{
    AuthRequest, read_auth_request, read_error, write_password, write_sasl_initial,
    write_sasl_response, write_startup,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads SQL of verifiers as the proxy does by default.
const QUERY: &str = "SELECT rolname::text, CASE WHEN rolvaliduntil < now() THEN NULL \
                     ELSE rolpassword END FROM pg_authid WHERE rolname = $1 AND rolcanlogin";
/// Each kind of name: there is none, it has no password, an old hash only, one that has expired,
/// it may not log in, or the password is another.
const USERS: [&str; 6] = ["mallory", "nopass", "old", "expired", "group", "alice"];
/// The one database where the old hash will do.
const LEGACY: &str = "legacy";

/// What a client was told from its first message to the end of the connection, without what is of
/// its own choice, or random.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    messages: Vec<String>,
    /// `DETAIL` and `HINT` of its end.
    more: [String; 2],
    salt: String,
}

async fn message(tcp: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; frame::HEADER];
    tcp.read_exact(&mut message).await.unwrap();
    let total = frame::peek(&message).unwrap().unwrap().total;
    message.resize(total, 0);
    tcp.read_exact(&mut message[frame::HEADER..]).await.unwrap();
    message
}

/// One try with a wrong password.
async fn guess(port: u16, database: &str, user: &str) -> Told {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut told = Told { messages: Vec::new(), more: Default::default(), salt: String::new() };
    let secret = ClientSecret::Password(Secret::new("wrong".to_owned()).into());
    let nonce = Nonce::new([7; NONCE_BYTES]);
    let (hello, client) = ClientFirst::new(secret, Binding::Unsupported, nonce);
    let mut client = Some(client);
    let mut out = Vec::new();
    write_startup(&mut out, &[("user", user), ("database", database)]).unwrap();
    loop {
        tcp.write_all(&out).await.unwrap();
        out.clear();
        let answer = message(&mut tcp).await;
        if answer[0] == b'E' {
            let error = read_error(&answer).unwrap();
            let text =
                |text: &[u8]| String::from_utf8_lossy(text).replace(&format!("\"{user}\""), "USER");
            let (severity, words) = (text(error.severity), text(error.message));
            told.messages.push(format!("{severity} {} {words}", error.code));
            told.more = [error.detail, error.hint].map(|more| text(more.unwrap_or_default()));
            let mut rest = Vec::new();
            tcp.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"", "something behind the end");
            return told;
        }
        match read_auth_request(&answer).unwrap() {
            AuthRequest::Sasl(offered) => {
                told.messages.push(format!("SASL {}", offered.join(" ")));
                write_sasl_initial(&mut out, "SCRAM-SHA-256", hello.as_bytes()).unwrap();
            }
            AuthRequest::SaslContinue(challenge) => {
                let text = String::from_utf8(challenge.to_vec()).unwrap();
                let mut parts = text.split(',').map(|part| part.split_at(2).1);
                let [nonce, salt, hashed] = [(); 3].map(|()| parts.next().unwrap());
                let (nonce_long, salt_long) = (nonce.len(), salt.len());
                let words = format!("nonce of {nonce_long}, salt of {salt_long}, {hashed} times");
                told.messages.push(words);
                salt.clone_into(&mut told.salt);
                let (proof, _) = client.take().unwrap().next(&challenge).unwrap();
                write_sasl_response(&mut out, proof.as_bytes()).unwrap();
            }
            AuthRequest::Md5Password(_) => {
                told.messages.push("md5".to_owned());
                write_password(&mut out, b"md5d41d8cd98f00b204e9800998ecf8427e");
            }
            other @ (AuthRequest::Ok
            | AuthRequest::CleartextPassword
            | AuthRequest::SaslFinal(_)
            | AuthRequest::Other(_)) => panic!("{user}: {other:?}"),
        }
    }
}

/// A server that asks for SCRAM, or in one database also for md5, with a user of each kind.
fn people() -> Postgres {
    let server = Postgres::start(|_| {
        let hba = "host all postgres 127.0.0.1/32 trust\nhost legacy all 127.0.0.1/32 md5\n\
                   host all all 127.0.0.1/32 scram-sha-256";
        (hba.to_owned(), String::new())
    });
    for sql in [
        "CREATE ROLE alice LOGIN PASSWORD 'secret'",
        "CREATE ROLE nopass LOGIN",
        "CREATE ROLE expired LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01'",
        "CREATE ROLE \"group\" NOLOGIN PASSWORD 'secret'",
        "SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD 'secret'",
    ] {
        server.sql(sql);
    }
    server
}

/// What each of them is told there.
async fn all(port: u16, database: &str) -> BTreeMap<&'static str, Told> {
    let mut all = BTreeMap::new();
    for user in USERS {
        let told = guess(port, database, user).await;
        let again = guess(port, database, user).await;
        assert_eq!(told, again, "{user}: another answer at the second try");
        all.insert(user, told);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_told_at_a_login_differs_by_who_exists() {
    let server = people();
    let control = Login::new("postgres", "postgres", LoginSecret::None);
    let board = Arc::new(Board::new(Topology::unseen(Box::default())));
    let lookup = Lookup::new(vec![(target(server.port), control)], QUERY.to_owned(), board);
    let rules = "host legacy all all md5\nhost all all all scram-sha-256\n";
    let gate = Gate { lookup: Some(Arc::new(lookup)), ..by_rules(rules, "") };
    let door = Door::open(gate, None);

    let ours = all(door.port, "postgres").await;
    let theirs = all(server.port, "postgres").await;
    let one = &ours["alice"];
    assert_eq!(one.messages.len(), 3, "{one:?}");
    for user in USERS {
        let (our, their) = (&ours[user], &theirs[user]);
        assert_eq!(our.messages, their.messages, "{user}: PostgreSQL says something else");
        assert_eq!((&our.messages, &our.more), (&one.messages, &one.more), "{user} is known by it");
    }
    let salts: BTreeSet<_> = ours.values().map(|told| &told.salt).collect();
    assert_eq!(salts.len(), USERS.len(), "who shares his salt does not exist");

    // Where the old hash will do, it is known who has only that, as with PostgreSQL; nobody else is
    // told apart.
    let (ours_there, theirs_there) = (all(door.port, LEGACY).await, all(server.port, LEGACY).await);
    assert_eq!(ours_there["old"].messages[0], "md5");
    for user in USERS {
        assert_eq!(ours_there[user].messages, theirs_there[user].messages, "{user}");
        if user != "old" {
            assert_eq!(ours_there[user], ours[user], "{user}");
        }
    }
}

/// Whoever asks again after a restart gets the salt of before, for a name that does not exist as
/// for one that does, whose salt a server keeps. Where nothing is kept, which is the opposite, it
/// is known who does not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_does_not_tell_who_exists() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).auth(Auth::Password))
        .set("auth.method", "scram-sha-256")
        .set("limits.login_failure_delay", "0s")
        .build();
    let port = house.proxy.address().port();
    let ask = |user| guess(port, "postgres", user);
    let told = async || [ask(SUPERUSER).await, ask("mallory").await];
    let before = told().await;
    assert_eq!(before[0].messages, before[1].messages);
    restart(&house);
    assert_eq!(told().await, before);

    std::fs::remove_file(house.proxy.dir().join("state/salts")).unwrap();
    restart(&house);
    let [real, made_up] = told().await;
    assert_eq!(real, before[0]);
    assert_ne!(made_up, before[1]);
}

fn restart(house: &House) {
    house.proxy.signal(rustix::process::Signal::TERM);
    house.proxy.await_end().unwrap();
    house.proxy.start().unwrap();
    house.proxy.await_ready().unwrap();
}
