//! `docs/monitoring.md` holds every word that the log has for an event.

use super::source;
use std::collections::BTreeSet;

const PAGE: &str = "docs/monitoring.md";
/// The table's words for levels; a row with another second column is no event's.
const LEVELS: [&str; 3] = ["error", "warn", "info"];
/// What stands before an event's word, in a log line and where lines are put together.
const MARKS: [&str; 5] =
    ["event = \"", "event: \"", "(Level::Info, \"", "(Level::Warn, \"", "(Level::Error, \""];

/// The words in Rust source.
fn logged(text: &str) -> BTreeSet<String> {
    let behind = |mark: &'static str| text.split(mark).skip(1);
    let words =
        MARKS.iter().flat_map(|mark| behind(mark)).filter_map(|rest| rest.split('"').next());
    words.map(str::to_owned).collect()
}

/// The words in the page's tables.
fn told(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let events = rows.filter(|(_, rest)| LEVELS.iter().any(|level| rest.starts_with(level)));
    events.map(|(word, _)| word.to_owned()).collect()
}

#[test]
fn every_event_of_the_log_is_documented() {
    let files = source::files_beneath("src");
    let logged: BTreeSet<String> = files.iter().flat_map(|file| logged(&file.text)).collect();
    let told = told(&source::read(PAGE));
    assert!(logged.len() > 20, "{logged:?}");
    assert_eq!(logged, told, "what the log says, and what {PAGE} does");
}

#[test]
fn the_rule_of_events_bites() {
    let source = "warn!(event = \"leak\", 1); (Level::Warn, \"reads_off\", text) \"other\"";
    assert_eq!(logged(source), ["leak", "reads_off"].map(str::to_owned).into());
    let page = "| `event` | level |\n|---|---|\n| `leak` | warn | x |\n| `/livez` | each | y |\n";
    assert_eq!(told(page), ["leak".to_owned()].into());
}
