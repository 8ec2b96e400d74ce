//! The tasks of one thread, and whose turn it is.

use super::mailbox::Mailbox;
use super::wide;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// One task. The number is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    index: u32,
    number: u32,
}

impl TaskId {
    fn at(self) -> usize {
        wide(self.index)
    }
}

/// What is run as long as the reactor is.
const ROOT: TaskId = TaskId { index: u32::MAX, number: 0 };
/// Most turns between two looks at the sockets.
const TURNS: usize = 64;
/// Reads that find something, in one turn of a task.
const READS: u32 = 64;

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    number: u32,
    turn: Turn,
    name: &'static str,
    /// Not here while it runs.
    body: Option<(Waker, Work)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It waits to be woken.
    Waits,
    /// It is in the queue.
    Queued,
}

/// Who runs now.
#[derive(Clone, Copy)]
struct Running {
    task: TaskId,
    /// What tells its own waker from those of futures inside of it that make their own.
    waker: *const (),
}

/// The tasks of one thread.
pub(super) struct Executor {
    tasks: RefCell<Slab<Task>>,
    ready: RefCell<VecDeque<TaskId>>,
    root: Cell<Turn>,
    running: Cell<Option<Running>>,
    /// What is left of [`READS`].
    reads: Cell<u32>,
    numbers: Cell<u32>,
    mailbox: RefCell<Option<Arc<Mailbox>>>,
    /// The same, or null.
    home: Cell<*const Mailbox>,
}

impl Executor {
    pub(super) const fn new() -> Self {
        Self {
            tasks: RefCell::new(Slab::new()),
            ready: RefCell::new(VecDeque::new()),
            root: Cell::new(Turn::Waits),
            running: Cell::new(None),
            reads: Cell::new(READS),
            numbers: Cell::new(0),
            mailbox: RefCell::new(None),
            home: Cell::new(ptr::null()),
        }
    }

    /// Tasks can be spawned from now on; who wakes them from elsewhere does so through this.
    pub(super) fn open(&self, mailbox: Arc<Mailbox>) {
        self.home.set(Arc::as_ptr(&mailbox));
        self.mailbox.replace(Some(mailbox));
        self.root.set(Turn::Queued);
    }

    /// Drops all tasks.
    pub(super) fn close(&self) {
        // One that is dropped may wake others, but start none.
        let mailbox = self.mailbox.take();
        self.home.set(ptr::null());
        for (_, task) in self.tasks.take() {
            quietly(|| drop(task));
        }
        self.ready.take();
        // Who wakes a task holds its mailbox, and so must not stay in there.
        if let Some(mailbox) = mailbox {
            mailbox.close();
        }
    }

    pub(super) fn waker_of_root(&self) -> Waker {
        let mailbox = self.mailbox.borrow();
        mailbox.as_ref().map_or_else(|| Waker::noop().clone(), |mailbox| mailbox.waker(ROOT))
    }

    /// Whether those whose waker has this mailbox are our tasks.
    pub(super) fn reads(&self, mailbox: &Arc<Mailbox>) -> bool {
        ptr::eq(self.home.get(), Arc::as_ptr(mailbox))
    }

    pub(super) fn spawn(&self, name: &'static str, work: Work) {
        let mailbox = self.mailbox.borrow();
        let Some(mailbox) = &*mailbox else {
            tracing::debug!(task = name, "started where no shard is, or no more");
            return;
        };
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        // As many tasks as that have no room in memory.
        let index = u32::try_from(entry.key()).unwrap_or(u32::MAX - 1);
        let task = TaskId { index, number };
        let body = Some((mailbox.waker(task), work));
        entry.insert(Task { number, turn: Turn::Queued, name, body });
        self.ready.borrow_mut().push_back(task);
    }

    /// It will have a turn. Does nothing if it is over, or will have one anyway.
    pub(super) fn make_ready(&self, id: TaskId) {
        if id == ROOT {
            self.root.set(Turn::Queued);
            return;
        }
        let mut tasks = self.tasks.borrow_mut();
        if let Some(task) = tasks.get_mut(id.at())
            && task.number == id.number
            && task.turn == Turn::Waits
        {
            task.turn = Turn::Queued;
            self.ready.borrow_mut().push_back(id);
        }
    }

    /// Whether somebody waits for nothing but its turn.
    pub(super) fn has_ready(&self) -> bool {
        self.root.get() == Turn::Queued || !self.ready.borrow().is_empty()
    }

    /// The task that runs, if it is its own waker that is asked about.
    pub(super) fn whose(&self, waker: &Waker) -> Option<TaskId> {
        let running = self.running.get().filter(|running| running.waker == waker.data())?;
        Some(running.task)
    }

    /// Whether the task that runs may read on in this turn.
    pub(super) const fn may_read(&self) -> bool {
        self.reads.get() > 0
    }

    /// Calls this with all that a turn may have.
    pub(super) fn afresh<T>(&self, look: impl FnOnce() -> T) -> T {
        let left = self.reads.replace(READS);
        let seen = look();
        self.reads.set(left);
        seen
    }

    /// It has read something.
    pub(super) fn count_read(&self) {
        self.reads.set(self.reads.get().saturating_sub(1));
    }

    /// Lets everybody have a turn who is ready, and those that they make ready, up to a limit.
    /// Returns what the root came to.
    pub(super) fn turn<F: Future>(&self, root: Pin<&mut F>, waker: &Waker) -> Option<F::Output> {
        if self.root.replace(Turn::Waits) == Turn::Queued {
            self.enter(ROOT, waker);
            let polled = root.poll(&mut Context::from_waker(waker));
            self.running.set(None);
            if let Poll::Ready(output) = polled {
                return Some(output);
            }
        }
        for _ in 0..TURNS {
            let next = self.ready.borrow_mut().pop_front();
            let Some(task) = next else { break };
            self.run(task);
        }
        None
    }

    fn enter(&self, task: TaskId, waker: &Waker) {
        self.running.set(Some(Running { task, waker: waker.data() }));
        self.reads.set(READS);
    }

    fn run(&self, id: TaskId) {
        let Some((waker, mut work)) = self.take(id) else { return };
        self.enter(id, &waker);
        let mut context = Context::from_waker(&waker);
        // Nobody sees what a panic has left half done: it is dropped.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context)));
        self.running.set(None);
        match polled {
            Ok(Poll::Pending) => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(id.at()) {
                    task.body = Some((waker, work));
                }
            }
            Ok(Poll::Ready(())) => self.end(id, work),
            Err(_) => {
                let name = self.tasks.borrow().get(id.at()).map(|task| task.name);
                tracing::error!(task = name, "task ended by a panic; this is a defect");
                self.end(id, work);
            }
        }
    }

    fn end(&self, id: TaskId, work: Work) {
        self.tasks.borrow_mut().try_remove(id.at());
        quietly(|| drop(work));
    }

    fn take(&self, id: TaskId) -> Option<(Waker, Work)> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(id.at()).filter(|task| task.number == id.number)?;
        task.turn = Turn::Waits;
        task.body.take()
    }
}

/// A panic here is told by the hook, and has no further consequence.
fn quietly(what: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(what)));
}
