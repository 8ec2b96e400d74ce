//! What operators are told of failovers, as values: made here, served as JSON, read by the
//! commands. Unknown is absent, never zero; a loss says whether it is known.

use crate::clock::Moment;
use crate::control::{Account, Outcome, Progress, Step, Steward};
use crate::failover::{
    Change, Demotion, Loss, MaxLoss, Mode, Order, Prepared, Preview, Promise, Why,
};
use serde::{Deserialize, Serialize};

/// How it stands with failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// `off`, `manual`, `auto`.
    pub mode: String,
    /// Whether pgsteer would act by itself.
    pub armed: bool,
    /// What `auto` lacks, each with its remedy.
    pub lacking: Vec<String>,
    /// What becomes of the old primary of a switchover: `fence`, `crash_restart`.
    pub demote: String,
    /// The servers with which that can't be done.
    #[serde(default)]
    pub undemotable: Vec<ObstacleReport>,
    /// What the primary promises of writes that it acknowledged: `quorum`, `asynchronous`.
    pub promise: Option<String>,
    /// In words: who counts, or why it is no more.
    pub promise_text: Option<String>,
    /// The number of the last change, or attempt.
    pub epoch: Option<u64>,
    /// How far the change under way has come; `stable`: none is.
    pub phase: Option<String>,
    /// What is done or waited for; absent: nothing.
    pub why: Option<String>,
    /// Why nothing can be changed.
    pub unavailable: Option<String>,
    /// The prepared transactions on the primary that somebody has to end, the oldest first.
    #[serde(default)]
    pub prepared: Vec<PreparedReport>,
    /// The last change.
    pub last_change: Option<ChangeReport>,
    /// The file whose text gives the right to order.
    pub token_file: Option<String>,
}

/// A prepared transaction that waits for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedReport {
    /// What it is called.
    pub gid: String,
    /// Whose it is.
    pub owner: String,
    /// In which database.
    pub database: String,
    /// For how many seconds it waits.
    pub seconds: u64,
    /// In words, and what ends it.
    pub text: String,
}

/// What keeps a server from something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObstacleReport {
    /// Which.
    pub server: String,
    /// What, and what helps.
    pub why: String,
}

/// A completed change of primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// Its number.
    pub epoch: u64,
    /// `failover`, `switchover`.
    pub kind: String,
    /// `evidence`, `operator`, `outside`.
    pub by: String,
    /// From which server.
    pub from: Option<String>,
    /// To which.
    pub to: String,
    /// The branch of the log that began with it.
    pub timeline: u32,
    /// Where that left its parent.
    pub fork_lsn: Option<String>,
    /// What was lost.
    pub loss: LossReport,
    /// When it was begun, in seconds since 1970.
    pub began: u64,
    /// When it was done.
    pub ended: u64,
}

/// Acknowledged writes that are lost, in bytes of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossReport {
    /// In words.
    pub text: String,
    /// No more than this; absent: not known.
    pub at_most_bytes: Option<u64>,
    /// No less than this.
    pub at_least_bytes: u64,
}

/// What an order would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewReport {
    /// `failover`, `switchover`.
    pub kind: String,
    /// The primary of now.
    pub primary: String,
    /// How it is.
    pub verdict: String,
    /// Who would be the primary.
    pub to: Option<String>,
    /// What would be lost.
    pub loss: LossReport,
    /// Whether so much may be lost, by the order or by `failover.max_data_loss`.
    pub loss_accepted: bool,
    /// Sessions with work under way on the primary.
    pub busy_sessions: usize,
    /// What speaks against it.
    pub refusal: Option<String>,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountReport {
    /// Its number, as text: it does not fit a JSON number.
    pub order: String,
    /// `failover`, `switchover`, `abort`.
    pub kind: String,
    /// Its end, if it came.
    pub state: OrderState,
    /// For how long it has been, or was, under way.
    pub seconds: f64,
    /// What was gone through, oldest first.
    pub steps: Vec<StepReport>,
    /// The change that it made.
    pub change: Option<ChangeReport>,
    /// Why it was not carried out, or what it waits for.
    pub refusal: Option<String>,
}

/// The end of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// It has not come yet.
    Underway,
    /// It was carried out.
    Done,
    /// It was not.
    Refused,
    /// It is begun, and nobody follows it any more: it goes on by itself when it can.
    Waiting,
    /// Nobody can tell.
    Lost,
}

/// One step of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Milliseconds after the order.
    pub after_ms: f64,
    /// The phase.
    pub phase: String,
    /// What was done or waited for, in a word; absent: the same as before.
    pub reason: Option<String>,
    /// In words.
    pub why: Option<String>,
}

/// What was gone through lately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepsReport {
    /// Oldest first.
    pub steps: Vec<PastStepReport>,
}

/// One step, and how long ago it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastStepReport {
    /// Milliseconds before the answer.
    pub ago_ms: f64,
    /// The phase.
    pub phase: String,
    /// What was done or waited for, in a word; absent: the same as before.
    pub reason: Option<String>,
    /// In words.
    pub why: Option<String>,
}

impl FailoverReport {
    /// As it is now.
    pub(super) fn new(steward: &Steward, token_file: Option<String>) -> Self {
        let mode = steward.policy().mode;
        let progress = steward.progress();
        let Progress { record, why, lacking, prepared, broken } = &*progress;
        let record = record.as_deref();
        Self {
            mode: mode.as_str().to_owned(),
            armed: mode == Mode::Auto && record.is_some() && lacking.is_empty(),
            lacking: match mode {
                Mode::Auto => lacking.iter().map(ToString::to_string).collect(),
                Mode::Off | Mode::Manual => Vec::new(),
            },
            demote: match steward.policy().demotion {
                Demotion::Fence => "fence".to_owned(),
                Demotion::CrashRestart => "crash_restart".to_owned(),
            },
            undemotable: match steward.policy().demotion {
                Demotion::Fence => Vec::new(),
                Demotion::CrashRestart => obstacles(steward),
            },
            promise: record.map(|record| promise(&record.promise).to_owned()),
            promise_text: record.map(|record| record.promise.to_string()),
            epoch: record.map(|record| record.epoch.0),
            phase: record.map(|record| record.phase.as_str().to_owned()),
            why: why.as_ref().filter(|why| **why != Why::AllWell).map(ToString::to_string),
            unavailable: broken.as_ref().map(ToString::to_string),
            prepared: prepared.iter().map(PreparedReport::from).collect(),
            last_change: record.and_then(|record| record.changes.last()).map(ChangeReport::from),
            token_file,
        }
    }
}

fn obstacles(steward: &Steward) -> Vec<ObstacleReport> {
    let all = steward.unable_to_restart().into_iter();
    all.map(|(server, why)| ObstacleReport { server: server.to_string(), why }).collect()
}

const fn promise(promise: &Promise) -> &'static str {
    match promise {
        Promise::Quorum { .. } => "quorum",
        Promise::Asynchronous(_) => "asynchronous",
    }
}

impl From<&Prepared> for PreparedReport {
    fn from(prepared: &Prepared) -> Self {
        Self {
            gid: prepared.gid.to_string(),
            owner: prepared.owner.to_string(),
            database: prepared.database.to_string(),
            seconds: prepared.age.as_secs(),
            text: prepared.to_string(),
        }
    }
}

impl From<&Change> for ChangeReport {
    fn from(change: &Change) -> Self {
        Self {
            epoch: change.epoch.0,
            kind: change.kind.as_str().to_owned(),
            by: change.by.as_str().to_owned(),
            from: change.from.as_ref().map(ToString::to_string),
            to: change.to.to_string(),
            timeline: change.timeline.0,
            fork_lsn: change.fork.map(|fork| fork.to_string()),
            loss: change.loss.into(),
            began: change.began,
            ended: change.ended,
        }
    }
}

impl From<Loss> for LossReport {
    fn from(loss: Loss) -> Self {
        let (at_most_bytes, at_least_bytes) = match loss {
            Loss::None => (Some(0), 0),
            Loss::AtMost(bytes) => (Some(bytes), 0),
            Loss::Unknown { at_least } => (None, at_least),
        };
        Self { text: loss.to_string(), at_most_bytes, at_least_bytes }
    }
}

impl PreviewReport {
    /// A preview, and whether its loss may be taken.
    pub(super) fn new(preview: &Preview, accepted: MaxLoss) -> Self {
        Self {
            kind: preview.kind.as_str().to_owned(),
            primary: preview.from.to_string(),
            verdict: preview.verdict.to_string(),
            to: preview.to.as_ref().map(ToString::to_string),
            loss: preview.loss.into(),
            loss_accepted: accepted.allows(preview.loss),
            busy_sessions: preview.busy,
            refusal: preview.refusal.as_ref().map(ToString::to_string),
        }
    }
}

impl AccountReport {
    /// An account, as of now.
    pub(super) fn new(id: &str, account: &Account, now: Moment) -> Self {
        let so_far = now.since(account.began);
        let (state, took, change, refusal) = match &account.outcome {
            Outcome::Underway => (OrderState::Underway, so_far, None, None),
            Outcome::Done { change, took } => (OrderState::Done, *took, change.as_ref(), None),
            Outcome::Refused(refusal) if refusal.goes_on() => {
                (OrderState::Waiting, so_far, None, Some(refusal))
            }
            Outcome::Refused(refusal) => (OrderState::Refused, so_far, None, Some(refusal)),
            Outcome::Lost => (OrderState::Lost, so_far, None, None),
        };
        let kind = match account.order {
            Order::Failover { .. } => "failover",
            Order::Switchover { .. } => "switchover",
            Order::Abort => "abort",
        };
        Self {
            order: id.to_owned(),
            kind: kind.to_owned(),
            state,
            seconds: took.as_secs_f64(),
            steps: account.steps.iter().map(|step| step_report(step, account.began)).collect(),
            change: change.map(ChangeReport::from),
            refusal: refusal.map(ToString::to_string),
        }
    }
}

impl StepsReport {
    /// These steps, as of now.
    pub(super) fn new(steps: &[Step], now: Moment) -> Self {
        let report = |step: &Step| PastStepReport {
            ago_ms: now.since(step.at).as_secs_f64() * 1000.0,
            phase: step.phase.to_owned(),
            reason: step.why.as_ref().map(|why| why.as_str().to_owned()),
            why: step.why.as_ref().map(ToString::to_string),
        };
        Self { steps: steps.iter().map(report).collect() }
    }
}

fn step_report(step: &Step, began: Moment) -> StepReport {
    StepReport {
        after_ms: step.at.since(began).as_secs_f64() * 1000.0,
        phase: step.phase.to_owned(),
        reason: step.why.as_ref().map(|why| why.as_str().to_owned()),
        why: step.why.as_ref().map(ToString::to_string),
    }
}
