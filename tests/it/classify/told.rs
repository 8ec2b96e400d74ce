//! What a text tells of itself, whatever database it is for.

use super::facts;
use pgsteer::sql::Access;
use pgsteer::sql::Argument;
use pgsteer::sql::Catalog;
use pgsteer::sql::Chain;
use pgsteer::sql::Change;
use pgsteer::sql::Class;
use pgsteer::sql::Commits;
use pgsteer::sql::Count;
use pgsteer::sql::Effects;
use pgsteer::sql::FunctionLists;
use pgsteer::sql::FunctionRow;
use pgsteer::sql::Isolation;
use pgsteer::sql::NeedsPrimary;
use pgsteer::sql::Origin;
use pgsteer::sql::Place;
use pgsteer::sql::Rows;
use pgsteer::sql::Scope;
use pgsteer::sql::Snapshot;
use pgsteer::sql::Transaction;
use pgsteer::sql::Volatility;

#[test]
fn effects_are_told_by_the_text() {
    let cases: &[(&str, Effects)] = &[
        ("SELECT 1", Effects::NONE),
        ("SELECT (7).pg_advisory_lock", Effects::ADVISORY),
        ("SELECT g.setseed FROM generate_series(1, 1) AS g", Effects::LASTING),
        ("SELECT i.setseed FROM items AS i", Effects::NONE),
        ("SET work_mem = '1MB'", Effects::SET),
        ("SET LOCAL work_mem = '1MB'", Effects::SET_LOCAL),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Effects::SET),
        ("RESET work_mem", Effects::RESET),
        ("RESET ALL", Effects::RESET_ALL),
        ("DISCARD ALL", Effects::DISCARD_ALL),
        ("DISCARD PLANS", Effects::DISCARD),
        ("SET ROLE none", Effects::SET | Effects::ROLE),
        ("RESET SESSION AUTHORIZATION", Effects::RESET | Effects::ROLE),
        ("LISTEN c", Effects::LISTEN),
        ("UNLISTEN *", Effects::UNLISTEN),
        ("CREATE TEMP TABLE x (id int)", Effects::DDL | Effects::TEMP),
        ("CREATE TABLE pg_temp.x (id int)", Effects::DDL | Effects::TEMP),
        ("CREATE TEMP VIEW x AS SELECT 1", Effects::DDL | Effects::TEMP),
        ("CREATE TEMP SEQUENCE x", Effects::DDL | Effects::TEMP),
        (
            "CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS ''",
            Effects::DDL | Effects::TEMP,
        ),
        ("CREATE TYPE pg_temp.x AS ENUM ('a')", Effects::DDL | Effects::TEMP),
        ("CREATE TYPE pg_temp.x AS (a int)", Effects::DDL | Effects::TEMP),
        ("CREATE TEMP TABLE x AS SELECT 1", Effects::DDL | Effects::DML | Effects::TEMP),
        ("SELECT 1 INTO TEMP x", Effects::DDL | Effects::DML | Effects::TEMP),
        ("SELECT 1 INTO x", Effects::DDL | Effects::DML),
        ("PREPARE q AS SELECT 1", Effects::PREPARE),
        ("EXECUTE q", Effects::EXECUTE),
        (
            "CREATE TEMP TABLE x AS EXECUTE q",
            Effects::DDL | Effects::DML | Effects::TEMP | Effects::EXECUTE,
        ),
        ("DEALLOCATE q", Effects::DEALLOCATE),
        ("DECLARE c CURSOR FOR SELECT 1", Effects::CURSOR),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Effects::CURSOR | Effects::HOLD),
        ("FETCH c", Effects::FETCH),
        ("CLOSE c", Effects::CLOSE),
        ("SELECT pg_advisory_lock(1)", Effects::ADVISORY),
        ("SELECT 1 WHERE pg_try_advisory_lock(1)", Effects::ADVISORY),
        ("SELECT pg_advisory_xact_lock(1)", Effects::NONE),
        ("SELECT set_config('work_mem', '1MB', false)", Effects::SET_CONFIG),
        ("SELECT set_config('work_mem', '1MB', true)", Effects::SET_LOCAL),
        ("SELECT set_config($1, '1MB', false)", Effects::SET_CONFIG_DYNAMIC),
        ("SELECT set_config('work_mem', '1MB', $1)", Effects::SET_CONFIG_DYNAMIC),
        ("SELECT set_config('work_mem', '1MB', is_local => true)", Effects::SET_CONFIG_DYNAMIC),
        ("SELECT set_config('role', 'x', false)", Effects::SET_CONFIG | Effects::ROLE),
        ("DO ''", Effects::DO),
        ("CALL work()", Effects::CALL),
        ("UPDATE items SET id = 1", Effects::DML),
        ("WITH d AS (DELETE FROM items RETURNING *) TABLE d", Effects::DML),
        ("TRUNCATE items", Effects::DML),
        ("COPY items FROM STDIN", Effects::COPY_IN | Effects::DML),
        ("COPY items TO STDOUT", Effects::COPY_OUT),
        ("COPY items TO '/tmp/x'", Effects::COPY_FILE),
        ("COPY items FROM PROGRAM 'x'", Effects::COPY_FILE | Effects::DML),
        ("NOTIFY c", Effects::NOTIFY),
        ("SELECT pg_notify('c', '')", Effects::NOTIFY),
        ("SELEC", Effects::UNKNOWN),
        ("BEGIN; SET work_mem = '1MB'; LISTEN c", Effects::SET | Effects::LISTEN),
    ];
    for (sql, expected) in cases {
        assert_eq!(facts(sql).effects(), *expected, "{sql}");
    }
}

#[test]
fn what_no_reset_takes_back_is_told_by_the_text() {
    let cases: &[(&str, Effects)] = &[
        ("LOAD 'x'", Effects::LASTING),
        ("SELECT setseed(0.1)", Effects::LASTING),
        ("SELECT set_config('seed', '0.1', false)", Effects::SET_CONFIG | Effects::LASTING),
        ("SET seed = 0.1", Effects::SET | Effects::LASTING),
        ("SELECT pg_replication_origin_session_setup('o')", Effects::LASTING),
        ("SELECT pg_create_logical_replication_slot('s', 'p', true)", Effects::LASTING),
        ("SELECT pg_copy_physical_replication_slot('s', 't', true)", Effects::LASTING),
        ("SELECT pg_create_restore_point('r')", Effects::NONE),
        ("SELECT pg_backup_start('x')", Effects::LASTING),
        ("SELECT pg_start_backup('x', false, true)", Effects::LASTING),
        ("SELECT dblink_connect('c', 'dbname=x')", Effects::LASTING),
    ];
    for (sql, expected) in cases {
        assert_eq!(facts(sql).effects(), *expected, "{sql}");
    }
}

#[test]
fn transactions_are_told_by_the_text() {
    let begin = |access, isolation| Transaction::Begin { access, isolation };
    let set = |access, isolation| Transaction::Set { access, isolation, snapshot: Snapshot::Own };
    let cases: &[(&str, Transaction)] = &[
        ("SELECT 1", Transaction::None),
        ("BEGIN", begin(Access::Default, Isolation::Default)),
        ("START TRANSACTION READ ONLY", begin(Access::ReadOnly, Isolation::Default)),
        ("BEGIN READ WRITE", begin(Access::ReadWrite, Isolation::Default)),
        ("BEGIN READ ONLY, READ WRITE", begin(Access::ReadWrite, Isolation::Default)),
        (
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            begin(Access::ReadOnly, Isolation::RepeatableRead),
        ),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", begin(Access::Default, Isolation::Serializable)),
        ("BEGIN ISOLATION LEVEL READ COMMITTED", begin(Access::Default, Isolation::ReadCommitted)),
        ("COMMIT", Transaction::Commit(Chain::Ends)),
        ("END AND CHAIN", Transaction::Commit(Chain::Continues)),
        ("ABORT", Transaction::Rollback(Chain::Ends)),
        ("ROLLBACK AND CHAIN", Transaction::Rollback(Chain::Continues)),
        ("SAVEPOINT s", Transaction::Savepoint),
        ("ROLLBACK TO SAVEPOINT s", Transaction::Savepoint),
        ("RELEASE s", Transaction::Savepoint),
        ("SET TRANSACTION READ ONLY", set(Access::ReadOnly, Isolation::Default)),
        (
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            set(Access::Default, Isolation::Serializable),
        ),
        ("PREPARE TRANSACTION 'x'", Transaction::Prepare),
        ("ROLLBACK PREPARED 'x'", Transaction::FinishPrepared),
        ("BEGIN; SELECT 1", Transaction::Mixed),
        ("SELECT 1; COMMIT", Transaction::Mixed),
        ("SELECT 1; SELECT 2", Transaction::None),
        ("SELEC", Transaction::Mixed),
    ];
    for (sql, expected) in cases {
        assert_eq!(facts(sql).transaction(), *expected, "{sql}");
    }
}

/// A transaction that is on a standby already may be told several things at once, as long as it is
/// over only with the last of them, and nothing among them needs the primary.
#[test]
fn what_a_transaction_on_a_standby_can_take() {
    let cases: &[(&str, Result<(), &str>)] = &[
        ("SELECT 1", Ok(())),
        ("SELECT 1; SELECT 2", Ok(())),
        ("COMMIT", Ok(())),
        ("ROLLBACK AND CHAIN", Ok(())),
        ("BEGIN", Ok(())),
        ("SELECT 1; COMMIT", Ok(())),
        ("SELECT 1; ROLLBACK AND CHAIN", Ok(())),
        ("SAVEPOINT s; SELECT 1; RELEASE s", Ok(())),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1; END", Ok(())),
        ("SET work_mem = 1; SHOW work_mem; COMMIT", Ok(())),
        ("SELECT set_config('work_mem', '1MB', true)", Ok(())),
        ("DECLARE c CURSOR FOR SELECT 1; FETCH c", Ok(())),
        ("COMMIT; SELECT 1", Err("transaction_control")),
        ("COMMIT; COMMIT", Err("transaction_control")),
        ("SELECT 1; COMMIT; BEGIN READ ONLY", Err("transaction_control")),
        ("SET TRANSACTION READ WRITE", Err("transaction_control")),
        ("SELECT 1; SET TRANSACTION READ WRITE", Err("transaction_control")),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", Err("transaction_control")),
        ("SET TRANSACTION SNAPSHOT '1-1'", Err("transaction_control")),
        ("PREPARE TRANSACTION 'x'", Err("transaction_control")),
        ("SELECT * FROM t FOR UPDATE; COMMIT", Err("row_lock")),
        ("LISTEN x", Err("session_state")),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Err("cursor")),
        ("PREPARE p AS SELECT 1", Err("prepared_sql")),
        ("SELEC; COMMIT", Err("unparsed")),
        // What is tolerated must not hide what is not.
        ("SET work_mem = 1; SELECT pg_advisory_lock(1)", Err("advisory_lock")),
        ("SELECT set_config('a.b', 'c', true), zero_volatile()", Err("function_unknown")),
    ];
    let catalog = Catalog::new(
        &Rows {
            functions: vec![FunctionRow {
                name: "set_config".to_owned(),
                place: Place::Core,
                origin: Origin::Builtin,
                volatility: Volatility::Volatile,
                argument: Argument::Other,
            }],
            ..Rows::default()
        },
        FunctionLists::default(),
    );
    for (sql, expected) in cases {
        let goes_on = facts(sql).judge(Some(&catalog)).goes_on;
        assert_eq!(goes_on.map_err(NeedsPrimary::as_str), *expected, "{sql}");
    }
}

#[test]
fn a_text_that_may_commit_more_than_once_says_so() {
    for sql in ["UPDATE items SET id = 1", "SELECT 1; DELETE FROM items", "SELECT bump()", "COMMIT"]
    {
        assert_eq!(facts(sql).commits(), Commits::AtMostOnce, "{sql}");
    }
    for sql in
        ["BEGIN; DELETE FROM items; COMMIT; SELECT 1/0", "CALL work()", "DO ''", "VACUUM", "?"]
    {
        assert_eq!(facts(sql).commits(), Commits::MayRepeat, "{sql}");
    }
    assert_eq!(facts("").count(), Count::Empty);
    assert_eq!(facts("SELECT 1;").count(), Count::One);
    assert_eq!(facts("SELECT 1; SELECT 2").count(), Count::Many);
}

#[test]
fn settings_are_told_by_name() {
    let settings = |sql: &str| {
        let facts = facts(sql);
        let each = facts.settings().iter();
        each.map(|s| (s.name.to_string(), s.scope, s.change)).collect::<Vec<_>>()
    };
    let set = |name: &str| (name.to_owned(), Scope::Session, Change::Set);
    assert_eq!(settings("SET Work_Mem = '1MB'"), [set("work_mem")]);
    assert_eq!(settings("SET NAMES 'LATIN1'"), [set("client_encoding")]);
    assert_eq!(settings("SET TIME ZONE 'UTC'"), [set("timezone")]);
    assert_eq!(settings("SET SCHEMA 'x'"), [set("search_path")]);
    assert_eq!(
        settings(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"
        ),
        [set("default_transaction_isolation"), set("default_transaction_read_only")]
    );
    assert_eq!(settings("SELECT set_config('Search_Path', '', false)"), [set("search_path")]);
    assert_eq!(
        settings("SELECT set_config('work_mem', NULL, false)"),
        [("work_mem".to_owned(), Scope::Session, Change::Reset)]
    );
    assert_eq!(
        settings("SET LOCAL a.b TO DEFAULT"),
        [("a.b".to_owned(), Scope::Transaction, Change::Reset)]
    );
    assert_eq!(
        settings("RESET work_mem; SET x.y = 1"),
        [("work_mem".to_owned(), Scope::Session, Change::Reset), set("x.y")]
    );
}

#[test]
fn wishes_are_told_apart_from_settings() {
    let wishes = |sql: &str| {
        let facts = facts(sql);
        assert!(facts.settings().is_empty() && facts.effects().is_empty(), "{sql}");
        let each = facts.wishes().iter();
        each.map(|w| (w.name.to_string(), w.value.as_ref().map(ToString::to_string), w.scope))
            .collect::<Vec<_>>()
    };
    let wish = |name: &str, value: Option<&str>, scope| {
        vec![(name.to_owned(), value.map(str::to_owned), scope)]
    };
    assert_eq!(
        wishes("SET pgsteer.role = 'primary'"),
        wish("role", Some("primary"), Scope::Session)
    );
    assert_eq!(
        wishes("SET pgsteer.role TO standby"),
        wish("role", Some("standby"), Scope::Session)
    );
    assert_eq!(
        wishes("SET LOCAL PgSteer.Max_Lag = '5s'"),
        wish("max_lag", Some("5s"), Scope::Transaction)
    );
    assert_eq!(wishes("RESET pgsteer.role"), wish("role", None, Scope::Session));
    assert_eq!(wishes("SET pgsteer.role TO DEFAULT"), wish("role", None, Scope::Session));
    assert!(facts("SET pgsteer.role = 'primary'").is_only_wishes());
    assert!(!facts("SET pgsteer.role = 'primary'; SELECT 1").is_only_wishes());
    assert_eq!(facts("SHOW PgSteer.Position").shown(), Some("pgsteer.position"));
}

#[test]
fn hints_are_part_of_the_facts() {
    let hinted = facts("/* pgsteer: role=primary */ SELECT 1");
    assert_eq!(hinted.hints().unwrap().wishes, [("role".into(), "primary".into())]);
    assert_eq!(hinted.class(), Class::Read);
    assert!(facts("SELECT 1").hints().is_none());
    let malformed = facts("SELECT 1 /* pgsteer: role primary */");
    assert_eq!(malformed.hints().unwrap().malformed.as_deref(), Some("role primary"));
}
