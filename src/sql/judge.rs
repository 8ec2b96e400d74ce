//! Facts and a database's catalog make a judgement: may a standby answer this?
//!
//! Unsure means primary. A judgement says nothing of lag, of wishes or of the transaction around
//! the statement: that is the router's business.

use super::Catalog;
use super::Effects;
use super::catalog::Reading;
use super::facts::Class;
use super::facts::Count;
use super::facts::Facts;
use super::facts::Name;
use super::facts::Queries;
use super::functions;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a text needs the primary.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum NeedsPrimary {
            $($(#[$doc])* $name,)*
        }

        impl NeedsPrimary {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason in a word, for metrics, logs and `pgsteer route`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// It changes rows, or makes a table of a query.
    Write = "write",
    /// `FOR UPDATE`, `FOR SHARE` and their kin.
    RowLock = "row_lock",
    /// `LOCK TABLE`.
    TableLock = "table_lock",
    /// It begins, ends or alters a transaction.
    TransactionControl = "transaction_control",
    /// It changes or asks for the state of the session, or asks for a server's sessions.
    SessionState = "session_state",
    /// A cursor of this session.
    Cursor = "cursor",
    /// `PREPARE`, `EXECUTE` or `DEALLOCATE` as SQL.
    PreparedSql = "prepared_sql",
    /// `DO` or `CALL`.
    Procedural = "procedural",
    /// DDL, maintenance, and every statement that isn't known.
    Utility = "utility",
    /// A file or a program of the server.
    ServerFile = "server_file",
    /// Something in the session's temporary schema.
    Temporary = "temporary",
    /// It can't be parsed.
    Unparsed = "unparsed",
    /// It is longer than what is parsed.
    TooLong = "too_long",
    /// Its comments are nested too deep, or its operators too long, to be parsed in good time.
    TooDeep = "too_deep",
    /// The session's encoding or string syntax isn't parsed.
    Dialect = "dialect",
    /// An advisory lock: it excludes nobody when it is taken on a standby.
    Advisory = "advisory_lock",
    /// The function is for the primary whatever its label says.
    FunctionDenied = "function_denied",
    /// The function is volatile, so it may write.
    FunctionVolatile = "function_volatile",
    /// The database has no such function, as far as we know.
    FunctionUnknown = "function_unknown",
    /// The configuration's `write_functions` names the function.
    FunctionListed = "function_listed",
    /// The operator's function is volatile.
    OperatorVolatile = "operator_volatile",
    /// A cast, a comparison, a domain or a type of this database runs a volatile function.
    HiddenVolatile = "hidden_volatile",
    /// A view's query, or a row security policy, needs the primary.
    RelationImpure = "relation_impure",
    /// A foreign table, or a table that has one among its partitions.
    RelationForeign = "relation_foreign",
    /// The database has no such relation, as far as we know.
    RelationUnknown = "relation_unknown",
    /// Its rows are on the primary only: an unlogged table, a system view about the primary or
    /// the session.
    RelationOfPrimary = "relation_of_primary",
    /// Nothing is known yet of this database's functions and views.
    CatalogUnknown = "catalog_unknown",
}

impl NeedsPrimary {
    /// Whether a transaction that is on a standby already can take such a statement there, though
    /// none would be sent there by itself: the session goes on where it is.
    pub(super) const fn goes_on_at_a_standby(self) -> bool {
        matches!(self, Self::SessionState | Self::Cursor | Self::PreparedSql)
    }
}

/// Where a text may run, and what it may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// Whether a standby may answer it; if not, why.
    pub fit: Result<(), NeedsPrimary>,
    /// Whether a transaction that is on a standby already may go on with it; if not, why.
    pub goes_on: Result<(), NeedsPrimary>,
    marks: u8,
}

/// The backend must be probed before its release.
const TAINTS: u8 = 1;
/// It may be run again.
const REPLAYABLE: u8 = 2;

impl Judgement {
    /// Whether code that isn't in the text may have run on the backend, or an effect that the
    /// text doesn't fully tell: it must be probed before another session gets it. What
    /// [`Facts::settings`] names exactly isn't counted.
    pub const fn taints(self) -> bool {
        self.marks & TAINTS != 0
    }

    /// Whether it may be run again if nothing of its answer was shown: every function in it is
    /// known and harmless.
    pub const fn replayable(self) -> bool {
        self.marks & REPLAYABLE != 0
    }
}

impl Facts {
    /// Judges by a database's catalog; without one only what needs none is fit for a standby.
    pub fn judge(&self, catalog: Option<&Catalog>) -> Judgement {
        let id = catalog.map_or(0, Catalog::id);
        if let Some(known) = self.memo.recall(id) {
            return known;
        }
        let judgement = self.weigh(catalog).0;
        self.memo.keep(id, judgement);
        judgement
    }

    /// What exactly is to blame if it isn't fit for a standby: the function, the relation or
    /// the operator. For people; `judge` is for the hot path.
    pub fn culprit(&self, catalog: Option<&Catalog>) -> Option<String> {
        self.weigh(catalog).1
    }

    pub(super) fn weigh(&self, catalog: Option<&Catalog>) -> (Judgement, Option<String>) {
        let mut scale = Scale {
            catalog,
            reason: self.fixed.map(|why| (why, None)),
            stops: self.stops,
            code: false,
        };
        scale.weigh(self);
        let fit = scale.reason.as_ref().map_or(Ok(()), |(why, _)| Err(*why));
        let taints = scale.code || self.effects.any(UNTOLD) || self.class >= Class::Utility;
        let inert = !taints && (self.effects.is_empty() || self.effects == Effects::COPY_OUT);
        let replayable = fit.is_ok() && inert && self.class == Class::Read;
        let marks = if taints { TAINTS } else { 0 } | if replayable { REPLAYABLE } else { 0 };
        let goes_on = scale.stops.map_or(Ok(()), Err);
        (Judgement { fit, goes_on, marks }, scale.reason.and_then(|(_, culprit)| culprit))
    }
}

/// Effects whose outcome the text doesn't tell exactly, or that only a look at the backend can
/// confirm.
const UNTOLD: Effects = Effects::untold();

/// Weighs every name of a text.
struct Scale<'a> {
    catalog: Option<&'a Catalog>,
    /// The first reason found, and its culprit.
    reason: Option<(NeedsPrimary, Option<String>)>,
    /// The first reason that a transaction on a standby can't take.
    stops: Option<NeedsPrimary>,
    /// Whether code of users may run.
    code: bool,
}

impl Scale<'_> {
    fn blame(&mut self, why: NeedsPrimary, culprit: impl fmt::Display) {
        if !why.goes_on_at_a_standby() {
            self.stops.get_or_insert(why);
        }
        if self.reason.is_none() {
            self.reason = Some((why, Some(culprit.to_string())));
        }
    }

    fn weigh(&mut self, facts: &Facts) {
        for name in &facts.functions {
            self.function(name);
        }
        for name in &facts.dotted {
            self.dotted(name);
        }
        for name in &facts.relations {
            self.relation(name);
        }
        for name in &facts.targets {
            self.code |= self.catalog.is_none_or(|catalog| catalog.writing_runs_code(&name.name));
        }
        let Some(catalog) = self.catalog else {
            for name in facts.operators.iter().filter(|name| !is_arithmetic(name)) {
                self.code = true;
                self.blame(NeedsPrimary::CatalogUnknown, name);
            }
            return;
        };
        for name in &facts.operators {
            let Some(function) = catalog.operator(name) else { continue };
            self.code |= function.is_users_code();
            if function.is_volatile() {
                self.blame(NeedsPrimary::OperatorVolatile, name);
            }
        }
        for name in &facts.constructs {
            let Some(function) = catalog.users_function(name) else { continue };
            self.code |= function.is_users_code();
            if function.is_volatile() {
                self.blame(NeedsPrimary::FunctionVolatile, name);
            }
        }
        for (name, function) in catalog.row_functions() {
            if facts.attributes.may_hold(name) {
                self.code |= function.is_users_code();
                if function.is_volatile() {
                    self.blame(NeedsPrimary::FunctionVolatile, name);
                }
            }
        }
        let evaluates = facts.count != Count::Empty && facts.shown.is_none();
        let controls = matches!(facts.class, Class::Session | Class::Transaction);
        if evaluates && (!controls || facts.queries == Queries::Some) {
            self.code |= catalog.hidden().is_users_code();
            if catalog.hidden().is_volatile() {
                self.blame(NeedsPrimary::HiddenVolatile, "");
            }
        }
    }

    fn function(&mut self, name: &Name) {
        let denied = functions::denied(&name.name);
        let Some(catalog) = self.catalog else {
            self.code = true;
            return self.blame(denied.unwrap_or(NeedsPrimary::CatalogUnknown), name);
        };
        let function = catalog.function(name);
        self.code |=
            function.is_none_or(|found| found.is_users_code() || functions::runs_text(&name.name));
        if catalog.lists().writes(name) {
            return self.blame(NeedsPrimary::FunctionListed, name);
        }
        if catalog.lists().reads(name) {
            return;
        }
        match (denied, function) {
            (Some(why), _) => self.blame(why, name),
            (None, None) => self.blame(NeedsPrimary::FunctionUnknown, name),
            (None, Some(function)) if function.is_volatile() => {
                self.blame(NeedsPrimary::FunctionVolatile, name);
            }
            (None, Some(_)) => {}
        }
    }

    /// A column, unless there is such a function.
    fn dotted(&mut self, name: &str) {
        if self.catalog.is_none_or(|catalog| catalog.may_be_called_behind_dots(name)) {
            self.function(&Name::bare(name));
        }
    }

    fn relation(&mut self, name: &Name) {
        let Some(catalog) = self.catalog else {
            self.code = true;
            return self.blame(NeedsPrimary::CatalogUnknown, name);
        };
        match catalog.reading(&name.name) {
            None => {
                self.code = true;
                self.blame(NeedsPrimary::RelationUnknown, name);
            }
            Some(Reading::Plain) => {}
            Some(Reading::UsersCode) => self.code = true,
            Some(Reading::OfSessions) => self.blame(NeedsPrimary::SessionState, name),
            Some(Reading::OfPrimary) => self.blame(NeedsPrimary::RelationOfPrimary, name),
            Some(Reading::Foreign) => {
                self.code = true;
                self.blame(NeedsPrimary::RelationForeign, name);
            }
            Some(Reading::Impure) => {
                self.code = true;
                self.blame(NeedsPrimary::RelationImpure, name);
            }
        }
    }
}

/// Whether an operator is one of those that nobody needs to make.
fn is_arithmetic(operator: &str) -> bool {
    matches!(operator, "+" | "-" | "*" | "/" | "%")
}

/// The last judgement and the catalog that it was made by: 32 bits of the catalog's id, 8 of each
/// reason, 8 of the marks, and the lowest bit, which says that there is one. A race costs a second
/// weighing, since the word is written whole.
#[derive(Debug, Default)]
pub(super) struct Memo(AtomicU64);

impl Memo {
    fn recall(&self, catalog: u32) -> Option<Judgement> {
        let word = self.0.load(Ordering::Relaxed);
        if word & 1 == 0 || word >> 32 != u64::from(catalog) {
            return None;
        }
        let [_, _, _, _, stops, reason, marks, _] = word.to_be_bytes();
        Some(Judgement { fit: decoded(reason), goes_on: decoded(stops), marks })
    }

    fn keep(&self, catalog: u32, judgement: Judgement) {
        let (reason, stops) = (coded(judgement.fit), coded(judgement.goes_on));
        let word = u64::from_be_bytes([0, 0, 0, 0, stops, reason, judgement.marks, 1]);
        self.0.store(u64::from(catalog) << 32 | word, Ordering::Relaxed);
    }
}

/// A reason as its place in the list of all, from 1.
fn coded(fit: Result<(), NeedsPrimary>) -> u8 {
    let Err(why) = fit else { return 0 };
    let place = NeedsPrimary::ALL.iter().position(|known| *known == why);
    place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(u8::MAX)
}

fn decoded(reason: u8) -> Result<(), NeedsPrimary> {
    match NeedsPrimary::ALL.get(usize::from(reason).wrapping_sub(1)) {
        Some(why) => Err(*why),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_tells_what_it_was_told_for_that_catalog_only() {
        let memo = Memo::default();
        assert_eq!(memo.recall(0), None);
        for (id, fit) in [(0, Ok(())), (7, Err(NeedsPrimary::Write))] {
            for marks in [0, TAINTS, REPLAYABLE] {
                let judgement = Judgement { fit, goes_on: fit, marks };
                memo.keep(id, judgement);
                assert_eq!(memo.recall(id), Some(judgement));
                assert_eq!(memo.recall(id + 1), None);
            }
        }
        for why in NeedsPrimary::ALL {
            let goes_on = Err(NeedsPrimary::Cursor);
            let judgement = Judgement { fit: Err(*why), goes_on, marks: 0 };
            memo.keep(u32::MAX, judgement);
            assert_eq!(memo.recall(u32::MAX), Some(judgement));
        }
    }
}
