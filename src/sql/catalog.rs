//! What a database's functions, views and triggers do: built from plain rows, asked by name.
//!
//! Names are matched by their last part, and of several that bear one the worst counts: which of
//! them a session means depends on its `search_path` and on types, which we don't know. A name
//! that isn't here is unknown, and unknown means primary.
//!
//! Deliberately absent: how the rows are read (`control::catalog`), and the question whether
//! they are still true (`fingerprint`).

use super::Dialect;
use super::FunctionLists;
use super::catalog_rows::Argument;
use super::catalog_rows::FunctionRow;
use super::catalog_rows::Origin;
use super::catalog_rows::Place;
use super::catalog_rows::RelationKind;
use super::catalog_rows::Rows;
use super::catalog_rows::Volatility;
use super::examine;
use super::facts::Facts;
use super::facts::Name;
use super::functions;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// What a database's functions, views and triggers do.
pub struct Catalog {
    id: u32,
    /// Whether a statement was judged by it since somebody asked.
    used: AtomicBool,
    fingerprint: Box<str>,
    lists: FunctionLists,
    functions: HashMap<Box<str>, Overloads>,
    /// Functions that `row.name` may call.
    row_functions: Vec<(Box<str>, Function)>,
    /// User-defined operators that aren't harmless.
    operators: HashMap<Box<str>, Function>,
    relations: HashMap<Box<str>, Relation>,
    /// The worst of what runs without being named: casts, comparisons, domains, types.
    hidden: Function,
}

/// The functions of one name.
#[derive(Debug, Clone, Copy, Default)]
struct Overloads {
    /// In the schema `pg_catalog`.
    core: Option<Function>,
    /// In any other schema.
    other: Option<Function>,
    behind_dots: BehindDots,
}

/// Whether one of them takes one argument, so that it may be called as `(value).name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum BehindDots {
    Yes,
    #[default]
    No,
}

/// The worst of several functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Function(u8);

/// It may write, as far as we know.
const VOLATILE: u8 = 1;
/// It is someone's own code, whose label is a promise and no more.
const USERS_CODE: u8 = 2;

impl Function {
    const NONE: Self = Self(0);
    const WORST: Self = Self(VOLATILE | USERS_CODE);

    /// What the row says, corrected by the shipped list of harmless ones.
    fn from_row(row: &FunctionRow) -> Self {
        let harmless = row.origin != Origin::Written && functions::harmless(&row.name);
        let volatile = row.volatility == Volatility::Volatile && !harmless;
        let users = match row.origin {
            Origin::Builtin => false,
            // A C function that is labelled immutable has a superuser's word for it; a stable
            // one may run queries (`crosstab`).
            Origin::Native => row.volatility != Volatility::Immutable && !harmless,
            Origin::Written => true,
        };
        Self(if volatile { VOLATILE } else { 0 } | if users { USERS_CODE } else { 0 })
    }

    /// The same for a function behind an operator, a cast or a type: what it is given is a
    /// value, never the text of a query, so a C function's word counts if it is stable, too
    /// (`citextsend`). Of what is for the primary by its name no text tells.
    fn behind_a_symbol(row: &FunctionRow) -> Self {
        if functions::denied(&row.name).is_some() {
            return Self::WORST;
        }
        match (row.origin, row.volatility) {
            (Origin::Native, Volatility::Immutable | Volatility::Stable) => Self::NONE,
            (Origin::Native, Volatility::Volatile) | (Origin::Builtin | Origin::Written, _) => {
                Self::from_row(row)
            }
        }
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn is_volatile(self) -> bool {
        self.0 & VOLATILE != 0
    }

    pub(super) const fn is_users_code(self) -> bool {
        self.0 & USERS_CODE != 0
    }
}

/// The relations of one name.
#[derive(Debug, Clone, Copy)]
struct Relation {
    reading: Reading,
    writing: Writing,
}

/// What reading a relation does; the later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reading {
    /// Nothing else.
    Plain,
    /// It runs someone's own code that is labelled as harmless.
    UsersCode,
    /// It tells of the sessions of the server that answers.
    OfSessions,
    /// Its rows are on the primary, or in a session.
    OfPrimary,
    /// It asks another server.
    Foreign,
    /// It may do what needs the primary.
    Impure,
}

/// What writing a relation does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Writing {
    Plain,
    /// A trigger, a rule, a default, a constraint or a policy runs someone's own code.
    UsersCode,
}

/// Most passes over the views: each makes a chain of views one longer. What then still changes
/// is taken to be impure.
const MAX_PASSES: usize = 64;

impl Catalog {
    /// Builds the catalog; the lists go into it, since views hide calls of the functions that
    /// they name.
    pub fn new(rows: &Rows, lists: FunctionLists) -> Self {
        let mut catalog =
            Self { fingerprint: rows.fingerprint.clone().into(), lists, ..Self::default() };
        for row in &rows.functions {
            catalog.add_function(row);
        }
        // The grammar says `extract` where servers before 14 have `date_part` only.
        if let Some(date_part) = catalog.functions.get("date_part").copied() {
            catalog.functions.entry("extract".into()).or_insert(date_part);
        }
        for (operator, row) in &rows.operators {
            let entry = catalog.operators.entry(operator.as_str().into()).or_default();
            *entry = entry.and(Function::behind_a_symbol(row));
        }
        catalog.follow_defaults(&rows.defaults);
        for row in &rows.hidden {
            catalog.hidden = catalog.hidden.and(Function::behind_a_symbol(row));
        }
        for expression in &rows.domains {
            let code = catalog.of_expression(expression);
            catalog.hidden = catalog.hidden.and(code);
        }
        let written = written_with_code(rows);
        let mut definitions = catalog.add_relations(rows, &written);
        for policy in &rows.policies {
            let facts = examine_expression(&policy.expression);
            definitions.push((policy.relation.as_str(), facts));
        }
        catalog.follow(&definitions);
        catalog.functions.shrink_to_fit();
        catalog.relations.shrink_to_fit();
        catalog
    }

    fn add_function(&mut self, row: &FunctionRow) {
        let function = Function::from_row(row);
        let entry = self.functions.entry(row.name.as_str().into()).or_default();
        let place = match row.place {
            Place::Core => &mut entry.core,
            Place::Other => &mut entry.other,
        };
        *place = Some(place.unwrap_or(Function::NONE).and(function));
        if row.argument != Argument::Other {
            entry.behind_dots = BehindDots::Yes;
        }
        let takes_row = row.argument == Argument::Row;
        let matters = takes_row && row.origin != Origin::Builtin && function != Function::NONE;
        if matters {
            self.row_functions.push((row.name.as_str().into(), function));
        }
    }

    /// Makes every function as bad as its arguments' defaults, which may call others that have
    /// some.
    fn follow_defaults(&mut self, defaults: &[(String, String)]) {
        for _ in 0..MAX_PASSES {
            let mut changed = false;
            for (name, expressions) in defaults {
                let code = self.of_expression(expressions);
                let Some(overloads) = self.functions.get_mut(name.as_str()) else { continue };
                let before = overloads.other.unwrap_or(Function::NONE);
                overloads.other = Some(before.and(code));
                changed |= before != before.and(code);
            }
            if !changed {
                return;
            }
        }
    }

    /// Adds every relation as if its definition were harmless; returns the definitions.
    fn add_relations<'r>(
        &mut self,
        rows: &'r Rows,
        written: &HashSet<&str>,
    ) -> Vec<(&'r str, Facts)> {
        let mut definitions = Vec::new();
        for row in &rows.relations {
            let name = row.name.as_str();
            let reading = match (row.kind, row.origin, &row.definition) {
                (RelationKind::Foreign, _, _) => Reading::Foreign,
                (RelationKind::Unlogged, _, _) => Reading::OfPrimary,
                (_, Origin::Builtin, _) if functions::about_the_primary(name) => Reading::OfPrimary,
                (_, Origin::Builtin, _) if functions::about_sessions(name) => Reading::OfSessions,
                (RelationKind::Table, _, _) | (RelationKind::View, Origin::Builtin, _) => {
                    Reading::Plain
                }
                (RelationKind::View, Origin::Native | Origin::Written, Some(definition)) => {
                    definitions.push((name, examine(definition.as_bytes(), Dialect::default())));
                    Reading::Plain
                }
                (RelationKind::View, Origin::Native | Origin::Written, None) => Reading::Impure,
            };
            let stored = matches!(row.kind, RelationKind::Table | RelationKind::Unlogged);
            let plain = stored && !written.contains(name);
            let writing = if plain { Writing::Plain } else { Writing::UsersCode };
            let entry = self.relations.entry(name.into()).or_insert(Relation { reading, writing });
            entry.reading = entry.reading.max(reading);
            entry.writing = entry.writing.max(writing);
        }
        definitions
    }

    /// Follows views through views, and policies, until nothing changes.
    fn follow(&mut self, definitions: &[(&str, Facts)]) {
        for _ in 0..MAX_PASSES {
            let mut changed = false;
            for (name, facts) in definitions {
                let reading = self.reading_of(facts);
                changed |= self.worsen(name, reading);
            }
            if !changed {
                return;
            }
        }
        for (name, _) in definitions {
            self.worsen(name, Reading::Impure);
        }
    }

    /// What running this query does.
    fn reading_of(&self, facts: &Facts) -> Reading {
        let (judgement, _) = facts.weigh(Some(self));
        match (judgement.fit, judgement.taints()) {
            (Ok(()), false) => Reading::Plain,
            (Ok(()), true) => Reading::UsersCode,
            (Err(super::NeedsPrimary::SessionState), false) => Reading::OfSessions,
            (Err(super::NeedsPrimary::RelationOfPrimary), _) => Reading::OfPrimary,
            (Err(super::NeedsPrimary::RelationForeign), _) => Reading::Foreign,
            (Err(_), _) => Reading::Impure,
        }
    }

    fn worsen(&mut self, name: &str, reading: Reading) -> bool {
        let Some(relation) = self.relations.get_mut(name) else { return false };
        let worse = reading > relation.reading;
        relation.reading = relation.reading.max(reading);
        if reading >= Reading::UsersCode {
            relation.writing = Writing::UsersCode;
        }
        worse
    }

    /// What evaluating an expression does.
    fn of_expression(&self, expression: &str) -> Function {
        let (judgement, _) = examine_expression(expression).weigh(Some(self));
        match (judgement.fit, judgement.taints()) {
            (Ok(()), false) => Function::NONE,
            (Ok(()), true) => Function(USERS_CODE),
            (Err(_), _) => Function::WORST,
        }
    }

    /// What the database looked like when the rows were read: when
    /// [`super::catalog_sql::FINGERPRINT`] answers something else, it has changed.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The operator's lists that are in it.
    pub const fn lists(&self) -> &FunctionLists {
        &self.lists
    }

    /// A session's statement is judged by it. Costs a read of memory that hardly ever changes.
    pub fn note_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub fn take_use(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// A number that no other catalog of this process has; never zero.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The worst function that this name may mean.
    pub(super) fn function(&self, name: &Name) -> Option<Function> {
        let overloads = self.functions.get(&name.name)?;
        match name.schema.as_deref() {
            Some("pg_catalog") => overloads.core,
            Some(_) => overloads.other,
            None => match (overloads.core, overloads.other) {
                (Some(core), Some(other)) => Some(core.and(other)),
                (core, other) => core.or(other),
            },
        }
    }

    /// Whether `(value).name` may call a function.
    pub(super) fn may_be_called_behind_dots(&self, name: &str) -> bool {
        self.functions.get(name).is_some_and(|found| found.behind_dots == BehindDots::Yes)
    }

    /// The worst function of this name outside `pg_catalog`.
    pub(super) fn users_function(&self, name: &str) -> Option<Function> {
        self.functions.get(name)?.other
    }

    pub(super) fn operator(&self, name: &str) -> Option<Function> {
        self.operators.get(name).copied()
    }

    pub(super) fn row_functions(&self) -> &[(Box<str>, Function)] {
        &self.row_functions
    }

    pub(super) fn reading(&self, relation: &str) -> Option<Reading> {
        self.relations.get(relation).map(|relation| relation.reading)
    }

    pub(super) fn writing_runs_code(&self, relation: &str) -> bool {
        self.relations.get(relation).is_none_or(|found| found.writing == Writing::UsersCode)
    }

    pub(super) const fn hidden(&self) -> Function {
        self.hidden
    }
}

impl Default for Catalog {
    /// A database of which nothing is known: every name is unknown.
    fn default() -> Self {
        Self {
            id: next_id(),
            used: AtomicBool::new(false),
            fingerprint: Box::default(),
            lists: FunctionLists::default(),
            functions: HashMap::new(),
            row_functions: Vec::new(),
            operators: HashMap::new(),
            relations: HashMap::new(),
            hidden: Function::NONE,
        }
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Catalog")
            .field("id", &self.id)
            .field("functions", &self.functions.len())
            .field("relations", &self.relations.len())
            .finish_non_exhaustive()
    }
}

fn examine_expression(expression: &str) -> Facts {
    examine(format!("SELECT {expression}").as_bytes(), Dialect::default())
}

/// The tables whose change runs someone's own code, there or in what changes along.
fn written_with_code(rows: &Rows) -> HashSet<&str> {
    let code = |row: &FunctionRow| Function::from_row(row).is_users_code();
    let direct = rows.writes.iter().filter(|(_, function)| code(function));
    let mut found: HashSet<&str> = direct.map(|(relation, _)| relation.as_str()).collect();
    let mut leaders: HashMap<&str, Vec<&str>> = HashMap::new();
    for (relation, follower) in &rows.followers {
        leaders.entry(follower).or_default().push(relation);
    }
    let mut pending: Vec<&str> =
        rows.writes.iter().map(|(relation, _)| relation.as_str()).collect();
    pending.retain(|relation| found.contains(relation));
    while let Some(follower) = pending.pop() {
        for leader in leaders.get(follower).into_iter().flatten() {
            if found.insert(leader) {
                pending.push(leader);
            }
        }
    }
    found
}

/// Numbers the catalogs from 1. A process would have to load four billion to repeat one.
fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    match NEXT.fetch_add(1, Ordering::Relaxed) {
        0 => next_id(),
        id => id,
    }
}
