//! One act, carried out on a task of its own.

use crate::clock;
use crate::clock::Moment;
use crate::control::conductor::memory::Done;
use crate::control::hands::{HandError, Hands};
use crate::failover::Act;
use crate::tasks;
use crate::timer;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longest for one act; a promotion that replays a backlog is asked for again.
const ACT_MAX: Duration = Duration::from_secs(5);
/// A checkpoint may take as long as the disk does.
const CHECKPOINT_MAX: Duration = Duration::from_mins(1);

/// What came of an act.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Which.
    pub act: Act,
    /// When it was begun.
    pub began: Moment,
    /// What it came to.
    pub result: Result<Done, HandError>,
}

/// Begins an act; what comes of it goes to `outcomes`. Once `elsewhere` is set it does not wait any
/// more for what it did to take effect.
pub(super) fn carry_out(
    act: Act,
    elsewhere: CancellationToken,
    hands: &Arc<Hands>,
    outcomes: mpsc::Sender<Outcome>,
) {
    let hands = Arc::clone(hands);
    let began = clock::now();
    // Nobody waits for it: its outcome is its end.
    drop(tasks::spawn("act", async move {
        let within = if matches!(act, Act::Checkpoint(_)) { CHECKPOINT_MAX } else { ACT_MAX };
        let done = timer::timeout(within, done(&act, &hands, &elsewhere)).await;
        let result = done.unwrap_or(Err(HandError::Late(within)));
        // Without a conductor there is nobody to tell.
        outcomes.send(Outcome { act, began, result }).await.unwrap_or_default();
    }));
}

async fn done(act: &Act, hands: &Hands, elsewhere: &CancellationToken) -> Result<Done, HandError> {
    // While a change is under way this proxy sends no statement, and nobody's is spared.
    let ours: &[i32] = &[];
    match act {
        Act::Freeze(server) => return hands.freeze(*server).await.map(Done::Frozen),
        Act::Fence(server) => return hands.fence(*server, ours).await.map(Done::Fenced),
        Act::Promote(server) => drop(hands.promote(*server).await?),
        Act::Unfreeze(server) => hands.unfreeze(*server).await?,
        Act::Repoint { server, to } => hands.repoint(*server, *to, elsewhere).await?,
        Act::Prove(server) => hands.prove(*server).await?,
        Act::Unfence(server) => hands.unfence(*server).await?,
        Act::Demote { server, to } => hands.demote(*server, *to).await?,
        Act::Checkpoint(server) => hands.checkpoint(*server).await?,
        // Both are the conductor's own.
        Act::Write(_) | Act::Answer(_) => {}
    }
    Ok(Done::Plain)
}

/// The act in a line of the log.
pub(super) const fn told(act: &Act) -> &'static str {
    match act {
        Act::Write(_) => "write the record",
        Act::Freeze(_) => "freeze",
        Act::Unfreeze(_) => "unfreeze",
        Act::Repoint { .. } => "repoint",
        Act::Promote(_) => "promote",
        Act::Prove(_) => "prove",
        Act::Fence(_) => "fence",
        Act::Unfence(_) => "unfence",
        Act::Demote { .. } => "demote",
        Act::Checkpoint(_) => "checkpoint",
        Act::Answer(_) => "answer",
    }
}
