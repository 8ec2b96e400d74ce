//! Starts the control plane's tasks, and hands them what a reload changed.

use crate::backend::Target;
use crate::backend::random;
use crate::board::Board;
use crate::clock::Moment;
use crate::control::Bell;
use crate::control::Policy;
use crate::control::conductor;
use crate::control::conductor::Conductor;
use crate::control::config::{ControlConfig, LiveControl};
use crate::control::desk::Desk;
use crate::control::fold::{Book, Fold, Spec};
use crate::control::guard::Guard;
use crate::control::hands::Hands;
use crate::control::loader::Loader;
use crate::control::steward::{Bulletin, Steward};
use crate::control::watch::{Question, Watch};
use crate::failover;
use crate::failover::Instance;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::tasks;
use crate::timer;
use crate::topology::MAX_SERVERS;
use crate::topology::ServerId;
use crate::topology::Signals;
use crate::vital::Vital;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// What the control plane is connected with.
#[derive(Debug, Clone)]
pub struct Links {
    /// Where the topology is published.
    pub board: Arc<Board>,
    /// Where wishes and evidence come from.
    pub signals: Arc<Signals>,
    /// What they ring; from [`Bell::with_signals`].
    pub bell: Arc<Bell>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// What tells that a part of the control plane has ended.
    pub vital: Vital,
}

/// Why the control plane was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// More servers than one proxy can steer.
    #[error("{0} servers are configured; at most {MAX_SERVERS} are supported")]
    TooManyServers(usize),
}

/// The running control plane. Its tasks end when the token of [`Control::start`] is cancelled.
#[derive(Debug)]
pub struct Control {
    desk: Arc<Desk>,
    policy: Arc<ArcSwap<Policy>>,
    live: Arc<ArcSwap<LiveControl>>,
    failover: Arc<ArcSwap<failover::Policy>>,
    steward: Steward,
    metrics: Arc<Metrics>,
}

/// Questions that wait for one server's connection: at most one a guard and a few to spare.
const QUESTIONS_MAX: usize = MAX_SERVERS + 8;

/// Orders and previews that may wait for the conductor.
const ASKS_MAX: usize = 8;

/// How often time alone is looked at: a silent server changes nothing else.
const TICK: Duration = Duration::from_millis(100);

/// The shortest time between two distributions of wishes.
const DISTRIBUTION_PACE: Duration = Duration::from_millis(1);

impl Control {
    /// Starts watching. Must be called on the runtime that is to do it.
    pub fn start(
        config: ControlConfig,
        links: &Links,
        shutdown: &CancellationToken,
    ) -> Result<Self, StartError> {
        let count = config.servers.len();
        if count > MAX_SERVERS {
            return Err(StartError::TooManyServers(count));
        }
        let config = Arc::new(config);
        let desk = Arc::new(Desk::new(
            Fold::new(config.live.policy.clone(), specs(&config)),
            Arc::clone(&links.board),
            Arc::clone(&links.metrics),
        ));
        let instance = instance();
        let failover = Arc::new(ArcSwap::from_pointee(config.live.failover.clone()));
        links.metrics.failover.set_mode(config.live.failover.mode);
        let steward = match &config.store {
            Ok(store) => {
                let told = (&*config, instance);
                start_conductor(told, (store, &failover), (&desk, links), shutdown)
            }
            Err(why) => {
                let metrics = Arc::clone(&links.metrics);
                Steward::unavailable(why, Arc::clone(&failover), metrics)
            }
        };
        let control = Self {
            desk,
            failover,
            steward,
            metrics: Arc::clone(&links.metrics),
            policy: Arc::new(ArcSwap::from_pointee(config.live.policy.clone())),
            live: Arc::new(ArcSwap::from_pointee(config.live.clone())),
        };
        let targets = targets(&config);
        let pokes: Vec<Pokes> = targets.iter().map(|_| Pokes::default()).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            targets.iter().map(|_| mpsc::channel::<Question>(QUESTIONS_MAX)).unzip();
        let senders: Arc<[_]> = senders.into();
        for ((target, questions), pokes) in targets.into_iter().zip(receivers).zip(&pokes) {
            let Some(server) = config.servers.get(target.server.index()) else { continue };
            let guard = Guard {
                standby: target.server,
                desk: Arc::clone(&control.desk),
                signals: Arc::clone(&links.signals),
                poke: Arc::clone(&pokes.guard),
                servers: Arc::clone(&senders),
            };
            let watch = Watch {
                id: target.server,
                login: config.login(server, instance),
                target,
                policy: Arc::clone(&control.policy),
                desk: Arc::clone(&control.desk),
                signals: Arc::clone(&links.signals),
                metrics: Arc::clone(&links.metrics),
                poke: Arc::clone(&pokes.watch),
                questions,
            };
            until((shutdown, &links.vital), "watch", watch.run());
            until((shutdown, &links.vital), "guard", guard.run());
        }
        control.start_rest((config, instance), links, pokes, shutdown);
        Ok(control)
    }

    fn start_rest(
        &self,
        (config, instance): (Arc<ControlConfig>, Instance),
        links: &Links,
        pokes: Vec<Pokes>,
        shutdown: &CancellationToken,
    ) {
        let catalogs = Arc::new(Notify::new());
        let loader = Loader {
            config,
            instance,
            live: Arc::clone(&self.live),
            desk: Arc::clone(&self.desk),
            signals: Arc::clone(&links.signals),
            poke: Arc::clone(&catalogs),
            shutdown: shutdown.clone(),
        };
        until((shutdown, &links.vital), "catalogs", loader.run());
        until((shutdown, &links.vital), "tick", tick(Arc::clone(&self.desk)));
        let (signals, bell) = (Arc::clone(&links.signals), Arc::clone(&links.bell));
        until((shutdown, &links.vital), "wishes", distribute(signals, bell, pokes, catalogs));
    }

    /// The handle for operators.
    pub fn steward(&self) -> Steward {
        self.steward.clone()
    }

    /// Takes over what a reload changed. The servers themselves stay the same.
    pub fn adjust(&self, live: LiveControl) {
        self.policy.store(Arc::new(live.policy.clone()));
        self.metrics.failover.set_mode(live.failover.mode);
        self.failover.store(Arc::new(live.failover.clone()));
        self.desk.adjust(&live.policy, &live.weights);
        self.live.store(Arc::new(live));
    }
}

/// Starts whoever conducts changes of the primary.
fn start_conductor(
    (config, instance): (&ControlConfig, Instance),
    (store, policy): (&Store, &Arc<ArcSwap<failover::Policy>>),
    (desk, links): (&Arc<Desk>, &Links),
    shutdown: &CancellationToken,
) -> Steward {
    let hands = Arc::new(Hands::of(config, instance, store));
    hands.keep(policy, shutdown);
    desk.keep(Book::Unread);
    let (sender, asks) = mpsc::channel(ASKS_MAX);
    let bulletin = Arc::new(Bulletin::new(Arc::clone(&links.metrics)));
    let steward =
        Steward::new(sender, Arc::clone(&bulletin), Arc::clone(policy)).with_hands(&hands);
    let conductor = Conductor::new(conductor::Parts {
        desk: Arc::clone(desk),
        hands,
        store: store.clone(),
        signals: Arc::clone(&links.signals),
        metrics: Arc::clone(&links.metrics),
        policy: Arc::clone(policy),
        names: config.servers.iter().map(|server| Arc::clone(&server.name)).collect(),
        priorities: config.servers.iter().map(|server| server.priority).collect(),
        asks,
        bulletin,
    });
    until((shutdown, &links.vital), "conductor", conductor.run());
    steward
}

/// What wakes a server's tasks.
#[derive(Debug, Default)]
struct Pokes {
    watch: Arc<Notify>,
    guard: Arc<Notify>,
}

/// The wishes that concern one server, as they were last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wishes {
    position: Moment,
    sample: Moment,
    visibility: Moment,
    lost: u64,
}

impl Wishes {
    fn read(signals: &Signals, server: ServerId) -> Self {
        Self {
            position: signals.wanted_position(),
            sample: signals.wanted_sample(server),
            visibility: signals.wanted_visibility(server),
            lost: signals.lost_backends(server),
        }
    }
}

/// Wakes the tasks whose wishes changed, for ever.
async fn distribute(
    signals: Arc<Signals>,
    bell: Arc<Bell>,
    pokes: Vec<Pokes>,
    catalogs: Arc<Notify>,
) {
    let ids = || (0..).map(ServerId);
    let mut last: Vec<_> =
        ids().zip(&pokes).map(|(server, _)| Wishes::read(&signals, server)).collect();
    loop {
        // Whatever was wished before this is seen now, whatever comes after it rings the bell.
        signals.about_to_sleep();
        for ((server, pokes), last) in ids().zip(&pokes).zip(&mut last) {
            let now = Wishes::read(&signals, server);
            if now != *last {
                *last = now;
                pokes.watch.notify_one();
                pokes.guard.notify_one();
            }
        }
        catalogs.notify_one();
        bell.heard().await;
        timer::sleep(DISTRIBUTION_PACE).await;
    }
}

async fn tick(desk: Arc<Desk>) {
    let mut tick = timer::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        desk.tick();
    }
}

/// Runs a task until it ends or everything does; if it panics, everything does.
fn until(
    (shutdown, vital): (&CancellationToken, &Vital),
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let ending = shutdown.clone();
    // Nobody waits for it: it holds nothing that must be put in order.
    drop(tasks::spawn(
        name,
        vital.clone().keep(name, async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = task => {}
            }
        }),
    ));
}

/// What this process is called at the servers. Without randomness its process has to do: an
/// instance that is not told from another only fails to arm.
fn instance() -> Instance {
    Instance(random().map_or_else(|_| std::process::id(), u32::from_be_bytes))
}

fn specs(config: &ControlConfig) -> Vec<Spec> {
    let weights = config.live.weights.iter().copied().chain(std::iter::repeat(1));
    let specs = config.servers.iter().zip(weights).map(|(server, weight)| Spec {
        name: Arc::clone(&server.name),
        host: Arc::clone(&server.host),
        port: server.port,
        reached: server.replication_address.clone(),
        weight,
    });
    specs.collect()
}

pub(crate) fn targets(config: &ControlConfig) -> Vec<Target> {
    let servers = (0..).map(ServerId).zip(&config.servers);
    let target = |(id, server): (ServerId, &crate::control::config::WatchedServer)| {
        Target::new(id, &server.name, &server.host, server.port, &config.tls)
    };
    servers.map(target).collect()
}
