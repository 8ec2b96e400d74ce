//! Asking the servers for a user's verifier: `auth.query`.
//!
//! Any server that answers will do, a standby as well as the primary: logins work while there
//! is no primary. One connection stands; it is opened when it is needed first, and again when it
//! breaks.

use super::connect::{Backend, connect};
use super::error::{ConnectError, ServerError};
use super::query::{QueryError, ResultSet};
use super::target::{Login, Target};
use crate::auth::scram::Verifier;
use std::time::Duration;
use tokio::sync::Mutex;

/// Longest wait for one server, to connect as well as to answer.
const SERVER_WAIT: Duration = Duration::from_secs(2);

/// Asks the servers about users.
#[derive(Debug)]
pub struct Lookup {
    targets: Box<[Target]>,
    login: Login,
    query: String,
    /// Held while a server is asked: one question at a time. It is empty in the meantime, so a
    /// question that is given up takes its connection with it.
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    backend: Option<Backend>,
    /// The place of the server to be asked first: the one that answered last.
    first: usize,
}

/// What the servers say of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This is to be proved.
    Verifier(Verifier),
    /// Nothing can be proved; the reason is for the log, not for the client.
    Nothing(&'static str),
}

/// Why no server said anything.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// None could be connected to; the last one's reason.
    #[error("no server can be asked for the user's verifier; the last one, \"{server}\": {source}")]
    Unreachable {
        /// The last one's name.
        server: String,
        /// Its reason.
        source: ConnectError,
    },
    /// None answered; the last one's reason.
    #[error("no server answered auth.query; the last one, \"{server}\": {what}")]
    Unanswered {
        /// The last one's name.
        server: String,
        /// Its reason.
        what: String,
    },
    /// The query itself is wrong, or the control user lacks a right: every server would say so.
    #[error("auth.query failed on server \"{server}\": {source}")]
    Query {
        /// Which server said so.
        server: String,
        /// What it said.
        source: ServerError,
    },
    /// There is no server to ask.
    #[error("no server is configured")]
    NoServer,
}

impl Lookup {
    /// Asks these servers with this query, whose one parameter is the user's name, as `login`.
    pub fn new(targets: Vec<Target>, login: Login, query: String) -> Self {
        let standing = Mutex::new(Standing::default());
        Self { targets: targets.into_boxed_slice(), login, query, standing }
    }

    /// What the servers say of a user. Dropped, only the standing connection is lost.
    pub async fn find(&self, user: &str) -> Result<Answer, LookupError> {
        let mut standing = self.standing.lock().await;
        if let Some(backend) = standing.backend.take() {
            match self.ask(backend, user).await {
                Ok((answer, backend)) => {
                    standing.backend = Some(backend);
                    return Ok(answer);
                }
                // A connection may have been idle for too long. Another server first: this one
                // may be silent, and would be waited for once more.
                Err(Unanswered::Query(_) | Unanswered::Lost(_)) => {
                    standing.first = standing.first.wrapping_add(1);
                }
            }
        }
        let mut error = LookupError::NoServer;
        for turn in 0..self.targets.len() {
            let place = standing.first.wrapping_add(turn) % self.targets.len();
            let Some(target) = self.targets.get(place) else { continue };
            let server = || target.name.to_string();
            let backend = match connect(target, &self.login, SERVER_WAIT).await {
                Ok(backend) => backend,
                Err(source) => {
                    error = LookupError::Unreachable { server: server(), source };
                    continue;
                }
            };
            match self.ask(backend, user).await {
                Ok((answer, backend)) => {
                    *standing = Standing { backend: Some(backend), first: place };
                    return Ok(answer);
                }
                Err(Unanswered::Query(source)) => {
                    return Err(LookupError::Query { server: server(), source });
                }
                Err(Unanswered::Lost(what)) => {
                    error = LookupError::Unanswered { server: server(), what };
                }
            }
        }
        Err(error)
    }

    /// Asks one server; gives the connection back if it can be used again.
    async fn ask(&self, mut backend: Backend, user: &str) -> Result<(Answer, Backend), Unanswered> {
        let parameters = [user];
        let asked = backend.query_with(&self.query, &parameters);
        match tokio::time::timeout(SERVER_WAIT, asked).await {
            Ok(Ok(set)) => Ok((read(&set, user), backend)),
            Ok(Err(QueryError::Server(error))) if !error.ends_connection => {
                Err(Unanswered::Query(error))
            }
            Ok(Err(other)) => Err(Unanswered::Lost(other.to_string())),
            Err(_) => Err(Unanswered::Lost(format!("no answer within {SERVER_WAIT:?}"))),
        }
    }
}

enum Unanswered {
    Query(ServerError),
    Lost(String),
}

/// Name and verifier, for exactly this user.
fn read(set: &ResultSet, user: &str) -> Answer {
    if set.rows.is_empty() {
        return Answer::Nothing("no server knows this user");
    }
    if set.rows.len() > 1 || set.text(0, 0) != Some(user) {
        return Answer::Nothing("auth.query gave another user, or more than one");
    }
    match set.text(0, 1) {
        None => Answer::Nothing("the user has no password on the servers"),
        Some(text) => match Verifier::parse(text) {
            Ok(verifier) => Answer::Verifier(verifier),
            Err(_) => Answer::Nothing("the user's password is not stored as a SCRAM verifier"),
        },
    }
}
