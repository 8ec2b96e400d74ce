//! Before a backend serves a session, and before it serves another: settings are brought, what
//! was left behind is found out, and only then is it released.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::attached::{
    Attached, Deallocated, Hold, Lasting, Reads, Resting, Segment, Stale, Standing,
};
use crate::frontend::audit;
use crate::frontend::cancel::{Cancelled, UnderWay};
use crate::frontend::client::Client;
use crate::frontend::exchange::Untold;
use crate::frontend::listening;
use crate::frontend::lost::Loss;
use crate::frontend::obtain::{Obtained, Waited};
use crate::frontend::own;
use crate::frontend::params::Reported;
use crate::frontend::plan::{Plan, Taint};
use crate::frontend::probe;
use crate::frontend::probe::Letters;
use crate::frontend::recount::recount;
use crate::frontend::seat::CutOff;
use crate::frontend::serve::Stop;
use crate::frontend::state::{Serving, Session};
use crate::metrics::PinnedSession;
use crate::pg::SqlState;
use crate::pool::{Audit, Conn, Drawn, Mode, Policy, Reset};
use crate::session::{Account, Group, Pin, Pins, Settings, same};
use crate::sql::{Defaults, Effects, Whose};
use crate::wire::frame::TxStatus;
use crate::wire::message;
use crate::wire::message::ErrorReport;
use std::sync::Arc;

/// Why a backend could not be given the session's settings.
#[derive(Debug)]
pub(super) enum NotBrought {
    /// The server refused one. It is to be closed: half of the settings may have arrived.
    Refused(Box<Obtained>),
    /// The backend broke.
    Broken,
}

/// Whether a backend can be used for this plan as it is: it carries the session's settings, and
/// nobody asks what its last user drew from a sequence.
pub(super) fn is_ready(
    client: &Client,
    session: &Session,
    plan: &Plan,
    obtained: &Obtained,
) -> bool {
    let same = same(&session.settings, &obtained.checkout.carried)
        && !listening::listens_itself(session, plan, obtained.standing);
    same && !must_forget(plan, obtained.checkout.drawn) || reset_of(client) == Reset::Off
}

/// Whether a backend must forget what others drew from sequences before it runs this: it asks for
/// that, or runs code that may.
///
/// What the session itself drew is kept, as in a transaction that goes on. Then what others drew
/// before is still there, for a sequence from which it did not draw.
fn must_forget(plan: &Plan, drawn: Drawn) -> bool {
    let asks = plan.effects.any(Effects::SEQUENCE) || plan.taint == Taint::Hidden;
    asks && drawn == Drawn::ByOthers
}

/// Brings the session's settings to a backend that carries others, and takes from it what must
/// not be told.
///
/// Nothing of the client's is sent before the server has agreed: a statement must not run under
/// another's settings.
pub(super) async fn bring_settings(
    client: &mut Client,
    session: &mut Session,
    plan: &Plan,
    mut obtained: Obtained,
) -> Result<Obtained, NotBrought> {
    if is_ready(client, session, plan, &obtained) {
        return Ok(obtained);
    }
    if listening::listens_itself(session, plan, obtained.standing) {
        listening::bring(client, session, &mut obtained).await?;
    }
    let conn = &mut *obtained.checkout;
    if must_forget(plan, conn.drawn) {
        // It carries another's settings yet.
        let mut unheard = client.reported.clone();
        let forgetting = forget_draws(conn, TxStatus::Idle, &mut unheard);
        forgetting.await.map_err(|_| NotBrought::Broken)?;
    }
    let Some(sql) = session.settings.difference_from(&conn.carried, &session.first_role) else {
        conn.look_through_reports(&client.shard.shared.pools);
        return Ok(obtained);
    };
    let sql = if sql.is_ascii() { sql } else { in_utf8(conn, client, session).await? };
    let answer = own::run_unhurried(conn, &sql, &mut client.reported).await;
    let answer = answer.map_err(|_| NotBrought::Broken)?;
    client.out().extend_from_slice(&answer.for_client);
    match answer.error {
        None => {
            conn.carried = Arc::clone(&session.settings);
            conn.reports.note_carried();
            conn.look_through_reports(&client.shard.shared.pools);
            obtained.at = clock::now();
            Ok(obtained)
        }
        // Its time was up, by the setting of another: dropped, the backend is closed.
        Some(error) if error.code == SqlState::QUERY_CANCELED => Err(NotBrought::Broken),
        Some(error)
            if error.code == SqlState::INVALID_NAME
                && give_up_reserved(client, session, &error.message) =>
        {
            Err(NotBrought::Broken)
        }
        Some(_) => Err(NotBrought::Refused(Box::new(obtained))),
    }
}

/// Takes a custom setting from a session if a server refuses it as the name of no setting of a
/// library that is loaded there; whether there was one. So does a server when it loads a library
/// over settings that were made under its prefix before, and it warns with these words.
///
/// Source: `MarkGUCPrefixReserved` in `utils/misc/guc.c`, PostgreSQL 15.
fn give_up_reserved(client: &mut Client, session: &mut Session, message: &str) -> bool {
    let names = session.settings.iter().map(|(name, _)| name);
    let refused = names.filter(|name| name.contains('.') && message.contains(name));
    let Some(name) = refused.max_by_key(|name| name.len()).map(str::to_owned) else { return false };
    let words = format!("invalid configuration parameter name \"{name}\", removing it");
    let prefix = name.split('.').next().unwrap_or(&name);
    let warning = ErrorReport::warning(SqlState::INVALID_NAME, words)
        .with_detail(format!("\"{prefix}\" is now a reserved prefix."));
    message::write_notice(client.out(), &warning);
    Arc::make_mut(&mut session.settings).remove(&name);
    true
}

/// Makes a backend forget what was drawn from sequences. What is the client's of its answer.
async fn forget_draws(
    conn: &mut Conn,
    status: TxStatus,
    reported: &mut Reported,
) -> Result<Vec<u8>, own::Unanswered> {
    const FORGET: &str = "DISCARD SEQUENCES";
    let answer = match status {
        TxStatus::Idle => own::run_unhurried(conn, FORGET, reported).await?,
        TxStatus::Open | TxStatus::Failed => own::run(conn, FORGET, reported).await?,
    };
    if answer.error.is_some() {
        return Err(own::Unanswered);
    }
    conn.drawn = Drawn::Nobody;
    Ok(answer.for_client)
}

/// What brings the session's settings to a backend, which is to read it as UTF-8 first: a server
/// reads a text by the encoding of the moment.
async fn in_utf8(
    conn: &mut Conn,
    client: &Client,
    session: &Session,
) -> Result<String, NotBrought> {
    const UTF8: &str = "SELECT pg_catalog.set_config('client_encoding','UTF8',false)";
    // That is not for long.
    let mut unheard = client.reported.clone();
    let told = own::run_unhurried(conn, UTF8, &mut unheard).await;
    if told.map_err(|_| NotBrought::Broken)?.error.is_some() {
        return Err(NotBrought::Broken);
    }
    let mut carried = Settings::clone(&conn.carried);
    carried.set("client_encoding", "UTF8");
    session.settings.difference_from(&carried, &session.first_role).ok_or(NotBrought::Broken)
}

fn reset_of(client: &Client) -> Reset {
    client.shard.pools.policy().reset
}

/// Whether the backend in hand can run what it was about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usable {
    /// It can.
    Yes,
    /// It was lost; what becomes of the session is settled, and its group waits to be looked at
    /// again.
    Gone,
    /// It can, but the client has cancelled it meanwhile.
    Cancelled,
}

impl Serving {
    /// The backend in hand is to run this: what others drew there from sequences is forgotten,
    /// and it knows what the client calls by names.
    pub(super) async fn make_usable(&mut self, group: &Group, plan: &Plan) -> Result<Usable, Stop> {
        if self.attached.as_deref().is_some_and(|attached| attached.behind_reset.is_some()) {
            let usable = Box::pin(self.say_behind_reset(group)).await?;
            if usable != Usable::Yes {
                return Ok(usable);
            }
        }
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(Usable::Yes) };
        attached.strays.forget_lent();
        attached.note_failure();
        if attached.status == TxStatus::Failed {
            return Box::pin(self.lend_outside(group)).await;
        }
        // Before `Sync` nothing of ours can be run.
        let can = attached.segment == Segment::Closed;
        if can && attached.deallocated == Deallocated::Perhaps {
            let usable = Box::pin(self.regain_names()).await?;
            if usable != Usable::Yes {
                return Ok(usable);
            }
        }
        let Some(attached) = self.attached.as_deref() else { return Ok(Usable::Yes) };
        let forgets = can && must_forget(plan, attached.checkout.drawn);
        if forgets && reset_of(&self.client) != Reset::Off {
            let usable = Box::pin(self.have_forgotten()).await?;
            if usable != Usable::Yes {
                return Ok(usable);
            }
        }
        let can = self.attached.as_deref().is_some_and(|attached| {
            attached.segment == Segment::Closed && attached.exchange.replies.is_settled()
        });
        if can && self.must_lend() { Box::pin(self.lend()).await } else { Ok(Usable::Yes) }
    }

    async fn have_forgotten(&mut self) -> Result<Usable, Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(Usable::Yes) };
        let reported = &mut self.client.reported;
        let thread = self.session.seat.thread();
        let forgetting = forget_draws(&mut attached.checkout, attached.status, reported);
        let forgotten = thread.unless_cut(forgetting).await;
        self.after_own(forgotten).await
    }

    /// What came of a question of ours that was asked before the group is sent, or of several: what
    /// of the answer is the client's, or the backend is lost over it.
    pub(super) async fn after_own(
        &mut self,
        asked: Result<Result<Vec<u8>, own::Unanswered>, CutOff>,
    ) -> Result<Usable, Stop> {
        let loss = match asked {
            Ok(Ok(for_client)) => {
                self.client.out().extend_from_slice(&for_client);
                return Ok(match self.session.cancel.cancelled() {
                    Cancelled::No => Usable::Yes,
                    Cancelled::Yes => Usable::Cancelled,
                });
            }
            Ok(Err(own::Unanswered)) => Loss::Broken(None),
            Err(CutOff) => Loss::Replaced,
        };
        self.on_server_gone(loss).await?;
        self.session.waited = Waited::Yes;
        Ok(Usable::Gone)
    }

    /// The backend is free: finds out what the session left on it, and gives it back unless the
    /// session must stay. `now` it came free.
    pub(super) async fn settle(&mut self, now: Moment) -> Result<(), Stop> {
        let Some(attached) = self.attached.take() else { return Ok(()) };
        // From here on a cancel finds no statement: one that comes late must hit neither what is
        // ours nor the next client.
        let under_way = self.session.cancel.detach();
        if under_way == UnderWay::No && attached.left_nothing() {
            self.give_back_or_stay(attached, now);
        } else {
            // Boxed: few statements leave anything, and every client would keep room for it.
            Box::pin(self.settle_what_was_left(attached, under_way, now)).await;
        }
        Ok(())
    }

    async fn settle_what_was_left(&mut self, mut attached: Hold, under_way: UnderWay, now: Moment) {
        for changed in std::mem::take(&mut attached.defaults).0 {
            self.renew(&changed, attached.pins);
        }
        let policy = self.client.shard.pools.policy();
        let tainted = policy.reset != Reset::Off && attached.taint != Taint::None;
        let thread = self.session.seat.thread();
        let tidying = self.tidy(&mut attached, &policy, under_way);
        if let Ok(Ok(())) = thread.unless_cut(tidying).await {
            return self.give_back_or_stay(attached, now);
        }
        // It is closed, and with it whatever the session has left there.
        self.note_lost_state(&attached);
        if tainted {
            self.note_unknown_state();
        }
        drop(attached.into_inner());
    }

    /// Has the backends renewed of those whose sessions begin with other settings now.
    fn renew(&self, Defaults { whose, database }: &Defaults, pins: Pins) {
        let Session { user, settings, first_role, .. } = &self.session;
        let renew = |user: Option<&str>| {
            let pools = &self.client.shard.shared.pools;
            pools.renew((user, database.as_deref()), clock::now());
        };
        match whose {
            Whose::Everybodys => renew(None),
            Whose::Roles(role) => renew(Some(role)),
            // Only a superuser becomes somebody of whom we have not been told.
            Whose::CurrentUsers | Whose::SessionUsers if pins.has(Pin::SessionUser) => renew(None),
            Whose::SessionUsers => renew(Some(user)),
            Whose::CurrentUsers => {
                renew(Some(user));
                // Perhaps it has left that role, or taken another, in the same transaction.
                renew(Some(settings.get("role").unwrap_or_else(|| first_role.shown())));
            }
        }
    }

    /// What the session left on its backend is known.
    fn give_back_or_stay(&mut self, mut attached: Hold, now: Moment) {
        let policy = self.client.shard.pools.policy();
        listening::tell_what_backend_heard(&mut self.client, &mut attached);
        attached.reads = Reads::AsCarried;
        attached.checkout.count_statements();
        let stays = policy.mode == Mode::Session
            || !attached.pins.is_empty() && attached.standing == Standing::Primary;
        if !self.client.reported.is_in_step(&attached.checkout.reports) {
            let untold = self.keep_in_step(&mut attached);
            if stays && let Some(untold) = untold {
                self.client.tell(untold);
            }
        }
        if stays {
            self.session.cancel.attach(Arc::clone(&attached.checkout.running));
            if policy.mode == Mode::Transaction {
                self.show_pins(&mut attached);
            }
            let signals = &self.client.shard.shared.signals;
            let server = attached.server;
            attached.resting.get_or_insert_with(|| Resting::new(signals, server));
            self.attached = Some(attached);
            return;
        }
        self.client.shard.give_buffer(std::mem::take(&mut attached.exchange.to_server));
        let clean = attached.pins.is_empty()
            && attached.checkout.partial.is_empty()
            && !attached.checkout.running.has_stray()
            && attached.exchange.replies.account() == Account::Exact;
        self.client.shard.give_room(attached.exchange.replies.take_room());
        if !clean {
            self.client.shard.give_hold(attached.close());
            return;
        }
        attached.checkout.running.forget_cancels();
        let every = if policy.reset == Reset::Off { 0 } else { policy.audit_every };
        match attached.checkout.draw_audit(every) {
            Audit::Due => audit::begin(&self.client, &self.session, attached.into_inner()),
            Audit::NotNow => self.client.shard.give_hold(attached.release(now)),
        }
    }

    /// Looks through what the backend has said, and compares with that what the client believes.
    /// What differs is told now if the session stays, else by the next backend.
    fn keep_in_step(&mut self, attached: &mut Attached) -> Option<Untold> {
        let Self { client, session, .. } = self;
        let conn = &mut *attached.checkout;
        conn.look_through_reports(&client.shard.shared.pools);
        attached.exchange.to_tell = None;
        client.reported.compare(&conn.reports, &session.settings)
    }

    /// Operators see why the session keeps its backend, and whose it is.
    fn show_pins(&self, attached: &mut Attached) {
        if let Some(pinned) = &mut attached.pinned {
            return pinned.turn(attached.pins);
        }
        let application = self.client.reported.get("application_name");
        attached.pinned = Some(self.client.shard.shared.metrics.pinned.add(PinnedSession {
            application: application.unwrap_or("").into(),
            user: Arc::clone(&self.session.user),
            database: Arc::clone(&self.session.database),
            server: attached.server,
            pid: attached.checkout.running.pid,
            pins: attached.pins,
            since: clock::now(),
        }));
    }

    /// Brings the backend into a known state.
    async fn tidy(
        &mut self,
        attached: &mut Attached,
        policy: &Policy,
        under_way: UnderWay,
    ) -> Result<(), own::Unanswered> {
        if under_way == UnderWay::Yes {
            self.session.cancel.settled().await;
            let reported = &mut self.client.reported;
            let answer = own::run(&mut attached.checkout, ";", reported).await?;
            self.client.out().extend_from_slice(&answer.for_client);
        }
        match std::mem::replace(&mut attached.exchange.stale, Stale::No) {
            Stale::No => {}
            Stale::Yes => self.deallocate(&mut attached.checkout).await?,
            Stale::Gone => {
                let told = recount(&mut attached.checkout, &mut self.client.reported).await?;
                self.client.out().extend_from_slice(&told);
            }
        }
        match policy.reset {
            Reset::Tracked | Reset::Close => self.examine(attached, policy.mode).await?,
            Reset::Off => {}
        }
        if policy.mode == Mode::Transaction && attached.pins.is_empty() {
            listening::mark_end(&self.session, &self.client, attached).await?;
        }
        Ok(())
    }

    /// Takes off the backend what it holds under our names.
    async fn deallocate(&mut self, conn: &mut Conn) -> Result<(), own::Unanswered> {
        let Some(sql) = conn.held.deallocation() else { return Ok(()) };
        let answer = own::run_unhurried(conn, &sql, &mut self.client.reported).await?;
        if answer.error.is_some() {
            return Err(own::Unanswered);
        }
        self.client.out().extend_from_slice(&answer.for_client);
        conn.held.clear();
        Ok(())
    }

    /// Asks the server what the session has left on its backend.
    async fn examine(
        &mut self,
        attached: &mut Attached,
        mode: Mode,
    ) -> Result<(), own::Unanswered> {
        let taint = std::mem::take(&mut attached.taint);
        if !attached.strays.is_empty() {
            self.take_back(attached).await?;
        }
        let conn = &mut *attached.checkout;
        let reported = &mut self.client.reported;
        let leaves = mode == Mode::Transaction && attached.pins.is_empty();
        if taint == Taint::None && !(leaves && attached.left == Taint::Hidden) {
            return Ok(());
        }
        let sql = probe::sql((&self.session.user, &self.session.first_role), &self.session.custom);
        let letters = letters(reported);
        let (answer, found) = probed(conn, &sql, reported, letters).await?;
        conn.trust.holders = 0;
        self.client.out().extend_from_slice(&answer.for_client);
        if found.prepared != Some(conn.held.len()) {
            let told = recount(conn, &mut self.client.reported).await?;
            self.client.out().extend_from_slice(&told);
        }
        attached.note_found(&found);
        let conn = &mut *attached.checkout;
        attached.channels = found.channels;
        if !attached.channels.is_empty() {
            self.client.shard.shared.listeners.senders().want();
        }
        let carried = Arc::new(found.settings.clone());
        let resets = std::mem::take(&mut attached.resets);
        self.session.adopt_settings(found.settings, &found.unread, &resets);
        conn.carried = if *carried == *self.session.settings {
            Arc::clone(&self.session.settings)
        } else {
            carried
        };
        conn.reports.note_carried();
        if mode == Mode::Transaction {
            self.hand_over_channels(attached).await?;
        }
        let conn = &mut *attached.checkout;
        let leaves = mode == Mode::Transaction && attached.pins.is_empty();
        if !leaves || self.client.reported.reads_otherwise(&self.session.settings) {
            self.bring_back(conn, attached.pins).await?;
        }
        if leaves && attached.left == Taint::Hidden {
            // Code that is not in the text may have set what no probe lists.
            // To the client its settings are what they were; they follow it to the next backend.
            let sql = match conn.drawn {
                Drawn::Nobody => "RESET ALL",
                Drawn::ByHolder | Drawn::ByOthers => "RESET ALL; DISCARD SEQUENCES",
            };
            let answer = own::run_unhurried(conn, sql, &mut self.client.reported.clone()).await?;
            if answer.error.is_some() {
                return Err(own::Unanswered);
            }
            conn.drawn = Drawn::Nobody;
            let mut left = Settings::default();
            if let Some(role) = conn.carried.get("role") {
                left.set("role", role);
            }
            conn.carried = Arc::new(left);
            conn.reports.note_carried();
            attached.left = Taint::None;
        }
        Ok(())
    }

    /// A RESET goes back to what the client gave at its login, which the server of a session that
    /// stays is told behind it.
    async fn bring_back(&mut self, conn: &mut Conn, pins: Pins) -> Result<(), own::Unanswered> {
        let session = &self.session;
        let difference = session.settings.difference_from(&conn.carried, &session.first_role);
        let Some(mut sql) = difference else { return Ok(()) };
        if pins.has(Pin::SessionUser) {
            // The user of the moment may lack the right to what the login's has given.
            sql.insert_str(0, "SET LOCAL SESSION AUTHORIZATION DEFAULT;");
        }
        let answer = own::run_unhurried(conn, &sql, &mut self.client.reported).await?;
        if answer.error.is_some() {
            return Err(own::Unanswered);
        }
        self.client.out().extend_from_slice(&answer.for_client);
        conn.carried = Arc::clone(&self.session.settings);
        conn.reports.note_carried();
        Ok(())
    }
}

/// Runs the probe. The session's own `statement_timeout` may be too short for it: then it is
/// asked for first and lifted for the probe.
pub(super) async fn probed(
    conn: &mut Conn,
    sql: &str,
    reported: &mut Reported,
    letters: Letters,
) -> Result<(own::Answer, probe::Found), own::Unanswered> {
    let answer = own::run(conn, sql, reported).await?;
    match answer.code() {
        None => {
            let found = probe::read(&answer.rows, letters);
            return Ok((answer, found));
        }
        Some(SqlState::QUERY_CANCELED) => {}
        Some(_) => return Err(own::Unanswered),
    }
    let unhurried = own::unhurried(sql);
    for _ in 0..own::TRIES_MAX {
        let timeout = own::run(conn, "SHOW statement_timeout", reported).await?;
        let Some([Some(timeout)]) = timeout.rows.first().map(Vec::as_slice) else { continue };
        let answer = own::run(conn, &unhurried, reported).await?;
        if answer.error.is_none() {
            let mut found = probe::read(&answer.rows, letters);
            found.settings.set("statement_timeout", timeout);
            return Ok((answer, found));
        }
    }
    Err(own::Unanswered)
}

/// In which letters the session's backend answers.
pub(super) fn letters(reported: &Reported) -> Letters {
    Letters::of(reported.get("client_encoding"))
}

/// A client that leaves gives back what it holds, if it can be left clean: in session mode, and
/// when something pinned it. Dropped, it is closed.
pub(super) async fn release_at_end(
    (session, client): (&Session, &Client),
    reset: Reset,
    mut attached: Attached,
) {
    if let UnderWay::Yes = session.cancel.detach() {
        session.cancel.settled().await;
    }
    let lasts = attached.lasting == Lasting::Yes;
    if attached.checkout.running.has_stray() || reset == Reset::Close || lasts {
        return;
    }
    if listening::mark_end(session, client, &mut attached).await.is_err() {
        return;
    }
    let mut reported = client.reported.clone();
    let answer = own::run(&mut attached.checkout, "DISCARD ALL", &mut reported).await;
    let mut clean = answer.is_ok_and(|answer| answer.error.is_none());
    if clean && !session.first_role.is_none() {
        // Minor releases of before November 2024 leave a session without a role.
        let answer = own::run(&mut attached.checkout, "RESET ROLE", &mut reported).await;
        clean = answer.is_ok_and(|answer| answer.error.is_none());
    }
    if clean {
        attached.checkout.held.clear();
        attached.checkout.carried = Arc::default();
        attached.checkout.reports.note_carried();
        attached.checkout.drawn = Drawn::Nobody;
        attached.checkout.release(clock::now());
    }
}
