//! Rules with real clients; PostgreSQL with the same lines in its `pg_hba.conf` is the judge.

use super::door::{Door, by_rules, files, gate};
use super::postgres::{Postgres, certificates, path, psql};
use super::tls::clients;
use pgsteer::auth::Method;
use pgsteer::backend::{Login, LoginSecret, Lookup};
use pgsteer::backend::{SslMode, Target, TlsPolicy};
use pgsteer::board::Board;
use pgsteer::frontend::login::Gate;
use pgsteer::net::{Listener, ServerFiles, ServerTls, UNIX_MODE};
use pgsteer::sandbox::Scratch;
use pgsteer::topology::{ServerId, Topology};
use std::path::Path;
use std::sync::Arc;

const QUERY: &str = "SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = $1";

/// A server with these rules, certificates and users; sockets lead in without a proof.
fn judge(dir: &Path, lines: &str) -> Postgres {
    let server = Postgres::start(|data| {
        for file in ["server.crt", "server.key", "ca.crt"] {
            std::fs::copy(dir.join(file), data.join(file)).unwrap();
        }
        let settings = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n\
                        ssl_ca_file = 'ca.crt'\n";
        (lines.to_owned(), settings.to_owned())
    });
    server.sql(
        "CREATE ROLE alice LOGIN PASSWORD 'secret'; CREATE ROLE bob LOGIN PASSWORD 'other'; \
         CREATE ROLE root LOGIN; CREATE ROLE nopass LOGIN; SET password_encryption = md5; \
         CREATE ROLE old LOGIN PASSWORD 'secret'",
    );
    server.sql("CREATE DATABASE alice");
    server
}

fn through_socket(server: &Postgres) -> Target {
    let policy = TlsPolicy { mode: SslMode::Disable, ..TlsPolicy::default() };
    Target::alone(ServerId(0), "db1", path(&server.dir), server.port, &policy).unwrap()
}

/// The same rules in front of the same server.
fn steward(dir: &Path, lines: &str, server: &Postgres) -> Gate {
    let asking = ServerFiles { client_ca: Some(dir.join("ca.crt")), ..files(dir, "server") };
    let control = Login::new("postgres", "postgres", LoginSecret::None);
    let servers = vec![(through_socket(server), control)];
    let board = Arc::new(Board::new(Topology::unseen(Box::default())));
    Gate {
        tls: Some(Arc::new(ServerTls::load(asking).unwrap())),
        lookup: Some(Arc::new(Lookup::new(servers, QUERY.to_owned(), board))),
        ..by_rules(lines, "")
    }
}

/// Who comes how: user, database, TLS, certificate.
type Comes = (&'static str, &'static str, &'static str, &'static str);

async fn ask(dir: &Path, port: u16, (user, database, tls, shown): Comes) -> Result<String, String> {
    let file = |end: &str| dir.join(format!("{shown}.{end}")).display().to_string();
    let info = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={user} dbname={database} \
         sslmode={tls} sslcert={} sslkey={}",
        file("crt"),
        file("key"),
    );
    let words = ["-d", &info, "-c", "SELECT session_user"].map(str::to_owned);
    let asked = tokio::task::spawn_blocking(move || {
        psql("localhost", port, user, &words.each_ref().map(String::as_str))
    });
    asked.await.unwrap()
}

const TABLE: &[&str] = &[
    "host all all 127.0.0.1/32 trust",
    "host all all 127.0.0.0 255.255.255.0 scram-sha-256",
    "host all all 10.0.0.0/8 trust",
    "host all all samehost trust",
    "host all all ::/0 trust",
    "hostssl all all all scram-sha-256\nhostnossl all all all reject",
    "hostnossl all all all scram-sha-256",
    "host all bob all reject\nhost all all all trust",
    "host all \"alice\",bob all trust",
    "host sameuser all all trust",
    "host \"sameuser\" all all trust",
    "host postgres alice all trust\nhost all all all md5",
    "host all all all md5",
    "hostssl all all all cert",
    "hostssl all all all cert clientcert=verify-full",
    "hostssl all all all scram-sha-256 clientcert=verify-ca",
    "hostssl all all all scram-sha-256 clientcert=verify-full",
    "hostssl all all all trust clientcert=verify-full",
    "host replication all all trust",
    "",
];

/// Whoever PostgreSQL lets in, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_mean_what_they_mean_to_postgresql() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    clients(dir);
    let mut let_in = 0;
    let mut refused = 0;
    for lines in TABLE {
        let judge = judge(dir, lines);
        let door = Door::open(steward(dir, lines, &judge), Some(through_socket(&judge)));
        for user in ["alice", "bob", "nopass", "old", "nobody"] {
            for (database, tls, shown) in [
                ("postgres", "disable", "nothing"),
                ("postgres", "require", "nothing"),
                ("postgres", "require", "alice"),
                ("postgres", "require", "bob"),
                ("alice", "disable", "nothing"),
            ] {
                let comes = (user, database, tls, shown);
                let expected = ask(dir, judge.port, comes);
                let (expected, found) = tokio::join!(expected, ask(dir, door.port, comes));
                assert_eq!(found.is_ok(), expected.is_ok(), "{lines}: {comes:?}: {found:?}");
                match found {
                    Ok(_) => let_in += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(let_in > 100 && refused > 200, "both must happen: {let_in}, {refused}");
}

/// A refusal says whom, from where and why, as PostgreSQL does, and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_a_rule_says_so() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    clients(dir);
    let lines = "host all bob all reject\nhostssl all alice all cert";
    let judge = judge(dir, lines);
    let door = Door::open(steward(dir, lines, &judge), Some(through_socket(&judge)));
    for (comes, words) in [
        (("bob", "postgres", "disable", "x"), "reject the connection: host \"127.0.0.1\", user"),
        (("eve", "postgres", "disable", "x"), "no entry in pgsteer's rules: host \"127.0.0.1\""),
        (("eve", "postgres", "require", "x"), "database \"postgres\", SSL encryption"),
        (("alice", "postgres", "disable", "x"), "database \"postgres\", no encryption"),
        (("alice", "postgres", "require", "x"), "requires a valid client certificate"),
        (("alice", "postgres", "require", "bob"), "certificate authentication failed for user"),
    ] {
        let error = ask(dir, door.port, comes).await.unwrap_err();
        assert!(error.contains("FATAL:") && error.contains(words), "{comes:?}: {error}");
    }
}

/// The operating system's word for who is at the other end of a socket file: we are root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_whom_the_system_says() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    let judge = judge(dir, "");
    let listener = Listener::unix(dir, 6432, UNIX_MODE).unwrap();
    let lines = "local all all peer\nhost all all all trust";
    Door::at(listener, steward(dir, lines, &judge), Some(through_socket(&judge)));
    let me =
        String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout);
    let me: &'static str = me.unwrap().trim().to_owned().leak();
    judge.sql(&format!("DROP ROLE root; CREATE ROLE \"{me}\" LOGIN"));
    let ask = |user: &'static str| {
        let host = path(dir).to_owned();
        tokio::task::spawn_blocking(move || psql(&host, 6432, user, &["-c", "SELECT session_user"]))
    };
    assert_eq!(ask(me).await.unwrap().as_deref(), Ok(me));
    let error = ask("alice").await.unwrap().unwrap_err();
    assert!(error.contains("FATAL:  peer authentication failed for user \"alice\""), "{error}");
}

/// Off by default: without a rule that says `md5`, the old hash opens nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_hash_opens_only_where_a_rule_says_so() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    let judge = judge(dir, "host all all all md5");
    let hash = judge.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'old'");
    let file = format!("\"old\" \"{hash}\"");
    let comes = ("old", "postgres", "disable", "x");
    // To the server as well, by the hash.
    let policy = TlsPolicy { mode: SslMode::Disable, ..TlsPolicy::default() };
    let target = Target::alone(ServerId(0), "db1", "127.0.0.1", judge.port, &policy).unwrap();
    for (gate, is_let_in) in [
        (by_rules("host all all all md5", &file), true),
        (by_rules("host all all all scram-sha-256", &file), false),
        (gate(Method::ScramSha256, &file), false),
        (steward(dir, "host all all all md5", &judge), true),
        (steward(dir, "host all all all scram-sha-256", &judge), false),
    ] {
        let shown = format!("{:?}", gate.access);
        let door = Door::open(gate, Some(target.clone()));
        let asked = ask(dir, door.port, comes).await;
        assert_eq!(asked.is_ok(), is_let_in, "{shown}: {asked:?}");
        if let Err(error) = asked {
            assert!(error.contains("password authentication failed for user \"old\""), "{error}");
        }
    }
}
