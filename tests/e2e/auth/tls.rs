//! TLS without a request for it, and certificates of clients.

use super::door::{Door, Ear, WITHIN, files, gate, server, target, tls};
use super::postgres::{Postgres, certificates, psql};
use pgsteer::auth::Method;
use pgsteer::backend::{ConnectError, Login, LoginSecret, SslMode, Target, TlsPolicy, connect};
use pgsteer::frontend::login::{Entered, Gate, enter};
use pgsteer::metrics::Admission;
use pgsteer::net::{
    ClientTls, Identity, Listener, Plain, Roots, ServerFiles, ServerTls, Verification,
};
use pgsteer::sandbox::Scratch;
use pgsteer::topology::ServerId;
use pgsteer::wire::message::{SSL_REQUEST, write_startup};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Shakes hands at once, naming these protocols.
async fn direct(
    port: u16,
    root: &Path,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

fn startup(user: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_startup(&mut out, &[("user", user)]).unwrap();
    out
}

/// `sslnegotiation=direct` of libpq 17; the opposites are those who do not name the protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_begins_at_once_if_the_client_names_the_protocol() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    let root = dir.join("ca.crt");
    let server = server();
    let gate = gate(Method::Trust, "\"alice\" \"secret\"");
    let secured = Gate { tls: Some(tls(dir, "server")), ..gate };
    let door = Door::open(secured, Some(target(server.port)));

    let mut client = direct(door.port, &root, &["postgresql"]).await.unwrap();
    client.write_all(&startup("alice")).await.unwrap();
    let mut answer = [0; 9];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"R\0\0\0\x08\0\0\0\0", "let in");

    // A wish for TLS within TLS is none.
    let mut client = direct(door.port, &root, &["postgresql", "other"]).await.unwrap();
    client.write_all(&SSL_REQUEST).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.windows(5).any(|part| part == b"08P01"), "{answer:?}");

    // Another protocol's client, and one that names none, may have been sent here by somebody.
    assert!(direct(door.port, &root, &["http/1.1"]).await.is_err());
    if let Ok(mut client) = direct(door.port, &root, &[]).await {
        let _sent = client.write_all(&startup("alice")).await;
        let mut answer = Vec::new();
        let _ended = client.read_to_end(&mut answer).await;
        assert_eq!(answer, b"", "nothing is said to it");
    }
    // By request, no protocol need be named: older clients don't.
    let port = door.port;
    let asked = tokio::task::spawn_blocking(move || {
        let info = format!("host=localhost hostaddr=127.0.0.1 port={port} sslmode=require");
        let info = format!("{info} dbname=postgres");
        let words = ["-d", &info, "-c", "SELECT session_user"];
        psql("127.0.0.1", port, "alice", &words)
    });
    assert_eq!(asked.await.unwrap().as_deref(), Ok("alice"));
}

/// Certificates for clients: `alice` and `bob` of the authority, `mallory` of another.
pub fn clients(dir: &Path) {
    client(dir, "alice", ("ca", "alice"));
    client(dir, "bob", ("ca", "bob"));
    // Mallory would like to be Alice.
    client(dir, "mallory", ("other-ca", "alice"));
}

/// The certificate `name`, in which this authority says who its owner is.
pub fn client(dir: &Path, name: &str, (ca, whose): (&str, &str)) {
    let openssl = |args: &[&str]| {
        let made = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    // Extensions make it version 3, the only one that is understood.
    std::fs::write(dir.join("client.ext"), "basicConstraints=CA:FALSE\n").unwrap();
    let file = |end: &str| format!("{name}.{end}");
    let (key, csr, crt) = (file("key"), file("csr"), file("crt"));
    let subject = format!("/O=x/CN={whose}");
    openssl(&[
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &csr,
    ]);
    let (ca_crt, ca_key) = (format!("{ca}.crt"), format!("{ca}.key"));
    openssl(&[
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &ca_crt,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "30",
        "-extfile",
        "client.ext",
        "-out",
        &crt,
    ]);
}

/// A client's certificate is read in the handshake; a bad one ends it, none does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_certificate_of_a_client_ends_the_handshake() {
    let server = server();
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    clients(dir);
    let asking = ServerFiles { client_ca: Some(dir.join("ca.crt")), ..files(dir, "server") };
    let tls = Arc::new(ServerTls::load(asking).unwrap());
    assert!(tls.asks_clients());
    let gate = Gate { tls: Some(tls), ..gate(Method::ScramSha256, "\"alice\" \"secret\"") };
    let door = Door::open(gate, Some(target(server.port)));
    let ask = |identity: String| {
        let port = door.port;
        tokio::task::spawn_blocking(move || {
            let info = format!(
                "host=localhost hostaddr=127.0.0.1 port={port} user=alice dbname=postgres \
                 sslmode=require {identity}"
            );
            psql("localhost", port, "alice", &["-d", &info, "-c", "SELECT 1"])
        })
    };
    let shown = |name: &str| {
        let file = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
        format!("sslcert={} sslkey={}", file("crt"), file("key"))
    };
    assert_eq!(ask("sslcert=/nowhere".to_owned()).await.unwrap().as_deref(), Ok("1"));
    assert_eq!(ask(shown("alice")).await.unwrap().as_deref(), Ok("1"));
    let error = ask(shown("mallory")).await.unwrap().unwrap_err();
    assert!(error.contains("alert unknown ca") || error.contains("SSL error"), "{error}");

    let no_authority = ServerFiles { client_ca: Some(dir.join("ca.key")), ..files(dir, "server") };
    assert!(ServerTls::load(no_authority).unwrap_err().to_string().contains("ca.key"));
}

/// A server that lets in whoever shows a certificate with his name.
#[tokio::test]
async fn we_show_servers_our_certificate() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    clients(dir);
    let server = Postgres::start(|data| {
        for file in ["server.crt", "server.key", "ca.crt"] {
            std::fs::copy(dir.join(file), data.join(file)).unwrap();
        }
        let settings = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n\
                        ssl_ca_file = 'ca.crt'\n";
        ("hostssl all all 127.0.0.1/32 cert".to_owned(), settings.to_owned())
    });
    server.sql("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN");
    let log_in = async |user: &str, identity: Option<&str>| {
        let file = |name: &str, end: &str| dir.join(format!("{name}.{end}"));
        let identity = identity
            .map(|name| Identity { certificate: file(name, "crt"), key: file(name, "key") });
        let policy = TlsPolicy { mode: SslMode::Require, identity, ..TlsPolicy::default() };
        let target = Target::alone(ServerId(0), "db1", "127.0.0.1", server.port, &policy).unwrap();
        let login = Login::new(user, "postgres", LoginSecret::None);
        connect(&target, &login, WITHIN).await.map(|backend| backend.pid > 0)
    };
    assert!(log_in("alice", Some("alice")).await.unwrap());
    for (user, identity) in [("bob", Some("alice")), ("alice", None)] {
        let error = log_in(user, identity).await.unwrap_err();
        assert!(matches!(error, ConnectError::LoginRefused(_)), "{user} {identity:?}: {error}");
    }
    // TLS 1.3 tells us after the handshake that it did not like the certificate.
    assert!(log_in("alice", Some("mallory")).await.is_err());

    let (certificate, key) = (dir.join("alice.crt"), dir.join("bob.key"));
    let policy = TlsPolicy {
        mode: SslMode::Require,
        identity: Some(Identity { certificate, key }),
        ..TlsPolicy::default()
    };
    let error = Target::alone(ServerId(0), "db1", "127.0.0.1", 1, &policy).unwrap_err();
    assert!(error.to_string().contains("alice.crt"), "{error}");
}

/// Where there is no TLS, a handshake is told so.
#[tokio::test]
async fn a_handshake_where_there_is_no_tls_is_refused() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]).await.unwrap();
    let stream = Ear::new(listener).accept().await;
    let entered = enter(stream, &gate(Method::Trust, "")).await;
    assert!(matches!(entered, Entered::Nobody(Admission::ProtocolError)), "{entered:?}");
}

/// A handshake that was asked for before a reload is brought to its end with the certificate of
/// then, and a bound proof with it; the next one has the new certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_harms_no_handshake_in_flight() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    let tls = tls(dir, "server");
    let gate = Gate { tls: Some(Arc::clone(&tls)), ..gate(Method::Trust, "") };
    let door = Door::open(gate, None);
    let asks = async || {
        let mut tcp = TcpStream::connect(("127.0.0.1", door.port)).await.unwrap();
        tcp.write_all(&SSL_REQUEST).await.unwrap();
        assert_eq!(tcp.read_u8().await.unwrap(), b'S');
        Plain::Runtime(tcp)
    };
    let trusting = |root: &str| {
        let roots = Roots::File(dir.join(root));
        ClientTls::new(Verification::AuthorityAndName, roots, None).unwrap()
    };
    let (old, new) = (trusting("ca.crt"), trusting("self.crt"));
    let in_flight = [asks().await, asks().await];
    // The yes is sent just before the handshake begins.
    pgsteer::timer::sleep(Duration::from_millis(200)).await;
    for end in ["crt", "key"] {
        std::fs::copy(dir.join(format!("self.{end}")), dir.join(format!("server.{end}"))).unwrap();
    }
    tls.reload().unwrap();

    for tcp in in_flight {
        let mut client = old.connect("localhost", tcp).await.unwrap();
        client.write_all(&startup("alice")).await.unwrap();
        let mut answer = [0; 9];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"R\0\0\0\x08\0\0\0\0", "let in");
    }
    assert!(new.connect("localhost", asks().await).await.is_ok());
    assert!(old.connect("localhost", asks().await).await.is_err());
}
