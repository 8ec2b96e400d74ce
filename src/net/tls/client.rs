//! TLS to servers: whom we believe.
//!
//! libpq's levels of verification, with two differences, both towards refusing: a host name is
//! looked for in the certificate's alternative names only, never in its common name; and TLS
//! older than 1.2 is not spoken.
//!
//! Source: PostgreSQL manual, 34.19.1 "Client Verification of Server Certificates".

use super::{ALPN, TlsError, before_others, certificates, private_key, provider};
use crate::net::{Plain, Stream};
use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// What of a server's certificate is checked. The handshake's signatures always are: the server
/// holds the key of the certificate that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// Nothing more: safe from listeners, not from impostors.
    Nothing,
    /// It comes from a trusted authority.
    Authority,
    /// It comes from a trusted authority and is for this host.
    AuthorityAndName,
}

/// Which authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The system's.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// Our own certificate, for servers that ask for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// How to shake hands with servers, from files that can be read again. Clones share what was read.
#[derive(Debug, Clone)]
pub struct ClientTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    /// What the next handshake uses.
    current: ArcSwap<ClientConfig>,
}

/// What is read, and what for.
#[derive(Debug)]
struct Files {
    verification: Verification,
    roots: Roots,
    identity: Option<Identity>,
}

impl ClientTls {
    /// Prepares for servers that are to be verified so, and are shown this. Reads the roots unless
    /// nothing is verified.
    pub fn new(
        verification: Verification,
        roots: Roots,
        identity: Option<Identity>,
    ) -> Result<Self, TlsError> {
        let files = Files { verification, roots, identity };
        let current = ArcSwap::from_pointee(files.read()?);
        Ok(Self(Arc::new(Shared { files, current })))
    }

    /// Reads the files again. Handshakes from now on use them, for those under way nothing
    /// changes; if they can't be used, the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.0.current.store(Arc::new(self.0.files.read()?));
        Ok(())
    }

    /// Shakes hands with the server at `host`. Not cancel-safe: dropped, the connection is
    /// closed.
    pub async fn connect(&self, host: &str, tcp: Plain<TcpStream>) -> io::Result<Stream> {
        // A name that can't be one of a certificate is not verified to begin with, or it will
        // match none; an address, unlike a name, is not sent to the server.
        let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| no_name());
        let connector = TlsConnector::from(self.0.current.load_full());
        let tls = before_others(connector.connect(name, tcp)).await?;
        Ok(Stream::TlsClient(Box::new(tls)))
    }

    /// The same with a server that was not asked first. It must name the protocol, for else it may
    /// be something else that speaks TLS. Not cancel-safe, either.
    ///
    /// Source: `open_client_SSL` in `interfaces/libpq/fe-secure-openssl.c`, PostgreSQL 17.
    pub async fn connect_unasked(&self, host: &str, tcp: Plain<TcpStream>) -> io::Result<Stream> {
        let stream = self.connect(host, tcp).await?;
        match &stream {
            Stream::TlsClient(tls) if tls.get_ref().1.alpn_protocol() == Some(ALPN) => Ok(stream),
            Stream::TlsClient(_) | Stream::TlsServer(_) | Stream::Tcp(_) | Stream::Unix(_) => {
                let what = "the server did not agree on the protocol postgresql (ALPN)";
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<ClientConfig, TlsError> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let verification = self.verification;
        let (chain, trusted) = match verification {
            Verification::Nothing => (None, Vec::new()),
            Verification::Authority | Verification::AuthorityAndName => {
                let (chain, trusted) = verifier(&self.roots)?;
                (Some(chain), trusted)
            }
        };
        let verifier = Verifier { verification, algorithms, chain, trusted };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|source| TlsError::Unusable {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    source,
                })?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

/// Stands where a host's name can't be a name in TLS.
fn no_name() -> ServerName<'static> {
    ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]))
}

fn verifier(roots: &Roots) -> Result<(Arc<WebPkiServerVerifier>, Trusted), TlsError> {
    let (path, trusted) = match roots {
        Roots::File(path) => (path.as_path(), certificates(path)?),
        Roots::System => {
            let path = Path::new("the system's certificate store");
            (path, rustls_native_certs::load_native_certs().certs)
        }
    };
    let refused = |what: String| TlsError::Roots { path: path.to_owned(), what };
    let mut store = rustls::RootCertStore::empty();
    let (_, ignored) = store.add_parsable_certificates(trusted.iter().cloned());
    if store.is_empty() || (ignored > 0 && *roots != Roots::System) {
        return Err(refused(format!("{ignored} of {} are not understood", trusted.len())));
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| refused(error.to_string()))?;
    Ok((chain, trusted))
}

type Trusted = Vec<CertificateDer<'static>>;

/// Verifies as much as was asked for.
#[derive(Debug)]
struct Verifier {
    verification: Verification,
    algorithms: WebPkiSupportedAlgorithms,
    /// `None` if nothing is verified.
    chain: Option<Arc<WebPkiServerVerifier>>,
    trusted: Trusted,
}

impl Verifier {
    /// Whether the server shows the trusted certificate itself. PostgreSQL's manual makes one
    /// certificate that is authority and server in one (18.9.5, first example), which OpenSSL
    /// takes; webpki refuses every authority in a server's place.
    fn is_trusted_itself(&self, shown: &CertificateDer<'_>, error: &CertificateError) -> bool {
        matches!(error, CertificateError::Other(_))
            && self.trusted.iter().any(|trusted| trusted == shown)
    }
}

const fn is_name(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let error = match verified {
            Err(Error::InvalidCertificate(error)) => error,
            other => return other,
        };
        let names_matter = self.verification == Verification::AuthorityAndName;
        if is_name(&error) {
            // The name is looked at last: everything else was right.
            if names_matter {
                return Err(Error::InvalidCertificate(error));
            }
        } else if self.is_trusted_itself(end_entity, &error) {
            if names_matter {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
        } else {
            return Err(Error::InvalidCertificate(error));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
