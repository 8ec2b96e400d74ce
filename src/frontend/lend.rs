//! `EXECUTE name` of SQL, where the name was prepared by the protocol. To a server these are the
//! same names. A pooled backend knows the client's by none of its own, so for as long as its
//! transaction lasts it is lent the statement under the client's.
//!
//! Nothing can be prepared in a transaction that has failed. Where a text begins with what leaves
//! it, it is left ahead of the text, and the text leaves it once more.

use crate::frontend::attached::{Attached, Deallocated, Segment};
use crate::frontend::own;
use crate::frontend::params::Reported;
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::settle::Usable;
use crate::frontend::state::Serving;
use crate::pg::quote_literal;
use crate::pool::Conn;
use crate::session::{End, Executes, Group, Prepared, Stray, is_ours_on_servers};
use crate::sql;
use crate::sql::{Effects, Touches, Transaction};
use crate::wire::frame::{Cursor, TxStatus};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a text leaves the failed transaction that it begins in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum WayOut {
    /// Back to a savepoint, by this statement: said twice it is the same.
    Back(String),
    /// As a whole.
    Out,
}

/// Makes a transaction fail that had failed before.
const FAIL: &str = "ROLLBACK TO SAVEPOINT pgsteer_has_left_a_failed_transaction_for_a_while";

impl Serving {
    /// How the present group leaves a failed transaction and goes on with a statement that is
    /// prepared.
    fn way_out(&self, group: &Group) -> Option<WayOut> {
        let attached = self.attached.as_deref()?;
        let failed = attached.status == TxStatus::Failed
            && attached.segment == Segment::Closed
            && attached.exchange.replies.is_settled();
        let mut named = self.session.mentioned.iter().flatten().flat_map(|facts| facts.prepared());
        if !failed || group.end != End::Query || !named.any(|(how, _)| *how == Touches::Runs) {
            return None;
        }
        let message = self.client.inbox().get(..group.bytes)?;
        let text = Cursor::new(message).text().ok()?;
        let dialect = self.client.reported.dialect();
        let first = sql::first_statement(text, dialect);
        let facts = self.client.shard.facts.borrow_mut().examine(first, dialect);
        match facts.transaction() {
            Transaction::Savepoint => Some(WayOut::Back(String::from_utf8(first.into()).ok()?)),
            Transaction::Rollback(_) | Transaction::Commit(_) => Some(WayOut::Out),
            Transaction::None
            | Transaction::Begin { .. }
            | Transaction::Set { .. }
            | Transaction::Prepare
            | Transaction::FinishPrepared
            | Transaction::Mixed => None,
        }
    }

    /// The backend is in a failed transaction: if the group leaves that and goes on with a
    /// statement that is prepared, it is lent that. To the group the transaction is as it was.
    pub(super) async fn lend_outside(&mut self, group: &Group) -> Result<Usable, Stop> {
        let Some(way) = self.way_out(group) else { return Ok(Usable::Yes) };
        let (usable, status) = match &way {
            WayOut::Back(sql) => self.ask(sql).await?,
            // The one behind it is of the same kind.
            WayOut::Out => self.ask("ROLLBACK AND CHAIN").await?,
        };
        if usable == Usable::Gone || status != Some(TxStatus::Open) {
            return Ok(usable);
        }
        let usable = if usable == Usable::Yes { self.regain_and_lend().await? } else { usable };
        match (usable, way) {
            (Usable::Gone, _) | (Usable::Yes, WayOut::Back(_)) => Ok(usable),
            // `COMMIT` says whether there was something to commit.
            (Usable::Yes, WayOut::Out) | (Usable::Cancelled, _) => {
                let (failed, _) = self.ask(FAIL).await?;
                Ok(failed)
            }
        }
    }

    async fn regain_and_lend(&mut self) -> Result<Usable, Stop> {
        let perhaps = |attached: &Attached| attached.deallocated == Deallocated::Perhaps;
        if self.attached.as_deref().is_some_and(perhaps) {
            let usable = self.regain_names().await?;
            if usable != Usable::Yes {
                return Ok(usable);
            }
        }
        if self.must_lend() { self.lend().await } else { Ok(Usable::Yes) }
    }

    /// Asks a question of ours; with what came of it, the transaction behind it.
    async fn ask(&mut self, sql: &str) -> Result<(Usable, Option<TxStatus>), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok((Usable::Yes, None)) };
        let thread = self.session.seat.thread();
        let asking = own::run(&mut attached.checkout, sql, &mut self.client.reported);
        let asked = thread.unless_cut(asking).await;
        let status = match &asked {
            Ok(Ok(answer)) => answer.status,
            Ok(Err(_)) | Err(_) => None,
        };
        let usable = self.after_own(asked.map(|answer| Ok(answer?.for_client))).await?;
        Ok((usable, status))
    }

    /// Why the present group can't be sent, if it speaks in SQL of what the backend holds under a
    /// name of ours: all sessions rely on that.
    pub(super) fn names_ours(&self, group: &Group) -> Option<No> {
        let speaks = Effects::PREPARE | Effects::EXECUTE | Effects::DEALLOCATE;
        let mut mentioned = self.session.mentioned.iter().flatten();
        if group.executes == Executes::Nothing || !mentioned.any(|it| it.effects().any(speaks)) {
            return None;
        }
        let mut named = self.session.mentioned.iter().flatten().flat_map(|facts| facts.prepared());
        let (_, name) = named.find(|(_, name)| is_ours_on_servers(name))?;
        Some(No::NameOfOurs(String::from_utf8_lossy(name).into_owned()))
    }

    /// Whether the present group executes by SQL what was prepared by the protocol.
    pub(super) fn must_lend(&self) -> bool {
        !self.session.names.is_empty() && self.executed().next().is_some()
    }

    /// The statements of the protocol that the present group executes by SQL, by their names.
    fn executed(&self) -> impl Iterator<Item = (&[u8], &Arc<Prepared>)> {
        let names = self.session.mentioned.iter().flatten().flat_map(|facts| facts.prepared());
        names.filter(|(touches, _)| *touches == Touches::Runs).filter_map(|(_, name)| {
            self.session.names.get(name).map(|statement| (&**name, statement))
        })
    }

    /// Lends them to the backend in hand, where nothing is under way and something can be prepared.
    /// What can't be prepared any more is not there, and the client is told so.
    pub(super) async fn lend(&mut self) -> Result<Usable, Stop> {
        // Each once, however often the text names it.
        let wanted: BTreeMap<Box<[u8]>, Arc<Prepared>> =
            self.executed().map(|(name, statement)| (name.into(), Arc::clone(statement))).collect();
        for (name, statement) in wanted {
            let thread = self.session.seat.thread();
            let Some(attached) = self.attached.as_deref_mut() else { break };
            let reported = &mut self.client.reported;
            let lending = own::lend(&mut attached.checkout, (&name, &statement), reported);
            let lent = thread.unless_cut(lending).await;
            attached.strays.lend(&name);
            attached.note_letters(&self.client.reported);
            let usable = self.after_own(lent.map(|lent| Ok(lent?.for_client))).await?;
            if usable != Usable::Yes {
                return Ok(usable);
            }
        }
        Ok(Usable::Yes)
    }

    /// Finds out which names an open transaction has taken away in which something has failed: they
    /// count as taken away, and perhaps they were not.
    pub(super) async fn regain_names(&mut self) -> Result<Usable, Stop> {
        let Some(mut attached) = self.attached.take() else { return Ok(Usable::Yes) };
        let thread = self.session.seat.thread();
        let regaining = self.take_back(&mut attached);
        let regained = thread.unless_cut(regaining).await;
        self.attached = Some(attached);
        self.after_own(regained.map(|regained| regained.map(|()| Vec::new()))).await
    }

    /// Takes the client's names off the backend that it was given for a while. One that the client
    /// has given by SQL meanwhile is its own; one that it was to take away and did not, for that
    /// failed, means what it meant.
    pub(super) async fn take_back(
        &mut self,
        attached: &mut Attached,
    ) -> Result<(), own::Unanswered> {
        let strays = attached.strays.take_all();
        attached.deallocated = Deallocated::AsTold;
        let (conn, status) = (&mut *attached.checkout, attached.status);
        let client = &mut self.client;
        let there = if strays.iter().all(|stray| stray.name.is_ascii()) {
            let (there, for_client) = closed(conn, status, &strays, &mut client.reported).await?;
            client.out().extend_from_slice(&for_client);
            there
        } else {
            // The letters of the session are others for a while, and these again behind it.
            let mut unheard = client.reported.clone();
            let own = unheard.get("server_encoding").map_or_else(String::new, quote_literal);
            let speak = format!("SET LOCAL client_encoding = {own}");
            let (before, behind) = match status {
                TxStatus::Idle => ("BEGIN", "ROLLBACK"),
                TxStatus::Open | TxStatus::Failed => {
                    ("SAVEPOINT pgsteer", "ROLLBACK TO pgsteer; RELEASE pgsteer")
                }
            };
            done(conn, status, &format!("{before}; {speak}"), &mut unheard).await?;
            let (there, _) = closed(conn, TxStatus::Open, &strays, &mut unheard).await?;
            done(conn, TxStatus::Open, behind, &mut unheard).await?;
            there
        };
        for Stray { name, before, .. } in there.into_iter().filter_map(|n| strays.get(n)) {
            if let Some(before) = before
                && self.session.names.get(name).is_none()
            {
                self.session.names.insert(name, Arc::clone(before));
            }
        }
        Ok(())
    }
}

/// Asks what must be done.
async fn done(
    conn: &mut Conn,
    status: TxStatus,
    sql: &str,
    reported: &mut Reported,
) -> Result<own::Answer, own::Unanswered> {
    let answer = match status {
        TxStatus::Idle => own::run_unhurried(conn, sql, reported).await?,
        TxStatus::Open | TxStatus::Failed => own::run(conn, sql, reported).await?,
    };
    if answer.error.is_some() { Err(own::Unanswered) } else { Ok(answer) }
}

/// Which of these the backend holds, which it does not behind it; and what of the answers is the
/// client's. The backend speaks the letters of its server, if there is a name of other letters than
/// those of ASCII.
async fn closed(
    conn: &mut Conn,
    status: TxStatus,
    strays: &[Stray],
    reported: &mut Reported,
) -> Result<(Vec<usize>, Vec<u8>), own::Unanswered> {
    let Some(sql) = there(strays) else { return Ok((Vec::new(), Vec::new())) };
    let answer = done(conn, status, &sql, reported).await?;
    let (mut found, mut for_client) = (Vec::new(), answer.for_client);
    for row in answer.rows {
        let [Some(number), Some(name)] = row.as_slice() else { return Err(own::Unanswered) };
        let name = unhex(name).ok_or(own::Unanswered)?;
        found.push(number.parse().map_err(|_| own::Unanswered)?);
        let closed = own::close(conn, &name, reported).await?;
        for_client.extend_from_slice(&closed.for_client);
    }
    Ok((found, for_client))
}

/// What asks which of these a backend holds, and how it calls them.
pub(super) fn there(strays: &[Stray]) -> Option<String> {
    let value = |(number, Stray { name, letters, .. }): (usize, &Stray)| {
        let letters = letters.as_deref().unwrap_or("SQL_ASCII");
        // A server takes no name that is none.
        if letters == "UTF8" && std::str::from_utf8(name).is_err() {
            return None;
        }
        let (name, letters) = (hex(name), quote_literal(letters));
        let name = format!("pg_catalog.decode('{name}','hex')");
        Some(format!("({number},pg_catalog.convert_from({name},{letters}))"))
    };
    let values: Vec<_> = strays.iter().enumerate().filter_map(value).collect();
    let there = format!(
        "SELECT stray.number, pg_catalog.encode(pg_catalog.convert_to(held.name, \
         pg_catalog.getdatabaseencoding()), 'hex') FROM (VALUES {}) AS stray (number, name) \
         JOIN pg_catalog.pg_prepared_statements AS held \
         ON held.name OPERATOR(pg_catalog.=) stray.name \
         WHERE NOT held.from_sql",
        values.join(",")
    );
    (!values.is_empty()).then_some(there)
}

fn hex(bytes: &[u8]) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    halves.filter_map(|half| char::from_digit(half.into(), 16)).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}
