//! Who may import whom.

use super::assert_none;
use super::source;
use super::source::Keep;
use std::collections::BTreeSet;

/// The modules from the ground up: a module may import only modules that stand above it here.
const LAYERS: [&[&str]; 5] = [
    // Ground: facts; no I/O, no clock but its reader.
    &["pg", "clock"],
    // Thinking: pure.
    &["wire", "auth", "sql", "topology", "session", "route", "limits", "failover"],
    // Touching: I/O in small, bounded pieces.
    &[
        "board",
        "latest",
        "metrics",
        "reactor",
        "tasks",
        "vital",
        "timer",
        "net",
        "backend",
        "pool",
        "store",
        "notifications",
    ],
    // Planes.
    &["frontend", "control", "admin"],
    // Assembly.
    &["config", "sandbox", "proxy", "cli"],
];

/// What stands above, and is nevertheless not to be imported.
const NEVER: &[(&str, &str, &str)] = &[
    ("control", "frontend", "the planes meet only in `Topology` and `Signals`"),
    ("admin", "frontend", "the planes meet only in `Topology` and `Signals`"),
    ("control", "pool", "samples come over standing connections, never through a pool"),
    ("sandbox", "config", "the tests use it without a configuration"),
    ("sandbox", "frontend", "it shows the proxy from outside"),
    ("sandbox", "control", "it shows the proxy from outside"),
];

/// What stands below, and is nevertheless imported: file, module, why.
const CROSSINGS: &[(&str, &str, &str)] = &[];

fn place(module: &str) -> Option<usize> {
    LAYERS.iter().flat_map(|layer| layer.iter()).position(|known| *known == module)
}

/// The top modules that a text of Rust names, with the line; and what keeps that from being read.
fn imports(path: &str, text: &str) -> (Vec<(usize, String)>, Vec<String>) {
    let code = source::only(Keep::Code, text);
    let mut found = Vec::new();
    let mut unreadable = Vec::new();
    for (line, number) in code.lines().zip(1..) {
        for (at, _) in line.match_indices("crate::") {
            let named = &line[at + "crate::".len()..];
            let end = named.find(|c: char| !c.is_alphanumeric() && c != '_');
            let module = &named[..end.unwrap_or(named.len())];
            if module.is_empty() {
                unreadable.push(format!("{path}:{number}: write one `use crate::...` a module"));
            } else {
                found.push((number, module.to_owned()));
            }
        }
    }
    let depth = path.trim_end_matches("mod.rs").matches('/').count();
    let reach = "super::".repeat(if path.ends_with("mod.rs") { depth - 1 } else { depth });
    for (line, number) in source::without_tests(&code).lines().zip(1..) {
        if line.contains(&reach) {
            unreadable.push(format!("{path}:{number}: write `crate::` to leave the module"));
        }
    }
    (found, unreadable)
}

fn violations(path: &str, text: &str) -> Vec<String> {
    let Some(here) = source::top_module(path).filter(|name| !matches!(*name, "lib" | "main"))
    else {
        return Vec::new();
    };
    let (found, mut violations) = imports(path, text);
    let Some(own) = place(here) else {
        return vec![format!("{path}: `{here}` has no place in LAYERS")];
    };
    for (line, module) in found.iter().filter(|(_, module)| module != here) {
        let allowed = CROSSINGS.iter().any(|(file, into, _)| *file == path && into == module);
        let never = NEVER.iter().find(|(from, into, _)| *from == here && into == module);
        match (place(module), never) {
            _ if allowed => {}
            (_, Some((_, _, why))) => {
                violations.push(format!("{path}:{line}: {here} imports {module}: {why}"));
            }
            (Some(other), None) if other < own => {}
            (Some(_), None) => violations.push(format!(
                "{path}:{line}: {here} imports {module}, which stands after it in LAYERS"
            )),
            // A macro or a type at the root, or a module that is not in the table.
            (None, None) => violations.push(format!("{path}:{line}: {module} is not in LAYERS")),
        }
    }
    violations
}

#[test]
fn modules_import_only_what_lies_beneath_them() {
    let mut found = Vec::new();
    for file in source::files_beneath("src").iter().filter(|file| source::is_rust(&file.path)) {
        found.extend(violations(&file.path, &file.text));
    }
    assert_none(&found);
}

#[test]
fn every_layer_is_real_and_every_crossing_is_used() {
    let mut found = Vec::new();
    let there: BTreeSet<_> = source::files_beneath("src")
        .iter()
        .filter_map(|file| source::top_module(&file.path).map(str::to_owned))
        .collect();
    for module in LAYERS.iter().flat_map(|layer| layer.iter()) {
        if !there.contains(*module) {
            found.push(format!("LAYERS names {module}, which is not there"));
        }
    }
    for (path, module, _) in CROSSINGS {
        let (used, _) = imports(path, &source::read(path));
        if !used.iter().any(|(_, used)| used == module) {
            found.push(format!("{path} imports {module} no more: take it out of CROSSINGS"));
        }
    }
    assert_none(&found);
}

/// The modules that a root of a crate declares, in its order.
fn declared(root: &str) -> Vec<&str> {
    let lines = root.lines().map(str::trim);
    lines.filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect()
}

#[test]
fn the_library_declares_its_modules_from_the_ground_up() {
    let layers: Vec<_> = LAYERS.iter().flat_map(|layer| layer.iter()).copied().collect();
    assert_eq!(declared(&source::read("src/lib.rs")), layers, "the order in src/lib.rs");
    assert_eq!(declared("//! A.\npub mod b;\n// pub mod c;\npub mod a;\n"), ["b", "a"]);
}

#[test]
fn the_rule_of_imports_bites() {
    let wrong = [
        ("src/pg/lsn.rs", "use crate::topology::History;"),
        ("src/session/floor.rs", "fn f() { crate::route::decide() }"),
        ("src/control/mod.rs", "use crate::frontend::Shard;"),
        ("src/frontend/mod.rs", "use crate::control::Bell;"),
        ("src/control/look.rs", "use crate::pool::Pools;"),
        ("src/wire/mod.rs", "use crate::{pg, clock};"),
        ("src/wire/mod.rs", "use super::config::Config;"),
        ("src/wire/frame.rs", "use super::super::config::Config;"),
        ("src/novelty.rs", "use crate::pg::Lsn;"),
    ];
    for (path, text) in wrong {
        assert_eq!(violations(path, text).len(), 1, "{path}: {text}");
    }
    let right = [
        ("src/topology/history.rs", "use crate::pg::Lsn; // not crate::config"),
        ("src/wire/frame.rs", "use super::message; use crate::wire::startup;"),
        ("src/cli/run.rs", "use crate::proxy::run; let text = \"crate::novelty\";"),
        ("src/pg/lsn.rs", "#[cfg(test)]\nmod tests { use super::super::SqlState; }"),
    ];
    for (path, text) in right {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
