//! The HTTP server: listens, bounds what comes in, hands it to `respond`.

use crate::admin::operate;
use crate::admin::respond::{Answer, Sources, text};
use crate::tasks;
use crate::timer;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Most connections at a time: a few scrapers, probes and people.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a request's headers, and for its body.
const READ_MAX: Duration = Duration::from_secs(5);
/// Longest life of a connection; a scraper opens another.
const CONNECTION_MAX: Duration = Duration::from_mins(5);
/// Most bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;
/// Most headers.
const HEADERS_MAX: usize = 64;
/// Most bytes of a body: one statement to be judged.
const BODY_MAX: usize = 1024 * 1024;
/// The pause after an accept that failed, for want of file descriptors say.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody else has the port.
    #[error(
        "cannot serve HTTP on {address}: the port is taken, perhaps by another pgsteer; choose \
         another with --http, or none with http = \"off\""
    )]
    Taken {
        /// Where.
        address: SocketAddr,
    },
    /// The system refuses.
    #[error("cannot serve HTTP on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A port that is ours; nothing is answered yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Takes the port.
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let failed = |source: io::Error| {
            if source.kind() == io::ErrorKind::AddrInUse {
                AdminError::Taken { address }
            } else {
                AdminError::Bind { address, source }
            }
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where: the real port, where 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the token is cancelled, then drops what is under way.
    pub async fn serve(self, sources: Arc<Sources>, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "HTTP: accept failed");
                    timer::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            // Too many: this one is closed at once, rather than left to wait.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (sources, ending) = (Arc::clone(&sources), shutdown.clone());
            // It ends with its connection, or with the server.
            drop(tasks::spawn("http", async move {
                tokio::select! {
                    () = ending.cancelled() => {}
                    () = converse(stream, peer.ip(), sources) => {}
                }
                drop(place);
            }));
        }
    }
}

/// Serves one connection.
async fn converse(stream: TcpStream, peer: IpAddr, sources: Arc<Sources>) {
    let service = service_fn(move |request| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(answer(&sources, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_MAX)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timer::timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(%error, "HTTP: connection ended"),
    }
}

async fn answer(sources: &Sources, peer: IpAddr, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = timer::timeout(READ_MAX, Limited::new(body, BODY_MAX).collect()).await;
    match body {
        Ok(Ok(body)) if operate::answers(head.uri.path()) => {
            sources.operators.respond(peer, &head, &body.to_bytes()).await
        }
        Ok(Ok(body)) => sources.respond(&head.method, &head.uri, &body.to_bytes()),
        Ok(Err(_)) => text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broken\n"),
        Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
    }
}
