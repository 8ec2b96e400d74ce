//! One task a server: looks at it, and answers the wishes that need its connection.
//!
//! The task alone owns the connection, so questions to one server run in order; a server that
//! stalls delays nobody else. Wishes are read from [`Signals`] at a pace: however many sessions
//! want a position, one question in [`PACE`] answers them all.

use crate::backend::{Login, Target};
use crate::clock;
use crate::clock::Moment;
use crate::control::Policy;
use crate::control::desk::Desk;
use crate::control::evidence::Attempt;
use crate::control::fold::{PrimaryAt, Report};
use crate::control::link::{Dialect, Link, LinkError};
use crate::control::look::{Row, Statistics};
use crate::metrics::CheckResult;
use crate::metrics::Metrics;
use crate::pg::Lsn;
use crate::timer;
use crate::topology::Role;
use crate::topology::ServerId;
use crate::topology::Signals;
use crate::topology::Topology;
use crate::topology::Unseen;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, warn};

/// Between two positions that are asked for because sessions want them: 200 a second cost a
/// server about 0.2 % of a core, and a floor is known within some 5 ms.
const PACE: Duration = Duration::from_millis(5);

/// The first pause after a failed look; doubled up to the interval between looks.
const RETRY_FIRST: Duration = Duration::from_millis(20);

/// How long the primary's unflushed log may keep sessions from standbys before it is kicked: long
/// enough for a group of commits to be flushed by themselves.
const UNFLUSHED_MAX: Duration = Duration::from_millis(20);

/// The shortest time between two kicks: with `synchronous_commit=off` under load, each is a
/// flush that the operator meant to save.
const KICK_GAP: Duration = Duration::from_millis(50);

/// A session's wish counts for so long as a reason to kick.
const WISH_AGE_MAX: Duration = Duration::from_secs(1);

/// What a task needs to know.
pub(crate) struct Watch {
    pub(crate) id: ServerId,
    pub(crate) target: Target,
    pub(crate) login: Login,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) metrics: Arc<Metrics>,
    /// Rung when a wish for this server changed.
    pub(crate) poke: Arc<Notify>,
    /// Questions of others.
    pub(crate) questions: mpsc::Receiver<Question>,
}

/// A question that another task has for this server.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) sql: String,
    pub(crate) reply: oneshot::Sender<Vec<Row>>,
}

/// The task's own state.
struct Watcher {
    watch: Watch,
    link: Option<Link>,
    role: Option<Role>,
    /// Backends lost so far: one more is a reason to look now.
    lost: u64,
    retry: Duration,
    sampled: Moment,
    /// What the primary has to flush for sessions, and since when.
    unflushed: Option<(Lsn, Moment)>,
    kicked: Moment,
    /// What the operator was told about our privileges.
    told: Option<(Dialect, Statistics)>,
    /// What the operator was told about the looks that fail.
    complaint: Option<String>,
}

impl Watch {
    /// Watches the server for ever. Dropped, it closes the connection.
    pub(crate) async fn run(self) {
        let mut watcher = Watcher {
            watch: self,
            link: None,
            role: None,
            lost: 0,
            retry: RETRY_FIRST,
            sampled: Moment::ORIGIN,
            unflushed: None,
            kicked: Moment::ORIGIN,
            told: None,
            complaint: None,
        };
        loop {
            let due = match watcher.look().await {
                Ok(()) => watcher.after_answer(),
                Err(Missed::Broken) => clock::now(),
                Err(Missed::Failed) => watcher.after_failure(),
            };
            watcher.serve(due).await;
        }
    }
}

/// How a look failed.
enum Missed {
    /// The standing connection broke: that may be all, so it is opened anew at once.
    Broken,
    /// The server could not be looked at.
    Failed,
}

impl Watcher {
    /// One look, reported.
    async fn look(&mut self) -> Result<(), Missed> {
        let began = clock::now();
        let within = self.watch.policy.load().check_timeout;
        let standing = self.link.is_some();
        self.lost = self.watch.signals.lost_backends(self.watch.id);
        let looked = self.look_within(within).await;
        let ended = clock::now();
        let error = match looked {
            Ok(()) => {
                self.complaint = None;
                self.watch.metrics.servers.checked(
                    self.watch.id,
                    CheckResult::Ok,
                    ended.since(began),
                );
                return Ok(());
            }
            Err(error) => error,
        };
        let why = error.unseen();
        let gone = standing && !error.leaves_usable();
        if !error.leaves_usable() {
            self.hang_up();
        }
        self.complain(why, &error);
        if gone && matches!(why, Unseen::Broken | Unseen::NotReady) {
            return Err(Missed::Broken);
        }
        let result = match why {
            Unseen::Silent => CheckResult::Timeout,
            Unseen::NotYet
            | Unseen::Refused
            | Unseen::Broken
            | Unseen::Unresolved
            | Unseen::LoginRefused
            | Unseen::NotReady
            | Unseen::Full
            | Unseen::NotPostgres
            | Unseen::Tls
            | Unseen::QueryFailed => CheckResult::Error,
        };
        self.watch.metrics.servers.checked(self.watch.id, result, ended.since(began));
        self.report(Report::Failed(Attempt { began, ended, why }));
        Err(Missed::Failed)
    }

    async fn look_within(&mut self, within: Duration) -> Result<(), LinkError> {
        let link = if let Some(link) = &mut self.link {
            link
        } else {
            let link = Link::open(&self.watch.target, &self.watch.login, within).await?;
            self.link.insert(link)
        };
        let look = link.look(within).await?;
        let facts = link.facts;
        let privileges = (link.dialect(), facts.statistics);
        self.role = Some(look.role);
        self.tell(privileges);
        let (system, version) = (facts.system, facts.version);
        self.report(Report::Looked { system, version, look: Box::new(look) });
        Ok(())
    }

    fn after_answer(&mut self) -> Moment {
        self.retry = RETRY_FIRST;
        clock::now() + self.watch.policy.load().check_interval
    }

    fn after_failure(&mut self) -> Moment {
        let pause = self.retry;
        self.retry = (pause * 2).min(self.watch.policy.load().check_interval);
        clock::now() + pause
    }

    /// Answers wishes and questions until the next look is due, or a backend was lost.
    async fn serve(&mut self, due: Moment) {
        loop {
            let now = clock::now();
            if now >= due {
                return;
            }
            let wake = self.next_sample(now).map_or(due, |sample| sample.min(due));
            tokio::select! {
                () = timer::sleep(wake.since(now)) => {
                    if wake < due && self.sample().await.is_err() {
                        return;
                    }
                }
                () = self.watch.poke.notified() => {
                    if self.watch.signals.lost_backends(self.watch.id) != self.lost {
                        return;
                    }
                }
                () = self.watch.desk.look_wanted(self.watch.id) => return,
                // Most likely it is gone; a look finds out.
                () = stirs(self.link.as_ref()) => return,
                Some(question) = self.watch.questions.recv() => {
                    if self.answer(question).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// When a position is to be asked for, if one is wanted.
    fn next_sample(&self, now: Moment) -> Option<Moment> {
        self.link.as_ref().filter(|link| link.knows_timeline())?;
        let topology = self.watch.desk.topology();
        let paced = self.sampled + PACE;
        match self.role? {
            Role::Primary if topology.writable() == Some(self.watch.id) => {
                let wanted = self.watch.signals.wanted_position();
                let newest = topology.samples.newest().map_or(Moment::ORIGIN, |s| s.sent_at);
                let resolving = wanted != Moment::ORIGIN && newest <= wanted;
                let flushing = self.unflushed.map(|(_, since)| since + UNFLUSHED_MAX);
                let wanted = self.watch.signals.wanted_sample(self.watch.id);
                let vouching = topology.vouched.is_some_and(|vouched| wanted > vouched);
                if resolving || vouching {
                    Some(paced)
                } else {
                    flushing.map(|at| at.max(paced).max(now))
                }
            }
            Role::Primary => None,
            Role::Standby => {
                let wanted = self.watch.signals.wanted_sample(self.watch.id);
                let server = topology.server(self.watch.id)?;
                let newest = server.sample.map_or(Moment::ORIGIN, |sample| sample.sent_at);
                let asked = wanted != Moment::ORIGIN && newest <= wanted;
                let replayed = server.sample.map_or(Lsn(0), |sample| sample.position.lsn);
                (asked || self.is_awaited(now, &topology, replayed)).then_some(paced)
            }
        }
    }

    /// Whether some session's floor lies above what this standby was seen to have replayed, or
    /// may: it is looked at until it has, so that the session's next read finds it ready.
    fn is_awaited(&self, now: Moment, topology: &Topology, replayed: Lsn) -> bool {
        let wished = self.watch.signals.wanted_position();
        if wished == Moment::ORIGIN || now.since(wished) > WISH_AGE_MAX {
            return false;
        }
        topology
            .samples
            .newest()
            .is_none_or(|primary| primary.sent_at <= wished || primary.position.lsn > replayed)
    }

    /// Asks the server where it is.
    async fn sample(&mut self) -> Result<(), ()> {
        let within = self.watch.policy.load().check_timeout;
        self.sampled = clock::now();
        self.watch.metrics.servers.sampled(self.watch.id);
        let Some(link) = &mut self.link else { return Ok(()) };
        let outcome = match self.role {
            Some(Role::Primary) => link.primary_at(within).await.map(Some).map(Sample::Primary),
            Some(Role::Standby) => link.standby_at(within).await.map(Sample::Standby),
            None => return Ok(()),
        };
        match outcome {
            Ok(Sample::Primary(Some(at))) => {
                self.report(Report::PrimaryAt(at));
                self.flush(at, within).await
            }
            Ok(Sample::Standby(Some((sent_at, timeline, replayed)))) => {
                self.report(Report::StandbyAt { sent_at, timeline, replayed });
                Ok(())
            }
            // It follows another timeline now: only a whole look says where it is.
            Ok(Sample::Primary(None) | Sample::Standby(None)) => Err(()),
            Err(error) => self.missed(&error),
        }
    }

    /// Kicks a primary that keeps sessions waiting with log that it does not flush.
    async fn flush(&mut self, at: PrimaryAt, within: Duration) -> Result<(), ()> {
        let now = clock::now();
        if self.unflushed.is_some_and(|(insert, _)| at.flush >= insert) {
            self.unflushed = None;
        }
        if at.insert <= at.flush {
            return Ok(());
        }
        let wished = self.watch.signals.wanted_position();
        if now.since(wished) > WISH_AGE_MAX {
            self.unflushed = None;
            return Ok(());
        }
        let (_, since) = *self.unflushed.get_or_insert((at.insert, at.sent_at));
        let due = now.since(since) >= UNFLUSHED_MAX && now.since(self.kicked) >= KICK_GAP;
        let Some(link) = self.link.as_mut().filter(|_| due) else { return Ok(()) };
        self.kicked = now;
        self.watch.metrics.servers.kicked(self.watch.id);
        match link.kick(within).await {
            Ok(()) => Ok(()),
            Err(error) => self.missed(&error),
        }
    }

    /// Answers another task's question; one that fails is simply not answered.
    async fn answer(&mut self, question: Question) -> Result<(), ()> {
        let within = self.watch.policy.load().check_timeout;
        let Some(link) = &mut self.link else { return Ok(()) };
        match link.ask_within(&question.sql, within).await {
            Ok(rows) => {
                // Whoever asked may have given up.
                question.reply.send(rows).unwrap_or_default();
                Ok(())
            }
            Err(error) => self.missed(&error),
        }
    }

    /// A question between two looks failed; if the connection went with it, the server is looked
    /// at now.
    fn missed(&mut self, error: &LinkError) -> Result<(), ()> {
        let name = self.watch.desk.name(self.watch.id);
        debug!(server = name, error = %error, "question failed");
        if error.leaves_usable() {
            return Ok(());
        }
        self.hang_up();
        Err(())
    }

    /// Drops the connection; what vouched for backends through it vouches no more.
    fn hang_up(&mut self) {
        self.link = None;
        self.role = None;
        self.unflushed = None;
        self.report(Report::LinkLost);
    }

    fn report(&self, report: Report) {
        self.watch.desk.report(self.watch.id, report);
    }

    /// Tells the operator, once, in whose words a look fails, if those say what to mend; that a
    /// server is away is told with the topology.
    fn complain(&mut self, why: Unseen, error: &LinkError) {
        let server = self.watch.desk.name(self.watch.id);
        let text = error.to_string();
        match why {
            Unseen::LoginRefused
            | Unseen::Tls
            | Unseen::Unresolved
            | Unseen::NotPostgres
            | Unseen::QueryFailed
                if self.complaint.as_deref() != Some(&text) =>
            {
                warn!(event = "look_failed", "{server}: {text}");
                self.complaint = Some(text);
            }
            Unseen::LoginRefused
            | Unseen::Tls
            | Unseen::Unresolved
            | Unseen::NotPostgres
            | Unseen::QueryFailed
            | Unseen::NotYet
            | Unseen::Refused
            | Unseen::Silent
            | Unseen::Broken
            | Unseen::NotReady
            | Unseen::Full => debug!(server, error = text, "look failed"),
        }
    }

    /// Tells the operator, once, what a missing privilege costs.
    fn tell(&mut self, privileges: (Dialect, Statistics)) {
        if self.told == Some(privileges) {
            return;
        }
        self.told = Some(privileges);
        let server = self.watch.desk.name(self.watch.id);
        if let Some(text) = cost(privileges) {
            warn!(event = "privileges", "{server}: {text}");
        }
    }
}

/// Waits until something comes over a connection on which nothing was asked: its end, mostly.
async fn stirs(link: Option<&Link>) {
    match link {
        Some(link) => link.stirs().await,
        None => std::future::pending().await,
    }
}

/// What a missing privilege of the control user costs.
const fn cost(privileges: (Dialect, Statistics)) -> Option<&'static str> {
    match privileges {
        (Dialect::Replication, Statistics::Visible) => None,
        (Dialect::Replication, Statistics::Hidden) => Some(
            "the control user is not in pg_monitor: whether standbys stream is not seen, so the \
             successor of a silent primary is not adopted",
        ),
        (Dialect::Sql, Statistics::Visible) => Some(
            "no replication connection: the successor of a primary is adopted only if the control \
             user may run pg_read_file(text)",
        ),
        (Dialect::Sql, Statistics::Hidden) => Some(
            "the control user has neither REPLICATION nor pg_monitor: as a standby this server \
             gets no reads, since its timeline can't be seen",
        ),
    }
}

/// Where a server said that it is.
enum Sample {
    Primary(Option<PrimaryAt>),
    Standby(Option<(Moment, crate::pg::Timeline, Lsn)>),
}
