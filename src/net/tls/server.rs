//! TLS for clients: our certificate.

use super::{ALPN, TlsError, certificates, provider, read};
use crate::net::Stream;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// A certificate and its key, from two PEM files that can be read again.
#[derive(Debug)]
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
}

impl ServerTls {
    /// Reads both files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(config(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads both files again. Handshakes from now on use them; if they can't be used, the old
    /// ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(config(&self.certificate, &self.key)?));
        Ok(())
    }

    /// Shakes hands with a client. Not cancel-safe: dropped, the connection is closed.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let tls = acceptor.accept(tcp).await?;
        Ok(Stream::TlsServer(Box::new(tls)))
    }
}

fn config(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain = certificates(certificate)?;
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
    Ok(config)
}
