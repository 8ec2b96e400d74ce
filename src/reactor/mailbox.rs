//! How other threads wake a task.

use super::HERE;
use super::executor::{Executor, TaskId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Who was woken by others since the thread last looked.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// `None`: the tasks are gone.
    woken: Mutex<Option<Vec<Arc<Alarm>>>>,
    /// Wakes the thread itself.
    bell: mio::Waker,
}

/// Wakes one task, from wherever.
#[derive(Debug)]
pub(super) struct Alarm {
    task: TaskId,
    mailbox: Arc<Mailbox>,
    /// It is in the mailbox already.
    posted: AtomicBool,
}

impl Mailbox {
    pub(super) const fn new(bell: mio::Waker) -> Self {
        Self { woken: Mutex::new(Some(Vec::new())), bell }
    }

    /// What wakes this task.
    pub(super) fn waker(self: &Arc<Self>, task: TaskId) -> Waker {
        let mailbox = Arc::clone(self);
        Waker::from(Arc::new(Alarm { task, mailbox, posted: AtomicBool::new(false) }))
    }

    /// Makes all of them ready.
    pub(super) fn empty(&self, executor: &Executor) {
        let woken = self.lock().as_mut().map(std::mem::take);
        for alarm in woken.into_iter().flatten() {
            // Before it is made ready: who wakes it from here on does so once more. It pairs with
            // the one in `post`, so that its task sees what was done before it was woken.
            alarm.posted.swap(false, Ordering::AcqRel);
            executor.make_ready(alarm.task);
        }
    }

    fn post(&self, alarm: &Arc<Alarm>) {
        if alarm.posted.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut open = self.lock();
        let Some(woken) = &mut *open else { return };
        let rung = !woken.is_empty();
        woken.push(Arc::clone(alarm));
        drop(open);
        if !rung && let Err(error) = self.bell.wake() {
            tracing::error!(%error, "a shard could not be woken");
        }
    }

    /// From now on nobody is woken.
    pub(super) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Arc<Alarm>>>> {
        // Nothing can fail while it is held but the memory for one more.
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        HERE.with(|here| {
            if here.executor.reads(&self.mailbox) {
                here.executor.make_ready(self.task);
            } else {
                self.mailbox.post(self);
            }
        });
    }
}
