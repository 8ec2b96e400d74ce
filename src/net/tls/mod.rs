//! TLS on both sides, with rustls and its ring provider.

mod client;
mod end_point;
mod server;

pub use client::{ClientTls, Identity, Roots, Verification};
pub(super) use end_point::end_point;
pub use server::{ClientCertificate, Secured, ServerFiles, ServerTls};
pub(super) use tokio_rustls::{client as client_stream, server as server_stream};

use crate::reactor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// The protocol's name in TLS, so that no other protocol can be made to talk to us.
///
/// Source: PostgreSQL manual, 55.2.11 "SSL Session Encryption".
const ALPN: &[u8] = b"postgresql";

/// Shakes hands, which takes a shard as long as hundreds of statements: what these wrote is not
/// kept waiting for it.
async fn before_others<T>(mut handshake: impl Future<Output = T> + Unpin) -> T {
    poll_fn(|context| {
        reactor::send_now();
        Pin::new(&mut handshake).poll(context)
    })
    .await
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no PEM file.
    #[error("{} is not a PEM file: {source}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// A file holds no private key.
    #[error("{} holds no private key without a passphrase", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// The certificate or the key can't be used, or they don't belong together.
    #[error("cannot use {} with {}: {source}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A trusted certificate can't be used.
    #[error("cannot trust the certificates in {}: {what}", path.display())]
    Roots {
        /// The file, or the system's place.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The provider has no TLS 1.2 or 1.3: not with the one that we compile in.
    #[error("TLS is not available")]
    Provider(#[source] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Every certificate in a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if found.is_empty() {
        Err(TlsError::NoCertificate { path: path.to_owned() })
    } else {
        Ok(found)
    }
}

/// The private key in a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsError::NoKey { path: path.to_owned() }),
        Err(source) => Err(TlsError::Pem { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Registered;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    #[test]
    fn nobody_waits_for_the_handshake_of_another() {
        let heard = reactor::run(async {
            let (here, mut there) = UnixStream::pair().unwrap();
            here.set_nonblocking(true).unwrap();
            there.set_nonblocking(true).unwrap();
            let here = Registered::new(here).unwrap();
            let written = poll_fn(|context| here.poll_send(context, b"answer")).await.unwrap();
            let mut heard = vec![0; written];
            before_others(poll_fn(|_| Poll::Ready(there.read_exact(&mut heard)))).await.unwrap();
            heard
        });
        assert_eq!(heard.unwrap(), b"answer");
    }
}
