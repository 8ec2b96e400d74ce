//! From a host's name to a stream, secured or not.

use super::error::{ConnectError, Stage};
use super::policy::{SslMode, SslNegotiation};
use super::target::Target;
use crate::net::{ClientTls, Plain, SocketPolicy, Stream};
use crate::timer;
use crate::wire::message::SSL_REQUEST;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is tried in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Without TLS.
    Plain,
    /// With TLS if the server has it.
    IfOffered,
    /// With TLS or not at all.
    Secured,
}

impl Attempt {
    /// The first attempt, and the one that may follow if it fails.
    ///
    /// Source: PostgreSQL manual, 34.1.2 "Parameter Key Words", `sslmode`.
    pub(super) const fn of(mode: SslMode) -> (Self, Option<Self>) {
        match mode {
            SslMode::Disable => (Self::Plain, None),
            SslMode::Allow => (Self::Plain, Some(Self::Secured)),
            SslMode::Prefer => (Self::IfOffered, Some(Self::Plain)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Self::Secured, None),
        }
    }
}

/// Opens a connection; `stage` tells how far it came when the caller gives up. Not cancel-safe:
/// dropped, the connection is closed.
pub(super) async fn open(
    target: &Target,
    attempt: Attempt,
    within: Duration,
    stage: &mut Stage,
) -> Result<Stream, ConnectError> {
    if let Some(path) = target.socket_file() {
        *stage = Stage::Connecting;
        let opened = Plain::connect_unix(&path).await;
        return opened.map(Stream::from).map_err(|e| unopened(path.display().to_string(), e));
    }
    *stage = Stage::Resolving;
    let addresses = resolve(target).await?;
    *stage = Stage::Connecting;
    let tcp = first_that_answers(&addresses, within).await?;
    SocketPolicy::TO_SERVERS
        .apply(&tcp.socket())
        .map_err(|source| broken(Stage::Connecting, source))?;
    match (attempt, &target.tls) {
        (Attempt::Plain, _) | (_, None) => Ok(Stream::from(tcp)),
        (Attempt::IfOffered | Attempt::Secured, Some(tls)) => {
            *stage = Stage::Securing;
            secure(target, tls, tcp, attempt).await
        }
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, ConnectError> {
    let unresolved = |source| ConnectError::Unresolved { host: target.host.to_string(), source };
    let found = tokio::net::lookup_host((&*target.host, target.port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(unresolved)?.collect();
    if addresses.is_empty() {
        return Err(unresolved(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// One address after the other, each with its share of the time, so that a dead one does not
/// use it up for all.
async fn first_that_answers(
    addresses: &[SocketAddr],
    within: Duration,
) -> Result<Plain<TcpStream>, ConnectError> {
    let share = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = ConnectError::Timeout { stage: Stage::Connecting, within };
    for address in addresses {
        match timer::timeout(share, Plain::connect_tcp(*address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = unopened(address.to_string(), error),
            Err(_) => last = ConnectError::Timeout { stage: Stage::Connecting, within: share },
        }
    }
    Err(last)
}

/// Asks for TLS and shakes hands; or does the latter at once.
///
/// Exactly one byte is read before the handshake: plaintext that somebody slips in behind the
/// server's `S` ends up in the handshake, which fails over it, and is never taken for the
/// server's (CVE-2021-23222).
async fn secure(
    target: &Target,
    tls: &ClientTls,
    mut tcp: Plain<TcpStream>,
    attempt: Attempt,
) -> Result<Stream, ConnectError> {
    let lost = |source| broken(Stage::Securing, source);
    match target.negotiation {
        SslNegotiation::Direct => {
            let secured = tls.connect_unasked(&target.host, tcp).await;
            return secured.map_err(|source| ConnectError::DirectTls { source });
        }
        SslNegotiation::Postgres => (),
    }
    tcp.write_all(&SSL_REQUEST).await.map_err(lost)?;
    match tcp.read_u8().await.map_err(lost)? {
        b'S' => {
            let secured = tls.connect(&target.host, tcp).await;
            secured.map_err(|source| ConnectError::Tls { source })
        }
        b'N' if attempt == Attempt::IfOffered => Ok(Stream::from(tcp)),
        b'N' => Err(ConnectError::NoTls),
        // A server that could not even start a process for us; its text is not authenticated.
        b'E' => Err(broken(Stage::Securing, io::Error::other("it answered with an error"))),
        other => Err(ConnectError::NotPostgres { answer: char::from(other).to_string() }),
    }
}

fn unopened(address: String, source: io::Error) -> ConnectError {
    // A unix socket's file that is missing: nothing listens there either.
    let refused = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
    if refused.contains(&source.kind()) {
        ConnectError::Refused { address }
    } else {
        ConnectError::Unreachable { address, source }
    }
}

fn broken(stage: Stage, source: io::Error) -> ConnectError {
    ConnectError::Broken { stage, source }
}
