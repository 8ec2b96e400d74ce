//! What a database's objects are like, as a number that is another one once they change.
//!
//! A server decides what a text means when the statement is prepared: the types of its parameters,
//! and which of several objects of one name it speaks of. What is created or altered later does
//! not change that. So a statement that is prepared behind a change must not be answered with one
//! that was prepared for somebody else before it: only statements of one shape are shared.
//!
//! Invariants:
//! - Whoever reads a number reads a moment of change that is not older than the number.
//! - A number is never given out twice, also when a database is forgotten and comes back.
//!
//! Deliberately absent: which objects changed. Changes are rare, and what is given up is only that
//! a backend prepares a statement once more.
//!
//! Source: PostgreSQL manual, "PREPARE", notes; `RevalidateCachedQuery` in
//! `utils/cache/plancache.c`.

use crate::clock::Moment;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The shapes of all databases in use.
#[derive(Debug, Default)]
pub struct Shapes {
    numbers: Arc<AtomicU64>,
    /// By the name of the database; touched at logins only.
    all: Mutex<HashMap<Box<str>, Arc<Shape>>>,
}

/// Most databases that are kept in mind after every client has left.
const LEFT_MAX: usize = 256;

/// The shape of one database.
#[derive(Debug)]
pub struct Shape {
    numbers: Arc<AtomicU64>,
    number: AtomicU64,
    /// In nanoseconds.
    changed: AtomicU64,
    /// The catalog that was seen last.
    catalog: AtomicU32,
    /// A transaction that may have changed objects was prepared (`PREPARE TRANSACTION`): anybody
    /// may commit it, at any time.
    prepared: AtomicBool,
}

impl Shapes {
    /// That of this database; one that nobody knew has just changed.
    pub fn of(&self, database: &str, now: Moment) -> Arc<Shape> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(database) {
            return Arc::clone(known);
        }
        if all.len() >= LEFT_MAX {
            all.retain(|_, shape| Arc::strong_count(shape) > 1);
        }
        let shape = Arc::new(Shape {
            numbers: Arc::clone(&self.numbers),
            number: AtomicU64::new(self.numbers.fetch_add(1, Ordering::Relaxed)),
            changed: AtomicU64::new(now.nanos()),
            catalog: AtomicU32::new(0),
            prepared: AtomicBool::new(false),
        });
        all.insert(database.into(), Arc::clone(&shape));
        shape
    }
}

impl Shape {
    /// Objects may have changed before `now`.
    pub fn note_change(&self, now: Moment) {
        self.changed.fetch_max(now.nanos(), Ordering::Release);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.number.fetch_max(number, Ordering::Release);
    }

    /// This catalog is the present one: if it is another than the last, objects have changed. Costs
    /// a read of memory that hardly ever changes.
    pub fn note_catalog(&self, id: u32, now: impl FnOnce() -> Moment) {
        if self.catalog.load(Ordering::Relaxed) != id
            && self.catalog.swap(id, Ordering::Relaxed) != id
        {
            self.note_change(now());
        }
    }

    /// A transaction that may have changed objects is about to be prepared.
    pub fn note_prepared(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    /// Whether a prepared transaction that is committed now may change objects. It stays so: how
    /// many are left, and what is in each, is not followed.
    pub fn may_have_prepared(&self) -> bool {
        self.prepared.load(Ordering::Acquire)
    }

    /// Its number now, and when it changed last, or later: a server that has not come so far in the
    /// log yet may have another shape.
    pub fn now(&self) -> (u64, Moment) {
        let number = self.number.load(Ordering::Acquire);
        (number, Moment::from_nanos(self.changed.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    #[test]
    fn every_change_gives_another_number() {
        let shapes = Shapes::default();
        let (one, other) = (shapes.of("one", at(5)), shapes.of("other", at(6)));
        let first = one.now();
        assert_eq!(first.1, at(5));
        assert_ne!(first.0, other.now().0);
        one.note_change(at(7));
        let second = one.now();
        assert_ne!(second.0, first.0);
        assert_eq!(second.1, at(7));
        assert!(Arc::ptr_eq(&one, &shapes.of("one", at(9))));
        assert_eq!(one.now(), second);
        // A change that is told late does not make the last one older.
        one.note_change(at(6));
        assert_eq!(one.now().1, at(7));
    }

    #[test]
    fn another_catalog_is_a_change_once() {
        let shape = Shapes::default().of("one", at(5));
        shape.note_catalog(3, || at(6));
        let first = shape.now();
        shape.note_catalog(3, || at(8));
        assert_eq!(shape.now(), first);
        shape.note_catalog(4, || at(9));
        assert_ne!(shape.now().0, first.0);
        assert_eq!(shape.now().1, at(9));
    }

    /// Backends may still hold statements of a database that was forgotten.
    #[test]
    fn a_database_that_comes_back_has_a_new_number() {
        let shapes = Shapes::default();
        let before = shapes.of("one", at(5)).now().0;
        assert_eq!(before, shapes.of("one", at(6)).now().0);
        let used = shapes.of("used", at(5));
        for other in 0..LEFT_MAX {
            shapes.of(&other.to_string(), at(5));
        }
        assert_ne!(before, shapes.of("one", at(5)).now().0);
        assert!(Arc::ptr_eq(&used, &shapes.of("used", at(9))));
        assert!(shapes.all.lock().unwrap().len() <= LEFT_MAX);
    }
}
