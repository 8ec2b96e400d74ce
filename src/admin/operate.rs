//! Orders of operators, and what they are told before and after.
//!
//! | request | answers |
//! |---|---|
//! | `GET /failover`, `GET /switchover` | [`PreviewReport`]: what it would do; `?to=`, `?accept_loss=` |
//! | `POST /failover`, `/switchover`, `/abort` | 202 and the number of the order |
//! | `GET /orders/NUMBER` | [`AccountReport`]: what became of it so far |
//! | `GET /history` | the completed changes |
//! | `GET /settings` | the servers, and what is planned for them, as a configuration file |
//! | `GET /steps` | [`StepsReport`]: what was gone through lately, whoever began it |
//!
//! Invariants:
//! - Nobody gets an answer here who does not come from this machine *and* show the token, which
//!   lies where only who runs pgsteer can read it.
//! - A body that is not understood in full orders nothing.

use crate::admin::report::{AccountReport, ChangeReport, PreviewReport, StepsReport};
use crate::admin::respond::{Answer, Query, json, text};
use crate::clock;
use crate::control::{OrderId, Steward, StewardError};
use crate::failover::{MaxLoss, Order};
use crate::store::Token;
use arc_swap::ArcSwap;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Who carries orders out, and what must be shown to give one.
#[derive(Debug)]
pub struct Operators {
    /// The handle.
    pub steward: Steward,
    /// What must be shown, and where it lies; `None`: nobody may order.
    pub token: Option<(Token, PathBuf)>,
    /// What leads a command to the same servers: the control user, and what is planned for them.
    pub settings: Arc<ArcSwap<String>>,
}

/// Whether a path is answered here.
pub(super) fn answers(path: &str) -> bool {
    Place::of(path).is_some()
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    Failover,
    Switchover,
    Abort,
    History,
    Steps,
    Settings,
    Order(&'a str),
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        match path {
            "/failover" => Some(Self::Failover),
            "/switchover" => Some(Self::Switchover),
            "/abort" => Some(Self::Abort),
            "/history" => Some(Self::History),
            "/steps" => Some(Self::Steps),
            "/settings" => Some(Self::Settings),
            _ => path.strip_prefix("/orders/").map(Self::Order),
        }
    }
}

/// The body of an order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    to: Option<Arc<str>>,
    accept_loss: Option<Accept>,
}

/// What may be lost: a number of bytes, or `"any"`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Accept {
    Bytes(u64),
    Word(Any),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Any {
    Any,
}

impl Accept {
    /// As it stands in a query.
    fn read(text: &str) -> Option<Self> {
        match text {
            "any" => Some(Self::Word(Any::Any)),
            number => number.parse().ok().map(Self::Bytes),
        }
    }

    const fn loss(self) -> MaxLoss {
        match self {
            Self::Bytes(bytes) => MaxLoss::Bytes(bytes),
            Self::Word(Any::Any) => MaxLoss::Any,
        }
    }
}

impl Operators {
    /// Where the token lies, in text.
    pub(super) fn token_file(&self) -> Option<String> {
        self.token.as_ref().map(|(_, path)| path.display().to_string())
    }

    /// Answers one request of a path that [`answers`].
    ///
    /// Not cancel-safe: an order may have been given.
    pub(super) async fn respond(&self, peer: IpAddr, head: &Parts, body: &[u8]) -> Answer {
        if let Some(refused) = self.refuse(peer, head) {
            return refused;
        }
        let Some(place) = Place::of(head.uri.path()) else {
            return text(StatusCode::NOT_FOUND, "nothing here\n");
        };
        let gets = head.method == Method::GET;
        match (place, gets) {
            (Place::History, true) => self.history(),
            (Place::Steps, true) => json(&StepsReport::new(&self.steward.steps(), clock::now())),
            (Place::Settings, true) => text(StatusCode::OK, self.settings.load().as_str()),
            (Place::Order(id), true) => self.account(id),
            (Place::Failover | Place::Switchover, true) => {
                match wish_of_query(Query::of(&head.uri)) {
                    Some(wish) => self.preview(place, wish).await,
                    None => text(StatusCode::BAD_REQUEST, "accept_loss is bytes, or any\n"),
                }
            }
            (Place::Failover | Place::Switchover | Place::Abort, false)
                if head.method == Method::POST =>
            {
                match wish_of_body(body) {
                    Ok(wish) => self.carry_out(place, wish).await,
                    Err(wrong) => text(StatusCode::BAD_REQUEST, wrong),
                }
            }
            (Place::Abort, true) => text(StatusCode::METHOD_NOT_ALLOWED, "POST it\n"),
            (_, false) => text(StatusCode::METHOD_NOT_ALLOWED, "not like that\n"),
        }
    }

    /// The refusal of whoever is elsewhere, or does not show the token.
    fn refuse(&self, peer: IpAddr, head: &Parts) -> Option<Answer> {
        if !peer.to_canonical().is_loopback() {
            let message = "orders are taken from this machine only: use 127.0.0.1\n";
            return Some(text(StatusCode::FORBIDDEN, message));
        }
        let Some((token, path)) = &self.token else {
            let cause = self.steward.cause().unwrap_or(StewardError::NoRecord);
            return Some(unavailable(&cause));
        };
        let shown = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
        if shown.is_some_and(|shown| token.is(shown.trim())) {
            return None;
        }
        let message = format!(
            "show the text of {} as `Authorization: Bearer ...`; whoever may read it may order\n",
            path.display()
        );
        let mut refused = text(StatusCode::UNAUTHORIZED, message);
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Some(refused)
    }

    fn history(&self) -> Answer {
        match self.steward.history() {
            Ok(changes) => {
                let changes: Vec<_> = changes.iter().map(ChangeReport::from).collect();
                json(&serde_json::json!({ "changes": changes }))
            }
            Err(error) => unavailable(&error),
        }
    }

    fn account(&self, id: &str) -> Answer {
        let number = id.parse().ok().map(OrderId);
        match number.and_then(|number| self.steward.account(number)) {
            Some(account) => json(&AccountReport::new(id, &account, clock::now())),
            None => text(
                StatusCode::NOT_FOUND,
                "this order is not known here: pgsteer may have been restarted since; see \
                 `pgsteer status` and `pgsteer history`\n",
            ),
        }
    }

    async fn preview(&self, place: Place<'_>, wish: Wish) -> Answer {
        let order = order_of(place, wish);
        let accepted = match order {
            Order::Failover { accept, .. } => accept.or(self.steward.policy().max_data_loss),
            Order::Switchover { .. } | Order::Abort => MaxLoss::Bytes(0),
        };
        match self.steward.preview(order).await {
            Ok(preview) => json(&PreviewReport::new(&preview, accepted)),
            Err(error) => unavailable(&error),
        }
    }

    async fn carry_out(&self, place: Place<'_>, wish: Wish) -> Answer {
        match self.steward.order(order_of(place, wish)).await {
            Ok(OrderId(number)) => {
                let mut answer = json(&serde_json::json!({ "order": number.to_string() }));
                *answer.status_mut() = StatusCode::ACCEPTED;
                answer
            }
            Err(error) => unavailable(&error),
        }
    }
}

/// What is asked for. What is configured is not part of it.
fn order_of(place: Place<'_>, wish: Wish) -> Order {
    let Wish { to, accept_loss } = wish;
    match place {
        Place::Failover => {
            let accept = accept_loss.map_or(MaxLoss::Bytes(0), Accept::loss);
            Order::Failover { to, accept }
        }
        Place::Switchover => Order::Switchover { to },
        Place::Abort | Place::History | Place::Steps | Place::Settings | Place::Order(_) => {
            Order::Abort
        }
    }
}

fn wish_of_query(query: Query<'_>) -> Option<Wish> {
    let accept_loss = match query.get("accept_loss") {
        Some(text) => Some(Accept::read(&text)?),
        None => None,
    };
    Some(Wish { to: query.get("to").map(Arc::from), accept_loss })
}

fn wish_of_body(body: &[u8]) -> Result<Wish, String> {
    if body.is_empty() {
        return Ok(Wish::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        format!("the order is not understood ({error}): send {{\"to\": \"SERVER\"}} or nothing\n")
    })
}

fn unavailable(error: &StewardError) -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Build, Metrics};
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Whoever asks from another machine is refused, whatever he shows.
    #[tokio::test]
    async fn who_is_elsewhere_is_refused() {
        let metrics = Arc::new(Metrics::new(&[], Build::default()).unwrap());
        let steward = Steward::unavailable("this is a test", Arc::default(), metrics);
        let operators = Operators { steward, token: None, settings: Arc::default() };
        let head = || hyper::Request::get("/history").body(()).unwrap().into_parts().0;
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let peers: [(IpAddr, _); 5] = [
            (Ipv4Addr::new(10, 0, 0, 1).into(), StatusCode::FORBIDDEN),
            (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), StatusCode::FORBIDDEN),
            (Ipv4Addr::LOCALHOST.into(), StatusCode::SERVICE_UNAVAILABLE),
            (Ipv6Addr::LOCALHOST.into(), StatusCode::SERVICE_UNAVAILABLE),
            (mapped.into(), StatusCode::SERVICE_UNAVAILABLE),
        ];
        for (peer, expected) in peers {
            let answer = operators.respond(peer, &head(), b"").await;
            assert_eq!(answer.status(), expected, "{peer}");
        }
    }
}
