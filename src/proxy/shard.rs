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
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
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
        let vital = common.vital.clone();
        let shard = Rc::new(Shard::new(index, common));
        let ran = reactor::run(vital.clone().keep("shard", async {
            drop(begun.send(Ok(())));
            run(shard, health, inlets, stop).await;
        }));
        if let Err(error) = ran {
            error!(event = "shard", %error, "shard {index} ended");
            vital.fail("shard");
            drop(begun.send(Err(error)));
        }
    })?;
    outcome.recv().map_err(io::Error::other)??;
    Ok(thread)
}

async fn run(shard: Rc<Shard>, health: Arc<Health>, inlets: Inlets, stop: CancellationToken) {
    let Inlets { arrivals, posts, calls } = inlets;
    let here = Rc::clone(&shard);
    reactor::judge_late(move || here.late());
    let news = shard.shared.board.subscribe();
    // After that, so that none is missed.
    shard.on_news();
    keep("news", &shard, tell(Rc::clone(&shard), news));
    for_each("arrivals", arrivals, &shard, |shard, arrival: Arrival| arrival.enter(shard));
    for_each("posts", posts, &shard, |shard, post: Post| post.begin(shard));
    for_each("calls", calls, &shard, |shard, pool| shard.pools.donate(&pool));
    keep("sweep", &shard, sweep(Rc::clone(&shard), health));
    tokio::select! {
        () = shard.shared.drain.cancelled() => shard.close(),
        () = stop.cancelled() => {}
    }
    stop.cancelled().await;
}

/// Has a task of its own see to each thing that comes, so that nobody else is asked for it.
fn for_each<T: 'static>(
    name: &'static str,
    mut things: mpsc::Receiver<T>,
    shard: &Rc<Shard>,
    see_to: impl Fn(&Rc<Shard>, T) + 'static,
) {
    let here = Rc::clone(shard);
    keep(name, shard, async move {
        while let Some(thing) = things.recv().await {
            see_to(&here, thing);
            poll_fn(|context| reactor::poll_turn(context)).await;
        }
    });
}

/// Starts a task of the shard's own, without which it is none.
pub(super) fn keep(
    name: &'static str,
    shard: &Rc<Shard>,
    task: impl Future<Output = ()> + 'static,
) {
    tasks::spawn_local(name, shard.shared.vital.clone().keep(name, task));
}

async fn tell(shard: Rc<Shard>, mut news: watch::Receiver<u64>) {
    while news.changed().await.is_ok() {
        shard.on_news();
    }
}

async fn sweep(shard: Rc<Shard>, health: Arc<Health>) {
    let mut tick = timer::interval(SWEEP_PAUSE);
    // After a pause of the machine one sweep does.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = clock::now();
        health.beat(shard.pools.shard, now);
        shard.pools.sweep(now);
        shard.look_at_times(now);
        let topology = shard.topology();
        for database in &topology.vacated {
            shard.pools.leave(database);
        }
        shard.shared.pools.renew_each(topology.renewed.iter().map(|((database, role), at)| {
            let role = Some(&**role).filter(|role| !role.is_empty());
            ((role, Some(&**database)), *at)
        }));
    }
}
