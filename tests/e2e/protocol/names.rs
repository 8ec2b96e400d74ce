//! Names of prepared statements: what takes one away and fails on the way takes away what it would
//! at a server, and no more. Each script is played to both.

use super::alike::{Script, Step, ready};
use super::states::{differences, house};
use crate::raw::{bind, bind_portal, describe, execute, execute_portal, parse, query, sync};

fn given(name: &str) -> Step {
    ready(&[parse(name, &format!("SELECT 'what {name} says'")), sync()])
}

/// Whether it is there: to the protocol, and to SQL.
fn looks(names: &[&str]) -> Vec<Step> {
    let of = |name: &&str| {
        let sql = format!("EXECUTE {name}");
        [ready(&[describe(name), bind(name, &[]), execute(), sync()]), ready(&[query(&sql)])]
    };
    names.iter().flat_map(of).collect()
}

fn said(texts: &[&str]) -> Vec<Step> {
    texts.iter().map(|text| ready(&[query(text)])).collect()
}

/// The same by the protocol.
fn unnamed(text: &str) -> Step {
    ready(&[parse("", text), bind("", &[]), execute(), sync()])
}

fn of(what: &'static str, between: Vec<Vec<Step>>) -> Script {
    let all = [vec![vec![given("s"), given("t")]], between, vec![looks(&["s", "t"])]];
    (what, all.concat().concat())
}

fn by_texts() -> Vec<Script> {
    vec![
        of("a transaction that is rolled back", vec![said(&["BEGIN; DEALLOCATE s", "ROLLBACK"])]),
        of("to a savepoint", vec![said(&["BEGIN; SAVEPOINT a", "DEALLOCATE s", "ROLLBACK TO a"])]),
        of(
            "to a savepoint, ahead of which it was passed over",
            vec![
                said(&["BEGIN; SAVEPOINT a", "SELECT 1/0; DEALLOCATE s", "ROLLBACK TO a"]),
                looks(&["s", "t"]),
            ],
        ),
        of(
            "to a savepoint, and it was none",
            vec![
                said(&["BEGIN; SAVEPOINT a", "DEALLOCATE nobody; DEALLOCATE s", "ROLLBACK TO a"]),
                said(&["DEALLOCATE t; SELECT 1/0", "ROLLBACK TO a"]),
                looks(&["s"]),
            ],
        ),
        of("one that had failed", vec![said(&["BEGIN; SELECT 1/0", "DEALLOCATE s", "ROLLBACK"])]),
        of("of all in one that had failed", vec![said(&["BEGIN; SELECT 1/0", "DEALLOCATE ALL"])]),
        of("an unknown name", vec![said(&["DEALLOCATE nobody", "DEALLOCATE \"S\""])]),
        of("an unknown name in a transaction", vec![said(&["BEGIN", "DEALLOCATE nobody", "END"])]),
        of("behind what fails", vec![said(&["SELECT 1/0; DEALLOCATE s"])]),
        of("ahead of what fails", vec![said(&["DEALLOCATE s; SELECT 1/0"])]),
        of("one is known", vec![said(&["DEALLOCATE s; DEALLOCATE nobody; DEALLOCATE t"])]),
        of("one is not known", vec![said(&["DEALLOCATE nobody; DEALLOCATE s"])]),
        of("twice", vec![said(&["DEALLOCATE PREPARE s; DEALLOCATE s"])]),
        of("run and taken away", vec![said(&["EXECUTE s; DEALLOCATE s; EXECUTE s"])]),
        of("a text that is none", vec![said(&["DEALLOCATE s; SELEC", "DEALLOCATE s t"])]),
        of("given anew", vec![said(&["BEGIN; DEALLOCATE s; PREPARE s AS SELECT 5", "ROLLBACK"])]),
        of(
            "given anew ahead of what fails",
            vec![said(&[
                "DEALLOCATE s; PREPARE s AS SELECT 5; SELECT 1/0",
                "DEALLOCATE s",
                "DEALLOCATE s",
            ])],
        ),
    ]
}

fn by_messages() -> Vec<Script> {
    let run = |name: &str| ready(&[bind(name, &[]), execute(), sync()]);
    vec![
        of("by the protocol", vec![vec![unnamed("DEALLOCATE nobody"), unnamed("DEALLOCATE s")]]),
        of(
            "run and taken away in a failed transaction, where the name was to be given once more",
            vec![
                said(&["BEGIN; SAVEPOINT a"]),
                vec![ready(&[execute_portal("nobody", 0), parse("s", "SELECT 2"), sync()])],
                said(&["EXECUTE s; DEALLOCATE s; EXECUTE s", "ROLLBACK TO a; EXECUTE s"]),
                said(&["ROLLBACK"]),
            ],
        ),
        of("parsed and not run", vec![vec![ready(&[parse("", "DEALLOCATE s"), sync()])]]),
        of(
            "bound and not run",
            vec![vec![ready(&[parse("", "DEALLOCATE s"), bind("", &[]), sync()])]],
        ),
        of(
            "prepared itself, and run twice",
            vec![vec![
                ready(&[parse("d", "DEALLOCATE s"), sync()]),
                run("s"),
                run("d"),
                run("s"),
                run("d"),
                given("s"),
                run("d"),
            ]],
        ),
        of(
            "passed over behind an error",
            vec![vec![ready(&[
                parse("", "SELECT 1/0"),
                bind("", &[]),
                execute(),
                parse("", "DEALLOCATE s"),
                bind("", &[]),
                execute(),
                sync(),
            ])]],
        ),
        of(
            "by the protocol, in a transaction that fails",
            vec![
                said(&["BEGIN"]),
                vec![unnamed("DEALLOCATE s"), unnamed("SELECT 1/0"), unnamed("DEALLOCATE t")],
                said(&["ROLLBACK"]),
            ],
        ),
        of(
            "what runs goes on",
            vec![
                said(&["BEGIN"]),
                vec![ready(&[bind_portal("p", "s", &[]), sync()])],
                said(&["DEALLOCATE s"]),
                vec![ready(&[execute_portal("p", 0), sync()])],
                said(&["ROLLBACK"]),
            ],
        ),
    ]
}

/// Texts that leave a failed transaction and run by name what the protocol has prepared.
fn behind_a_failure() -> Vec<Script> {
    let failed = "BEGIN; SAVEPOINT a; SELECT 1/0";
    let told = |what, texts: &[&str]| {
        of(what, vec![said(&[failed]), said(texts), said(&["SELECT 'and on'", "ROLLBACK"])])
    };
    vec![
        told("to a savepoint", &["ROLLBACK TO a; EXECUTE s"]),
        told(
            "twice",
            &["ROLLBACK TO SAVEPOINT a; EXECUTE s", "SELECT 1/0", "ROLLBACK TO a; EXECUTE t"],
        ),
        told("to none", &["ROLLBACK TO nowhere; EXECUTE s", "ROLLBACK TO a; EXECUTE s"]),
        told("not at once", &["SELECT 1; ROLLBACK TO a; EXECUTE s"]),
        told("and out", &["ROLLBACK; EXECUTE s"]),
        told("out and in again", &["ABORT; BEGIN ISOLATION LEVEL SERIALIZABLE; EXECUTE s"]),
        told("out by COMMIT", &["COMMIT; EXECUTE s; EXECUTE t"]),
        told("chained", &["ROLLBACK AND CHAIN; EXECUTE s"]),
        told("chained by END", &["END AND CHAIN; EXECUTE s"]),
        told("taken away behind it", &["ROLLBACK TO a; EXECUTE s; DEALLOCATE s"]),
        told("taken away ahead of it", &["ROLLBACK TO a; DEALLOCATE s; EXECUTE s"]),
        told("which fails", &["ROLLBACK TO a; EXECUTE s(1)", "ROLLBACK TO a; EXECUTE s"]),
        told("explained", &["ROLLBACK TO a; EXPLAIN (COSTS OFF) EXECUTE s"]),
        told("a text that is none", &["ROLLBACK; EXECUTE s; SELEC", "ROLLBACK TO a"]),
        of(
            "in a transaction of its own kind",
            vec![said(&[
                "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1/0",
                "ROLLBACK AND CHAIN; EXECUTE s; SHOW transaction_isolation",
                "COMMIT",
            ])],
        ),
    ]
}

#[test]
fn a_text_that_leaves_a_failed_transaction_runs_what_it_names() {
    let login = [("user", "postgres"), ("database", "postgres")];
    for mode in ["transaction", "session"] {
        let found = differences(&house(mode), &login, &behind_a_failure());
        assert!(found.is_empty(), "{mode}: {}", found.join("\n"));
    }
}

#[test]
fn a_name_that_was_to_be_taken_away_is_there_if_it_would_be_at_a_server() {
    let login = [("user", "postgres"), ("database", "postgres")];
    let scripts = [by_texts(), by_messages()].concat();
    for mode in ["transaction", "session"] {
        let found = differences(&house(mode), &login, &scripts);
        assert!(found.is_empty(), "{mode}: {}", found.join("\n"));
    }
}
