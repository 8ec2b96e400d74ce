//! The rows that a [`super::Catalog`] is built from, as [`super::catalog_sql`] selects them.

/// Everything that is read of one database.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// What [`super::catalog_sql::FINGERPRINT`] answered before the rest was read.
    pub fingerprint: String,
    /// [`super::catalog_sql::FUNCTIONS`]
    pub functions: Vec<FunctionRow>,
    /// [`super::catalog_sql::DEFAULTS`]: a function, and the defaults of its arguments.
    pub defaults: Vec<(String, String)>,
    /// [`super::catalog_sql::OPERATORS`]: an operator, and the function that it runs.
    pub operators: Vec<(String, FunctionRow)>,
    /// [`super::catalog_sql::HIDDEN`]: functions that run without being named.
    pub hidden: Vec<FunctionRow>,
    /// [`super::catalog_sql::DOMAINS`]: the check expressions of the domains.
    pub domains: Vec<String>,
    /// [`super::catalog_sql::RELATIONS`]
    pub relations: Vec<RelationRow>,
    /// [`super::catalog_sql::POLICIES`]
    pub policies: Vec<PolicyRow>,
    /// [`super::catalog_sql::WRITES`]: a table, and a function that changing its rows runs.
    pub writes: Vec<(String, FunctionRow)>,
    /// [`super::catalog_sql::FOLLOWERS`]: a table, and another whose rows change along.
    pub followers: Vec<(String, String)>,
}

/// A function, or several of one name and the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRow {
    /// Its name, without the schema.
    pub name: String,
    /// Its schema.
    pub place: Place,
    /// Who made it.
    pub origin: Origin,
    /// Its label; an aggregate has the worst of its parts.
    pub volatility: Volatility,
    /// What it can be called with.
    pub argument: Argument,
}

/// Where a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the schema `pg_catalog`.
    Core,
    /// In any other.
    Other,
}

/// Whether a function may be called by its name behind a dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Argument {
    /// By `row.name` as well: one argument, of a composite type or a pseudo-type.
    Row,
    /// By `(value).name`: one argument.
    One,
    /// It can't.
    Other,
}

/// Who made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// PostgreSQL: its OID is below 16384.
    Builtin,
    /// An extension or a superuser, in C.
    Native,
    /// Anybody, in a language that runs SQL.
    Written,
}

/// What a function is labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Volatility {
    /// `IMMUTABLE`
    Immutable,
    /// `STABLE`
    Stable,
    /// `VOLATILE`
    Volatile,
}

impl Place {
    /// Reads the column `place` of our queries.
    pub fn from_label(label: &str) -> Self {
        if label == "core" { Self::Core } else { Self::Other }
    }
}

impl Argument {
    /// Reads the column `argument` of our queries.
    pub fn from_label(label: &str) -> Self {
        match label {
            "other" => Self::Other,
            "one" => Self::One,
            _ => Self::Row,
        }
    }
}

impl Volatility {
    /// Reads `pg_proc.provolatile`; what isn't known counts as volatile.
    pub fn from_label(label: &str) -> Self {
        match label {
            "i" => Self::Immutable,
            "s" => Self::Stable,
            _ => Self::Volatile,
        }
    }
}

impl Origin {
    /// Reads the column `origin` of our queries; what isn't known counts as anybody's.
    pub fn from_label(label: &str) -> Self {
        match label {
            "builtin" => Self::Builtin,
            "native" => Self::Native,
            _ => Self::Written,
        }
    }
}

/// A relation that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationRow {
    /// Its name, without the schema.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Who made it.
    pub origin: Origin,
    /// A user's view's query.
    pub definition: Option<String>,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// A table, a partitioned table, a materialized view: it has rows of its own.
    Table,
    /// A view.
    View,
    /// A foreign table, or a table that has one among its descendants.
    Foreign,
    /// An unlogged table, or a table that has one among its descendants: a standby has none of
    /// its rows.
    Unlogged,
}

impl RelationKind {
    /// Reads the column `kind` of our query; what isn't known counts as foreign.
    pub fn from_label(label: &str) -> Self {
        match label {
            "r" | "p" | "m" => Self::Table,
            "v" => Self::View,
            "u" => Self::Unlogged,
            _ => Self::Foreign,
        }
    }
}

/// An expression of a row security policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// The table that it guards.
    pub relation: String,
    /// The expression.
    pub expression: String,
}
