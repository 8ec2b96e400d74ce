//! The standing connection of a hand, as long as one act holds it.
//!
//! An act may be given up at any moment (its deadline, a cancelled task). A question that is
//! under way then leaves its answer in the stream, so the connection goes back only after the
//! last question was answered; otherwise it is dropped, and the next act opens another.

use crate::backend::ServerError;
use crate::clock;
use crate::clock::Moment;
use crate::control::hands::HandError;
use crate::control::link::{Answer, Link, LinkError};
use crate::control::look::{Look, Row};
use crate::pg::Version;
use crate::timer;
use std::time::Duration;
use tokio::sync::MutexGuard;

/// A connection that stands ready.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) link: Link,
    pub(super) stance: Stance,
}

/// How a connection shows itself to other instances of pgsteer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stance {
    /// As one that only looks.
    Watching,
    /// As one that may act.
    Ready,
    /// As the one that acts: it holds the lock.
    Locked,
}

/// A connection while one act has it.
#[derive(Debug)]
pub(super) struct Line<'h> {
    /// Where it goes back to.
    home: MutexGuard<'h, Option<Standing>>,
    standing: Option<Standing>,
    /// Nothing is owed to us on it.
    at_rest: bool,
    began: Moment,
    until: Moment,
}

/// What a question must be given to be asked at all.
const ANSWER_MIN: Duration = Duration::from_millis(50);

impl<'h> Line<'h> {
    /// A connection for an act that was begun then, and may take until then.
    pub(super) const fn new(
        home: MutexGuard<'h, Option<Standing>>,
        standing: Standing,
        (began, until): (Moment, Moment),
    ) -> Self {
        Self { home, standing: Some(standing), at_rest: true, began, until }
    }

    /// The rows of one question.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, HandError> {
        Ok(self.all(&[sql]).await?.pop().unwrap_or_default())
    }

    /// The rows of several questions, asked in one go; each is a transaction of its own. The
    /// first that was refused is what is reported, but the others were run as well.
    pub(super) async fn all(&mut self, questions: &[&str]) -> Result<Vec<Vec<Row>>, HandError> {
        let answers = self.each(questions).await?;
        let rows = answers.into_iter().map(|answer| answer.map(|answer| answer.rows));
        rows.collect::<Result<_, _>>().map_err(HandError::Refused)
    }

    /// What each of several questions was answered, asked in one go.
    pub(super) async fn each(
        &mut self,
        questions: &[&str],
    ) -> Result<Vec<Result<Answer, ServerError>>, HandError> {
        let within = self.left()?;
        let link = self.begin()?;
        let answers = link.each_within(questions, within).await;
        self.end(answers)
    }

    /// A look at the server: what it is, on which timeline, how far.
    pub(super) async fn look(&mut self) -> Result<Look, HandError> {
        let within = self.left()?;
        let look = self.begin()?.look(within).await;
        self.end(look)
    }

    /// The server's process.
    pub(super) fn pid(&self) -> Result<i32, HandError> {
        let standing = self.standing.as_ref().ok_or(HandError::Answer("lost"))?;
        Ok(standing.link.cancel_key().0)
    }

    /// The connection, of which an answer is owed from now on.
    pub(super) fn begin(&mut self) -> Result<&mut Link, HandError> {
        self.at_rest = false;
        let standing = self.standing.as_mut();
        standing.map(|standing| &mut standing.link).ok_or(HandError::Answer("lost"))
    }

    /// The answer has come, or never will.
    pub(super) fn end<T>(&mut self, answer: Result<T, LinkError>) -> Result<T, HandError> {
        let usable = answer.as_ref().err().is_none_or(LinkError::leaves_usable);
        self.at_rest = usable;
        if !usable {
            self.standing = None;
        }
        answer.map_err(|error| match error {
            LinkError::Silent(_) => self.late(),
            LinkError::Connect(_) | LinkError::Query(_) | LinkError::Answer(_) => error.into(),
        })
    }

    /// Waits a moment, if there is one left.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), HandError> {
        let left = self.left()?;
        timer::sleep(pause.min(left)).await;
        Ok(())
    }

    /// The time that is left. Too little for an answer is none: the connection would be lost.
    pub(super) fn left(&self) -> Result<Duration, HandError> {
        let left = self.until.since(clock::now());
        if left > ANSWER_MIN { Ok(left) } else { Err(self.late()) }
    }

    /// It takes too long.
    pub(super) fn late(&self) -> HandError {
        HandError::Late(self.until.since(self.began))
    }

    /// The server's release.
    pub(super) fn version(&self) -> Version {
        self.standing.as_ref().map_or(Version(0), |standing| standing.link.facts.version)
    }

    /// How it shows itself.
    pub(super) fn stance(&self) -> Stance {
        self.standing.as_ref().map_or(Stance::Watching, |standing| standing.stance)
    }

    /// It shows itself so now.
    pub(super) fn stands(&mut self, stance: Stance) {
        if let Some(standing) = &mut self.standing {
            standing.stance = stance;
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.at_rest {
            *self.home = self.standing.take();
        }
    }
}
