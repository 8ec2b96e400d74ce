//! What undoes our acts on one server, stored before they are done.
//!
//! A standby's `primary_conninfo` may be the only copy of a password: it is noted as soon as it is
//! seen, and before it is cleared at the latest. What we cleared ourselves is never noted over
//! what was there.

use crate::auth::Secret;
use crate::control::hands::HandError;
use crate::control::hands::fence::Unfenced;
use crate::failover::{Before, By, Emptied, Upstream};
use crate::store::{Note, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// The notes on one server.
#[derive(Debug)]
pub(super) struct Notes {
    server: Arc<str>,
    store: Store,
    /// What lies in the store, once it was read.
    known: Mutex<Option<Note>>,
    /// A freeze by this process was begun since it was seen to receive last.
    frozen: AtomicBool,
}

const CONNINFO: &str = "primary_conninfo";
const ARCHIVE: &str = "restore_command";
const SLOT: &str = "primary_slot_name";
const NAMES: &str = "synchronous_standby_names";
const READ_ONLY: &str = "default_transaction_read_only";
/// Whether `restore_command` was cleared by us, and is to be given back.
const CUT: &str = "cut";
/// Whether `primary_conninfo` was cleared by us.
const FROZEN: &str = "frozen";
const YES: &str = "yes";

impl Notes {
    pub(super) fn new(server: Arc<str>, store: Store) -> Self {
        Self { server, store, known: Mutex::new(None), frozen: AtomicBool::new(false) }
    }

    /// How it received the log when it did last.
    pub(super) async fn upstream(&self) -> Result<Option<Upstream>, HandError> {
        let note = self.read().await?;
        let text = |key: &str| note.get(key).unwrap_or_default();
        Ok(note.get(CONNINFO).map(|conninfo| Upstream {
            conninfo: Some(Secret::new(conninfo.to_owned())),
            restore_command: Secret::new(text(ARCHIVE).to_owned()),
            slot: text(SLOT).into(),
        }))
    }

    /// Notes how it receives the log now, if it does.
    pub(super) async fn of_upstream(&self, now: &Upstream) -> Result<(), HandError> {
        let Some(conninfo) = told(now) else { return Ok(()) };
        self.frozen.store(false, Ordering::Relaxed);
        self.change(|note| {
            let note = note.with(CONNINFO, conninfo.reveal()).with(SLOT, &now.slot);
            let note = note.with(FROZEN, "");
            let archive = now.restore_command.reveal();
            if archive.is_empty() && note.get(CUT) == Some(YES) {
                note
            } else {
                note.with(ARCHIVE, archive).with(CUT, "")
            }
        })
        .await
    }

    /// Notes that its archive is about to be taken from it.
    pub(super) async fn will_cut(&self, now: &Upstream) -> Result<(), HandError> {
        self.of_upstream(now).await?;
        let archive = now.restore_command.reveal();
        if archive.is_empty() {
            return Ok(());
        }
        self.change(|note| note.with(ARCHIVE, archive).with(CUT, YES)).await
    }

    /// Notes that it is we who take its upstream from it. It need not be stored before: it only
    /// tells what is ours to give back.
    pub(super) async fn of_freeze(&self, now: &Upstream) -> Result<(), HandError> {
        if told(now).is_some() {
            self.frozen.store(true, Ordering::Relaxed);
        }
        if !self.frozen.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.change(|note| note.with(FROZEN, YES)).await
    }

    /// How it received the log before its upstream was taken from it, and by whom.
    pub(super) async fn before(&self) -> Result<Before, HandError> {
        let note = self.read().await?;
        let emptied = if note.get(FROZEN) == Some(YES) { Emptied::ByUs } else { Emptied::ByOthers };
        Ok(note.get(CONNINFO).map_or(Before::Nothing, |conninfo| Before::Link {
            conninfo: Secret::new(conninfo.to_owned()),
            emptied,
        }))
    }

    /// Whether it was we who made another server the primary in its place, when that happened last.
    pub(super) async fn replaced(&self) -> Result<bool, HandError> {
        let stored = self.store.load().await;
        let stored = stored.map_err(|error| HandError::NotNoted(error.to_string()))?;
        let Some((record, _)) = stored else { return Ok(false) };
        let away =
            record.changes.iter().filter(|change| change.from.as_ref() == Some(&self.server));
        let last = away.max_by_key(|change| change.epoch);
        Ok(last.is_some_and(|change| change.by != By::Outside))
    }

    /// Its archive, if that was taken from it and is to be given back.
    pub(super) async fn cut(&self) -> Result<Option<Upstream>, HandError> {
        let is_cut = self.read().await?.get(CUT) == Some(YES);
        Ok(self.upstream().await?.filter(|_| is_cut))
    }

    /// Its archive was given back.
    pub(super) async fn restored(&self) -> Result<(), HandError> {
        self.change(|note| note.with(CUT, "")).await
    }

    /// Notes what a primary is set to that is about to be fenced.
    pub(super) async fn of_fence(&self, now: &Unfenced) -> Result<(), HandError> {
        self.change(|note| note.with(NAMES, &now.names).with(READ_ONLY, &now.read_only)).await
    }

    /// What a primary was set to before it was fenced.
    pub(super) async fn unfenced(&self) -> Result<Option<Unfenced>, HandError> {
        let note = self.read().await?;
        Ok(note.get(NAMES).zip(note.get(READ_ONLY)).map(|(names, read_only)| Unfenced {
            names: names.to_owned(),
            read_only: read_only.to_owned(),
        }))
    }

    async fn read(&self) -> Result<Note, HandError> {
        let mut known = self.known.lock().await;
        if let Some(note) = known.as_ref() {
            return Ok(note.clone());
        }
        Ok(known.insert(self.stored().await?).clone())
    }

    async fn stored(&self) -> Result<Note, HandError> {
        let stored = self.store.note(&self.server).await;
        let note = stored.map_err(|error| HandError::NotNoted(error.to_string()))?;
        Ok(note.unwrap_or_default())
    }

    /// Stores the note if that changes it. Given up, it may or may not have been stored.
    async fn change(&self, change: impl FnOnce(Note) -> Note) -> Result<(), HandError> {
        // Nobody else's change comes in between.
        let mut known = self.known.lock().await;
        // Not known any more until it is stored.
        let before = match known.take() {
            Some(note) => note,
            None => self.stored().await?,
        };
        let after = change(before.clone());
        if after == before {
            *known = Some(before);
            return Ok(());
        }
        let kept = self.store.keep(&self.server, after.clone()).await;
        kept.map_err(|error| HandError::NotNoted(error.to_string()))?;
        *known = Some(after);
        Ok(())
    }
}

/// Its `primary_conninfo`, if it has one that our user can see.
fn told(now: &Upstream) -> Option<&Secret> {
    now.conninfo.as_ref().filter(|text| !text.reveal().is_empty())
}
