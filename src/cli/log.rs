//! The log: one event a line, to standard error; fields, not sentences with values in them.

use crate::cli::say;
use crate::cli::say::Color;
use crate::config::LogFormat;
use crate::config::LogLevel;
use crate::metrics::LineLevel;
use crate::metrics::count_log_line;
use std::fmt;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    if subscriber(log, std::io::stderr).try_init().is_err() {
        tracing::debug!("the log was set up before");
    }
}

/// What turns events into lines.
fn subscriber<W>(log: &Log<'_>, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A log that cannot be written must not end the process: no complaint on standard error.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter(log)).with(Counted);
    match log.format {
        LogFormat::Text => {
            let fields = debug_fn(one_field).delimited(" ");
            let lines = lines.with_ansi(log.color == Color::On).fmt_fields(fields);
            Box::new(registry.with(lines))
        }
        LogFormat::Json => Box::new(registry.with(lines.json().flatten_event(true))),
    }
}

/// Counts the lines, for the metrics.
struct Counted;

impl<S: Subscriber> Layer<S> for Counted {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        count_log_line(match *event.metadata().level() {
            Level::ERROR => LineLevel::Error,
            Level::WARN => LineLevel::Warn,
            Level::INFO => LineLevel::Info,
            Level::DEBUG => LineLevel::Debug,
            Level::TRACE => LineLevel::Trace,
        });
    }
}

/// Writes a field without control characters, whoever chose its value: a user name with a line
/// break in it must not make a line of its own.
fn one_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(out, "{}=", field.name())?;
    }
    for sign in format!("{value:?}").chars() {
        if sign.is_control() {
            write!(out, "{}", sign.escape_default())?;
        } else {
            out.write_char(sign)?;
        }
    }
    Ok(())
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
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::Mutex;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What two events look like, one of them with a text that tries to be a line of its own.
    fn logged(format: LogFormat) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = Log { format, level: LogLevel::Info, directives: None, color: Color::Off };
        let subscriber = subscriber(&log, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(server = "db1:5432", epoch = 3, "primary adopted");
            tracing::debug!("not shown");
            refuse("a\nb\u{1b}[31m");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn refuse(user: &str) {
        tracing::warn!(%user, "refused");
    }

    #[test]
    fn an_event_is_a_line_of_json_with_its_fields() {
        let text = logged(LogFormat::Json);

        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["message"], "primary adopted");
        assert_eq!(events[0]["server"], "db1:5432");
        assert_eq!(events[0]["epoch"], 3);
        assert_eq!(events[0]["level"], "INFO");
        assert_eq!(events[1]["user"], "a\nb\u{1b}[31m");
    }

    #[test]
    fn an_event_is_a_line_of_text() {
        let text = logged(LogFormat::Text);

        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.contains("primary adopted server=\"db1:5432\" epoch=3"), "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

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
