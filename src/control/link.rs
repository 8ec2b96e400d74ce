//! The standing connection to one server: opening it, and asking it.
//!
//! With the right to replicate it takes SQL and replication commands alike, so that timeline and
//! replay position are read in one go. Without, or where `max_wal_senders` are all in use, it is
//! a plain connection (see `look`).
//!
//! Nothing here is cancel-safe: a question that was given up leaves its answer in the stream. A
//! link whose question timed out must be dropped.

use crate::backend;
use crate::backend::{
    Backend, CancelKey, ConnectError, Login, QueryError, Replication, ResultSet, ServerError,
    Target,
};
use crate::clock;
use crate::clock::Moment;
use crate::control::fold::PrimaryAt;
use crate::control::look;
use crate::control::look::{Facts, Look, Row, Statistics};
use crate::pg::Lsn;
use crate::pg::SqlState;
use crate::pg::SystemId;
use crate::pg::Timeline;
use crate::timer;
use crate::topology::History;
use crate::topology::Role;
use crate::topology::Unseen;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

/// A standing connection.
#[derive(Debug)]
pub(crate) struct Link {
    backend: Backend,
    pub(crate) facts: Facts,
    dialect: Dialect,
    /// The history of the server's timeline; a timeline's history never changes.
    history: Option<History>,
    /// The role and timeline of the last look: what a sample between two looks relies on.
    last: Option<(Role, Timeline)>,
}

/// How the server is asked for its timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// By `IDENTIFY_SYSTEM`.
    Replication,
    /// By SQL, as far as the role may see it.
    Sql,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The question failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The answer is not what was asked for.
    #[error("unexpected answer to the {0} query")]
    Answer(&'static str),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

impl LinkError {
    /// What the topology says of a server to which this happened.
    pub(crate) fn unseen(&self) -> Unseen {
        match self {
            Self::Connect(error) => error.unseen(),
            Self::Query(QueryError::Broken(_)) => Unseen::Broken,
            Self::Query(QueryError::Server(error)) if error.ends_connection => Unseen::NotReady,
            Self::Query(QueryError::Server(_)) | Self::Answer(_) => Unseen::QueryFailed,
            Self::Query(QueryError::TooLarge | QueryError::Protocol { .. }) => Unseen::NotPostgres,
            Self::Silent(_) => Unseen::Silent,
        }
    }

    /// Whether the link can be asked again.
    pub(crate) fn leaves_usable(&self) -> bool {
        match self {
            Self::Query(error) => error.leaves_usable(),
            Self::Answer(_) => true,
            Self::Connect(_) | Self::Silent(_) => false,
        }
    }
}

impl Link {
    /// Connects, logs in and learns what does not change.
    pub(crate) async fn open(
        target: &Target,
        login: &Login,
        within: Duration,
    ) -> Result<Self, LinkError> {
        let replication = Login { replication: Replication::Database, ..login.clone() };
        match backend::connect(target, &replication, within).await {
            Ok(backend) => Self::set_up(backend, Dialect::Replication, within).await,
            Err(error) if may_do_without(&error) => Self::open_plain(target, login, within).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The same, by SQL alone: it takes no place from those who receive the log.
    pub(crate) async fn open_plain(
        target: &Target,
        login: &Login,
        within: Duration,
    ) -> Result<Self, LinkError> {
        let backend = backend::connect(target, login, within).await?;
        Self::set_up(backend, Dialect::Sql, within).await
    }

    async fn set_up(
        backend: Backend,
        dialect: Dialect,
        within: Duration,
    ) -> Result<Self, LinkError> {
        let mut backend = backend;
        let setting_up = async {
            backend.query(look::SETTINGS).await?;
            let rows = rows(backend.query(look::FACTS).await?);
            look::read_facts(&rows).ok_or(LinkError::Answer("facts"))
        };
        let facts = in_time(within, setting_up).await?;
        Ok(Self { backend, facts, dialect, history: None, last: None })
    }

    /// How the server is asked for its timeline.
    pub(crate) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the last look knew the server's timeline: without it a position is worth nothing.
    pub(crate) const fn knows_timeline(&self) -> bool {
        self.last.is_some()
    }

    /// Looks at the server.
    pub(crate) async fn look(&mut self, within: Duration) -> Result<Look, LinkError> {
        in_time(within, async {
            let look = match self.look_once().await? {
                Some(look) => look,
                // It was promoted, or followed a promotion, in the very moment.
                None => self.look_once().await?.ok_or(LinkError::Answer("look"))?,
            };
            self.last = look.timeline.map(|timeline| (look.role, timeline));
            Ok(look)
        })
        .await
    }

    async fn look_once(&mut self) -> Result<Option<Look>, LinkError> {
        let sent_at = clock::now();
        let questions: &[&str] = match (self.dialect, self.facts.statistics) {
            (Dialect::Replication, _) => &[IDENTIFY, look::LOOK, IDENTIFY],
            (Dialect::Sql, Statistics::Visible) => &[look::LOOK, look::TIMELINES],
            (Dialect::Sql, Statistics::Hidden) => &[look::LOOK],
        };
        let mut answers = self.pipeline(questions).await?.into_iter();
        let look = match self.dialect {
            Dialect::Replication => {
                let before = answers.next().and_then(|rows| look::read_identity(&rows));
                let look = self.read_look(answers.next(), sent_at);
                let after = answers.next().and_then(|rows| look::read_identity(&rows));
                look.and_then(|look| placed(look, before, after))
            }
            Dialect::Sql => {
                let look = self.read_look(answers.next(), sent_at);
                look.map(|look| match (look.role, answers.next()) {
                    (Role::Primary, _) => look,
                    (Role::Standby, Some(timelines)) => {
                        let timeline = look::read_timelines(&timelines, look.timeline);
                        Look { timeline, ..look }
                    }
                    (Role::Standby, None) => Look { timeline: None, ..look },
                })
            }
        };
        let Some(mut look) = look else { return Ok(None) };
        if let Some(timeline) = look.timeline {
            look.history = self.history(look.role, timeline).await?;
        }
        Ok(Some(look))
    }

    fn read_look(&self, rows: Option<Vec<Row>>, sent_at: Moment) -> Option<Look> {
        look::read_look(&rows?, sent_at, self.facts.layout)
    }

    /// The history of a server's timeline; `None` if our role can't read it. A standby is asked
    /// once for that of each: where it says nothing, its own position counts alone.
    async fn history(
        &mut self,
        role: Role,
        timeline: Timeline,
    ) -> Result<Option<History>, LinkError> {
        if timeline == FIRST_TIMELINE {
            return Ok(Some(History::new(timeline, Vec::new())));
        }
        if self.history.as_ref().and_then(History::current) == Some(timeline) {
            return Ok(self.history.clone());
        }
        if role == Role::Standby && self.last == Some((role, timeline)) {
            return Ok(None);
        }
        let sql = match self.dialect {
            Dialect::Replication => format!("TIMELINE_HISTORY {timeline}"),
            Dialect::Sql => look::history_file(timeline),
        };
        self.history = match self.ask(&sql).await {
            Ok(rows) => look::read_history(&rows, timeline),
            Err(error) if error.leaves_usable() => None,
            Err(error) => return Err(error),
        };
        Ok(self.history.clone())
    }

    /// Asks a primary where it is.
    pub(crate) async fn primary_at(&mut self, within: Duration) -> Result<PrimaryAt, LinkError> {
        let sent_at = clock::now();
        let rows = in_time(within, self.ask(look::PRIMARY_SAMPLE)).await?;
        let read = look::read_primary_sample(&rows, self.facts.layout);
        match (read, self.last) {
            (Some((insert, flush)), Some((Role::Primary, timeline))) => {
                Ok(PrimaryAt { sent_at, timeline, insert, flush })
            }
            _ => Err(LinkError::Answer("position")),
        }
    }

    /// Asks a standby where it is; `None` if that can't be said for certain now.
    pub(crate) async fn standby_at(
        &mut self,
        within: Duration,
    ) -> Result<Option<(Moment, Timeline, Lsn)>, LinkError> {
        match self.dialect {
            Dialect::Replication => in_time(within, self.standby_between()).await,
            Dialect::Sql => {
                let look = self.look(within).await?;
                let timeline = look.timeline.filter(|_| look.role == Role::Standby);
                Ok(timeline.map(|timeline| (look.sent_at, timeline, look.lsn)))
            }
        }
    }

    /// A standby's timeline only rises while a connection lives, so one that was the same before
    /// (at the last look) and after is the one in between.
    async fn standby_between(&mut self) -> Result<Option<(Moment, Timeline, Lsn)>, LinkError> {
        let sent_at = clock::now();
        let mut answers = self.pipeline(&[look::STANDBY_SAMPLE, IDENTIFY]).await?.into_iter();
        let replayed = answers.next().and_then(|rows| look::read_standby_sample(&rows));
        let after = answers.next().and_then(|rows| look::read_identity(&rows));
        Ok(replayed_on(self.last, replayed, after).map(|(timeline, lsn)| (sent_at, timeline, lsn)))
    }

    /// Makes a primary flush its log.
    pub(crate) async fn kick(&mut self, within: Duration) -> Result<(), LinkError> {
        in_time(within, self.ask(look::kick(self.facts.version))).await.map(|_| ())
    }

    /// Whether nothing has come unasked, and the server is there as far as is known.
    pub(crate) fn is_quiet(&self) -> bool {
        let stirs = pin!(self.stirs());
        stirs.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Waits until the server says something unasked, or is gone. Cancel-safe.
    pub(crate) async fn stirs(&self) {
        self.backend.stream.stirs().await;
    }

    /// Asks any one question.
    pub(crate) async fn ask_within(
        &mut self,
        sql: &str,
        within: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        in_time(within, self.ask(sql)).await
    }

    /// Asks several questions in one go; one that fails does not keep the next from being asked.
    /// Each is a transaction of its own.
    pub(crate) async fn each_within(
        &mut self,
        questions: &[&str],
        within: Duration,
    ) -> Result<Vec<Result<Answer, ServerError>>, LinkError> {
        in_time(within, async {
            let answers = self.backend.pipeline(questions).await?;
            Ok(answers.into_iter().map(|answer| answer.map(Answer::read)).collect())
        })
        .await
    }

    /// The server's process, and the key to cancel with what it does.
    pub(crate) fn cancel_key(&self) -> (i32, CancelKey) {
        (self.backend.pid, self.backend.key.clone())
    }

    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, LinkError> {
        Ok(rows(self.backend.query(sql).await?))
    }

    async fn pipeline(&mut self, questions: &[&str]) -> Result<Vec<Vec<Row>>, LinkError> {
        let mut answers = Vec::with_capacity(questions.len());
        for answer in self.backend.pipeline(questions).await? {
            answers.push(rows(answer.map_err(QueryError::Server)?));
        }
        Ok(answers)
    }
}

/// What one question was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The first statement's rows that has any.
    pub rows: Vec<Row>,
    /// Whether the server warned of something.
    pub warned: bool,
}

impl Answer {
    fn read(sets: Vec<ResultSet>) -> Self {
        let warned = sets.iter().any(|set| set.warned);
        Self { rows: rows(sets), warned }
    }
}

/// Every server starts its life on this one.
const FIRST_TIMELINE: Timeline = Timeline(1);

const IDENTIFY: &str = "IDENTIFY_SYSTEM";

/// Whether a plain connection may be had where one that can replicate is refused: the role has
/// not the right, no walsender is free, or what stands in between does not know of it.
fn may_do_without(error: &ConnectError) -> bool {
    match error {
        ConnectError::Server(error) => {
            ![SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN]
                .contains(&error.code)
        }
        ConnectError::LoginRefused(error) => error.code != SqlState::INVALID_PASSWORD,
        ConnectError::Refused { .. }
        | ConnectError::Unreachable { .. }
        | ConnectError::Unresolved { .. }
        | ConnectError::Timeout { .. }
        | ConnectError::NotPostgres { .. }
        | ConnectError::NoTls
        | ConnectError::Tls { .. }
        | ConnectError::DirectTls { .. }
        | ConnectError::NoSecret { .. }
        | ConnectError::Method { .. }
        | ConnectError::Scram(_)
        | ConnectError::Protocol { .. }
        | ConnectError::Broken { .. } => false,
    }
}

/// A look between two answers that say on which branch the server stands; `None` if it changed
/// meanwhile.
fn placed(look: Look, before: Option<Identity>, after: Option<Identity>) -> Option<Look> {
    let (_, timeline) = after.filter(|after| before == Some(*after))?;
    Some(Look { timeline: Some(timeline), ..look })
}

/// How far a standby has replayed, and on which branch; `None` if it was another at the last look,
/// or in another role.
fn replayed_on(
    last: Option<(Role, Timeline)>,
    replayed: Option<Lsn>,
    after: Option<Identity>,
) -> Option<(Timeline, Lsn)> {
    let (_, timeline) = after.filter(|(_, after)| last == Some((Role::Standby, *after)))?;
    Some((timeline, replayed?))
}

/// Whose log a server holds, and on which branch it stands.
type Identity = (SystemId, Timeline);

/// The first statement's rows that has any, as text; what is no UTF-8 counts as unknown.
fn rows(sets: Vec<ResultSet>) -> Vec<Row> {
    let set = sets.into_iter().find(|set| !set.columns.is_empty()).unwrap_or_default();
    let text = |value: Option<Vec<u8>>| value.and_then(|bytes| String::from_utf8(bytes).ok());
    set.rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect()
}

async fn in_time<T>(
    within: Duration,
    question: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let answer = timer::timeout(within, question).await;
    answer.unwrap_or(Err(LinkError::Silent(within)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Option<Identity> = Some((SystemId(7), Timeline(1)));
    const SECOND: Option<Identity> = Some((SystemId(7), Timeline(2)));

    /// A standby that follows another timeline meanwhile has replayed nobody knows which.
    #[test]
    fn a_position_counts_only_between_two_equal_timelines() {
        let here = |role, timeline| Some((role, Timeline(timeline)));
        let cases = [
            (here(Role::Standby, 1), FIRST, Some((Timeline(1), Lsn(9)))),
            (here(Role::Standby, 1), SECOND, None),
            (here(Role::Standby, 2), FIRST, None),
            (here(Role::Primary, 1), FIRST, None),
            (here(Role::Standby, 1), None, None),
            (None, FIRST, None),
        ];
        for (last, after, expected) in cases {
            assert_eq!(replayed_on(last, Some(Lsn(9)), after), expected, "{last:?} {after:?}");
        }
        assert_eq!(replayed_on(here(Role::Standby, 1), None, FIRST), None);

        let columns = ["t", "-", "0/9", "0/9", "-", "t", "db1", "5432", "2", "t", "7"];
        let row = columns.map(|c| (c != "-").then(|| c.to_owned())).to_vec();
        let look = look::read_look(&[row], Moment::from_nanos(5), crate::pg::WalLayout::default())
            .unwrap();
        let on = |before, after| placed(look.clone(), before, after).map(|look| look.timeline);
        assert_eq!(on(FIRST, FIRST), Some(Some(Timeline(1))));
        for (before, after) in [(FIRST, SECOND), (None, FIRST), (FIRST, None), (None, None)] {
            assert_eq!(on(before, after), None, "{before:?} {after:?}");
        }
    }
}
