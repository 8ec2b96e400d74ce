//! One pooled backend and what is known of the state that it carries.

use super::Pools;
use super::reports::Reports;
use super::shared::Slot;
use crate::backend::{Backend, CancelKey, Detached, Target};
use crate::clock::Moment;
use crate::metrics::Holder;
use crate::session::{Held, Identity, SharedSettings, UnnamedThere};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A backend of a pool. Dropped, it is closed, and its slot goes to the first waiter.
///
/// It changes hands twice in each transaction, so it is lent in a box.
#[derive(Debug)]
pub struct Conn {
    /// The connection.
    pub backend: Backend,
    /// What it was opened with of who its sessions are to be, such as the role that `RESET ROLE`
    /// leads to: only these may have it.
    pub identity: Option<Arc<Identity>>,
    /// The settings that it carries.
    pub carried: SharedSettings,
    /// The statements that it holds under our names.
    pub held: Held,
    /// How a cancel finds it.
    pub running: Arc<Running>,
    /// Bytes of the server's message that has not arrived whole.
    pub partial: Vec<u8>,
    /// Notifications that came while something of ours ran: its session's.
    pub heard: Vec<u8>,
    /// When it came free last.
    pub rested_at: Moment,
    /// Whether the unnamed statement of the session that holds it is here.
    pub unnamed_there: UnnamedThere,
    /// Who may have drawn from a sequence there.
    pub drawn: Drawn,
    /// What it reports of its settings.
    pub reports: Reports,
    /// Since when it is known to be clean.
    pub trust: Trust,
    /// Counts the statements that it holds.
    holder: Holder,
    slot: Slot,
}

/// How many sessions have held a backend since the server was asked last what was left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// So many: what is found is left by one of these.
    pub holders: u32,
    /// Whether the next of them is to be the only one.
    pub next: Next,
}

/// Whether the next release of a backend is audited if it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Next {
    /// As any other.
    #[default]
    AsDrawn,
    /// Yes: an audit has just found it clean.
    Audited,
}

/// Who may have drawn from a sequence on a backend since it was made to forget that: `currval`
/// tells whoever is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drawn {
    /// Nobody.
    #[default]
    Nobody,
    /// The session that holds it; others may have before.
    ByHolder,
    /// Sessions that held it before.
    ByOthers,
}

impl Drawn {
    /// The same once the holder has left.
    pub(super) const fn left(self) -> Self {
        match self {
            Self::Nobody => Self::Nobody,
            Self::ByHolder | Self::ByOthers => Self::ByOthers,
        }
    }
}

/// The backend that a session holds, as far as a cancel request must know it.
#[derive(Debug)]
pub struct Running {
    /// Where.
    pub target: Target,
    /// The backend's process.
    pub pid: i32,
    /// The backend's key.
    pub key: CancelKey,
    /// Whether a cancel was sent there that may still hit something.
    cancelled: AtomicBool,
    /// Whether one of those may come at any time from now on.
    astray: AtomicBool,
}

/// A backend on its way to another shard.
#[derive(Debug)]
pub struct Moved {
    backend: Detached,
    identity: Option<Arc<Identity>>,
    running: Arc<Running>,
    carried: SharedSettings,
    held: Held,
    rested_at: Moment,
    drawn: Drawn,
    trust: Trust,
    reports: Reports,
    holder: Holder,
    slot: Slot,
}

impl Running {
    /// A backend that nobody has cancelled anything on.
    pub const fn new(target: Target, pid: i32, key: CancelKey) -> Self {
        let (cancelled, astray) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { target, pid, key, cancelled, astray }
    }

    /// A cancel is about to be sent there. Noted before it is sent, so whoever sees what came of
    /// it sees this.
    pub fn note_cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Nobody knows whether, or when, a cancel that was sent there arrives.
    pub fn note_stray(&self) {
        self.astray.store(true, Ordering::SeqCst);
    }

    /// Whether a cancel may hit whatever it runs, however much later: it is nobody else's any more.
    pub fn has_stray(&self) -> bool {
        self.astray.load(Ordering::SeqCst)
    }

    /// Every cancel has arrived there, and the backend was asked something since. One that went
    /// astray is not forgotten.
    pub fn forget_cancels(&self) {
        // As good as never is there one, and a look is cheaper than a word.
        if self.was_cancelled() && !self.has_stray() {
            self.cancelled.store(false, Ordering::SeqCst);
        }
    }

    /// Whether a cancel may have hit what it runs.
    pub fn was_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

impl Conn {
    /// A backend that was just opened.
    pub fn new(
        (backend, reports): (Backend, Reports),
        (identity, target): (Option<Arc<Identity>>, Target),
        slot: Slot,
        holder: Holder,
    ) -> Box<Self> {
        let rested_at = backend.opened_at;
        let running = Running::new(target, backend.pid, backend.key.clone());
        Box::new(Self {
            backend,
            identity,
            carried: SharedSettings::default(),
            held: Held::default(),
            running: Arc::new(running),
            partial: Vec::new(),
            heard: Vec::new(),
            rested_at,
            unnamed_there: UnnamedThere::No,
            drawn: Drawn::Nobody,
            trust: Trust::default(),
            reports,
            holder,
            slot,
        })
    }

    /// What it has said of settings that it does not carry are its defaults by now. To be called
    /// where it carries nothing that is not known.
    pub fn look_through_reports(&mut self, pools: &Pools) {
        self.reports.look_through(&self.carried, pools);
    }

    /// Counts the statements that it holds now.
    pub fn count_statements(&mut self) {
        self.holder.hold(self.held.len());
    }

    /// Whether nobody has held it before.
    pub fn is_new(&self) -> bool {
        self.rested_at == self.backend.opened_at
    }

    /// Whether it is as it was left: nothing has arrived since, so it was not closed either.
    /// Costs no system call unless something did arrive.
    pub fn is_quiet(&mut self) -> bool {
        self.backend.stream.is_quiet()
    }

    /// Closes it; its slot is left.
    pub fn into_slot(self: Box<Self>) -> Slot {
        self.slot
    }

    /// Takes it off this shard's runtime; only its slot is left if it can't be moved (TLS).
    pub fn detach(self: Box<Self>) -> Result<Moved, Slot> {
        let Self { backend, identity, carried, held, running, .. } = *self;
        let Self { rested_at, drawn, trust, reports, holder, slot, .. } = *self;
        match backend.detach() {
            Ok(backend) => {
                let moved = Moved {
                    backend,
                    identity,
                    running,
                    carried,
                    held,
                    rested_at,
                    drawn,
                    trust,
                    reports,
                    holder,
                    slot,
                };
                Ok(moved)
            }
            Err(_) => Err(slot),
        }
    }
}

impl Moved {
    /// Closes it; its slot is left.
    pub fn into_slot(self) -> Slot {
        self.slot
    }

    /// Puts it on this shard's runtime; only its slot is left if that fails, or if its server has
    /// closed it. A shard that is busy may not know that of a backend that it gives away.
    pub fn attach(self) -> Result<Box<Conn>, Slot> {
        let Self { backend, identity, running, carried, held, rested_at, .. } = self;
        let Self { drawn, trust, reports, holder, slot, .. } = self;
        if !backend.is_quiet() {
            return Err(slot);
        }
        match backend.attach() {
            Ok(backend) => {
                let (partial, unnamed_there) = (Vec::new(), UnnamedThere::No);
                let conn = Conn {
                    backend,
                    identity,
                    carried,
                    held,
                    running,
                    partial,
                    heard: Vec::new(),
                    rested_at,
                    unnamed_there,
                    drawn,
                    trust,
                    reports,
                    holder,
                    slot,
                };
                Ok(Box::new(conn))
            }
            Err(_) => Err(slot),
        }
    }
}
