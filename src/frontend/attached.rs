//! A session's hold on a backend, from the check-out to the release.

use crate::clock::Moment;
use crate::frontend::block::{Block, Repeats};
use crate::frontend::cancel::{Handle, UnderWay};
use crate::frontend::exchange::{Exchange, Word};
use crate::frontend::params::Reported;
use crate::frontend::plan::{Again, MayCommit, Plan, PureRead, Taint};
use crate::frontend::probe::Found;
use crate::frontend::reset::LoginValues;
use crate::frontend::seat::Taken;
use crate::frontend::state::Resets;
use crate::metrics::{Pinned, QueryKind, ServedBy, TransactionOutcome};
use crate::notifications::Noted;
use crate::pool::{Checkout, Drawn};
use crate::route::Need;
use crate::session::{Cut, End, Executes, Pin, Pins, Renamed, Strays};
use crate::sql::{Defaults, Effects, is_shown_to_few};
use crate::topology::{Epoch, ServerId, Signals, Topology};
use crate::wire::frame;
use crate::wire::frame::TxStatus;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// The backend that a session holds, and what is under way on it.
#[derive(Debug)]
pub struct Attached {
    /// The backend.
    pub checkout: Checkout,
    /// The bytes both ways.
    pub exchange: Exchange,
    /// Which server it is.
    pub server: ServerId,
    /// What it was when the backend was taken.
    pub standing: Standing,
    /// Whether it was shown to hold all that the session knew.
    pub proven: Proven,
    /// Under which primary.
    pub epoch: Epoch,
    /// Since when it is held.
    pub at: Moment,
    /// By which the session's seat knows of it, if it is the primary's.
    pub taken: Option<Taken>,
    /// The transaction, as the server told last.
    pub status: TxStatus,
    /// The group that was sent last.
    pub sent: Option<Sent>,
    /// Whether the group before `Sync` goes on.
    pub segment: Segment,
    /// Whether its next group may be sent before it is answered.
    pub(super) ahead: Ahead,
    /// What the backend may carry that is not recorded.
    pub taint: Taint,
    /// The most that it may carry since its settings were reset: what no probe lists stays until
    /// then, also while the session keeps it.
    pub left: Taint,
    /// Whether it reads a text as its settings say that are known.
    pub reads: Reads,
    /// Settings that went back to the session's start.
    pub resets: Resets,
    /// What gives the backend the values that the group before has reset.
    pub(super) behind_reset: Option<Box<LoginValues>>,
    /// Client names that must be taken off the backend again.
    pub strays: Strays,
    /// Whether those of them that it was to take away are.
    pub(super) deallocated: Deallocated,
    /// Names of statements that the group gave another meaning.
    pub renamed: Vec<Renamed>,
    /// Why the session stays on this backend.
    pub pins: Pins,
    /// By which operators see that, and of whom.
    pub pinned: Option<Pinned>,
    /// The channels that it listens to.
    pub channels: Vec<String>,
    /// By which it counts as idle, while it stays on this backend and asks nothing.
    pub resting: Option<Resting>,
    /// What was done in the open transaction.
    pub(super) block: Block,
    /// Whether the transaction here stands in for one that was lost.
    pub doomed: Doomed,
    /// Whether a setting was set under a computed name.
    pub computed: Computed,
    /// Whether something was left here that no reset takes back.
    pub lasting: Lasting,
    /// Whether the session has seen data here.
    pub shown: ShownData,
    /// That it may notify, and under which process that is told.
    pub noted: Option<Noted>,
    /// Whose settings it has changed for sessions that begin behind it; and how many of these by
    /// what has been answered well.
    pub defaults: (Vec<Defaults>, usize),
}

/// Whether `DEALLOCATE` has done what it was sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Deallocated {
    /// As far as is known.
    #[default]
    AsTold,
    /// Perhaps not: something has failed in its transaction, which may have been ahead of it.
    Perhaps,
}

/// An [`Attached`] in its box. Sessions take one and give it back twice in a hundred microseconds,
/// so an empty box is kept for the next one.
#[derive(Debug)]
pub struct Hold(Box<Option<Attached>>);

/// A box that holds nothing now.
#[derive(Debug, Default)]
pub struct EmptyHold(Box<Option<Attached>>);

impl EmptyHold {
    /// Puts this in.
    pub fn fill(mut self, attached: Attached) -> Hold {
        *self.0 = Some(attached);
        Hold(self.0)
    }
}

impl Hold {
    /// Gives the backend back.
    pub fn release(mut self, now: Moment) -> EmptyHold {
        self.checkout.give_back(now);
        self.close()
    }

    /// Closes the backend, if it still holds one.
    pub fn close(mut self) -> EmptyHold {
        *self.0 = None;
        EmptyHold(self.0)
    }

    /// Takes out what is in it.
    pub fn into_inner(mut self) -> Attached {
        #[expect(clippy::expect_used, reason = "it is filled when it is made, and this ends it")]
        self.0.take().expect("a hold holds something until it ends")
    }
}

impl Deref for Hold {
    type Target = Attached;

    fn deref(&self) -> &Attached {
        #[expect(
            clippy::expect_used,
            reason = "it is filled when it is made, and what takes it ends it"
        )]
        (*self.0).as_ref().expect("a hold holds something until it ends")
    }
}

impl DerefMut for Hold {
    fn deref_mut(&mut self) -> &mut Attached {
        #[expect(
            clippy::expect_used,
            reason = "it is filled when it is made, and what takes it ends it"
        )]
        (*self.0).as_mut().expect("a hold holds something until it ends")
    }
}

/// What a backend may carry of its session's open transaction.
#[derive(Debug)]
pub struct Carried {
    taint: Taint,
    left: Taint,
    reads: Reads,
    resets: Resets,
    behind_reset: Option<Box<LoginValues>>,
    computed: Computed,
}

/// Counts a session that stays on its backend and asks nothing, for as long as this lives.
#[derive(Debug)]
pub struct Resting {
    signals: Arc<Signals>,
    server: ServerId,
}

impl Default for Carried {
    fn default() -> Self {
        Self {
            taint: Taint::None,
            left: Taint::None,
            reads: Reads::AsCarried,
            resets: Resets::default(),
            behind_reset: None,
            computed: Computed::No,
        }
    }
}

impl Resting {
    /// It rests from now on.
    pub fn new(signals: &Arc<Signals>, server: ServerId) -> Self {
        signals.rests(server);
        Self { signals: Arc::clone(signals), server }
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        self.signals.rises(self.server);
    }
}

/// Whether a backend was shown to hold all that its session knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proven {
    /// It was.
    Yes,
    /// Nobody asked: nothing was to be read, or whatever a standby shows would do.
    No,
}

/// Whether a backend's settings are those that are noted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// They are.
    AsCarried,
    /// Something in the present transaction may have changed them.
    Otherwise,
}

/// Whether a session has seen data of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownData {
    /// It has only asked for what any server can answer: it knows no more than before, and
    /// what it knew need not be there.
    No,
    /// It has.
    Yes,
}

/// Whether a setting was set under a name that only the server saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Computed {
    /// No.
    No,
    /// Yes: no probe can list it, so the session stays.
    Yes,
    /// Yes, unless what is under way, which resets all and does nothing else, succeeds.
    UnlessReset,
}

/// Whether something was left on a backend that no reset takes back, and no probe shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Nothing that is known of.
    No,
    /// Something, perhaps: the backend is its session's for good, and closed behind it.
    Yes,
}

/// A group that was sent and is not answered.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// How many of the inbox's bytes are kept to send it again; 0: it can't be.
    pub kept: usize,
    /// What it was.
    pub again: Again,
    /// Whether it can have committed.
    pub commits: MayCommit,
    /// When it arrived.
    pub since: Moment,
    /// How it ends.
    pub end: End,
    /// Whether it runs anything.
    pub executes: Executes,
    /// The transaction before it.
    pub before: TxStatus,
    /// Whether it is a pure read.
    pub read: PureRead,
    /// What of it may be done again within its transaction.
    pub(super) repeats: Repeats,
    /// What it counts as.
    pub kind: QueryKind,
    /// When it was sent.
    pub at: Moment,
    /// How its transaction ends, if it ends with it and nothing fails.
    pub ends: TransactionOutcome,
}

impl Sent {
    /// This group, sent behind an earlier one in the same implicit transaction: the two succeed
    /// or fail, and are in doubt, together.
    pub fn behind(self, earlier: &Self) -> Self {
        Self {
            kept: 0,
            again: Again::MustNot,
            repeats: Repeats::No,
            commits: match (earlier.commits, self.commits) {
                (MayCommit::No, MayCommit::No) => MayCommit::No,
                (MayCommit::Maybe, _) | (_, MayCommit::Maybe) => MayCommit::Maybe,
            },
            since: earlier.since,
            at: earlier.at,
            executes: match (earlier.executes, self.executes) {
                (Executes::Nothing, Executes::Nothing) => Executes::Nothing,
                (Executes::Something, _) | (_, Executes::Something) => Executes::Something,
            },
            before: earlier.before,
            read: match (earlier.read, self.read) {
                (PureRead::Yes, PureRead::Yes) => PureRead::Yes,
                (PureRead::No, _) | (_, PureRead::No) => PureRead::No,
            },
            ..self
        }
    }
}

/// What a server was when the session's backend was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The primary.
    Primary,
    /// A standby.
    Standby,
}

impl Standing {
    /// What a server is by this topology.
    pub fn of(server: ServerId, topology: &Topology) -> Self {
        if topology.writable() == Some(server) { Self::Primary } else { Self::Standby }
    }

    /// The label for it.
    pub const fn served_by(self) -> ServedBy {
        match self {
            Self::Primary => ServedBy::Primary,
            Self::Standby => ServedBy::Standby,
        }
    }
}

/// Whether the server waits for more of an implicit transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// `Sync` was sent.
    Closed,
    /// It was not.
    Open,
}

/// Whether the next group of a batch may be sent before the present one is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// It may.
    May,
    /// It is to be refused, or is something else, unless what was sent before it fails.
    MustNot,
}

/// Whether the next group goes on with what earlier ones have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoesOn {
    /// It stands for itself: it could as well be sent to another backend.
    No,
    /// It does.
    Yes,
}

/// Whether the transaction on this backend stands in for one that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doomed {
    /// No.
    No,
    /// Yes: it was opened only to fail.
    Yes,
}

/// Whether a statement on the backend must be prepared anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// None that is known.
    No,
    /// One, at least.
    Yes,
    /// One, at least, that is not there.
    Gone,
}

/// Whether the client was told, or is to be told, that a statement is prepared that was prepared
/// for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relies {
    /// No.
    No,
    /// Yes: if it does not fit any more, that is no business of the client's.
    Yes,
    /// Yes, and it did not fit.
    InVain,
}

impl Attached {
    /// Whether another group may be sent: nothing is owed, or the present one goes on.
    pub fn may_send(&self) -> bool {
        self.exchange.client_pass == 0
            && !self.exchange.is_copying_in()
            && (self.goes_before_answers() || self.exchange.replies.is_settled())
    }

    /// Whether the next group may be sent before the present one is answered.
    fn goes_before_answers(&self) -> bool {
        self.segment == Segment::Open && self.ahead == Ahead::May
    }

    /// Whether the server passes over all that comes before the client's next `Sync`.
    pub const fn passes_over(&self) -> bool {
        self.exchange.replies.is_skipping()
    }

    /// Whether what comes next is something else if what was sent before it fails, or begins a
    /// COPY: the server passes over a `Query` then, or takes in the data.
    pub fn must_hear_first(&mut self, inbox: &[u8]) -> bool {
        if !matches!(inbox.first(), Some(b'Q' | b'F' | b'd' | b'c' | b'f'))
            || self.exchange.replies.is_settled()
        {
            return false;
        }
        match self.sent.map(|sent| sent.end) {
            Some(End::Flush) => true,
            Some(End::Cut { of: Cut::Batch, .. }) => {
                self.hear_first();
                true
            }
            Some(End::Query | End::Sync | End::Cut { of: Cut::Query, .. }) | None => false,
        }
    }

    /// What comes next waits for all answers, for which nobody has asked yet where a batch was cut.
    pub(super) fn hear_first(&mut self) {
        self.ahead = Ahead::MustNot;
        self.exchange.to_server.extend_from_slice(frame::FLUSH);
    }

    /// Whether a standby was only asked to prepare and to describe, with `Flush`: a session that
    /// goes on with a write must leave it.
    pub fn may_have_to_leave(&self) -> bool {
        self.standing == Standing::Standby
            && self.status == TxStatus::Idle
            && self.segment == Segment::Open
            && self.pins.is_empty()
            && !self.exchange.replies.is_skipping()
            && self.sent.is_some_and(|sent| sent.end == End::Flush)
    }

    /// In a transaction that has failed `DEALLOCATE` may not have come to its turn.
    pub(super) fn note_failure(&mut self) {
        if self.status == TxStatus::Failed && self.strays.take_away() {
            self.deallocated = Deallocated::Perhaps;
        }
    }

    /// The client's names that the backend was given just now are in these letters.
    pub(super) fn note_letters(&mut self, reported: &Reported) {
        if !self.strays.is_empty() {
            self.strays.note_letters(reported.get("client_encoding"));
        }
    }

    /// Whether it is certain, without asking the server, that the session left nothing on the
    /// backend that is not recorded.
    pub fn left_nothing(&self) -> bool {
        self.taint == Taint::None
            && self.left != Taint::Hidden
            && self.strays.is_empty()
            && self.exchange.stale == Stale::No
            && self.noted.is_none()
    }

    /// Whether the backend is of no more use to the session now.
    pub fn is_free(&self) -> bool {
        self.status == TxStatus::Idle
            && self.segment == Segment::Closed
            && self.exchange.replies.is_settled()
            && self.exchange.client_pass == 0
            && self.exchange.to_server.is_empty()
    }

    /// Whether the group before `Sync` was answered so far, and has done nothing but to prepare
    /// and to describe: its session can go on elsewhere.
    pub fn has_only_prepared(&self) -> bool {
        self.segment == Segment::Open
            && self.exchange.replies.is_settled()
            && !self.exchange.replies.is_skipping()
            && self.sent.is_some_and(|sent| sent.executes == Executes::Nothing)
    }

    /// Whether the next group goes on with what was executed here in the same segment.
    pub fn goes_on(&self) -> GoesOn {
        if self.segment == Segment::Closed || self.has_only_prepared() {
            GoesOn::No
        } else {
            GoesOn::Yes
        }
    }

    /// Takes the server's word again, once no cancel of an earlier statement can hit the next one.
    pub fn take_word(&mut self, cancel: &Handle) {
        let running = &self.checkout.running;
        if running.was_cancelled() && cancel.under_way() == UnderWay::No {
            running.forget_cancels();
            self.exchange.word = Word::Taken;
        }
    }

    /// What the backend may carry, to be brought to another one with the open transaction.
    pub fn carry(&mut self) -> Carried {
        Carried {
            taint: self.taint,
            left: self.left,
            reads: self.reads,
            resets: std::mem::take(&mut self.resets),
            behind_reset: self.behind_reset.take(),
            computed: self.computed,
        }
    }

    /// The open transaction goes on here; or this backend carries nothing any more.
    pub fn take_over(&mut self, carried: Carried) {
        let Carried { taint, left, reads, resets, behind_reset, computed } = carried;
        (self.taint, self.left, self.behind_reset) = (taint, left, behind_reset);
        (self.reads, self.resets, self.computed) = (reads, resets, computed);
    }

    /// Notes what a probe has found of what keeps the session here, or can't be seen.
    pub(super) fn note_found(&mut self, found: &Found) {
        self.pins = found.pins;
        if self.computed != Computed::No {
            self.pins.add(Pin::Hidden);
        }
        if self.lasting == Lasting::Yes {
            self.pins.add(Pin::Lasting);
        }
        let unseen = |name: &str| is_shown_to_few(name) && found.settings.get(name).is_none();
        if self.checkout.carried.iter().any(|(name, _)| unseen(name)) {
            // Its role may not see what is there still.
            self.left = Taint::Hidden;
        }
    }

    /// Notes what a group may leave behind.
    pub fn note(&mut self, plan: &Plan, executes: Executes) {
        self.taint = self.taint.max(plan.taint);
        self.left = self.left.max(plan.taint);
        if plan.taint != Taint::None || plan.effects.any(Effects::SET_LOCAL) {
            self.reads = Reads::Otherwise;
        }
        if !self.pins.is_empty() && plan.effects.any(Effects::CLOSE) {
            // Perhaps the last thing that keeps the session here.
            self.taint = self.taint.max(Taint::Visible);
        }
        if plan.may_draw() {
            self.checkout.drawn = Drawn::ByHolder;
        }
        if plan.need != Need::Anywhere {
            self.shown = ShownData::Yes;
        }
        if plan.effects.any(Effects::SET_CONFIG_DYNAMIC) || self.computed != Computed::No {
            self.computed = Computed::Yes;
        }
        if plan.effects.any(Effects::LASTING) && executes == Executes::Something {
            self.lasting = Lasting::Yes;
        }
    }
}
