//! When the demo is asked to stop.

use crate::timer;
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Listens for Ctrl-C and for SIGTERM.
#[derive(Debug)]
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

/// Whether somebody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To stop.
    Yes,
    /// Nothing, so far.
    No,
}

impl Stop {
    /// From now on neither signal ends us by itself.
    pub(super) fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate })
    }

    /// Waits for so long, or until somebody asks.
    pub(super) async fn within(&mut self, time: Duration) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Yes,
            _ = self.terminate.recv() => Asked::Yes,
            () = timer::sleep(time) => Asked::No,
        }
    }
}
