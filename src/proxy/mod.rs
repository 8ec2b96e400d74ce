//! The assembly: builds everything once, in order, and takes it down in reverse.
//!
//! Order: metrics, board and signals; the control plane and the admin endpoints on a runtime of
//! their own, so that a busy shard can't starve them; the shards, one thread and one runtime
//! each; last the listeners, when there is somebody to serve those who come.

mod accept;
mod build;
mod explain;
mod reload;
mod shard;

use crate::cli::exit::Exit;
use crate::config::{Config, Limits, Request};
use build::Parts;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

/// Runs the proxy until a signal ends it. `request` is what a reload reads again.
pub fn run(config: Config, request: &Request) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the control runtime could not be started");
            return Exit::Failed;
        }
    };
    runtime.block_on(async {
        match Parts::build(&config).await {
            Ok(parts) => serve(parts, config, request).await,
            Err(error) => {
                crate::cli::say::talk(&format!("error: {error}"));
                Exit::Failed
            }
        }
    })
}

async fn serve(parts: Parts, config: Config, request: &Request) -> Exit {
    let signals = Signals::listen();
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals can't be listened to");
            return Exit::Failed;
        }
    };
    let mut config = config;
    info!(
        listen = %parts.addresses().join(" "),
        http = parts.http(),
        servers = config.servers.len(),
        shards = parts.shards(),
        "ready"
    );
    while let Told::Reload = signals.next().await {
        config = reload::reload(&parts, config, request);
    }
    let limits = config.limits;
    drain(parts, limits, &mut signals).await;
    Exit::Done
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
    fn listen() -> std::io::Result<Self> {
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
