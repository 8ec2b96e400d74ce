//! The assembly: builds everything once, in order, and takes it down in reverse.
//!
//! Order: metrics, board and signals; the control plane and the admin endpoints on a runtime of
//! their own, so that a busy shard can't starve them; the shards, one thread and one reactor
//! each; last the listeners, when there is somebody to serve those who come.

mod accept;
mod build;
mod explain;
mod files;
mod reload;
mod scheduling;
mod shard;
mod state;

use crate::config::{Config, Limits, Request};
use build::Parts;
pub use build::RunError;
pub(crate) use build::control_config;
pub use files::unusable_files;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Runs the proxy until a signal ends it. `request` is what a reload reads again.
///
/// # Errors
/// [`RunError`]; the process is to end then.
pub fn run(config: Config, request: &Request) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let parts = Parts::build(&config).await?;
        let signals = Signals::listen()?;
        serve(parts, config, request, signals).await
    });
    if matches!(ended, Err(RunError::Failed)) {
        // Nobody is waited for who may never come: the process ends.
        runtime.shutdown_background();
    }
    ended
}

async fn serve(
    parts: Parts,
    config: Config,
    request: &Request,
    mut signals: Signals,
) -> Result<(), RunError> {
    let mut config = config;
    info!(
        listen = %parts.addresses().join(" "),
        http = parts.http(),
        servers = config.servers.len(),
        shards = parts.shards(),
        "ready"
    );
    let vital = parts.vital();
    loop {
        tokio::select! {
            biased;
            // As abruptly as by a crash: what is left of it may be half done.
            () = vital.failed() => return Err(RunError::Failed),
            told = signals.next() => match told {
                Told::Reload => config = reload::reload(&parts, config, request),
                Told::Stop => break,
            },
        }
    }
    drain(parts, config.limits, &mut signals).await;
    Ok(())
}

/// Lets clients finish, unless told twice to stop, and takes everything down.
async fn drain(parts: Parts, limits: Limits, signals: &mut Signals) {
    info!(delay = ?limits.drain_delay, timeout = ?limits.drain_timeout, "draining");
    let drained = parts.drain(limits.drain_delay, limits.drain_timeout);
    tokio::select! {
        left = drained => match left {
            0 => info!("every client has left"),
            left => warn!(clients = left, "clients were still there when the time was up"),
        },
        () = signals.stop() => warn!("told twice to stop: not waiting for clients"),
    }
    parts.stop().await;
}

/// What the process is told from outside.
enum Told {
    Reload,
    Stop,
}

struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
        }
    }

    async fn stop(&mut self) {
        loop {
            if let Told::Stop = self.next().await {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Request;

    /// Else it would look alive.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn when_a_part_has_failed_it_ends_with_an_error() {
        let file =
            "listen = [\"127.0.0.1:0\"]\nhttp = \"off\"\n[servers]\nhosts = [\"127.0.0.1:1\"]";
        let request = Request::default();
        let config = request.load_text("test.toml", file.to_owned()).unwrap().config;
        let parts = Parts::build(&config).await.unwrap();
        let vital = parts.vital();
        let signals = Signals::listen().unwrap();
        let (ended, ()) =
            tokio::join!(serve(parts, config, &request, signals), async { vital.fail("part") });
        assert!(matches!(ended, Err(RunError::Failed)), "{ended:?}");
    }
}
