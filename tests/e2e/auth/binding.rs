//! Channel binding on both sides, and somebody in between who has a certificate of his own.

use super::door::{Door, WITHIN, gate, server, target, tls};
use super::postgres::{Postgres, certificates, psql};
use pgsteer::auth::{Method, Secret};
use pgsteer::backend::{
    ChannelBinding, ConnectError, Login, LoginSecret, SslMode, Target, TlsPolicy, connect,
};
use pgsteer::frontend::login::Gate;
use pgsteer::net::{ClientTls, Plain, Roots, ServerTls, Stream, Verification};
use pgsteer::sandbox::Scratch;
use pgsteer::tasks;
use pgsteer::topology::ServerId;
use pgsteer::wire::message::{AuthRequest, SSL_REQUEST, write_auth_request};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Keys and signatures, by openssl's words: name, key, signature.
const KINDS: [(&str, &[&str], &[&str]); 6] = [
    ("rsa-sha256", &["rsa:2048"], &["-sha256"]),
    ("rsa-sha1", &["rsa:2048"], &["-sha1"]),
    ("rsa-sha512", &["rsa:2048"], &["-sha512"]),
    ("ecdsa-sha256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], &["-sha256"]),
    ("ecdsa-sha384", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], &["-sha384"]),
    ("ecdsa-sha512", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], &["-sha512"]),
];

/// A certificate of one's own, `NAME.crt` and `NAME.key`.
fn certificate(dir: &Path, name: &str, key: &[&str], signature: &[&str]) {
    let (key_file, crt) = (format!("{name}.key"), format!("{name}.crt"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost", "-newkey"])
        .args(key)
        .args(signature)
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", &key_file, "-out", &crt])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A door with this certificate, in front of a server.
fn door(tls: Option<Arc<ServerTls>>, server: &Postgres) -> Door {
    let gate = Gate { tls, ..gate(Method::ScramSha256, "\"alice\" \"secret\"") };
    Door::open(gate, Some(target(server.port)))
}

/// psql with these words in its connection string.
async fn ask(port: u16, words: &'static str) -> Result<String, String> {
    let info = format!("host=localhost hostaddr=127.0.0.1 dbname=postgres user=alice port={port}");
    let asked = tokio::task::spawn_blocking(move || {
        let info = format!("{info} {words}");
        psql("localhost", port, "alice", &["-d", &info, "-c", "SELECT session_user"])
    });
    asked.await.unwrap()
}

/// libpq digests the certificate on its own, so it is the judge of our digest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libpq_binds_itself_to_every_kind_of_certificate() {
    let server = server();
    let files = Scratch::new().unwrap();
    for (name, key, signature) in KINDS {
        certificate(files.path(), name, key, signature);
        let door = door(Some(tls(files.path(), name)), &server);
        for words in [
            "channel_binding=require sslmode=require",
            "channel_binding=prefer sslmode=require",
            "channel_binding=disable sslmode=require",
            "channel_binding=prefer sslmode=disable",
        ] {
            let who = ask(door.port, words).await;
            assert_eq!(who.as_deref(), Ok("alice"), "{name}: {words}");
        }
        let error = ask(door.port, "channel_binding=require sslmode=disable").await.unwrap_err();
        assert!(error.contains("channel binding required"), "{name}: {error}");
    }
    // Nobody knows how to digest this one: it is not offered, and who insists goes away.
    certificate(files.path(), "ed25519", &["ed25519"], &[]);
    let door = door(Some(tls(files.path(), "ed25519")), &server);
    let prefer = ask(door.port, "channel_binding=prefer sslmode=require").await;
    assert_eq!(prefer.as_deref(), Ok("alice"));
    let error = ask(door.port, "channel_binding=require sslmode=require").await.unwrap_err();
    assert!(error.contains("server did not offer"), "{error}");
}

/// What somebody in between does, beside passing everything on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trick {
    /// Nothing.
    None,
    /// He takes `SCRAM-SHA-256-PLUS` off the list of what is offered.
    Downgrade,
}

/// Somebody in between: shows his own certificate, and speaks TLS to the other side himself.
async fn in_between(dir: &Path, port: u16, trick: Trick) -> u16 {
    let shown = tls(dir, "self");
    let other_side = ClientTls::new(Verification::Nothing, Roots::System, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    tasks::spawn("in between", async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (shown, other_side) = (Arc::clone(&shown), other_side.clone());
            tasks::spawn("victim", async move {
                // Whoever sees through him breaks off in the middle.
                let _ended = listen_in(client, (&shown, &other_side), port, trick).await;
            });
        }
    });
    here
}

async fn listen_in(
    mut client: TcpStream,
    (shown, other_side): (&ServerTls, &ClientTls),
    port: u16,
    trick: Trick,
) -> std::io::Result<()> {
    client.read_exact(&mut [0; 8]).await?;
    client.write_all(b"S").await?;
    let mut client = shown.accept(Plain::Runtime(client)).await?.stream;
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server.write_all(&SSL_REQUEST).await?;
    assert_eq!(server.read_u8().await?, b'S');
    let mut server = other_side.connect("localhost", Plain::Runtime(server)).await?;
    if trick == Trick::Downgrade {
        pass_one(&mut client, &mut server).await?;
        let mut offer = [0; 1024];
        let read = server.read(&mut offer).await?;
        assert!(offer[..read].windows(4).any(|part| part == b"PLUS"), "nothing to take off");
        let mut less = Vec::new();
        let only = AuthRequest::Sasl(vec!["SCRAM-SHA-256".to_owned()]);
        write_auth_request(&mut less, &only).unwrap();
        client.write_all(&less).await?;
        client.flush().await?;
    }
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}

/// Passes on what comes in one go.
async fn pass_one(from: &mut Stream, to: &mut Stream) -> std::io::Result<()> {
    let mut bytes = [0; 1024];
    let read = from.read(&mut bytes).await?;
    to.write_all(&bytes[..read]).await?;
    to.flush().await
}

/// A client that does not look at certificates is protected by its password alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_not_let_in_past_somebody_in_between() {
    let server = server();
    let files = Scratch::new().unwrap();
    certificates(files.path());
    let door = door(Some(tls(files.path(), "server")), &server);
    let honest = in_between(files.path(), door.port, Trick::None).await;
    let sly = in_between(files.path(), door.port, Trick::Downgrade).await;

    for words in
        ["channel_binding=require sslmode=require", "channel_binding=prefer sslmode=require"]
    {
        assert!(ask(door.port, words).await.is_ok(), "{words}");
        let error = ask(honest, words).await.unwrap_err();
        assert!(error.contains("SCRAM channel binding check failed"), "{words}: {error}");
    }
    let prefers = "channel_binding=prefer sslmode=require";
    let error = ask(sly, prefers).await.unwrap_err();
    assert!(error.contains("SCRAM channel binding negotiation error"), "{error}");
    let error = ask(sly, "channel_binding=require sslmode=require").await.unwrap_err();
    assert!(error.contains("server did not offer"), "{error}");

    // The opposite: unbound, he gets in, so he was able to.
    let unbound = "channel_binding=disable sslmode=require";
    assert_eq!(ask(honest, unbound).await.as_deref(), Ok("alice"));
}

fn bound(port: u16, mode: SslMode, channel_binding: ChannelBinding) -> Target {
    let policy = TlsPolicy { mode, channel_binding, ..TlsPolicy::default() };
    Target::alone(ServerId(0), "db1", "127.0.0.1", port, &policy).unwrap()
}

fn alice() -> Login {
    let password = LoginSecret::Password(Secret::new("secret".to_owned()).into());
    Login::new("alice", "postgres", password)
}

/// A server with this certificate, which wants a proof of `alice` and none of `trusted`.
fn secured(files: &Path, name: &'static str) -> Postgres {
    let server = Postgres::start(|data| {
        for end in ["crt", "key"] {
            let file = format!("{name}.{end}");
            std::fs::copy(files.join(&file), data.join(&file)).unwrap();
        }
        let hba = "host all trusted 127.0.0.1/32 trust\n\
                   host all plain 127.0.0.1/32 password\n\
                   host all md5 127.0.0.1/32 md5\n\
                   host all all 127.0.0.1/32 scram-sha-256\n";
        let settings =
            format!("ssl = on\nssl_cert_file = '{name}.crt'\nssl_key_file = '{name}.key'\n");
        (hba.to_owned(), settings)
    });
    server.sql(
        "CREATE ROLE alice LOGIN PASSWORD 'secret'; CREATE ROLE trusted LOGIN; \
         CREATE ROLE plain LOGIN PASSWORD 'secret'; SET password_encryption = md5; \
         CREATE ROLE md5 LOGIN PASSWORD 'secret'",
    );
    server
}

/// PostgreSQL is the judge of what we send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_do_not_log_in_to_a_server_past_somebody_in_between() {
    use ChannelBinding::{Disable, Prefer, Require};
    let files = Scratch::new().unwrap();
    certificates(files.path());
    let server = secured(files.path(), "server");
    let honest = in_between(files.path(), server.port, Trick::None).await;
    let sly = in_between(files.path(), server.port, Trick::Downgrade).await;
    let log_in = async |port: u16, mode: SslMode, wish: ChannelBinding, user: &str| {
        let login = Login { user: user.into(), ..alice() };
        connect(&bound(port, mode, wish), &login, WITHIN).await.map(|backend| backend.pid > 0)
    };
    for wish in [Disable, Prefer, Require] {
        assert!(log_in(server.port, SslMode::Require, wish, "alice").await.unwrap(), "{wish:?}");
    }
    for wish in [Prefer, Require] {
        let error = log_in(honest, SslMode::Require, wish, "alice").await.unwrap_err();
        assert!(error.to_string().contains("channel binding check failed"), "{wish:?}: {error}");
    }
    let error = log_in(sly, SslMode::Require, Prefer, "alice").await.unwrap_err();
    assert!(error.to_string().contains("channel binding negotiation error"), "{error}");
    let error = log_in(sly, SslMode::Require, Require, "alice").await.unwrap_err();
    assert!(error.to_string().contains("does not offer it"), "{error}");
    // The opposite: unbound, he gets in.
    assert!(log_in(honest, SslMode::Require, Disable, "alice").await.unwrap());

    // Required means no login without it, however the server asks.
    let error = log_in(server.port, SslMode::Disable, Require, "alice").await.unwrap_err();
    assert!(error.to_string().contains("there is no TLS"), "{error}");
    for user in ["trusted", "plain", "md5"] {
        assert!(log_in(server.port, SslMode::Require, Prefer, user).await.unwrap(), "{user}");
        let error = log_in(server.port, SslMode::Require, Require, user).await.unwrap_err();
        assert!(matches!(error, ConnectError::Scram(_)), "{user}: {error}");
    }
}

/// The server offers what neither side could do: PostgreSQL does so whatever its certificate.
#[tokio::test]
async fn a_server_whose_certificate_can_not_be_digested_is_logged_in_to() {
    let files = Scratch::new().unwrap();
    certificate(files.path(), "ed25519", &["ed25519"], &[]);
    let server = secured(files.path(), "ed25519");
    let prefers = bound(server.port, SslMode::Require, ChannelBinding::Prefer);
    connect(&prefers, &alice(), WITHIN).await.unwrap();
    let requires = bound(server.port, SslMode::Require, ChannelBinding::Require);
    let error = connect(&requires, &alice(), WITHIN).await.unwrap_err();
    assert!(error.to_string().contains("no digest to bind to"), "{error}");
}
