//! What failover must know of a server before it is needed: its settings, our rights there, who
//! receives from it.
//!
//! Read while all is well, every few seconds, by the hand that will act on it. A value that our
//! user may not see is `None`, never a default: what is not known blocks, or counts as the worse.
//!
//! Deliberately absent: how it is asked for (`control::hands`), and any judgement (`promise`,
//! `prerequisites`).

use crate::auth::Secret;
use crate::clock::Moment;
use crate::failover::{Place, Prepared, SyncNames};
use crate::pg::{Conninfo, Version};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What is known of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// When it was asked.
    pub asked: Moment,
    /// When it had answered.
    pub answered: Moment,
    /// Its release.
    pub version: Version,
    /// What our user may do there.
    pub rights: Rights,
    /// What it is set to.
    pub settings: Settings,
    /// How it receives the log, or would if it were a standby.
    pub upstream: Upstream,
    /// How it did before, if it is told nothing of that now.
    pub before: Before,
    /// Where its files are, and how it was started.
    pub place: Place,
    /// Its slots for the log as it is; `None` where our user can't see them.
    pub slots: Option<Vec<Slot>>,
    /// What it is, and what goes with that.
    pub role: SurveyedRole,
    /// Its prepared transactions, the oldest first; of very many not all. A standby shows none.
    pub prepared: Box<[Prepared]>,
    /// Sessions of superusers, if our user is none: it can't end them.
    pub unendable: usize,
    /// The other instances of pgsteer that may act on it.
    pub others: BTreeSet<Instance>,
    /// Whether this one holds the lock by which it may act there.
    pub locked: bool,
}

/// What a server is, and what goes with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SurveyedRole {
    /// It takes writes.
    Primary {
        /// Who receives its log; `None` where our user can't see them.
        receivers: Option<Vec<ReceiverRow>>,
    },
    /// It replays.
    Standby {
        /// Whether somebody paused its replay.
        paused: bool,
        /// Whether a walreceiver runs; `None` where our user can't see it.
        receiving: Option<bool>,
    },
}

/// What a server is set to: as new sessions find it, whatever ours is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `synchronous_standby_names`, read; the error is the text that could not be.
    pub synchronous_names: Result<SyncNames, Arc<str>>,
    /// `synchronous_commit`.
    pub synchronous_commit: Arc<str>,
    /// Roles and databases for which it is set to less than `on`.
    pub weak_commits: Box<[Arc<str>]>,
    /// Roles and databases for which `client_min_messages` hides warnings.
    pub hidden_warnings: Box<[Arc<str>]>,
    /// `default_transaction_read_only`.
    pub read_only: bool,
    /// `wal_sender_timeout`; `None`: off.
    pub sender_timeout: Option<Duration>,
    /// `wal_receiver_timeout`; `None`: off.
    pub receiver_timeout: Option<Duration>,
    /// `wal_receiver_status_interval`; `None`: off.
    pub status_interval: Option<Duration>,
    /// `wal_retrieve_retry_interval`.
    pub retry_interval: Duration,
    /// `recovery_min_apply_delay`.
    pub apply_delay: Duration,
    /// `recovery_target_timeline`.
    pub target_timeline: Arc<str>,
    /// `cluster_name`.
    pub cluster_name: Arc<str>,
    /// `max_wal_senders`.
    pub max_senders: u32,
    /// `max_replication_slots`.
    pub max_slots: u32,
    /// `wal_keep_size`, in MiB.
    pub keep_size: u64,
    /// Which of the switches are on.
    pub on: BTreeSet<Switch>,
}

/// The standby that does not exist, for which a fenced primary waits.
pub const FENCE: &str = "pgsteer_fence";

impl Settings {
    /// Whether it carries our fence.
    pub fn is_fenced(&self) -> bool {
        let names = self.synchronous_names.as_ref().map_or(&[][..], SyncNames::names);
        matches!(names, [name] if &**name == FENCE)
    }
}

/// A setting that is on or off, and matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Switch {
    /// `hot_standby`: a standby takes connections.
    HotStandby,
    /// `wal_log_hints`: it can be rewound.
    HintsLogged,
    /// `data_checksums`: it can be rewound.
    Checksums,
    /// `restart_after_crash`: it comes back by itself.
    RestartsAfterCrash,
    /// `allow_alter_system`, or a release that always allows it.
    Alterable,
}

/// What our user may do on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Everything.
    Superuser,
    /// To make slots, and to read the history of a timeline (`REPLICATION`).
    Replication,
    /// To see receivers and sessions (`pg_read_all_stats`).
    SeeStatistics,
    /// To see `primary_conninfo` (`pg_read_all_settings`).
    SeeSettings,
    /// `ALTER SYSTEM SET primary_conninfo`.
    SetConninfo,
    /// `ALTER SYSTEM SET restore_command`.
    SetRestoreCommand,
    /// `ALTER SYSTEM SET synchronous_standby_names`.
    SetSynchronousNames,
    /// `ALTER SYSTEM SET default_transaction_read_only`.
    SetReadOnly,
    /// `pg_reload_conf()`.
    Reload,
    /// `pg_promote(boolean, integer)`.
    Promote,
    /// `pg_wal_replay_resume()`.
    ResumeReplay,
    /// To end other sessions (`pg_signal_backend`).
    EndSessions,
    /// `CHECKPOINT` (`pg_checkpoint`).
    Checkpoint,
}

/// A set of rights. A superuser's holds them all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights(BTreeSet<Right>);

/// How a standby receives the log: what a freeze takes away and must be able to give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `primary_conninfo`, to the letter; `None` where our user can't see it.
    pub conninfo: Option<Secret>,
    /// `restore_command`.
    pub restore_command: Secret,
    /// `primary_slot_name`; empty: none.
    pub slot: Arc<str>,
}

/// How a server received the log before its `primary_conninfo` was emptied, as a freeze does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Before {
    /// Nobody saw it receive, or it is not emptied.
    #[default]
    Nothing,
    /// It may have been noted, and the notes can't be read.
    Unread,
    /// By this.
    Link {
        /// `primary_conninfo`, to the letter.
        conninfo: Secret,
        /// Who emptied it.
        emptied: Emptied,
    },
}

/// Who emptied the `primary_conninfo` of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptied {
    /// A freeze of ours.
    ByUs,
    /// Somebody else, as far as was noted.
    ByOthers,
}

/// A slot for the log as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is in use.
    pub state: SlotState,
}

/// Whether a slot is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody ever received through it: it keeps nothing.
    Fresh,
    /// Somebody receives through it.
    Active,
    /// Nobody does now, and it keeps the log until somebody does.
    Waiting,
}

/// One row of `pg_stat_replication`: a receiver of a primary's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverRow {
    /// What it calls itself: whether it counts for the quorum hangs on that alone.
    pub application: Arc<str>,
    /// `streaming`, `catchup`, `startup`, `backup`, `stopping`.
    pub state: Arc<str>,
    /// `async`, `potential`, `sync`, `quorum`.
    pub sync_state: Arc<str>,
    /// From where; empty: over a unix socket.
    pub address: Arc<str>,
    /// For how long it has been connected.
    pub connected: Duration,
    /// Age of its last reply; `None`: none yet.
    pub replied: Option<Duration>,
}

/// One process of pgsteer, as servers and others of its kind see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u32);

impl Rights {
    /// These rights.
    pub fn new(rights: impl IntoIterator<Item = Right>) -> Self {
        Self(rights.into_iter().collect())
    }

    /// Whether our user may do this.
    pub fn have(&self, right: Right) -> bool {
        self.0.contains(&right) || self.0.contains(&Right::Superuser)
    }
}

impl Upstream {
    /// `primary_conninfo`, read. `None` where our user can't see it, it is empty, or it is broken.
    pub fn read(&self) -> Option<Conninfo> {
        let text = self.conninfo.as_ref()?.reveal();
        if text.is_empty() { None } else { Conninfo::parse(text).ok() }
    }
}

impl Survey {
    /// Whether it takes writes.
    pub const fn is_primary(&self) -> bool {
        matches!(self.role, SurveyedRole::Primary { .. })
    }

    /// Whether its `primary_conninfo` is seen to be empty.
    pub fn is_cut_off(&self) -> bool {
        self.upstream.conninfo.as_ref().is_some_and(|text| text.reveal().is_empty())
    }

    /// Whether it is a standby without an upstream by a freeze of ours.
    pub fn is_cut_off_by_us(&self) -> bool {
        let ours = matches!(self.before, Before::Link { emptied: Emptied::ByUs, .. });
        ours && self.is_cut_off() && !self.is_primary()
    }

    /// How it receives the log, or did before that was taken from it, to the letter.
    fn conninfo(&self) -> Option<&Secret> {
        match &self.before {
            Before::Link { conninfo, .. } if self.is_cut_off() => Some(conninfo),
            Before::Link { .. } | Before::Nothing | Before::Unread => {
                self.upstream.conninfo.as_ref()
            }
        }
    }

    /// The same, for a later survey that finds it emptied: not by us, or that would be noted.
    pub fn last_link(&self) -> Option<Before> {
        if let Before::Link { .. } = self.before {
            return Some(self.before.clone());
        }
        let conninfo = self.conninfo().filter(|text| !text.reveal().is_empty())?.clone();
        Some(Before::Link { conninfo, emptied: Emptied::ByOthers })
    }

    /// How it receives the log, or did before that was taken from it.
    pub fn link(&self) -> Option<Conninfo> {
        let text = self.conninfo()?.reveal();
        if text.is_empty() { None } else { Conninfo::parse(text).ok() }
    }

    /// Whether it may receive under any name, once it is told again how.
    pub fn has_lost_its_name(&self) -> bool {
        self.is_cut_off()
            && match self.before {
                Before::Link { .. } => false,
                // One that never was a standby has none but that of its settings.
                Before::Nothing => !self.is_primary(),
                Before::Unread => true,
            }
    }

    /// The name by its settings alone of a standby that nobody saw receive: it has that one as long
    /// as nobody gives it another.
    pub fn name_by_settings(&self) -> Option<Arc<str>> {
        let never = self.has_lost_its_name() && self.before == Before::Nothing;
        let name = Some(&*self.settings.cluster_name).filter(|name| !name.is_empty() && never);
        name.map(as_shown)
    }

    /// What it calls itself when it receives the log; `None` where that can't be known.
    ///
    /// One that was cut off keeps the name that it had: it gets that back, and the names of a
    /// quorum would else mean something else for as long as it leads.
    ///
    /// Source: `libpqrcv_connect` in `replication/libpqwalreceiver/libpqwalreceiver.c` of
    /// PostgreSQL, and its call in `walreceiver.c`: the name in `primary_conninfo`, else
    /// `cluster_name`, else `walreceiver`.
    pub fn application_name(&self) -> Option<Arc<str>> {
        if self.has_lost_its_name() {
            return None;
        }
        let conninfo = Conninfo::parse(self.conninfo()?.reveal()).ok()?;
        let own = conninfo.get("application_name").filter(|name| !name.is_empty());
        let cluster = Some(&*self.settings.cluster_name).filter(|name| !name.is_empty());
        // One that never received is given a name once it does.
        let default = (!self.is_cut_off() || self.link().is_some()).then_some(DEFAULT_NAME);
        own.or(cluster).or(default).map(as_shown)
    }

    /// How long its link to the primary can be silent while both are well; `None`: for ever, or
    /// that is not known. `primary` is what its primary is set to.
    ///
    /// Source: `WalSndKeepaliveIfNecessary` in `replication/walsender.c` of PostgreSQL: after
    /// half of `wal_sender_timeout` without a word of the standby a walsender asks for one.
    pub fn keepalive(&self, primary: Option<&Settings>) -> Option<Duration> {
        let conninfo = self.upstream.read()?;
        let timeout = match conninfo.option("wal_sender_timeout") {
            Some(text) => milliseconds(&text)?,
            None => primary?.sender_timeout?,
        };
        (timeout > Duration::ZERO).then_some(timeout / 2)
    }
}

impl Instance {
    /// What `pg_stat_activity` says of the connection by which this process may act.
    pub fn application_name(self) -> String {
        format!("{APPLICATION} {self}")
    }

    /// What it says of those by which it only looks.
    pub fn watching_name(self) -> String {
        format!("{WATCHING} {self}")
    }

    /// The process that may act by a connection which calls itself so.
    pub fn of_application(name: &str) -> Option<Self> {
        let id = name.strip_prefix(APPLICATION)?.strip_prefix(' ')?;
        let plain = id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if plain { u32::from_str_radix(id, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}", self.0)
    }
}

/// What the names of connections begin with.
const APPLICATION: &str = "pgsteer control";
const WATCHING: &str = "pgsteer watch";

/// What a walreceiver is called that nobody gave a name.
const DEFAULT_NAME: &str = "walreceiver";

/// Longest name that a server keeps, in bytes: `NAMEDATALEN` without its end.
const NAME_MAX: usize = 63;

/// The name as the primary shows it: cut, and with `?` for what is no printable ASCII.
///
/// Source: `check_application_name` and `pg_clean_ascii` of PostgreSQL (15; newer releases
/// write `\x..` instead, and such a name counts as one that was not seen).
fn as_shown(name: &str) -> Arc<str> {
    let printable = |byte: u8| if (32..127).contains(&byte) { char::from(byte) } else { '?' };
    name.bytes().take(NAME_MAX).map(printable).collect::<String>().into()
}

/// Reads a value of a setting whose unit is the millisecond.
///
/// Source: PostgreSQL manual, 20.1.1 "Parameter Names and Values".
fn milliseconds(text: &str) -> Option<Duration> {
    let text = text.trim().trim_matches('\'').trim();
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(factor)?))
}

/// Surveys for tests.
#[cfg(test)]
pub(super) mod sample {
    use super::*;

    /// A server of release 15 that is set up as one should be, seen by a superuser at second 10.
    pub(crate) fn server(name: &str, role: SurveyedRole) -> Survey {
        let conninfo = format!(
            "host=db0 port=5432 user=r application_name={name} options='-c wal_sender_timeout=400ms'"
        );
        Survey {
            asked: Moment::from_nanos(10_000_000_000),
            answered: Moment::from_nanos(10_001_000_000),
            version: Version(150_010),
            rights: Rights::new([Right::Superuser]),
            settings: Settings {
                synchronous_names: Ok(SyncNames::None),
                synchronous_commit: "on".into(),
                weak_commits: Box::default(),
                hidden_warnings: Box::default(),
                read_only: false,
                sender_timeout: Some(Duration::from_mins(1)),
                receiver_timeout: Some(Duration::from_mins(1)),
                status_interval: Some(Duration::from_secs(1)),
                retry_interval: Duration::from_millis(100),
                apply_delay: Duration::ZERO,
                target_timeline: "latest".into(),
                cluster_name: name.into(),
                max_senders: 10,
                max_slots: 10,
                keep_size: 256,
                on: [
                    Switch::HotStandby,
                    Switch::Checksums,
                    Switch::RestartsAfterCrash,
                    Switch::Alterable,
                ]
                .into(),
            },
            upstream: Upstream {
                conninfo: Some(Secret::new(conninfo)),
                restore_command: Secret::new(String::new()),
                slot: "".into(),
            },
            before: Before::Nothing,
            place: Place::default(),
            slots: Some(Vec::new()),
            role,
            prepared: Box::default(),
            unendable: 0,
            others: BTreeSet::new(),
            locked: true,
        }
    }

    /// A primary called `s0` that waits for these names, and has these receivers.
    pub(crate) fn primary(names: &str, receivers: &[&str]) -> Survey {
        let row = |name: &&str| ReceiverRow {
            application: (*name).into(),
            state: "streaming".into(),
            sync_state: "quorum".into(),
            address: "10.0.0.1".into(),
            connected: Duration::from_mins(1),
            replied: Some(Duration::from_millis(100)),
        };
        let receivers = Some(receivers.iter().map(row).collect());
        let mut survey = server("s0", SurveyedRole::Primary { receivers });
        survey.settings.synchronous_names = SyncNames::parse(names).map_err(|_| names.into());
        survey
    }

    /// The same, but cut off.
    pub(crate) fn cut_off(survey: &mut Survey, before: Before) {
        survey.upstream.conninfo = Some(Secret::new(String::new()));
        survey.before = before;
    }

    /// It received under this name, until we took that from it.
    pub(crate) fn before(name: &str) -> Before {
        let conninfo = Secret::new(format!("host=db0 application_name={name}"));
        Before::Link { conninfo, emptied: Emptied::ByUs }
    }

    /// A standby that receives under this name.
    pub(crate) fn standby(name: &str) -> Survey {
        server(name, SurveyedRole::Standby { paused: false, receiving: Some(true) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_known_by_the_name_of_its_connections() {
        let instance = Instance(0x00c0_ffee);
        assert_eq!(instance.application_name(), "pgsteer control 00c0ffee");
        assert_eq!(Instance::of_application("pgsteer control 00c0ffee"), Some(instance));
        for name in ["pgsteer control", "pgsteer control c0ffee", "pgsteer controller 00c0ffee"] {
            assert_eq!(Instance::of_application(name), None, "{name}");
        }
    }

    #[test]
    fn a_time_is_read_as_postgresql_reads_it() {
        let cases = [
            ("400ms", Some(400)),
            ("1s", Some(1000)),
            ("1000", Some(1000)),
            ("1 min", Some(60_000)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5s", None),
            ("5 weeks", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), expected.map(Duration::from_millis), "{text}");
        }
    }
}
