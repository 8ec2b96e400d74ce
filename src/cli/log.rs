//! The log: one event a line, to standard error; fields, not sentences with values in them.

use crate::cli::say;
use crate::cli::say::Color;
use crate::config::LogFormat;
use crate::config::LogLevel;
use tracing_subscriber::EnvFilter;

/// What the log looks like.
#[derive(Debug, Clone, Copy)]
pub struct Log<'l> {
    /// Its form.
    pub format: LogFormat,
    /// The least that is logged, unless `directives` say otherwise.
    pub level: LogLevel,
    /// `RUST_LOG`, where it counts.
    pub directives: Option<&'l str>,
    /// Whether it has colours (text only).
    pub color: Color,
}

/// Sets up the log of this process. A second call changes nothing.
pub fn start(log: &Log<'_>) {
    let filter = filter(log);
    // A log that cannot be written must not end the process: no complaint on standard error.
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let set = match log.format {
        LogFormat::Text => base.with_ansi(log.color == Color::On).try_init(),
        LogFormat::Json => base.json().flatten_event(true).try_init(),
    };
    if set.is_err() {
        tracing::debug!("the log was set up before");
    }
}

fn filter(log: &Log<'_>) -> EnvFilter {
    if let Some(directives) = log.directives {
        match EnvFilter::try_new(directives) {
            Ok(filter) => return filter,
            Err(error) => say::talk(&format!("warning: RUST_LOG is not understood: {error}")),
        }
    }
    // Of other crates only what matters: their debugging is not ours.
    let ours = log.level;
    let theirs = ours.min(LogLevel::Warn);
    EnvFilter::new(format!("{},pgsteer={}", theirs.as_str(), ours.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(level: LogLevel, directives: Option<&str>) -> String {
        filter(&Log { format: LogFormat::Text, level, directives, color: Color::Off }).to_string()
    }

    #[test]
    fn our_events_follow_the_level_and_others_stay_quiet() {
        assert_eq!(shown(LogLevel::Debug, None), "pgsteer=debug,warn");
        assert_eq!(shown(LogLevel::Error, None), "pgsteer=error,error");
    }

    #[test]
    fn directives_go_before_the_level_unless_they_make_no_sense() {
        assert_eq!(shown(LogLevel::Info, Some("pgsteer::pool=trace")), "pgsteer::pool=trace");
        assert_eq!(shown(LogLevel::Info, Some("=,=")), "pgsteer=info,warn");
    }
}
