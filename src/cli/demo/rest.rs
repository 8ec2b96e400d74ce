//! Waiting in a scene that runs on a thread of its own, until somebody asks to stop.

use crate::cli::exit::Exit;
use std::thread;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest time in which a request to stop goes unheard.
const SLICE: Duration = Duration::from_millis(50);

/// Lets a scene wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Rest(CancellationToken);

impl Rest {
    /// From now on nothing waits any more.
    pub(super) fn end(&self) {
        self.0.cancel();
    }

    /// Waits for so long.
    ///
    /// # Errors
    /// How the command ends if somebody asked to stop.
    pub(super) fn take(&self, time: Duration) -> Result<(), Exit> {
        let mut left = time;
        while !left.is_zero() && !self.0.is_cancelled() {
            let slice = left.min(SLICE);
            thread::sleep(slice);
            left = left.saturating_sub(slice);
        }
        if self.0.is_cancelled() { Err(Exit::Done) } else { Ok(()) }
    }
}
