//! TLS to servers without a request for it: `sslnegotiation=direct`.

use super::door::{Door, WITHIN, files, gate, target, tls};
use super::postgres::{Postgres, certificates};
use pgsteer::auth::{Method, Secret};
use pgsteer::backend::{
    ConnectError, Login, LoginSecret, SslMode, SslNegotiation, Target, TlsPolicy, cancel, connect,
};
use pgsteer::frontend::login::Gate;
use pgsteer::net::ServerTls;
use pgsteer::sandbox::Scratch;
use pgsteer::tasks;
use pgsteer::topology::ServerId;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// `localhost` at this port, whose certificate is verified.
fn directly(port: u16, dir: &Path) -> Target {
    let policy = TlsPolicy {
        mode: SslMode::VerifyFull,
        root_cert: Some(dir.join("ca.crt")),
        negotiation: SslNegotiation::Direct,
        ..TlsPolicy::default()
    };
    Target::alone(ServerId(0), "db1", "localhost", port, &policy).unwrap()
}

fn alice() -> Login {
    let secret = LoginSecret::Password(Secret::new("secret".to_owned()).into());
    Login::new("alice", "postgres", secret)
}

/// A server with TLS, of the version that is tested.
fn server(dir: &Path) -> Postgres {
    certificates(dir);
    let server = Postgres::start(|data| {
        for file in ["server.crt", "server.key"] {
            std::fs::copy(dir.join(file), data.join(file)).unwrap();
        }
        let settings = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
        ("host all all 127.0.0.1/32 scram-sha-256".to_owned(), settings.to_owned())
    });
    server.sql("CREATE ROLE alice LOGIN PASSWORD 'secret'");
    server
}

/// From 17 on servers take the handshake at once, with channel binding and cancel requests as
/// ever; one that is older is refused, and the reason is told. What takes it in any case is
/// pgsteer itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_reached_without_asking_for_tls() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    let server = server(dir);
    let version: u32 = server.sql("SHOW server_version_num").parse().unwrap();
    let direct = directly(server.port, dir);
    let connected = connect(&direct, &alice(), WITHIN).await;
    if version >= 170_000 {
        let mut backend = connected.unwrap();
        let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(backend.query(ssl).await.unwrap()[0].text(0, 0), Some("t"));
        cancel(&direct, backend.pid, &backend.key, WITHIN).await.unwrap();
    } else {
        let error = connected.unwrap_err();
        assert!(matches!(error, ConnectError::DirectTls { .. }), "{error}");
        assert!(error.to_string().contains("needs PostgreSQL 17"), "{error}");
    }

    let secured =
        Gate { tls: Some(tls(dir, "server")), ..gate(Method::ScramSha256, "\"alice\" \"secret\"") };
    let door = Door::open(secured, Some(target(server.port)));
    let mut backend = connect(&directly(door.port, dir), &alice(), WITHIN).await.unwrap();
    assert!(backend.stream.is_tls());
    let who = backend.query("SELECT session_user").await.unwrap();
    assert_eq!(who[0].text(0, 0), Some("alice"));
    cancel(&directly(door.port, dir), 1, b"abcd", WITHIN).await.unwrap();

    // Its certificate is held against what is trusted, as ever.
    let other = ServerTls::load(files(dir, "self")).unwrap();
    let gate = Gate { tls: Some(Arc::new(other)), ..gate(Method::Trust, "") };
    let impostor = Door::open(gate, None);
    let error = connect(&directly(impostor.port, dir), &alice(), WITHIN).await.unwrap_err();
    assert!(matches!(error, ConnectError::DirectTls { .. }), "{error}");
}

/// What speaks TLS with the right certificate, and does not name the protocol, may be a server of
/// something else under the same name: it is told nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_name_the_protocol_is_told_nothing() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    for (named, told) in [(false, false), (true, true)] {
        let chain = vec![CertificateDer::from_pem_file(dir.join("server.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        if named {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = tasks::spawn("server", async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.unwrap();
            let mut bytes = [0; 1024];
            tls.read(&mut bytes).await.unwrap_or(0)
        });
        let error = connect(&directly(port, dir), &alice(), WITHIN).await.unwrap_err();
        let refused = error.to_string().contains("did not agree on the protocol postgresql");
        assert_eq!(refused, !named, "{error}");
        assert_eq!(heard.await.unwrap() > 0, told, "{error}");
    }
}
