//! Asking the running proxy over HTTP: one request, one bounded answer, one deadline.

use crate::config::Report;
use crate::config::Request;
use crate::store::Token;
use crate::timer;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// The longest answer that is read.
const LONGEST: usize = 16 * 1024 * 1024;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Path and query, as in `/status`.
    pub path: String,
    /// The body; `None`: a GET, else a POST.
    pub body: Option<String>,
    /// What gives the right to ask, where that is needed.
    pub token: Option<Token>,
}

impl Question {
    /// A GET that anybody may ask.
    pub fn get(path: &str) -> Self {
        Self { path: path.to_owned(), body: None, token: None }
    }
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there: most likely no proxy runs.
    #[error("no pgsteer answers on http://{address} (--http names another address)")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Somebody listens, but says nothing in time.
    #[error("http://{address} did not answer within {waited:?}")]
    TooLate {
        /// Where.
        address: SocketAddr,
        /// For how long.
        waited: Duration,
    },
    /// Somebody answers, but not as a proxy does.
    #[error("http://{address} does not answer as pgsteer does: {what}")]
    Strange {
        /// Where.
        address: SocketAddr,
        /// What is odd.
        what: String,
    },
    /// The configuration serves no HTTP.
    #[error("the configuration has http = \"off\": name the address with --http")]
    Off,
    /// The configuration's `http` is wrong.
    #[error(transparent)]
    Wrong(#[from] Report),
}

/// Where the proxy of this configuration serves HTTP, and can be reached from here.
///
/// # Errors
/// [`AskError::Off`] if it does not; [`AskError::Wrong`] if the key cannot be read.
pub fn address(request: &Request) -> Result<SocketAddr, AskError> {
    let address = request.http()?.ok_or(AskError::Off)?;
    Ok(SocketAddr::new(reachable(address.ip()), address.port()))
}

/// Who listens on every address also listens on loopback.
pub fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => ip,
    }
}

/// Asks, and waits for the whole answer.
///
/// # Errors
/// See [`AskError`].
pub fn ask(address: SocketAddr, question: Question, wait: Duration) -> Result<Answer, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| AskError::Unreachable { address, source })?;
    runtime.block_on(async {
        let answer = timer::timeout(wait, exchange(address, question)).await;
        answer.unwrap_or(Err(AskError::TooLate { address, waited: wait }))
    })
}

/// Not cancel-safe: a request that was sent is not taken back.
async fn exchange(address: SocketAddr, question: Question) -> Result<Answer, AskError> {
    let strange = |what: String| AskError::Strange { address, what };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| AskError::Unreachable { address, source })?;
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| strange(error.to_string()))?;
    let method = if question.body.is_some() { "POST" } else { "GET" };
    let bearer = question.token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
    let request = hyper::Request::builder()
        .method(method)
        .uri(&question.path)
        .header("host", address.to_string())
        .header("connection", "close");
    let request = match bearer {
        Some(bearer) => request.header("authorization", bearer),
        None => request,
    };
    let request = request
        .body(Full::new(Bytes::from(question.body.unwrap_or_default())))
        .map_err(|error| strange(error.to_string()))?;
    let conversation = async {
        let response =
            sender.send_request(request).await.map_err(|error| strange(error.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| strange(error.to_string()))?.to_bytes();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    // The connection makes progress only while it is polled; its own end is no news.
    let (answer, _closed) = tokio::join!(conversation, connection);
    answer
}

/// A text as part of a query: everything but RFC 3986's unreserved signs is escaped.
pub fn escaped(text: &str) -> String {
    let each = text.bytes().map(|byte| {
        let sign = char::from(byte);
        if sign.is_ascii_alphanumeric() || "-._~".contains(sign) {
            sign.to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_can_hold_any_text() {
        assert_eq!(escaped("a b&ü"), "a%20b%26%C3%BC");
    }

    #[test]
    fn nobody_there_is_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let question = Question::get("/status");

        let silent = ask(address, question.clone(), Duration::from_millis(50));
        drop(listener);
        let gone = ask(address, question, Duration::from_millis(500));

        assert!(matches!(silent, Err(AskError::TooLate { .. })));
        assert!(matches!(gone, Err(AskError::Unreachable { .. })));
    }
}
