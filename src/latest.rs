//! What one thread sees of a value that another one replaces: the newest, without a locked
//! instruction while it stays the same.

use arc_swap::{ArcSwap, Cache};
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// A view of a cell; each shard has its own.
pub struct Latest<T> {
    cache: RefCell<Cache<Arc<ArcSwap<T>>, Arc<T>>>,
    /// The same value, counted by this thread alone.
    lent: RefCell<Lent<T>>,
}

/// A value that was the newest when it was asked for.
#[expect(clippy::redundant_allocation, reason = "one count for this thread, one for all")]
#[derive(Debug)]
pub struct Lent<T>(Rc<Arc<T>>);

impl<T> Lent<T> {
    fn new(value: Arc<T>) -> Self {
        Self(Rc::new(value))
    }
}

impl<T> Clone for Lent<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Latest<T> {
    /// A view of this cell.
    pub fn new(cell: Arc<ArcSwap<T>>) -> Self {
        let lent = RefCell::new(Lent::new(cell.load_full()));
        Self { cache: RefCell::new(Cache::new(cell)), lent }
    }

    /// The newest value, to be kept for a while.
    pub fn get(&self) -> Lent<T> {
        let mut cache = self.cache.borrow_mut();
        let newest = cache.load();
        let mut lent = self.lent.borrow_mut();
        if !Arc::ptr_eq(newest, &lent.0) {
            match Rc::get_mut(&mut lent.0) {
                Some(unused) => *unused = Arc::clone(newest),
                None => *lent = Lent::new(Arc::clone(newest)),
            }
        }
        lent.clone()
    }

    /// A look at the newest value.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(self.cache.borrow_mut().load())
    }
}

impl<T> fmt::Debug for Latest<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Latest").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_seen_and_what_was_lent_stays() {
        let cell = Arc::new(ArcSwap::from_pointee(1));
        let latest = Latest::new(Arc::clone(&cell));
        let first = latest.get();
        cell.store(Arc::new(2));
        assert_eq!((*first, *latest.get(), latest.look(|value| *value)), (1, 2, 2));
        assert!(Rc::ptr_eq(&latest.get().0, &latest.get().0));
    }
}
