//! The hands and eyes on the servers: one standing connection each, which surveys while all is
//! well and acts when it is not.
//!
//! Invariants:
//! - One server at a time: an act that hangs holds up no act on another. One that only waits for
//!   what it did to take effect can be told to give way to the next on the same server.
//! - An act does not wait for a survey that could as well be taken behind it.
//! - Every act is idempotent and has a deadline. One that failed or was late may have been done,
//!   and is asked for again; what it did is seen by the next look.
//! - Whoever acts holds the server's lock: an earlier holder has lost his session by then.
//! - What undoes an act is stored before it is done.
//! - A standby's connection string is the operator's: only host and port are ever changed.
//!
//! Deliberately absent: which act is due, and in which order. That is `failover::decide`.

mod demote;
mod error;
mod fence;
mod freeze;
mod hand;
mod line;
mod lock;
mod notes;
mod promote;
mod prove;
mod questions;
mod setting;
mod slots;
mod way;

pub use error::HandError;
pub use fence::Ending;
pub use hand::Address;
pub use promote::Promoted;

use crate::auth::Secret;
use crate::backend::{Login, Target};
use crate::control::config::ControlConfig;
use crate::control::hands::freeze::Lead;
use crate::control::hands::hand::{Bearing, Hand};
use crate::control::hands::notes::Notes;
use crate::control::start::targets;
use crate::failover::{
    Before, Branch, CutOff, Emptied, Fenced, Frozen, Gap, Instance, Known, Leader, Mode, Onlooker,
    Policy, Promise, ServerView, Statement, Survey, SurveyedRole, Upstream, idle_slots, no_restart,
    obstacle, prerequisites, promise_beside, rejoin,
};
use crate::pg::{Conninfo, Lsn};
use crate::store::Store;
use crate::tasks;
use crate::topology::{Role, ServerId};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// A server to have a hand on.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Where it is for us.
    pub target: Target,
    /// As whom.
    pub login: Login,
    /// Where it is for its standbys.
    pub address: Address,
}

/// A hand on each server.
#[derive(Debug)]
pub struct Hands {
    hands: Vec<Hand>,
}

/// Longest for each act. What takes longer is asked for again.
const FREEZE_MAX: Duration = Duration::from_secs(2);
const REPOINT_MAX: Duration = Duration::from_secs(3);
const PROMOTE_MAX: Duration = Duration::from_secs(4);
const PROVE_MAX: Duration = Duration::from_secs(1);
const FENCE_MAX: Duration = Duration::from_secs(3);
const DEMOTE_MAX: Duration = Duration::from_secs(3);
const CHECKPOINT_MAX: Duration = Duration::from_mins(1);
const ASK_MAX: Duration = Duration::from_secs(1);

impl Hands {
    /// A hand on each server, by its id. What undoes an act goes to `store`.
    pub fn new(servers: Vec<Reach>, instance: Instance, store: &Store) -> Self {
        let hand = |reach: Reach| {
            let notes = Notes::new(Arc::clone(&reach.target.name), store.clone());
            Hand::new(reach, instance, notes)
        };
        Self { hands: servers.into_iter().map(hand).collect() }
    }

    /// A hand on each server that the control plane is told of; `instance` is this process.
    pub fn of(config: &ControlConfig, instance: Instance, store: &Store) -> Self {
        let targets = targets(config);
        let servers = targets.into_iter().zip(&config.servers).map(|(target, server)| {
            let (host, port) = &server.replication_address;
            let address = Address { host: Arc::clone(host), port: *port };
            Reach { target, login: config.login(server, instance), address }
        });
        Self::new(servers.collect(), instance, store)
    }

    /// Surveys every server now, all at the same time, as one who only looks; what came of each,
    /// in their order.
    pub async fn survey_all(self: &Arc<Self>) -> Vec<Result<(), HandError>> {
        let surveys: Vec<_> = (0..self.hands.len())
            .map(|at| {
                let hands = Arc::clone(self);
                tasks::spawn("survey", async move {
                    let hand = hands.hands.get(at).ok_or(HandError::NoSuchServer)?;
                    hand.survey_now(Bearing::Watches).await
                })
            })
            .collect();
        let mut all = Vec::with_capacity(surveys.len());
        for survey in surveys {
            // One that panicked has said so.
            all.push(survey.await.unwrap_or(Err(HandError::Answer("survey"))));
        }
        all
    }

    /// Runs a statement of a remedy, without the lock: the operator asked for it.
    pub async fn apply(&self, server: ServerId, statement: &Statement) -> Result<(), HandError> {
        let mut line = self.hand(server)?.line(ASK_MAX).await?;
        line.ask(statement.run.reveal()).await?;
        Ok(())
    }

    /// Keeps a connection to each server open and its survey fresh, until `shutdown`; while the
    /// policy lets us act, it holds the server's lock. Must be called on the runtime that is to
    /// do it.
    pub fn keep(self: &Arc<Self>, policy: &Arc<ArcSwap<Policy>>, shutdown: &CancellationToken) {
        for at in 0..self.hands.len() {
            let (hands, ending) = (Arc::clone(self), shutdown.clone());
            let policy = Arc::clone(policy);
            // Nobody waits for it: dropped, it closes its connection.
            drop(tasks::spawn("hand", async move {
                let Some(hand) = hands.hands.get(at) else { return };
                tokio::select! {
                    () = ending.cancelled() => {}
                    () = hands.keep_one(hand, &policy) => {}
                }
            }));
        }
    }

    async fn keep_one(&self, hand: &Hand, policy: &ArcSwap<Policy>) {
        let mut retry = hand::RETRY_FIRST;
        loop {
            let bearing = match policy.load().mode {
                Mode::Off => Bearing::Watches,
                Mode::Manual | Mode::Auto => Bearing::Acts,
            };
            hand.calm().await;
            let mended = match hand.survey_now(bearing).await {
                Ok(()) => self.mend(hand).await,
                Err(error) => Err(error),
            };
            hand.rest(&mended, &mut retry).await;
        }
    }

    /// Puts back what our acts changed and what is of no use any more.
    async fn mend(&self, hand: &Hand) -> Result<(), HandError> {
        self.lift_fence(hand).await?;
        self.restore_archive(hand).await?;
        self.restore_link(hand).await?;
        self.empty_slots(hand).await
    }

    /// The fence of a primary that is a standby now is of no use.
    async fn lift_fence(&self, hand: &Hand) -> Result<(), HandError> {
        let fenced = hand
            .surveyed()
            .filter(|survey| survey.locked && !survey.is_primary() && survey.settings.is_fenced());
        if fenced.is_some() {
            let before = hand.notes.unfenced().await?;
            let mut line = hand.acting(FENCE_MAX).await?;
            fence::lift(&mut line, before.as_ref()).await?;
            hand.survey_soon();
        }
        Ok(())
    }

    /// The archive that a freeze took comes back once it can't mislead: the server is the primary,
    /// or streams from one on the very same branch.
    async fn restore_archive(&self, hand: &Hand) -> Result<(), HandError> {
        let Some(before) = hand.notes.cut().await? else { return Ok(()) };
        let Some(survey) = hand.surveyed().filter(|survey| survey.locked) else { return Ok(()) };
        let follows = match survey.role {
            SurveyedRole::Primary { .. } => true,
            SurveyedRole::Standby { receiving, .. } => {
                receiving == Some(true) && self.follows_a_primary(hand, &survey).await?
            }
        };
        if follows {
            let mut line = hand.acting(FREEZE_MAX).await?;
            freeze::restore_archive(&mut line, &before).await?;
            hand.notes.restored().await?;
        }
        Ok(())
    }

    /// The upstream that a freeze took comes back once the server was promoted.
    async fn restore_link(&self, hand: &Hand) -> Result<(), HandError> {
        let survey = hand.surveyed().filter(|survey| survey.locked && survey.is_primary());
        let before = survey.as_ref().map(|survey| &survey.before);
        if let Some(Before::Link { conninfo, emptied: Emptied::ByUs }) = before {
            let mut line = hand.acting(FREEZE_MAX).await?;
            freeze::restore_link(&mut line, conninfo).await?;
            hand.survey_soon();
        }
        Ok(())
    }

    /// Slots through which other servers received from what is a standby now keep no log for them
    /// any more, if it was replaced by us: another tool may keep them for reasons of its own.
    async fn empty_slots(&self, hand: &Hand) -> Result<(), HandError> {
        let address = (&*hand.address.host, hand.address.port);
        let idle = self.judge(|servers| idle_slots(&hand.name, address, servers));
        let locked = hand.surveyed().is_some_and(|survey| survey.locked);
        if idle.is_empty() || !locked || !hand.notes.replaced().await? {
            return Ok(());
        }
        let mut line = hand.acting(FREEZE_MAX).await?;
        for slot in idle {
            slots::empty(&mut line, &slot).await?;
            info!(event = "slot_emptied", "{}: slot {slot} kept the log for nobody", hand.name);
        }
        hand.survey_soon();
        Ok(())
    }

    async fn follows_a_primary(&self, hand: &Hand, survey: &Survey) -> Result<bool, HandError> {
        let Some(conninfo) = survey.upstream.read() else { return Ok(false) };
        let leads = |other: &&Hand| conninfo.leads_to(&other.address.host, other.address.port);
        let Some(upstream) = self.hands.iter().find(leads) else { return Ok(false) };
        let theirs = upstream.line(ASK_MAX).await?.look().await?;
        let own = hand.line(ASK_MAX).await?.look().await?;
        let primary = theirs.role == Role::Primary;
        Ok(primary && own.timeline.is_some() && own.timeline == theirs.timeline)
    }

    /// The last survey of a server, however old; `None`: never.
    pub fn survey(&self, server: ServerId) -> Option<Arc<Survey>> {
        self.hands.get(server.index())?.surveyed()
    }

    /// The last survey of the server of this name.
    pub fn survey_of(&self, server: &str) -> Option<Arc<Survey>> {
        self.hands.iter().find(|hand| &*hand.name == server)?.surveyed()
    }

    /// Has a server surveyed soon: something changed there.
    pub fn survey_soon(&self, server: ServerId) {
        if let Some(hand) = self.hands.get(server.index()) {
            hand.survey_soon();
        }
    }

    /// What the server of this name promises by its settings, as far as is known; `None`: that
    /// can't be told yet, and may be as recorded.
    pub fn promise(&self, primary: &str, recorded: &Promise) -> Option<Promise> {
        self.judge(|servers| promise_beside(recorded, primary, servers))
    }

    /// The commands that make this server a standby of that one again, by the last surveys; none
    /// where it was never surveyed.
    pub fn rejoin(&self, server: &str, branch: Branch, primary: &str) -> Vec<String> {
        let named = |name: &str| self.hands.iter().find(|hand| &*hand.name == name);
        let (Some(hand), Some(leader)) = (named(server), named(primary)) else { return Vec::new() };
        let Some(survey) = hand.surveyed() else { return Vec::new() };
        let others = self.hands.iter().filter(|other| &*other.name != server);
        let pattern = others.filter_map(Hand::surveyed).find_map(|other| other.link());
        let leader = Leader {
            host: &leader.address.host,
            port: leader.address.port,
            user: leader.user(),
            pattern: pattern.as_ref(),
        };
        rejoin(server, &survey, branch, &leader)
    }

    /// The servers that could not be made to restart as standbys, and what keeps each from it.
    pub fn unable_to_restart(&self) -> Vec<(Arc<str>, String)> {
        let kept = |hand: &Hand| no_restart(hand.surveyed().as_deref(), hand.user());
        let each = self.hands.iter().filter_map(|hand| Some((Arc::clone(&hand.name), kept(hand)?)));
        each.collect()
    }

    /// What would keep a switchover from this primary from its end, by the last surveys.
    pub fn obstacle(&self, policy: &Policy, primary: &str) -> Option<Arc<str>> {
        let user = self.hands.first().map_or("", Hand::user);
        self.judge(|servers| obstacle(servers, policy, (primary, user)))
    }

    /// What a failover lacks, by the last surveys.
    pub fn gaps(&self, policy: &Policy, onlooker: Onlooker) -> Vec<Gap> {
        let user = self.hands.first().map_or("", Hand::user);
        self.judge(|servers| prerequisites(servers, policy, (user, onlooker)))
    }

    /// What is to be said of all servers by the last surveys, however old.
    fn judge<T>(&self, judge: impl FnOnce(&[Known<'_>]) -> T) -> T {
        let surveys: Vec<_> = self.hands.iter().map(Hand::surveyed).collect();
        let servers = self.hands.iter().zip(&surveys);
        let servers: Vec<_> =
            servers.map(|(hand, survey)| (&hand.name, survey.as_deref())).collect();
        judge(&servers)
    }

    /// Why `auto` does not arm, by the last surveys, each in a line; empty: it may.
    pub fn lacking(&self, policy: &Policy) -> Vec<Arc<str>> {
        let gaps = self.gaps(policy, Onlooker::Proxy);
        gaps.iter().filter(|gap| gap.blocks()).map(|gap| gap.told().into()).collect()
    }

    /// Adds to a view what the survey knows: whether it replays with a delay, and whether its
    /// link to the primary is kept alive at least twice within `fresh`.
    pub fn complete(&self, view: &mut ServerView, primary: &str, fresh: Duration) {
        let Some(survey) = self.survey(view.id) else { return };
        view.tags.delayed = !survey.settings.apply_delay.is_zero();
        view.tags.cut_off = if survey.is_cut_off_by_us() { CutOff::ByUs } else { CutOff::Not };
        let primary = self.hands.iter().find(|hand| &*hand.name == primary);
        let primary = primary.and_then(Hand::surveyed);
        let keepalive = survey.keepalive(primary.as_deref().map(|survey| &survey.settings));
        view.keepalive = keepalive.is_some_and(|every| every * 2 <= fresh);
    }

    /// Whether a primary was found fenced, by this process or one before it.
    pub fn is_fenced(&self, server: ServerId) -> bool {
        self.survey(server).is_some_and(|survey| {
            matches!(survey.role, SurveyedRole::Primary { .. }) && survey.settings.is_fenced()
        })
    }

    /// Cuts a standby off from its upstream; returns up to where it holds the log.
    pub async fn freeze(&self, server: ServerId) -> Result<Frozen, HandError> {
        let hand = self.hand(server)?;
        let mut line = hand.acting(FREEZE_MAX).await?;
        let (role, now) = freeze::upstream(&mut line).await?;
        if role == Role::Primary {
            return Err(HandError::IsA(role));
        }
        freeze::is_possible(line.version(), &now)?;
        hand.notes.will_cut(&now).await?;
        // Polled first, and waited for with it: a failover pays for no second disk.
        let noted = hand.notes.of_freeze(&now);
        let (noted, frozen) = tokio::join!(noted, freeze::freeze(&mut line, &now));
        if let Err(error) = noted {
            debug!(server = %hand.name, error = %error, "the freeze is not noted");
        }
        hand.survey_soon();
        frozen
    }

    /// Gives a standby its upstream of before back.
    pub async fn unfreeze(&self, server: ServerId) -> Result<(), HandError> {
        let hand = self.hand(server)?;
        let before = known(hand).await?;
        let mut line = hand.acting(FREEZE_MAX).await?;
        freeze::unfreeze(&mut line, &before).await?;
        hand.notes.restored().await?;
        hand.survey_soon();
        Ok(())
    }

    /// Makes a standby follow another server, through the same slot, and waits until it streams
    /// from there. Once `elsewhere` is set it begins nothing more and waits no longer; what it has
    /// begun it ends before.
    pub async fn repoint(
        &self,
        server: ServerId,
        to: ServerId,
        elsewhere: &CancellationToken,
    ) -> Result<(), HandError> {
        let (hand, upstream) = (self.hand(server)?, self.hand(to)?);
        hand.acts();
        let before = self.way_of(hand, upstream).await?;
        // What it is set to now may be newer than what was noted.
        let (_, now) = freeze::upstream(&mut hand.line(ASK_MAX).await?).await?;
        // Until then nothing is done to the standby.
        let timeline = tokio::select! {
            () = elsewhere.cancelled() => return Err(HandError::GaveWay),
            timeline = upstream.lead(&now.slot) => timeline?,
        };
        let lead = Lead {
            host: &upstream.address.host,
            port: upstream.address.port,
            timeline: timeline.ok_or(HandError::Answer("timeline"))?,
        };
        let mut line = hand.acting(REPOINT_MAX).await?;
        freeze::repoint(&mut line, &before, &lead).await?;
        freeze::await_stream(&mut line, (upstream, lead), elsewhere).await?;
        hand.survey_soon();
        Ok(())
    }

    /// Makes a standby the primary.
    pub async fn promote(&self, server: ServerId) -> Result<Promoted, HandError> {
        let hand = self.hand(server)?;
        let before = hand.notes.unfenced().await?;
        let mut line = hand.acting(PROMOTE_MAX).await?;
        fence::lift(&mut line, before.as_ref()).await?;
        let promoted = promote::promote(&mut line).await;
        hand.survey_soon();
        promoted
    }

    /// Has a commit confirmed as the settings of this primary demand.
    pub async fn prove(&self, server: ServerId) -> Result<(), HandError> {
        let hand = self.hand(server)?;
        let mut line = hand.acting(PROVE_MAX).await?;
        prove::prove(&mut line, hand.reach()).await
    }

    /// Keeps a live primary from taking writes, from anybody; `ours` are the processes of this
    /// proxy's sessions there, which are left alone.
    pub async fn fence(&self, server: ServerId, ours: &[i32]) -> Result<Fenced, HandError> {
        let hand = self.hand(server)?;
        let mut line = hand.acting(FENCE_MAX).await?;
        if let Some(now) = fence::settings(&mut line).await? {
            hand.notes.of_fence(&now).await?;
        }
        let fenced = fence::fence(&mut line, ours).await;
        hand.survey_soon();
        fenced
    }

    /// Lets a primary take writes again, now and after its next start. One that is not fenced needs
    /// no more than that.
    pub async fn unfence(&self, server: ServerId) -> Result<(), HandError> {
        let hand = self.hand(server)?;
        let mut line = hand.acting(FENCE_MAX).await?;
        let free = fence::settings(&mut line).await?.is_some();
        demote::forget(&mut line).await?;
        if free {
            return Ok(());
        }
        let before = hand.notes.unfenced().await?;
        let before = before.ok_or(HandError::NothingNoted("synchronous_standby_names"))?;
        let unfenced = fence::unfence(&mut line, &before).await;
        hand.survey_soon();
        unfenced
    }

    /// Ends sessions of a primary that are not `spared`, and returns how many are left.
    pub async fn end_sessions(
        &self,
        server: ServerId,
        which: Ending,
        spared: &[i32],
    ) -> Result<usize, HandError> {
        let mut line = self.hand(server)?.acting(FENCE_MAX).await?;
        fence::end_sessions(&mut line, which, spared).await
    }

    /// How many sessions of a primary could write that are not `ours`.
    pub async fn foreign(&self, server: ServerId, ours: &[i32]) -> Result<usize, HandError> {
        fence::foreign(&mut self.hand(server)?.line(ASK_MAX).await?, ours).await
    }

    /// Where the log of a primary ends, with everything that it acknowledged.
    pub async fn position(&self, server: ServerId) -> Result<Lsn, HandError> {
        fence::end_of_log(&mut self.hand(server)?.line(ASK_MAX).await?).await
    }

    /// Makes a live primary restart as a standby of another server. Only a superuser can.
    pub async fn demote(&self, server: ServerId, to: ServerId) -> Result<(), HandError> {
        let (hand, upstream) = (self.hand(server)?, self.hand(to)?);
        hand.acts();
        let conninfo = self.link_of(hand, upstream).await?;
        let survey = hand.surveyed();
        upstream.lead(survey.as_ref().map_or("", |survey| &survey.upstream.slot)).await?;
        let mut line = hand.acting(DEMOTE_MAX).await?;
        let demoted = demote::demote(&mut line, &conninfo.text()).await;
        hand.survey_soon();
        demoted
    }

    /// Writes a checkpoint, on a connection of its own: it may take long.
    pub async fn checkpoint(&self, server: ServerId) -> Result<(), HandError> {
        self.hand(server)?.apart("CHECKPOINT", CHECKPOINT_MAX).await
    }

    fn hand(&self, server: ServerId) -> Result<&Hand, HandError> {
        self.hands.get(server.index()).ok_or(HandError::NoSuchServer)
    }

    /// How a server received the log when it did last; one that never did, as another does.
    async fn way_of(&self, hand: &Hand, to: &Hand) -> Result<Upstream, HandError> {
        if let Some(own) = hand.notes.upstream().await? {
            return Ok(own);
        }
        let link = self.link_of(hand, to).await?;
        Ok(Upstream {
            conninfo: Some(Secret::new(link.text())),
            restore_command: Secret::new(String::new()),
            slot: "".into(),
        })
    }

    /// How a server that was never a standby would follow another: as that one follows others,
    /// under its own name.
    async fn link_of(&self, hand: &Hand, to: &Hand) -> Result<Conninfo, HandError> {
        let (host, port) = (&*to.address.host, to.address.port);
        let own = hand.notes.upstream().await?;
        if let Some(own) = own.as_ref().and_then(Upstream::read) {
            return Ok(own.to_server(host, port));
        }
        let theirs = known(to).await?.read();
        let theirs = theirs.ok_or(HandError::NothingNoted("primary_conninfo"))?;
        let survey = hand.surveyed();
        let cluster = survey.as_ref().map_or("", |survey| &survey.settings.cluster_name);
        let link = theirs.to_server(host, port);
        Ok(if cluster.is_empty() {
            link.with("application_name", &hand.name)
        } else {
            link.with("application_name", cluster)
        })
    }
}

/// How a server received the log when it did last.
async fn known(hand: &Hand) -> Result<Upstream, HandError> {
    hand.notes.upstream().await?.ok_or(HandError::NothingNoted("primary_conninfo"))
}
