//! A store that ends with its process.

use crate::failover::Record;
use crate::store::{Note, Revision, SwapError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A store that ends with its process. Clones are the same store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Inside>>);

/// Guarded as one: a record and its revision change together.
#[derive(Debug, Default)]
struct Inside {
    record: Option<(Record, Revision)>,
    notes: BTreeMap<String, Note>,
}

impl MemoryStore {
    pub(super) fn load(&self) -> Option<(Record, Revision)> {
        self.with(|inside| inside.record.clone())
    }

    pub(super) fn swap(
        &self,
        expected: Option<Revision>,
        record: &Record,
    ) -> Result<Revision, SwapError> {
        self.with(|inside| {
            let found = inside.record.as_ref().map(|(_, revision)| *revision);
            if found != expected {
                return Err(SwapError::Raced);
            }
            let revision = Revision(found.map_or(1, |Revision(number)| number.saturating_add(1)));
            inside.record = Some((record.clone(), revision));
            Ok(revision)
        })
    }

    pub(super) fn note(&self, server: &str) -> Option<Note> {
        self.with(|inside| inside.notes.get(server).cloned())
    }

    pub(super) fn keep(&self, server: &str, note: Option<Note>) {
        self.with(|inside| match note {
            Some(note) => drop(inside.notes.insert(server.to_owned(), note)),
            None => drop(inside.notes.remove(server)),
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inside) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
