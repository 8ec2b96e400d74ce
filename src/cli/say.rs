//! Data to standard output, talk to standard error; neither panics when nobody listens.

use crate::cli::exit::Exit;
use crate::config::Report;
use crate::config::Severity;
use std::io::ErrorKind;
use std::io::IsTerminal;
use std::io::Write as _;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorWish {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether a stream gets colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// It does.
    On,
    /// It does not.
    Off,
}

impl ColorWish {
    /// For standard output.
    pub fn for_stdout(self) -> Color {
        self.for_stream(&std::io::stdout())
    }

    /// For standard error.
    pub fn for_stderr(self) -> Color {
        self.for_stream(&std::io::stderr())
    }

    /// The flag, then `NO_COLOR` (no-color.org), then `CLICOLOR_FORCE`, then the terminal.
    fn for_stream(self, stream: &impl IsTerminal) -> Color {
        let set = |name: &str| {
            std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
        };
        let colored = match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR") => false,
            Self::Auto => set("CLICOLOR_FORCE") || stream.is_terminal(),
        };
        if colored { Color::On } else { Color::Off }
    }
}

impl Color {
    /// The text, in bold and this SGR colour (31 red, 33 yellow, 36 cyan).
    pub fn bold(self, sgr: u8, text: &str) -> String {
        match self {
            Self::On => format!("\u{1b}[1;{sgr}m{text}\u{1b}[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

/// Prints data. Where that fails the command is over, quietly if its reader has left.
///
/// # Errors
/// How the command ends then.
pub fn data(text: &str) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe { Exit::BrokenPipe } else { Exit::Failed }
    })
}

/// Says something to whoever looks; that nobody does is no failure.
pub fn talk(text: &str) {
    let mut out = std::io::stderr().lock();
    drop(writeln!(out, "{}", text.trim_end()));
}

/// Says what is wrong with a configuration.
pub fn report(report: &Report, color: Color) {
    let paint = |line: &str| {
        let sgr = [(Severity::Error, 31), (Severity::Warning, 33)];
        for (severity, sgr) in sgr {
            let word = severity.as_str();
            if let Some(rest) = line.strip_prefix(word).filter(|rest| rest.starts_with(':')) {
                return format!("{}{rest}", color.bold(sgr, word));
            }
        }
        line.to_owned()
    };
    let text: Vec<String> = report.to_string().lines().map(paint).collect();
    if !text.is_empty() {
        talk(&text.join("\n"));
    }
}
