//! What a session has done in its open transaction, as far as it must be known when the server is
//! lost: whether it can be opened anew elsewhere, and whether there is anything to commit.
//!
//! A driver that says `BEGIN` and thinks for a minute has done nothing yet. What it said is kept,
//! a few bytes, and said again on another server. One that has only read has nothing to commit,
//! so its `COMMIT` can be said again, too.

use crate::frontend::attached::GoesOn;
use crate::frontend::plan::PureRead;
use crate::route::Need;
use crate::session::{End, Executes, Group, Names, Settings, Unnamed};
use crate::sql::{Chain, Class, Count, Effects, Facts, Isolation, Snapshot, Transaction};
use crate::wire::frame;
use crate::wire::frame::{Cursor, TxStatus};
use std::cell::RefCell;
use std::sync::Arc;

/// The open transaction of one session.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What opened it and set it up, as SQL.
    opening: Opening,
    so_far: SoFar,
    /// What was needed to open it.
    need: Option<Need>,
    ends_well: EndsWell,
}

/// What opened a transaction, in room that is used again: nearly always it is a few words.
#[derive(Debug, Default)]
struct Opening(String);

thread_local! {
    /// Room that nobody uses now.
    static ROOM: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Most of it, and how much each may be, in bytes.
const ROOM_MAX: (usize, usize) = (256, 1024);

impl Opening {
    fn push(&mut self, text: &str) {
        if self.0.capacity() == 0 {
            self.0 = ROOM.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.0.push_str(text);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.0);
        if text.capacity() == 0 || text.capacity() > ROOM_MAX.1 {
            return;
        }
        text.clear();
        // At a thread's end there is nobody left to keep it for.
        let kept = ROOM.try_with(|room| {
            let mut room = room.borrow_mut();
            if room.len() < ROOM_MAX.0 {
                room.push(text);
            }
        });
        kept.unwrap_or(());
    }
}

/// What was done in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum SoFar {
    /// It was opened and set up.
    Opened,
    /// It has also read, and done nothing else.
    Read,
    /// More, or it is not known.
    #[default]
    Worked,
}

/// Whether the end of a transaction that has only read can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum EndsWell {
    /// It can: what it read is checked then against what others wrote (`SERIALIZABLE`).
    #[default]
    Perhaps,
    /// It can't.
    Surely,
}

/// What one group does to the transaction around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: it only prepares or describes, or asks what any server answers alike.
    Nothing,
    Begins(Isolation),
    SetsUp(Isolation),
    Reads,
    Commits,
    Works,
}

/// The longest opening that is kept, in bytes.
const OPENING_MAX: usize = 16 * 1024;

/// What tells of a group that is about to be sent.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub group: &'a Group,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The facts of its statements.
    pub mentioned: &'a [Option<Arc<Facts>>],
    /// Whether each of them is a pure read that may be run again.
    pub read: PureRead,
    /// What it needs.
    pub need: Need,
    /// The client's statements.
    pub names: &'a Names,
    pub unnamed: Option<&'a Unnamed>,
    /// The session's settings.
    pub settings: &'a Settings,
    /// Whether it goes on with what was executed before it.
    pub goes_on: GoesOn,
}

/// What may be done again of a group, if the server is lost before the client saw anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// Nothing.
    No,
    /// It: it begins a transaction, or sets something.
    Alone,
    /// It, in a transaction that is opened anew.
    InBlock,
}

impl Block {
    /// Takes note of a group that is about to be sent; whether it may be repeated on another
    /// server within this very transaction.
    pub(super) fn note(&mut self, before: TxStatus, said: &Said<'_>) -> Repeats {
        let step = step(said);
        match (before, step) {
            (TxStatus::Idle, Step::Begins(isolation)) => {
                self.begin(said, isolation);
                return Repeats::Alone;
            }
            (TxStatus::Idle, Step::SetsUp(_)) => return Repeats::Alone,
            (TxStatus::Idle, _) => self.so_far = SoFar::Worked,
            (TxStatus::Open, Step::SetsUp(isolation)) if self.so_far == SoFar::Opened => {
                self.set_up(said, isolation);
                return Repeats::InBlock;
            }
            (TxStatus::Open, Step::Reads) if self.so_far == SoFar::Opened => {
                self.so_far = SoFar::Read;
                return Repeats::InBlock;
            }
            (TxStatus::Failed, _) | (TxStatus::Open, Step::Nothing | Step::Reads) => {}
            (TxStatus::Open, Step::Commits) => {
                let nothing_to_commit = self.so_far <= SoFar::Read;
                if nothing_to_commit && self.ends_well == EndsWell::Surely {
                    return Repeats::InBlock;
                }
            }
            (TxStatus::Open, Step::Begins(_) | Step::SetsUp(_) | Step::Works) => {
                self.so_far = SoFar::Worked;
            }
        }
        Repeats::No
    }

    /// What opens it anew, and where that may be done; `None` if it has to end with its server.
    /// With `again`, the group that was under way is repeated behind it.
    pub(super) fn reopens(&self, again: Repeats) -> Option<(&str, Need)> {
        let fresh = self.so_far == SoFar::Opened || again == Repeats::InBlock;
        let need = self.need.filter(|_| fresh && !self.opening.0.is_empty())?;
        Some((&self.opening.0, need))
    }

    /// We have told it this, as its client would have.
    pub(super) fn was_told(&mut self, sql: &str) {
        if self.so_far == SoFar::Opened && !self.push(sql) {
            self.so_far = SoFar::Worked;
        }
    }

    /// It was opened anew, there.
    pub(super) const fn was_reopened(&mut self, need: Need) {
        self.so_far = SoFar::Opened;
        self.need = Some(need);
    }

    fn begin(&mut self, said: &Said<'_>, isolation: Isolation) {
        self.opening.0.clear();
        self.so_far = SoFar::Worked;
        self.need = Some(said.need);
        let default = said.settings.get("default_transaction_isolation");
        self.ends_well = match (isolation, default) {
            (Isolation::Default, Some("serializable")) => EndsWell::Perhaps,
            _ => EndsWell::Surely,
        };
        self.weigh(isolation);
        if self.add(said) {
            self.so_far = SoFar::Opened;
        }
    }

    fn set_up(&mut self, said: &Said<'_>, isolation: Isolation) {
        self.weigh(isolation);
        if !self.add(said) {
            self.so_far = SoFar::Worked;
        }
    }

    fn weigh(&mut self, isolation: Isolation) {
        if isolation == Isolation::Serializable {
            self.ends_well = EndsWell::Perhaps;
        }
    }

    fn add(&mut self, said: &Said<'_>) -> bool {
        let text = text_of(said).and_then(|text| std::str::from_utf8(text).ok());
        text.is_some_and(|text| self.push(text))
    }

    fn push(&mut self, text: &str) -> bool {
        if self.opening.0.len() + text.len() >= OPENING_MAX {
            return false;
        }
        // A comment at the end of one must not hide the next.
        if !self.opening.0.is_empty() {
            self.opening.push("\n;");
        }
        self.opening.push(text);
        true
    }
}

/// What a group does. Only one that holds a single statement, whole, is looked at closely.
fn step(said: &Said<'_>) -> Step {
    if said.group.executes == Executes::Nothing {
        return Step::Nothing;
    }
    let ([Some(facts)], End::Query | End::Sync, GoesOn::No) =
        (said.mentioned, said.group.end, said.goes_on)
    else {
        return several(said.read);
    };
    match facts.count() {
        Count::Empty => return Step::Nothing,
        Count::Many => return several(said.read),
        Count::One => {}
    }
    // What tells which server answers is as good as a read.
    if facts.shown().is_some() && facts.fixed().is_none() {
        return Step::Nothing;
    }
    match facts.transaction() {
        Transaction::Begin { isolation, .. } => Step::Begins(isolation),
        Transaction::Set { isolation, snapshot: Snapshot::Own, .. } => Step::SetsUp(isolation),
        Transaction::Commit(Chain::Ends) => Step::Commits,
        Transaction::None if said.read == PureRead::Yes => Step::Reads,
        Transaction::None if sets_only(facts) => Step::SetsUp(Isolation::Default),
        Transaction::None
        | Transaction::Set { .. }
        | Transaction::Commit(Chain::Continues)
        | Transaction::Rollback(_)
        | Transaction::Savepoint
        | Transaction::Prepare
        | Transaction::FinishPrepared
        | Transaction::Mixed => Step::Works,
    }
}

/// Whether a statement only changes settings.
fn sets_only(facts: &Facts) -> bool {
    let effects = facts.effects();
    facts.class() == Class::Session && !effects.is_empty() && effects.is_within(Effects::SETTINGS)
}

/// What several statements do, or one that is not known in full.
const fn several(read: PureRead) -> Step {
    match read {
        PureRead::Yes => Step::Reads,
        PureRead::No => Step::Works,
    }
}

/// The text of a group's only statement, if it is run and not only bound.
fn text_of<'a>(said: &Said<'a>) -> Option<&'a [u8]> {
    let mut text = None;
    let mut rest = said.bytes;
    while let Ok(Some(header)) = frame::peek(rest) {
        let message = rest.get(..header.total)?;
        let mut cursor = Cursor::new(message);
        match header.tag {
            b'Q' => return cursor.text().ok(),
            b'P' => {
                cursor.text().ok()?;
                text = cursor.text().ok();
            }
            b'B' if text.is_none() => {
                cursor.text().ok()?;
                let name = cursor.text().ok()?;
                text = match said.names.get(name) {
                    Some(statement) => statement.text(),
                    None if name.is_empty() => said.unnamed.and_then(Unnamed::text),
                    None => None,
                };
            }
            b'E' => return text,
            _ => {}
        }
        rest = rest.get(header.total..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::PrimaryReason;
    use crate::session::Parses;
    use crate::sql::{Dialect, examine};
    use crate::wire::message;

    const PRIMARY: Need = Need::Primary(PrimaryReason::Statement);

    /// Says these one after the other; `?` before a text: it is a pure read.
    fn after(texts: &[&str]) -> (Block, Repeats) {
        after_with(&Settings::default(), texts)
    }

    fn after_with(settings: &Settings, texts: &[&str]) -> (Block, Repeats) {
        let mut block = Block::default();
        let mut status = TxStatus::Idle;
        let mut repeats = Repeats::No;
        for text in texts {
            let read = text.strip_prefix('?');
            let sql = read.unwrap_or(text);
            let read = if read.is_some() { PureRead::Yes } else { PureRead::No };
            let facts = Arc::new(examine(sql.as_bytes(), Dialect::default()));
            let mut bytes = Vec::new();
            message::write_query(&mut bytes, sql);
            let group = Group {
                bytes: bytes.len(),
                end: End::Query,
                executes: Executes::Something,
                parses: Parses::default(),
            };
            repeats = block.note(
                status,
                &Said {
                    group: &group,
                    bytes: &bytes,
                    mentioned: &[Some(facts)],
                    read,
                    need: PRIMARY,
                    names: &Names::default(),
                    unnamed: None,
                    settings,
                    goes_on: GoesOn::No,
                },
            );
            status = TxStatus::Open;
        }
        (block, repeats)
    }

    #[test]
    fn what_has_only_begun_is_opened_anew() {
        let cases: [(&[&str], Option<&str>); 10] = [
            (&["BEGIN"], Some("BEGIN")),
            (
                &["BEGIN -- now", "SET LOCAL work_mem = '1MB'", "SET TRANSACTION READ WRITE"],
                Some("BEGIN -- now\n;SET LOCAL work_mem = '1MB'\n;SET TRANSACTION READ WRITE"),
            ),
            (&["BEGIN", "SHOW work_mem", " "], Some("BEGIN")),
            (&["BEGIN", "?SELECT 1"], None),
            (&["BEGIN", "INSERT INTO t VALUES (1)"], None),
            (&["BEGIN", "SAVEPOINT a"], None),
            (&["BEGIN", "SET TRANSACTION SNAPSHOT '1'"], None),
            (&["BEGIN", "LISTEN a"], None),
            (&["BEGIN; SELECT 1"], None),
            (&["INSERT INTO t VALUES (1)"], None),
        ];
        for (texts, expected) in cases {
            let (block, _) = after(texts);
            let expected = expected.map(|sql| (sql, PRIMARY));
            assert_eq!(block.reopens(Repeats::No), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_commit_is_said_again_only_where_there_is_nothing_to_commit() {
        let cases: [(&[&str], Repeats); 9] = [
            (&["BEGIN", "COMMIT"], Repeats::InBlock),
            (&["BEGIN", "?SELECT 1", "?SELECT 2", "COMMIT"], Repeats::InBlock),
            (&["BEGIN ISOLATION LEVEL REPEATABLE READ", "?SELECT 1", "END"], Repeats::InBlock),
            (&["BEGIN", "?SELECT 1", "COMMIT AND CHAIN"], Repeats::No),
            (&["BEGIN", "NOTIFY a", "COMMIT"], Repeats::No),
            (&["BEGIN", "?SELECT 1", "SET x.y = 1", "COMMIT"], Repeats::No),
            (&["BEGIN", "SELECT f()", "COMMIT"], Repeats::No),
            (&["BEGIN ISOLATION LEVEL SERIALIZABLE", "?SELECT 1", "COMMIT"], Repeats::No),
            (&["INSERT INTO t VALUES (1)", "COMMIT"], Repeats::No),
        ];
        for (texts, expected) in cases {
            let (block, repeats) = after(texts);
            assert_eq!(repeats, expected, "{texts:?}");
            assert_eq!(block.reopens(repeats).is_some(), expected == Repeats::InBlock, "{texts:?}");
        }
    }

    #[test]
    fn what_is_serializable_by_default_may_fail_at_its_end() {
        let mut settings = Settings::default();
        settings.set("default_transaction_isolation", "serializable");
        assert_eq!(after_with(&settings, &["BEGIN", "COMMIT"]).1, Repeats::No);
        let level = ["BEGIN ISOLATION LEVEL READ COMMITTED", "COMMIT"];
        assert_eq!(after_with(&settings, &level).1, Repeats::InBlock);
    }

    #[test]
    fn the_first_read_is_repeated_and_the_second_is_not() {
        assert_eq!(after(&["BEGIN", "?SELECT 1"]).1, Repeats::InBlock);
        assert_eq!(after(&["BEGIN", "?SELECT 1", "?SELECT 1"]).1, Repeats::No);
        assert_eq!(after(&["BEGIN", "SELECT f()"]).1, Repeats::No);
    }
}
