//! A shard: one thread, its clients and its idle backends.

use crate::admin::Health;
use crate::clock;
use crate::config::Scheduling;
use crate::frontend;
use crate::frontend::Shard;
use crate::metrics::claim_row;
use crate::pool;
use crate::proxy::accept::{Arrival, Post};
use crate::proxy::scheduling::be_a_batch_thread;
use crate::reactor;
use crate::tasks;
use crate::timer;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Pause between two looks at the idle backends.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Connections that may wait to be taken over by a shard.
pub(super) const ARRIVALS_MAX: usize = 1024;
/// Requests for idle backends that may wait; one that finds no room is served by the sweep.
pub(super) const CALLS_MAX: usize = 1024;

/// What reaches a shard from outside.
#[derive(Debug)]
pub(super) struct Inlets {
    /// Connections that were accepted.
    pub arrivals: mpsc::Receiver<Arrival>,
    /// Places to accept at.
    pub posts: mpsc::Receiver<Post>,
    /// Pools in which a client of another shard waits.
    pub calls: mpsc::Receiver<Arc<pool::Shared>>,
}

/// Starts a shard; it ends when `stop` is set. The runtime that this is called in keeps its timers.
pub(super) fn start(
    index: usize,
    (common, health): (Arc<frontend::Shared>, Arc<Health>),
    (inlets, scheduling): (Inlets, Scheduling),
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    // It begins where it runs, and a failure is told to who starts it.
    let (begun, outcome) = std::sync::mpsc::sync_channel(1);
    let keeper = Handle::current();
    let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        // Its timers, and whatever else a shard has no use for often, are the runtime's.
        let _runtime = keeper.enter();
        if scheduling == Scheduling::Batch
            && let Err(error) = be_a_batch_thread()
        {
            info!(event = "scheduling", %error, "shard {index} is woken before whoever runs");
        }
        claim_row();
        let shard = Rc::new(Shard::new(index, common));
        let ran = reactor::run(async {
            drop(begun.send(Ok(())));
            run(shard, &health, inlets, stop).await;
        });
        if let Err(error) = ran {
            error!(event = "shard", %error, "shard {index} ended");
            drop(begun.send(Err(error)));
        }
    })?;
    outcome.recv().map_err(io::Error::other)??;
    Ok(thread)
}

async fn run(shard: Rc<Shard>, health: &Health, mut inlets: Inlets, stop: CancellationToken) {
    let mut sweep = timer::interval(SWEEP_PAUSE);
    // Before the first look, so that none is missed.
    let mut news = shard.shared.board.subscribe();
    shard.on_news();
    let drain = shard.shared.drain.clone();
    let mut closing = false;
    loop {
        tokio::select! {
            Ok(()) = news.changed() => shard.on_news(),
            Some(arrival) = inlets.arrivals.recv() => {
                let Arrival { socket, inlet, place } = arrival;
                let client = frontend::admit(Rc::clone(&shard), (socket, inlet), place);
                tasks::spawn_local("client", client);
            }
            Some(post) = inlets.posts.recv() => post.begin(),
            Some(pool) = inlets.calls.recv() => shard.pools.donate(&pool),
            _ = sweep.tick() => {
                let now = clock::now();
                health.beat(shard.pools.shard, now);
                shard.pools.sweep(now);
                shard.look_at_times(now);
                let topology = shard.topology();
                for database in &topology.vacated {
                    shard.pools.leave(database);
                }
                for ((database, role), at) in &topology.renewed {
                    let role = Some(&**role).filter(|role| !role.is_empty());
                    shard.shared.pools.renew((role, Some(database)), *at);
                }
            }
            () = drain.cancelled(), if !closing => {
                closing = true;
                shard.close();
            }
            () = stop.cancelled() => return,
        }
    }
}
