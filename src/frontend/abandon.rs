//! A read whose client is gone is ended at its server: otherwise it would run on for nobody, for
//! hours perhaps, as a server notices the loss only when it writes.
//!
//! A cancel alone is not enough. One that comes before the server has begun with the statement
//! finds nothing to cancel and is forgotten, and the statement begins behind it. So the cancel is
//! repeated until the server has closed the connection, which was closed on our side before: then
//! it is known that nothing runs any more. The backend's place in its pool is taken until then,
//! as it is on the server.

use crate::backend;
use crate::frontend::cancel::CANCEL_TIMEOUT;
use crate::pool::{Checkout, Running};
use crate::tasks;
use crate::timer;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Pause before the cancel is repeated for the first time; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two cancels.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long it is tried. What can't be cancelled in that time (a function that never looks, a
/// server that can't be reached) is left to itself.
const PATIENCE: Duration = Duration::from_mins(1);

/// Ends what this backend runs, and the backend.
pub(super) fn end(checkout: Checkout) {
    tasks::spawn_local("abandoned read", async move {
        let server = checkout.server();
        let ended = timer::timeout(PATIENCE, cancel_until_closed(checkout)).await;
        if ended.is_err() {
            tracing::warn!(%server, "a read that nobody waits for could not be cancelled");
        }
    });
}

async fn cancel_until_closed(mut checkout: Checkout) {
    let running = Arc::clone(&checkout.running);
    let Running { target, pid, key, .. } = &*running;
    let stream = &mut checkout.backend.stream;
    // Half a message was perhaps on its way; it will never be whole. A server that reads nothing
    // before it is done is not waited for.
    if let Err(error) = stream.end_writing() {
        tracing::debug!(%error, "the connection of an abandoned read had ended");
    }
    let mut rest = [0; 8 * 1024];
    let mut pause = PAUSE_MIN;
    loop {
        if let Err(error) = backend::cancel(target, *pid, key, CANCEL_TIMEOUT).await {
            tracing::debug!(%error, "the cancel of an abandoned read did not get through");
        }
        let closed = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
        if timer::timeout(pause, closed).await.is_ok() {
            return;
        }
        pause = PAUSE_MAX.min(2 * pause);
    }
}
