//! Modules that think name no runtime, no clock, no socket, no file and no chance.
//!
//! They take a `Moment`, random bytes and messages as arguments, so that the same input always
//! gives the same answer, and a test needs no mock.

use super::assert_none;
use super::source;
use super::source::Keep;

/// What only thinks: whole modules, and the deciding half of the control plane.
const THINKING: &[&str] = &[
    "src/pg/",
    "src/wire/",
    "src/auth/",
    "src/sql/",
    "src/topology/",
    "src/session/",
    "src/route/",
    "src/failover/",
    "src/control/adopt.rs",
    "src/control/evidence.rs",
    "src/control/finding.rs",
    "src/control/hands/questions.rs",
    "src/control/fitness.rs",
    "src/control/conductor/arming.rs",
    "src/control/conductor/memory.rs",
    "src/control/conductor/scene.rs",
    "src/control/fold/",
    "src/control/footing.rs",
    "src/control/lag.rs",
    "src/control/look.rs",
    "src/control/right.rs",
    "src/control/snapshot.rs",
];

/// Words that touch the world, and what to do instead.
const WORLDLY: &[(&str, &[&str])] = &[
    ("take a `Moment` as an argument", &["Instant", "SystemTime", "UNIX_EPOCH", "unix_seconds"]),
    (
        "let the caller wait",
        &["tokio", "hyper", "sqlx", "async", "await", "thread", "reactor", "mio"],
    ),
    ("let the caller read and write", &["fs", "File", "OpenOptions", "env", "rustix", "socket2"]),
    (
        "let the caller connect",
        &[
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "UnixListener",
            "UnixDatagram",
            "ToSocketAddrs",
        ],
    ),
    ("take random bytes as an argument", &["rand", "SystemRandom", "SecureRandom", "getrandom"]),
];

/// Words that are let through: file, word, why.
const LET_THROUGH: &[(&str, &str, &str)] = &[];

fn is_thinking(path: &str) -> bool {
    THINKING.iter().any(|prefix| path.starts_with(prefix))
}

fn violations(path: &str, text: &str) -> Vec<String> {
    if !is_thinking(path) || source::is_test(path) {
        return Vec::new();
    }
    let code = source::without_tests(&source::only(Keep::Code, text));
    let mut found = Vec::new();
    for (line, word) in source::words(&code) {
        for (instead, words) in WORLDLY {
            let allowed =
                LET_THROUGH.iter().any(|(file, let_in, _)| *file == path && *let_in == word);
            if words.contains(&word) && !allowed {
                found.push(format!("{path}:{line}: only thinks, but names `{word}`: {instead}"));
            }
        }
    }
    for (line, number) in code.lines().zip(1..) {
        if line.contains("clock::now") || line.contains("clock::{") {
            found.push(format!("{path}:{number}: only thinks, but reads the clock"));
        }
    }
    found
}

#[test]
fn modules_that_think_touch_nothing() {
    let files = source::rust_files();
    let found: Vec<_> = files.iter().flat_map(|file| violations(&file.path, &file.text)).collect();
    assert_none(&found);
    for prefix in THINKING {
        assert!(files.iter().any(|file| file.path.starts_with(prefix)), "{prefix} is not there");
    }
}

#[test]
fn the_rule_of_purity_bites() {
    let wrong = [
        "use tokio::sync::watch;",
        "use crate::clock; fn f() { clock::now() }",
        "fn f() { std::fs::read(\"a\") }",
        "use std::{fmt, fs};",
        "use std::time::{Duration, Instant};",
        "use std::net::TcpStream;",
        "let bytes = rand::random();",
        "async fn f() {}",
    ];
    for text in wrong {
        assert_eq!(violations("src/route/decide.rs", text).len(), 1, "{text}");
        assert_eq!(violations("src/net/stream.rs", text).len(), 0, "{text}");
    }
    let right = [
        "use crate::clock::Moment; // no Instant here",
        "const HELP: &str = \"ask tokio\";",
        "#[cfg(test)]\nmod tests { use std::fs; }",
        "use std::net::IpAddr;",
    ];
    for text in right {
        assert_eq!(violations("src/route/decide.rs", text), Vec::<String>::new(), "{text}");
    }
}
