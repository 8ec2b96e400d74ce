//! Prepared transactions that nobody ends.
//!
//! They are in the log, so a standby that is promoted has them too: they go on holding their locks
//! there, while the session that would have ended them may be gone with the old primary. Whether
//! they are to be committed only their owner knows; so they are named, and left alone.

use crate::clock::Moment;
use crate::failover::Survey;
use crate::pg::quote_literal;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A transaction that was prepared, and waits for its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What it is called.
    pub gid: Arc<str>,
    /// Whose it is.
    pub owner: Arc<str>,
    /// In which database.
    pub database: Arc<str>,
    /// For how long it waits, by the clock of the primary of now, since a moment that was read
    /// from the clock of whichever was the primary then.
    pub age: Duration,
}

/// One that waits for longer waits for nobody: whoever coordinates several servers takes
/// milliseconds from the first phase to the second.
pub const PREPARED_MAX: Duration = Duration::from_mins(1);

impl Survey {
    /// The prepared transactions that somebody has to look after: those from before this server
    /// was made the primary (`since`, if that was seen), and any that waits for [`PREPARED_MAX`].
    /// Others are being ended as they should.
    pub fn left_prepared(&self, since: Option<Moment>) -> Vec<Prepared> {
        let enough = since.map_or(PREPARED_MAX, |since| self.asked.since(since).min(PREPARED_MAX));
        // Until it was asked as the primary it shows none.
        let current = self.is_primary() && since.is_none_or(|since| self.asked > since);
        let left = self.prepared.iter().filter(|prepared| current && prepared.age >= enough);
        left.cloned().collect()
    }
}

impl fmt::Display for Prepared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gid, owner, database, .. } = self;
        let literal = quote_literal(gid);
        write!(
            out,
            "transaction {literal} of {owner}, prepared in {database}, holds its locks until \
             somebody ends it there: COMMIT PREPARED {literal} or ROLLBACK PREPARED {literal}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::survey::sample::{primary, standby};

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    /// Which of these, by their ages in seconds, are told of, where the change was at that second
    /// and the survey at second 100.
    fn left(mut survey: Survey, ages: &[u64], since: Option<u64>) -> Vec<u64> {
        survey.asked = at(100);
        let prepared = ages.iter().map(|age| Prepared {
            gid: "g".into(),
            owner: "o".into(),
            database: "d".into(),
            age: Duration::from_secs(*age),
        });
        survey.prepared = prepared.collect();
        let left = survey.left_prepared(since.map(at));
        left.iter().map(|prepared| prepared.age.as_secs()).collect()
    }

    #[test]
    fn those_from_before_the_change_are_left_and_those_that_are_overdue() {
        let ages = [70, 60, 59, 11, 9, 0];
        assert_eq!(left(primary("", &[]), &ages, None), [70, 60]);
        assert_eq!(left(primary("", &[]), &ages, Some(10)), [70, 60]);
        assert_eq!(left(primary("", &[]), &ages, Some(90)), [70, 60, 59, 11]);
    }

    #[test]
    fn what_was_not_asked_since_the_change_tells_of_none() {
        assert_eq!(left(primary("", &[]), &[70], Some(100)), [0; 0]);
        assert_eq!(left(standby("s1"), &[70], None), [0; 0]);
    }

    #[test]
    fn the_remedy_can_be_run() {
        let prepared = Prepared {
            gid: "it's".into(),
            owner: "o".into(),
            database: "d".into(),
            age: Duration::ZERO,
        };
        assert!(prepared.to_string().contains("ROLLBACK PREPARED 'it''s'"), "{prepared}");
    }
}
