//! Where the [`Record`] of a set survives every process: compare-and-swap, and nothing else.
//!
//! The thinking layer knows no format; what a record looks like on a disk is said here
//! (`format`), strictly: what can't be read in full is an error with a remedy, and never the
//! same as "there is none".
//!
//! Invariants:
//! - A swap happens only in the place of the revision that was expected, and what it returns is
//!   durable: it survives the end of the process and of the machine.
//! - At each moment, also after `kill -9`, a reader finds one of the records that were written,
//!   whole.
//! - What undoes a freeze ([`Note`]) is durable before anything is frozen, readable by nobody
//!   else, and in no message.
//!
//! Deliberately absent: any idea of what a record means, a default for one that is missing, and
//! a retry.

mod file;
mod files;
mod format;
mod memory;
mod note;
mod problem;
mod salts;
#[cfg(test)]
mod tests;
mod token;

pub use file::FileStore;
pub use memory::MemoryStore;
pub use note::Note;
pub use problem::{StoreError, SwapError};
pub use salts::salts;
pub use token::Token;

use crate::failover::Record;

/// Which of the stored records: it changes with every swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

/// One store, whatever it is made of. Clones are the same store.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process: for tests and simulations.
    Memory(MemoryStore),
    /// In a directory of this machine, for one proxy.
    File(FileStore),
}

impl Store {
    /// The record, if there is one.
    ///
    /// # Errors
    /// [`StoreError`]: it is not known whether there is one.
    pub async fn load(&self) -> Result<Option<(Record, Revision)>, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.load()),
            Self::File(store) => store.load().await,
        }
    }

    /// Puts `record` in the place of the revision `expected` (`None`: of nothing).
    ///
    /// Not cancel-safe: whether it happened is then told by [`Store::load`].
    ///
    /// # Errors
    /// [`SwapError`]
    pub async fn swap(
        &self,
        expected: Option<Revision>,
        record: &Record,
    ) -> Result<Revision, SwapError> {
        match self {
            Self::Memory(store) => store.swap(expected, record),
            Self::File(store) => store.swap(expected, record).await,
        }
    }

    /// What was noted of a server.
    ///
    /// # Errors
    /// [`StoreError`]: it is not known whether something was.
    pub async fn note(&self, server: &str) -> Result<Option<Note>, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.note(server)),
            Self::File(store) => store.note(server).await,
        }
    }

    /// Notes this of a server, in the place of what was noted before. It is durable on return.
    ///
    /// Not cancel-safe: it may or may not be noted then.
    ///
    /// # Errors
    /// [`StoreError`]: don't count on it.
    pub async fn keep(&self, server: &str, note: Note) -> Result<(), StoreError> {
        match self {
            Self::Memory(store) => {
                store.keep(server, Some(note));
                Ok(())
            }
            Self::File(store) => store.keep(server, Some(note)).await,
        }
    }

    /// Strikes what was noted of a server.
    ///
    /// Not cancel-safe: it may or may not be gone then.
    ///
    /// # Errors
    /// [`StoreError`]: it may still be there.
    pub async fn forget(&self, server: &str) -> Result<(), StoreError> {
        match self {
            Self::Memory(store) => {
                store.keep(server, None);
                Ok(())
            }
            Self::File(store) => store.keep(server, None).await,
        }
    }
}
