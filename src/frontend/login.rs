//! From an accepted connection to a client that is who it says.
//!
//! The first packet, TLS if it is asked for and to be had, the startup message, the proof. That it
//! will do goes out with all else that a client is told at its login, as from a server. Whoever
//! does anything else is told so in one FATAL error and is closed. Whatever a stranger does costs
//! its slot, a few kilobytes and at most the login timeout.
//!
//! What a client sends behind its login is the session's. Plaintext that somebody slips in behind
//! an `SSLRequest` is nobody's: such a connection is closed (CVE-2021-23214).
//!
//! Deliberately absent: everything that a session needs of a server. A login needs one only to
//! learn a verifier, any one, and none at all if the verifier is known.

use crate::auth::scram::{EndPoint, ScramError};
use crate::auth::{Access, Authenticated, Failures, Keyring, Refusal, Source};
use crate::backend::{Lookup, LookupError};
use crate::clock;
use crate::frontend::admit::{Wish, authenticate};
use crate::frontend::introduction::Introduction;
use crate::frontend::line::Line;
use crate::metrics::Admission;
use crate::net::{ClientCertificate, Peer, Secured, ServerTls, Stream};
use crate::pg::SqlState;
use crate::timer;
use crate::wire::message::{
    AuthRequest, ErrorReport, Malformed, TooLong, write_auth_request, write_error,
};
use crate::wire::startup;
use crate::wire::startup::{CancelKey, FirstPacket, Negotiation, StartupError};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::{debug, info};

/// First packets before the startup message: GSSAPI, TLS, and then the startup itself.
const PACKETS_MAX: usize = 4;
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a client that is turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much of what it still sends is read meanwhile, in bytes: a reset would take the error
/// away from it.
const FAREWELL_BYTES: usize = 64 * 1024;

/// How clients log in.
#[derive(Debug)]
pub struct Gate {
    /// How they prove who they are.
    pub access: Access,
    /// What is known of the users.
    pub keyring: Arc<Keyring>,
    /// Who is asked about the others; `None`: nobody.
    pub lookup: Option<Arc<Lookup>>,
    /// How long the answer counts for the next login of the user from the same address.
    pub lookup_age_max: Duration,
    /// Our certificate; `None`: no TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether a client may do without TLS.
    pub plaintext: Plaintext,
    /// The longest time from the connection to `AuthenticationOk`.
    pub timeout: Duration,
    /// Who failed how often.
    pub failures: Arc<Failures>,
    /// The longest wait for a refusal.
    pub failure_delay: Duration,
}

/// Whether a client may do without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// It may.
    Allowed,
    /// It may not, except over a unix socket.
    Refused,
}

/// What came of a connection.
#[derive(Debug)]
pub enum Entered {
    /// A client that is who it says.
    Session(LoggedIn),
    /// A wish to cancel somebody's statement. The connection is closed when the cancel was
    /// dealt with, which is when this stream is dropped.
    Cancel(CancelKey, Stream),
    /// Nobody: it was turned away or went by itself, which was logged; as this it counts.
    Nobody(Admission),
}

/// A client that is who it says.
#[derive(Debug)]
pub struct LoggedIn {
    /// Its connection.
    pub stream: Stream,
    /// Where it connects from.
    pub peer: Peer,
    /// What it says of itself.
    pub introduction: Arc<Introduction>,
    /// The proof of that.
    pub authenticated: Authenticated,
    /// What it is still to be told of its login, before anything else: up to `AuthenticationOk`.
    pub unsent: Vec<u8>,
    /// What it has sent behind its login, as far as that was read.
    pub ahead: Vec<u8>,
}

/// Why nobody came in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the client left")]
    Left,
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    #[error("login was not completed within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error("{0}")]
    Protocol(String),
    #[error("{refusal}")]
    Refused { refusal: Refusal, why: &'static str },
    #[error("{source}")]
    Lookup { user: Arc<str>, source: Arc<LookupError> },
}

/// A connection on its way in. While it shakes hands over TLS, nothing can be said to it.
pub(super) struct Visitor {
    line: Option<Line>,
    /// What a proof can be bound to: with TLS, if it is known.
    pub(super) end_point: Option<EndPoint>,
    /// What the client showed of itself, verified.
    pub(super) certificate: Option<ClientCertificate>,
    pub(super) peer: Peer,
    /// What goes out with the next that it is told.
    pub(super) unsent: Vec<u8>,
}

/// Lets a client in, or turns it away. Not cancel-safe: dropped, the connection is closed.
pub async fn enter(stream: Stream, gate: &Gate) -> Entered {
    let peer = stream.peer();
    enter_within((stream, peer), gate, gate.timeout, |_| None).await
}

/// Longest wait for what somebody comes for, for whom there is no place.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(3);

/// Somebody for whom there is no place: a wish to cancel is heard all the same. Anybody else is
/// told why, and is closed.
///
/// Not cancel-safe: dropped, the connection is closed.
pub(super) async fn enter_to_cancel(
    stream: Stream,
    gate: &Gate,
    why: &ErrorReport,
) -> Option<(CancelKey, Stream)> {
    let peer = stream.peer();
    let mut visitor = Visitor::new(stream, peer);
    let errand = Box::pin(errand(&mut visitor, gate, |_| None));
    if let Ok(Ok(Errand::Cancel(key))) = timer::timeout(ERRAND_TIMEOUT, errand).await {
        return Some((key, visitor.line?.stream));
    }
    if let Some(line) = visitor.line {
        drop(timer::timeout(FAREWELL, Box::pin(turn_away(line.stream, why))).await);
    }
    None
}

/// The same for a client that has less time. `recall` knows what some packets say.
pub(super) async fn enter_within(
    (stream, peer): (Stream, Peer),
    gate: &Gate,
    within: Duration,
    recall: impl Fn(&[u8]) -> Option<Arc<Introduction>>,
) -> Entered {
    let mut visitor = Visitor::new(stream, peer);
    // Boxed: who is let in need not be copied with the room for it. So is what few come to.
    let visit = Box::pin(visit(&mut visitor, gate, recall));
    let failure = match timer::timeout(within, visit).await {
        Ok(Ok(entered)) => return entered,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Timeout(within),
    };
    failure.log(&peer);
    let counts_as = failure.counts_as();
    if counts_as == Admission::AuthFailed {
        let wait = gate.failures.count(source(&peer), clock::now(), gate.failure_delay);
        if !wait.is_zero() {
            debug!(%peer, ?wait, "a refusal waits");
            timer::sleep(wait).await;
        }
    }
    if let (Some(line), Some(report)) = (visitor.line, failure.report()) {
        drop(timer::timeout(FAREWELL, Box::pin(turn_away(line.stream, &report))).await);
    }
    Entered::Nobody(counts_as)
}

async fn visit(
    visitor: &mut Visitor,
    gate: &Gate,
    recall: impl Fn(&[u8]) -> Option<Arc<Introduction>>,
) -> Result<Entered, Failure> {
    match errand(visitor, gate, recall).await? {
        Errand::Cancel(key) => Ok(Entered::Cancel(key, visitor.take()?.stream)),
        Errand::Session(introduction) => log_in(visitor, gate, introduction).await,
    }
}

/// What a client comes for.
enum Errand {
    Cancel(CancelKey),
    Session(Arc<Introduction>),
}

async fn errand(
    visitor: &mut Visitor,
    gate: &Gate,
    recall: impl Fn(&[u8]) -> Option<Arc<Introduction>>,
) -> Result<Errand, Failure> {
    if gate.tls.is_some() {
        // What is TLS itself must not be taken off.
        let mut first = [0];
        visitor.line()?.stream.glimpse(&mut first).await.map_err(lost)?;
        if first == [TLS_HANDSHAKE] {
            visitor.secure_unasked(gate).await?;
        }
    }
    for _ in 0..PACKETS_MAX {
        let packet = visitor.line()?.packet().await?;
        if let Some(known) = recall(&packet) {
            return Ok(Errand::Session(known));
        }
        match startup::read(&packet)? {
            FirstPacket::Ssl => visitor.secure(gate).await?,
            FirstPacket::GssEnc => visitor.line()?.send(b"N").await?,
            FirstPacket::Cancel(key) => return Ok(Errand::Cancel(key)),
            FirstPacket::Startup(startup) => {
                return Ok(Errand::Session(Arc::new(Introduction::new(packet, startup))));
            }
        }
    }
    Err(Failure::Protocol("too many requests for encryption".to_owned()))
}

async fn log_in(
    visitor: &mut Visitor,
    gate: &Gate,
    introduction: Arc<Introduction>,
) -> Result<Entered, Failure> {
    let mut out = Vec::new();
    match &introduction.negotiation {
        Negotiation::Agreed => (),
        Negotiation::Offer { unknown_options } => {
            startup::write_negotiation(&mut out, introduction.minor, unknown_options)?;
        }
    }
    visitor.check_tls(gate)?;
    visitor.line()?.send(&out).await?;
    let Introduction { user, database, replication, .. } = &*introduction;
    let wish = Wish { user, database, replication: *replication };
    let authenticated = authenticate(visitor, gate, wish).await?;
    let mut unsent = std::mem::take(&mut visitor.unsent);
    write_auth_request(&mut unsent, &AuthRequest::Ok)?;
    let (line, peer) = (visitor.take()?, visitor.peer);
    let Line { stream, ahead } = line;
    Ok(Entered::Session(LoggedIn { stream, peer, introduction, authenticated, unsent, ahead }))
}

impl Visitor {
    fn new(stream: Stream, peer: Peer) -> Self {
        let unsent = Vec::new();
        let line = Some(Line::new(stream));
        Self { line, end_point: None, certificate: None, peer, unsent }
    }

    /// Whether the connection is as private as the operator demands.
    fn check_tls(&mut self, gate: &Gate) -> Result<(), Failure> {
        let private = self.line()?.stream.is_tls() || matches!(self.peer, Peer::Unix);
        match gate.plaintext {
            Plaintext::Refused if !private => {
                let refusal = Refusal::WithoutTls { peer: self.peer.to_string() };
                Err(Failure::Refused { refusal, why: "" })
            }
            Plaintext::Refused | Plaintext::Allowed => Ok(()),
        }
    }

    pub(super) fn line(&mut self) -> Result<&mut Line, Failure> {
        self.line.as_mut().ok_or(Failure::Left)
    }

    fn take(&mut self) -> Result<Line, Failure> {
        self.line.take().ok_or(Failure::Left)
    }

    /// Shakes hands at once with a client that begins with TLS itself (`sslnegotiation=direct`).
    async fn secure_unasked(&mut self, gate: &Gate) -> Result<(), Failure> {
        match (self.take()?.stream, &gate.tls) {
            (Stream::Tcp(tcp), Some(tls)) => {
                let secured = Box::pin(tls.accept_unasked(tcp)).await;
                self.secured(secured.map_err(Failure::Tls)?);
            }
            // Its first packet will turn out to be none.
            (stream, _) => self.line = Some(Line::new(stream)),
        }
        Ok(())
    }

    fn secured(&mut self, secured: Secured) {
        let Secured { stream, end_point, client } = secured;
        self.line = Some(Line::new(stream));
        self.end_point = end_point.map(EndPoint);
        self.certificate = client;
    }

    /// Answers an `SSLRequest`. On a unix socket there is no TLS, as with PostgreSQL.
    async fn secure(&mut self, gate: &Gate) -> Result<(), Failure> {
        let Line { stream, ahead } = self.take()?;
        match (stream, &gate.tls) {
            (Stream::Tcp(_), Some(_)) if !ahead.is_empty() => {
                let slipped_in = "received unencrypted data after SSL request";
                Err(Failure::Tls(io::Error::other(slipped_in)))
            }
            (Stream::Tcp(mut tcp), Some(tls)) => {
                tcp.write_all(b"S").await.map_err(Failure::Broken)?;
                self.secured(Box::pin(tls.accept(tcp)).await.map_err(Failure::Tls)?);
                Ok(())
            }
            (stream @ (Stream::TlsServer(_) | Stream::TlsClient(_)), _) => {
                self.line = Some(Line { stream, ahead });
                Err(Failure::Protocol("TLS was asked for within TLS".to_owned()))
            }
            (stream @ (Stream::Tcp(_) | Stream::Unix(_)), _) => {
                self.line.insert(Line { stream, ahead }).send(b"N").await
            }
        }
    }
}

/// Says why, and waits until it was read: closing over unread input would send a reset, which
/// overtakes the error.
async fn turn_away(mut stream: Stream, report: &ErrorReport) -> io::Result<()> {
    let mut out = Vec::new();
    write_error(&mut out, report);
    stream.write_all(&out).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    let mut left = FAREWELL_BYTES;
    while left > 0 {
        match stream.read(&mut unread).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

pub(super) fn lost(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        Failure::Left
    } else {
        Failure::Broken(error)
    }
}

impl Failure {
    /// What the client is told; `None` if it can't be, or has gone.
    pub(super) fn report(&self) -> Option<ErrorReport> {
        let fatal = |code| ErrorReport::fatal(code, self.to_string());
        match self {
            Self::Left | Self::Broken(_) | Self::Tls(_) => None,
            Self::Timeout(_) => Some(
                fatal(SqlState::QUERY_CANCELED)
                    .with_detail("The client, or the servers that are asked about it, were slow.")
                    .with_hint(
                        "Connect again; limits.login_timeout and limits.rules set the time.",
                    ),
            ),
            Self::Startup(error) => Some(error.report()),
            Self::Protocol(_) => Some(
                fatal(SqlState::PROTOCOL_VIOLATION)
                    .with_detail("The client has left the protocol during its login.")
                    .with_hint("Most likely a defect of the driver: use a newer one, or another."),
            ),
            Self::Refused { refusal, .. } => Some(refusal.report()),
            Self::Lookup { user, .. } => {
                let message = format!("cannot check the password of user \"{user}\" now");
                let report = ErrorReport::fatal(SqlState::CANNOT_CONNECT_NOW, message)
                    .with_detail("No server could be asked for it.")
                    .with_hint("Connect again later; pgsteer's log says why.");
                Some(report)
            }
        }
    }

    /// What it is in the metrics.
    const fn counts_as(&self) -> Admission {
        match self {
            Self::Left | Self::Broken(_) | Self::Timeout(_) => Admission::Abandoned,
            Self::Tls(_) | Self::Refused { refusal: Refusal::WithoutTls { .. }, .. } => {
                Admission::TlsError
            }
            Self::Refused {
                refusal:
                    Refusal::Password { .. }
                    | Refusal::TrustElsewhere { .. }
                    | Refusal::Rejected { .. }
                    | Refusal::NoRule { .. }
                    | Refusal::NoCertificate
                    | Refusal::Certificate { .. }
                    | Refusal::Peer { .. }
                    // Somebody in between.
                    | Refusal::Exchange(ScramError::BoundElsewhere | ScramError::Downgraded),
                ..
            } => Admission::AuthFailed,
            Self::Startup(_)
            | Self::Protocol(_)
            | Self::Refused { refusal: Refusal::Exchange(_), .. } => Admission::ProtocolError,
            Self::Lookup { .. } => Admission::Unavailable,
        }
    }

    /// What the client is not told.
    const fn why(&self) -> &'static str {
        match self {
            Self::Refused { why, .. } => why,
            Self::Left
            | Self::Broken(_)
            | Self::Tls(_)
            | Self::Timeout(_)
            | Self::Startup(_)
            | Self::Protocol(_)
            | Self::Lookup { .. } => "",
        }
    }

    fn log(&self, peer: &Peer) {
        let (reason, why) = (self.to_string(), self.why());
        if matches!(self, Self::Left | Self::Broken(_)) {
            log_departure(peer, &reason);
        } else {
            info!(%peer, reason, why, "login refused");
        }
    }
}

/// Whose failures are counted together.
pub(super) fn source(peer: &Peer) -> Source {
    match peer {
        Peer::Ip(address) => Source::of(address.ip()),
        Peer::Unix | Peer::Unknown => Source::Socket,
    }
}

/// Health checks of load balancers do no more than connect.
fn log_departure(peer: &Peer, reason: &str) {
    debug!(%peer, reason, "no login");
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<TooLong> for Failure {
    fn from(error: TooLong) -> Self {
        Self::Protocol(error.to_string())
    }
}
