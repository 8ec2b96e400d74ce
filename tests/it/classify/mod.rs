//! What statements are, and where they may run: the table of `tests/support/statements.rs` by a
//! catalog made of rows.

mod harm;
mod judged;
#[path = "../../support/statements.rs"]
mod statements;
mod told;

use pgsteer::sql::Argument;
use pgsteer::sql::Catalog;
use pgsteer::sql::Dialect;
use pgsteer::sql::Facts;
use pgsteer::sql::FunctionLists;
use pgsteer::sql::FunctionRow;
use pgsteer::sql::NeedsPrimary;
use pgsteer::sql::Origin;
use pgsteer::sql::Place;
use pgsteer::sql::PolicyRow;
use pgsteer::sql::RelationKind;
use pgsteer::sql::RelationRow;
use pgsteer::sql::Rows;
use pgsteer::sql::Volatility;
use pgsteer::sql::examine;
use pgsteer::sql::explain;
use std::collections::BTreeSet;

/// PostgreSQL's own functions in the statements, as `pg_proc` of PostgreSQL 15 labels them.
const BUILTIN: &[(&str, &str)] = &[
    ("i", "abs avg bernoulli count date_part extract jsonb_to_recordset jsonb_each length lower"),
    ("i", "percentile_cont pg_size_pretty position row_number substring sum timezone unnest upper"),
    ("i", "btrim xpath generate_series"),
    ("s", "current_setting format_type has_table_privilege now obj_description pg_backend_pid"),
    ("s", "pg_current_xact_id pg_get_viewdef txid_current txid_current_snapshot version"),
    ("s", "current_database pg_listening_channels pg_cursor query_to_xml table_to_xml"),
    ("v", "clock_timestamp random timeofday gen_random_uuid pg_sleep pg_is_in_recovery"),
    ("v", "pg_last_wal_replay_lsn pg_relation_size pg_total_relation_size pg_database_size"),
    ("s", "pg_stat_get_backend_pid"),
    ("v", "pg_blocking_pids"),
    ("v", "nextval setval currval lastval set_config setseed pg_read_file pg_ls_dir pg_notify"),
    ("v", "pg_advisory_lock pg_try_advisory_lock system ts_stat pg_switch_wal"),
];

/// Functions that take one argument, which is no row.
const UNARY: [&str; 8] =
    ["length", "lower", "upper", "nextval", "pg_try_advisory_lock", "looks", "plus", "abs"];

fn function(name: &str, origin: Origin, label: &str) -> FunctionRow {
    let place = if origin == Origin::Builtin { Place::Core } else { Place::Other };
    let volatility = Volatility::from_label(label);
    let argument = if UNARY.contains(&name) { Argument::One } else { Argument::Other };
    FunctionRow { name: name.into(), place, origin, volatility, argument }
}

fn relation(name: &str, kind: RelationKind) -> RelationRow {
    RelationRow { name: name.into(), kind, origin: Origin::Written, definition: None }
}

fn view(name: &str, definition: &str) -> RelationRow {
    RelationRow { definition: Some(definition.into()), ..relation(name, RelationKind::View) }
}

/// What `control::catalog` would read of a database after `statements::SETUP`.
fn rows() -> Rows {
    let builtin = BUILTIN.iter().flat_map(|(label, names)| {
        names.split(' ').map(|name| function(name, Origin::Builtin, label))
    });
    let written = "looks/s adds/i bump/v bumps/v stamp/v plus/v".split(' ');
    let written = written
        .filter_map(|labelled| labelled.split_once('/'))
        .map(|(name, label)| function(name, Origin::Written, label));
    let of_rows = [("title", "s"), ("touched", "v")].map(|(name, label)| FunctionRow {
        argument: Argument::Row,
        ..function(name, Origin::Written, label)
    });
    // An aggregate has a row for itself and one for its volatile part.
    let bumping = [("i", Origin::Native), ("v", Origin::Written)]
        .map(|(label, origin)| function("bumping", origin, label));
    let mut highest = function("highest", Origin::Builtin, "i");
    highest.place = Place::Other;
    let tables = "items orders parts parts_low totals audited noted numbered guarded counted";
    let catalogs = "pg_class pg_namespace pg_attribute";
    let own_views = "tables pg_stat_activity pg_locks pg_stat_progress_vacuum pg_settings pg_stat_replication pg_sequences \
        pg_replication_slots pg_prepared_statements";
    let builtin_relation =
        |name, kind| RelationRow { origin: Origin::Builtin, ..relation(name, kind) };
    Rows {
        fingerprint: "one".into(),
        functions: builtin.chain(written).chain(of_rows).chain(bumping).chain([highest]).collect(),
        operators: vec![
            ("<+>".into(), function("adds", Origin::Written, "i")),
            ("<*>".into(), function("bumps", Origin::Written, "v")),
            ("###".into(), function("nextval", Origin::Written, "v")),
        ],
        relations: tables
            .split(' ')
            .map(|name| relation(name, RelationKind::Table))
            .chain(catalogs.split(' ').map(|name| builtin_relation(name, RelationKind::Table)))
            .chain(
                own_views.split_whitespace().map(|name| builtin_relation(name, RelationKind::View)),
            )
            .chain([
                relation("distant", RelationKind::Foreign),
                relation("scratch", RelationKind::Unlogged),
                view("busy", " SELECT count(*) AS n FROM pg_stat_activity;"),
                view("more_numbers", " SELECT numbers.n + 1 AS n\n   FROM numbers;"),
                view("numbers", " SELECT nextval('ids'::regclass) AS n;"),
                view("locking", " SELECT pg_try_advisory_lock(4711::bigint) AS got;"),
                view(
                    "cheap",
                    " SELECT items.id, items.name FROM items WHERE items.price < 10::numeric;",
                ),
                view("cheap_names", " SELECT cheap.name\n   FROM cheap;"),
                view("looking", " SELECT looks(1) AS n;"),
            ])
            .collect(),
        policies: vec![
            PolicyRow { relation: "guarded".into(), expression: "(owner = CURRENT_USER)".into() },
            PolicyRow { relation: "counted".into(), expression: "(bump() > 0)".into() },
        ],
        writes: vec![
            ("audited".into(), function("stamp", Origin::Written, "v")),
            ("numbered".into(), function("bump", Origin::Written, "v")),
        ],
        followers: vec![
            ("items".into(), "orders".into()),
            ("parts".into(), "parts_low".into()),
            ("noted".into(), "audited".into()),
        ],
        ..Rows::default()
    }
}

fn catalog() -> Catalog {
    Catalog::new(&rows(), FunctionLists::default())
}

fn facts(sql: &str) -> Facts {
    examine(sql.as_bytes(), Dialect::default())
}

/// A statement has the class that the table gives it, and a reason that can be explained.
#[test]
fn each_statement_runs_where_the_table_says() {
    let catalog = catalog();
    let wrong: Vec<_> = statements::CASES
        .iter()
        .filter_map(|case| {
            let facts = facts(case.sql);
            let judgement = facts.judge(Some(&catalog));
            let found = judgement.fit.err().map(NeedsPrimary::as_str);
            assert!(!explain(&facts, judgement, Some(&catalog)).is_empty());
            (found != case.primary)
                .then(|| format!("{}: {found:?}, not {:?}", case.sql, case.primary))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(statements::CASES.len() >= 150);
    assert!(!statements::SETUP.is_empty());
    let settings: BTreeSet<_> =
        statements::CASES.iter().map(|case| format!("{:?}", case.setting)).collect();
    assert_eq!(settings.len(), 3, "each setting is in use");
}
