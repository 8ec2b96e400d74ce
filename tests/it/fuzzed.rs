//! What `make fuzz` looks for without an end, bounded: each target in `tests/hostile` on changes of
//! good messages, a few seconds each.
//!
//! `SEED=7 cargo test --test it fuzzed` repeats a run, `CASES=100000` goes on for longer. The last
//! ones prove that the targets find what they are there to find: with a mistake put in, the same
//! bytes must fail.

use crate::floods::{since, worked};
use crate::hostile::{facts_do_not_depend_on, groups_as_they_arrive, target};
use pgsteer::session::{Reader, Scan, scan};
use pgsteer::sql::{Dialect, Facts, examine};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often each target is run in `make test`, more or less: a second or two.
const CASES: u32 = 4_000;
/// No case may take longer, of this thread's own time and without optimisation.
const ENOUGH: Duration = Duration::from_secs(2);

/// One change of good bytes.
#[derive(Debug, Clone)]
enum Change {
    /// These take the place of so many, from there on.
    Splice(usize, usize, Vec<u8>),
    /// A bit is another.
    Flip(usize, u8),
    /// So many from there on come this often.
    Repeat(usize, usize, usize),
    /// The end is missing.
    Cut(usize),
    /// A length, or something that could be one, is this.
    Length(usize, u32),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<usize>();
    let lengths = vec![0, 1, 3, 4, 5, 8, 100, 0x3FFF_FFFF, 0x4000_0000, 0x7FFF_FFFF, u32::MAX];
    prop_oneof![
        (at, 0..20_usize, vec(any::<u8>(), 0..20)).prop_map(|(a, b, c)| Change::Splice(a, b, c)),
        (at, 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at, 1..40_usize, 2..60_usize).prop_map(|(a, b, c)| Change::Repeat(a, b, c)),
        at.prop_map(Change::Cut),
        (at, select(lengths)).prop_map(|(at, length)| Change::Length(at, length)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let within = |at: usize| at % (bytes.len() + 1);
        match self {
            Self::Splice(at, length, new) => {
                let from = within(*at);
                let to = bytes.len().min(from + length);
                bytes.splice(from..to, new.iter().copied());
            }
            Self::Flip(at, bit) => {
                let at = at % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Repeat(at, length, times) => {
                let from = within(*at);
                let to = bytes.len().min(from + length);
                let more = bytes[from..to].repeat(*times);
                bytes.splice(to..to, more);
            }
            Self::Cut(at) => bytes.truncate(within(*at)),
            Self::Length(at, length) => {
                let from = within(*at);
                let to = bytes.len().min(from + 4);
                bytes.splice(from..to, length.to_be_bytes());
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// Runs a target on changes of its seeds; the bytes that broke it, made short.
fn broken(seeds: Vec<Vec<u8>>, cases: u32, run: &dyn Fn(&[u8])) -> Result<(), String> {
    let seed = number("SEED").unwrap_or_else(|| pgsteer::clock::now().nanos() % 1_000_000);
    let config = Config {
        cases: number("CASES").map_or(cases, |cases| u32::try_from(cases).unwrap()),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let values = (vec(select(seeds), 1..4), vec(change(), 0..5)).prop_map(|(parts, changes)| {
        let mut bytes = parts.concat();
        for change in changes {
            change.apply(&mut bytes);
        }
        bytes
    });
    let outcome = TestRunner::new(config).run(&values, |bytes| {
        let began = worked();
        run(&bytes);
        assert!(since(began) < ENOUGH, "it took {:?}", since(began));
        Ok(())
    });
    outcome.map_err(|error| match error {
        TestError::Fail(why, bytes) => {
            let test = std::thread::current().name().unwrap_or("fuzzed").to_owned();
            let shown = bytes.escape_ascii();
            format!("{why}\nby b\"{shown}\"\nrepeat with: SEED={seed} cargo test --test it {test}")
        }
        TestError::Abort(why) => why.to_string(),
    })
}

#[track_caller]
fn holds(name: &str, cases: u32) {
    let target = target(name);
    for seed in (target.seeds)() {
        (target.run)(&seed);
    }
    (target.run)(b"");
    broken((target.seeds)(), cases, &target.run).unwrap_or_else(|why| panic!("{name}: {why}"));
}

#[test]
fn framer() {
    holds("framer", CASES);
}

#[test]
fn startup() {
    holds("startup", 2 * CASES);
}

#[test]
fn sql() {
    holds("sql", CASES / 3);
}

#[test]
fn scram() {
    holds("scram", CASES);
}

#[test]
fn config() {
    holds("config", CASES / 5);
}

#[test]
fn backend() {
    holds("backend", 2 * CASES);
}

/// A scan that takes what has come for all there is.
fn hasty(inbox: &[u8], reader: &mut Reader<'_>) -> Result<Scan, pgsteer::session::Violation> {
    match scan(inbox, reader)? {
        Scan::Incomplete if inbox.len() > 5 => Ok(Scan::Terminate),
        other @ (Scan::Incomplete | Scan::Group(_) | Scan::Leftover(_) | Scan::Terminate) => {
            Ok(other)
        }
    }
}

#[test]
fn a_scan_that_depends_on_packets_is_found() {
    let seeds = target("framer").seeds;
    assert!(broken(seeds(), CASES, &|data| groups_as_they_arrive(data, &hasty)).is_err());
    assert!(broken(seeds(), 100, &|data| groups_as_they_arrive(data, &scan)).is_ok());
}

/// A cache that takes a text for another that begins alike, or that is alike in another dialect.
fn forgetful(key: fn(&[u8], Dialect) -> Vec<u8>) -> Result<(), String> {
    broken((target("sql").seeds)(), CASES, &|data| {
        let mut known: HashMap<Vec<u8>, Arc<Facts>> = HashMap::new();
        facts_do_not_depend_on(data, &mut |sql, dialect| {
            let facts = known.entry(key(sql, dialect));
            Arc::clone(facts.or_insert_with(|| Arc::new(examine(sql, dialect))))
        });
    })
}

#[test]
fn a_cache_that_mixes_texts_up_is_found() {
    assert!(forgetful(|sql, _| sql.to_vec()).is_err(), "dialects are mixed up");
    let blind = |sql: &[u8], dialect| {
        let marked = sql.iter().filter(|byte| !byte.is_ascii_digit()).copied();
        marked.chain(format!("{dialect:?}").into_bytes()).collect()
    };
    assert!(forgetful(blind).is_err(), "`EXPLAIN (ANALYZE 0)` and `pgsteer.role = 5` are others");
    let whole = |sql: &[u8], dialect| [sql, format!("{dialect:?}").as_bytes()].concat();
    assert!(forgetful(whole).is_ok());
}
