//! What a group asks of a server: the facts of its statements, the database's catalog and the
//! session's wishes, weighed together.
//!
//! Unsure means primary. A group that ends in `Flush` and executes something may go on in the
//! same implicit transaction with anything, so it is unsure.

use crate::clock::Moment;
use crate::route::{Consistency, Need, PrimaryReason, RoleWish};
use crate::session::{End, Executes};
use crate::sql::{
    Access, Catalog, Chain, Effects, Facts, Isolation, NeedsPrimary, SetsOnly, Transaction,
};
use std::sync::Arc;

/// What a session wishes for, unless a statement says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// `pgsteer.role`.
    pub role: RoleWish,
    /// `pgsteer.consistency`.
    pub consistency: Consistency,
}

/// What one group needs, and what it may leave behind.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Where it may go.
    pub need: Need,
    /// What its reads must see.
    pub consistency: Consistency,
    /// Why it is not fit for a standby, if it isn't.
    pub unfit: Option<NeedsPrimary>,
    /// Why it may not even run in a transaction that is already on a standby, if it mayn't.
    pub forbidden: Option<NeedsPrimary>,
    /// Everything that it does besides answering.
    pub effects: Effects,
    /// Whether the backend must be probed before it rests.
    pub taint: Taint,
    /// Whether it may be run again if the client has seen nothing of its answer.
    pub again: Again,
    /// Whether it can have committed anything when its connection breaks.
    pub commits: MayCommit,
    /// Whether it only reads; what may follow it in the same implicit transaction, behind a
    /// `Flush`, may do more.
    pub read: PureRead,
    /// How the group ends.
    pub end: End,
    /// When it arrived.
    pub since: Moment,
}

/// What a group may leave on its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Taint {
    /// Nothing.
    #[default]
    None,
    /// State that a probe shows: settings, locks, temporary objects, channels, cursors.
    Visible,
    /// Also settings that no probe can list: code that is not in the text ran.
    Hidden,
}

/// Whether a group may be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Every part of it is known to do nothing but answer.
    May,
    /// It may have done something.
    MustNot,
}

/// Whether a group, run inside an open transaction, can commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayCommit {
    /// It can't.
    No,
    /// It can, or it is not known.
    Maybe,
}

/// Whether a group does nothing but read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PureRead {
    /// It does.
    Yes,
    /// It may do more.
    No,
}

/// What is known of a group before it is planned.
#[derive(Debug)]
pub struct Material<'a> {
    /// The facts of every statement that it mentions; `None`: not to be known.
    pub mentioned: &'a [Option<Arc<Facts>>],
    /// The database's functions and views.
    pub catalog: Option<&'a Catalog>,
    /// The session's wishes.
    pub wishes: Wishes,
    /// How the group ends.
    pub end: End,
    /// Whether it executes anything.
    pub executes: Executes,
    /// When it arrived.
    pub now: Moment,
}

/// What the group needs.
pub fn plan(material: &Material<'_>) -> Plan {
    let wishes = together(material);
    let mut plan = Plan {
        need: Need::Anywhere,
        consistency: wishes.consistency,
        unfit: None,
        forbidden: None,
        effects: Effects::NONE,
        taint: Taint::None,
        again: Again::May,
        commits: MayCommit::No,
        read: PureRead::No,
        end: material.end,
        since: material.now,
    };
    let mut reads = Reads::Nothing;
    for facts in material.mentioned {
        let Some(facts) = facts else {
            plan.unfit = Some(NeedsPrimary::TooLong);
            plan.forbidden = Some(NeedsPrimary::TooLong);
            plan.effects |= Effects::UNKNOWN;
            plan.taint = Taint::Hidden;
            plan.again = Again::MustNot;
            plan.commits = MayCommit::Maybe;
            continue;
        };
        plan.weigh(facts, material.catalog, &mut reads);
    }
    if reads_change(material.mentioned) {
        plan.unfit.get_or_insert(NeedsPrimary::Dialect);
        plan.forbidden.get_or_insert(NeedsPrimary::Dialect);
        plan.effects |= Effects::UNKNOWN;
        plan.taint = Taint::Hidden;
        plan.again = Again::MustNot;
        plan.commits = MayCommit::Maybe;
    }
    if may_go_on_behind_rollback(material) {
        plan.commits = MayCommit::Maybe;
    }
    if plan.unfit.is_none() && reads == Reads::Data {
        plan.read = PureRead::Yes;
    }
    if let End::Flush | End::Cut { .. } = material.end {
        plan.again = Again::MustNot;
        if material.executes == Executes::Something || material.end != End::Flush {
            plan.unfit.get_or_insert(NeedsPrimary::TooLong);
        }
    }
    plan.need = need(&plan, wishes.role, reads);
    plan
}

/// Whether a group reads data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reads {
    Nothing,
    Data,
}

impl Plan {
    /// Whether it may draw from a sequence: it says so, or changes rows, for which a column's
    /// default may, or runs code that is not in the text.
    pub fn may_draw(&self) -> bool {
        self.taint == Taint::Hidden || self.effects.any(Effects::DML | Effects::DRAW)
    }

    /// Whether it may notify: it says so, or runs code that is not in the text.
    pub fn may_notify(&self) -> bool {
        self.taint == Taint::Hidden || self.effects.any(Effects::NOTIFY | Effects::EXECUTE)
    }

    fn weigh(&mut self, facts: &Facts, catalog: Option<&Catalog>, reads: &mut Reads) {
        let judgement = facts.judge(catalog);
        let effects = facts.effects();
        self.effects |= effects;
        if judgement.taints() {
            self.taint = Taint::Hidden;
        } else if effects.any(Effects::SESSION) {
            self.taint = self.taint.max(Taint::Visible);
        }
        let sets_only = facts.sets_only() == SetsOnly::Yes && only_settings(effects);
        if !judgement.replayable() && !sets_only {
            self.again = Again::MustNot;
        }
        match facts.transaction() {
            Transaction::None
            | Transaction::Savepoint
            | Transaction::Set { .. }
            | Transaction::Rollback(_)
            | Transaction::Begin { .. } => {}
            Transaction::Commit(_)
            | Transaction::Prepare
            | Transaction::FinishPrepared
            | Transaction::Mixed => self.commits = MayCommit::Maybe,
        }
        if effects.any(Effects::CALL | Effects::DO | Effects::UNKNOWN) {
            self.commits = MayCommit::Maybe;
        }
        self.forbidden = self.forbidden.or(judgement.goes_on.err());
        match (judgement.fit, facts.class()) {
            (Ok(()), _) => *reads = Reads::Data,
            // Only settings: any server will do, and the settings follow the session.
            (Err(NeedsPrimary::SessionState), _) if sets_only => {}
            // Outside of a transaction there is nothing to end, and any server can say so; the
            // one that was open is lost.
            (Err(NeedsPrimary::TransactionControl), _)
                if facts.transaction() == Transaction::Rollback(Chain::Ends) => {}
            // Without a catalog, what comes next could not be judged on a standby.
            (Err(NeedsPrimary::TransactionControl), _)
                if catalog.is_some() && begins_read_only(facts) =>
            {
                *reads = Reads::Data;
            }
            (Err(why), _) => {
                self.unfit.get_or_insert(why);
            }
        }
    }
}

/// Where the group may go.
fn need(plan: &Plan, role: RoleWish, reads: Reads) -> Need {
    match (role, plan.unfit) {
        (RoleWish::Standby, _) => Need::Standby,
        (RoleWish::Primary, _) => Need::Primary(PrimaryReason::Wish),
        (RoleWish::Auto, Some(_)) => Need::Primary(PrimaryReason::Statement),
        (RoleWish::Auto, None) if reads == Reads::Data => Need::Read,
        (RoleWish::Auto, None) => Need::Anywhere,
    }
}

/// What the group's statements wish for together: the strictest consistency of all, and a standby
/// only if each of them does.
fn together(material: &Material<'_>) -> Wishes {
    let each = material.mentioned.iter().map(|facts| match facts {
        Some(facts) => hinted(material.wishes, facts),
        None => material.wishes,
    });
    let both = |a: Wishes, b: Wishes| Wishes {
        role: match (a.role, b.role) {
            (RoleWish::Primary, _) | (_, RoleWish::Primary) => RoleWish::Primary,
            (RoleWish::Standby, RoleWish::Standby) => RoleWish::Standby,
            (RoleWish::Auto | RoleWish::Standby, RoleWish::Auto | RoleWish::Standby) => {
                RoleWish::Auto
            }
        },
        consistency: a.consistency.max(b.consistency),
    };
    each.reduce(both).unwrap_or(material.wishes)
}

/// What the comment hints of a statement say.
fn hinted(wishes: Wishes, facts: &Arc<Facts>) -> Wishes {
    let mut wishes = wishes;
    for (name, value) in facts.hints().into_iter().flat_map(|hints| &hints.wishes) {
        match &**name {
            "role" => wishes.role = role(value).unwrap_or(wishes.role),
            "consistency" => wishes.consistency = consistency(value).unwrap_or(wishes.consistency),
            _ => {}
        }
    }
    wishes
}

/// The comment hints that say nothing to pgsteer: a name or a value that there is not.
pub fn idle_hints(facts: &Facts) -> Vec<String> {
    let wishes = facts.hints().into_iter().flat_map(|hints| &hints.wishes);
    let idle = wishes.filter(|(name, value)| match &**name {
        "role" => role(value).is_none(),
        "consistency" => consistency(value).is_none(),
        _ => true,
    });
    idle.map(|(name, value)| format!("{name}={value}")).collect()
}

/// `pgsteer.role` as text.
pub(super) fn role(text: &str) -> Option<RoleWish> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Some(RoleWish::Auto),
        "primary" => Some(RoleWish::Primary),
        "standby" => Some(RoleWish::Standby),
        _ => None,
    }
}

/// `pgsteer.consistency` as text.
pub(super) fn consistency(text: &str) -> Option<Consistency> {
    match text.to_ascii_lowercase().as_str() {
        "eventual" => Some(Consistency::Eventual),
        "session" => Some(Consistency::Session),
        "primary" => Some(Consistency::Primary),
        _ => None,
    }
}

/// Whether nothing but settings is touched.
pub(super) fn only_settings(effects: Effects) -> bool {
    effects.any(Effects::SET | Effects::RESET | Effects::RESET_ALL | Effects::SET_LOCAL)
        && !effects.any(
            Effects::ROLE
                | Effects::DISCARD
                | Effects::DISCARD_ALL
                | Effects::LISTEN
                | Effects::UNLISTEN
                | Effects::LASTING
                | Effects::UNKNOWN
                | Effects::DEALLOCATE
                | Effects::PREPARE
                | Effects::EXECUTE
                | Effects::ADVISORY
                | Effects::SET_CONFIG
                | Effects::SET_CONFIG_DYNAMIC,
        )
}

/// Whether a `ROLLBACK` is not the group's only statement, or may not be the last before `Sync`:
/// what comes behind it is committed by itself.
fn may_go_on_behind_rollback(material: &Material<'_>) -> bool {
    let alone = matches!(material.end, End::Query | End::Sync) && material.mentioned.len() == 1;
    let mut known = material.mentioned.iter().flatten();
    !alone && known.any(|facts| matches!(facts.transaction(), Transaction::Rollback(_)))
}

/// Whether a statement of the batch may change how the server reads those behind it: they were
/// looked at as they read now, and what is a string by then may be a call.
fn reads_change(mentioned: &[Option<Arc<Facts>>]) -> bool {
    let Some((_, before)) = mentioned.split_last() else { return false };
    before.iter().flatten().any(|facts| {
        let all = Effects::RESET_ALL | Effects::DISCARD_ALL | Effects::SET_CONFIG_DYNAMIC;
        facts.effects().any(all)
            || facts.settings().iter().any(|setting| READING.contains(&&*setting.name))
    })
}

/// The settings by which a server tells letters, and strings from what is around them.
pub(super) const READING: [&str; 2] = ["client_encoding", "standard_conforming_strings"];

/// Whether the statement begins a transaction that a standby can run.
fn begins_read_only(facts: &Facts) -> bool {
    matches!(
        facts.transaction(),
        Transaction::Begin {
            access: Access::ReadOnly,
            isolation: Isolation::Default | Isolation::ReadCommitted | Isolation::RepeatableRead,
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Dialect, examine};

    fn planned(texts: &[&str], end: End) -> Plan {
        let facts = |sql: &&str| Some(Arc::new(examine(sql.as_bytes(), Dialect::default())));
        let mentioned: Vec<_> = texts.iter().map(facts).collect();
        plan(&Material {
            mentioned: &mentioned,
            catalog: None,
            wishes: Wishes { role: RoleWish::Auto, consistency: Consistency::Session },
            end,
            executes: Executes::Something,
            now: Moment::from_nanos(1),
        })
    }

    /// What stands beside a `SET`, in a text or a batch, is weighed by itself.
    #[test]
    fn a_setting_makes_nothing_beside_it_harmless() {
        let settings: [&[&str]; 5] = [
            &["SET a.b = 1"],
            &["SET a.b = 1; SET LOCAL work_mem = '8MB'; RESET a.b"],
            &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE"],
            &["SET a.b = 1", "RESET ALL"],
            &["RESET ALL; SET a.b = 1"],
        ];
        for texts in settings {
            let plan = planned(texts, End::Sync);
            assert_eq!((plan.again, plan.need), (Again::May, Need::Anywhere), "{texts:?}");
        }
        let more: [&[&str]; 7] = [
            &["SET a.b = 1; SELECT f()"],
            &["SELECT f(); SET a.b = 1"],
            &["SET a.b = 1; SELECT pg_advisory_xact_lock(1)"],
            &["SET a.b = 1; SELECT * FROM t"],
            &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, DEFERRABLE; SELECT f()"],
            &["SET a.b = 1; SHOW transaction_read_only"],
            &["SELECT f()", "SET a.b = 1"],
        ];
        for texts in more {
            let plan = planned(texts, End::Sync);
            let primary = Need::Primary(PrimaryReason::Statement);
            assert_eq!((plan.again, plan.need), (Again::MustNot, primary), "{texts:?}");
        }
    }

    /// Who is told 40001 runs its transaction again: what may have been committed is in doubt.
    #[test]
    fn what_can_have_committed_an_open_transaction_is_known() {
        let can = [
            "COMMIT",
            "END",
            "COMMIT AND CHAIN",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "ROLLBACK PREPARED 'x'",
            "INSERT INTO t VALUES (1); COMMIT",
            "INSERT INTO t VALUES (1); COMMIT; SELECT 1/0",
            "ROLLBACK; INSERT INTO t VALUES (1)",
            "CALL p()",
            "DO 'BEGIN END'",
            "not SQL at all",
        ];
        for sql in can {
            assert_eq!(planned(&[sql], End::Query).commits, MayCommit::Maybe, "{sql}");
        }
        let cannot = [
            "SELECT 1",
            "INSERT INTO t VALUES (1) RETURNING i",
            "ROLLBACK",
            "SAVEPOINT a",
            "SET TRANSACTION READ ONLY",
            "BEGIN",
        ];
        for sql in cannot {
            assert_eq!(planned(&[sql], End::Query).commits, MayCommit::No, "{sql}");
        }
        // In one batch, what stands behind the end of the transaction commits by itself.
        let batches: [(&[&str], End, MayCommit); 5] = [
            (&["INSERT INTO t VALUES (1)", "COMMIT"], End::Sync, MayCommit::Maybe),
            (&["ROLLBACK", "INSERT INTO t VALUES (1)"], End::Sync, MayCommit::Maybe),
            (&["ROLLBACK"], End::Flush, MayCommit::Maybe),
            (&["ROLLBACK"], End::Sync, MayCommit::No),
            (&["INSERT INTO t VALUES (1)", "SELECT 1"], End::Sync, MayCommit::No),
        ];
        for (texts, end, expected) in batches {
            assert_eq!(planned(texts, end).commits, expected, "{texts:?} {end:?}");
        }
    }

    /// By the time a server reads what is behind it, a quote may be none.
    #[test]
    fn what_follows_a_change_of_how_it_is_read_is_unsure() {
        let changes = [
            "SET standard_conforming_strings = off",
            "SET LOCAL standard_conforming_strings TO off",
            "RESET standard_conforming_strings",
            "SET client_encoding = 'SJIS'",
            "SET NAMES 'SJIS'",
            "RESET client_encoding",
            "RESET ALL",
            "DISCARD ALL",
            "SELECT set_config('standard_conforming_strings', 'off', false)",
            "SELECT set_config($1, $2, false)",
        ];
        for change in changes {
            let plan = planned(&[change, "SELECT 1"], End::Sync);
            assert_eq!(plan.need, Need::Primary(PrimaryReason::Statement), "{change}");
            assert_eq!((plan.again, plan.taint), (Again::MustNot, Taint::Hidden), "{change}");
        }
        for harmless in ["SET work_mem = '1MB'", "SELECT 2"] {
            let plan = planned(&[harmless, "SELECT 1"], End::Sync);
            assert_eq!((plan.need, plan.taint == Taint::Hidden), (Need::Read, false), "{harmless}");
        }
    }

    /// Behind a `Flush` anything may follow in the same implicit transaction.
    #[test]
    fn what_runs_before_a_flush_goes_to_the_primary_once() {
        for end in [End::Flush, End::Cut { rest: 1, of: crate::session::Cut::Batch }] {
            let plan = planned(&["SELECT 1"], end);
            assert_eq!(plan.need, Need::Primary(PrimaryReason::Statement), "{end:?}");
            assert_eq!(plan.again, Again::MustNot, "{end:?}");
        }
        let plan = planned(&["SELECT 1"], End::Sync);
        assert_eq!((plan.need, plan.again), (Need::Read, Again::May));
    }
}
