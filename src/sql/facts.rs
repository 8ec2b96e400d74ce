//! What a text is, independent of any database: the facts that the grammar gives away.

use super::Dialect;
use super::NeedsPrimary;
use super::judge::Memo;
use super::names::AttributeFilter;
use super::{Defaults, Effects};
use std::fmt;

/// What one text says of itself. Small, immutable, and shared: a prepared statement carries it.
#[derive(Debug)]
pub struct Facts {
    pub(super) count: Count,
    pub(super) sets_only: SetsOnly,
    pub(super) class: Class,
    pub(super) transaction: Transaction,
    pub(super) commits: Commits,
    pub(super) effects: Effects,
    /// Why the text needs the primary whatever the catalog says.
    pub(super) fixed: Option<NeedsPrimary>,
    /// Why a transaction that is on a standby already can't take it, whatever the catalog says.
    pub(super) stops: Option<NeedsPrimary>,
    pub(super) functions: Box<[Name]>,
    pub(super) relations: Box<[Name]>,
    pub(super) targets: Box<[Name]>,
    pub(super) operators: Box<[Box<str>]>,
    /// SQL/JSON constructs: to a server that doesn't have them yet, names of functions.
    pub(super) constructs: Box<[&'static str]>,
    /// Names behind a dot: each may turn out to be a function of the row before it.
    pub(super) attributes: AttributeFilter,
    /// Those of them behind what may be no row: each may be a function of any value.
    pub(super) dotted: Box<[Box<str>]>,
    pub(super) settings: Box<[Setting]>,
    pub(super) wishes: Box<[Wish]>,
    pub(super) hints: Option<Box<Hints>>,
    pub(super) shown: Option<Box<str>>,
    /// The names of prepared statements in it.
    pub(super) prepared: Box<[(Touches, Box<[u8]>)]>,
    pub(super) defaults: Box<[Defaults]>,
    pub(super) constants: Constants,
    pub(super) queries: Queries,
    pub(super) memo: Memo,
}

/// Whether each statement of a text is `SET` or `RESET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetsOnly {
    /// So it is, and there is one at least.
    Yes,
    /// It holds something else, or nothing.
    No,
}

/// What a text does to the prepared statement that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Touches {
    /// `PREPARE name`: it gives the name.
    Gives,
    /// `EXECUTE name`: it runs it.
    Runs,
    /// `DEALLOCATE name`: it takes the name away.
    Takes,
}

/// What of a text a server reads when it prepares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Constants {
    /// Numbers and words at most, which are read in one way only.
    Plain,
    /// Strings, which tell the same whenever they are read, as far as they say.
    Strings,
    /// Perhaps one that tells something else each time: `'now'::timestamptz` is the moment at
    /// which it is read.
    Moments,
}

impl Constants {
    /// Those of a text, by a glance that takes a comment for a string rather than the reverse; and
    /// by what is known of its strings.
    ///
    /// Source: PostgreSQL manual, 4.1.2 "Constants".
    pub(super) fn of(sql: &[u8], strings: Strings) -> Self {
        let dollar = |pair: &[u8]| matches!(pair, [b'$', next] if !next.is_ascii_digit());
        let any = sql.contains(&b'\'') || sql.windows(2).any(dollar) || sql.ends_with(b"$");
        match (any, strings) {
            (false, _) => Self::Plain,
            (true, Strings::Lasting) => Self::Strings,
            (true, Strings::Unsure) => Self::Moments,
        }
    }
}

/// What is known of the strings of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Strings {
    /// None of them names a moment by its distance from the present.
    Lasting,
    /// One does, or they were not looked at.
    Unsure,
}

impl Strings {
    /// That of one, as a server reads it: any input of a time, of an array or a row of them.
    ///
    /// Source: PostgreSQL manual, 8.5.1.4 "Special Values", and `ParseDateTime` in
    /// `utils/adt/datetime.c`, to which letters end a word that are none of ASCII's.
    pub(super) fn of(text: &str) -> Self {
        const WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
        let mut words = text.split(|letter: char| !letter.is_ascii_alphabetic());
        let is = |word: &str| WORDS.iter().any(|known| known.eq_ignore_ascii_case(word));
        if words.any(is) { Self::Unsure } else { Self::Lasting }
    }
}

/// Whether a text holds something that is evaluated, beside what only begins or ends a transaction
/// or changes settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Queries {
    /// Nothing.
    None,
    /// A query, or an expression.
    Some,
}

/// How many statements a text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// None: blanks and comments.
    Empty,
    /// One.
    One,
    /// Several, or not known.
    Many,
}

/// What kind of thing a text does; of several statements the last in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Only answers, as far as the grammar tells; its functions have a say.
    Read,
    /// Changes or asks for the state of the session only.
    Session,
    /// Begins or ends transactions.
    Transaction,
    /// Changes or locks rows.
    Write,
    /// Everything else that was understood: DDL, maintenance, `DO`, `CALL`.
    Utility,
    /// Not understood.
    Unknown,
}

/// What a text does to the transaction around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// Nothing.
    None,
    /// `BEGIN`, `START TRANSACTION`.
    Begin {
        /// `READ ONLY` or `READ WRITE`.
        access: Access,
        /// The level asked for.
        isolation: Isolation,
    },
    /// `COMMIT`, `END`.
    Commit(Chain),
    /// `ROLLBACK`, `ABORT`.
    Rollback(Chain),
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`.
    Savepoint,
    /// `SET TRANSACTION`.
    Set {
        /// `READ ONLY` or `READ WRITE`.
        access: Access,
        /// The level asked for.
        isolation: Isolation,
        /// Whether a snapshot is imported.
        snapshot: Snapshot,
    },
    /// `PREPARE TRANSACTION`.
    Prepare,
    /// `COMMIT PREPARED`, `ROLLBACK PREPARED`.
    FinishPrepared,
    /// Several statements of which at least one is one of the above; or a text that was not
    /// understood and may hold some.
    Mixed,
}

impl Transaction {
    /// Whether a transaction that is open on a standby can take it there. A second `BEGIN` is a
    /// warning and nothing else.
    ///
    /// Source: `check_transaction_read_only` and `check_transaction_isolation` in
    /// `commands/variable.c`: in recovery a transaction can't be made to write or to be
    /// serializable.
    pub(super) const fn goes_on_at_a_standby(self) -> bool {
        match self {
            Self::Begin { .. } | Self::Commit(_) | Self::Rollback(_) | Self::Savepoint => true,
            Self::Set { access, isolation, snapshot } => {
                !matches!(access, Access::ReadWrite)
                    && !matches!(isolation, Isolation::Serializable)
                    && matches!(snapshot, Snapshot::Own)
            }
            Self::None | Self::Prepare | Self::FinishPrepared | Self::Mixed => false,
        }
    }
}

/// `READ ONLY` or `READ WRITE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// Not said: what `default_transaction_read_only` says.
    #[default]
    Default,
    /// `READ ONLY`.
    ReadOnly,
    /// `READ WRITE`.
    ReadWrite,
}

/// `ISOLATION LEVEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// Not said: what `default_transaction_isolation` says.
    #[default]
    Default,
    /// `READ COMMITTED` or `READ UNCOMMITTED`: a snapshot a statement.
    ReadCommitted,
    /// `REPEATABLE READ`: one snapshot.
    RepeatableRead,
    /// `SERIALIZABLE`: a standby refuses it.
    Serializable,
}

/// `AND CHAIN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// The transaction is over.
    Ends,
    /// Another begins at once.
    Continues,
}

/// `SET TRANSACTION SNAPSHOT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Snapshot {
    /// The transaction's own.
    Own,
    /// Another backend's, of the same server.
    Imported,
}

/// How often a text that runs outside a transaction block can commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Commits {
    /// Once, or not at all: it's one transaction.
    AtMostOnce,
    /// More than once: it holds `COMMIT`s, or commits by itself (`CALL`, `DO`, `VACUUM`), or
    /// was not understood.
    MayRepeat,
}

/// A name as the text has it, folded to lower case where it wasn't quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The schema, if the text says it.
    pub schema: Option<Box<str>>,
    /// The last component.
    pub name: Box<str>,
}

/// A setting that a text changes, by `SET`, `RESET` or `set_config`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Setting {
    /// Its name, lower case.
    pub name: Box<str>,
    /// For how long.
    pub scope: Scope,
    /// To a value, or back to its default.
    pub change: Change,
}

/// How long a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// As long as the session.
    Session,
    /// Until the transaction ends.
    Transaction,
}

/// What happens to a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It gets a value.
    Set,
    /// It goes back to its default.
    Reset,
}

/// `SET pgsteer.name = value`, `RESET pgsteer.name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wish {
    /// What stands behind `pgsteer.`, lower case.
    pub name: Box<str>,
    /// The value; `None`: back to its default.
    pub value: Option<Box<str>>,
    /// For how long.
    pub scope: Scope,
}

/// What a comment `/* pgsteer: name=value, ... */` before or after the statement asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Hints {
    /// Names, lower case, and their values, in the order of the text.
    pub wishes: Vec<(Box<str>, Box<str>)>,
    /// What could not be read: the client deserves a warning.
    pub malformed: Option<Box<str>>,
}

impl Facts {
    /// How many statements.
    pub const fn count(&self) -> Count {
        self.count
    }

    /// Whether nothing but settings is touched, and nothing evaluated.
    pub const fn sets_only(&self) -> SetsOnly {
        self.sets_only
    }

    /// What kind.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it does to the transaction around it.
    pub const fn transaction(&self) -> Transaction {
        self.transaction
    }

    /// How often it can commit.
    pub const fn commits(&self) -> Commits {
        self.commits
    }

    /// What it does besides answering.
    pub const fn effects(&self) -> Effects {
        self.effects
    }

    /// Why it needs the primary whatever the catalog says.
    pub const fn fixed(&self) -> Option<NeedsPrimary> {
        self.fixed
    }

    /// The functions that it calls, also by `CALL`.
    pub fn functions(&self) -> &[Name] {
        &self.functions
    }

    /// The relations that it reads or writes, without its own `WITH` names.
    pub fn relations(&self) -> &[Name] {
        &self.relations
    }

    /// The relations whose rows it changes.
    pub fn targets(&self) -> &[Name] {
        &self.targets
    }

    /// Its operators, without the comparisons: `= <> < <= > >=`.
    pub fn operators(&self) -> &[Box<str>] {
        &self.operators
    }

    /// The settings that it changes, except `pgsteer.*`.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// What it asks of pgsteer by `SET` and `RESET`, in order.
    pub fn wishes(&self) -> &[Wish] {
        &self.wishes
    }

    /// What it asks of pgsteer by a comment.
    pub fn hints(&self) -> Option<&Hints> {
        self.hints.as_deref()
    }

    /// The name in `SHOW name`, lower case, if that is the whole text.
    pub fn shown(&self) -> Option<&str> {
        self.shown.as_deref()
    }

    /// The names of prepared statements in it, in its client's letters, and what becomes of them.
    pub fn prepared(&self) -> &[(Touches, Box<[u8]>)] {
        &self.prepared
    }

    /// Whether a server that runs it forgets all prepared statements: `DISCARD ALL`,
    /// `DEALLOCATE ALL`.
    pub fn deallocates_all(&self) -> bool {
        let takes = |(touches, _): &(Touches, Box<[u8]>)| *touches == Touches::Takes;
        self.effects.any(Effects::DISCARD_ALL)
            || self.effects.any(Effects::DEALLOCATE) && !self.prepared.iter().any(takes)
    }

    /// Whether it is one query that means the same whenever it is prepared, as long as nobody
    /// changes the objects that it speaks of, or the settings by which it is read.
    pub fn means_the_same_again(&self) -> bool {
        self.count == Count::One && self.class == Class::Read && self.constants == Constants::Plain
    }

    /// Whether it may mean something else each time it is prepared, though nobody changes anything:
    /// what one session has prepared is not what another would.
    pub fn tells_the_time(&self) -> bool {
        self.constants == Constants::Moments
    }

    /// Whether the objects of its database may be others when it is done, as far as it says.
    pub fn may_reshape(&self) -> bool {
        // What one session creates for itself is nothing to the others.
        let only_temporary = self.count == Count::One
            && self.effects.any(Effects::TEMP)
            && !self.effects.any(Effects::EXECUTE);
        self.effects.any(Effects::RESHAPING) && !only_temporary
    }

    /// Whose sessions begin with other settings once it is committed.
    pub fn defaults(&self) -> &[Defaults] {
        &self.defaults
    }

    /// Whether it consists of nothing but `SET`s and `RESET`s of `pgsteer.*`: no server need
    /// see it.
    pub fn is_only_wishes(&self) -> bool {
        self.count == Count::One && !self.wishes.is_empty()
    }

    /// Roughly what it occupies, for the cache's bound.
    pub(super) fn weight(&self) -> usize {
        let names = self.functions.len() + self.relations.len() + self.targets.len();
        let symbols = self.operators.len() + self.dotted.len();
        let rest = symbols + self.settings.len() + self.wishes.len();
        size_of::<Self>() + (names + rest) * AVERAGE_NAME
    }
}

/// A name's box, its text and the allocator's share, in bytes.
const AVERAGE_NAME: usize = 64;

impl Name {
    /// A name without a schema.
    pub fn bare(name: &str) -> Self {
        Self { schema: None, name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(out, "{schema}.{}", self.name),
            None => out.write_str(&self.name),
        }
    }
}

/// What `sql` is. Never panics, whatever the bytes are.
///
/// ```
/// use pgsteer::sql::{Class, Dialect, Effects, examine};
///
/// let facts = examine(b"SELECT name FROM people WHERE id = $1", Dialect::default());
/// assert_eq!(facts.class(), Class::Read);
/// let facts = examine(b"WITH d AS (DELETE FROM t RETURNING *) TABLE d", Dialect::default());
/// assert_eq!(facts.class(), Class::Write);
/// assert!(facts.effects().any(Effects::DML));
/// ```
pub fn examine(sql: &[u8], dialect: Dialect) -> Facts {
    super::collect::examine(sql, dialect)
}
