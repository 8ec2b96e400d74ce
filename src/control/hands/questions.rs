//! What a survey asks, and how the answers are read. Functions of text; the asking is done in
//! `survey`.
//!
//! Deliberately absent: a default for what our user may not see.

use crate::auth::Secret;
use crate::clock::Moment;
use crate::control::look::Row;
use crate::failover::{
    Before, Instance, Place, Prepared, ReceiverRow, Right, Rights, Settings, Slot, SlotState,
    Survey, SurveyedRole, Switch, SyncNames, Upstream,
};
use crate::pg::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Settings, as sessions begin with them; ours has set itself to others.
const SETTINGS: &str = "SELECT s.name, s.reset_val FROM pg_catalog.pg_settings AS s \
     WHERE s.name IN ('synchronous_standby_names', 'synchronous_commit', \
     'default_transaction_read_only', 'wal_sender_timeout', 'wal_receiver_timeout', \
     'wal_receiver_status_interval', 'wal_retrieve_retry_interval', 'recovery_min_apply_delay', \
     'recovery_target_timeline', 'cluster_name', 'max_wal_senders', 'max_replication_slots', \
     'wal_keep_size', 'hot_standby', 'wal_log_hints', 'data_checksums', 'restart_after_crash', \
     'allow_alter_system', 'primary_conninfo', 'restore_command', 'primary_slot_name', \
     'data_directory', 'config_file')";

/// Rights that every release knows.
const RIGHTS: &str = "SELECT r.rolsuper, r.rolreplication, \
     pg_catalog.pg_has_role(r.oid, 'pg_read_all_stats', 'USAGE'), \
     pg_catalog.pg_has_role(r.oid, 'pg_read_all_settings', 'USAGE'), \
     pg_catalog.pg_has_role(r.oid, 'pg_signal_backend', 'USAGE'), \
     pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE'), \
     pg_catalog.has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'EXECUTE'), \
     pg_catalog.has_function_privilege('pg_catalog.pg_wal_replay_resume()', 'EXECUTE') \
     FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER";

/// Rights that newer releases know ([`Version::grants_settings`]).
const NEWER_RIGHTS: &str = "SELECT \
     pg_catalog.has_parameter_privilege('primary_conninfo', 'ALTER SYSTEM'), \
     pg_catalog.has_parameter_privilege('restore_command', 'ALTER SYSTEM'), \
     pg_catalog.has_parameter_privilege('synchronous_standby_names', 'ALTER SYSTEM'), \
     pg_catalog.has_parameter_privilege('default_transaction_read_only', 'ALTER SYSTEM'), \
     pg_catalog.pg_has_role('pg_checkpoint', 'USAGE')";

const SLOTS: &str = "SELECT s.slot_name, s.active, s.restart_lsn IS NOT NULL \
     FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_type = 'physical'";

/// What it is, and whether it receives.
const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() END, \
     (SELECT count(w.pid) > 0 FROM pg_catalog.pg_stat_wal_receiver AS w)";

/// Who receives from it.
const RECEIVERS: &str = "SELECT r.application_name, r.state, r.sync_state, r.client_addr, \
     extract(epoch FROM pg_catalog.clock_timestamp() - r.backend_start), \
     extract(epoch FROM pg_catalog.clock_timestamp() - r.reply_time) \
     FROM pg_catalog.pg_stat_replication AS r";

const OTHERS: &str = "SELECT DISTINCT a.application_name FROM pg_catalog.pg_stat_activity AS a \
     WHERE a.application_name LIKE 'pgsteer control %'";

/// Roles and databases whose sessions wait for less than the server's own setting says, or do not
/// hear that a wait was cut short.
const EXEMPT: &str = "SELECT DISTINCT pg_catalog.split_part(c, '=', 1), \
     coalesce(nullif(pg_catalog.concat_ws(' in ', 'role ' || r.rolname, \
     'database ' || d.datname), ''), 'all roles') \
     FROM pg_catalog.pg_db_role_setting AS s CROSS JOIN pg_catalog.unnest(s.setconfig) AS c \
     LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole \
     LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase \
     WHERE pg_catalog.lower(c) IN ('synchronous_commit=off', 'synchronous_commit=false', \
     'synchronous_commit=no', 'synchronous_commit=0', 'synchronous_commit=local', \
     'synchronous_commit=remote_write', 'client_min_messages=error', \
     'client_min_messages=fatal', 'client_min_messages=panic') ORDER BY 1, 2";

/// Who was prepared, and not ended yet; everybody may see that.
const PREPARED: &str = "SELECT p.gid, p.owner, p.database, \
     extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared) \
     FROM pg_catalog.pg_prepared_xacts AS p ORDER BY p.prepared LIMIT 100";

/// Sessions that could write and that our user may not end.
///
/// Source: `pg_signal_backend` in `storage/ipc/signalfuncs.c` of PostgreSQL.
const UNENDABLE: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity AS a \
     JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid \
     WHERE r.rolsuper \
     AND NOT (SELECT u.rolsuper FROM pg_catalog.pg_roles AS u \
              WHERE u.rolname = CURRENT_USER) \
     AND (a.backend_type = 'client backend' OR a.backend_type LIKE 'logical replication%worker')";

/// The command line that started it; only a superuser may ask.
pub(super) const STARTED: &str = "SELECT pg_catalog.pg_read_file('postmaster.opts')";

/// What is asked of a server of this release, in this order.
pub(super) fn questions(version: Version) -> Vec<&'static str> {
    let mut all =
        vec![SETTINGS, RIGHTS, SLOTS, ROLE, RECEIVERS, OTHERS, EXEMPT, PREPARED, UNENDABLE];
    if version.grants_settings() {
        all.push(NEWER_RIGHTS);
    }
    all
}

/// When a survey was taken, of what, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) asked: Moment,
    pub(super) answered: Moment,
    pub(super) version: Version,
    pub(super) own: Instance,
    pub(super) locked: bool,
}

/// Reads the answers to [`questions`].
pub(super) fn read(answers: &[Vec<Row>], taken: &Taken) -> Option<Survey> {
    let [settings, rights, slots, role, receivers, others, exempt, prepared, kept, newer @ ..] =
        answers
    else {
        return None;
    };
    let settings = Values::new(settings);
    let rights = read_rights(rights.first()?, newer.first().and_then(|rows| rows.first()));
    let role = role.first()?;
    let sees = rights.have(Right::SeeStatistics);
    let role = if flag(role, 0)? {
        SurveyedRole::Standby { paused: flag(role, 1)?, receiving: flag(role, 2) }
    } else {
        let rows = || receivers.iter().filter_map(read_receiver).collect();
        SurveyedRole::Primary { receivers: sees.then(rows) }
    };
    let others = others.iter().filter_map(|row| Instance::of_application(text(row, 0)?));
    Some(Survey {
        asked: taken.asked,
        answered: taken.answered,
        version: taken.version,
        upstream: settings.upstream()?,
        before: Before::Nothing,
        place: settings.place(),
        settings: settings.settings(exempt)?,
        slots: Some(slots.iter().filter_map(read_slot).collect()),
        role,
        prepared: prepared.iter().filter_map(read_prepared).collect(),
        unendable: kept.first().and_then(|row| text(row, 0)?.parse().ok())?,
        others: others.filter(|other| *other != taken.own).collect(),
        locked: taken.locked,
        rights,
    })
}

fn read_rights(row: &Row, newer: Option<&Row>) -> Rights {
    let old = [
        Right::Superuser,
        Right::Replication,
        Right::SeeStatistics,
        Right::SeeSettings,
        Right::EndSessions,
        Right::Reload,
        Right::Promote,
        Right::ResumeReplay,
    ];
    let new = [
        Right::SetConninfo,
        Right::SetRestoreCommand,
        Right::SetSynchronousNames,
        Right::SetReadOnly,
        Right::Checkpoint,
    ];
    let granted = |row: &Row, right: &[Right]| -> Vec<Right> {
        let rights = right.iter().zip(row);
        rights.filter(|(_, has)| has.as_deref() == Some("t")).map(|(right, _)| *right).collect()
    };
    let newer = newer.map(|row| granted(row, &new)).unwrap_or_default();
    Rights::new(granted(row, &old).into_iter().chain(newer))
}

fn read_slot(row: &Row) -> Option<Slot> {
    let state = match (flag(row, 1)?, flag(row, 2)?) {
        (true, _) => SlotState::Active,
        (false, true) => SlotState::Waiting,
        (false, false) => SlotState::Fresh,
    };
    Some(Slot { name: text(row, 0)?.into(), state })
}

/// A receiver; our own connections, which could replicate, are none.
fn read_receiver(row: &Row) -> Option<ReceiverRow> {
    let application = text(row, 0)?;
    if Instance::of_application(application).is_some() {
        return None;
    }
    Some(ReceiverRow {
        application: application.into(),
        state: text(row, 1).unwrap_or_default().into(),
        sync_state: text(row, 2).unwrap_or_default().into(),
        address: text(row, 3).unwrap_or_default().into(),
        connected: seconds(text(row, 4)?)?,
        replied: text(row, 5).and_then(seconds),
    })
}

fn read_prepared(row: &Row) -> Option<Prepared> {
    Some(Prepared {
        gid: text(row, 0)?.into(),
        owner: text(row, 1)?.into(),
        database: text(row, 2)?.into(),
        age: seconds(text(row, 3)?)?,
    })
}

/// Settings by their names.
struct Values<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Values<'a> {
    fn new(rows: &'a [Row]) -> Self {
        let value = |row: &'a Row| Some((text(row, 0)?, text(row, 1).unwrap_or_default()));
        Self(rows.iter().filter_map(value).collect())
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A time in milliseconds; `None`: off.
    fn limit(&self, name: &str) -> Option<Duration> {
        self.number(name).filter(|number| *number > 0).map(Duration::from_millis)
    }

    fn upstream(&self) -> Option<Upstream> {
        Some(Upstream {
            conninfo: self.text("primary_conninfo").map(|text| Secret::new(text.to_owned())),
            restore_command: Secret::new(self.text("restore_command")?.to_owned()),
            slot: self.text("primary_slot_name")?.into(),
        })
    }

    fn place(&self) -> Place {
        let known = |name: &str| self.text(name).filter(|text| !text.is_empty()).map(Arc::from);
        Place { data: known("data_directory"), config: known("config_file"), started: None }
    }

    fn settings(&self, exempt: &[Row]) -> Option<Settings> {
        let exempt = |setting: &str| {
            let those = exempt.iter().filter(|row| text(row, 0) == Some(setting));
            those.filter_map(|row| text(row, 1).map(Arc::from)).collect()
        };
        let names = self.text("synchronous_standby_names")?;
        let switches = [
            ("hot_standby", Switch::HotStandby),
            ("wal_log_hints", Switch::HintsLogged),
            ("data_checksums", Switch::Checksums),
            ("restart_after_crash", Switch::RestartsAfterCrash),
            // Releases before 17 have no such setting, and can always be altered.
            ("allow_alter_system", Switch::Alterable),
        ];
        let is_on = |(name, switch): &(&str, Switch)| {
            let default = if *switch == Switch::Alterable { "on" } else { "off" };
            self.text(name).unwrap_or(default) == "on"
        };
        let on: BTreeSet<_> = switches.iter().filter(|s| is_on(s)).map(|(_, s)| *s).collect();
        Some(Settings {
            synchronous_names: SyncNames::parse(names).map_err(|_| Arc::from(names)),
            synchronous_commit: self.text("synchronous_commit")?.into(),
            weak_commits: exempt("synchronous_commit"),
            hidden_warnings: exempt("client_min_messages"),
            read_only: self.text("default_transaction_read_only")? == "on",
            sender_timeout: self.limit("wal_sender_timeout"),
            receiver_timeout: self.limit("wal_receiver_timeout"),
            // Its unit is the second.
            status_interval: self
                .number("wal_receiver_status_interval")
                .filter(|number| *number > 0)
                .map(Duration::from_secs),
            retry_interval: Duration::from_millis(self.number("wal_retrieve_retry_interval")?),
            apply_delay: Duration::from_millis(self.number("recovery_min_apply_delay")?),
            target_timeline: self.text("recovery_target_timeline")?.into(),
            cluster_name: self.text("cluster_name")?.into(),
            max_senders: u32::try_from(self.number("max_wal_senders")?).ok()?,
            max_slots: u32::try_from(self.number("max_replication_slots")?).ok()?,
            keep_size: self.number("wal_keep_size")?,
            on,
        })
    }
}

fn text(row: &Row, column: usize) -> Option<&str> {
    row.get(column)?.as_deref()
}

fn flag(row: &Row, column: usize) -> Option<bool> {
    match text(row, column)? {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

/// A number of seconds with a fraction; a clock that was set back gives less than nothing.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}
