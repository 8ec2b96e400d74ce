//! What a session has left on its backend: asked of the server itself, in one round trip.
//!
//! Every statement that may change more than data is followed by this probe before its backend
//! rests. What the server shows becomes the session's settings; what can't be moved pins the
//! session to the backend until a later probe no longer finds it.
//!
//! Source: PostgreSQL manual, 54 "System Views" (`pg_settings`, `pg_locks`, `pg_cursors`,
//! `pg_prepared_statements`) and 9.27 "System Information Functions".

use crate::pg::quote_literal;
use crate::session::Settings;
use std::collections::BTreeSet;

/// What a probe found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The settings of the session.
    pub settings: Settings,
    /// What pins it.
    pub pins: Pins,
    /// The channels that it listens to.
    pub channels: Vec<String>,
}

/// Why a session can't leave its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pins(u8);

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// It holds a session-level advisory lock.
    Advisory,
    /// It has temporary objects.
    Temporary,
    /// It listens.
    Listen,
    /// It has a cursor that outlives its transaction.
    Cursor,
    /// It prepared statements by SQL.
    Prepared,
    /// It acts under another session user.
    SessionUser,
    /// It set something that no probe shows, or shows to us.
    Hidden,
    /// It may have left something, and nobody could ask any more.
    Unknown,
}

impl Pin {
    /// Every reason, with the word for it in the probe's answer and in `status`.
    const ALL: [(Self, &'static str); 8] = [
        (Self::Advisory, "advisory"),
        (Self::Temporary, "temporary"),
        (Self::Listen, "listen"),
        (Self::Cursor, "cursor"),
        (Self::Prepared, "prepared"),
        (Self::SessionUser, "session_user"),
        (Self::Hidden, "hidden"),
        (Self::Unknown, "unknown"),
    ];

    /// What a client calls it.
    const fn told(self) -> &'static str {
        match self {
            Self::Advisory => "advisory locks",
            Self::Temporary => "temporary objects",
            Self::Listen => "LISTEN",
            Self::Cursor => "cursors WITH HOLD",
            Self::Prepared => "statements of PREPARE",
            Self::SessionUser => "SET SESSION AUTHORIZATION",
            Self::Hidden => "settings under a computed name, or in letters that are not UTF-8",
            Self::Unknown => "what the last statements may have set",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Advisory => 1,
            Self::Temporary => 2,
            Self::Listen => 4,
            Self::Cursor => 8,
            Self::Prepared => 16,
            Self::SessionUser => 32,
            Self::Hidden => 64,
            Self::Unknown => 128,
        }
    }
}

impl Pins {
    /// Adds a reason.
    pub const fn add(&mut self, pin: Pin) {
        self.0 |= pin.bit();
    }

    /// Takes a reason away.
    pub const fn remove(&mut self, pin: Pin) {
        self.0 &= !pin.bit();
    }

    /// One reason.
    pub const fn of(pin: Pin) -> Self {
        Self(pin.bit())
    }

    /// Adds others' reasons.
    pub const fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// What a client calls them.
    pub fn told(self) -> String {
        let each = Pin::ALL.into_iter().filter(|(pin, _)| self.0 & pin.bit() != 0);
        each.map(|(pin, _)| pin.told()).collect::<Vec<_>>().join(", ")
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The words for them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Pin::ALL.into_iter().filter(move |(pin, _)| self.0 & pin.bit() != 0).map(|(_, name)| name)
    }
}

/// The probe's text. `custom` are the names of custom settings that the session is known to have
/// touched: `pg_settings` does not list those that no library has defined.
pub(super) fn sql(user: &str, custom: &BTreeSet<Box<str>>) -> String {
    let mut sql = String::from(
        "SELECT 'set', name, setting FROM pg_catalog.pg_settings WHERE source = 'session' \
         AND name NOT IN ('transaction_isolation','transaction_read_only','transaction_deferrable') \
         UNION ALL SELECT 'set', 'role', pg_catalog.current_setting('role') \
         WHERE pg_catalog.current_setting('role') <> 'none' \
         UNION ALL SELECT 'pin', 'advisory', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
         WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()) \
         UNION ALL SELECT 'pin', 'temporary', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
         WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
         AND refobjid = pg_catalog.pg_my_temp_schema()) \
         UNION ALL SELECT 'pin', 'listen', channel FROM \
         pg_catalog.pg_listening_channels() AS channel \
         UNION ALL SELECT 'pin', 'cursor', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors \
         WHERE is_holdable) \
         UNION ALL SELECT 'pin', 'prepared', NULL WHERE EXISTS (SELECT FROM \
         pg_catalog.pg_prepared_statements WHERE from_sql)",
    );
    sql.push_str(" UNION ALL SELECT 'pin', 'session_user', NULL WHERE session_user <> ");
    sql.push_str(&quote_literal(user));
    for name in custom {
        let name = quote_literal(name);
        sql.push_str(" UNION ALL SELECT 'set', ");
        sql.push_str(&name);
        sql.push_str(", pg_catalog.current_setting(");
        sql.push_str(&name);
        sql.push_str(", true) WHERE pg_catalog.current_setting(");
        sql.push_str(&name);
        sql.push_str(", true) <> ''");
    }
    sql
}

/// In which letters a probe was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    /// UTF-8: what it says is what we read.
    Utf8,
    /// Those of another encoding, of which we know the ASCII ones.
    Others,
}

impl Letters {
    /// By the session's `client_encoding`.
    pub(super) fn of(client_encoding: Option<&str>) -> Self {
        match client_encoding {
            None | Some("UTF8") => Self::Utf8,
            Some(_) => Self::Others,
        }
    }

    fn can_read(self, value: &str) -> bool {
        self == Self::Utf8 && !value.contains(char::REPLACEMENT_CHARACTER) || value.is_ascii()
    }
}

/// Reads the probe's answer. A setting in letters that we can't read can't be moved.
pub(super) fn read(rows: &[Vec<Option<String>>], letters: Letters) -> Found {
    let mut found = Found::default();
    for row in rows {
        match row.as_slice() {
            [Some(kind), Some(name), Some(value)] if kind == "set" => {
                if letters.can_read(value) {
                    found.settings.set(name, value);
                } else {
                    found.pins.add(Pin::Hidden);
                }
            }
            [Some(kind), Some(name), value] if kind == "pin" => {
                if name == "listen" {
                    found.channels.extend(value.clone());
                }
                if let Some((pin, _)) = Pin::ALL.iter().find(|(_, known)| known == name) {
                    found.pins.add(*pin);
                }
            }
            _ => {}
        }
    }
    found
}
