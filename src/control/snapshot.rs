//! Whether the primary already shows everything that a standby showed.
//!
//! A standby applies a commit before the backend on the primary that made it has left the list
//! of running transactions, so a session that read from the standby and moves to the primary
//! could read older rows there. Transactions in question are those that the primary still calls
//! running, or had not begun, and that lie below the standby's next transaction: the primary
//! must come to show those that the standby knows as committed.
//!
//! The standby's own list is not used: it is empty in recovery. The order of the two questions
//! does not matter: a transaction below the standby's bound is below the primary's and not
//! running there, hence visible to its later snapshots, or it is a candidate.

use std::fmt::Write as _;
use std::str::FromStr;

/// Asks a server for its snapshot; on a standby only the upper bound counts.
pub(crate) const SNAPSHOT: &str = "SELECT pg_catalog.pg_current_snapshot()";

/// A `pg_snapshot`: what a statement that starts now sees.
///
/// Source: PostgreSQL manual, 9.27.6 "Transaction ID and Snapshot Information Functions".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// One past the newest transaction that had ended.
    pub xmax: u64,
    /// The transactions below it that were running.
    pub running: Vec<u64>,
}

/// The text is not a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidSnapshot;

/// How many transactions one round asks about. More were begun on the primary since the last
/// answer only if a standby is that far ahead in its knowledge of what ended; the next round,
/// a moment later, finds fewer.
pub(crate) const CANDIDATES_MAX: usize = 4096;

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    /// Reads `xmin:xmax:xip,xip`.
    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        let mut parts = text.splitn(3, ':');
        let (Some(_), Some(xmax), Some(running)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidSnapshot);
        };
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(str::parse);
        Ok(Self {
            xmax: xmax.parse().map_err(|_| InvalidSnapshot)?,
            running: running.collect::<Result<_, _>>().map_err(|_| InvalidSnapshot)?,
        })
    }
}

/// The transactions that the standby may show and the primary may not; `None` if they are more
/// than [`CANDIDATES_MAX`].
pub(crate) fn candidates(primary: &Snapshot, standby: &Snapshot) -> Option<Vec<u64>> {
    let bound = standby.xmax;
    let not_begun = primary.xmax..bound.max(primary.xmax);
    let length = usize::try_from(not_begun.end - not_begun.start).ok()?;
    let running = primary.running.iter().copied().filter(|&xid| xid < bound);
    if length > CANDIDATES_MAX || primary.running.len() > CANDIDATES_MAX {
        return None;
    }
    Some(running.chain(not_begun).collect())
}

/// Asks the standby which of these committed.
pub(crate) fn which_committed(xids: &[u64]) -> String {
    format!(
        "SELECT x FROM pg_catalog.unnest({}) AS x \
         WHERE pg_catalog.pg_xact_status(x) = 'committed'",
        array(xids)
    )
}

/// Asks the primary which of these it does not show yet.
pub(crate) fn which_hidden(xids: &[u64]) -> String {
    format!(
        "SELECT x FROM pg_catalog.unnest({}) AS x \
         WHERE NOT pg_catalog.pg_visible_in_snapshot(x, pg_catalog.pg_current_snapshot())",
        array(xids)
    )
}

fn array(xids: &[u64]) -> String {
    let mut text = String::from("'{");
    for (at, xid) in xids.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a String can't fail.
        write!(text, "{comma}{xid}").unwrap_or_default();
    }
    text.push_str("}'::xid8[]");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_and_not_begun_transactions_below_the_standbys_bound_are_asked_about() {
        let cases = [
            ("100:100:", "100:100:", vec![]),
            ("100:105:100,103", "90:104:", vec![100, 103]),
            ("100:105:100,103", "90:102:", vec![100]),
            ("100:100:", "90:103:", vec![100, 101, 102]),
            ("100:102:101", "90:104:", vec![101, 102, 103]),
            ("200:200:", "90:100:", vec![]),
        ];
        for (primary, standby, expected) in cases {
            let found = candidates(&primary.parse().unwrap(), &standby.parse().unwrap());
            assert_eq!(found, Some(expected), "{primary} {standby}");
        }
        let far = candidates(&"1:1:".parse().unwrap(), &"1:1000000:".parse().unwrap());
        assert_eq!(far, None, "a round is bounded");
    }

    #[test]
    fn a_broken_snapshot_is_refused() {
        for text in ["", "1", "1:2", "a:b:", "1:2:x", "1:2:3,,4x"] {
            assert_eq!(text.parse::<Snapshot>(), Err(InvalidSnapshot), "{text}");
        }
        assert_eq!(which_hidden(&[7, 8]).matches("'{7,8}'::xid8[]").count(), 1);
    }
}
