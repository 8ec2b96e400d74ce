//! What to do when the primary is lost, or is to be changed: the deciding half of failover.
//!
//! *Revoke, choose, promote, admit.* [`decide`] is given a [`Situation`] (the record, what was
//! seen of every server, what an operator ordered) and names the next [`Act`]s and the reason.
//! Each round starts from nothing: an act is idempotent, and what it did is seen by the next look,
//! so a coordinator that was restarted in the middle goes on from the [`Record`] alone.
//!
//! Invariants:
//! - Nobody is promoted before the record names him, and nobody is named before enough of the
//!   standbys that can acknowledge for the old primary are frozen.
//! - Unseen never leads to an act by itself: only what was seen to be gone, with no witness
//!   against it.
//! - The epoch only rises. An act belongs to the epoch under which it was decided.
//! - Loss that is not known is never taken for none.
//!
//! Deliberately absent: a clock, a socket, a store, a random choice; and a way to promote two.

mod act;
mod choose;
mod decide;
mod gap;
mod links;
mod loss;
mod obstacle;
mod planned;
mod policy;
mod prepared;
mod prerequisites;
mod preview;
mod promise;
mod promote;
mod record;
mod rejoin;
mod repair;
mod replace;
mod restart;
mod situation;
mod slots;
mod survey;
mod sync_names;
#[cfg(test)]
mod tests;
mod verdict;
mod why;

pub use act::{Act, Decision};
pub use decide::decide;
pub use gap::{Gap, Lack, Remedy, Statement, Weight};
pub use loss::{Acknowledged, Loss, MaxLoss};
pub use obstacle::obstacle;
pub use policy::{Demotion, Mode, Policy, Profile, Rejoin};
pub use prepared::{PREPARED_MAX, Prepared};
pub use prerequisites::{Onlooker, prerequisites};
pub use preview::{Preview, preview};
pub use promise::{Known, promise, promise_beside};
pub use record::{
    Appointed, By, Change, Choice, Kind, Operation, Phase, Promise, Record, WeakPromise,
};
pub use rejoin::{Branch, Leader, Lost, Place, rejoin};
pub use restart::no_restart;
pub use situation::{
    Arming, Catching, Checkpoint, CutOff, Demotable, Fenced, Frozen, Gate, Missing, Order,
    Receiver, ServerView, Sight, Situation, Standing, Tags, Testimony,
};
pub use slots::idle_slots;
pub use survey::{
    Before, Emptied, FENCE, Instance, ReceiverRow, Right, Rights, Settings, Slot, SlotState,
    Survey, SurveyedRole, Switch, Upstream,
};
pub use sync_names::{InvalidSyncNames, SyncMethod, SyncNames};
pub use verdict::{Verdict, verdict};
pub use why::{Astray, Loose, Refusal, Why};
