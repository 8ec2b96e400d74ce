//! What is judged fit for a standby is executed on one, and leaves everything as it was; what
//! changes a database's functions is noticed.

use crate::statements;
use crate::statements::Case;
use crate::statements::Setting;
use crate::support::cluster;
use crate::support::connect;
use pgsteer::control::catalog;
use pgsteer::sandbox::Cluster;
use pgsteer::sandbox::Plan;
use pgsteer::sandbox::Server;
use pgsteer::sql::Catalog;
use pgsteer::sql::Dialect;
use pgsteer::sql::FunctionLists;
use pgsteer::sql::NeedsPrimary;
use pgsteer::sql::examine;
use sqlx::Connection as _;

/// What a statement must not change: rows, sequences, the catalogs, what is prepared, held or
/// listened to, and the settings of the backend.
const STATE: &str = "SELECT
    (SELECT count(*) FROM items) || ' ' || (SELECT sum(hashtext(i::text)) FROM items i) || ' ' ||
    (SELECT count(*) FROM orders) || ' ' ||
    (SELECT last_value || '' || is_called FROM ids) || ' ' ||
    (SELECT count(*) || '/' || max(oid) FROM pg_class) || ' ' ||
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
      || ' ' ||
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql) || ' ' ||
    (SELECT count(*) FROM pg_cursors WHERE is_holdable) || ' ' ||
    (SELECT count(*) FROM pg_listening_channels()) || ' ' ||
    (SELECT coalesce(string_agg(name || '=' || setting, ','), '') FROM pg_settings
      WHERE source = 'session')";

/// A primary with everything that the statements speak of, and a standby that has replayed it.
fn stage() -> Cluster {
    let cluster = cluster(&Plan::new().standbys(1));
    for sql in statements::SETUP {
        cluster.primary().rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    cluster.await_replay().unwrap();
    cluster
}

fn standby(cluster: &Cluster) -> &Server {
    &cluster.standbys()[0]
}

async fn load(server: &Server) -> Catalog {
    let mut connection = sqlx::PgConnection::connect(&server.uri()).await.unwrap();
    catalog::load(&mut connection, FunctionLists::default()).await.unwrap()
}

fn judge(sql: &str, catalog: &Catalog) -> Option<&'static str> {
    let judgement = examine(sql.as_bytes(), Dialect::default()).judge(Some(catalog));
    judgement.fit.err().map(NeedsPrimary::as_str)
}

/// The judgement by a real database's catalog is that of the table, whichever server it was
/// read from.
#[tokio::test]
async fn statements_are_judged_as_the_table_says() {
    let cluster = stage();

    for server in [cluster.primary(), standby(&cluster)] {
        let catalog = load(server).await;
        for case in statements::CASES {
            assert_eq!(
                judge(case.sql, &catalog),
                case.primary,
                "{} on {}",
                case.sql,
                server.name()
            );
        }
    }
}

/// By the simple and by the extended protocol: no error, and nothing is changed, neither on the
/// servers nor on the backend.
#[tokio::test]
async fn what_is_fit_runs_on_a_standby_and_changes_nothing() {
    let cluster = stage();
    let before = cluster.primary().value(STATE).unwrap();
    let mut simple = standby(&cluster).connect("postgres").unwrap();
    let extended = connect(&standby(&cluster).uri()).await;
    let states = (simple.value(STATE).unwrap(), state(&extended).await);

    let fit: Vec<_> = statements::CASES.iter().filter(|case| case.primary.is_none()).collect();
    for case in &fit {
        simple.rows(&by_itself(case)).unwrap_or_else(|error| panic!("{}: {error}", case.sql));
        assert_eq!(simple.value(STATE).unwrap(), states.0, "{} left something", case.sql);
        if case.setting == Setting::Anywhere {
            run_extended(&extended, case.sql).await;
            assert_eq!(state(&extended).await, states.1, "{} left something", case.sql);
        }
    }

    assert!(fit.len() >= 100, "{} statements are fit", fit.len());
    assert_eq!(cluster.primary().value(STATE).unwrap(), before);
}

/// The check above does find what stays behind: these succeed on a standby, though all of them
/// need the primary.
#[tokio::test]
async fn what_stays_behind_is_found() {
    let cluster = stage();
    let catalog = load(cluster.primary()).await;
    for sql in [
        "SELECT pg_try_advisory_lock(1)",
        "SELECT * FROM locking",
        "SET work_mem = '8MB'",
        "SELECT set_config('work_mem', '8MB', false)",
        "PREPARE q AS SELECT 1",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    ] {
        let mut standby = standby(&cluster).connect("postgres").unwrap();
        let before = standby.value(STATE).unwrap();

        standby.rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));

        assert_ne!(standby.value(STATE).unwrap(), before, "{sql}");
        assert!(judge(sql, &catalog).is_some(), "{sql}");
    }
}

/// The statement in the transaction that it needs.
fn by_itself(case: &Case) -> String {
    match case.setting {
        Setting::InTransaction => format!("BEGIN; {}; COMMIT", case.sql),
        Setting::Anywhere | Setting::SimpleOnly => case.sql.to_owned(),
    }
}

/// Parses, binds and executes a statement.
async fn run_extended(client: &tokio_postgres::Client, sql: &str) {
    if sql.starts_with("COPY") {
        drop(client.copy_out(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")));
    } else {
        client.query_typed(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

async fn state(client: &tokio_postgres::Client) -> String {
    client.query_one(STATE, &[]).await.unwrap().get(0)
}

/// Whatever anybody creates, alters or drops changes the fingerprint; what changes rows only,
/// or a session, doesn't.
#[tokio::test]
async fn changes_of_the_catalog_are_noticed() {
    let cluster = stage();
    let mut connection = sqlx::PgConnection::connect(&cluster.primary().uri()).await.unwrap();
    let mut last = catalog::fingerprint(&mut connection).await.unwrap();
    assert_eq!(last, load(cluster.primary()).await.fingerprint());

    let changes = CHANGES.iter().map(|sql| (*sql, true));
    for (sql, changes) in changes.chain(NO_CHANGES.iter().map(|sql| (*sql, false))) {
        cluster.primary().rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let now = catalog::fingerprint(&mut connection).await.unwrap();
        assert_eq!(now != last, changes, "{sql}");
        last = now;
    }
}

/// Each makes, alters or removes what a judgement may rest on.
const CHANGES: &[&str] = &[
    "CREATE TABLE z (id int PRIMARY KEY, v int DEFAULT 3)",
    "CREATE FUNCTION zf(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT $1'",
    "CREATE OR REPLACE FUNCTION zf(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT $1 + 1'",
    "ALTER FUNCTION zf(int) IMMUTABLE",
    "ALTER TABLE z ADD COLUMN w int DEFAULT zf(1)",
    "ALTER TABLE z ALTER COLUMN v SET DEFAULT 5",
    "CREATE VIEW zv AS SELECT 1 AS a",
    "CREATE OR REPLACE VIEW zv AS SELECT nextval('ids')::int AS a",
    "DROP VIEW zv",
    "CREATE TRIGGER zt BEFORE INSERT ON z FOR EACH ROW EXECUTE FUNCTION stamp()",
    "ALTER TABLE z DISABLE TRIGGER zt",
    "DROP TRIGGER zt ON z",
    "CREATE POLICY zp ON z USING (true)",
    "ALTER POLICY zp ON z USING (zf(1) > 0)",
    "DROP POLICY zp ON z",
    "ALTER TABLE z ENABLE ROW LEVEL SECURITY",
    "CREATE OPERATOR <%> (leftarg = int, rightarg = int, function = adds)",
    "DROP OPERATOR <%> (int, int)",
    "CREATE DOMAIN zd AS int",
    "ALTER DOMAIN zd ADD CONSTRAINT k CHECK (zf(VALUE) > 0)",
    "ALTER DOMAIN zd DROP CONSTRAINT k",
    "CREATE TYPE zc AS (a int); CREATE FUNCTION zcast(zc) RETURNS int IMMUTABLE LANGUAGE sql
        AS 'SELECT 1'",
    "CREATE CAST (zc AS int) WITH FUNCTION zcast (zc)",
    "DROP CAST (zc AS int)",
    "CREATE RULE zr AS ON INSERT TO z DO ALSO NOTHING",
    "ALTER TABLE z ADD CONSTRAINT ck CHECK (zf(id) > 0)",
    "ALTER TABLE z DROP CONSTRAINT ck",
    "CREATE INDEX zi ON z (zf(id))",
    "DROP INDEX zi",
    "ALTER TABLE z ADD CONSTRAINT fk FOREIGN KEY (v) REFERENCES items ON DELETE CASCADE",
    "ALTER TABLE z RENAME TO zz",
    "ALTER TABLE zz SET UNLOGGED",
    "CREATE MATERIALIZED VIEW zm AS SELECT 1",
    "CREATE TABLE zpart PARTITION OF parts FOR VALUES FROM (100) TO (200)",
    "ALTER TABLE parts DETACH PARTITION zpart",
    "CREATE FOREIGN TABLE zfar (id int) SERVER nowhere",
    "DROP AGGREGATE bumping (int)",
    "ALTER FUNCTION stamp() RENAME TO stamped",
    "DROP TABLE zz",
    "DROP FUNCTION zcast(zc)",
];

/// None of these changes what a judgement rests on.
const NO_CHANGES: &[&str] = &[
    "INSERT INTO items (id) VALUES (1000)",
    "UPDATE items SET name = 'x'",
    "TRUNCATE orders",
    "ANALYZE",
    "VACUUM",
    "VACUUM FREEZE",
    "VACUUM FULL items",
    "REINDEX TABLE items",
    "REFRESH MATERIALIZED VIEW totals",
    "CREATE TEMP TABLE tt (id int PRIMARY KEY DEFAULT bump(), CHECK (id > 0))",
    "CREATE TEMP VIEW tv AS SELECT 1",
    "CREATE TEMP SEQUENCE ts",
    "GRANT SELECT ON items TO PUBLIC",
    "COMMENT ON TABLE items IS 'x'",
    "CREATE ROLE zrole",
    "SELECT nextval('ids')",
];

/// Someone's own code that a write sets off is found in a real database's triggers, defaults,
/// policies and foreign keys.
#[tokio::test]
async fn code_that_a_write_runs_is_found() {
    let cluster = stage();
    let more = [
        "CREATE TABLE keyed (id int) PARTITION BY RANGE (adds(id, 1))",
        "CREATE FUNCTION late(bigint DEFAULT nextval('ids')) RETURNS int STABLE LANGUAGE sql
            AS 'SELECT 1'",
    ];
    for sql in more {
        cluster.primary().rows(sql).unwrap();
    }
    let catalog = load(cluster.primary()).await;

    let taints = |sql: &str| {
        let facts = examine(sql.as_bytes(), Dialect::default());
        facts.judge(Some(&catalog)).taints()
    };
    for sql in [
        "INSERT INTO audited VALUES (1, 1)",
        "DELETE FROM noted",
        "INSERT INTO numbered (note) VALUES ('x')",
        "UPDATE counted SET id = 1",
        "INSERT INTO keyed VALUES (1)",
        "INSERT INTO cheap (id) VALUES (1)",
        "INSERT INTO distant VALUES (1)",
    ] {
        assert!(taints(sql), "{sql}");
    }
    for sql in [
        "INSERT INTO orders VALUES (1, 1, 1)",
        "DELETE FROM items",
        "UPDATE guarded SET id = 1",
        "INSERT INTO parts VALUES (1, 1)",
        "INSERT INTO scratch VALUES (nextval('ids'))",
    ] {
        assert!(!taints(sql), "{sql}");
    }
    assert_eq!(judge("SELECT late()", &catalog), Some("function_volatile"), "by its default");
}
