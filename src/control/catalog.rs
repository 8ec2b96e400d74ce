//! Reads what a database's functions, views and triggers do.
//!
//! One read-only transaction with one snapshot, so that the parts fit together. Any server of
//! the set can answer; a standby's answer is as old as its replay.

use crate::sql::Argument;
use crate::sql::Catalog;
use crate::sql::FunctionLists;
use crate::sql::FunctionRow;
use crate::sql::Origin;
use crate::sql::Place;
use crate::sql::PolicyRow;
use crate::sql::RelationKind;
use crate::sql::RelationRow;
use crate::sql::Rows;
use crate::sql::Volatility;
use crate::sql::catalog_sql;
use sqlx::Connection;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// Why a database's catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The server refused, or the connection broke.
    #[error("reading the system catalogs failed: {0}")]
    Query(#[from] sqlx::Error),
}

/// A function's labels, as our queries select them.
type FunctionColumns = (String, String, String, String, String);

/// A table or an operator, and the labels of a function.
type NamedColumns = (String, String, String, String, String, String);

/// Reads everything: some 10 ms for an empty database, more with its views and functions. Bound
/// it by a timeout.
///
/// Not cancel-safe: if it is dropped half-way, drop the connection too.
pub async fn load(
    connection: &mut PgConnection,
    lists: FunctionLists,
) -> Result<Catalog, CatalogError> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let mut transaction = connection.begin_with(BEGIN).await?;
    let rows = read(&mut transaction).await?;
    transaction.rollback().await?;
    Ok(Catalog::new(&rows, lists))
}

/// Asks whether anything changed: compare with [`Catalog::fingerprint`].
///
/// Not cancel-safe: if it is dropped half-way, drop the connection too.
pub async fn fingerprint(connection: &mut PgConnection) -> Result<String, CatalogError> {
    let query = sqlx::query_scalar(catalog_sql::FINGERPRINT).persistent(false);
    Ok(query.fetch_one(connection).await?)
}

/// Asks whether somebody waits for all others to leave this database: to drop it, to rename it,
/// to move it, or to copy it.
///
/// Not cancel-safe: if it is dropped half-way, drop the connection too.
pub async fn somebody_waits(connection: &mut PgConnection) -> Result<bool, CatalogError> {
    let query = sqlx::query_scalar(catalog_sql::SOMEBODY_WAITS).persistent(false);
    Ok(query.fetch_one(connection).await?)
}

/// With which settings roles begin in this database, by name, as a text to be compared; `""`: all
/// roles.
///
/// Not cancel-safe: if it is dropped half-way, drop the connection too.
pub async fn defaults(
    connection: &mut PgConnection,
) -> Result<BTreeMap<String, String>, CatalogError> {
    let query = sqlx::query_as(catalog_sql::DEFAULTS_OF_ROLES).persistent(false);
    let rows: Vec<(String, String)> = query.fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}

/// Asks whether others may connect to this database than before, as a text to be compared.
///
/// Not cancel-safe: if it is dropped half-way, drop the connection too.
pub async fn admission(connection: &mut PgConnection) -> Result<String, CatalogError> {
    let query = sqlx::query_scalar(catalog_sql::ADMISSION).persistent(false);
    Ok(query.fetch_one(connection).await?)
}

/// Which roles may connect to this database, by name; each with what tells it from another one of
/// that name.
///
/// Not cancel-safe: if it is dropped half-way, drop the connection too.
pub async fn admitted(
    connection: &mut PgConnection,
) -> Result<BTreeMap<String, i64>, CatalogError> {
    let query = sqlx::query_as(catalog_sql::ADMITTED).persistent(false);
    let rows: Vec<(String, i64)> = query.fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}

async fn read(connection: &mut PgConnection) -> Result<Rows, CatalogError> {
    Ok(Rows {
        fingerprint: fingerprint(connection).await?,
        functions: functions(connection, catalog_sql::FUNCTIONS).await?,
        defaults: sqlx::query_as(catalog_sql::DEFAULTS)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?,
        operators: named(connection, catalog_sql::OPERATORS).await?,
        hidden: functions(connection, catalog_sql::HIDDEN).await?,
        domains: sqlx::query_scalar(catalog_sql::DOMAINS)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?,
        policies: policies(connection).await?,
        writes: named(connection, catalog_sql::WRITES).await?,
        followers: sqlx::query_as(catalog_sql::FOLLOWERS)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?,
        // Last: the server locks what a view reads, to tell its definition, until we end. Whoever
        // locks such a table and will not wait would fail for as long.
        relations: relations(connection).await?,
    })
}

async fn functions(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<Vec<FunctionRow>, CatalogError> {
    let rows: Vec<FunctionColumns> =
        sqlx::query_as(sql).persistent(false).fetch_all(connection).await?;
    Ok(rows.into_iter().map(function).collect())
}

fn function((name, place, origin, volatility, argument): FunctionColumns) -> FunctionRow {
    FunctionRow {
        name,
        place: Place::from_label(&place),
        origin: Origin::from_label(&origin),
        volatility: Volatility::from_label(&volatility),
        argument: Argument::from_label(&argument),
    }
}

async fn relations(connection: &mut PgConnection) -> Result<Vec<RelationRow>, CatalogError> {
    let rows: Vec<(String, String, String, Option<String>)> =
        sqlx::query_as(catalog_sql::RELATIONS).persistent(false).fetch_all(connection).await?;
    let relation = |(name, kind, origin, definition): (String, String, String, Option<String>)| {
        let (kind, origin) = (RelationKind::from_label(&kind), Origin::from_label(&origin));
        RelationRow { name, kind, origin, definition }
    };
    Ok(rows.into_iter().map(relation).collect())
}

async fn policies(connection: &mut PgConnection) -> Result<Vec<PolicyRow>, CatalogError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as(catalog_sql::POLICIES).persistent(false).fetch_all(connection).await?;
    let policy = |(relation, expression)| PolicyRow { relation, expression };
    Ok(rows.into_iter().map(policy).collect())
}

/// What runs a function, and that.
async fn named(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<Vec<(String, FunctionRow)>, CatalogError> {
    let rows: Vec<NamedColumns> =
        sqlx::query_as(sql).persistent(false).fetch_all(connection).await?;
    let named = |(by, name, place, origin, volatility, argument)| {
        (by, function((name, place, origin, volatility, argument)))
    };
    Ok(rows.into_iter().map(named).collect())
}
