//! What lasts longer than the rules allow: looked for once a second, over all sessions of a shard.
//!
//! A session notes what it does and since when, which costs two cells a statement, and nothing is
//! armed or disarmed. A statement that lasts too long is cancelled, as its client could do it; a
//! session that does nothing for too long is told so and closed, and with it its transaction.

use crate::clock::Moment;
use crate::limits::Times;
use crate::wire::frame::TxStatus;
use std::cell::{Cell, OnceCell};
use std::time::Duration;

/// What a session does, and how long it may.
#[derive(Debug)]
pub(super) struct Watch {
    /// Most sessions have none.
    times: OnceCell<Box<Times>>,
    doing: Cell<Doing>,
    since: Cell<Moment>,
    /// When its transaction began, or what it does outside of one.
    begun: Cell<Option<Moment>>,
    found: Cell<Option<Overdue>>,
}

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing, outside of a transaction.
    Rests,
    /// Nothing, in a transaction.
    RestsInTransaction,
    /// A statement of its was sent.
    Runs,
    /// A statement of its has not been sent.
    Waits,
}

/// What has lasted too long, and how long it might have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The session had no transaction and did nothing.
    Idle(Duration),
    /// The session had a transaction and did nothing.
    IdleInTransaction(Duration),
    /// The transaction.
    Transaction(Duration),
    /// The statement that runs.
    Statement(Allowed),
}

/// How long a statement may run, and by which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// So long.
    pub limit: Duration,
    /// As `limits.rules` calls it.
    pub key: &'static str,
}

impl Watch {
    /// A session that rests from now on, and may for as long as it likes.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            times: OnceCell::new(),
            doing: Cell::new(Doing::Rests),
            since: Cell::new(now),
            begun: Cell::new(None),
            found: Cell::new(None),
        }
    }

    /// So long it may do what it does. To be said once.
    pub(super) fn allow(&self, times: Times) {
        if times != Times::default() {
            self.times.get_or_init(|| Box::new(times));
        }
    }

    /// It does this from now on.
    pub(super) fn turn(&self, doing: Doing, now: Moment) {
        self.doing.set(doing);
        self.since.set(now);
        self.found.set(None);
        match doing {
            Doing::Rests => self.begun.set(None),
            Doing::RestsInTransaction | Doing::Runs | Doing::Waits => {
                self.begun.set(Some(self.begun.get().unwrap_or(now)));
            }
        }
    }

    /// Looks whether it has done so for too long; whether that is news.
    pub(super) fn look(&self, now: Moment) -> News {
        let Some(times) = self.times.get() else { return News::None };
        let lasted = now.since(self.since.get());
        let whole = self.begun.get().map(|begun| now.since(begun));
        let found = overdue(times, self.doing.get(), (lasted, whole));
        let Some(found) = found else { return News::None };
        self.found.set(Some(found));
        if let Overdue::Statement(_) = found {
            // A cancel that came too early finds nothing: it is repeated after the same time.
            self.since.set(now);
        }
        News::Some
    }

    /// What was found, for the first who asks.
    pub(super) fn take_found(&self) -> Option<Overdue> {
        self.found.take()
    }
}

/// What a session does that has had its answer.
pub(super) const fn rest_in(status: TxStatus) -> Doing {
    match status {
        TxStatus::Idle => Doing::Rests,
        TxStatus::Open | TxStatus::Failed => Doing::RestsInTransaction,
    }
}

/// Whether a look has found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    None,
    Some,
}

/// What lasts too long: `lasted` is how long it does what it does, with it its whole transaction.
fn overdue(
    times: &Times,
    doing: Doing,
    (lasted, whole): (Duration, Option<Duration>),
) -> Option<Overdue> {
    let over = |limit: Option<Duration>, lasted: Duration| limit.filter(|limit| lasted >= *limit);
    let transaction = whole.and_then(|whole| over(times.transaction, whole));
    match doing {
        Doing::Rests => over(times.idle, lasted).map(Overdue::Idle),
        Doing::RestsInTransaction => {
            let idle = over(times.idle_in_transaction, lasted).map(Overdue::IdleInTransaction);
            idle.or(transaction.map(Overdue::Transaction))
        }
        // What it waits for has limits of its own, and ends by them.
        Doing::Waits => None,
        Doing::Runs => {
            let of = |key| move |limit| Overdue::Statement(Allowed { limit, key });
            let query = over(times.query, lasted).map(of("query_timeout"));
            query.or(transaction.map(of("transaction_timeout")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const fn statement(limit: u64, key: &'static str) -> Overdue {
        Overdue::Statement(Allowed { limit: secs(limit), key })
    }

    #[test]
    fn each_time_is_about_its_own() {
        let times = Times {
            idle: Some(secs(100)),
            idle_in_transaction: Some(secs(20)),
            transaction: Some(secs(50)),
            query: Some(secs(10)),
        };
        let cases = [
            (Doing::Rests, 99, None, None),
            (Doing::Rests, 100, None, Some(Overdue::Idle(secs(100)))),
            (Doing::RestsInTransaction, 19, Some(49), None),
            (Doing::RestsInTransaction, 20, Some(49), Some(Overdue::IdleInTransaction(secs(20)))),
            (Doing::RestsInTransaction, 1, Some(50), Some(Overdue::Transaction(secs(50)))),
            (Doing::Runs, 9, Some(49), None),
            (Doing::Runs, 10, Some(10), Some(statement(10, "query_timeout"))),
            (Doing::Runs, 1, Some(50), Some(statement(50, "transaction_timeout"))),
            (Doing::Waits, 1000, Some(1000), None),
        ];
        for (doing, lasted, whole, expected) in cases {
            let lasted = (secs(lasted), whole.map(secs));
            assert_eq!(overdue(&times, doing, lasted), expected, "{doing:?} {lasted:?}");
            assert_eq!(overdue(&Times::default(), doing, lasted), None, "nobody is limited");
        }
    }

    #[test]
    fn a_transaction_goes_on_until_the_session_rests() {
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let watch = Watch::new(at(0));
        watch.allow(Times { transaction: Some(secs(10)), ..Times::default() });
        watch.turn(Doing::Runs, at(1));
        watch.turn(Doing::RestsInTransaction, at(5));
        watch.turn(Doing::Runs, at(6));
        assert_eq!(watch.look(at(10)), News::None);
        assert_eq!(watch.look(at(11)), News::Some);
        assert_eq!(watch.take_found(), Some(statement(10, "transaction_timeout")));
        assert_eq!(watch.take_found(), None);
        // What was found of a statement that ended meanwhile is nothing to the next one.
        watch.look(at(12));
        watch.turn(Doing::Rests, at(13));
        assert_eq!(watch.take_found(), None);
        watch.turn(Doing::Runs, at(20));
        assert_eq!(watch.look(at(29)), News::None, "another transaction");
        assert_eq!(watch.look(at(30)), News::Some);
    }
}
