//! Cancel requests: they hit the statement that their client is running now, or nothing.
//!
//! A client gets a key of ours, which stands for its session and not for a backend. When a cancel
//! arrives, the session's present backend is looked up; while the cancel is under way that
//! backend is not given to anybody else, for a late cancel must not hit the next client. One that
//! did not come to its end in time may arrive at any time: its backend is closed after that.
//!
//! It is for the statement that the client waits for, wherever that is: sent, held, or taken back
//! from a server to be sent to the next. So each is noted until the next statement begins, whether
//! a server was asked or not, and what is sent again is looked up first.
//!
//! To a client of protocol 3.0 the secret has 32 bits, since there is no room for more; the number
//! of the process beside it has another 31, drawn at random, so a guess hits a given session with
//! 2^-63 a try, and one of n sessions with n times that. (In session mode the number is the
//! server's own process, and can be guessed.) From 3.2 on the secret has 24 random bytes, behind
//! 8 that name this process of pgsteer: whoever is asked to cancel something can tell whose it is.
//! Where several share an address (`cancel.peers`), 8 of the 31 bits are this one's number.

use crate::backend;
use crate::frontend::peers;
use crate::frontend::peers::Peers;
use crate::net::TlsError;
use crate::pool::Running;
use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Every session that can be cancelled.
#[derive(Debug)]
pub struct Cancels {
    identity: Identity,
    /// Who else may have given a key out.
    peers: Option<Peers>,
    /// Guards the register; locked once when a session begins and ends, and by each cancel.
    sessions: Mutex<HashMap<i32, Arc<Handle>>>,
}

/// What tells this process of pgsteer from all others; the first bytes of long secrets.
pub type Identity = [u8; 8];

/// How long the secret of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// Four bytes.
    Short,
    /// As many as PostgreSQL 18 gives.
    Long,
}

/// Random bytes of a long secret, in words of four. Source: `MAX_CANCEL_KEY_LENGTH` in
/// `storage/procsignal.h`, less the identity.
const LONG_WORDS: usize = 6;

/// A session's place in the register, for as long as this lives.
#[derive(Debug)]
pub struct Registered {
    cancels: Arc<Cancels>,
    handle: Arc<Handle>,
}

impl Deref for Registered {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self.cancels.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&self.handle.pid);
    }
}

/// One session's entry.
pub struct Handle {
    /// The process identifier that the client was told.
    pub pid: i32,
    /// The secret that it was told.
    pub secret: Box<[u8]>,
    /// Guards what is running; held for a few instructions.
    state: Mutex<State>,
    /// What the client waits for was cancelled. Beside the lock, since each statement looks.
    cancelled: AtomicBool,
    /// Of the session's task, which is one and the same for as long as it lives.
    session: Waker,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Arc<Running>>,
    /// Cancels that are on their way to the server.
    under_way: u32,
}

/// Longest that a cancel may take, connection included.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

impl Cancels {
    /// Nobody yet. `identity` is to be random.
    pub fn new(identity: Identity) -> Self {
        Self { identity, peers: None, sessions: Mutex::default() }
    }

    /// Nobody yet, in one of several pgsteers behind one address.
    pub fn among(peers: Peers) -> Self {
        let identity = peers.identity();
        Self { identity, peers: Some(peers), sessions: Mutex::default() }
    }

    /// Reads the certificates again that are trusted of peers.
    ///
    /// # Errors
    /// They can't be used; the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.peers.as_ref().map_or(Ok(()), Peers::reload)
    }

    /// Enters a session, whose task `session` wakes, under numbers that nobody can guess, drawn by
    /// `random`; under `wanted` as its process if that is given and free.
    pub fn enter(
        self: &Arc<Self>,
        session: Waker,
        (wanted, form): (Option<i32>, KeyForm),
        mut random: impl FnMut() -> i32,
    ) -> Registered {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draw = || {
            let drawn = random() & i32::MAX;
            self.peers.as_ref().map_or(drawn, |peers| peers.process(drawn))
        };
        let mut next = wanted.unwrap_or_else(&mut draw) & i32::MAX;
        while next == 0 || sessions.contains_key(&next) {
            next = draw();
        }
        let handle = Arc::new(Handle {
            pid: next,
            secret: self.secret(form, &mut random),
            state: Mutex::default(),
            cancelled: AtomicBool::new(false),
            session,
        });
        sessions.insert(next, Arc::clone(&handle));
        drop(sessions);
        Registered { cancels: Arc::clone(self), handle }
    }

    /// Carries out a cancel request, or passes it on to a peer whose it may be. Whether it found a
    /// statement is told to nobody: the requester gets no answer, as with a server.
    pub async fn cancel(&self, pid: i32, secret: &[u8]) {
        let found = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.get(&pid).map(Arc::clone)
        };
        let own = peers::unmarked(secret);
        // Of another length it is another secret.
        let Some(handle) = found.filter(|handle| bool::from(handle.secret.ct_eq(own))) else {
            if let Some(peers) = &self.peers {
                peers.pass_on(pid, secret).await;
            }
            return;
        };
        let Some(running) = handle.begin_cancel() else { return };
        let Running { target, pid, key, .. } = &*running;
        if let Err(error) = backend::cancel(target, *pid, key, CANCEL_TIMEOUT).await {
            tracing::warn!(server = %target.name, %error, "a cancel request did not get through");
            // A server that hangs may carry it out when it goes on.
            running.note_stray();
        }
        handle.end_cancel();
    }

    fn secret(&self, form: KeyForm, random: &mut impl FnMut() -> i32) -> Box<[u8]> {
        match form {
            KeyForm::Short => Box::new(random().to_be_bytes()),
            KeyForm::Long => {
                let mut secret = self.identity.to_vec();
                for _ in 0..LONG_WORDS {
                    secret.extend_from_slice(&random().to_be_bytes());
                }
                secret.into()
            }
        }
    }
}

impl Handle {
    /// The session holds this backend from now on. What it is wanted for may have been cancelled
    /// before: that is to be asked behind this.
    pub fn attach(&self, running: Arc<Running>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = Some(running);
    }

    /// The session is about to give its backend away. Whether a cancel is on its way to it: then
    /// [`Handle::settled`] must be awaited first, and the backend be asked something.
    pub fn detach(&self) -> UnderWay {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = None;
        if state.under_way > 0 { UnderWay::Yes } else { UnderWay::No }
    }

    /// Whether a cancel is on its way.
    pub fn under_way(&self) -> UnderWay {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.under_way > 0 { UnderWay::Yes } else { UnderWay::No }
    }

    /// Waits until no cancel is on its way. For the session's own task alone.
    pub async fn settled(&self) {
        poll_fn(|_| match self.under_way() {
            UnderWay::No => Poll::Ready(()),
            UnderWay::Yes => Poll::Pending,
        })
        .await;
    }

    /// A statement begins: an earlier cancel was for another.
    pub fn begin(&self) {
        // As good as never is there one, and a look is cheaper than a word.
        if self.cancelled() == Cancelled::Yes {
            self.cancelled.store(false, Ordering::Release);
        }
    }

    /// Whether what the client waits for was cancelled.
    pub fn cancelled(&self) -> Cancelled {
        if self.cancelled.load(Ordering::Acquire) { Cancelled::Yes } else { Cancelled::No }
    }

    /// The same of one that has asked this: if it has asked nothing, there was nothing to cancel.
    pub fn heed(&self, asked: &[u8]) -> Cancelled {
        if asked.is_empty() {
            self.begin();
        }
        self.cancelled()
    }

    /// Waits until what the client waits for is cancelled. For the session's own task alone.
    pub async fn until_cancelled(&self) {
        poll_fn(|_| match self.cancelled() {
            Cancelled::Yes => Poll::Ready(()),
            Cancelled::No => Poll::Pending,
        })
        .await;
    }

    fn begin_cancel(&self) -> Option<Arc<Running>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let running = state.running.clone();
        self.cancelled.store(true, Ordering::Release);
        if let Some(running) = &running {
            state.under_way += 1;
            running.note_cancel();
        }
        drop(state);
        self.session.wake_by_ref();
        running
    }

    fn end_cancel(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.under_way = state.under_way.saturating_sub(1);
        drop(state);
        self.session.wake_by_ref();
    }
}

/// Whether a statement was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// No.
    No,
    /// Yes.
    Yes,
}

/// Whether a cancel is on its way to the session's backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// No.
    No,
    /// Yes.
    Yes,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Handle").field("pid", &self.pid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Waker {
        Waker::noop().clone()
    }

    /// Wherever the statement is by then: only the next one may forget it.
    #[test]
    fn a_cancel_counts_until_the_next_statement_begins() {
        let cancels = Arc::new(Cancels::new(*b"pgsteer7"));
        let session = cancels.enter(nobody(), (None, KeyForm::Short), || 7);
        session.begin();
        assert_eq!(session.cancelled(), Cancelled::No);
        assert!(session.begin_cancel().is_none(), "no server runs it");
        session.detach();
        assert_eq!(session.cancelled(), Cancelled::Yes);
        session.begin();
        assert_eq!(session.cancelled(), Cancelled::No);
    }

    #[test]
    fn a_long_secret_names_its_process_and_is_random_behind_that() {
        let cancels = Arc::new(Cancels::new(*b"pgsteer7"));
        let mut drawn = 0;
        let mut random = || {
            drawn += 1;
            drawn
        };
        let short = cancels.enter(nobody(), (Some(5), KeyForm::Short), &mut random);
        assert_eq!((short.pid, &*short.secret), (5, [0, 0, 0, 1].as_slice()));
        let long = cancels.enter(nobody(), (None, KeyForm::Long), &mut random);
        assert_eq!((long.pid, long.secret.len()), (2, 32));
        let (identity, rest) = long.secret.split_at(8);
        let words: Vec<u8> = (3..=8_i32).flat_map(i32::to_be_bytes).collect();
        assert_eq!((identity, rest), (b"pgsteer7".as_slice(), &*words));
        assert_eq!(format!("{:?}", *long), "Handle { pid: 2, .. }", "it is a secret");
        let taken = cancels.enter(nobody(), (Some(5), KeyForm::Long), &mut random);
        assert_ne!(taken.pid, 5, "it is another's");
    }
}
