//! `backend::connect` against real servers and against strangers.

use super::postgres::{Postgres, certificates, path};
use pgsteer::auth::Secret;
use pgsteer::backend::{
    ConnectError, Login, LoginSecret, Replication, SslMode, Target, TlsPolicy, cancel, connect,
};
use pgsteer::clock;
use pgsteer::pg::SqlState;
use pgsteer::topology::{ServerId, Unseen};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

fn target(host: &str, port: u16, mode: SslMode, root: Option<PathBuf>) -> Target {
    let policy = TlsPolicy { mode, root_cert: root, ..TlsPolicy::default() };
    Target::alone(ServerId(0), "db1", host, port, &policy).unwrap()
}

fn plain(port: u16) -> Target {
    target("127.0.0.1", port, SslMode::Disable, None)
}

fn with_password(user: &str, password: &str) -> Login {
    let secret = LoginSecret::Password(Secret::new(password.to_owned()).into());
    Login::new(user, "postgres", secret)
}

fn methods() -> Postgres {
    let server = Postgres::start(|_| {
        let hba = "host postgres trusted 127.0.0.1/32 trust\n\
                   host postgres,replication scram 127.0.0.1/32 scram-sha-256\n\
                   host postgres md5 127.0.0.1/32 md5\n\
                   host postgres plain 127.0.0.1/32 password\n\
                   host nowhere scram 127.0.0.1/32 scram-sha-256\n";
        (hba.to_owned(), String::new())
    });
    server.sql("CREATE ROLE trusted LOGIN");
    server.sql("CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret'");
    server.sql("CREATE ROLE plain LOGIN PASSWORD 'secret'");
    server.sql("SET password_encryption = md5; CREATE ROLE md5 LOGIN PASSWORD 'secret'");
    server
}

/// Every method that a server may ask for, with the right and with a wrong password.
#[tokio::test]
async fn each_method_lets_in_who_has_the_password() {
    let server = methods();
    let target = plain(server.port);

    let trusted = Login::new("trusted", "postgres", LoginSecret::None);
    let backend = connect(&target, &trusted, WITHIN).await.unwrap();
    let backend = backend.detach().unwrap().attach().unwrap();
    assert!(backend.pid > 0 && backend.key.len() == 4 && !backend.stream.is_tls());
    assert_eq!(backend.param("server_encoding"), Some(&b"UTF8"[..]));
    assert!(backend.opened_at <= clock::now());

    for user in ["scram", "md5", "plain"] {
        let mut backend = connect(&target, &with_password(user, "secret"), WITHIN).await.unwrap();
        let answer = backend.query("SELECT session_user").await.unwrap();
        assert_eq!(answer[0].text(0, 0), Some(user));

        let error = connect(&target, &with_password(user, "wrong"), WITHIN).await.unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::INVALID_PASSWORD, "{user}: {error}");
        assert_eq!(error.unseen(), Unseen::LoginRefused);
        let report = error.report("db1");
        assert_eq!(report.message, format!("password authentication failed for user \"{user}\""));
        assert_eq!(report.detail.as_deref(), Some("Server \"db1\"."));

        let nothing = Login::new(user, "postgres", LoginSecret::None);
        let error = connect(&target, &nothing, WITHIN).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoSecret { .. }), "{user}: {error}");
    }
    let hash = server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'md5'");
    let by_hash = Login::new("md5", "postgres", LoginSecret::Md5(Secret::new(hash)));
    connect(&target, &by_hash, WITHIN).await.unwrap();
}

/// What the server itself says no to keeps its own code.
#[tokio::test]
async fn a_refusal_keeps_the_servers_own_words() {
    let server = methods();
    let target = plain(server.port);

    let unknown_database = Login { database: "nowhere".into(), ..with_password("scram", "secret") };
    let error = connect(&target, &unknown_database, WITHIN).await.unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::INVALID_CATALOG_NAME);
    assert_eq!(error.report("db1").message, "database \"nowhere\" does not exist");

    let no_line = with_password("nobody", "secret");
    let error = connect(&target, &no_line, WITHIN).await.unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::INVALID_AUTHORIZATION);
    assert!(matches!(error, ConnectError::LoginRefused(_)));

    let mut crowd = Vec::new();
    let full = loop {
        match connect(&target, &with_password("plain", "secret"), WITHIN).await {
            Ok(backend) => crowd.push(backend),
            Err(error) => break error,
        }
        assert!(crowd.len() < 30);
    };
    assert_eq!(full.sqlstate(), SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(full.unseen(), Unseen::Full);
}

/// Questions: several sets, errors, parameters, replication commands, cancelling.
#[tokio::test]
async fn a_backend_answers_questions_and_can_be_cancelled() {
    let server = methods();
    let target = plain(server.port);
    let login = Login {
        replication: Replication::Database,
        params: vec![("application_name".to_owned(), "asker".to_owned())],
        ..with_password("scram", "secret")
    };
    let mut backend = connect(&target, &login, WITHIN).await.unwrap();

    let sets = backend.query("SELECT 1 AS one, NULL; SELECT 2 WHERE false; SET geqo = off").await;
    let sets = sets.unwrap();
    assert_eq!(sets[0].columns, ["one", "?column?"]);
    assert_eq!((sets[0].text(0, 0), sets[0].text(0, 1)), (Some("1"), None));
    assert!(sets[1].rows.is_empty());
    assert_eq!(sets[2].tag, "SET");

    let error = backend.query("SELECT 1/0").await.unwrap_err();
    assert!(error.leaves_usable(), "{error}");
    let answers = backend
        .pipeline(&["IDENTIFY_SYSTEM", "SELECT 1/0", "SHOW application_name"])
        .await
        .unwrap();
    assert_eq!(answers[0].as_ref().unwrap()[0].columns[0], "systemid");
    assert_eq!(answers[1].as_ref().unwrap_err().code, SqlState(*b"22012"));
    assert_eq!(answers[2].as_ref().unwrap()[0].text(0, 0), Some("asker"));

    let mut second = connect(&target, &with_password("plain", "secret"), WITHIN).await.unwrap();
    let found = second
        .query_with("SELECT usename FROM pg_user WHERE usename = $1", &["sc'ram"])
        .await
        .unwrap();
    assert!(found.rows.is_empty());
    let found = second
        .query_with("SELECT usename FROM pg_user WHERE usename = $1", &["scram"])
        .await
        .unwrap();
    assert_eq!(found.text(0, 0), Some("scram"));

    let (pid, key) = (second.pid, second.key.clone());
    let sleeps =
        pgsteer::tasks::spawn("sleeper", async move { second.query("SELECT pg_sleep(30)").await });
    // One that comes before the statement has begun would find nothing to cancel.
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while server.sql(asleep) != "1" {
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
    cancel(&target, pid, &key, WITHIN).await.unwrap();
    let error = pgsteer::timer::timeout(WITHIN, sleeps).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("57014"), "{error}");
}

/// What must come of a connection: with TLS, without, or none.
#[derive(Debug, PartialEq)]
enum Outcome {
    Tls,
    Plain,
    Untrusted,
    Refused,
}
use Outcome::{Plain, Refused, Tls, Untrusted};

/// A server with TLS, and roles that may log in with it, without it, or both.
struct Secured {
    server: Postgres,
    certs: PathBuf,
}

impl Secured {
    fn start() -> Self {
        let mut certs = PathBuf::new();
        let server = Postgres::start(|data| {
            certificates(data);
            data.clone_into(&mut certs);
            let hba = "host all either 127.0.0.1/32 trust\n\
                       hostssl all secured 127.0.0.1/32 trust\n\
                       hostnossl all unsecured 127.0.0.1/32 trust\n\
                       hostssl all bound 127.0.0.1/32 scram-sha-256\n";
            let settings = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
            (hba.to_owned(), settings.to_owned())
        });
        for user in ["either", "secured", "unsecured"] {
            server.sql(&format!("CREATE ROLE {user} LOGIN"));
        }
        server.sql("CREATE ROLE bound LOGIN PASSWORD 'secret'");
        Self { server, certs }
    }

    /// Changes settings and waits until new connections have them.
    async fn set(&self, settings: &[&str]) {
        for setting in settings {
            self.server.sql(&format!("ALTER SYSTEM SET {setting}"));
        }
        // New connections have what the postmaster has read, which it does in one go.
        let next = "SELECT current_setting('vacuum_cost_limit')::int + 1";
        let generation = self.server.sql(next);
        self.server.sql(&format!("ALTER SYSTEM SET vacuum_cost_limit = {generation}"));
        self.server.sql("SELECT pg_reload_conf()");
        while self.server.sql("SHOW vacuum_cost_limit") != generation {
            pgsteer::timer::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Connects as `user` to `host` in this mode, trusting the named certificate.
    async fn check(
        &self,
        (user, host, mode): (&str, &str, SslMode),
        root: &str,
        expected: Outcome,
    ) {
        let root_cert = (!root.is_empty()).then(|| self.certs.join(root));
        let target = target(host, self.server.port, mode, root_cert);
        let login = Login::new(user, "postgres", LoginSecret::None);
        let outcome = match connect(&target, &login, WITHIN).await {
            Ok(backend) if backend.stream.is_tls() => Tls,
            Ok(_) => Plain,
            Err(ConnectError::Tls { .. }) => Untrusted,
            Err(ConnectError::LoginRefused(_)) => Refused,
            Err(other) => panic!("{user} {host} {mode:?} {root}: {other}"),
        };
        assert_eq!(outcome, expected, "{user} {host} {mode:?} {root}");
    }
}

const ADDRESS: &str = "127.0.0.1";

#[tokio::test]
async fn each_ssl_mode_means_what_libpq_says() {
    let house = Secured::start();
    let cases = [
        ("either", ADDRESS, SslMode::Disable, "", Plain),
        ("either", ADDRESS, SslMode::Allow, "", Plain),
        ("either", ADDRESS, SslMode::Prefer, "", Tls),
        ("either", ADDRESS, SslMode::Require, "", Tls),
        ("secured", ADDRESS, SslMode::Disable, "", Refused),
        ("secured", ADDRESS, SslMode::Allow, "", Tls),
        ("unsecured", ADDRESS, SslMode::Prefer, "", Plain),
        ("unsecured", ADDRESS, SslMode::Require, "", Refused),
        // With a root every mode verifies what it finds, and `prefer` then does without.
        ("either", ADDRESS, SslMode::Allow, "other-ca.crt", Plain),
        ("secured", ADDRESS, SslMode::Allow, "ca.crt", Tls),
        ("secured", ADDRESS, SslMode::Allow, "other-ca.crt", Untrusted),
        ("either", ADDRESS, SslMode::Prefer, "ca.crt", Tls),
        ("either", ADDRESS, SslMode::Prefer, "other-ca.crt", Plain),
        ("secured", ADDRESS, SslMode::Prefer, "other-ca.crt", Refused),
        // So `require` becomes `verify-ca`, which does not look at the name.
        ("either", ADDRESS, SslMode::Require, "ca.crt", Tls),
        ("either", ADDRESS, SslMode::Require, "other-ca.crt", Untrusted),
        ("either", ADDRESS, SslMode::VerifyCa, "ca.crt", Tls),
        ("either", ADDRESS, SslMode::VerifyCa, "other-ca.crt", Untrusted),
        ("either", ADDRESS, SslMode::VerifyCa, "", Untrusted), // the system's authorities
        ("either", "localhost", SslMode::VerifyFull, "ca.crt", Tls),
        ("either", ADDRESS, SslMode::VerifyFull, "ca.crt", Untrusted),
        ("either", "localhost", SslMode::VerifyFull, "other-ca.crt", Untrusted),
    ];
    for (user, host, mode, root, expected) in cases {
        house.check((user, host, mode), root, expected).await;
    }
    let socket = path(&house.server.dir);
    house.check(("either", socket, SslMode::VerifyFull), "ca.crt", Plain).await;

    let secured = target(ADDRESS, house.server.port, SslMode::Require, None);
    cancel(&secured, 1, b"abcd", WITHIN).await.unwrap();

    // By SCRAM-SHA-256-PLUS, which the server offers.
    let backend = connect(&secured, &with_password("bound", "secret"), WITHIN).await.unwrap();
    let mut backend = *backend.detach().unwrap_err().expect("TLS stays, and stays usable");
    let who = backend.query("SELECT session_user").await.unwrap();
    assert_eq!(who[0].text(0, 0), Some("bound"));

    house.set(&["ssl = off"]).await;
    house.check(("either", ADDRESS, SslMode::Prefer), "", Plain).await;
    let login = Login::new("either", "postgres", LoginSecret::None);
    let error = connect(&secured, &login, WITHIN).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoTls), "{error}");
}

/// One certificate that is authority and server in one, as PostgreSQL's manual makes it.
#[tokio::test]
async fn a_certificate_that_signed_itself_can_be_trusted() {
    let house = Secured::start();
    house.set(&["ssl_cert_file = 'self.crt'", "ssl_key_file = 'self.key'"]).await;
    let cases = [
        (ADDRESS, SslMode::VerifyCa, "self.crt", Tls),
        ("localhost", SslMode::VerifyFull, "self.crt", Tls),
        (ADDRESS, SslMode::VerifyFull, "self.crt", Untrusted),
        (ADDRESS, SslMode::VerifyCa, "ca.crt", Untrusted),
    ];
    for (host, mode, root, expected) in cases {
        house.check(("either", host, mode), root, expected).await;
    }
}

/// What listens there answers with this, then waits.
fn stranger(answer: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                let _heard = client.read(&mut bytes);
                let _said = client.write_all(answer);
                if answer != b"silent" {
                    let _heard = client.read(&mut bytes);
                }
            });
        }
    });
    port
}

/// Garbage, HTTP, a closed port, silence: each is called by its name, soon, and without a panic.
#[tokio::test]
async fn what_is_no_postgresql_is_called_so() {
    let login = with_password("u", "p");
    let answers: [&'static [u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x4a\x00\x00\x00\x0a8.0.36\x00",
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"E\x7f\xff\xff\xff",
        b"220 mail.example.org ESMTP\r\n",
    ];
    for answer in answers {
        let port = stranger(answer);
        let error = connect(&plain(port), &login, WITHIN).await.unwrap_err();
        assert!(matches!(error, ConnectError::NotPostgres { .. }), "{answer:?}: {error}");
        assert_eq!(error.unseen(), Unseen::NotPostgres);
        assert_eq!(error.sqlstate(), SqlState::UNABLE_TO_CONNECT);

        let secured = target("127.0.0.1", port, SslMode::Require, None);
        let error = connect(&secured, &login, WITHIN).await.unwrap_err();
        let named = matches!(
            error,
            ConnectError::NotPostgres { .. }
                | ConnectError::Tls { .. }
                | ConnectError::Broken { .. }
        );
        assert!(named, "{answer:?}: {error}");
    }

    let silent = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::mem::forget(listener); // it accepts in the kernel and never says a word
        port
    };
    let soon = Duration::from_millis(200);
    let error = connect(&plain(silent), &login, soon).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 200ms, logging in");
    assert_eq!(error.unseen(), Unseen::Silent);

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = connect(&plain(closed), &login, WITHIN).await.unwrap_err();
    assert_eq!(error.to_string(), format!("connection refused at 127.0.0.1:{closed}"));
    assert_eq!(error.unseen(), Unseen::Refused);

    let nowhere = target("no-such-host.invalid", 5432, SslMode::Disable, None);
    let error = connect(&nowhere, &login, WITHIN).await.unwrap_err();
    assert_eq!(error.unseen(), Unseen::Unresolved);

    let no_socket = target("/nonexistent", 5432, SslMode::Prefer, None);
    let error = connect(&no_socket, &login, WITHIN).await.unwrap_err();
    assert_eq!(error.unseen(), Unseen::Refused);
}

/// A server that lets us in without proving itself, or that stops in the middle, is not trusted.
#[tokio::test]
async fn a_server_that_skips_its_own_proof_is_refused() {
    let cases: [(&'static [u8], &str); 4] = [
        // Ok, although SCRAM had begun: here in answer to the hello, in one write.
        (b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x08\0\0\0\0", "left out a step"),
        (b"Z\0\0\0\x05I", "not a PostgreSQL server"),
        (b"R\0\0\0\x0c\0\0\0\x05\0", "the connection broke"),
        (b"R\0\0\0\x08\0\0\0\x07", "method GSSAPI"),
    ];
    for (answer, expected) in cases {
        let port = stranger(answer);
        let soon = Duration::from_secs(2);
        let error = connect(&plain(port), &with_password("u", "p"), soon).await.unwrap_err();
        let text = error.to_string();
        let timeout = matches!(error, ConnectError::Timeout { .. });
        assert!(text.contains(expected) || (expected.contains("broke") && timeout), "{text}");
    }
}
