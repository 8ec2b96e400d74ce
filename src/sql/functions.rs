//! The functions that PostgreSQL's own labels don't describe well enough.
//!
//! A label says whether a function may change the database; it doesn't say whether the answer
//! of a standby is the right one, whether something stays behind on the backend, or whether a
//! `volatile` function does any harm. These lists do, for PostgreSQL 13 to 18 and the extensions
//! that come with it. What is listed by a prefix is so because new members of a family arrive
//! with every release.

use super::Effects;
use super::NeedsPrimary;

/// Volatile, yet harmless: they change nothing and a standby answers as well as the primary.
/// Counts only for functions of PostgreSQL itself or written in C, so that nobody's own
/// `random()` hides behind the name. Sorted.
const HARMLESS: &[&str] = &[
    "array_sample",
    "array_shuffle",
    "bernoulli",
    "clock_timestamp",
    "current_query",
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "pg_collation_actual_version",
    "pg_database_collation_actual_version",
    "pg_database_size",
    "pg_get_wal_replay_pause_state",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_jit_available",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_relation_size",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "random",
    "random_normal",
    "system",
    "timeofday",
    "timezone", // one of them is labelled volatile up to 14
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
];

/// For the primary only, whatever their labels say: on a standby they fail, or succeed in the
/// wrong place. Sorted.
const PRIMARY_ONLY: &[&str] = &[
    "brin_desummarize_range",
    "brin_summarize_new_values",
    "brin_summarize_range",
    "connectby", // runs a text
    "currtid2",
    "currval",
    "gin_clean_pending_list",
    "lastval",
    "loread",
    "lowrite",
    "nextval",
    "pg_cancel_backend",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_drop_replication_slot",
    "pg_export_snapshot",
    "pg_get_replication_slots",
    "pg_import_system_collations",
    "pg_is_in_backup",
    "pg_log_backend_memory_contexts",
    "pg_nextoid",
    "pg_notify",
    "pg_prepared_xact",
    "pg_promote",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_sequence_last_value",
    "pg_start_backup",
    "pg_stat_get_wal_senders",
    "pg_stop_backup",
    "pg_switch_wal",
    "pg_terminate_backend",
    "pg_wal_replay_pause",
    "pg_wal_replay_resume",
    "setval",
    "ts_rewrite", // runs a text
    "ts_stat",    // runs a text
    "txid_current",
    "txid_current_if_assigned",
    "xpath_table", // runs a text
];

/// Families for the primary only.
const PRIMARY_ONLY_FAMILIES: &[&str] = &[
    "binary_upgrade_",
    "crosstab", // runs a text
    "dblink",
    "lo_",
    "pg_backup_",
    "pg_copy_logical_",
    "pg_copy_physical_",
    "pg_create_",
    "pg_current_wal_",
    "pg_logical_",
    "pg_replication_origin_",
    "pg_replication_slot_",
    "pg_stat_reset",
    "pg_sync_replication_slots",
    "pg_walfile_name",
];

/// PostgreSQL's own functions that run what their arguments name, so that their text can do
/// anything that a statement can.
const RUNS_TEXT: &[&str] = &[
    "cursor_to_xml",
    "database_to_xml",
    "query_to_xml",
    "schema_to_xml",
    "table_to_xml",
    "ts_rewrite",
    "ts_stat",
];

/// Their answer is about the session that asks, or about the processes of one server.
const SESSION: &[&str] = &[
    "pg_blocking_pids",
    "pg_cursor",
    "pg_listening_channels",
    "pg_lock_status",
    "pg_prepared_statement",
    "pg_safe_snapshot_blocking_pids",
    "pg_stat_get_activity",
    "pg_stat_get_progress_info",
    "set_config",
    "setseed",
];

/// A family of such.
const SESSION_FAMILY: &str = "pg_stat_get_backend_";

/// Views of PostgreSQL's own that describe the sessions of one server: whoever looks for a process
/// means to do something about it, and `pg_terminate_backend` and its kin are for the primary.
const SESSION_RELATIONS: &[&str] =
    &["pg_locks", "pg_stat_activity", "pg_stat_gssapi", "pg_stat_ssl"];

/// A family of such.
const SESSION_RELATIONS_FAMILY: &str = "pg_stat_progress_";

/// They leave on the backend what no reset takes back. Sorted.
const LASTING: &[&str] =
    &["dblink_connect", "dblink_connect_u", "pg_backup_start", "pg_start_backup", "setseed"];

/// Views of PostgreSQL's own that describe the primary, or a session: a standby's are empty, or
/// about something else.
const PRIMARY_RELATIONS: &[&str] = &[
    "pg_cursors",
    "pg_prepared_statements",
    "pg_prepared_xacts",
    "pg_replication_slots",
    "pg_sequences",
    "pg_stat_replication",
    "pg_stat_replication_slots",
    "pg_stat_subscription",
    "pg_stat_subscription_stats",
];

/// Settings whose value says which server answers; a standby would pass for a read-only
/// primary.
const PRIMARY_SETTINGS: &[&str] =
    &["default_transaction_read_only", "in_hot_standby", "transaction_read_only"];

/// What a call of this function leaves behind or does, whoever defined it.
pub(super) fn effects(name: &str) -> Effects {
    if is_session_lock(name) {
        return Effects::ADVISORY;
    }
    let lasting = LASTING.binary_search(&name).is_ok()
        || name.starts_with("pg_replication_origin_session_")
        || begins_with_one_of(name, &["pg_copy_", "pg_create_"]) && name.ends_with("_slot");
    match name {
        "pg_notify" => Effects::NOTIFY,
        "currval" | "lastval" => Effects::SEQUENCE,
        "nextval" | "setval" => Effects::DRAW,
        _ if lasting => Effects::LASTING,
        _ => Effects::NONE,
    }
}

/// Why this function needs the primary whatever its label says.
pub(super) fn denied(name: &str) -> Option<NeedsPrimary> {
    if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") {
        return Some(NeedsPrimary::Advisory);
    }
    if SESSION.contains(&name) || name.starts_with(SESSION_FAMILY) {
        return Some(NeedsPrimary::SessionState);
    }
    let denied = PRIMARY_ONLY.binary_search(&name).is_ok()
        || begins_with_one_of(name, PRIMARY_ONLY_FAMILIES)
        || runs_text(name);
    denied.then_some(NeedsPrimary::FunctionDenied)
}

/// Whether this function is harmless though labelled volatile.
pub(super) fn harmless(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_ok()
}

/// Whether this function of PostgreSQL's own runs a text.
pub(super) fn runs_text(name: &str) -> bool {
    begins_with_one_of(name, RUNS_TEXT)
}

/// Whether this relation of PostgreSQL's own describes the primary, or a session.
pub(super) fn about_the_primary(relation: &str) -> bool {
    PRIMARY_RELATIONS.contains(&relation)
}

/// Whether this relation of PostgreSQL's own describes the sessions of one server.
pub(super) fn about_sessions(relation: &str) -> bool {
    SESSION_RELATIONS.contains(&relation) || relation.starts_with(SESSION_RELATIONS_FAMILY)
}

/// Whether this setting tells a standby from a primary.
pub(super) fn tells_the_role(setting: &str) -> bool {
    PRIMARY_SETTINGS.contains(&setting)
}

/// `pg_advisory_lock` and its kin, without those that end with the transaction.
fn is_session_lock(name: &str) -> bool {
    let rest = name.strip_prefix("pg_try_advisory_").or_else(|| name.strip_prefix("pg_advisory_"));
    rest.is_some_and(|rest| !rest.starts_with("xact_"))
}

fn begins_with_one_of(name: &str, families: &[&str]) -> bool {
    families.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        assert!(HARMLESS.is_sorted() && PRIMARY_ONLY.is_sorted() && LASTING.is_sorted());
    }

    #[test]
    fn no_function_is_both_harmless_and_denied() {
        for name in HARMLESS {
            assert_eq!(denied(name), None, "{name}");
        }
    }

    #[test]
    fn locks_that_end_with_the_transaction_leave_nothing() {
        assert!(effects("pg_advisory_lock").any(Effects::ADVISORY));
        assert!(effects("pg_try_advisory_lock_shared").any(Effects::ADVISORY));
        assert!(effects("pg_advisory_unlock_all").any(Effects::ADVISORY));
        assert!(effects("pg_advisory_xact_lock").is_empty());
        assert_eq!(denied("pg_advisory_xact_lock"), Some(NeedsPrimary::Advisory));
    }
}
