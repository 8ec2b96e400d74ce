//! How it stands with failover, in a few lines.

use crate::admin::{ChangeReport, FailoverReport};
use crate::cli::status::words::{moment, seconds};
use std::time::Duration;

/// What belongs at the foot of the status.
pub(super) fn lines(report: &FailoverReport) -> Vec<String> {
    let mut lines = vec![format!("  Failover  {}", standing(report))];
    lines.extend(report.last_change.iter().map(|last| format!("  Last      {}", change(last))));
    lines
}

/// What keeps pgsteer from doing what it was told to.
pub(super) fn problems(report: &FailoverReport) -> Vec<String> {
    if report.unavailable.is_some() {
        return Vec::new();
    }
    let lacking = report.lacking.iter();
    let lacking = lacking.map(|what| format!("failover is not armed: {what}"));
    lacking.chain(prepared(report)).collect()
}

/// Who ends these transactions only people know.
fn prepared(report: &FailoverReport) -> Vec<String> {
    let told = report.prepared.iter().take(PREPARED_MAX).map(|it| it.text.clone());
    let rest = report.prepared.len().saturating_sub(PREPARED_MAX);
    let rest = (rest > 0).then(|| format!("{rest} more prepared transactions wait like that"));
    told.chain(rest).collect()
}

/// Most prepared transactions that are told one by one; all are in the JSON.
const PREPARED_MAX: usize = 5;

fn standing(report: &FailoverReport) -> String {
    if let Some(why) = &report.unavailable {
        return format!("unavailable: {why}");
    }
    let armed = match (report.mode.as_str(), report.armed) {
        ("auto", true) => ", armed",
        ("auto", false) => ", not armed",
        (_, _) => "",
    };
    let promise = match (&report.promise, &report.promise_text) {
        (Some(promise), Some(words)) => format!("{promise}: {words}"),
        (_, _) => "no primary was recorded yet".to_owned(),
    };
    let phase = report.phase.as_deref().filter(|phase| *phase != "stable");
    let epoch = report.epoch.map_or_else(String::new, |epoch| format!(" (epoch {epoch})"));
    let now = match (phase, &report.why) {
        (Some(phase), Some(why)) => format!("; {phase}{epoch}: {why}"),
        (Some(phase), None) => format!("; {phase}{epoch}"),
        (None, Some(why)) => format!("; {why}"),
        (None, None) => String::new(),
    };
    format!("{}{armed}; {promise}{now}", report.mode)
}

/// A completed change in a line.
pub(in crate::cli::status) fn change(change: &ChangeReport) -> String {
    let ChangeReport { kind, by, from, to, loss, epoch, .. } = change;
    let from = from.as_deref().map_or_else(String::new, |from| format!("{from} -> "));
    let took = Duration::from_secs(change.ended.saturating_sub(change.began));
    let took = if took.is_zero() { "<1s".to_owned() } else { seconds(took.as_secs_f64()) };
    format!(
        "{}  {kind} {from}{to} by {by} in {took}, loss: {}, epoch {epoch}",
        moment(change.began),
        loss.text
    )
}
