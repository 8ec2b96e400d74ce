//! TLS for clients: our certificate, and theirs if they have one.

use super::end_point::end_point;
use super::{ALPN, TlsError, before_others, certificates, private_key, provider};
use crate::net::{Plain, Stream};
use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use x509_certificate::X509Certificate;

/// A certificate and its key, from PEM files that can be read again.
#[derive(Debug)]
pub struct ServerTls {
    files: ServerFiles,
    current: ArcSwap<Served>,
}

/// The files of our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate chain that clients are shown.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients' certificates; `None`: clients are asked for none.
    pub client_ca: Option<PathBuf>,
}

/// A client's certificate, which an authority that we trust has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whom it is for; `None` if it does not say, or not as text.
    pub common_name: Option<String>,
}

/// A connection that was secured.
#[derive(Debug)]
pub struct Secured {
    /// It.
    pub stream: Stream,
    /// The digest of the certificate that was shown, to bind a proof to; `None`: nobody knows how
    /// to digest it.
    pub end_point: Option<Box<[u8]>>,
    /// What the client showed of itself, if anything; it was verified.
    pub client: Option<ClientCertificate>,
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
    /// Reads the files.
    pub fn load(files: ServerFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(served(&files)?);
        Ok(Self { files, current })
    }

    /// Whether clients are asked for a certificate.
    pub const fn asks_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// When the certificate runs out, as seconds since 1970; `None` if that can't be read.
    pub fn valid_until(&self) -> Option<i64> {
        self.current.load().valid_until
    }

    /// Reads the files again. Handshakes from now on use them; if they can't be used, the old
    /// ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(served(&self.files)?));
        Ok(())
    }

    /// Shakes hands with a client. Not cancel-safe: dropped, the connection is closed.
    pub async fn accept(&self, tcp: Plain<TcpStream>) -> io::Result<Secured> {
        // What is shown and what is bound to stay together, also if it is read again meanwhile.
        let served = self.current.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&served.config));
        let tls = before_others(acceptor.accept(tcp)).await?;
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let client = shown.map(|shown| ClientCertificate { common_name: common_name(shown) });
        let stream = Stream::TlsServer(Box::new(tls));
        Ok(Secured { stream, end_point: served.end_point.clone(), client })
    }

    /// The same with a client that did not ask first. It must name the protocol, for it could not
    /// be told that it is wrong here. Not cancel-safe, either.
    pub async fn accept_unasked(&self, tcp: Plain<TcpStream>) -> io::Result<Secured> {
        let secured = self.accept(tcp).await?;
        match &secured.stream {
            Stream::TlsServer(tls) if tls.get_ref().1.alpn_protocol() == Some(ALPN) => Ok(secured),
            Stream::TlsServer(_) | Stream::TlsClient(_) | Stream::Tcp(_) | Stream::Unix(_) => {
                let what = "a direct TLS connection did not ask for the protocol postgresql (ALPN)";
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
        }
    }
}

fn served(files: &ServerFiles) -> Result<Served, TlsError> {
    let ServerFiles { certificate, key, client_ca } = files;
    let chain = certificates(certificate)?;
    let valid_until = chain.first().and_then(valid_until);
    let end_point = chain.first().and_then(end_point);
    let secret = private_key(key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?
        .with_client_cert_verifier(verifier(client_ca.as_deref())?)
        .with_single_cert(chain, secret)
        .map_err(|source| TlsError::Unusable {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Served { config: Arc::new(config), end_point, valid_until })
}

/// Clients may come without a certificate; one that they show must be good.
fn verifier(client_ca: Option<&Path>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let refused = |what: String| TlsError::Roots { path: path.to_owned(), what };
    let trusted = certificates(path)?;
    let mut store = RootCertStore::empty();
    for authority in trusted {
        store.add(authority).map_err(|error| refused(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
    builder.allow_unauthenticated().build().map_err(|error| refused(error.to_string()))
}

/// Whom a certificate is for. A zero byte would cut the name short for others.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let name = X509Certificate::from_der(certificate).ok()?.subject_common_name()?;
    Some(name).filter(|name| !name.is_empty() && !name.contains('\0'))
}

/// When a certificate runs out, as seconds since 1970. rustls keeps that to itself.
fn valid_until(certificate: &CertificateDer<'_>) -> Option<i64> {
    let read = X509Certificate::from_der(certificate).ok()?;
    Some(read.validity_not_after().timestamp())
}
