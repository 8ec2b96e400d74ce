//! The status as text: pure, so that every line of it can be pinned.

pub(super) mod failover;
mod table;

use crate::admin::{ServerReport, State, StatusReport};
use crate::cli::say::Color;
use crate::cli::status::tree::tree;
use crate::cli::status::words::{bytes, percent, seconds};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How it is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub color: Color,
    pub glyphs: Glyphs,
    /// The terminal's; `None` where there is none: no line is too long there.
    pub columns: Option<usize>,
}

/// Which signs the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glyphs {
    Unicode,
    Ascii,
}

/// Whether others of the same parent follow below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twig {
    Inner,
    Last,
}

/// How the set is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Every server does what it should.
    Healthy,
    /// Writes are taken, but something is wrong.
    Degraded,
    /// No server takes writes.
    NoPrimary,
}

/// How a server is; each has a sign of its own shape, not only of its own colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Resting,
    Warning,
    Bad,
}

/// The SGR codes.
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

/// The whole screen.
pub(super) fn render(report: &StatusReport, style: Style) -> String {
    let mut lines = vec![title(report, style), String::new()];
    lines.extend(table::table(&tree(report, style.glyphs), style));
    let problems: Vec<_> = problems(report, style);
    if !problems.is_empty() {
        lines.push(String::new());
        lines.extend(problems.iter().map(|line| style.fold(line, "    ")));
    }
    lines.extend(rejoins(report));
    lines.push(String::new());
    lines.extend(foot(report).iter().map(|line| style.fold(line, "            ")));
    lines.push(String::new());
    lines.join("\n")
}

impl Health {
    /// The worst of what is seen.
    pub(super) fn of(report: &StatusReport) -> Self {
        let fine = report.servers.iter().all(|server| match mark(server.state) {
            Mark::Good | Mark::Resting => true,
            Mark::Warning | Mark::Bad => false,
        });
        let fine = fine && failover::problems(&report.failover).is_empty();
        match (&report.primary, fine) {
            (None, _) => Self::NoPrimary,
            (Some(_), true) => Self::Healthy,
            (Some(_), false) => Self::Degraded,
        }
    }

    const fn mark(self) -> Mark {
        match self {
            Self::Healthy => Mark::Good,
            Self::Degraded => Mark::Warning,
            Self::NoPrimary => Mark::Bad,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::NoPrimary => "no writes",
        }
    }
}

impl Glyphs {
    /// The branch before a follower, and the trunk before what follows that one.
    pub(super) const fn branch(self, twig: Twig) -> (&'static str, &'static str) {
        match (self, twig) {
            (Self::Unicode, Twig::Inner) => ("├─", "│ "),
            (Self::Unicode, Twig::Last) => ("└─", "  "),
            (Self::Ascii, Twig::Inner) => ("|-", "| "),
            (Self::Ascii, Twig::Last) => ("`-", "  "),
        }
    }

    const fn mark(self, mark: Mark) -> &'static str {
        match (self, mark) {
            (Self::Unicode, Mark::Good) => "●",
            (Self::Unicode, Mark::Resting) => "○",
            (Self::Unicode, Mark::Warning) => "▲",
            (Self::Unicode, Mark::Bad) => "✗",
            (Self::Ascii, Mark::Good) => "*",
            (Self::Ascii, Mark::Resting) => "o",
            (Self::Ascii, Mark::Warning) => "!",
            (Self::Ascii, Mark::Bad) => "x",
        }
    }

    /// Stands for what was left out.
    const fn gap(self) -> char {
        match self {
            Self::Unicode => '…',
            Self::Ascii => '~',
        }
    }

    const fn dot(self) -> &'static str {
        match self {
            Self::Unicode => " · ",
            Self::Ascii => " - ",
        }
    }
}

impl Style {
    fn mark(self, mark: Mark) -> String {
        let sign = self.glyphs.mark(mark);
        match mark {
            Mark::Good => self.color.bold(GREEN, sign),
            Mark::Resting => sign.to_owned(),
            Mark::Warning => self.color.bold(YELLOW, sign),
            Mark::Bad => self.color.bold(RED, sign),
        }
    }

    /// A line, over as many lines of the terminal as it needs; all but the first begin so.
    fn fold(self, line: &str, indent: &str) -> String {
        let Some(columns) = self.columns else { return line.to_owned() };
        let options = textwrap::Options::new(columns)
            .subsequent_indent(indent)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        textwrap::fill(line, options)
    }
}

const fn mark(state: State) -> Mark {
    match state {
        State::Writable | State::Streaming | State::Cascading | State::Serving => Mark::Good,
        State::Drained => Mark::Resting,
        State::Lagging | State::Unmeasured => Mark::Warning,
        State::Diverged | State::Unrelated | State::Cordoned | State::Stranger | State::Down => {
            Mark::Bad
        }
    }
}

/// Who it is, and how it is; without the system's number where there is no room for it.
fn title(report: &StatusReport, style: Style) -> String {
    let health = Health::of(report);
    let postgres = report.postgres.iter().map(|version| format!("PostgreSQL {version}"));
    let system = report.system.iter().map(|system| format!("system {system}"));
    let own = format!("pgsteer {}, up {}", report.version, seconds(report.uptime_seconds));
    let whole = |parts: Vec<String>| {
        let mark = style.mark(health.mark());
        format!("{}   {mark} {}", parts.join(style.glyphs.dot()), health.word())
    };
    let long = whole(postgres.clone().chain(system).chain([own.clone()]).collect());
    let room = style.columns.unwrap_or(usize::MAX);
    if textwrap::core::display_width(&long) <= room {
        return long;
    }
    style.fold(&whole(postgres.chain([own]).collect()), "")
}

fn state(server: &ServerReport) -> String {
    let word = match server.state {
        State::Writable => "writable",
        State::Streaming => "streaming",
        State::Cascading => "cascading",
        State::Serving => "serving",
        State::Lagging => "lagging",
        State::Unmeasured => "lag unknown",
        State::Drained => "weight 0",
        State::Diverged => "diverged",
        State::Unrelated => "history?",
        State::Cordoned => "cordoned",
        State::Stranger => "other system",
        State::Down => {
            let since = server.unseen_seconds.map(|time| format!("down {}", seconds(time)));
            return since.unwrap_or_else(|| "down".to_owned());
        }
    };
    word.to_owned()
}

/// What is wrong, the limit, and the setting that sets it.
fn problems(report: &StatusReport, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    if report.primary.is_none() {
        let why = report.no_primary.as_deref().unwrap_or("unknown");
        let text =
            format!("no server takes writes: {why}. Writes wait (routing.hold_max), then fail");
        lines.push(format!("  {} {text}.", style.mark(Mark::Bad)));
    }
    for server in &report.servers {
        if let Some(text) = problem(server, report) {
            let mark = style.mark(mark(server.state));
            lines.push(format!("  {mark} {} {text}.", server.name));
        }
    }
    for text in failover::problems(&report.failover) {
        lines.push(format!("  {} {text}.", style.mark(Mark::Warning)));
    }
    lines
}

fn problem(server: &ServerReport, report: &StatusReport) -> Option<String> {
    let timeline = || server.timeline.map_or_else(|| "?".to_owned(), |t| t.to_string());
    let text = match server.state {
        State::Writable | State::Streaming | State::Cascading | State::Serving => return None,
        State::Drained => "gets no reads: its weight is 0 (servers.overrides)".to_owned(),
        State::Lagging => format!("gets no reads: {}", behind(server, report)),
        State::Unmeasured => "gets no reads until its lag is known".to_owned(),
        State::Diverged => format!(
            "gets no reads: its log on timeline {} holds what the primary's never will. {}",
            timeline(),
            if is_same_number(server, report) {
                "Copy it anew with pg_basebackup"
            } else {
                "Rewind it with pg_rewind"
            }
        ),
        State::Unrelated if server.timeline.is_none() => "gets no reads: its timeline can't be \
             seen. Give the control user (servers.user) REPLICATION or pg_monitor"
            .to_owned(),
        State::Unrelated => format!(
            "gets no reads: how its timeline {} relates to the primary's is not known",
            timeline()
        ),
        State::Cordoned => format!(
            "says that it is a primary, on timeline {}, and gets no statements: it is not the \
             adopted one. Stop it, or {}",
            timeline(),
            if is_same_number(server, report) {
                "copy the primary anew with pg_basebackup"
            } else {
                "rewind it with pg_rewind"
            }
        ),
        State::Stranger => {
            "gets no statements: it belongs to another system. Remove it (servers.hosts)".to_owned()
        }
        State::Down => server.unseen.clone().unwrap_or_else(|| "does not answer".to_owned()),
    };
    Some(text)
}

/// Whether its timeline has the number of the primary's, whose branch it is not on: `pg_rewind`
/// would take the two for one.
fn is_same_number(server: &ServerReport, report: &StatusReport) -> bool {
    let mut servers = report.servers.iter();
    let primary = servers.find(|other| Some(&other.name) == report.primary.as_ref());
    server.timeline.is_some() && primary.is_some_and(|primary| primary.timeline == server.timeline)
}

/// What makes servers follow the primary again. Nothing of it is folded: it is to be copied.
fn rejoins(report: &StatusReport) -> Vec<String> {
    let lost = report.servers.iter().filter(|server| !server.rejoin.is_empty());
    let told = |server: &ServerReport| {
        let head = [String::new(), format!("  To make {} follow again, for a shell:", server.name)];
        let commands = server.rejoin.iter().map(|command| format!("    {command}"));
        head.into_iter().chain(commands).collect::<Vec<_>>()
    };
    lost.flat_map(told).collect()
}

/// How far a server is behind, beside the limits that it is past.
fn behind(server: &ServerReport, report: &StatusReport) -> String {
    let time = server.lag_seconds.zip(report.max_lag.seconds).filter(|(lag, limit)| lag > limit);
    let size = server.lag_bytes.zip(report.max_lag.bytes).filter(|(lag, limit)| lag > limit);
    let time = time.map(|(lag, limit)| {
        format!("{} behind, limit {} (routing.max_lag.time)", seconds(lag), seconds(limit))
    });
    let size = size.map(|(lag, limit)| {
        format!("{} behind, limit {} (routing.max_lag.bytes)", bytes(lag), bytes(limit))
    });
    let reasons: Vec<_> = time.into_iter().chain(size).collect();
    if reasons.is_empty() {
        "too far behind (routing.max_lag)".to_owned()
    } else {
        reasons.join("; ")
    }
}

fn foot(report: &StatusReport) -> Vec<String> {
    let clients = report.clients;
    let reads = report.reads;
    let share = percent(reads.on_standbys, reads.on_standbys + reads.on_primary);
    let share =
        share.map_or_else(|| "none yet".to_owned(), |share| format!("{share}% on standbys"));
    let mut lines = vec![
        format!(
            "  Clients   {} connected, {} active, {} waiting",
            clients.connected, clients.active, clients.waiting
        ),
        format!(
            "  Reads     {share}; {} kept from being stale; consistency {}",
            reads.stale_prevented, report.consistency
        ),
    ];
    lines.extend(pinned(report));
    lines.extend(failover::lines(&report.failover));
    lines
}

/// Who keeps backends, and why: those with the most first.
fn pinned(report: &StatusReport) -> Option<String> {
    let pinned = &report.pinned;
    let mut groups: BTreeMap<(&str, &str), (usize, f64)> = BTreeMap::new();
    for session in &pinned.oldest {
        let group = groups.entry((&session.application, &session.because)).or_default();
        *group = (group.0 + 1, group.1.max(session.seconds));
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (count, _))| Reverse(*count));
    let told = groups.iter().take(PINNED_MAX).map(|((application, because), (count, longest))| {
        let application = if application.is_empty() { "(no name)" } else { application };
        format!("{count} of {application} for {because}, the longest {}", seconds(*longest))
    });
    let told: Vec<_> = told.collect();
    let keep = if pinned.count == 1 {
        "session keeps its backend"
    } else {
        "sessions keep their backends"
    };
    (!told.is_empty()).then(|| format!("  Pinned    {} {keep}: {}", pinned.count, told.join("; ")))
}

/// Most groups of pinned sessions that are told.
const PINNED_MAX: usize = 5;

#[cfg(test)]
mod tests;
