//! `docs/metrics.md` holds the catalogue of metrics as it is.

use super::source;
use pgsteer::metrics::{CATALOGUE, Entry, Kind};
use std::fmt::Write as _;

const PAGE: &str = "docs/metrics.md";
const BEGIN: &str = "<!-- catalogue: made by tests/it/tidy/metrics.rs -->\n";
const END: &str = "<!-- end of the catalogue -->\n";

/// The catalogue as a table.
fn table(entries: &[Entry]) -> String {
    let mut out = String::from("| metric | type | labels | what it tells |\n|---|---|---|---|\n");
    for entry in entries {
        let labels: Vec<_> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (entry.name, entry.kind.text(), labels.join(", "));
        writeln!(out, "| `{name}` | {kind} | {labels} | {} |", entry.help).unwrap();
    }
    out
}

/// The page with the present catalogue in it.
fn renewed(page: &str, entries: &[Entry]) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", table(entries)))
}

#[test]
fn the_page_of_metrics_is_the_catalogue() {
    let page = source::read(PAGE);
    let renewed = renewed(&page, CATALOGUE).unwrap();
    if std::env::var_os("RENEW").is_some() {
        std::fs::write(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), renewed)
            .unwrap();
        return;
    }
    let again = "run: RENEW=1 cargo test --test it the_page_of_metrics_is_the_catalogue";
    assert!(page == renewed, "{PAGE} is out of date; {again}");
}

/// What the hand-written part of the page, and every other page, says of a metric must exist.
#[test]
fn pages_name_no_metric_that_is_not_there() {
    let known = |word: &str| {
        CATALOGUE.iter().any(|entry| {
            let of_histogram = |suffix: &str| {
                matches!(entry.kind, Kind::Histogram(_))
                    && word.strip_suffix(suffix) == Some(entry.name)
            };
            entry.name == word || ["_bucket", "_sum", "_count"].into_iter().any(of_histogram)
        })
    };
    let mut found = Vec::new();
    for file in source::files_beneath("").iter().filter(|file| is_page(&file.path)) {
        for (line, word) in source::words(&file.text) {
            if word.starts_with("pgsteer_") && word != "pgsteer_" && !known(word) {
                found.push(format!("{}:{line}: no metric is called {word}", file.path));
            }
        }
    }
    super::assert_none(&found);
    assert!(known("pgsteer_queries_total") && !known("pgsteer_queries"));
    assert!(known("pgsteer_query_seconds_bucket") && !known("pgsteer_server_up_sum"));
}

fn is_page(path: &str) -> bool {
    source::is_page(path) || path.starts_with("grafana/")
}

#[test]
fn the_rule_of_metrics_bites() {
    let page = format!("Intro\n{BEGIN}old\n{END}Rest\n");
    let entry = Entry { name: "a_total", kind: Kind::Counter, labels: &["b"], help: "A rise" };
    let new = renewed(&page, &[entry]).unwrap();
    assert!(new.contains("| `a_total` | counter | `b` | A rise |") && !new.contains("old"));
    assert!(new.starts_with("Intro\n") && new.ends_with("Rest\n"));
    assert_ne!(renewed(&new, &[]), Some(new), "another catalogue, another page");
}
