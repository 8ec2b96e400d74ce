//! Where sessions have themselves listened for.

use super::hub::Hub;
use super::senders::Senders;
pub use super::table::Hearing;
use crate::backend;
use crate::backend::{Login, Target};
use crate::board::Board;
use crate::reactor;
use crate::tasks;
use crate::timer;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{mpsc, oneshot};

/// Messages that an ear holds; each has 8 kB at most.
const EAR_MAX: usize = 1024;
/// Wishes that a listener may be behind.
const WISHES_MAX: usize = 1024;
/// How long a session waits to be listened for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one connection can serve: notifications stay in their database, and come in the
/// connection's encoding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The database.
    pub database: Arc<str>,
    /// The encoding, by the name that the server reports.
    pub encoding: Box<str>,
}

/// All listeners. Shared by the shards.
#[derive(Debug)]
pub struct Listeners {
    pub(super) house: Arc<House>,
    /// Random: other processes of pgsteer notify in the same databases.
    key: u64,
}

/// What the listeners have in common.
#[derive(Debug)]
pub(super) struct House {
    /// Every server, and how it is logged in to.
    pub(super) servers: Box<[(Target, Login)]>,
    pub(super) board: Arc<Board>,
    /// Where the listeners run.
    runtime: Handle,
    /// The next ear or listener.
    next: AtomicU64,
    hubs: Mutex<BTreeMap<Place, mpsc::Sender<Wish>>>,
    /// Who notifies from which backend.
    pub(super) senders: Arc<Senders>,
}

/// A session wants to hear exactly these channels.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) id: u64,
    pub(super) ear: mpsc::Sender<Hearing>,
    pub(super) channels: BTreeSet<Box<str>>,
    /// Answered when they are listened to.
    pub(super) done: oneshot::Sender<()>,
}

/// Nobody can listen for the session now; it has to do so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody can listen for the session")]
pub struct Deaf;

/// Where a session finds what was heard for it. Dropped, nobody listens for it any more.
#[derive(Debug)]
pub struct Ear {
    /// Its number, which is nobody else's.
    pub id: u64,
    /// Where it is listened for.
    pub place: Place,
    sender: mpsc::WeakSender<Hearing>,
    heard: mpsc::Receiver<Hearing>,
}

impl Listeners {
    /// None yet; they will run where this is called.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new(servers: Vec<(Target, Login)>, board: Arc<Board>) -> io::Result<Self> {
        let key = u64::from_be_bytes(backend::random()?);
        let house = House {
            servers: servers.into_boxed_slice(),
            board,
            runtime: Handle::current(),
            next: AtomicU64::new(1),
            hubs: Mutex::default(),
            senders: Arc::new(Senders::new(format!("pgsteer_{key:016x}").into())),
        };
        Ok(Self { house: Arc::new(house), key })
    }

    /// Who notifies from which backend.
    pub fn senders(&self) -> &Arc<Senders> {
        &self.house.senders
    }

    /// A number for a new ear, and a channel that is nobody else's.
    pub fn number(&self) -> (u64, Box<str>) {
        let id = self.house.next.fetch_add(1, Ordering::Relaxed);
        (id, format!("pgsteer_{:016x}_{id}", self.key).into())
    }

    /// Has these channels listened to for a new ear. Everything that is committed after this was
    /// answered will be heard.
    ///
    /// # Errors
    /// [`Deaf`] if the primary can't be reached in time.
    pub async fn listen(
        &self,
        id: u64,
        place: Place,
        channels: BTreeSet<Box<str>>,
    ) -> Result<Ear, Deaf> {
        let (sender, heard) = mpsc::channel(EAR_MAX);
        let weak = sender.downgrade();
        self.wish(&place, id, sender, channels).await?;
        Ok(Ear { id, place, sender: weak, heard })
    }

    /// Has exactly these channels listened to for an ear from now on.
    ///
    /// # Errors
    /// [`Deaf`] likewise, and if the ear was lost.
    pub async fn follow(&self, ear: &Ear, channels: BTreeSet<Box<str>>) -> Result<(), Deaf> {
        let sender = ear.sender.upgrade().ok_or(Deaf)?;
        self.wish(&ear.place, ear.id, sender, channels).await
    }

    async fn wish(
        &self,
        place: &Place,
        id: u64,
        ear: mpsc::Sender<Hearing>,
        channels: BTreeSet<Box<str>>,
    ) -> Result<(), Deaf> {
        let (done, answered) = oneshot::channel();
        self.house.send(place, Wish { id, ear, channels, done })?;
        match timer::timeout(PATIENCE, answered).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Deaf),
        }
    }
}

impl House {
    /// Tells the listener of this place, which is started if there is none.
    fn send(self: &Arc<Self>, place: &Place, wish: Wish) -> Result<(), Deaf> {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        let wish = match hubs.get(place) {
            Some(hub) => match hub.try_send(wish) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(Deaf),
                // It ended by a defect.
                Err(TrySendError::Closed(wish)) => wish,
            },
            None => wish,
        };
        let (sender, wishes) = mpsc::channel(WISHES_MAX);
        let _entered = self.runtime.enter();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let hub = Hub::new(number, place.clone(), Arc::clone(self), wishes);
        // It ends by itself when nobody listens any more.
        drop(tasks::spawn("listener", hub.run()));
        drop(sender.try_send(wish));
        hubs.insert(place.clone(), sender);
        Ok(())
    }

    /// The listener of this place may end, if nobody has a wish.
    pub(super) fn leave(&self, place: &Place, wishes: &mut mpsc::Receiver<Wish>) -> Option<Wish> {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: whoever comes later finds no listener, and starts one.
        let wish = wishes.try_recv().ok();
        if wish.is_none() {
            hubs.remove(place);
        }
        wish
    }
}

impl Ear {
    /// What was heard next; `None` if the ear is lost. Cancel-safe.
    pub async fn hear(&mut self) -> Option<Hearing> {
        poll_fn(|context| self.poll_hear(context)).await
    }

    /// The same, for who waits for other things as well.
    pub fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Option<Hearing>> {
        // A channel that is never empty must not keep the others of a shard from their turn.
        ready!(reactor::poll_turn(context));
        self.heard.poll_recv(context)
    }

    /// What was heard already; `Err` if the ear is lost.
    ///
    /// # Errors
    /// [`Deaf`] if it is.
    pub fn heard(&mut self) -> Result<Option<Hearing>, Deaf> {
        match self.heard.try_recv() {
            Ok(hearing) => Ok(Some(hearing)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Deaf),
        }
    }
}
