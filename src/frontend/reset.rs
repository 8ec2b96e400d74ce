//! `RESET` within a transaction, of what the client gave at its login: to the backend, which others
//! use too, that is no default, so it is told the login's values before the next statement.
//!
//! Invariants:
//! - Nothing here takes a snapshot: the transaction can still say how it is isolated.
//! - It is told directly behind the statement that reset, or not at all. Where that is not alone in
//!   its text, or what is given has letters that the backend may not read so, the session gets its
//!   values behind the transaction, as after any other.
//! - Where the transaction can begin anew elsewhere, this is said there as well.

use crate::frontend::attached::{Attached, Segment};
use crate::frontend::own;
use crate::frontend::params::Reported;
use crate::frontend::report::No;
use crate::frontend::seat::CutOff;
use crate::frontend::serve::Stop;
use crate::frontend::settle::Usable;
use crate::frontend::state::{Serving, Session};
use crate::pg::SqlState;
use crate::session::{End, Executes, Group, Settings};
use crate::sql::{Chain, Change, Class, Count, Effects, Facts, Scope, Transaction};
use crate::wire::frame::TxStatus;

/// Takes note of what a group that is about to be sent resets of the login's.
pub(super) fn note(session: &Session, attached: &mut Attached, group: &Group) {
    if session.startup.is_empty() || group.executes == Executes::Nothing {
        return;
    }
    attached.behind_reset = match session.mentioned.as_slice() {
        [Some(facts)] if attached.status == TxStatus::Open => behind_reset(facts, &session.startup),
        _ => None,
    };
}

/// What gives a backend the login's values behind a statement that does nothing but to reset some.
fn behind_reset(facts: &Facts, login: &Settings) -> Option<Box<str>> {
    let all = facts.effects().any(Effects::RESET_ALL);
    let resets = facts.settings().iter().all(|setting| setting.change == Change::Reset);
    let alone = facts.count() == Count::One
        && facts.class() == Class::Session
        && facts.effects().is_within(Effects::RESET | Effects::RESET_ALL | Effects::SET_LOCAL);
    if !alone || !resets {
        return None;
    }
    let mut sql = String::new();
    if all {
        login.iter().for_each(|given| say(&mut sql, Scope::Session, given));
    }
    for setting in facts.settings() {
        if let Some(value) = login.get(&setting.name) {
            say(&mut sql, setting.scope, (&setting.name, value));
        }
    }
    (!sql.is_empty()).then(|| format!("SAVEPOINT {OWN};{sql}RELEASE {OWN}").into())
}

/// Undoes what was refused: a role may lack the right to what was given at login, for which
/// `RESET` does not ask.
const OWN: &str = "pgsteer_behind_reset";

fn say(sql: &mut String, scope: Scope, (name, value): (&str, &str)) {
    if let Some(assigned) = Settings::assignment(name, value) {
        let scope = match scope {
            Scope::Session => "SESSION",
            Scope::Transaction => "LOCAL",
        };
        sql.extend(["SET ", scope, " ", &assigned, ";"]);
    }
}

impl Serving {
    /// The group before has reset what the client gave at its login: the backend is told that.
    pub(super) async fn say_behind_reset(&mut self, group: &Group) -> Result<Usable, Stop> {
        let ends = self.ends_transaction();
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(Usable::Yes) };
        let closed = attached.segment == Segment::Closed && attached.exchange.replies.is_settled();
        if !closed && group.executes == Executes::Nothing {
            // The `Sync` behind it.
            return Ok(Usable::Yes);
        }
        let Some(sql) = attached.behind_reset.clone() else { return Ok(Usable::Yes) };
        if !closed || attached.status != TxStatus::Open || ends {
            attached.behind_reset = None;
            return Ok(Usable::Yes);
        }
        let thread = self.session.seat.thread();
        let running = tell(attached, &sql, &mut self.client.reported);
        let answer = match thread.unless_cut(running).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(own::Unanswered)) => return self.after_own(Ok(Err(own::Unanswered))).await,
            Err(CutOff) => return self.after_own(Err(CutOff)).await,
        };
        attached.behind_reset = None;
        attached.status = answer.status.unwrap_or(attached.status);
        if answer.error.is_none() {
            attached.block.was_told(&sql);
        }
        let failed = attached.status == TxStatus::Failed;
        let refused = answer.error.filter(|_| failed).map(|message| (answer.code, message));
        let usable = self.after_own(Ok(Ok(answer.for_client))).await?;
        match refused {
            // It fails by itself, as everything does behind it.
            Some(_) if matches!(group.end, End::Cut { .. }) => Ok(Usable::Yes),
            Some((code, message)) if usable == Usable::Yes => {
                let code = code.unwrap_or(SqlState::INTERNAL_ERROR);
                self.refuse(group, Box::new(No::Settings(code, message))).await?;
                Ok(Usable::Gone)
            }
            Some(_) | None => Ok(usable),
        }
    }

    /// Whether the present group does nothing but to end the transaction, whatever is set there.
    fn ends_transaction(&self) -> bool {
        use Transaction::{Commit, Rollback};
        let ends = |facts: &Facts| {
            matches!(facts.transaction(), Commit(Chain::Ends) | Rollback(Chain::Ends))
        };
        matches!(self.session.mentioned.as_slice(), [Some(facts)] if ends(facts))
    }
}

/// Tells the backend, or leaves everything as it was where it refuses.
async fn tell(
    attached: &mut Attached,
    sql: &str,
    reported: &mut Reported,
) -> Result<own::Answer, own::Unanswered> {
    let mut answer = own::run(&mut attached.checkout, sql, reported).await?;
    if answer.error.is_some() {
        let undo = format!("ROLLBACK TO {OWN};RELEASE {OWN}");
        let undone = own::run(&mut attached.checkout, &undo, reported).await?;
        answer.for_client.extend_from_slice(&undone.for_client);
        answer.status = undone.status;
    }
    Ok(answer)
}
