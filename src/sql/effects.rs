//! What a statement leaves behind, or does besides answering.

use std::fmt;
use std::ops::BitOr;
use std::ops::BitOrAssign;

/// Whose sessions begin with other settings from now on: `ALTER ROLE ... SET`, `ALTER DATABASE ...
/// SET`, and their resets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Defaults {
    /// Whose.
    pub whose: Whose,
    /// In this database; `None`: in every one.
    pub database: Option<Box<str>>,
}

/// Whose settings a statement changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Everybody's.
    Everybodys,
    /// This role's.
    Roles(Box<str>),
    /// The role's that the session acts as.
    CurrentUsers,
    /// The user's whose session it is.
    SessionUsers,
}

/// A set of side effects, as far as the text tells. What a user's function does is not in here:
/// that is what [`super::Judgement::taints`] is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Effects(u32);

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

effects! {
    /// `SET`, `SET SESSION`, `SET SESSION CHARACTERISTICS`: a setting of the session.
    SET = 0, "set";
    /// `SET LOCAL`: a setting until the transaction ends.
    SET_LOCAL = 1, "set local";
    /// `RESET name` or `SET name TO DEFAULT`.
    RESET = 2, "reset";
    /// `RESET ALL`.
    RESET_ALL = 3, "reset all";
    /// `DISCARD ALL`.
    DISCARD_ALL = 4, "discard all";
    /// `DISCARD PLANS | SEQUENCES | TEMP`.
    DISCARD = 5, "discard";
    /// `SET ROLE`, `SET SESSION AUTHORIZATION` and their resets.
    ROLE = 6, "role";
    /// `LISTEN`.
    LISTEN = 7, "listen";
    /// `UNLISTEN`.
    UNLISTEN = 8, "unlisten";
    /// Something is created in the session's temporary schema.
    TEMP = 9, "temporary object";
    /// `PREPARE` as SQL.
    PREPARE = 10, "prepare";
    /// `EXECUTE` as SQL: runs a statement that isn't in the text.
    EXECUTE = 11, "execute";
    /// `DEALLOCATE`.
    DEALLOCATE = 12, "deallocate";
    /// `DECLARE ... CURSOR`, until the transaction ends.
    CURSOR = 13, "cursor";
    /// `DECLARE ... CURSOR WITH HOLD`, until it is closed.
    HOLD = 14, "cursor with hold";
    /// `FETCH` or `MOVE`.
    FETCH = 15, "fetch";
    /// `CLOSE`.
    CLOSE = 16, "close";
    /// A session-level advisory lock may be taken or given back.
    ADVISORY = 17, "advisory lock";
    /// `set_config(...)` with a constant name and scope: see [`super::Facts::settings`].
    SET_CONFIG = 18, "set_config";
    /// `set_config(...)` of a setting, or for a scope, that is only known when it runs.
    SET_CONFIG_DYNAMIC = 19, "set_config of a computed name";
    /// Something that no reset takes back: `LOAD`, `setseed`, a replication origin, a temporary
    /// slot, a backup.
    LASTING = 20, "lasting state";
    /// `DO`.
    DO = 21, "do";
    /// `CALL`.
    CALL = 22, "call";
    /// Rows are changed: `INSERT`, `UPDATE`, `DELETE`, `MERGE`, `TRUNCATE`, `COPY FROM`.
    DML = 23, "dml";
    /// The system catalogs are changed.
    DDL = 24, "ddl";
    /// `COPY ... FROM STDIN`: the client sends data.
    COPY_IN = 25, "copy in";
    /// `COPY ... TO STDOUT`: the server sends data.
    COPY_OUT = 26, "copy out";
    /// `COPY` from or to a file or program of the server.
    COPY_FILE = 27, "copy with a file";
    /// `NOTIFY`, `pg_notify`.
    NOTIFY = 28, "notify";
    /// The text was not understood: it may do anything.
    UNKNOWN = 29, "unknown";
    /// `currval`, `lastval`: what the session drew from a sequence last.
    SEQUENCE = 30, "state of a sequence";
    /// `nextval`, `setval`: from here on, `currval` and `lastval` tell of it.
    DRAW = 31, "draw from a sequence";
}

impl Effects {
    /// No effect.
    pub const NONE: Self = Self(0);

    /// Everything that changes what the session's next statement finds on this backend.
    pub const SESSION: Self = Self(
        Self::SET.0
            | Self::RESET.0
            | Self::RESET_ALL.0
            | Self::DISCARD_ALL.0
            | Self::DISCARD.0
            | Self::ROLE.0
            | Self::LISTEN.0
            | Self::UNLISTEN.0
            | Self::TEMP.0
            | Self::PREPARE.0
            | Self::EXECUTE.0
            | Self::DEALLOCATE.0
            | Self::HOLD.0
            | Self::ADVISORY.0
            | Self::SET_CONFIG.0
            | Self::SET_CONFIG_DYNAMIC.0
            | Self::LASTING.0
            | Self::UNKNOWN.0,
    );

    /// Settings of the session or of its transaction, and nothing else.
    pub const SETTINGS: Self =
        Self(Self::SET.0 | Self::SET_LOCAL.0 | Self::RESET.0 | Self::RESET_ALL.0 | Self::ROLE.0);

    /// What may create, alter or drop what others speak of.
    pub(super) const RESHAPING: Self =
        Self(Self::DDL.0 | Self::DO.0 | Self::CALL.0 | Self::EXECUTE.0 | Self::UNKNOWN.0);

    /// Everything whose outcome the text doesn't tell exactly: only a look at the backend does.
    pub(super) const fn untold() -> Self {
        let told = Self::SET.0 | Self::RESET.0 | Self::RESET_ALL.0 | Self::ROLE.0;
        Self(Self::SESSION.0 & !told | Self::DO.0 | Self::CALL.0 | Self::DDL.0)
    }

    /// Whether any of `others` is in here.
    pub const fn any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether there are none but `others`.
    pub const fn is_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names, for people.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(effect, _)| self.any(*effect)).map(|(_, name)| *name)
    }
}

impl BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.names()).finish()
    }
}
