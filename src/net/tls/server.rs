//! TLS for clients: our certificate.

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

/// What handshakes use.
#[derive(Debug)]
struct Served {
    config: Arc<ServerConfig>,
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
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        let tls = acceptor.accept(tcp).await?;
        Ok(Stream::TlsServer(Box::new(tls)))
    }
}

fn served(certificate: &Path, key: &Path) -> Result<Served, TlsError> {
    let chain = certificates(certificate)?;
    let valid_until = chain.first().and_then(valid_until);
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
    Ok(Served { config: Arc::new(config), valid_until })
}

/// When a certificate runs out, as seconds since 1970. rustls keeps that to itself.
fn valid_until(certificate: &CertificateDer<'_>) -> Option<i64> {
    let read = X509Certificate::from_der(certificate).ok()?;
    Some(read.validity_not_after().timestamp())
}
