//! One server's hand: its standing connection, its notes, its last survey, and the acts.
//!
//! The connection is opened ahead, so that an act in a failover pays for no login. One act or
//! survey at a time has it; hands of other servers know nothing of it.

use crate::backend::{Login, Target};
use crate::clock;
use crate::clock::Moment;
use crate::control::hands::line::{Line, Stance, Standing};
use crate::control::hands::notes::Notes;
use crate::control::hands::{HandError, Reach, lock, questions, setting, slots};
use crate::control::link::Link;
use crate::failover::{Before, Instance, Right, Survey};
use crate::pg::Timeline;
use crate::timer;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tracing::debug;

/// Where a server is, for other servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name, address, or the directory of a unix socket.
    pub host: Arc<str>,
    /// TCP port, or the number in the unix socket's name.
    pub port: u16,
}

/// Whether a hand may come to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// It may.
    Acts,
    /// It only looks.
    Watches,
}

/// One server's hand.
#[derive(Debug)]
pub(super) struct Hand {
    pub(super) name: Arc<str>,
    pub(super) target: Target,
    pub(super) address: Address,
    pub(super) notes: Notes,
    login: Login,
    instance: Instance,
    home: Mutex<Option<Standing>>,
    /// For questions that must not wait for an act; empty but while one is asked.
    beside: Mutex<Option<Standing>>,
    survey: ArcSwapOption<Survey>,
    /// Rung when a survey is wanted now.
    wanted: Notify,
    /// When an act last had to do with it.
    acted: AtomicU64,
}

/// Between two surveys.
const SURVEY_EVERY: Duration = Duration::from_secs(2);

/// A survey that is due waits for so long after an act: what is done next to the server is not to
/// wait for it, and on a crowded machine it may take its two seconds.
const CALM: Duration = Duration::from_millis(100);

/// Between two looks whether an act is over.
const CALM_PACE: Duration = Duration::from_millis(10);

/// Longest survey, and longest attempt to open a connection for one.
const SURVEY_MAX: Duration = Duration::from_secs(2);

/// Longest to make a slot and tell the branch.
const LEAD_MAX: Duration = Duration::from_secs(2);

/// The first pause after a survey that failed; doubled up to [`SURVEY_EVERY`].
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Statements may hold a password: where we may, we keep them out of the server's log, and of what
/// its extensions keep of statements. That the server itself logs to what a setting was changed
/// nobody can keep it from.
///
/// Source: `check_log_duration` in `tcop/postgres.c`, `ProcessConfigFileInternal` in
/// `utils/misc/guc.c` of PostgreSQL.
const UNLOGGED: &str = "SELECT pg_catalog.set_config(s.name, s.off, false) \
     FROM (VALUES ('log_statement', 'none'), ('log_min_duration_statement', '-1'), \
                  ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'), \
                  ('log_min_error_statement', 'panic'), ('pg_stat_statements.track', 'none'), \
                  ('pgaudit.log', 'none')) AS s (name, off) \
     JOIN pg_catalog.pg_settings AS known ON known.name = s.name \
     WHERE (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER)";

/// Who receives from it, and how many may; our own connections take places, too.
const SENDERS: &str = "SELECT (SELECT count(*) FROM pg_catalog.pg_stat_replication), \
     (SELECT s.setting FROM pg_catalog.pg_settings AS s WHERE s.name = 'max_wal_senders')";

impl Hand {
    pub(super) fn new(reach: Reach, instance: Instance, notes: Notes) -> Self {
        let Reach { target, login, address } = reach;
        Self {
            name: Arc::clone(&target.name),
            target,
            address,
            notes,
            login,
            instance,
            home: Mutex::new(None),
            beside: Mutex::new(None),
            survey: ArcSwapOption::empty(),
            wanted: Notify::new(),
            acted: AtomicU64::new(0),
        }
    }

    /// As whom it logs in.
    pub(super) fn user(&self) -> &str {
        &self.login.user
    }

    /// Where it is for us, and as whom it logs in there.
    pub(super) const fn reach(&self) -> (&Target, &Login) {
        (&self.target, &self.login)
    }

    /// The last survey, however old.
    pub(super) fn surveyed(&self) -> Option<Arc<Survey>> {
        self.survey.load_full()
    }

    /// Has it surveyed soon, but not before an act that follows at once.
    pub(super) fn survey_soon(&self) {
        self.acts();
        self.wanted.notify_one();
    }

    /// An act is begun that has to do with it, or was.
    pub(super) fn acts(&self) {
        self.acted.store(clock::now().nanos(), Ordering::Relaxed);
    }

    /// Waits until no act is under way, and none was a moment ago.
    pub(super) async fn calm(&self) {
        let began = clock::now();
        while clock::now().since(began) < SURVEY_EVERY {
            let acted = Moment::from_nanos(self.acted.load(Ordering::Relaxed));
            let calm = clock::now().since(acted) >= CALM;
            if calm && self.home.try_lock().is_ok() {
                return;
            }
            timer::sleep(CALM_PACE).await;
        }
    }

    /// The connection, for an act that may take so long. It holds the lock by which we may act.
    pub(super) async fn acting(&self, within: Duration) -> Result<Line<'_>, HandError> {
        self.acts();
        let mut line = self.line(within).await?;
        lock::take(&mut line, self.instance, &self.name).await?;
        Ok(line)
    }

    /// The connection, whoever holds the lock.
    pub(super) async fn line(&self, within: Duration) -> Result<Line<'_>, HandError> {
        let began = clock::now();
        let home = timer::timeout(within, self.home.lock()).await;
        self.opened(home.map_err(|_| HandError::Late(within))?, (began, began + within)).await
    }

    /// What was left there, or a new connection.
    async fn opened<'h>(
        &self,
        mut home: MutexGuard<'h, Option<Standing>>,
        (began, until): (Moment, Moment),
    ) -> Result<Line<'h>, HandError> {
        // One that was closed meanwhile, as by a restart, costs an act its first attempt.
        if let Some(standing) = home.take().filter(|standing| standing.link.is_quiet()) {
            return Ok(Line::new(home, standing, (began, until)));
        }
        let left = until.since(clock::now());
        let opened = Link::open(&self.target, &self.login, left).await?;
        let standing = Standing { link: opened, stance: Stance::Watching };
        let mut line = Line::new(home, standing, (began, until));
        line.ask(UNLOGGED).await?;
        Ok(line)
    }

    /// The pause until the next survey, after one that went so.
    pub(super) async fn rest(&self, survey: &Result<(), HandError>, retry: &mut Duration) {
        let pause = match survey {
            Ok(()) => {
                *retry = RETRY_FIRST;
                SURVEY_EVERY
            }
            Err(error) => {
                debug!(server = %self.name, error = %error, "survey failed");
                std::mem::replace(retry, (*retry * 2).min(SURVEY_EVERY))
            }
        };
        tokio::select! {
            () = timer::sleep(pause) => {}
            () = self.wanted.notified() => {}
        }
    }

    /// Surveys the server; where we may act, takes the lock, and notes what would undo a freeze.
    pub(super) async fn survey_now(&self, bearing: Bearing) -> Result<(), HandError> {
        let mut line = self.line(SURVEY_MAX).await?;
        let locked = match bearing {
            Bearing::Acts => lock::take_if_free(&mut line, self.instance).await?,
            Bearing::Watches => {
                lock::give_back(&mut line, self.instance).await?;
                false
            }
        };
        let asked = clock::now();
        let version = line.version();
        let answers = line.all(&questions::questions(version)).await?;
        let answered = clock::now();
        let taken = questions::Taken { asked, answered, version, own: self.instance, locked };
        let mut survey = questions::read(&answers, &taken).ok_or(HandError::Answer("survey"))?;
        if survey.rights.have(Right::Superuser) {
            // Nothing hangs on it but a hint: one that can't be read changes nothing.
            let started = line.ask(questions::STARTED).await;
            survey.place.started =
                started.ok().and_then(|rows| setting::first(&rows).map(Arc::from));
        }
        survey.before = self.before(&survey).await;
        let upstream = survey.upstream.clone();
        self.survey.store(Some(Arc::new(survey)));
        let noted = match bearing {
            // Ahead of time, so that a freeze need not wait for a disk.
            Bearing::Acts => self.notes.of_upstream(&upstream).await,
            Bearing::Watches => Ok(()),
        };
        // No act changes in between what is noted here.
        drop(line);
        noted
    }

    /// How it received the log before that was taken from it, as was noted, or seen last.
    async fn before(&self, survey: &Survey) -> Before {
        if !survey.is_cut_off() {
            return Before::Nothing;
        }
        let noted = self.notes.before().await.unwrap_or(Before::Unread);
        match (noted, self.surveyed()) {
            (noted @ Before::Link { .. }, _) | (noted, None) => noted,
            (noted, Some(last)) => last.last_link().unwrap_or(noted),
        }
    }

    /// Runs one statement on a connection of its own, which keeps no act waiting.
    pub(super) async fn apart(&self, sql: &str, within: Duration) -> Result<(), HandError> {
        let began = clock::now();
        let mut link = Link::open(&self.target, &self.login, within).await?;
        link.ask_within("SET statement_timeout = 0", within).await?;
        let left = within.saturating_sub(clock::now().since(began));
        link.ask_within(sql, left).await?;
        Ok(())
    }

    /// Lets a standby follow this server: makes sure that it may receive through a slot of this
    /// name (empty: through none), which keeps nothing until it does. Returns the branch.
    ///
    /// It waits for no act that is under way here: that may be a commit which this very standby is
    /// to confirm.
    pub(super) async fn lead(&self, slot: &str) -> Result<Option<Timeline>, HandError> {
        let timeline = led(self.line_beside().await?, slot).await;
        self.leave_beside();
        timeline
    }

    /// How many may receive from this server, if as many do.
    pub(super) async fn full(&self) -> Result<Option<u32>, HandError> {
        let rows = match self.line_beside().await {
            Ok(mut line) => line.ask(SENDERS).await,
            Err(error) => Err(error),
        };
        self.leave_beside();
        let rows = rows?;
        let row = rows.first().ok_or(HandError::Answer("senders"))?;
        let number = |column: usize| row.get(column)?.as_deref()?.parse::<u32>().ok();
        let (used, most) = number(0).zip(number(1)).ok_or(HandError::Answer("senders"))?;
        Ok((used >= most).then_some(most))
    }

    /// A connection that waits for no act: the standing one if it is free, else one of its own.
    async fn line_beside(&self) -> Result<Line<'_>, HandError> {
        let began = clock::now();
        let span = (began, began + LEAD_MAX);
        if let Ok(home) = self.home.try_lock() {
            return self.opened(home, span).await;
        }
        let beside = timer::timeout(LEAD_MAX, self.beside.lock()).await;
        self.opened(beside.map_err(|_| HandError::Late(LEAD_MAX))?, span).await
    }

    /// It is seldom needed, and takes one of the server's places. Who has it closes it behind him.
    fn leave_beside(&self) {
        if let Ok(mut beside) = self.beside.try_lock() {
            beside.take();
        }
    }
}

async fn led(mut line: Line<'_>, slot: &str) -> Result<Option<Timeline>, HandError> {
    if !slot.is_empty() {
        slots::make(&mut line, slot).await?;
    }
    Ok(line.look().await?.timeline)
}
