//! The branches of the log: what "has replayed that far" means across promotions.

use crate::pg::{Lsn, Position, Timeline};

/// Where one timeline ended on the way to the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The branch that ended.
    pub timeline: Timeline,
    /// Where: the next branch holds everything before it and nothing of this branch after it.
    pub at: Lsn,
}

/// The line of descent of the primary's timeline, oldest first.
///
/// Source: the timeline history files; PostgreSQL manual, 26.3.6 "Timelines", and
/// `TIMELINE_HISTORY` in 55.4 "Streaming Replication Protocol".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    current: Option<Timeline>,
    forks: Vec<Fork>,
}

/// Whether a server that stands at one position holds everything up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// It does.
    Covers,
    /// Not yet; it will when it has replayed further.
    Behind,
    /// It cannot: the position lies on a piece of log that the current history left behind.
    Lost,
    /// The server itself stands on such a piece: it must be rewound before it serves.
    Diverged,
    /// The two histories can't be related by what is known.
    Unrelated,
}

/// Every server starts its life on this one.
const FIRST: Timeline = Timeline(1);

impl History {
    /// The history of `current`, with the forks that lead to it, oldest first.
    pub fn new(current: Timeline, forks: Vec<Fork>) -> Self {
        Self { current: Some(current), forks }
    }

    /// The primary's timeline, once known.
    pub const fn current(&self) -> Option<Timeline> {
        self.current
    }

    /// The forks on the way to it.
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// Reads the text of a timeline history file for the timeline `current`.
    ///
    /// Each line holds a parent timeline, the LSN at which it was left, and a reason. Empty
    /// lines and comments are skipped. `None` if a line can't be read: a history that is known
    /// in part is not known.
    pub fn parse(current: Timeline, text: &str) -> Option<Self> {
        let mut forks = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let timeline = Timeline(words.next()?.parse().ok()?);
            let at = words.next()?.parse().ok()?;
            forks.push(Fork { timeline, at });
        }
        Some(Self::new(current, forks))
    }

    /// Where `timeline` ended on this line of descent; `None` for the current timeline and for
    /// one that is not an ancestor.
    pub fn end_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.forks.iter().find(|fork| fork.timeline == timeline).map(|fork| fork.at)
    }

    /// Whether `timeline` is the current one or an ancestor of it.
    pub fn knows(&self, timeline: Timeline) -> bool {
        self.current == Some(timeline) || self.end_of(timeline).is_some()
    }

    /// Whether a branch on this line of descent began there. Of a branch of which no more is known
    /// than its number and where it began, this tells whether it is that one.
    pub fn has_fork_at(&self, fork: Lsn) -> bool {
        self.forks.iter().any(|left| left.at == fork)
    }

    /// Whether a server with that history is on another line of descent, in spite of a timeline
    /// whose number is on this one: two servers that were promoted without knowing of each other
    /// take the same number, and where their branches began tells them apart. Two that began at the
    /// very same place can't be told apart.
    pub fn contradicts(&self, other: &Self) -> bool {
        let known = |history: &Self| history.current <= Some(FIRST) || !history.forks.is_empty();
        let on_it = other.current.is_some_and(|current| self.knows(current));
        on_it && known(self) && known(other) && !self.forks.starts_with(&other.forks)
    }

    /// Whether a server standing at `server` holds everything up to `wanted`.
    ///
    /// Both positions must lie on this line of descent to be related at all. A piece of log
    /// behind a fork was never taken over: a server on it has diverged, and a floor on it is
    /// lost.
    pub fn covers(&self, server: Position, wanted: Position) -> Coverage {
        if server.system != wanted.system {
            return Coverage::Unrelated;
        }
        if !self.knows(server.timeline) || !self.knows(wanted.timeline) {
            // Two positions of one unknown timeline still share that timeline's log.
            return if server.timeline == wanted.timeline && self.current.is_none() {
                Self::by_lsn(server.lsn, wanted.lsn)
            } else {
                Coverage::Unrelated
            };
        }
        if self.end_of(server.timeline).is_some_and(|end| server.lsn > end) {
            return Coverage::Diverged;
        }
        if self.end_of(wanted.timeline).is_some_and(|end| wanted.lsn > end) {
            return Coverage::Lost;
        }
        Self::by_lsn(server.lsn, wanted.lsn)
    }

    /// The comparison that is sound once both positions lie on one line of descent.
    fn by_lsn(server: Lsn, wanted: Lsn) -> Coverage {
        if server >= wanted { Coverage::Covers } else { Coverage::Behind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::SystemId;

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { system: SystemId(7), timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    /// 1 was left at 100, 2 at 200, the primary is on 3.
    fn history() -> History {
        History::new(
            Timeline(3),
            vec![
                Fork { timeline: Timeline(1), at: Lsn(100) },
                Fork { timeline: Timeline(2), at: Lsn(200) },
            ],
        )
    }

    #[test]
    fn a_larger_number_on_a_new_timeline_does_not_hold_a_lost_write() {
        let cases = [
            (at(3, 300), at(3, 300), Coverage::Covers),
            (at(3, 299), at(3, 300), Coverage::Behind),
            (at(3, 300), at(1, 100), Coverage::Covers),
            (at(3, 300), at(1, 101), Coverage::Lost),
            (at(3, 300), at(2, 150), Coverage::Covers),
            (at(3, 300), at(2, 201), Coverage::Lost),
            (at(1, 90), at(1, 80), Coverage::Covers),
            (at(1, 101), at(1, 80), Coverage::Diverged),
            (at(2, 200), at(3, 200), Coverage::Covers),
            (at(2, 200), at(3, 201), Coverage::Behind),
            (at(4, 300), at(3, 10), Coverage::Unrelated),
            (at(3, 300), at(4, 10), Coverage::Unrelated),
        ];
        for (server, wanted, expected) in cases {
            assert_eq!(history().covers(server, wanted), expected, "{server} for {wanted}");
        }
    }

    #[test]
    fn a_branch_of_the_same_number_that_began_elsewhere_is_another() {
        let of = |current, ends: &[(u32, u64)]| {
            let fork = |&(timeline, at)| Fork { timeline: Timeline(timeline), at: Lsn(at) };
            History::new(Timeline(current), ends.iter().map(fork).collect())
        };
        let cases = [
            ("itself", history(), false),
            ("an ancestor", of(2, &[(1, 100)]), false),
            ("the first", of(1, &[]), false),
            ("another of the same number", of(3, &[(1, 100), (2, 201)]), true),
            ("one that left earlier", of(3, &[(1, 90)]), true),
            ("another of an ancestor's number", of(2, &[(1, 90)]), true),
            ("one of a number that is not known", of(4, &[(1, 90)]), false),
            ("one of which nothing else is known", of(3, &[]), false),
            ("nothing at all", History::default(), false),
        ];
        for (case, other, expected) in cases {
            assert_eq!(history().contradicts(&other), expected, "{case}");
        }
        let unread = of(3, &[]);
        assert!(!unread.contradicts(&of(3, &[(1, 90)])), "the primary's can't be read");
    }

    #[test]
    fn another_system_is_never_comparable() {
        let other = Position { system: SystemId(8), ..at(3, 300) };
        assert_eq!(history().covers(other, at(3, 1)), Coverage::Unrelated);
    }

    #[test]
    fn a_history_file_is_read_whole_or_not_at_all() {
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/40001C0\tbefore x\n";
        let history = History::parse(Timeline(3), text).unwrap();
        assert_eq!(history.end_of(Timeline(1)), Some(Lsn(0x300_0148)));
        assert_eq!(history.end_of(Timeline(2)), Some(Lsn(0x400_01C0)));
        assert_eq!(History::parse(Timeline(3), "1 nonsense"), None);
    }
}
