//! What every statement counts: numbers that are added to without a locked instruction.
//!
//! Each shard has a row of cells that nobody else writes, so an addition is a load and a store; a
//! counter is one place in every row, and its value is their sum. Whoever has no row of his own
//! shares the first one, with atomic additions.
//!
//! Invariant: a thread's row is its own for good: its number is drawn from one counter for the
//! whole process.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Rows; threads beyond share the first one.
const ROWS: usize = 65;
/// The row of all threads that have claimed none.
const SHARED: usize = 0;

static NEXT: AtomicUsize = AtomicUsize::new(SHARED + 1);

thread_local! {
    static ROW: Cell<usize> = const { Cell::new(SHARED) };
}

/// This thread writes to a row of its own from now on.
pub fn claim_row() {
    let row = NEXT.fetch_add(1, Ordering::Relaxed);
    ROW.set(if row < ROWS { row } else { SHARED });
}

/// All cells. A row is made when it is first written, with as many places as are given out then:
/// all are given out before.
#[derive(Debug)]
pub(super) struct Rows {
    rows: Box<[OnceLock<Box<[AtomicU64]>>]>,
    places: AtomicU32,
}

/// Where a counter is in each row.
#[derive(Debug, Clone, Copy)]
struct Place(u32);

/// Who else writes to a cell.
#[derive(Debug, Clone, Copy)]
enum Writers {
    OneThread,
    Any,
}

impl Rows {
    pub(super) fn new() -> Arc<Self> {
        let rows = (0..ROWS).map(|_| OnceLock::new()).collect();
        Arc::new(Self { rows, places: AtomicU32::new(0) })
    }

    /// So many places, one behind the other.
    fn give_out(&self, places: u32) -> Place {
        Place(self.places.fetch_add(places, Ordering::Relaxed))
    }

    fn add(&self, place: Place, by: u64) {
        let (cells, writers) = self.mine();
        writers.add(cells.get(place.index()), by);
    }

    fn mine(&self) -> (&[AtomicU64], Writers) {
        let row = ROW.get();
        let writers = if row == SHARED { Writers::Any } else { Writers::OneThread };
        let Some(cells) = self.rows.get(row) else { return (&[], writers) };
        (cells.get_or_init(|| self.blank()), writers)
    }

    #[cold]
    fn blank(&self) -> Box<[AtomicU64]> {
        (0..self.places.load(Ordering::Relaxed)).map(|_| AtomicU64::new(0)).collect()
    }

    fn sum(&self, place: Place) -> u64 {
        let rows = self.rows.iter().filter_map(|row| row.get()?.get(place.index()));
        rows.fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

impl Place {
    const fn behind(self, places: u32) -> Self {
        Self(self.0.saturating_add(places))
    }

    #[expect(clippy::as_conversions, reason = "no machine that this runs on has a smaller usize")]
    const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Writers {
    fn add(self, cell: Option<&AtomicU64>, by: u64) {
        let Some(cell) = cell else { return };
        match self {
            Self::OneThread => {
                let sum = cell.load(Ordering::Relaxed).wrapping_add(by);
                cell.store(sum, Ordering::Relaxed);
            }
            Self::Any => {
                cell.fetch_add(by, Ordering::Relaxed);
            }
        }
    }
}

/// A number that only rises.
#[derive(Debug, Clone)]
pub struct Tally {
    rows: Arc<Rows>,
    place: Place,
}

impl Tally {
    /// The first of so many that lie one behind the other.
    pub(super) fn first_of(rows: &Arc<Rows>, count: u32) -> Self {
        Self { rows: Arc::clone(rows), place: rows.give_out(count) }
    }

    /// The one that lies so many behind this.
    pub(super) fn behind(&self, count: u32) -> Self {
        Self { rows: Arc::clone(&self.rows), place: self.place.behind(count) }
    }

    /// Counts one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Counts so many.
    pub fn inc_by(&self, count: u64) {
        self.rows.add(self.place, count);
    }

    /// Counts so many in one that lies behind this.
    pub(super) fn inc_behind(&self, behind: u32, count: u64) {
        self.rows.add(self.place.behind(behind), count);
    }

    /// How many were counted.
    pub fn get(&self) -> u64 {
        self.rows.sum(self.place)
    }
}

/// A number that rises and falls. What rose in one row may fall in another.
#[derive(Debug, Clone)]
pub struct Level(Tally);

impl Level {
    /// The first of so many that lie one behind the other.
    pub(super) fn first_of(rows: &Arc<Rows>, count: u32) -> Self {
        Self(Tally::first_of(rows, count))
    }

    /// The one that lies so many behind this.
    pub(super) fn behind(&self, count: u32) -> Self {
        Self(self.0.behind(count))
    }

    /// Higher by so much, or lower, in one that lies behind this.
    pub(super) fn add_behind(&self, behind: u32, by: i64) {
        self.0.inc_behind(behind, by.cast_unsigned());
    }

    /// How high it is.
    pub fn get(&self) -> i64 {
        self.0.get().cast_signed()
    }
}

/// A distribution of times.
#[derive(Debug, Clone)]
pub struct Times {
    rows: Arc<Rows>,
    /// Where the bucket of the first bound is; behind the last one lie those above all bounds,
    /// and the sum in nanoseconds.
    first: Place,
    /// Upper bounds, in nanoseconds.
    bounds: Arc<[u64]>,
    /// How many there are.
    buckets: u32,
}

impl Times {
    /// The first of so many that lie one behind the other; `bounds` are in seconds.
    pub(super) fn first_of(rows: &Arc<Rows>, bounds: &[f64], count: u32) -> Self {
        let bounds: Arc<[u64]> =
            bounds.iter().map(|bound| nanos(Duration::from_secs_f64(*bound))).collect();
        let buckets = u32::try_from(bounds.len()).unwrap_or(u32::MAX);
        let first = rows.give_out((buckets + 2) * count);
        Self { rows: Arc::clone(rows), first, bounds, buckets }
    }

    /// The one that lies so many behind this.
    pub(super) fn behind(&self, count: u32) -> Self {
        Self { first: self.first.behind(count * (self.buckets + 2)), ..self.clone() }
    }

    /// Notes one in that which lies so many behind this.
    pub(super) fn observe_behind(&self, behind: u32, time: Duration) {
        let time = nanos(time);
        let first = self.first.behind(behind * (self.buckets + 2)).index();
        let over = self.bounds.iter().take_while(|bound| time > **bound).count();
        let (cells, writers) = self.rows.mine();
        writers.add(cells.get(first + over), 1);
        writers.add(cells.get(first + self.bounds.len() + 1), time);
    }

    /// How many took up to each bound, in seconds, and in the end how many there are.
    pub(super) fn cumulated(&self) -> (Vec<(f64, u64)>, u64) {
        let mut count = 0;
        let each = self.bounds.iter().zip(0..).map(|(bound, at)| {
            count += self.rows.sum(self.first.behind(at));
            (Duration::from_nanos(*bound).as_secs_f64(), count)
        });
        let each = each.collect();
        (each, count + self.rows.sum(self.first.behind(self.buckets)))
    }

    /// All of them together.
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.rows.sum(self.first.behind(self.buckets + 1)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_counts_and_nothing_is_lost() {
        let rows = Rows::new();
        let (tally, level) = (Tally::first_of(&rows, 1), Level::first_of(&rows, 1));
        level.add_behind(0, 1);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (tally, level) = (tally.clone(), level.clone());
                scope.spawn(move || {
                    if thread % 2 == 0 {
                        claim_row();
                    }
                    for _ in 0..10_000 {
                        tally.inc_by(2);
                        level.add_behind(0, -1);
                    }
                });
            }
        });
        assert_eq!(tally.get(), 80_000);
        assert_eq!(level.get(), -39_999);
    }

    #[test]
    fn a_time_is_counted_from_its_bound_on() {
        let rows = Rows::new();
        let (other, times) =
            (Tally::first_of(&rows, 1), Times::first_of(&rows, &[0.001, 0.002_5], 2));
        let next = Tally::first_of(&rows, 1);
        for micros in [1, 1_000, 1_001, 2_500, 2_501, 90_000_000] {
            times.observe_behind(0, Duration::from_micros(micros));
        }
        times.observe_behind(1, Duration::from_millis(2));
        assert_eq!(times.cumulated(), (vec![(0.001, 2), (0.002_5, 4)], 6));
        assert_eq!(times.sum(), Duration::from_micros(90_007_003));
        assert_eq!(times.behind(1).cumulated(), (vec![(0.001, 0), (0.002_5, 1)], 1));
        assert_eq!(times.behind(1).sum(), Duration::from_millis(2));
        assert_eq!((other.get(), next.get()), (0, 0));
    }
}
