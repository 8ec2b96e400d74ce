//! `RESET` within a transaction, of what the client gave at its login: to the backend, which others
//! use too, that is no default, so it is told the login's values before the next statement.
//!
//! Invariants:
//! - Nothing here takes a snapshot: the transaction can still say how it is isolated.
//! - It is told directly behind the statement that reset, or not at all. Where that is not alone in
//!   its text, or what is given has letters that the backend may not read so, the session gets its
//!   values behind the transaction, as after any other.
//! - What the backend refuses takes nothing else away. What it had no time for is told again, or
//!   the group is refused: none runs by chance without what the login gave.
//! - Where the transaction can begin anew elsewhere, this is said there as well.

use crate::backend::ServerError;
use crate::frontend::attached::{Attached, Segment};
use crate::frontend::client::Client;
use crate::frontend::own;
use crate::frontend::params::Reported;
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::settle::Usable;
use crate::frontend::state::{Serving, Session};
use crate::pg::{SqlState, quote_identifier};
use crate::pool::Conn;
use crate::session::{End, Executes, Group, Settings};
use crate::sql::{Chain, Change, Class, Count, Effects, Facts, Scope, Transaction};
use crate::wire::frame;
use crate::wire::frame::{Cursor, TxStatus};

/// The values that a login gave to what was reset.
#[derive(Debug)]
pub(super) struct LoginValues(Vec<LoginValue>);

#[derive(Debug)]
struct LoginValue {
    name: Box<str>,
    scope: Scope,
    /// The statement that gives it.
    sql: String,
}

/// Takes note of what a group that is about to be sent resets of the login's.
pub(super) fn note((client, session): (&Client, &Session), attached: &mut Attached, group: &Group) {
    if session.startup.is_empty() || group.executes == Executes::Nothing {
        return;
    }
    attached.resets.note(&session.mentioned);
    attached.behind_reset = match session.mentioned.as_slice() {
        [Some(facts)] if attached.status == TxStatus::Open => {
            let bytes = client.inbox().get(..group.bytes).unwrap_or(&[]);
            behind_reset(facts, &session.startup).filter(|_| is_run(bytes)).map(Box::new)
        }
        _ => None,
    };
}

/// What gives a backend the login's values behind a statement that does nothing but to reset some.
fn behind_reset(facts: &Facts, login: &Settings) -> Option<LoginValues> {
    let all = facts.effects().any(Effects::RESET_ALL);
    let resets = facts.settings().iter().all(|setting| setting.change == Change::Reset);
    let alone = facts.count() == Count::One
        && facts.class() == Class::Session
        && facts.effects().is_within(Effects::RESET | Effects::RESET_ALL | Effects::SET_LOCAL);
    if !alone || !resets {
        return None;
    }
    let everything = login.iter().filter(|_| all);
    let everything = everything.map(|(name, value)| (name, value, Scope::Session));
    let named = facts
        .settings()
        .iter()
        .filter_map(|setting| Some((&*setting.name, login.get(&setting.name)?, setting.scope)));
    let values: Vec<_> = everything
        .chain(named)
        .filter_map(|(name, value, scope)| LoginValue::new(name, value, scope))
        .collect();
    (!values.is_empty()).then_some(LoginValues(values))
}

/// Whether a group runs its only statement, where the client misses nothing that a `Query` of ours
/// takes from the backend: it destroys the portal without a name.
fn is_run(group: &[u8]) -> bool {
    let mut rest = group;
    let mut bound = false;
    while let Ok(Some(header)) = frame::peek(rest) {
        let message = rest.get(..header.total).unwrap_or(rest);
        rest = rest.get(message.len()..).unwrap_or(&[]);
        let portal = Cursor::new(message).text();
        match header.tag {
            b'Q' => return true,
            b'B' => bound = portal == Ok(b""),
            b'E' => return bound && portal == Ok(b""),
            _ => {}
        }
    }
    false
}

impl LoginValues {
    /// What the session is given of them.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|value| value.scope == Scope::Session).map(|value| &*value.name)
    }
}

impl LoginValue {
    fn new(name: &str, value: &str, scope: Scope) -> Option<Self> {
        let assigned = Settings::assignment(name, value)?;
        let word = match scope {
            Scope::Session => "SESSION",
            Scope::Transaction => "LOCAL",
        };
        Some(Self { name: name.into(), scope, sql: format!("SET {word} {assigned};") })
    }
}

/// Undoes what was refused: a role may lack the right to what was given at login, for which
/// `RESET` does not ask.
const OWN: &str = "pgsteer_behind_reset";

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
        let Some(values) = attached.behind_reset.take() else { return Ok(Usable::Yes) };
        if !closed || attached.status != TxStatus::Open || ends != Ends::No {
            if ends == Ends::AsItWas {
                values.names().for_each(|name| attached.resets.forget(name));
            }
            return Ok(Usable::Yes);
        }
        let (conn, reported) = (&mut attached.checkout, &mut self.client.reported);
        let mut teller = Teller { conn, reported, told: Told::default() };
        let thread = self.session.seat.thread();
        let lost = match thread.unless_cut(teller.tell(&values)).await {
            Ok(Ok(())) => None,
            Ok(Err(unanswered)) => Some(Ok(Err(unanswered))),
            Err(cut_off) => Some(Err(cut_off)),
        };
        let told = teller.told;
        if let Some(lost) = lost {
            attached.behind_reset = Some(values);
            return self.after_own(lost).await;
        }
        attached.status = told.status.unwrap_or(attached.status);
        told.said.iter().for_each(|sql| attached.block.was_told(sql));
        told.names.iter().for_each(|name| attached.resets.forget(name));
        let usable = self.after_own(Ok(Ok(told.for_client))).await?;
        match told.failed {
            // It fails by itself, as everything does behind it.
            Some(_) if matches!(group.end, End::Cut { .. }) => Ok(usable),
            Some(error) if usable == Usable::Yes => {
                self.refuse(group, Box::new(No::NotReset(error))).await?;
                Ok(Usable::Gone)
            }
            Some(_) | None => Ok(usable),
        }
    }

    /// Whether the present group does nothing but to end the transaction, whatever is set there.
    fn ends_transaction(&self) -> Ends {
        let [Some(facts)] = self.session.mentioned.as_slice() else { return Ends::No };
        if facts.count() != Count::One {
            return Ends::No;
        }
        match facts.transaction() {
            Transaction::Commit(Chain::Ends) => Ends::AsItIs,
            Transaction::Rollback(Chain::Ends) => Ends::AsItWas,
            Transaction::None
            | Transaction::Begin { .. }
            | Transaction::Set { .. }
            | Transaction::Commit(Chain::Continues)
            | Transaction::Rollback(Chain::Continues)
            | Transaction::Savepoint
            | Transaction::Prepare
            | Transaction::FinishPrepared
            | Transaction::Mixed => Ends::No,
        }
    }
}

/// How a group leaves what was set in the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It does not end the transaction, or not only.
    No,
    AsItIs,
    AsItWas,
}

/// What came of telling.
#[derive(Debug, Default)]
struct Told {
    /// What the backend took.
    said: Vec<String>,
    /// What the session has of it, whether or not it is rolled back.
    names: Vec<Box<str>>,
    for_client: Vec<u8>,
    status: Option<TxStatus>,
    /// Why nothing can run behind it.
    failed: Option<ServerError>,
}

/// Tells a backend.
struct Teller<'a> {
    conn: &'a mut Conn,
    reported: &'a mut Reported,
    told: Told,
}

/// What a backend says to a text of ours.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Yes,
    /// It refuses, and all is as it was.
    No(SqlState),
    /// It does not come to it: [`Told::failed`] says why.
    Failed,
}

impl Teller<'_> {
    /// Tells it all, or else each that it takes.
    async fn tell(&mut self, values: &LoginValues) -> Result<(), own::Unanswered> {
        let all: String = values.0.iter().map(|value| &*value.sql).collect();
        match self.say(&all).await? {
            Said::Yes => values.0.iter().for_each(|value| self.note(value)),
            Said::Failed => {}
            Said::No(_) => {
                for value in &values.0 {
                    match self.tell_one(value).await? {
                        Said::Yes => self.note(value),
                        // It has none, until the transaction ends.
                        Said::No(_) => {}
                        Said::Failed => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }

    /// By the role of the moment, or else by the one that logged in, which had the right.
    async fn tell_one(&mut self, value: &LoginValue) -> Result<Said, own::Unanswered> {
        let said = self.say(&value.sql).await?;
        if said != Said::No(SqlState::INSUFFICIENT_PRIVILEGE) {
            return Ok(said);
        }
        let shown = own::run(self.conn, "SHOW role", self.reported).await?;
        self.told.for_client.extend_from_slice(&shown.for_client);
        self.told.status = shown.status;
        match shown.rows.first().map(Vec::as_slice) {
            Some([Some(role)]) if role != "none" && role.is_ascii() => {
                let (sql, role) = (&value.sql, quote_identifier(role));
                self.say(&format!("SET LOCAL ROLE NONE;{sql}SET LOCAL ROLE {role};")).await
            }
            _ => Ok(said),
        }
    }

    fn note(&mut self, value: &LoginValue) {
        if value.scope == Scope::Session {
            self.told.names.push(value.name.clone());
        }
    }

    /// Says this, or leaves everything as it was. What is ended by a clock, or by a cancel that
    /// comes late, is said again.
    async fn say(&mut self, sql: &str) -> Result<Said, own::Unanswered> {
        let sql = format!("SAVEPOINT {OWN};{sql}RELEASE {OWN}");
        let undo = format!("ROLLBACK TO {OWN};RELEASE {OWN}");
        for tries in 1.. {
            let answer = self.run(&sql).await?;
            let Some(error) = answer.error else {
                self.told.said.push(sql);
                return Ok(Said::Yes);
            };
            let code = error.code;
            self.run(&undo).await?;
            let passes = [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE].contains(&code);
            if self.told.status == Some(TxStatus::Failed) || passes && tries >= own::TRIES_MAX {
                self.told.failed = Some(error);
                return Ok(Said::Failed);
            }
            if !passes {
                return Ok(Said::No(code));
            }
        }
        Err(own::Unanswered)
    }

    async fn run(&mut self, sql: &str) -> Result<own::Answer, own::Unanswered> {
        let mut answer = own::run(self.conn, sql, self.reported).await?;
        self.told.for_client.append(&mut answer.for_client);
        self.told.status = answer.status;
        Ok(answer)
    }
}
