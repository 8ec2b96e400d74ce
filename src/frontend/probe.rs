//! What a session has left on its backend: asked of the server itself, in one round trip.
//!
//! Every statement that may change more than data is followed by this probe before its backend
//! rests. What the server shows becomes the session's settings; what can't be moved pins the
//! session to the backend until a later probe no longer finds it.
//!
//! Source: PostgreSQL manual, 54 "System Views" (`pg_settings`, `pg_locks`, `pg_cursors`,
//! `pg_prepared_statements`) and 9.27 "System Information Functions".

use crate::pg::quote_literal;
use crate::session::{CustomNames, FirstRole, Pin, Pins, Settings, is_custom};
use std::collections::BTreeSet;

/// What a probe found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The settings of the session.
    pub settings: Settings,
    /// Those of them whose values we can't read.
    pub unread: BTreeSet<Box<str>>,
    /// What pins it.
    pub pins: Pins,
    /// The channels that it listens to.
    pub channels: Vec<String>,
    /// How many statements the protocol has prepared there.
    pub prepared: Option<usize>,
}

/// The probe's text. Whatever the session's `search_path` is, nothing of a user's is run by it, or
/// could hide what was left: everything is named by its schema, operators as well.
///
/// For a session that began as this user and with this role. `custom` are the names of custom
/// settings that the session is known to have touched: `pg_settings` does not list those that no
/// library has defined.
pub(super) fn sql((user, first): (&str, &FirstRole), custom: &CustomNames) -> String {
    let first = quote_literal(first.shown());
    let mut sql = format!(
        "SELECT 'set', name, setting FROM pg_catalog.pg_settings \
         WHERE source OPERATOR(pg_catalog.=) 'session' AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[\
         'transaction_isolation','transaction_read_only','transaction_deferrable']) \
         UNION ALL SELECT 'set', 'role', pg_catalog.current_setting('role') \
         WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) {first} \
         UNION ALL SELECT 'pin', 'advisory', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
         WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
         UNION ALL SELECT 'pin', 'temporary', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
         WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
         AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
         UNION ALL SELECT 'pin', 'listen', channel FROM \
         pg_catalog.pg_listening_channels() AS channel \
         UNION ALL SELECT 'pin', 'cursor', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors \
         WHERE is_holdable) \
         UNION ALL SELECT 'pin', 'prepared', NULL WHERE EXISTS (SELECT FROM \
         pg_catalog.pg_prepared_statements WHERE from_sql) \
         UNION ALL SELECT 'held', pg_catalog.count(*)::pg_catalog.text, NULL FROM \
         pg_catalog.pg_prepared_statements WHERE NOT from_sql",
    );
    sql.push_str(
        " UNION ALL SELECT 'pin', 'session_user', NULL WHERE session_user OPERATOR(pg_catalog.<>) ",
    );
    sql.push_str(&quote_literal(user));
    if custom.is_empty() {
        return sql;
    }
    sql.push_str(
        " UNION ALL SELECT 'set', name, pg_catalog.current_setting(name, true) FROM (VALUES ",
    );
    for (name, before) in custom.iter().zip(std::iter::once("(").chain(std::iter::repeat("),("))) {
        sql.push_str(before);
        sql.push_str(&quote_literal(name));
    }
    sql.push_str(
        ")) AS custom (name) \
         WHERE pg_catalog.current_setting(name, true) OPERATOR(pg_catalog.<>) ''",
    );
    sql
}

/// What no probe lists under this name, whatever a client has set it to: what is a transaction's
/// own, and names that a server takes for others (`map_old_guc_names` in `utils/misc/guc.c`).
const UNLISTED: [&str; 6] = [
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
    "sort_mem",
    "vacuum_mem",
    "force_parallel_mode",
];

/// Whether a probe lists this setting if it is set, also where no statement has named it.
pub(super) fn lists(name: &str) -> bool {
    !is_custom(name) && !UNLISTED.contains(&name)
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
                    found.unread.insert(name.as_str().into());
                }
            }
            [Some(kind), Some(name), value] if kind == "pin" => {
                if name == "listen" {
                    found.channels.extend(value.clone());
                }
                if let Some(pin) = Pin::ALL.iter().find(|pin| pin.as_str() == name) {
                    found.pins.add(*pin);
                }
            }
            [Some(kind), Some(count), _] if kind == "held" => found.prepared = count.parse().ok(),
            _ => {}
        }
    }
    found
}
