//! What happens next, and in which order.

use super::acts::Outcome;
use super::plan::Fault;
use super::proxy::Answer;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// One thing that happens. Numbers beside a server tell whether it still belongs to its life.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Fault(Fault),
    Continue { server: usize, boot: u64 },
    Start { server: usize, boot: u64 },
    Booted { server: usize, boot: u64 },
    Heal { from: usize, to: usize },
    // -- of servers -----------------------------------------------------------------------------
    Connect { server: usize, stream: u64 },
    StreamLost { server: usize, stream: u64 },
    StreamSilent { server: usize, stream: u64 },
    Received { server: usize, stream: u64, upto: u64 },
    Confirmed { server: usize, boot: u64, by: usize, at: u64, stream: u64 },
    Replayed { server: usize, boot: u64, upto: u64 },
    Promoted { server: usize, boot: u64 },
    WriteArrives { write: u32 },
    LookArrives { server: usize, look: u64 },
    ActArrives { flight: usize },
    ActTakesEffect { flight: usize, boot: u64 },
    // -- of the proxy ---------------------------------------------------------------------------
    LookDue { server: usize, run: u64 },
    LookBack { server: usize, look: u64, answer: Box<Answer> },
    LookLate { server: usize, look: u64 },
    ConnectionLost { server: usize, run: u64 },
    ActBack { flight: usize, outcome: Outcome },
    ActLate { flight: usize },
    Stored { run: u64, fails: bool },
    StoreAnswers { run: u64, ok: bool },
    Tick { run: u64 },
    WriterDue { writer: usize, run: u64 },
    Acknowledged { write: u32, good: bool },
    Resume { run: u64 },
    Restart,
    // -- of clients that go past the proxy, and of the run --------------------------------------
    DirectDue,
    DirectAcknowledged { write: u32 },
    Quiet,
    Check,
}

/// In whose processes something happens: one that is stopped lets it wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Server(usize),
    Proxy,
    Nobody,
}

/// What is to come. At the same moment, the order is that of the asking.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Due>>,
    count: u64,
}

#[derive(Debug)]
struct Due {
    at: u64,
    count: u64,
    event: Event,
}

impl Queue {
    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.heap.push(Reverse(Due { at, count: self.count, event }));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.count).cmp(&(other.at, other.count))
    }
}
