//! TLS for clients: our certificate.

use super::end_point::end_point;
use super::{ALPN, TlsError, certificates, provider, read};
use crate::net::Stream;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use x509_certificate::X509Certificate;

/// A certificate and its key, from two PEM files that can be read again.
#[derive(Debug)]
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<Served>,
}

/// A connection that was secured.
#[derive(Debug)]
pub struct Secured {
    /// It.
    pub stream: Stream,
    /// The digest of the certificate that was shown, to bind a proof to; `None`: nobody knows how
    /// to digest it.
    pub end_point: Option<Box<[u8]>>,
}

/// What handshakes use.
#[derive(Debug)]
struct Served {
    config: Arc<ServerConfig>,
    end_point: Option<Box<[u8]>>,
    /// When the certificate runs out, as seconds since 1970; `None` if that can't be read.
    valid_until: Option<i64>,
}

impl ServerTls {
    /// Reads both files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(served(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// When the certificate runs out, as seconds since 1970; `None` if that can't be read.
    pub fn valid_until(&self) -> Option<i64> {
        self.current.load().valid_until
    }

    /// Reads both files again. Handshakes from now on use them; if they can't be used, the old
    /// ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(served(&self.certificate, &self.key)?));
        Ok(())
    }

    /// Shakes hands with a client. Not cancel-safe: dropped, the connection is closed.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Secured> {
        // What is shown and what is bound to stay together, also if it is read again meanwhile.
        let served = self.current.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&served.config));
        let tls = acceptor.accept(tcp).await?;
        let stream = Stream::TlsServer(Box::new(tls));
        Ok(Secured { stream, end_point: served.end_point.clone() })
    }
}

fn served(certificate: &Path, key: &Path) -> Result<Served, TlsError> {
    let chain = certificates(certificate)?;
    let valid_until = chain.first().and_then(valid_until);
    let end_point = chain.first().and_then(end_point);
    let secret = match PrivateKeyDer::from_pem_slice(&read(key)?) {
        Ok(secret) => secret,
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { path: key.to_owned() }),
        Err(source) => return Err(TlsError::Pem { path: key.to_owned(), source }),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|source| TlsError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Served { config: Arc::new(config), end_point, valid_until })
}

/// When a certificate runs out, as seconds since 1970. rustls keeps that to itself.
fn valid_until(certificate: &CertificateDer<'_>) -> Option<i64> {
    let read = X509Certificate::from_der(certificate).ok()?;
    Some(read.validity_not_after().timestamp())
}
