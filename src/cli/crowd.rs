//! Clients that write and read through a proxy, and keep books on what they saw: for drills and
//! demos, where the question is what an application would have noticed.
//!
//! They run on a thread of their own, so that whatever their owner does holds up none of them.
//!
//! Invariants:
//! - A write counts as acknowledged only when its success arrived; one whose answer was an error
//!   that leaves it open, or no answer, is in doubt.
//! - A statement is never sent again: what is in doubt stays so.

use crate::backend;
use crate::backend::{Backend, Login, QueryError, Target};
use crate::clock;
use crate::clock::Moment;
use crate::pg::SqlState;
use crate::tasks;
use crate::timer;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Script {
    /// The statement of a write, by its number; its first column may tell who ran it.
    pub write: fn(u64) -> String,
    /// The statement of a read; its first column may tell who ran it.
    pub read: &'static str,
    /// How many write.
    pub writers: usize,
    /// How many read.
    pub readers: usize,
}

/// Whose proxy it is, and as whom they log in.
#[derive(Debug, Clone)]
pub struct Door {
    /// The proxy.
    pub target: Target,
    /// Its client.
    pub login: Login,
}

/// The clients. They leave when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    leave: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What was seen since the last call of [`Crowd::tally`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub writes: Side,
    /// Reads that were answered.
    pub reads: Side,
    /// Writes of which it is not known whether they were done.
    pub in_doubt: u64,
    /// Statements that failed, and did nothing.
    pub failed: u64,
    /// Connections that were lost, or could not be opened.
    pub disconnected: u64,
    /// The first errors, in words, each once.
    pub errors: Vec<String>,
}

/// One kind of statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// How many succeeded.
    pub done: u64,
    /// The longest that one of them took.
    pub longest: Duration,
    /// The first success by who answered, and when it came.
    pub first: BTreeMap<String, Moment>,
}

/// The numbers of the writes by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Acknowledged.
    pub acknowledged: Vec<u64>,
    /// In doubt.
    pub in_doubt: Vec<u64>,
}

/// Guarded as one: a tally and the ledger agree.
#[derive(Debug, Default)]
struct Books {
    tally: Tally,
    ledger: Ledger,
}

#[derive(Debug)]
struct Shared {
    books: Mutex<Books>,
    next: AtomicU64,
    script: Script,
    door: Door,
}

/// Pause of a client between two statements: an application thinks, too, and two cores are
/// shared with the servers.
const THINK: Duration = Duration::from_millis(2);
/// Pause after a connection was lost.
const RETRY: Duration = Duration::from_millis(50);
/// Longest wait for a connection, and for an answer: more than any statement is held.
const PATIENCE: Duration = Duration::from_secs(30);
/// Errors that are kept in words.
const ERRORS_MAX: usize = 5;

impl Crowd {
    /// Lets them in.
    ///
    /// # Errors
    /// If there can be no thread or no runtime.
    pub fn start(script: Script, door: Door) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let books = Mutex::default();
        let shared = Arc::new(Shared { books, next: AtomicU64::new(1), script, door });
        let leave = CancellationToken::new();
        let (inside, told) = (Arc::clone(&shared), leave.clone());
        let thread = std::thread::Builder::new().name("crowd".to_owned()).spawn(move || {
            runtime.block_on(attend(inside, told));
        })?;
        Ok(Self { shared, leave, thread: Some(thread) })
    }

    /// What was seen since the last call.
    pub fn tally(&self) -> Tally {
        self.shared.with(|books| std::mem::take(&mut books.tally))
    }

    /// What was seen so far since the last call of [`Crowd::tally`], which goes on counting.
    pub fn look<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        self.shared.with(|books| look(&books.tally))
    }

    /// Lets them finish what they are at, and closes the books.
    pub fn leave(mut self) -> (Tally, Ledger) {
        self.end();
        self.shared.with(|books| (books.tally.clone(), books.ledger.clone()))
    }

    fn end(&mut self) {
        self.leave.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there was told already.
            thread.join().unwrap_or(());
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

impl Tally {
    /// Whether every statement succeeded, on the connection that it had.
    pub const fn is_clean(&self) -> bool {
        self.in_doubt == 0 && self.failed == 0 && self.disconnected == 0
    }

    /// In a line.
    pub fn line(&self) -> String {
        let Self { writes, reads, in_doubt, failed, disconnected, .. } = self;
        let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
        format!(
            "{:>6} writes, longest {:>8}; {:>6} reads, longest {:>8}; \
             {failed} failed, {in_doubt} in doubt, {disconnected} disconnected",
            writes.done,
            ms(writes.longest),
            reads.done,
            ms(reads.longest),
        )
    }

    /// For machines.
    pub fn as_json(&self) -> serde_json::Value {
        let side = |side: &Side| {
            serde_json::json!({
                "done": side.done,
                "longest_ms": side.longest.as_secs_f64() * 1000.0,
            })
        };
        serde_json::json!({
            "writes": side(&self.writes),
            "reads": side(&self.reads),
            "failed": self.failed,
            "in_doubt": self.in_doubt,
            "disconnected": self.disconnected,
            "errors": self.errors,
        })
    }

    /// The sum of two periods.
    #[must_use]
    pub fn and(mut self, later: &Self) -> Self {
        self.writes.add(&later.writes);
        self.reads.add(&later.reads);
        self.in_doubt += later.in_doubt;
        self.failed += later.failed;
        self.disconnected += later.disconnected;
        later.errors.iter().for_each(|error| self.remember(error.clone()));
        self
    }
}

impl Side {
    fn note(&mut self, by: String, took: Duration, at: Moment) {
        self.done += 1;
        self.longest = self.longest.max(took);
        self.first.entry(by).or_insert(at);
    }

    fn add(&mut self, later: &Self) {
        self.done += later.done;
        self.longest = self.longest.max(later.longest);
        for (by, at) in &later.first {
            self.first.entry(by.clone()).or_insert(*at);
        }
    }
}

impl Ledger {
    /// Compares with what a server holds: the numbers of the writes that it has, in any order.
    #[must_use]
    pub fn judge(&self, held: &[u64]) -> Judgement {
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        for number in held {
            *times.entry(*number).or_default() += 1;
        }
        let missing = |numbers: &[u64]| {
            let missing = numbers.iter().filter(|number| !times.contains_key(number)).count();
            u64::try_from(missing).unwrap_or(u64::MAX)
        };
        let doubts = u64::try_from(self.in_doubt.len()).unwrap_or(u64::MAX);
        Judgement {
            lost: missing(&self.acknowledged),
            twice: u64::try_from(times.values().filter(|times| **times > 1).count())
                .unwrap_or(u64::MAX),
            doubts_kept: doubts.saturating_sub(missing(&self.in_doubt)),
        }
    }
}

/// What became of the writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Acknowledged, and not there.
    pub lost: u64,
    /// Done more than once.
    pub twice: u64,
    /// In doubt, and there.
    pub doubts_kept: u64,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trade {
    Writes,
    Reads,
}

async fn attend(shared: Arc<Shared>, leave: CancellationToken) {
    let writers = std::iter::repeat_n(Trade::Writes, shared.script.writers);
    let readers = std::iter::repeat_n(Trade::Reads, shared.script.readers);
    let clients: Vec<_> = writers
        .chain(readers)
        .map(|trade| {
            let client = Arc::clone(&shared).work(trade, leave.clone());
            tasks::spawn("crowd", client)
        })
        .collect();
    for client in clients {
        // One that panicked said so.
        client.await.unwrap_or(());
    }
}

impl Shared {
    /// One client, until it is told to leave.
    async fn work(self: Arc<Self>, trade: Trade, leave: CancellationToken) {
        let mut connection = None;
        while !leave.is_cancelled() {
            let open = match connection.take() {
                Some(open) => Some(open),
                None => self.arrive().await,
            };
            let pause = match open {
                Some(open) => {
                    connection = self.once(open, trade).await;
                    THINK
                }
                None => RETRY,
            };
            timer::sleep(pause).await;
        }
    }

    async fn arrive(&self) -> Option<Backend> {
        let Door { target, login } = &self.door;
        match backend::connect(target, login, PATIENCE).await {
            Ok(open) => Some(open),
            Err(error) => {
                self.with(|books| books.tally.lost(&format!("no connection: {error}")));
                None
            }
        }
    }

    /// One statement; the connection, if it can be used again.
    async fn once(&self, mut open: Backend, trade: Trade) -> Option<Backend> {
        let number = match trade {
            Trade::Writes => self.next.fetch_add(1, Ordering::Relaxed),
            Trade::Reads => 0,
        };
        let sql = match trade {
            Trade::Writes => (self.script.write)(number),
            Trade::Reads => self.script.read.to_owned(),
        };
        let began = clock::now();
        let answer = timer::timeout(PATIENCE, open.query(&sql)).await;
        let now = clock::now();
        let answer = answer
            .unwrap_or_else(|_| Err(QueryError::Broken(io::Error::from(io::ErrorKind::TimedOut))));
        match answer {
            Ok(sets) => {
                let by = sets.first().and_then(|set| set.text(0, 0)).unwrap_or("").to_owned();
                self.with(|books| match trade {
                    Trade::Writes => {
                        books.tally.writes.note(by, now.since(began), now);
                        books.ledger.acknowledged.push(number);
                    }
                    Trade::Reads => books.tally.reads.note(by, now.since(began), now),
                });
                Some(open)
            }
            Err(error) => {
                self.with(|books| books.fail(trade, number, &error));
                error.leaves_usable().then_some(open)
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Books {
    fn fail(&mut self, trade: Trade, number: u64, error: &QueryError) {
        let told_in_doubt = match error {
            QueryError::Server(error) => error.code == SqlState::RESOLUTION_UNKNOWN,
            QueryError::TooLarge | QueryError::Protocol { .. } | QueryError::Broken(_) => true,
        };
        if !error.leaves_usable() {
            self.tally.disconnected += 1;
        }
        if trade == Trade::Writes && told_in_doubt {
            self.tally.in_doubt += 1;
            self.ledger.in_doubt.push(number);
        } else {
            self.tally.failed += 1;
        }
        self.tally.remember(error.to_string());
    }
}

impl Tally {
    fn lost(&mut self, what: &str) {
        self.disconnected += 1;
        self.remember(what.to_owned());
    }

    fn remember(&mut self, error: String) {
        if self.errors.len() < ERRORS_MAX && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_finds_what_was_lost_and_what_was_done_twice() {
        let ledger = Ledger { acknowledged: vec![1, 2, 4], in_doubt: vec![3, 5] };

        let well = ledger.judge(&[4, 1, 2, 3]);
        assert_eq!(well, Judgement { lost: 0, twice: 0, doubts_kept: 1 });
        let badly = ledger.judge(&[1, 4, 4]);
        assert_eq!(badly, Judgement { lost: 1, twice: 1, doubts_kept: 0 });
    }

    #[test]
    fn periods_add_up_and_the_first_success_stays_the_first() {
        let at = Moment::from_nanos;
        let period = |by: &str, when, longest| {
            let mut tally = Tally::default();
            tally.writes.note(by.to_owned(), Duration::from_millis(longest), at(when));
            tally
        };
        let sum = period("a", 1, 5).and(&period("b", 2, 9)).and(&period("a", 3, 2));

        assert_eq!((sum.writes.done, sum.writes.longest), (3, Duration::from_millis(9)));
        assert_eq!(sum.writes.first.get("a"), Some(&at(1)));
        assert_eq!(sum.writes.first.get("b"), Some(&at(2)));
    }
}
