//! What the log says when the topology changes: each change once, in one line, with a stable
//! `event`.

use crate::control::finding::Finding;
use crate::topology::NoPrimary;
use crate::topology::Primary;
use crate::topology::Seen;
use crate::topology::Server;
use crate::topology::Topology;
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::{error, info, warn};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    level: Level,
    event: &'static str,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warn,
    Info,
}

/// Logs who is the primary, who answers and who serves reads, where that changed.
pub(crate) fn tell_changes(old: &Topology, new: &Topology) {
    primary(old, new).into_iter().for_each(Line::log);
    for (before, after) in old.servers.iter().zip(&new.servers) {
        seen(before, after).into_iter().for_each(Line::log);
        reads(before, after).into_iter().for_each(Line::log);
    }
}

/// Logs each finding when it appears and when it is gone.
pub(crate) fn tell_findings(old: &BTreeSet<Finding>, new: &BTreeSet<Finding>, names: &[Arc<str>]) {
    let appeared = new.difference(old).map(|finding| {
        let level = match finding {
            Finding::OtherSystem { .. } | Finding::Disputed { .. } => Level::Error,
            Finding::Rogue { .. } if finding.is_passing() => Level::Info,
            Finding::Rogue { .. }
            | Finding::Returned { .. }
            | Finding::LeftBehind { .. }
            | Finding::Unheld { .. } => Level::Warn,
        };
        Line { level, event: "finding", text: finding.text(names).to_string() }
    });
    let gone = old.difference(new).map(|finding| Line {
        level: Level::Info,
        event: "finding_gone",
        text: format!("no longer: {}", finding.text(names)),
    });
    appeared.chain(gone).for_each(Line::log);
}

fn primary(old: &Topology, new: &Topology) -> Option<Line> {
    let name = |id| new.server(id).map_or("?", |server| &*server.name);
    let (level, event, text) = match (old.primary, new.primary) {
        // As a rule that takes a few milliseconds; if not, it is told why.
        (_, Primary::None { why: NoPrimary::Unrecorded, .. }) => return None,
        (was, Primary::Open { server, timeline })
            if old.epoch != new.epoch || is_unrecorded(was) =>
        {
            let text = format!(
                "{} is the primary, on timeline {timeline}, epoch {}",
                name(server),
                new.epoch
            );
            (Level::Info, "primary_adopted", text)
        }
        (Primary::None { .. }, Primary::Open { server, .. }) => {
            (Level::Info, "primary_back", format!("{} takes writes again", name(server)))
        }
        (Primary::Open { server, .. }, Primary::None { why, .. }) => {
            let text = format!("no primary: {} ({})", why.as_str(), name(server));
            (Level::Warn, "primary_lost", text)
        }
        (Primary::None { why: was, .. }, Primary::None { why, .. }) if was != why => {
            (Level::Warn, "primary_lost", format!("no primary: {}", why.as_str()))
        }
        (Primary::Open { .. }, Primary::Open { .. })
        | (Primary::None { .. }, Primary::None { .. }) => return None,
    };
    Some(Line { level, event, text })
}

fn is_unrecorded(primary: Primary) -> bool {
    matches!(primary, Primary::None { why: NoPrimary::Unrecorded, .. })
}

fn seen(before: &Server, after: &Server) -> Option<Line> {
    let name = &after.name;
    let (level, event, text) = match (&before.seen, &after.seen) {
        (Seen::Answered(_), Seen::Not { why, .. }) => {
            let text = format!("{name} does not answer: {}", why.as_str());
            (Level::Warn, "server_unseen", text)
        }
        (Seen::Not { why: was, .. }, Seen::Not { why, .. }) if was != why => {
            let text = format!("{name} does not answer: {}", why.as_str());
            (Level::Info, "server_unseen", text)
        }
        (Seen::Not { .. }, Seen::Answered(seen)) => {
            let (role, version) = (seen.role.as_str(), seen.version);
            let text = format!("{name} answers: {role}, PostgreSQL {version}");
            (Level::Info, "server_seen", text)
        }
        (Seen::Answered(_), Seen::Answered(_)) | (Seen::Not { .. }, Seen::Not { .. }) => {
            return None;
        }
    };
    Some(Line { level, event, text })
}

fn reads(before: &Server, after: &Server) -> Option<Line> {
    let name = &after.name;
    let (level, event, text) = match (before.reads, after.reads) {
        (Err(_), Ok(())) => (Level::Info, "reads_on", format!("{name} serves reads")),
        (Ok(()), Err(why)) => {
            let text = format!("{name} serves no reads: {}", why.as_str());
            (Level::Warn, "reads_off", text)
        }
        (Err(_), Err(_)) | (Ok(()), Ok(())) => return None,
    };
    Some(Line { level, event, text })
}

impl Line {
    fn log(self) {
        match self.level {
            Level::Error => self.error(),
            Level::Warn => self.warn(),
            Level::Info => self.info(),
        }
    }

    fn error(self) {
        error!(event = self.event, "{}", self.text);
    }

    fn warn(self) {
        warn!(event = self.event, "{}", self.text);
    }

    fn info(self) {
        info!(event = self.event, "{}", self.text);
    }
}
