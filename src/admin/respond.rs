//! From a request to its answer, without a socket.

use crate::admin::operate::Operators;
use crate::admin::report::FailoverReport;
use crate::admin::status::{ServerReport, Shown, StatusReport};
use crate::board::Board;
use crate::clock;
use crate::failover::Lost;
use crate::metrics::{Condition, Health, Metrics, Requirement};
use crate::pg::Timeline;
use crate::topology::Role;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use tracing::error;

/// Says where a statement would go: the database, the SQL.
pub type Explain = Box<dyn Fn(&str, &str) -> serde_json::Value + Send + Sync>;

/// Where the answers come from.
pub struct Sources {
    /// The topology.
    pub board: Arc<Board>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the process says of itself.
    pub health: Arc<Health>,
    /// The settings that the status names.
    pub shown: Arc<ArcSwap<Shown>>,
    /// The judge of statements.
    pub explain: Explain,
    /// Who carries out orders.
    pub operators: Operators,
}

/// A whole answer.
pub(super) type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

impl Sources {
    /// Answers one request.
    pub(super) fn respond(&self, method: &Method, uri: &Uri, body: &[u8]) -> Answer {
        let posts = *method == Method::POST && uri.path() == "/route";
        if !posts && *method != Method::GET && *method != Method::HEAD {
            return refuse_method(uri.path());
        }
        match uri.path() {
            "/metrics" => self.metrics(),
            "/livez" => conditions(&self.health.alive(clock::now()), Query::of(uri)),
            "/readyz" => self.ready(Query::of(uri)),
            "/status" => self.status(),
            "/route" => self.route(Query::of(uri), body),
            "/" => text(
                StatusCode::OK,
                "/metrics /livez /readyz /status /route\n\
                 with the token: /failover /switchover /abort /orders/NUMBER /history /settings\n",
            ),
            path => text(
                StatusCode::NOT_FOUND,
                format!(
                    "nothing at {path}; there are /metrics, /livez, /readyz, /status and /route\n"
                ),
            ),
        }
    }

    fn metrics(&self) -> Answer {
        match self.metrics.expose() {
            Ok(exposed) => answer(StatusCode::OK, METRICS, exposed),
            Err(error) => {
                error!(%error, "metrics can't be written; this is a defect");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics can't be written\n")
            }
        }
    }

    fn ready(&self, query: Query<'_>) -> Answer {
        let require = match query.get("require").as_deref() {
            None => Requirement::Nothing,
            Some("primary") => Requirement::Primary,
            Some(other) => {
                let message = format!("unknown requirement {other:?}; there is primary\n");
                return text(StatusCode::BAD_REQUEST, message);
            }
        };
        conditions(&self.health.ready(&self.board.load(), require), query)
    }

    fn status(&self) -> Answer {
        let shown = **self.shown.load();
        let failover = FailoverReport::new(&self.operators.steward, self.operators.token_file());
        let topology = self.board.load();
        let report = StatusReport::new(&topology, &self.metrics, (shown, failover), clock::now());
        let steward = &self.operators.steward;
        let branch = |server: &ServerReport| server.timeline.map(Timeline);
        json(&report.with_rejoin(|server, primary| {
            let role = if server.is_primary() { Role::Primary } else { Role::Standby };
            let lost = Lost { name: &server.name, role, timeline: branch(server) };
            steward.rejoin(lost, (&primary.name, branch(primary)))
        }))
    }

    fn route(&self, query: Query<'_>, body: &[u8]) -> Answer {
        let sql = match query.get("sql") {
            Some(sql) => sql,
            None => String::from_utf8_lossy(body).into_owned(),
        };
        if sql.trim().is_empty() {
            let message = "no statement: send it as the body, or as ?sql=\n";
            return text(StatusCode::BAD_REQUEST, message);
        }
        let database = query.get("database").unwrap_or_else(|| "postgres".to_owned());
        json(&(self.explain)(&database, &sql))
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// What stands behind the `?`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn of(uri: &'a Uri) -> Self {
        Self(uri.query().unwrap_or(""))
    }

    /// The value of a name; empty for one that stands alone.
    pub(super) fn get(self, name: &str) -> Option<String> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| unescaped(value))
    }
}

/// Percent signs and `+` resolved; what is no UTF-8 then is replaced.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// In the manner of Kubernetes: `[+]` holds, `[-]` does not.
fn conditions(conditions: &[Condition], query: Query<'_>) -> Answer {
    let all = conditions.iter().all(|(_, holds)| *holds);
    let (status, verdict) =
        if all { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ok\n") };
    let mut body = String::new();
    if query.get("verbose").is_some() || !all {
        for (name, holds) in conditions {
            body.push_str(if *holds { "[+] " } else { "[-] " });
            body.push_str(name);
            body.push('\n');
        }
    }
    body.push_str(verdict);
    text(status, body)
}

fn refuse_method(path: &str) -> Answer {
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    let allow = if path == "/route" { "GET, HEAD, POST" } else { "GET, HEAD" };
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    refused
}

pub(super) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(body) => answer(StatusCode::OK, JSON, body + "\n"),
        Err(error) => {
            error!(%error, "an answer can't be written; this is a defect");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the answer can't be written\n")
        }
    }
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    answer(status, TEXT, body.into())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whatever_is_in_it() {
        let get = |query, name: &str| Query(query).get(name);
        assert_eq!(get("sql=SELECT%201+%2B%201&x=y", "sql").as_deref(), Some("SELECT 1 + 1"));
        assert_eq!(get("verbose", "verbose").as_deref(), Some(""));
        assert_eq!(get("a=%", "a").as_deref(), Some("%"));
        assert_eq!(get("a=%zz%4", "a").as_deref(), Some("%zz%4"));
        assert_eq!(get("a=%FF", "a").as_deref(), Some("\u{FFFD}"));
        assert_eq!(get("", "a"), None);
    }
}
