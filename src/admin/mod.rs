//! What operators and their tools ask over HTTP: metrics, health, status, routes.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | everything that is counted, in the text format of Prometheus |
//! | `/livez` | 200 while our own threads turn; never because of a server |
//! | `/readyz` | 200 while clients can be served; `?verbose` names each condition, `?require=primary` adds one |
//! | `/status` | [`StatusReport`] as JSON: what `pgsteer status` shows |
//! | `/route` | where a statement would go: `?database=`, the SQL as the body or as `?sql=` |
//! | `/failover`, ... | orders of operators, who must show a token: see `operate` |
//!
//! Invariants:
//! - Requests are bounded: in size, in headers, in time, in number.
//! - A lost primary makes nobody unready: a load balancer would turn away the clients whose
//!   statements can wait.
//! - It answers while pgsteer drains.
//!
//! - Whoever changes something comes from this machine and shows the token of the running process.
//!
//! Deliberately absent: TLS: it listens on loopback unless told otherwise.

mod http;
mod operate;
mod report;
mod respond;
mod status;

pub use crate::metrics::{Health, Requirement};
pub use http::{AdminError, Listening};
pub use operate::Operators;
pub use report::{
    AccountReport, ChangeReport, FailoverReport, LossReport, OrderState, PastStepReport,
    PreparedReport, PreviewReport, StepReport, StepsReport,
};
pub use respond::{Explain, Sources};
pub use status::{
    ClientReport, LimitReport, PinnedReport, PinnedSessionReport, ReadReport, ServerReport,
    SessionReport, Shown, State, StatusReport,
};
