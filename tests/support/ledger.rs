//! What writers were told, kept outside pgsteer: the judge of every promise about lost writes.
//!
//! Each writer numbers its statements and never writes a number twice, so that a row that is
//! there twice was executed twice. What a statement was answered decides what must be true of its
//! row afterwards: acknowledged, it is there once; told 40001 or 57P03, it is not; in doubt
//! (08007), it is there once or not at all.

use crate::support::Ended;
use crate::support::Reply;
use crate::support::Wire;
use crate::support::await_that;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// What the writers write to.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS ledger (writer int, number bigint)";

/// The writer and the number of a row.
pub type Entry = (usize, u64);

/// What a writer does when its connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It leaves.
    Leaves,
    /// It connects again, as often as that takes, and goes on.
    Returns,
}

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);

/// Writers at work.
#[derive(Debug)]
pub struct Ledger {
    writers: Vec<JoinHandle<Book>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    in_flight: AtomicUsize,
}

/// What the writers were told.
#[derive(Debug, Default)]
pub struct Book {
    pub acknowledged: BTreeSet<Entry>,
    /// Told 08007: it may or may not have happened.
    pub in_doubt: BTreeSet<Entry>,
    /// Told anything else: it has not happened.
    pub refused: BTreeMap<Entry, String>,
    /// Connections that ended.
    pub disconnected: usize,
    /// The longest time from a statement to its acknowledgement.
    pub longest: Duration,
}

/// What the table says of it.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Acknowledged, and not there.
    pub lost: BTreeSet<Entry>,
    /// There more than once.
    pub twice: BTreeSet<Entry>,
    /// Said not to have happened, and there.
    pub undead: BTreeSet<Entry>,
}

impl Ledger {
    /// Lets so many writers write through this address, each on one connection of its own.
    pub fn open(address: SocketAddr, writers: usize) -> Self {
        Self::open_with(address, writers, Cut::Leaves)
    }

    /// The same, and what they do when they are cut off.
    pub fn open_with(address: SocketAddr, writers: usize, cut: Cut) -> Self {
        let shared = Arc::new(Shared::default());
        let write = |writer| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || Book::keep((writer, cut), address, &shared))
        };
        Self { writers: (0..writers).map(write).collect(), shared }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// How many commits are sent and not answered now.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// Waits for so many more acknowledgements.
    pub fn await_more(&self, more: usize) {
        let goal = self.acknowledged() + more;
        await_that("writes are acknowledged", || self.acknowledged() >= goal);
    }

    /// Lets each writer finish its statement, and closes the books.
    pub fn close(self) -> Book {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut all = Book::default();
        for writer in self.writers {
            let book = writer.join().unwrap();
            all.acknowledged.extend(book.acknowledged);
            all.in_doubt.extend(book.in_doubt);
            all.refused.extend(book.refused);
            all.disconnected += book.disconnected;
            all.longest = all.longest.max(book.longest);
        }
        all
    }
}

impl Book {
    fn keep((writer, cut): (usize, Cut), address: SocketAddr, shared: &Shared) -> Self {
        let mut book = Self::default();
        let mut wire = Wire::log_in(address, "postgres").unwrap_or_else(|why| panic!("{why:?}"));
        for number in 0.. {
            if shared.stop.load(Ordering::SeqCst) {
                return book;
            }
            let began = pgsteer::clock::now();
            let reply = write(&mut wire, (writer, number), shared);
            let entry = (writer, number);
            if reply.ended == Ended::Closed {
                book.disconnected += 1;
                book.in_doubt.insert(entry);
                let next = if cut == Cut::Returns { again(address, shared) } else { None };
                let Some(next) = next else { return book };
                wire = next;
                continue;
            }
            match reply.code() {
                "" => {
                    book.acknowledged.insert(entry);
                    book.longest = book.longest.max(pgsteer::clock::now().since(began));
                    shared.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                "08007" => drop(book.in_doubt.insert(entry)),
                code => drop(book.refused.insert(entry, code.to_owned())),
            }
            if reply.ended != Ended::Ready('I') {
                wire.query("ROLLBACK");
            }
        }
        book
    }

    /// Compares with the rows of the table: `SELECT writer, number FROM ledger`.
    pub fn judge(&self, rows: &[Vec<Option<String>>]) -> Verdict {
        let mut times: BTreeMap<Entry, usize> = BTreeMap::new();
        for row in rows {
            let number = |at: usize| row[at].as_deref().unwrap().parse::<u64>().unwrap();
            let writer = usize::try_from(number(0)).unwrap();
            *times.entry((writer, number(1))).or_default() += 1;
        }
        let there = |entry: &Entry| times.contains_key(entry);
        Verdict {
            lost: self.acknowledged.iter().filter(|entry| !there(entry)).copied().collect(),
            twice: times.iter().filter(|(_, times)| **times > 1).map(|(entry, _)| *entry).collect(),
            undead: self.refused.keys().filter(|entry| there(entry)).copied().collect(),
        }
    }
}

/// A new connection; `None` if the books are closed before there is one.
fn again(address: SocketAddr, shared: &Shared) -> Option<Wire> {
    while !shared.stop.load(Ordering::SeqCst) {
        let user = [("user", "postgres"), ("database", "postgres")];
        if let Ok(wire) = Wire::connect(address)
            && let Ok(wire) = wire.start(&user)
        {
            return Some(wire);
        }
        std::thread::sleep(RETRY);
    }
    None
}

/// One write, by each of the ways in turn in which a client may ask for it. What commits it is
/// counted while it is in flight.
fn write(wire: &mut Wire, (writer, number): Entry, shared: &Shared) -> Reply {
    let insert = format!("INSERT INTO ledger VALUES ({writer}, {number})");
    let commit = |wire: &mut Wire, ask: fn(&mut Wire, &str) -> Reply, sql: &str| {
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
        let reply = ask(wire, sql);
        shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        reply
    };
    match number % 4 {
        0 => commit(wire, Wire::query, &insert),
        1 => commit(wire, Wire::extended, &insert),
        2 => commit(wire, Wire::query, &format!("BEGIN; {insert}; COMMIT")),
        _ => {
            for sql in ["BEGIN", &insert] {
                let reply = wire.query(sql);
                if !reply.is_good() {
                    return reply;
                }
            }
            commit(wire, Wire::query, "COMMIT")
        }
    }
}

/// What it is to find is found: a row for each accident.
#[test]
fn the_judge_finds_each_accident() {
    let entries = |numbers: &[u64]| numbers.iter().map(|number| (7, *number)).collect();
    let book = Book {
        acknowledged: entries(&[1, 2, 3]),
        in_doubt: entries(&[4, 5]),
        refused: [6, 8].map(|number| ((7, number), "57P03".to_owned())).into(),
        ..Book::default()
    };
    let judged = |numbers: &[u64]| -> [Vec<u64>; 3] {
        let row = |number: &u64| [7, *number].map(|value| Some(value.to_string())).to_vec();
        let Verdict { lost, twice, undead } =
            book.judge(&numbers.iter().map(row).collect::<Vec<_>>());
        let numbers = |found: &BTreeSet<Entry>| found.iter().map(|entry| entry.1).collect();
        [&lost, &twice, &undead].map(numbers)
    };
    let none: [Vec<u64>; 3] = [vec![], vec![], vec![]];
    assert_eq!(judged(&[1, 2, 3, 4]), none);
    assert_eq!(judged(&[1, 3, 4]), [vec![2], vec![], vec![]]);
    assert_eq!(judged(&[1, 2, 2, 3, 5, 5]), [vec![], vec![2, 5], vec![]]);
    assert_eq!(judged(&[1, 2, 3, 8]), [vec![], vec![], vec![8]]);
}
