//! What a shard's thread runs on: its tasks, and the sockets that wake them.
//!
//! A pooler does little else than being woken, reading, writing and waiting again, so what that
//! costs is a good part of what it costs at all. This is the least that it takes: one event queue
//! of the kernel's, a table of the sockets in it, and a table of tasks. A socket knows the task
//! that waits for it by its number; between an event and its task lies nothing that another thread
//! may touch, and so no locked instruction (decision 0030).
//!
//! Timers, names of hosts and everything that is not a shard's stay with the runtime of the control
//! plane: its timers and channels wake tasks of a shard like any other's.
//!
//! Invariants:
//! - Who was told to wait is woken by what it waits for, also if that came before it waited.
//! - A task runs on the thread that it was spawned on, and nowhere else; so does a socket.
//! - A task that panics ends, and no other.
//! - Who always finds something to read gives way, and whoever is ready has its turn before anybody
//!   has a second one.
//! - The thread sleeps in the kernel when nobody is ready.
//! - What was written is sent before that, and before its socket is closed or leaves the thread.

mod executor;
mod mailbox;
mod outbox;
mod poller;
mod registered;

pub use outbox::Late;
pub use registered::Registered;

use executor::Executor;
use mailbox::Mailbox;
use outbox::Outbox;
use poller::{Heard, Poller};
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

thread_local! {
    /// Nothing is left in it when [`run`] is over, so that it needs no end: a value that has one
    /// is asked each time whether it had it.
    static HERE: ManuallyDrop<Reactor> = const {
        ManuallyDrop::new(Reactor {
            executor: Executor::new(),
            poller: Poller::new(),
            outbox: Outbox::new(),
        })
    };
}

/// One thread's.
struct Reactor {
    executor: Executor,
    poller: Poller,
    outbox: Outbox,
}

/// Runs this, and every task that is spawned meanwhile, until this is over; the tasks are dropped
/// then.
///
/// # Errors
/// What the system says when it has no event queue for us; or this thread is in here already.
pub fn run<F: Future>(root: F) -> io::Result<F::Output> {
    HERE.with(|here| here.run(root))
}

/// Starts a task on this thread, which must be in [`run`]: anywhere else, and when that is over,
/// the task is dropped. One that panics says so by its name.
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + 'static) {
    HERE.with(|here| here.executor.spawn(name, Box::pin(future)));
}

/// Ready as long as the task that runs may go on in this turn, which is counted; else it will have
/// another one. For who is served by something else than a socket. Without a shard always ready.
pub fn poll_turn(context: &Context<'_>) -> Poll<()> {
    HERE.with(|here| {
        if !here.poller.is_open() {
            return Poll::Ready(());
        }
        if !here.executor.may_read() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        here.executor.count_read();
        Poll::Ready(())
    })
}

/// Calls this as if the task that runs had only begun its turn: for a look that must not come to
/// nothing because the task has read enough.
pub fn afresh<T>(look: impl FnOnce() -> T) -> T {
    HERE.with(|here| here.executor.afresh(look))
}

/// Sends what tasks of this thread have written and what was held back for others to join it: for
/// who is about to compute for long.
pub fn send_now() {
    HERE.with(|here| here.outbox.send(&here.poller));
}

/// Asks this, until [`run`] is over, what becomes of what was written to servers half a second ago
/// or longer and is not sent yet. Without it all is sent.
pub fn judge_late(judge: impl Fn() -> Late + 'static) {
    HERE.with(|here| here.outbox.judge_by(judge));
}

/// Whether this thread is in [`run`].
pub fn is_here() -> bool {
    HERE.with(|here| here.poller.is_open())
}

impl Reactor {
    fn run<F: Future>(&self, root: F) -> io::Result<F::Output> {
        let bell = self.poller.open()?;
        let mailbox = Arc::new(Mailbox::new(bell));
        // Declared before the root, which is dropped while its sockets still have their places.
        let _closing = Closing(self);
        self.executor.open(Arc::clone(&mailbox));
        let mut root = pin!(root);
        let waker = self.executor.waker_of_root();
        loop {
            if let Some(output) = self.executor.turn(root.as_mut(), &waker) {
                return Ok(output);
            }
            self.outbox.send(&self.poller);
            let patience = self.executor.has_ready().then_some(Duration::ZERO);
            match self.poller.wait(patience, &self.executor)? {
                Heard::Sockets => (),
                Heard::Bell => mailbox.empty(&self.executor),
            }
        }
    }
}

const _: () = assert!(usize::BITS == 64, "an event has room for two numbers of 32 bits");

/// A number as an index; there is always room.
fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Ends what was begun, however it came to its end.
struct Closing<'r>(&'r Reactor);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.outbox.send(&self.0.poller);
        self.0.executor.close();
        self.0.outbox.close();
        self.0.poller.close();
    }
}

#[cfg(test)]
mod tests;
