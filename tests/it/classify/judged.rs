//! What a catalog adds: labels, views, hidden code, and what may be run again.

use super::catalog;
use super::facts;
use super::function;
use super::relation;
use super::rows;
use super::view;
use pgsteer::sql::Catalog;
use pgsteer::sql::FunctionLists;
use pgsteer::sql::NeedsPrimary;
use pgsteer::sql::Origin;
use pgsteer::sql::RelationKind;
use pgsteer::sql::Rows;

/// Without a catalog only what needs none is fit; the rest waits on the primary.
#[test]
fn without_a_catalog_only_what_names_nothing_is_fit() {
    for sql in ["SELECT 1", "SHOW work_mem", "VALUES (1)", "", "SELECT $1::int + 2"] {
        let judgement = facts(sql).judge(None);
        assert_eq!(judgement.fit, Ok(()), "{sql}");
        assert!(!judgement.taints() && judgement.replayable(), "{sql}");
    }
    for sql in ["SELECT now()", "TABLE items", "SELECT count(*) FROM pg_class"] {
        let judgement = facts(sql).judge(None);
        assert_eq!(judgement.fit, Err(NeedsPrimary::CatalogUnknown), "{sql}");
        assert!(judgement.taints() && !judgement.replayable(), "{sql}");
    }
    for sql in
        ["SELECT ### 1", "SELECT (1).f", "SELECT g.f FROM (SELECT 1) AS g, (SELECT (g).f) AS h"]
    {
        let judgement = facts(sql).judge(None);
        assert_eq!(judgement.fit, Err(NeedsPrimary::CatalogUnknown), "{sql}");
        assert!(judgement.taints() && !judgement.replayable(), "{sql}");
    }
    let lock = facts("SELECT pg_advisory_lock(1)").judge(None);
    assert_eq!(lock.fit, Err(NeedsPrimary::Advisory), "the better reason");
}

/// A new catalog is not answered from the memory of the old one.
#[test]
fn a_judgement_is_remembered_for_one_catalog_only() {
    let facts = facts("SELECT looks(1)");
    let (first, mut changed) = (catalog(), rows());
    assert_eq!(facts.judge(Some(&first)).fit, Ok(()));
    changed.functions.push(function("looks", Origin::Written, "v"));
    let second = Catalog::new(&changed, FunctionLists::default());
    assert_eq!(facts.judge(Some(&second)).fit, Err(NeedsPrimary::FunctionVolatile));
    assert_eq!(facts.judge(Some(&first)).fit, Ok(()));
    assert_eq!(facts.judge(None).fit, Err(NeedsPrimary::CatalogUnknown));
}

/// The operator's lists go before labels, through views as well.
#[test]
fn the_operators_lists_go_before_labels() {
    let lists = FunctionLists::new(&["bump", "nextval", "plus"], &["public.looks", "length"]);
    let catalog = Catalog::new(&rows(), lists);
    let judge = |sql| facts(sql).judge(Some(&catalog)).fit;
    assert_eq!(judge("SELECT bump()"), Ok(()));
    assert_eq!(judge("SELECT * FROM more_numbers"), Ok(()));
    assert_eq!(judge("SELECT looks(1)"), Err(NeedsPrimary::FunctionListed));
    assert_eq!(judge("SELECT * FROM looking"), Err(NeedsPrimary::RelationImpure));
    assert_eq!(judge("SELECT (1).plus"), Ok(()));
    assert_eq!(judge("SELECT ('a').length"), Err(NeedsPrimary::FunctionListed));
    assert_eq!(judge("SELECT i.length FROM items i"), Ok(()), "a column");
    let bump = facts("SELECT bump()").judge(Some(&catalog));
    assert!(bump.taints() && !bump.replayable(), "allowed is not known");
}

/// Only statements whose every function is known and harmless may run twice, and only those
/// that can have left nothing behind skip the probe.
#[test]
fn users_code_taints_and_is_not_run_again() {
    let catalog = catalog();
    let mut rows = rows();
    rows.hidden = vec![function("to_money", Origin::Written, "i")];
    let with_cast = Catalog::new(&rows, FunctionLists::default());
    let cases: &[(&str, bool, bool)] = &[
        // taints, replayable
        ("SELECT count(*) FROM items WHERE price < 3", false, true),
        ("SELECT random(), now() FROM cheap_names", false, true),
        ("COPY items TO STDOUT", false, true),
        ("SELECT looks(1)", true, false),
        ("SELECT * FROM looking", true, false),
        ("SELECT 1 <+> 2", true, false),
        ("SELECT i.title FROM items i", true, false),
        ("SELECT (1).looks", true, false),
        ("SELECT g.looks FROM generate_series(1, 1) AS g", true, false),
        ("SELECT i.looks FROM items i", false, true),
        ("SELECT (i).looked FROM items i", false, true),
        ("SELECT (7).pg_try_advisory_lock", true, false),
        ("SELECT ### 'ids'", true, false),
        ("SELECT unheard_of()", true, false),
        ("SELECT pg_advisory_lock(1)", true, false),
        ("SELECT pg_advisory_xact_lock(1)", true, false), // not in this catalog
        ("SELECT query_to_xml('SELECT 1', true, true, '')", true, false),
        ("SELECT set_config('work_mem', '1MB', false)", true, false),
        ("SELECT nextval('ids')", false, false),
        ("INSERT INTO orders VALUES (1, 1, 1)", false, false),
        ("DELETE FROM items WHERE id = 1", false, false),
        ("INSERT INTO items (id) VALUES (looks(1))", true, false),
        ("INSERT INTO audited VALUES (1)", true, false), // a trigger
        ("DELETE FROM noted", true, false),              // changes `audited` along
        ("INSERT INTO numbered (note) VALUES ('x')", true, false), // a default
        ("UPDATE counted SET id = 1", true, false),      // a policy
        ("UPDATE guarded SET id = 1", false, false),
        ("INSERT INTO cheap VALUES (1)", true, false), // a view
        ("INSERT INTO unheard_of VALUES (1)", true, false),
        ("TRUNCATE audited", true, false),
        ("TRUNCATE items", false, false),
        ("TRUNCATE items CASCADE", true, false), // triggers of whatever refers to it
        ("COPY audited FROM STDIN", true, false),
        ("DO 'BEGIN END'", true, false),
        ("CALL work()", true, false),
        ("CREATE TABLE x (id int)", true, false),
        ("SELEC", true, false),
        ("SET work_mem = '1MB'", false, false),
        ("BEGIN", false, false),
        ("LISTEN c", true, false),
        ("CREATE TEMP TABLE x (id int)", true, false),
        ("DECLARE c CURSOR FOR SELECT 1", false, false),
    ];
    for (sql, taints, replayable) in cases {
        let judgement = facts(sql).judge(Some(&catalog));
        assert_eq!((judgement.taints(), judgement.replayable()), (*taints, *replayable), "{sql}");
        if judgement.replayable() {
            let judgement = facts(sql).judge(Some(&with_cast));
            assert!(judgement.taints() && !judgement.replayable(), "a cast may hide in {sql}");
        }
    }
}

/// Beside a `SET` or a `BEGIN`, too; where there is nothing else, nothing is evaluated.
#[test]
fn what_runs_unnamed_counts_for_every_query_of_a_text() {
    let mut rows = rows();
    rows.hidden = vec![function("to_money", Origin::Written, "i")];
    let catalog = Catalog::new(&rows, FunctionLists::default());
    for (sql, taints) in [
        ("BEGIN; SELECT name::text FROM items; COMMIT", true),
        ("SET work_mem = '1MB'; SELECT 1", true),
        ("TABLE items; RESET work_mem", true),
        ("BEGIN; DECLARE c CURSOR FOR SELECT 1", true),
        ("BEGIN; DELETE FROM items WHERE id = 1; COMMIT", true),
        ("BEGIN; SET LOCAL work_mem = '1MB'; COMMIT", false),
        ("SET work_mem = '1MB'; SET a.b = 1", false),
        ("COMMIT", false),
        ("SHOW work_mem", false),
    ] {
        assert_eq!(facts(sql).judge(Some(&catalog)).taints(), taints, "{sql}");
    }
}

/// What runs without being named counts for every statement of the database.
#[test]
fn volatile_casts_and_domains_send_everything_to_the_primary() {
    let mut by_cast = rows();
    by_cast.hidden = vec![function("to_money", Origin::Written, "v")];
    // PostgreSQL's own, behind a cast of a user's.
    let mut by_own = rows();
    by_own.hidden = vec![function("txid_current", Origin::Builtin, "s")];
    let mut by_domain = rows();
    by_domain.domains = vec!["(VALUE > 0)".into(), "(bump() > VALUE)".into()];
    let mut harmless = rows();
    harmless.hidden = vec![
        function("citext_eq", Origin::Native, "i"),
        function("range_in", Origin::Builtin, "s"),
    ];
    harmless.domains = vec!["(VALUE ~ '^[a-z]+$'::text)".into()];
    let judge =
        |rows: &Rows, sql| facts(sql).judge(Some(&Catalog::new(rows, FunctionLists::default())));
    for rows in [by_cast, by_own, by_domain] {
        assert_eq!(judge(&rows, "TABLE items").fit, Err(NeedsPrimary::HiddenVolatile));
        assert_eq!(judge(&rows, "SHOW work_mem").fit, Ok(()));
    }
    assert!(judge(&harmless, "TABLE items").replayable());
}

/// Labels are what their author says; the name of a harmless function of PostgreSQL's own is
/// no protection for another's.
#[test]
fn somebody_elses_random_is_not_harmless() {
    let mut rows = rows();
    rows.functions.push(function("random", Origin::Written, "v"));
    rows.functions.push(function("uuid_generate_v4", Origin::Native, "v"));
    rows.functions.push(function("json_array", Origin::Written, "v"));
    rows.functions.push(function("merge_action", Origin::Written, "v"));
    let catalog = Catalog::new(&rows, FunctionLists::default());
    let judge = |sql| facts(sql).judge(Some(&catalog)).fit;
    assert_eq!(judge("SELECT random()"), Err(NeedsPrimary::FunctionVolatile));
    assert_eq!(judge("SELECT pg_catalog.random()"), Ok(()));
    assert_eq!(judge("SELECT uuid_generate_v4()"), Ok(()));
    assert_eq!(judge("SELECT json_array(1, 2)"), Err(NeedsPrimary::FunctionVolatile));
    assert_eq!(judge("SELECT merge_action()"), Err(NeedsPrimary::FunctionVolatile));
    assert_eq!(judge("SELECT json_object('a': 1)"), Ok(()));
}

/// A call that leaves an argument out evaluates its default.
#[test]
fn defaults_of_arguments_are_calls() {
    let mut rows = rows();
    for name in ["first", "second", "third"] {
        rows.functions.push(function(name, Origin::Written, "s"));
    }
    rows.defaults = vec![
        ("first".into(), "1, second()".into()),
        ("second".into(), "nextval('ids'::regclass)".into()),
        ("third".into(), "CURRENT_USER, 3".into()),
    ];
    let catalog = Catalog::new(&rows, FunctionLists::default());
    let judge = |sql| facts(sql).judge(Some(&catalog)).fit;
    assert_eq!(judge("SELECT first()"), Err(NeedsPrimary::FunctionVolatile));
    assert_eq!(judge("SELECT second()"), Err(NeedsPrimary::FunctionVolatile));
    assert_eq!(judge("SELECT third()"), Ok(()));
}

/// Two relations of one name: which is meant depends on the `search_path`, so the worse counts.
#[test]
fn of_two_relations_of_one_name_the_worse_counts() {
    let mut rows = rows();
    rows.relations.insert(0, relation("more_numbers", RelationKind::Table));
    rows.relations.push(relation("numbers", RelationKind::Table));
    let catalog = Catalog::new(&rows, FunctionLists::default());
    for sql in ["TABLE a.numbers", "TABLE more_numbers"] {
        assert_eq!(
            facts(sql).judge(Some(&catalog)).fit,
            Err(NeedsPrimary::RelationImpure),
            "{sql}"
        );
    }
}

/// A chain of views that is longer than what is followed ends in mistrust, not in a loop.
#[test]
fn endless_chains_of_views_are_not_trusted() {
    let mut rows = rows();
    let last = 200;
    for number in (0..last).rev() {
        rows.relations.push(view(&format!("v{number}"), &format!("SELECT * FROM v{}", number + 1)));
    }
    // Read from the wrong end, each pass follows the chain by one view only.
    rows.relations.reverse();
    rows.relations.push(view(&format!("v{last}"), "SELECT bump()"));
    rows.relations.push(view("left_one", "SELECT * FROM right_one"));
    rows.relations.push(view("right_one", "SELECT * FROM left_one"));
    let catalog = Catalog::new(&rows, FunctionLists::default());
    let judge = |sql| facts(sql).judge(Some(&catalog)).fit;
    for sql in ["TABLE v0", "TABLE v100", "TABLE v200", "TABLE left_one"] {
        assert_eq!(judge(sql), Err(NeedsPrimary::RelationImpure), "{sql}");
    }
    assert_eq!(judge("TABLE items"), Ok(()));
}
