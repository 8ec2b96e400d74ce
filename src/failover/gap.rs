//! What a failover lacks: the finding, why it matters, and the remedy to the letter.

use crate::auth::Secret;
use crate::failover::{Instance, Right, WeakPromise};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something that a failover lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub server: Arc<str>,
    /// What.
    pub lack: Lack,
    /// How bad that is.
    pub weight: Weight,
    /// What helps.
    pub remedy: Remedy,
}

/// How bad a gap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// `auto` does not arm with it, and a failover by hand may not come to its end.
    Blocks,
    /// A failover works, and something about it is worse than it could be.
    Warns,
}

/// What helps against a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// These statements, on the gap's server, as a superuser.
    Sql(Vec<Statement>),
    /// These statements, and a restart of the server.
    SqlAndRestart(Vec<Statement>),
    /// A choice that is the operator's: nothing that is applied unasked.
    Advice(String),
}

/// One statement of a remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// As an operator runs it in psql. There is no secret in it.
    pub shown: String,
    /// As it is run over a connection; may hold a password.
    pub run: Secret,
}

/// What is lacking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The server was never surveyed.
    NeverSeen,
    /// No server that was surveyed is the primary.
    NoPrimary,
    /// No standby was surveyed.
    NoStandby,
    /// Every standby replays with a delay: none may be promoted.
    NoCandidate,
    /// The release is too old to grant what is needed.
    Ungrantable,
    /// Our user may not do something.
    Right(Right),
    /// The old primary of a switchover is to restart, and our user can't make it.
    NotDemotable,
    /// `allow_alter_system` is off.
    Unalterable,
    /// `restore_command` is set, and the release takes it in at a start only.
    FixedArchive,
    /// `hot_standby` is off: a standby could not be asked.
    NotHot,
    /// It can't be rewound after it diverged.
    NotRewindable,
    /// Too few walsenders for all standbys and for us.
    FewSenders {
        /// How many there are.
        has: u32,
        /// How many are needed.
        needs: u32,
    },
    /// Too few slots for all standbys.
    FewSlots {
        /// How many there are.
        has: u32,
        /// How many are needed.
        needs: u32,
    },
    /// Other instances of pgsteer are connected.
    Others(BTreeSet<Instance>),
    /// The lock by which we may act is not ours.
    Unlocked,
    /// `primary_conninfo` can't be read.
    BrokenLink,
    /// It receives the log under no name of its own.
    NoName,
    /// Another server receives the log under the same name.
    SharedName(Arc<str>),
    /// Its link to the primary may be silent for too long.
    Silent {
        /// For how long; `None`: for ever, or that is not known.
        may: Option<Duration>,
        /// How long it may be at most.
        most: Duration,
    },
    /// `wal_retrieve_retry_interval` is long.
    SlowRetry(Duration),
    /// `recovery_target_timeline` is not `latest`: it would not follow a promotion.
    FixedTimeline(Arc<str>),
    /// It replays with a delay, and counts for the quorum.
    DelayedInQuorum,
    /// It replays with a delay.
    Delayed,
    /// Somebody paused its replay.
    Paused,
    /// The slot through which a standby receives is not there.
    NoSlot(Arc<str>),
    /// A slot that nobody uses keeps the log.
    IdleSlot(Arc<str>),
    /// Neither a slot nor `wal_keep_size` keeps what a standby lacks that was away.
    NothingKept,
    /// As the primary it would promise less than the primary does now.
    WeakerNames,
    /// These roles or databases do not wait for standbys.
    WeakCommits(Box<[Arc<str>]>),
    /// These are not told that a wait for standbys was cut short.
    HiddenWarnings(Box<[Arc<str>]>),
    /// The set is asynchronous: what was acknowledged may be lost.
    Asynchronous(WeakPromise),
    /// It is fenced.
    Fenced,
}

impl Gap {
    /// What is lacking, and where: one line.
    pub fn what(&self) -> String {
        format!("{}: {}", self.server, self.lack)
    }

    /// The same in one line of a log or of `status`, with the reason.
    pub fn told(&self) -> String {
        format!("{}: {} (`pgsteer doctor` shows the remedy)", self.what(), self.lack.why())
    }

    /// Whether `auto` does not arm with it.
    pub fn blocks(&self) -> bool {
        self.weight == Weight::Blocks
    }
}

impl Weight {
    /// The word for users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Warns => "warns",
        }
    }
}

impl Statement {
    /// One without a secret.
    pub fn plain(text: String) -> Self {
        Self { run: Secret::new(text.clone()), shown: text }
    }
}

impl Remedy {
    /// Its statements.
    pub fn statements(&self) -> &[Statement] {
        match self {
            Self::Sql(statements) | Self::SqlAndRestart(statements) => statements,
            Self::Advice(_) => &[],
        }
    }
}

impl Right {
    /// What our user can't do without it, and how it is granted to `user`; `None` where a grant
    /// does not exist.
    pub(super) fn grant(self, user: &str) -> Option<String> {
        let user = crate::pg::quote_identifier(user);
        let granted = match self {
            Self::Superuser => return None,
            Self::Replication => return Some(format!("ALTER ROLE {user} REPLICATION")),
            Self::SeeStatistics | Self::SeeSettings => "pg_monitor",
            Self::SetConninfo => "ALTER SYSTEM ON PARAMETER primary_conninfo",
            Self::SetRestoreCommand => "ALTER SYSTEM ON PARAMETER restore_command",
            Self::SetSynchronousNames => "ALTER SYSTEM ON PARAMETER synchronous_standby_names",
            Self::SetReadOnly => "ALTER SYSTEM ON PARAMETER default_transaction_read_only",
            Self::Reload => "EXECUTE ON FUNCTION pg_catalog.pg_reload_conf()",
            Self::Promote => "EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer)",
            Self::ResumeReplay => "EXECUTE ON FUNCTION pg_catalog.pg_wal_replay_resume()",
            Self::EndSessions => "pg_signal_backend",
            Self::Checkpoint => "pg_checkpoint",
        };
        Some(format!("GRANT {granted} TO {user}"))
    }

    const fn missing(self) -> &'static str {
        match self {
            Self::Superuser => "the control user is no superuser",
            Self::Replication => "the control user may not replicate",
            Self::SeeStatistics => "the control user can't see who receives and who is connected",
            Self::SeeSettings => "the control user can't see primary_conninfo",
            Self::SetConninfo => "the control user may not set primary_conninfo",
            Self::SetRestoreCommand => "the control user may not set restore_command",
            Self::SetSynchronousNames => "the control user may not set synchronous_standby_names",
            Self::SetReadOnly => "the control user may not set default_transaction_read_only",
            Self::Reload => "the control user may not reload the configuration",
            Self::Promote => "the control user may not promote",
            Self::ResumeReplay => "the control user may not resume replay",
            Self::EndSessions => "the control user may not end sessions",
            Self::Checkpoint => "the control user may not write a checkpoint",
        }
    }

    const fn needed_for(self) -> &'static str {
        match self {
            Self::Superuser => "only a superuser can change settings before PostgreSQL 15",
            Self::Replication => {
                "slots are made with it, and the history of a timeline is read with it"
            }
            Self::SeeStatistics => {
                "without it nobody knows whether a standby streams, or who else acts"
            }
            Self::SeeSettings => "what can't be seen can't be given back after a freeze",
            Self::SetConninfo => "a standby is frozen, and made to follow another server, with it",
            Self::SetRestoreCommand => {
                "an archive is a second source of the log: it is cut off too"
            }
            Self::SetSynchronousNames | Self::SetReadOnly => "an old primary is fenced with it",
            Self::Reload => "no setting takes effect without it, and promotions may sleep for 5 s",
            Self::Promote => "there is no failover without it",
            Self::ResumeReplay => "a paused standby can be neither frozen nor promoted at once",
            Self::EndSessions => {
                "sessions on a fenced primary, or in the way of replay, are ended with it"
            }
            Self::Checkpoint => "a switchover is slower without it",
        }
    }
}

impl Lack {
    /// Why it matters: one sentence.
    pub const fn why(&self) -> &'static str {
        match self {
            Self::NeverSeen => "what it holds, and whether it can be acted on, is not known",
            Self::NoPrimary => "what the primary promises is not known",
            Self::NoStandby => "there is nobody to promote, and no witness beside us",
            Self::NoCandidate => "there is nobody to promote",
            Self::Ungrantable => "only a superuser can change settings before PostgreSQL 15",
            Self::Right(right) => right.needed_for(),
            Self::NotDemotable => "every switchover is refused",
            Self::Unalterable => "a standby is frozen by ALTER SYSTEM",
            Self::FixedArchive => "a standby with a second source of the log can't be frozen",
            Self::NotHot => "a standby that takes no connections can be neither asked nor promoted",
            Self::NotRewindable => {
                "after a failover this server, once ahead, must be copied anew instead of rewound"
            }
            Self::FewSenders { .. } => "standbys could not all connect to it as the primary",
            Self::FewSlots { .. } => "standbys could not all receive from it through their slots",
            Self::Others(_) => "two deciders with a store each could promote two primaries",
            Self::Unlocked => "another process may act on this server",
            Self::BrokenLink => "it can't be made to follow another server",
            Self::NoName => "its acknowledgement can't be told from another receiver's",
            Self::SharedName(_) => "their acknowledgements can't be told apart",
            Self::Silent { .. } => {
                "its silence about the primary would mean nothing: a hung primary is not found out"
            }
            Self::SlowRetry(_) => "after each failed attempt a standby sleeps for so long",
            Self::FixedTimeline(_) => "it would not follow a promotion",
            Self::DelayedInQuorum => {
                "it can't be frozen until its delay is over, and must be, for it acknowledges"
            }
            Self::Delayed => "it is never promoted",
            Self::Paused => "a failover resumes it",
            Self::NoSlot(_) => "it is made when it is needed, which takes a moment more",
            Self::IdleSlot(_) => "the disk fills up",
            Self::NothingKept => "a standby that was away for long would have to be copied anew",
            Self::WeakerNames => "after a failover to it acknowledged writes could be lost",
            Self::WeakCommits(_) => "their acknowledged writes may be lost",
            Self::HiddenWarnings(_) => {
                "a commit whose wait for standbys is cancelled at the server looks like a success"
            }
            Self::Asynchronous(_) => "acknowledged writes may be lost; a failover tells how many",
            Self::Fenced => "it takes no writes",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSeen => out.write_str("it was not reached yet"),
            Self::NoPrimary => out.write_str("no server is seen to be the primary"),
            Self::NoStandby => out.write_str("no standby is seen"),
            Self::NoCandidate => out.write_str("every standby replays with a delay"),
            Self::Ungrantable => out.write_str("the control user is no superuser, on this release"),
            Self::Right(right) => out.write_str(right.missing()),
            Self::NotDemotable => out.write_str(
                "failover.demote is \"crash_restart\", and the control user is no superuser",
            ),
            Self::Unalterable => out.write_str("allow_alter_system is off"),
            Self::FixedArchive => out.write_str(
                "it has a restore_command, which before PostgreSQL 14 needs a restart to change",
            ),
            Self::NotHot => out.write_str("hot_standby is off"),
            Self::NotRewindable => out.write_str("neither data checksums nor wal_log_hints are on"),
            Self::FewSenders { has, needs } => {
                write!(out, "max_wal_senders is {has}; {needs} are needed")
            }
            Self::FewSlots { has, needs } => {
                write!(out, "max_replication_slots is {has}; {needs} are needed")
            }
            Self::Others(others) => {
                let others: Vec<_> = others.iter().map(ToString::to_string).collect();
                write!(out, "other pgsteer processes are connected: {}", others.join(", "))
            }
            Self::Unlocked => out.write_str("its control lock is held by somebody else"),
            Self::BrokenLink => out.write_str("its primary_conninfo is broken"),
            Self::NoName => out.write_str("it has no application_name as a receiver"),
            Self::SharedName(name) => write!(out, "another server receives as \"{name}\", too"),
            Self::Silent { may: Some(may), most } => {
                write!(out, "its link may be silent for {may:?}; at most {most:?} is allowed")
            }
            Self::Silent { may: None, .. } => out.write_str("its link has no keepalive"),
            Self::SlowRetry(interval) => {
                write!(out, "wal_retrieve_retry_interval is {interval:?}")
            }
            Self::FixedTimeline(target) => {
                write!(out, "recovery_target_timeline is \"{target}\"")
            }
            Self::DelayedInQuorum => out.write_str("it replays with a delay, and is waited for"),
            Self::Delayed => out.write_str("it replays with a delay"),
            Self::Paused => out.write_str("its replay is paused"),
            Self::NoSlot(slot) => write!(out, "it has no slot \"{slot}\""),
            Self::IdleSlot(slot) => write!(out, "slot \"{slot}\" keeps log for nobody"),
            Self::NothingKept => out.write_str("wal_keep_size is 0, and a standby has no slot"),
            Self::WeakerNames => {
                out.write_str("its synchronous_standby_names name no quorum of the servers")
            }
            Self::WeakCommits(who) => {
                write!(out, "synchronous_commit is less than on for {}", some(who))
            }
            Self::HiddenWarnings(who) => {
                write!(out, "client_min_messages hides warnings from {}", some(who))
            }
            Self::Asynchronous(why) => write!(out, "it is asynchronous: {why}"),
            Self::Fenced => out.write_str("it is fenced by an earlier change of primary"),
        }
    }
}

/// The first of these names, and how many more there are.
fn some(names: &[Arc<str>]) -> String {
    const SHOWN: usize = 5;
    let (shown, rest) = names.split_at(names.len().min(SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", shown.join(", "))
}
