//! The cells of a metric with labels: one for each of their values, found by counting.
//!
//! They lie one behind the other in every row, so a statement finds its cell from the metric's
//! first place and the number of the key. A table of children in between would be a line of the
//! cache for every metric that a statement touches.
//!
//! Invariant: a key that is not among those that the metric was made for counts nothing; it never
//! reaches the cell of another metric.

use crate::metrics::cells::{Level, Tally, Times};
use crate::metrics::label::Label;
use crate::topology::ServerId;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The values of all labels of a metric.
pub trait Key: Copy {
    /// Its place in [`Key::values`].
    fn number(self) -> usize;

    /// The values of each key, when these are the servers.
    fn values(servers: &[Arc<str>]) -> Vec<Vec<&str>>;
}

impl<L: Label> Key for L {
    fn number(self) -> usize {
        self.index()
    }

    fn values(_: &[Arc<str>]) -> Vec<Vec<&str>> {
        L::ALL.iter().map(|label| vec![label.text()]).collect()
    }
}

impl Key for ServerId {
    fn number(self) -> usize {
        self.index()
    }

    fn values(servers: &[Arc<str>]) -> Vec<Vec<&str>> {
        servers.iter().map(|name| vec![&**name]).collect()
    }
}

impl<K: Key, L: Label> Key for (K, L) {
    fn number(self) -> usize {
        self.0.number() * L::ALL.len() + self.1.index()
    }

    fn values(servers: &[Arc<str>]) -> Vec<Vec<&str>> {
        let firsts = K::values(servers).into_iter();
        let pairs = firsts
            .flat_map(|first| L::ALL.iter().map(move |label| [&*first, &[label.text()]].concat()));
        pairs.collect()
    }
}

/// One `M` for each key.
#[derive(Debug, Clone)]
pub struct Each<K, M> {
    /// That of the first key; those of the others follow.
    first: M,
    count: u32,
    key: PhantomData<fn(K)>,
}

impl<K: Key, M> Each<K, M> {
    /// `first` is the first of so many.
    pub(super) const fn new(first: M, count: u32) -> Self {
        Self { first, count, key: PhantomData }
    }

    /// How many cells behind the first one the key's is.
    fn behind(&self, key: K) -> Option<u32> {
        u32::try_from(key.number()).ok().filter(|number| *number < self.count)
    }
}

impl<K: Key> Each<K, Tally> {
    /// Counts one.
    pub fn inc(&self, key: K) {
        self.inc_by(key, 1);
    }

    /// Counts so many.
    pub fn inc_by(&self, key: K, count: u64) {
        if let Some(behind) = self.behind(key) {
            self.first.inc_behind(behind, count);
        }
    }

    /// How many were counted.
    pub fn get(&self, key: K) -> u64 {
        self.behind(key).map_or(0, |behind| self.first.behind(behind).get())
    }
}

impl<K: Key> Each<K, Level> {
    /// Higher by so much, or lower.
    pub fn add(&self, key: K, by: i64) {
        if let Some(behind) = self.behind(key) {
            self.first.add_behind(behind, by);
        }
    }

    /// How high it is.
    pub fn get(&self, key: K) -> i64 {
        self.behind(key).map_or(0, |behind| self.first.behind(behind).get())
    }
}

impl<K: Key> Each<K, Times> {
    /// Notes a time.
    pub fn observe(&self, key: K, time: Duration) {
        if let Some(behind) = self.behind(key) {
            self.first.observe_behind(behind, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::cells::Rows;
    use crate::metrics::label::{ClientState, QueryKind};

    #[test]
    fn a_keys_number_is_its_place_among_the_values() {
        let servers = [Arc::from("db1"), Arc::from("db2")];
        let values = <(ServerId, QueryKind)>::values(&servers);
        for server in [ServerId(0), ServerId(1)] {
            for kind in QueryKind::ALL {
                let expected = [&*servers[server.index()], kind.text()];
                assert_eq!(values[(server, *kind).number()], expected);
            }
        }
        assert_eq!(values.len(), 2 * QueryKind::ALL.len());
        let pairs = <(QueryKind, ClientState)>::values(&servers);
        let last = (QueryKind::ALL[QueryKind::ALL.len() - 1], ClientState::InTransaction);
        assert_eq!(pairs[last.number()], [last.0.text(), last.1.text()]);
    }

    /// A server of another configuration would otherwise count for whoever comes behind.
    #[test]
    fn a_key_of_elsewhere_reaches_nobodys_cell() {
        let rows = Rows::new();
        let count = u32::try_from(2 * QueryKind::ALL.len()).unwrap();
        let each: Each<(ServerId, QueryKind), _> = Each::new(Tally::first_of(&rows, count), count);
        let next = Tally::first_of(&rows, 1);
        let kind = QueryKind::ALL[0];
        each.inc((ServerId(1), kind));
        each.inc((ServerId(2), kind));
        let counted = [0, 1, 2].map(|server| each.get((ServerId(server), kind)));
        assert_eq!((counted, next.get()), ([0, 1, 0], 0));
    }
}
