//! No bytes of a file, a variable or a flag cause a panic, and every refusal can be told.

use crate::config::Directory;
use pgsteer::config::Flag;
use pgsteer::config::Request;
use pgsteer::config::reference;
use proptest::collection::vec;
use proptest::prelude::Just;
use proptest::prelude::Strategy;
use proptest::prelude::any;
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;

/// Loads it and tells everything; what matters is that it comes back.
fn told(file: &[u8], env: &[(String, String)], flags: Vec<Flag>) -> String {
    let directory = Directory::new();
    let file = Some(directory.file("pgsteer.toml", file));
    let env: BTreeMap<String, String> = env.iter().cloned().collect();
    match (Request { file, env, flags }).load() {
        Ok(loaded) => format!("{} {:?}", loaded.warnings, loaded.config),
        Err(report) => {
            assert!(report.has_errors());
            assert!(report.problems().len() <= 100);
            let json = serde_json::to_string(report.problems()).unwrap();
            format!("{report} {json}")
        }
    }
}

/// Every key, from the reference file.
fn keys() -> Vec<String> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in reference::toml().lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, _)) = line.split_once(" = ")
            && !line.starts_with("# ")
        {
            keys.push(format!("{section}{}", key.trim_start_matches('#')));
        }
    }
    keys
}

/// Values that come close to something.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9]{0,25}",
        "-?[0-9]{1,20}(us|ms|s|m|h|d|B|kB|MB|GB|TB| |\\.5s)?",
        "\"[a-z0-9:/@%\\[\\]=.-]{0,20}\"",
        "(postgres(ql)?|mysql)://[a-z0-9:/@%?&=,\\[\\]-]{0,30}",
        "[\\[{][a-z0-9\"=, :{}\\[\\]-]{0,30}[\\]}]?",
        Just("true".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        Just("inf".to_owned()),
        Just("{ file = \"/dev/zero\" }".to_owned()),
        Just("{ file = \"/\" }".to_owned()),
        Just("[[[[[[[[[[[[1]]]]]]]]]]]]".to_owned()),
    ]
}

/// Runs a property. (The macro's own way does not compile beside `pg_raw_parse`, whose
/// implementations of `Debug` send the compiler in circles.)
fn check<S: Strategy>(values: &S, property: impl Fn(S::Value)) {
    let config = Config { cases: 256, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(values, |value| {
        property(value);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn any_bytes_are_a_file() {
    check(&vec(any::<u8>(), 0..400), |bytes| drop(told(&bytes, &[], Vec::new())));
}

#[test]
fn a_torn_reference_is_a_file() {
    let whole = reference::toml().replace("\n#", "\n").into_bytes();
    check(&(0..whole.len(), 0..200_usize, vec(any::<u8>(), 0..20)), |(at, length, noise)| {
        let mut bytes = whole.clone();
        let end = at.saturating_add(length).min(bytes.len());
        bytes.splice(at..end, noise);
        told(&bytes, &[], Vec::new());
    });
}

#[test]
fn any_value_of_any_key_is_understood_or_refused() {
    check(&(select(keys()), value(), 0..3), |(key, value, layer)| {
        match layer {
            0 => told(format!("{key} = {value}\n").as_bytes(), &[], Vec::new()),
            1 => {
                let name = format!("PGSTEER_{}", key.replace('.', "__").to_uppercase());
                told(b"", &[(name, value)], Vec::new())
            }
            _ => told(b"", &[], vec![Flag { name: format!("--set {key}"), key, value }]),
        };
    });
}

#[test]
fn any_name_is_a_key_or_refused() {
    check(&("[a-zA-Z_.]{0,30}", value()), |(name, value)| {
        let env = [(format!("PGSTEER_{name}"), value.clone()), (name.clone(), value.clone())];
        told(b"", &env, vec![Flag { name: "--set".to_owned(), key: name, value }]);
    });
}

/// What is shown of a value is that value: it can be pasted into a file.
#[test]
fn a_shown_duration_means_itself() {
    let units = [1, 1_000, 1_000_000, 60_000_000, 3_600_000_000_u64];
    check(&(0..1_000_000_u64, select(units.to_vec())), |(count, micros)| {
        let shown = hold_max(&format!("{}us", count * micros));
        assert_eq!(hold_max(shown.trim_matches('"')), shown);
    });
}

fn hold_max(value: &str) -> String {
    let key = "routing.hold_max";
    let flag = |key: &str, value: &str| Flag {
        name: "--set".to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let flags = std::vec![flag("servers.hosts", "a"), flag(key, value)];
    let config = Request { flags, ..Request::default() }.load().unwrap().config;
    config.sources.iter().find(|shown| shown.key == key).unwrap().value.clone()
}

#[test]
fn ten_thousand_mistakes_are_cut_short() {
    let lines: Vec<String> = (0..10_000).map(|number| format!("key{number} = 1")).collect();
    let file = lines.join("\n");
    let told = told(file.as_bytes(), &[], Vec::new());
    assert!(told.contains("\n... and 9901 more"), "{}", &told[told.len() - 200..]);
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["[", "{a="] {
        let file = format!("listen = {}", open.repeat(100_000));
        told(file.as_bytes(), &[], Vec::new());
        let value = open.repeat(100_000);
        told(b"", &[("PGSTEER_LISTEN".to_owned(), value)], Vec::new());
    }
}
