//! What a session has set, and a server takes no more.
//!
//! On a server of its own a session keeps what it has set, also when a role is revoked or dropped
//! meanwhile: it was asked for once. Here it is asked for on each backend, and may be refused: by
//! one backend, for what others did there (`temp_buffers`), so a fresh one is tried; or by all.
//!
//! Then nothing is taken from the session so that it can go on, whether it was told or not. It may
//! have taken a role with less rights, `row_security`, a `search_path`, or a setting of its own
//! that policies look at, and which settings guard what nobody but its author can tell; what it
//! says next may be on its way already. So each statement is refused in the server's words, except
//! those that get rid of the setting, which run without it, and those that only end a transaction.
//!
//! Invariant: nothing else runs where something is withheld.

use crate::backend::ServerError;
use crate::clock;
use crate::frontend::attached::{Sent, Standing};
use crate::frontend::exchange::Erred;
use crate::frontend::obtain::Obtained;
use crate::frontend::own;
use crate::frontend::params::Reported;
use crate::frontend::plan::Plan;
use crate::frontend::report::No;
use crate::frontend::state::{Serving, Session};
use crate::pg::SqlState;
use crate::pool::Conn;
use crate::route::{Need, PrimaryReason};
use crate::session::{End, Executes, Settings};
use crate::sql::{Chain, Class, Count, Effects, Facts, Scope, Transaction};
use std::sync::Arc;

/// How often a backend is looked for that takes the session's settings.
pub(super) const TRIES_MAX: u32 = 5;

/// A setting that a fresh backend has refused, and its words.
struct Refused {
    name: Box<str>,
    error: ServerError,
}

impl Serving {
    /// A backend has refused the session's settings: finds out whether another will take them, for
    /// which one is looked for again, or why the group can't run.
    ///
    /// Not cancel-safe in one harmless way: the backend is closed.
    pub(super) async fn on_refused(
        &mut self,
        plan: &mut Plan,
        obtained: Obtained,
    ) -> Result<(), No> {
        if obtained.standing == Standing::Standby
            && matches!(plan.need, Need::Read | Need::Anywhere)
        {
            // It may not have replayed yet what the primary knows.
            plan.need = Need::Primary(PrimaryReason::Statement);
            return Ok(());
        }
        let Obtained { mut checkout, taken, .. } = obtained;
        // What it has begun to listen to is this session's alone.
        let listens = self.session.listening.as_ref().is_some_and(|here| here.is_on_backend());
        if listens || !checkout.is_new() {
            checkout = checkout.anew().await.map_err(No::Checkout)?;
        }
        let unheard = self.client.reported.clone();
        let Ok(refused) = try_each(&mut checkout, &self.session, unheard).await else {
            return Ok(());
        };
        let mut settings = Settings::clone(&self.session.settings);
        for Refused { name, .. } in &refused {
            settings.remove(name);
        }
        let settings = Arc::new(settings);
        checkout.carried = Arc::clone(&settings);
        checkout.reports.note_carried();
        checkout.look_through_reports(&self.client.shard.shared.pools);
        drop(taken);
        checkout.release(clock::now());
        if let Some(Refused { name, error }) = refused.first() {
            if !self.gets_rid_of(plan, &refused) {
                let (name, error) = (name.to_string(), error.clone());
                return Err(No::SettingRefused { name, error });
            }
            let mut withheld = Settings::default();
            for Refused { name, .. } in &refused {
                withheld.set(name, self.session.settings.get(name).unwrap_or_default());
            }
            self.session.withheld = Some(Box::new(withheld));
        }
        // The same in the place of the same, by which the pool finds the backend again.
        self.session.settings = settings;
        Ok(())
    }

    /// Whether the group is a single statement that gets rid of what is refused, or one that only
    /// ends a transaction; and nothing comes behind it in the same.
    fn gets_rid_of(&self, plan: &Plan, refused: &[Refused]) -> bool {
        let [Some(facts)] = self.session.mentioned.as_slice() else { return false };
        let alone = matches!(plan.end, End::Query | End::Sync) && facts.count() == Count::One;
        let resets = facts.effects().any(Effects::RESET_ALL | Effects::DISCARD_ALL);
        let changes = refused.iter().any(|refused| changes(facts, &refused.name));
        alone && (resets || changes || only_ends(facts))
    }

    /// The next group is to have again what the last one was sent without. A backend that stays
    /// with the session does not carry that.
    pub(super) fn want_again(&mut self) {
        let withheld = self.session.withheld.take().filter(|withheld| !withheld.is_empty());
        let Some(withheld) = withheld else { return };
        if let Some(attached) = self.attached.take() {
            self.note_lost_state(&attached);
            self.let_go_of(attached.into_inner());
        }
        let settings = Arc::make_mut(&mut self.session.settings);
        withheld.iter().for_each(|(name, value)| settings.set(name, value));
    }
}

impl Session {
    /// A group was answered: what it has changed is wanted no more as it was.
    pub(super) fn settle_withheld(&mut self, sent: &Sent, erred: Erred) {
        let (Erred::No, Executes::Something) = (erred, sent.executes) else { return };
        let ([Some(facts)], Some(withheld)) = (self.mentioned.as_slice(), &mut self.withheld)
        else {
            return;
        };
        let names: Vec<Box<str>> = withheld.iter().map(|(name, _)| name.into()).collect();
        names.iter().filter(|name| changes(facts, name)).for_each(|name| withheld.remove(name));
    }
}

/// Whether a statement gives the setting another value, and does nothing else. `RESET ALL` leaves
/// the role, and who becomes another user has none.
///
/// Source: `GUC_NO_RESET_ALL` of `role` in `utils/misc/guc_tables.c`; `SetSessionAuthorization` in
/// `utils/init/miscinit.c`.
fn changes(facts: &Facts, name: &str) -> bool {
    let effects = facts.effects();
    if effects.any(Effects::DISCARD_ALL) {
        return true;
    }
    if facts.class() != Class::Session || !effects.is_within(Effects::SETTINGS) {
        return false;
    }
    let role = name == "role";
    let mut set = facts.settings().iter().filter(|setting| setting.scope == Scope::Session);
    effects.any(Effects::RESET_ALL) && !role
        || set.any(|set| *set.name == *name || role && &*set.name == "session_authorization")
}

/// Whether a statement does nothing outside of a transaction.
fn only_ends(facts: &Facts) -> bool {
    matches!(
        facts.transaction(),
        Transaction::Commit(Chain::Ends) | Transaction::Rollback(Chain::Ends)
    )
}

/// Asks a backend that carries nothing for each of the settings by itself. Behind it, it has those
/// that it did not refuse.
///
/// # Errors
/// [`own::Unanswered`]: the backend must be closed.
async fn try_each(
    conn: &mut Conn,
    session: &Session,
    mut unheard: Reported,
) -> Result<Vec<Refused>, own::Unanswered> {
    const UTF8: &str = "SELECT pg_catalog.set_config('client_encoding','UTF8',false)";
    let (settings, nothing) = (&session.settings, Settings::default());
    let ascii = settings.iter().all(|(name, value)| name.is_ascii() && value.is_ascii());
    if !ascii {
        answered(conn, UTF8, &mut unheard).await?;
    }
    let mut refused = Vec::new();
    for (name, value) in settings.in_order() {
        let mut alone = Settings::default();
        alone.set(name, value);
        let sql = alone.difference_from(&nothing, &session.first_role).unwrap_or_default();
        let answer = own::run_unhurried(conn, &sql, &mut unheard).await?;
        match answer.error {
            None => {}
            Some(error) if error.code == SqlState::QUERY_CANCELED => return Err(own::Unanswered),
            Some(error) => refused.push(Refused { name: name.into(), error }),
        }
    }
    if !ascii && settings.get("client_encoding").is_none() {
        answered(conn, "RESET client_encoding", &mut unheard).await?;
    }
    Ok(refused)
}

async fn answered(
    conn: &mut Conn,
    sql: &str,
    unheard: &mut Reported,
) -> Result<(), own::Unanswered> {
    let answer = own::run_unhurried(conn, sql, unheard).await?;
    if answer.error.is_some() { Err(own::Unanswered) } else { Ok(()) }
}
