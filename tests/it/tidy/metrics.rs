//! `docs/metrics.md` holds the catalogue of metrics, and the values of their labels, as they are.

use super::source;
use pgsteer::metrics::{Build, CATALOGUE, Entry, Kind, LABEL_LISTS, Metrics};
use std::collections::{BTreeMap, BTreeSet};
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

/// Labels whose values are names, versions or limits, not a list.
const OPEN: [&str; 6] = ["server", "le", "version", "revision", "rustc", "hash"];

/// Each label of the exposition with the values that it has: by which metrics.
type Values = BTreeMap<(String, BTreeSet<String>), BTreeSet<String>>;

fn values(exposed: &str) -> Values {
    let mut of_metrics: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for line in exposed.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
        for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
            if !OPEN.contains(&label) {
                let suffixes = ["_bucket", "_sum", "_count"];
                let of = suffixes.into_iter().find_map(|suffix| name.strip_suffix(suffix));
                let key = (of.unwrap_or(name).to_owned(), label.to_owned());
                of_metrics.entry(key).or_default().insert(value.trim_matches('"').to_owned());
            }
        }
    }
    let mut values = Values::new();
    for ((metric, label), all) in of_metrics {
        values.entry((label, all)).or_default().insert(metric);
    }
    values
}

/// The labels' values as a table, each with what it means where that is written down.
fn values_table(values: &Values) -> String {
    let mut out = String::from("| label | of | values |\n|---|---|---|\n");
    for ((label, all), metrics) in values {
        let metrics: Vec<_> = metrics.iter().map(|metric| format!("`{metric}`")).collect();
        let same = |list: &&&[(&str, &str)]| {
            list.len() == all.len() && list.iter().all(|(value, _)| all.contains(*value))
        };
        let told: Vec<_> = match LABEL_LISTS.iter().find(same) {
            Some(list) => {
                let each = list.iter().map(|(value, doc)| {
                    let doc = doc.trim().trim_end_matches('.');
                    format!("`{value}` ({})", doc.replace("[`", "`").replace("`]", "`"))
                });
                each.collect()
            }
            None => all.iter().map(|value| format!("`{value}`")).collect(),
        };
        writeln!(out, "| `{label}` | {} | {} |", metrics.join(", "), told.join(", ")).unwrap();
    }
    out
}

/// The values of a program that has just begun, of one server: all that there can be.
fn present_values() -> Values {
    let metrics = Metrics::new(&["db".into()], Build::default()).unwrap();
    values(&metrics.expose().unwrap())
}

/// The page with the present catalogue in it.
fn renewed(page: &str, (entries, values): (&[Entry], &Values)) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let (metrics, labels) = (table(entries), values_table(values));
    Some(format!("{before}{BEGIN}\n{metrics}\n### Labels\n\n{labels}\n{END}{after}"))
}

#[test]
fn the_page_of_metrics_is_the_catalogue() {
    let page = source::read(PAGE);
    let renewed = renewed(&page, (CATALOGUE, &present_values())).unwrap();
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

/// What a text asks of metrics by their labels: metric, label and one value.
fn selected(text: &str) -> Vec<(String, String, String)> {
    let text = text.replace("\\\"", "\"");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("pgsteer_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let Some((labels, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            continue;
        };
        for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
            let value = value.trim_matches(['~', '"']);
            let each =
                value.split('|').map(|value| (name, label.trim().trim_end_matches('!'), value));
            found.extend(each.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        }
    }
    found
}

/// Those that no program ever has.
fn misspelt(text: &str, values: &Values) -> Vec<String> {
    let has = |(metric, label, value): &(String, String, String)| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let of = suffixes.into_iter().find_map(|suffix| metric.strip_suffix(suffix));
        let mut lists = values.iter().filter(|((own, _), _)| own == label);
        let open = [&OPEN[..], &["job", "instance"]].concat();
        let metric = of.unwrap_or(metric);
        open.contains(&label.as_str())
            || lists.any(|((_, all), metrics)| metrics.contains(metric) && all.contains(value))
    };
    let wrong = selected(text).into_iter().filter(|it| !has(it));
    wrong.map(|(metric, label, value)| format!("{metric} has no {label}={value:?}")).collect()
}

/// A panel or an alert that asks for a value that is never there is empty, and keeps silent.
#[test]
fn dashboards_and_alerts_ask_for_no_value_that_is_not_there() {
    let (values, mut seen) = (present_values(), 0);
    for file in source::files_beneath("").iter().filter(|file| {
        file.path.starts_with("grafana/dashboards") || file.path.starts_with("deploy/prometheus")
    }) {
        seen += selected(&file.text).len();
        let wrong = misspelt(&file.text, &values);
        assert!(wrong.is_empty(), "{}: {wrong:?}", file.path);
    }
    assert!(seen > 100, "{seen} were found");
    let wrong = r#"sum(pgsteer_errors_total{origin="proxie", job=~"$job"}) / pgsteer_epoch"#;
    assert_eq!(misspelt(wrong, &values), ["pgsteer_errors_total has no origin=\"proxie\""]);
}

fn is_page(path: &str) -> bool {
    source::is_page(path) || path.starts_with("grafana/")
}

#[test]
fn the_rule_of_metrics_bites() {
    let page = format!("Intro\n{BEGIN}old\n{END}Rest\n");
    let entry = Entry { name: "a_total", kind: Kind::Counter, labels: &["b"], help: "A rise" };
    let exposed =
        "# a_total\na_total{server=\"db\",b=\"x\"} 1\na_total{server=\"db\",b=\"y\"} NaN\n";
    let two = values(exposed);
    let new = renewed(&page, (&[entry], &two)).unwrap();
    assert!(new.contains("| `b` | `a_total` | `x`, `y` |"), "{new}");
    assert!(new.contains("| `a_total` | counter | `b` | A rise |") && !new.contains("old"));
    assert!(new.starts_with("Intro\n") && new.ends_with("Rest\n"));
    let other = values("a_total{b=\"x\"} 1\n");
    assert_ne!(renewed(&new, (&[entry], &other)), Some(new.clone()), "another list, another page");
    assert_ne!(renewed(&new, (&[], &two)), Some(new), "another catalogue, another page");
}
