//! Asking the servers for a user's verifier: `auth.query`.
//!
//! Any server that answers will do, a standby as well as the primary: logins work while there
//! is no primary. The primary is asked first, for it knows of a change before its standbys; one
//! that keeps us waiting is not waited for alone, and for a while it is asked last.
//!
//! Logins of one user that wait for their turn share a question: it is put after the last of them
//! came. Who may do without one is not decided here.
//!
//! Invariant: so many questions are under way at a time and no more, however many logins come,
//! and a server that is silent holds up none of the others for longer than [`ALONE`].

use super::connect::{Backend, connect};
use super::error::{ConnectError, ServerError};
use super::query::{QueryError, ResultSet};
use super::target::{Login, Target};
use crate::auth::scram::Verifier;
use crate::auth::{Quota, Secret, Source};
use crate::board::Board;
use crate::clock;
use crate::clock::Moment;
use crate::tasks;
use crate::timer;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Longest wait for one server, to connect as well as to answer.
const SERVER_WAIT: Duration = Duration::from_secs(2);
/// How long a server is waited for before the next one is asked as well; a server in another
/// region answers within it, TLS and SCRAM included.
const ALONE: Duration = Duration::from_millis(200);
/// Longest time for one question to all servers.
const QUESTION_MAX: Duration = Duration::from_secs(5);
/// How long a server that kept us waiting, or failed, is asked after the others.
const LATE: Duration = Duration::from_secs(5);
/// Most questions at a time. Each takes a round trip: thousands of logins a second.
const QUESTIONS_MAX: usize = 8;
/// Most connections to one server that are kept for the next question.
const IDLE_MAX: usize = 2;

/// Asks the servers about users.
#[derive(Debug)]
pub struct Lookup(Arc<Desk>);

struct Desk {
    servers: Box<[Asked]>,
    query: String,
    board: Arc<Board>,
    turns: Semaphore,
    /// Questions that were not put yet, by user. Guarded for a look-up, never over a wait.
    queued: Mutex<BTreeMap<Arc<str>, watch::Receiver<Told>>>,
    quota: Quota,
}

/// One server, and what we have of it.
struct Asked {
    target: Target,
    login: Login,
    /// Connections that wait for the next question; guarded for a push or a pop.
    idle: Mutex<Vec<Backend>>,
    /// Until when it is asked after the others; guarded for a copy.
    late_until: Mutex<Option<Moment>>,
}

/// What came of a question, once something did.
type Told = Option<Result<Answer, Arc<LookupError>>>;

/// A question to one server, under way.
struct Attempt<'a> {
    server: &'a Asked,
    answer: Pin<Box<dyn Future<Output = Result<Answer, LookupError>> + Send + 'a>>,
}

/// What the servers say of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This is to be proved.
    Verifier(Verifier),
    /// Only the old hash is stored.
    Md5(Secret),
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
    /// The query itself is wrong, or the control user lacks a right.
    #[error("auth.query failed on server \"{server}\": {source}")]
    Query {
        /// Which server said so.
        server: String,
        /// What it said.
        source: ServerError,
    },
    /// There is no server to ask, or none has answered so far.
    #[error("no server has answered")]
    NoServer,
}

impl Lookup {
    /// Asks these servers, each with its login, with this query, whose one parameter is the
    /// user's name. The board tells which of them is the primary.
    pub fn new(servers: Vec<(Target, Login)>, query: String, board: Arc<Board>) -> Self {
        let asked = |(target, login)| Asked {
            target,
            login,
            idle: Mutex::default(),
            late_until: Mutex::default(),
        };
        Self(Arc::new(Desk {
            servers: servers.into_iter().map(asked).collect(),
            query,
            board,
            turns: Semaphore::new(QUESTIONS_MAX),
            queued: Mutex::default(),
            quota: Quota::default(),
        }))
    }

    /// Waits if those who come from there ask too much.
    pub async fn await_turn(&self, from: Source) {
        let wait = self.0.quota.take(from, clock::now());
        if !wait.is_zero() {
            tracing::debug!(?from, ?wait, "a question about a user waits");
            timer::sleep(wait).await;
        }
    }

    /// What the servers say of a user now. Cancel-safe: the question goes on, for others may wait
    /// for the same.
    pub async fn find(&self, user: &Arc<str>) -> Result<Answer, Arc<LookupError>> {
        let mut told = self.join(user);
        let answered = told.wait_for(Option::is_some).await;
        let answer = answered.ok().and_then(|told| told.clone());
        answer.unwrap_or_else(|| Err(Arc::new(LookupError::NoServer)))
    }

    /// The question about this user that is still to be put.
    fn join(&self, user: &Arc<str>) -> watch::Receiver<Told> {
        let mut queued = lock(&self.0.queued);
        if let Some(told) = queued.get(user) {
            return told.clone();
        }
        let (tell, told) = watch::channel(None);
        queued.insert(Arc::clone(user), told.clone());
        let (desk, user) = (Arc::clone(&self.0), Arc::clone(user));
        // It ends by itself, and tells whoever still listens.
        drop(tasks::spawn("auth query", async move {
            let turn = desk.turns.acquire().await;
            lock(&desk.queued).remove(&user);
            let asked = timer::timeout(QUESTION_MAX, desk.ask_all(&user)).await;
            let answer = asked.unwrap_or(Err(LookupError::NoServer));
            drop(turn);
            tell.send_replace(Some(answer.map_err(Arc::new)));
        }));
        told
    }
}

impl Desk {
    /// Asks one server after the other until one answers, the next as soon as one has failed or
    /// was waited for long enough.
    async fn ask_all(&self, user: &str) -> Result<Answer, LookupError> {
        let mut rest = self.order(clock::now()).into_iter();
        let mut attempts: Vec<Attempt<'_>> = Vec::new();
        let mut error = LookupError::NoServer;
        loop {
            attempts.extend(
                rest.next().map(|server| Attempt {
                    server,
                    answer: Box::pin(server.ask(&self.query, user)),
                }),
            );
            if attempts.is_empty() {
                return Err(error);
            }
            match timer::timeout(ALONE, first_of(&mut attempts)).await {
                Ok((_, Ok(answer))) => return Ok(answer),
                Ok((server, Err(failed))) => {
                    server.is_late();
                    error = failed;
                }
                Err(_) => attempts.iter().for_each(|attempt| attempt.server.is_late()),
            }
        }
    }

    /// The servers: first those that answer and are not late, and among them the primary.
    fn order(&self, now: Moment) -> Vec<&Asked> {
        let topology = self.board.load();
        let primary = topology.writable();
        let mut servers: Vec<_> = self.servers.iter().collect();
        // Stable: among equals the configuration's order stays.
        servers.sort_by_key(|asked| {
            let id = asked.target.server;
            let late = lock(&asked.late_until).is_some_and(|until| now < until);
            let unseen = topology.server(id).is_none_or(|server| server.observation().is_none());
            (late, unseen, primary != Some(id))
        });
        servers
    }
}

impl Asked {
    /// By a connection that waits, else by a new one: the one that waits may have waited too long.
    async fn ask(&self, query: &str, user: &str) -> Result<Answer, LookupError> {
        let server = || self.target.name.to_string();
        let waiting = lock(&self.idle).pop();
        if let Some(backend) = waiting {
            match self.put(backend, query, user).await {
                Err(Unanswered::Lost(_)) => {}
                Err(Unanswered::Silent) => return Err(self.silent()),
                Err(Unanswered::Query(source)) => {
                    return Err(LookupError::Query { server: server(), source });
                }
                Ok(answer) => return Ok(answer),
            }
        }
        let connected = connect(&self.target, &self.login, SERVER_WAIT).await;
        let backend =
            connected.map_err(|source| LookupError::Unreachable { server: server(), source })?;
        match self.put(backend, query, user).await {
            Ok(answer) => Ok(answer),
            Err(Unanswered::Silent) => Err(self.silent()),
            Err(Unanswered::Lost(what)) => Err(LookupError::Unanswered { server: server(), what }),
            Err(Unanswered::Query(source)) => Err(LookupError::Query { server: server(), source }),
        }
    }

    /// Asks, and keeps the connection if it can be used again.
    async fn put(
        &self,
        mut backend: Backend,
        query: &str,
        user: &str,
    ) -> Result<Answer, Unanswered> {
        let parameters = [user];
        let asked = backend.query_with(query, &parameters);
        match timer::timeout(SERVER_WAIT, asked).await {
            Ok(Ok(set)) => {
                let mut idle = lock(&self.idle);
                if idle.len() < IDLE_MAX {
                    idle.push(backend);
                }
                Ok(read(&set, user))
            }
            Ok(Err(QueryError::Server(error))) if !error.ends_connection => {
                Err(Unanswered::Query(error))
            }
            Ok(Err(other)) => Err(Unanswered::Lost(other.to_string())),
            Err(_) => Err(Unanswered::Silent),
        }
    }

    fn silent(&self) -> LookupError {
        let what = format!("no answer within {SERVER_WAIT:?}");
        LookupError::Unanswered { server: self.target.name.to_string(), what }
    }

    fn is_late(&self) {
        *lock(&self.late_until) = Some(clock::now() + LATE);
    }
}

/// Waits for the first of several attempts that ends, and takes it out.
async fn first_of<'a>(attempts: &mut Vec<Attempt<'a>>) -> (&'a Asked, Result<Answer, LookupError>) {
    poll_fn(|context| {
        for at in 0..attempts.len() {
            let Some(attempt) = attempts.get_mut(at) else { continue };
            if let Poll::Ready(answer) = attempt.answer.as_mut().poll(context) {
                return Poll::Ready((attempts.swap_remove(at).server, answer));
            }
        }
        Poll::Pending
    })
    .await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Desk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Desk").field("servers", &self.servers.len()).finish_non_exhaustive()
    }
}

enum Unanswered {
    Query(ServerError),
    Lost(String),
    Silent,
}

/// A verifier of nobody.
const NOBODYS: &str = "SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$\
                       AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                       AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// The old hash as servers store it: `md5` and 32 digits.
fn is_md5(text: &str) -> bool {
    let digits = text.strip_prefix("md5").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Name and verifier, for exactly this user.
fn read(set: &ResultSet, user: &str) -> Answer {
    // Read as well where there is none: the time that it takes must not tell.
    let verifier = Verifier::parse(set.text(0, 1).unwrap_or(NOBODYS));
    if set.rows.is_empty() {
        return Answer::Nothing("no server knows this user");
    }
    if set.rows.len() > 1 || set.text(0, 0) != Some(user) {
        return Answer::Nothing("auth.query gave another user, or more than one");
    }
    match set.text(0, 1) {
        None => Answer::Nothing("the user has no password on the servers, or it has expired"),
        Some(text) => match verifier {
            Ok(verifier) => Answer::Verifier(verifier),
            Err(_) if is_md5(text) => Answer::Md5(Secret::new(text.to_owned())),
            Err(_) => Answer::Nothing("the user's password is not stored as a SCRAM verifier"),
        },
    }
}
