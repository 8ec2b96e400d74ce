//! What a record looks like on a disk: JSON, with the number of its format.
//!
//! The types here mirror those of `failover` field by field, so that neither can change without
//! the other and a change of the format is seen as one. Positions and system identifiers are
//! text, as PostgreSQL prints them. A key that is not known is an error: what it says may matter.

use crate::failover::{
    Appointed, By, Change, Choice, Kind, Loss, MaxLoss, Operation, Phase, Promise, Record,
    WeakPromise,
};
use crate::pg::{Lsn, SystemId, Timeline};
use crate::store::{Note, Revision, StoreError};
use crate::topology::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

/// The format that is written.
const FORMAT: u64 = 1;

/// Why a text is no record.
#[derive(Debug)]
pub(super) enum FormatError {
    /// Another format.
    Version(u64),
    /// Not understood.
    Broken(String),
}

impl FormatError {
    /// The same, of a file.
    pub(super) fn of(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Version(found) => StoreError::Version { path, found, known: FORMAT },
            Self::Broken(what) => StoreError::Broken { path, what },
        }
    }
}

impl From<serde_json::Error> for FormatError {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// The text of a record.
pub(super) fn write_record(
    record: &Record,
    Revision(revision): Revision,
    servers: &[String],
) -> Result<String, FormatError> {
    let record = RecordText::from(record);
    let servers = servers.to_vec();
    let file = RecordFile { format: FORMAT, revision, servers, record };
    Ok(serde_json::to_string_pretty(&file)? + "\n")
}

/// The record in a text.
pub(super) fn read_record(text: &str) -> Result<(Record, Revision), FormatError> {
    check_format(text)?;
    let file: RecordFile = serde_json::from_str(text)?;
    Ok((file.record.try_into()?, Revision(file.revision)))
}

/// The servers that a record is about.
pub(super) fn read_servers(text: &str) -> Result<Vec<String>, FormatError> {
    check_format(text)?;
    let file: RecordFile = serde_json::from_str(text)?;
    Ok(file.servers)
}

/// The text of the notes, by server.
pub(super) fn write_notes(notes: &BTreeMap<String, Note>) -> Result<String, FormatError> {
    let notes = notes.iter().map(|(server, note)| (server.clone(), note.as_map().clone()));
    let file = NotesFile { format: FORMAT, servers: notes.collect() };
    Ok(serde_json::to_string_pretty(&file)? + "\n")
}

/// The notes in a text.
pub(super) fn read_notes(text: &str) -> Result<BTreeMap<String, Note>, FormatError> {
    // What serde says of a wrong value may quote it.
    let hidden = || FormatError::Broken("it is cut off, or was changed".to_owned());
    check_format(text).map_err(|error| match error {
        FormatError::Version(found) => FormatError::Version(found),
        FormatError::Broken(_) => hidden(),
    })?;
    let file: NotesFile = serde_json::from_str(text).map_err(|_| hidden())?;
    Ok(file.servers.into_iter().map(|(server, note)| (server, Note::from_map(note))).collect())
}

/// The name of a set's files: whatever its servers are called, and in whatever order.
pub(super) fn set_name(sorted: &[String]) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for server in sorted {
        digest.update(server.as_bytes());
        // No name of a server holds a line break.
        digest.update(b"\n");
    }
    let first = sorted.first().map_or("", String::as_str);
    let keeps = |sign: char| sign.is_ascii_alphanumeric() || "-_".contains(sign);
    let word = first.chars().map(|sign| if keeps(sign) { sign } else { '-' });
    let mut name: String = word.take(NAME_MAX).collect();
    for byte in digest.finish().as_ref().iter().take(DIGEST_BYTES) {
        // Writing to a text does not fail.
        write!(name, "{}{byte:02x}", if name.contains('.') { "" } else { "." }).unwrap_or(());
    }
    name
}

/// Characters of a server's name in that of a file.
const NAME_MAX: usize = 40;
/// Bytes of the digest in it: two sets of one machine never share it by chance.
const DIGEST_BYTES: usize = 6;

fn check_format(text: &str) -> Result<(), FormatError> {
    #[derive(Deserialize)]
    struct Head {
        format: u64,
    }
    match serde_json::from_str::<Head>(text)?.format {
        FORMAT => Ok(()),
        other => Err(FormatError::Version(other)),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    format: u64,
    revision: u64,
    servers: Vec<String>,
    record: RecordText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotesFile {
    format: u64,
    servers: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordText {
    epoch: u64,
    phase: PhaseText,
    primary: AppointedText,
    promise: PromiseText,
    changes: Vec<ChangeText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppointedText {
    server: Arc<str>,
    epoch: u64,
    system: String,
    timeline: u32,
    fork: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
enum PhaseText {
    Stable,
    Draining { operation: OperationText },
    Revoking { operation: OperationText },
    Promoting { operation: OperationText, choice: ChoiceText },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationText {
    kind: KindText,
    by: ByText,
    to: Option<Arc<str>>,
    accepted: MaxLossText,
    /// Without it an operator has said nothing.
    #[serde(default)]
    word: MaxLossText,
    began: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindText {
    Failover,
    Switchover,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ByText {
    Evidence,
    Operator,
    Outside,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MaxLossText {
    Bytes(u64),
    Any,
}

impl Default for MaxLossText {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl From<MaxLoss> for MaxLossText {
    fn from(loss: MaxLoss) -> Self {
        match loss {
            MaxLoss::Bytes(bytes) => Self::Bytes(bytes),
            MaxLoss::Any => Self::Any,
        }
    }
}

impl From<MaxLossText> for MaxLoss {
    fn from(text: MaxLossText) -> Self {
        match text {
            MaxLossText::Bytes(bytes) => Self::Bytes(bytes),
            MaxLossText::Any => Self::Any,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LossText {
    None,
    AtMost(u64),
    UnknownAtLeast(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChoiceText {
    server: Arc<str>,
    at: String,
    loss: LossText,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PromiseText {
    Quorum(QuorumText),
    Asynchronous(WeakText),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuorumText {
    w: u16,
    cohort: BTreeSet<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WeakText {
    NotSeen,
    Hidden,
    NoNames,
    Anyone,
    UnknownName(Arc<str>),
    SharedName(Arc<str>),
    WeakCommit(Arc<str>),
    Unreadable(Arc<str>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeText {
    epoch: u64,
    kind: KindText,
    by: ByText,
    from: Option<Arc<str>>,
    to: Arc<str>,
    timeline: u32,
    fork: Option<String>,
    loss: LossText,
    began: u64,
    ended: u64,
}

impl From<&Record> for RecordText {
    fn from(record: &Record) -> Self {
        let Record { epoch, phase, primary, promise, changes } = record;
        Self {
            epoch: epoch.0,
            phase: phase.into(),
            primary: primary.into(),
            promise: promise.into(),
            changes: changes.iter().map(ChangeText::from).collect(),
        }
    }
}

impl TryFrom<RecordText> for Record {
    type Error = FormatError;

    fn try_from(text: RecordText) -> Result<Self, FormatError> {
        let RecordText { epoch, phase, primary, promise, changes } = text;
        Ok(Self {
            epoch: Epoch(epoch),
            phase: phase.try_into()?,
            primary: primary.try_into()?,
            promise: promise.into(),
            changes: changes.into_iter().map(Change::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Appointed> for AppointedText {
    fn from(appointed: &Appointed) -> Self {
        let Appointed { server, epoch, system, timeline, fork } = appointed;
        Self {
            server: Arc::clone(server),
            epoch: epoch.0,
            system: system.0.to_string(),
            timeline: timeline.0,
            fork: fork.map(|fork| fork.to_string()),
        }
    }
}

impl TryFrom<AppointedText> for Appointed {
    type Error = FormatError;

    fn try_from(text: AppointedText) -> Result<Self, FormatError> {
        let AppointedText { server, epoch, system, timeline, fork } = text;
        let wrong = |_| FormatError::Broken(format!("`{system}` is no system identifier"));
        let system = SystemId(system.parse().map_err(wrong)?);
        let (timeline, fork) = (Timeline(timeline), fork.map(lsn).transpose()?);
        Ok(Self { server, epoch: Epoch(epoch), system, timeline, fork })
    }
}

impl From<&Phase> for PhaseText {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Stable => Self::Stable,
            Phase::Draining(operation) => Self::Draining { operation: operation.into() },
            Phase::Revoking(operation) => Self::Revoking { operation: operation.into() },
            Phase::Promoting(operation, choice) => {
                Self::Promoting { operation: operation.into(), choice: choice.into() }
            }
        }
    }
}

impl TryFrom<PhaseText> for Phase {
    type Error = FormatError;

    fn try_from(text: PhaseText) -> Result<Self, FormatError> {
        Ok(match text {
            PhaseText::Stable => Self::Stable,
            PhaseText::Draining { operation } => Self::Draining(operation.into()),
            PhaseText::Revoking { operation } => Self::Revoking(operation.into()),
            PhaseText::Promoting { operation, choice } => {
                Self::Promoting(operation.into(), choice.try_into()?)
            }
        })
    }
}

impl From<&Operation> for OperationText {
    fn from(operation: &Operation) -> Self {
        let Operation { kind, by, to, accepted, word, began } = operation;
        Self {
            kind: (*kind).into(),
            by: (*by).into(),
            to: to.clone(),
            accepted: (*accepted).into(),
            word: (*word).into(),
            began: *began,
        }
    }
}

impl From<OperationText> for Operation {
    fn from(text: OperationText) -> Self {
        let OperationText { kind, by, to, accepted, word, began } = text;
        let (accepted, word) = (accepted.into(), word.into());
        Self { kind: kind.into(), by: by.into(), to, accepted, word, began }
    }
}

impl From<&Choice> for ChoiceText {
    fn from(choice: &Choice) -> Self {
        let Choice { server, at, loss } = choice;
        Self { server: Arc::clone(server), at: at.to_string(), loss: (*loss).into() }
    }
}

impl TryFrom<ChoiceText> for Choice {
    type Error = FormatError;

    fn try_from(text: ChoiceText) -> Result<Self, FormatError> {
        let ChoiceText { server, at, loss } = text;
        Ok(Self { server, at: lsn(at)?, loss: loss.into() })
    }
}

impl From<&Promise> for PromiseText {
    fn from(promise: &Promise) -> Self {
        match promise {
            Promise::Quorum { w, cohort } => {
                Self::Quorum(QuorumText { w: *w, cohort: cohort.clone() })
            }
            Promise::Asynchronous(weak) => Self::Asynchronous(weak.into()),
        }
    }
}

impl From<PromiseText> for Promise {
    fn from(text: PromiseText) -> Self {
        match text {
            PromiseText::Quorum(QuorumText { w, cohort }) => Self::Quorum { w, cohort },
            PromiseText::Asynchronous(weak) => Self::Asynchronous(weak.into()),
        }
    }
}

impl From<&Change> for ChangeText {
    fn from(change: &Change) -> Self {
        let Change { epoch, kind, by, from, to, timeline, fork, loss, began, ended } = change;
        Self {
            epoch: epoch.0,
            kind: (*kind).into(),
            by: (*by).into(),
            from: from.clone(),
            to: Arc::clone(to),
            timeline: timeline.0,
            fork: fork.map(|fork| fork.to_string()),
            loss: (*loss).into(),
            began: *began,
            ended: *ended,
        }
    }
}

impl TryFrom<ChangeText> for Change {
    type Error = FormatError;

    fn try_from(text: ChangeText) -> Result<Self, FormatError> {
        let ChangeText { epoch, kind, by, from, to, timeline, fork, loss, began, ended } = text;
        Ok(Self {
            epoch: Epoch(epoch),
            kind: kind.into(),
            by: by.into(),
            from,
            to,
            timeline: Timeline(timeline),
            fork: fork.map(lsn).transpose()?,
            loss: loss.into(),
            began,
            ended,
        })
    }
}

/// Two enums with the same variants, each way.
macro_rules! mirror {
    ($ours:ident, $text:ident { $($plain:ident),* $(; $($carrying:ident),*)? }) => {
        impl From<&$ours> for $text {
            fn from(ours: &$ours) -> Self {
                match ours {
                    $($ours::$plain => Self::$plain,)*
                    $($($ours::$carrying(name) => Self::$carrying(Arc::clone(name)),)*)?
                }
            }
        }

        impl From<$ours> for $text {
            fn from(ours: $ours) -> Self {
                Self::from(&ours)
            }
        }

        impl From<$text> for $ours {
            fn from(text: $text) -> Self {
                match text {
                    $($text::$plain => Self::$plain,)*
                    $($($text::$carrying(name) => Self::$carrying(name),)*)?
                }
            }
        }
    };
}

mirror!(Kind, KindText { Failover, Switchover });
mirror!(By, ByText { Evidence, Operator, Outside });
mirror!(WeakPromise, WeakText {
    NotSeen, Hidden, NoNames, Anyone;
    UnknownName, SharedName, WeakCommit, Unreadable
});

impl From<Loss> for LossText {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::None => Self::None,
            Loss::AtMost(bytes) => Self::AtMost(bytes),
            Loss::Unknown { at_least } => Self::UnknownAtLeast(at_least),
        }
    }
}

impl From<LossText> for Loss {
    fn from(text: LossText) -> Self {
        match text {
            LossText::None => Self::None,
            LossText::AtMost(bytes) => Self::AtMost(bytes),
            LossText::UnknownAtLeast(at_least) => Self::Unknown { at_least },
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is mapped over owned texts")]
fn lsn(text: String) -> Result<Lsn, FormatError> {
    text.parse().map_err(|_| FormatError::Broken(format!("`{text}` is no position of the log")))
}
