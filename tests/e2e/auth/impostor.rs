//! A server that shows somebody else's certificate, which everybody may have, and lacks its key.

use super::postgres::certificates;
use pgsteer::backend::{ConnectError, Login, LoginSecret, SslMode, Target, TlsPolicy, connect};
use pgsteer::sandbox::Scratch;
use pgsteer::topology::ServerId;
use rustls::crypto::ring::{default_provider, sign};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

/// Shows this to everybody.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Shakes hands with one client, by the trusted certificate and this key, and says what is no
/// PostgreSQL.
fn server(certs: &Path, key: &str, version: &'static SupportedProtocolVersion) -> u16 {
    let chain = CertificateDer::pem_file_iter(certs.join("self.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certs.join(key)).unwrap();
    let key = sign::any_supported_type(&key).unwrap();
    let shown = CertifiedKey::new(chain.map(Result::unwrap).collect(), key);
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.read_exact(&mut [0; 8]).unwrap();
        client.write_all(b"S").unwrap();
        let tls = ServerConnection::new(Arc::new(config)).unwrap();
        let mut tls = StreamOwned::new(tls, client);
        // A client that does not trust us breaks off in either.
        let _heard = tls.read(&mut [0; 1024]);
        let _said = tls.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    port
}

#[tokio::test]
async fn a_server_without_the_key_of_its_certificate_is_refused() {
    let files = Scratch::new().unwrap();
    certificates(files.path());
    for version in [&TLS12, &TLS13] {
        for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
            for (key, is_refused) in [("self.key", false), ("other-ca.key", true)] {
                let port = server(files.path(), key, version);
                let root_cert = (mode != SslMode::Require).then(|| files.path().join("self.crt"));
                let policy = TlsPolicy { mode, root_cert, ..TlsPolicy::default() };
                let target = Target::alone(ServerId(0), "db1", "localhost", port, &policy).unwrap();
                let login = Login::new("either", "postgres", LoginSecret::None);
                let error = connect(&target, &login, WITHIN).await.unwrap_err();
                let refused = matches!(error, ConnectError::Tls { .. });
                assert_eq!(refused, is_refused, "{version:?} {mode:?} {key}: {error}");
            }
        }
    }
}
