//! The store of one proxy: a few files in a directory, locked for as long as the proxy lives.
//!
//! | file | holds |
//! |---|---|
//! | `SET.json` | the record |
//! | `SET.secrets` | what undoes freezes, by server |
//! | `SET.token` | what an operator's command shows to the running proxy |
//! | `SET.lock` | nothing; it is locked |
//! | `salts` | what the salts of users who do not exist are made of |
//!
//! `SET` is made from the names of the configured servers. When servers were added or taken
//! away the record of those that stayed is taken over: a changed list must not pass for a new
//! set, whose first look would believe whoever says that he is the primary.
//!
//! Where the disk does not say that what was written lasts, what stood there is put back, and
//! nothing is read or written until what stands there does last: nobody acts by a record that
//! may be gone when the machine comes back.

use crate::failover::Record;
use crate::store::files::{self, Privacy, Unwritten};
use crate::store::format;
use crate::store::{Note, Revision, StoreError, SwapError, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The store of one proxy. Clones are the same store; the lock is held until the last is dropped.
#[derive(Debug, Clone)]
pub struct FileStore(Arc<Mutex<Inside>>);

/// Guarded as one: a swap reads and writes.
#[derive(Debug)]
struct Inside {
    directory: PathBuf,
    set: String,
    /// The configured servers, sorted.
    servers: Vec<String>,
    /// The kinds of files of which it is not known that what stands there lasts.
    unsure: BTreeSet<&'static str>,
    _lock: File,
}

/// What the name of a file of ours ends in.
const RECORD: &str = "json";
const SECRETS: &str = "secrets";
const TOKEN: &str = "token";
const LOCK: &str = "lock";

impl FileStore {
    /// Opens the store of these servers. What lies there is read once, so that a mistake in it
    /// is told at the start.
    ///
    /// # Errors
    /// [`StoreError`], with the remedy.
    pub fn open(directory: &Path, servers: &[Arc<str>]) -> Result<Self, StoreError> {
        files::make_directory(directory)?;
        let servers: BTreeSet<String> = servers.iter().map(ToString::to_string).collect();
        let servers: Vec<String> = servers.into_iter().collect();
        let set = format::set_name(&servers);
        // Held for a moment: two that start at once must not both find no record.
        let gate = files::wait_for_lock(directory)?;
        let lock = files::lock(&path_in(directory, &set, LOCK))?;
        let directory = directory.to_owned();
        let unsure = BTreeSet::new();
        let mut inside = Inside { directory, set, servers, unsure, _lock: lock };
        inside.take_over()?;
        // Who wrote last may have ended before it was on the disk.
        files::sync_directory(&inside.directory)?;
        inside.read()?;
        inside.read_notes()?;
        drop(gate);
        Ok(Self(Arc::new(Mutex::new(inside))))
    }

    /// Where the record lies.
    pub fn path(&self) -> PathBuf {
        self.with(|inside| inside.path(RECORD))
    }

    /// Makes a new token for those who may order.
    ///
    /// # Errors
    /// [`StoreError`]: it can't be written.
    pub fn new_token(&self) -> Result<(Token, PathBuf), StoreError> {
        let path = self.with(|inside| inside.path(TOKEN));
        Ok((Token::write_new(&path)?, path))
    }

    pub(super) async fn load(&self) -> Result<Option<(Record, Revision)>, StoreError> {
        self.apart(Inside::read).await.unwrap_or(Err(StoreError::Ending))
    }

    pub(super) async fn swap(
        &self,
        expected: Option<Revision>,
        record: &Record,
    ) -> Result<Revision, SwapError> {
        let record = record.clone();
        let swapped = self.apart(move |inside| inside.swap(expected, &record)).await;
        swapped.unwrap_or(Err(SwapError::Unsure(StoreError::Ending)))
    }

    pub(super) async fn note(&self, server: &str) -> Result<Option<Note>, StoreError> {
        let server = server.to_owned();
        let read = move |inside: &mut Inside| Ok(inside.read_notes()?.remove(&server));
        self.apart(read).await.unwrap_or(Err(StoreError::Ending))
    }

    pub(super) async fn keep(&self, server: &str, note: Option<Note>) -> Result<(), StoreError> {
        let server = server.to_owned();
        let kept = self.apart(move |inside| inside.keep(server, note)).await;
        kept.unwrap_or(Err(StoreError::Ending))
    }

    /// Runs on a thread that may wait for a disk; `None` if the runtime ends before it does.
    async fn apart<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Inside) -> T + Send + 'static,
    ) -> Option<T> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.with(act)).await.ok()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inside) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inside {
    fn path(&self, kind: &str) -> PathBuf {
        path_in(&self.directory, &self.set, kind)
    }

    /// Makes sure that what stands there lasts, by writing it again: a directory that could not
    /// be synced may say at the next try that it is, and not be.
    fn make_sure(&mut self, kind: &'static str, privacy: Privacy) -> Result<(), StoreError> {
        if !self.unsure.contains(kind) {
            return Ok(());
        }
        let path = self.path(kind);
        match files::read(&path, privacy)? {
            Some(text) => files::write(&path, &text).map_err(Unwritten::into_error)?,
            None => files::sync_directory(&self.directory)?,
        }
        self.unsure.remove(kind);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(Record, Revision)>, StoreError> {
        self.make_sure(RECORD, Privacy::Readable)?;
        let path = self.path(RECORD);
        let Some(text) = files::read(&path, Privacy::Readable)? else { return Ok(None) };
        let (record, revision) = format::read_record(&text).map_err(|error| error.of(&path))?;
        Ok(Some((record, revision)))
    }

    fn swap(&mut self, expected: Option<Revision>, record: &Record) -> Result<Revision, SwapError> {
        let before = self.read().map_err(SwapError::Failed)?;
        let found = before.as_ref().map(|(_, revision)| *revision);
        if found != expected {
            return Err(SwapError::Raced);
        }
        let revision = Revision(found.map_or(1, |Revision(number)| number.saturating_add(1)));
        let text = format::write_record(record, revision, &self.servers);
        let path = self.path(RECORD);
        let text = text.map_err(|error| SwapError::Failed(error.of(&path)))?;
        match files::write(&path, &text) {
            Ok(()) => Ok(revision),
            Err(Unwritten::Kept(error)) => Err(SwapError::Failed(error)),
            Err(Unwritten::Unsure(error)) => {
                self.unsure.insert(RECORD);
                self.put_back(before);
                Err(SwapError::Unsure(error))
            }
        }
    }

    /// Has what stood there before stand there again, so that who reads it finds what was not
    /// changed. If that fails too, the new one does, and the next reading makes it last.
    fn put_back(&self, before: Option<(Record, Revision)>) {
        let path = self.path(RECORD);
        let text = before.map(|(record, at)| format::write_record(&record, at, &self.servers));
        // That the disk refuses is told already.
        match text {
            Some(Ok(text)) => drop(files::write(&path, &text)),
            Some(Err(_)) => {}
            None => drop(files::remove(&path)),
        }
    }

    fn read_notes(&mut self) -> Result<BTreeMap<String, Note>, StoreError> {
        self.make_sure(SECRETS, Privacy::Secret)?;
        let path = self.path(SECRETS);
        let Some(text) = files::read(&path, Privacy::Secret)? else {
            return Ok(BTreeMap::new());
        };
        format::read_notes(&text).map_err(|error| error.of(&path))
    }

    fn keep(&mut self, server: String, note: Option<Note>) -> Result<(), StoreError> {
        let mut notes = self.read_notes()?;
        let before = notes.clone();
        match note {
            Some(note) => drop(notes.insert(server, note)),
            None => drop(notes.remove(&server)),
        }
        if notes == before {
            return Ok(());
        }
        let path = self.path(SECRETS);
        let kept = if notes.is_empty() {
            files::remove(&path)
        } else {
            let text = format::write_notes(&notes).map_err(|error| error.of(&path))?;
            files::write(&path, &text).map_err(Unwritten::into_error)
        };
        // It stands there or not; the next time it must not pass for what lasts.
        if kept.is_err() {
            self.unsure.insert(SECRETS);
        }
        kept
    }

    /// Where there is no record of exactly these servers, takes over the one of some of them.
    fn take_over(&self) -> Result<(), StoreError> {
        if fs::symlink_metadata(self.path(RECORD)).is_ok() {
            return Ok(());
        }
        let Some(old) = self.related()? else { return Ok(()) };
        // Nobody else works with it, and nobody will: it is gone when this lock is.
        let lock = files::lock(&path_in(&self.directory, &old, LOCK))?;
        // The record last: until then a start that was interrupted here begins again.
        for kind in [SECRETS, RECORD] {
            files::rename(&path_in(&self.directory, &old, kind), &self.path(kind))?;
        }
        for kind in [TOKEN, LOCK] {
            files::remove(&path_in(&self.directory, &old, kind))?;
        }
        drop(lock);
        Ok(())
    }

    /// The set whose record names one of our servers.
    fn related(&self) -> Result<Option<String>, StoreError> {
        let mut found: Option<PathBuf> = None;
        let failed = |source| files::io_error("list", &self.directory)(source);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|kind| kind != RECORD) {
                continue;
            }
            let text = match files::read(&path, Privacy::Readable) {
                Ok(Some(text)) => text,
                // Another user's, in a directory that all may write to.
                Ok(None) | Err(StoreError::Owner { .. } | StoreError::Kind { .. }) => continue,
                Err(error) => return Err(error),
            };
            // One that can't be understood may be the one: it must not be passed over.
            let theirs = format::read_servers(&text).map_err(|error| error.of(&path))?;
            if !theirs.iter().any(|server| self.servers.contains(server)) {
                continue;
            }
            if let Some(one) = found {
                return Err(StoreError::Ambiguous { one, other: path });
            }
            found = Some(path);
        }
        let name = found.as_deref().and_then(Path::file_stem);
        Ok(name.map(|name| name.to_string_lossy().into_owned()))
    }
}

fn path_in(directory: &Path, set: &str, kind: &str) -> PathBuf {
    directory.join(format!("{set}.{kind}"))
}
