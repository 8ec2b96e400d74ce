//! Orders that a crowded machine may not let come to their end at the first attempt, or before
//! whoever gave them has gone: what is allowed for, and what is not.

use crate::support::House;
use crate::support::await_that;
use crate::support::command;
use pgsteer::sandbox::eventually;
use std::fmt::Debug;
use std::process::Output;
use std::time::Duration;

/// What the command exits with if a switchover was called off: pgsteer does that by itself when a
/// step of it takes longer than clients are to wait.
pub const CALLED_OFF: Option<i32> = Some(4);
/// For how long it is ordered again: each attempt takes some seconds where it is called off.
const AGAIN_MAX: Duration = Duration::from_mins(3);

/// What a command of the program said.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<&Output> for Answer {
    fn from(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Asks the program to do this of the house's proxy.
fn asked(house: &House, arguments: &[&str]) -> Answer {
    let http = house.proxy.http_address().to_string();
    heard(arguments, || {
        let answer: Answer =
            (&command().args(["--http", &http]).args(arguments).output().unwrap()).into();
        let is_heard = answer.is_heard();
        (answer, is_heard)
    })
}

impl Answer {
    /// Whether pgsteer answered in time: on a crowded machine it may take longer than a command
    /// waits.
    pub fn is_heard(&self) -> bool {
        !is_unheard(&self.err)
    }
}

/// Whether a command said that it had no answer in time.
pub fn is_unheard(said: &str) -> bool {
    said.contains(" did not answer within ")
}

/// What a command said for which pgsteer answered in time, and with that whether it did: one that
/// only looks is run again. What became of an order is for who gave it to find out.
pub fn heard<T>(arguments: &[&str], ask: impl Fn() -> (T, bool)) -> T {
    let looks = ["status", "history", "--dry-run"];
    let only_looks = arguments.iter().any(|argument| looks.contains(argument));
    let answer = eventually(AGAIN_MAX, || {
        let (answer, is_heard) = ask();
        (is_heard || !only_looks).then_some(answer)
    });
    answer.expect("pgsteer never answers in time")
}

/// The changes of primary that are remembered.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    pub all: usize,
    /// By which another server became the primary: a switchover that is called off late makes the
    /// old one the primary again, which is a change as well.
    pub to_another: usize,
}

/// What the program tells of the changes of primary.
pub fn changes(house: &House) -> Changes {
    let told = asked(house, &["-o", "json", "history"]).out;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let all = told["changes"].as_array().unwrap();
    let to_another = all.iter().filter(|change| change["from"] != change["to"]).count();
    Changes { all: all.len(), to_another }
}

/// Hands over by this order, however often that is called off.
pub fn handed_over(house: &House, arguments: &[&str]) -> Answer {
    until_done(house, || asked(house, arguments))
}

/// Hands over in this way, however often that is called off; who was the primary is it still each
/// time. Whatever else comes of it is a failure.
pub fn until_done(house: &House, attempt: impl FnMut() -> Answer) -> Answer {
    let mut attempt = attempt;
    let before = the_primary(house);
    let done = eventually(AGAIN_MAX, || {
        let answer = attempt();
        if !answer.is_heard() {
            eprintln!("whether it was ordered is not known: {answer:?}");
            return (the_primary(house) != before).then_some(answer);
        }
        if answer.code != CALLED_OFF {
            assert_eq!(answer.code, Some(0), "{answer:?}\n{}", house.proxy.log());
            return Some(answer);
        }
        eprintln!("called off: {answer:?}");
        assert_eq!(the_primary(house), before, "{answer:?}\n{}", house.proxy.log());
        None
    });
    done.unwrap_or_else(|| panic!("none comes to its end: {}", house.proxy.log()))
}

/// Replaces a primary that is lost, and waits until that is done: whoever ordered it may have been
/// told that it goes on without him.
pub fn replaced(house: &House, arguments: &[&str]) -> Answer {
    let before = house.status()["epoch"].clone();
    let answer = asked(house, arguments);
    if !answer.is_heard() {
        eprintln!("whether it was ordered is not known: {answer:?}");
        until_taken(house, &before, arguments);
        return answer;
    }
    let is_begun = answer.err.contains("it is begun");
    assert!(answer.code == Some(0) || is_begun, "{answer:?}\n{}", house.proxy.log());
    the_primary(house);
    answer
}

/// Orders this until another server is the primary: pgsteer may have to make sure first, and may do
/// by itself what is ordered, before the order has come.
pub fn replaced_by_and_by(house: &House, arguments: &[&str]) {
    until_taken(house, &house.status()["epoch"], arguments);
}

/// The same, where this was the epoch before.
fn until_taken(house: &House, before: &serde_json::Value, arguments: &[&str]) {
    let is_taken = || {
        let status = house.status();
        status["epoch"] != *before && status["failover"]["phase"] == "stable"
    };
    let mut said = None;
    let taken = eventually(AGAIN_MAX, || {
        if !is_taken() {
            said = Some(asked(house, arguments));
        }
        is_taken().then_some(())
    });
    assert!(taken.is_some(), "nobody is replaced: {said:?}\n{}", house.proxy.log());
}

/// Who is the primary, once nothing is under way.
fn the_primary(house: &House) -> String {
    let mut primary = String::new();
    await_that("there is a primary, and nothing is under way", || {
        let status = house.status();
        status["primary"].as_str().unwrap_or_default().clone_into(&mut primary);
        !primary.is_empty() && status["failover"]["phase"] == "stable"
    });
    primary
}
