//! What is wrong with a configuration, and how it is told.
//!
//! Every problem is collected before any is shown, so that one run shows them all; each points
//! at the text that caused it and says what to write instead.
//!
//! Invariants:
//! - A secret is never shown: neither its value, nor the line of the file that holds it.
//! - What is shown is one line a line: control characters of the file never reach a terminal.
//! - At most [`MOST`] problems are kept, whatever the file.

use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

/// The most problems that are kept; a file with more is not a configuration file.
const MOST: usize = 100;

/// What helps where a file that is named can't be read.
pub(super) const NAME_A_FILE: &str =
    "name a file that is there, and that the user who runs pgsteer may read";

/// The widest source line that is shown.
const WIDEST: usize = 160;

/// Whether a problem stops us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

impl Severity {
    /// The word for users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Where a value, or a problem, comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// These bytes of the file.
    File { start: usize, end: usize },
    /// This variable of the environment.
    Env(Arc<str>),
    /// This flag of the command line.
    Flag(Arc<str>),
    /// Nowhere: something is missing.
    Nowhere,
}

impl Place {
    pub(super) const fn file(span: &Range<usize>) -> Self {
        Self::File { start: span.start, end: span.end }
    }
}

/// One thing that is wrong, before its place has a line and a column.
#[derive(Debug)]
struct Note {
    severity: Severity,
    place: Place,
    message: String,
    help: Option<String>,
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: Vec<Note>,
    left_out: usize,
}

impl Notes {
    /// Notes an error; `help` says what to write instead, or is empty.
    pub(super) fn error(&mut self, place: &Place, message: String, help: impl Into<String>) {
        self.add(Severity::Error, place, message, help.into());
    }

    /// Notes something that is allowed, but hardly meant.
    pub(super) fn warning(&mut self, place: &Place, message: String, help: impl Into<String>) {
        self.add(Severity::Warning, place, message, help.into());
    }

    fn add(&mut self, severity: Severity, place: &Place, message: String, help: String) {
        if self.notes.len() >= MOST {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let help = Some(help).filter(|help| !help.is_empty());
        self.notes.push(Note { severity, place: place.clone(), message, help });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.notes.iter().any(|note| note.severity == Severity::Error)
    }

    /// Gives every problem its line, sorts by place, and forgets the file.
    pub(super) fn report(mut self, file: Option<&SourceFile>) -> Report {
        self.notes.sort_by(|a, b| a.place.cmp(&b.place).then(a.severity.cmp(&b.severity)));
        self.notes.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        let left_out = self.left_out;
        let problems = self.notes.into_iter().map(|note| Problem::locate(note, file)).collect();
        Report { problems, left_out }
    }
}

/// The file as it was read. No `Debug`: it may hold secrets.
pub(super) struct SourceFile {
    /// As the user named it.
    pub(super) path: String,
    /// Its whole text.
    pub(super) text: String,
}

impl SourceFile {
    /// Line (from 1), column in characters (from 1) and the line's bytes of an offset.
    fn locate(&self, offset: usize) -> (usize, usize, Range<usize>) {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let (before, after) = self.text.split_at(offset);
        let start = before.rfind('\n').map_or(0, |newline| newline.saturating_add(1));
        let length = after.find('\n').unwrap_or(after.len());
        let line = before.matches('\n').count().saturating_add(1);
        let column = self.text.get(start..offset).unwrap_or("").chars().count().saturating_add(1);
        (line, column, start..offset.saturating_add(length))
    }

    /// The line of an offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.locate(offset).0
    }
}

/// One thing that is wrong, ready to be told.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// `error` or `warning`.
    pub severity: Severity,
    /// The file, the environment variable, or the flag; `None` if something is missing.
    pub source: Option<String>,
    /// Line of the file, from 1.
    pub line: Option<usize>,
    /// Column of the line in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The source line, and the range of its characters that is meant.
    #[serde(skip)]
    excerpt: Option<(String, Range<usize>)>,
}

impl Problem {
    /// Place, message and help on one line, for a log.
    pub fn one_line(&self) -> String {
        let place = match (&self.source, self.line, self.column) {
            (Some(source), Some(line), Some(column)) => format!("{source}:{line}:{column}: "),
            (Some(source), _, _) => format!("{source}: "),
            (None, _, _) => String::new(),
        };
        let help = self.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
        format!("{place}{}{help}", self.message)
    }

    fn locate(note: Note, file: Option<&SourceFile>) -> Self {
        let mut problem = Self {
            severity: note.severity,
            source: None,
            line: None,
            column: None,
            message: plain(&note.message),
            help: note.help.as_deref().map(plain),
            excerpt: None,
        };
        match note.place {
            Place::File { start, end } => {
                if let Some(file) = file {
                    let (line, column, bytes) = file.locate(start);
                    problem.source = Some(file.path.clone());
                    problem.line = Some(line);
                    problem.column = Some(column);
                    problem.excerpt = excerpt(file, bytes, start..end);
                }
            }
            Place::Env(name) => problem.source = Some(format!("environment {name}")),
            Place::Flag(name) => problem.source = Some(name.to_string()),
            Place::Nowhere => {}
        }
        problem
    }
}

/// The shown form of a line and the characters in it that `span` means.
fn excerpt(
    file: &SourceFile,
    line: Range<usize>,
    span: Range<usize>,
) -> Option<(String, Range<usize>)> {
    let text = file.text.get(line.clone())?;
    let start = file.text.get(line.start..span.start).map_or(0, |before| before.chars().count());
    let end = span.end.clamp(span.start, line.end.max(span.start));
    let width = file.text.get(span.start..end).map_or(1, |meant| meant.trim_end().chars().count());
    let shown: String = plain(&masked(&file.text, &line, text)).chars().take(WIDEST).collect();
    let length = shown.chars().count();
    let start = start.min(length);
    let end = start.saturating_add(width.max(1)).min(length.max(start.saturating_add(1)));
    Some((shown, start..end))
}

/// The line without what may be a secret in it.
fn masked(text: &str, line: &Range<usize>, shown: &str) -> String {
    if inside_a_secret(text.get(..line.start).unwrap_or("")) {
        return "***".to_owned();
    }
    let Some(word) = secret_word(shown) else {
        return mask_uri(shown);
    };
    let (before, after) = shown.split_at(word);
    match after.split_once('=') {
        Some((name, _)) => format!("{}{name}= ***", mask_uri(before)),
        None => "***".to_owned(),
    }
}

/// Where a word stands that announces a secret.
fn secret_word(text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    ["pass", "secret", "pwd"].iter().filter_map(|word| text.find(word)).min()
}

/// Whether `before` ends within a secret's value that goes on on the next line.
fn inside_a_secret(before: &str) -> bool {
    let mut open = None;
    for line in before.lines() {
        open = match open {
            Some(end) if !line.contains(end) => Some(end),
            Some(_) => None,
            None => secret_word(line).and_then(|word| opened(line.get(word..)?.split_once('=')?.1)),
        };
    }
    open.is_some()
}

/// What will end the value that begins on this line, if it does not end there.
fn opened(value: &str) -> Option<&'static str> {
    if value.trim().is_empty() {
        return Some("\n");
    }
    ["\"\"\"", "'''"].into_iter().find(|quotes| value.matches(quotes).count() % 2 == 1)
}

/// `postgresql://user:***@host`: a text without the passwords of the URIs in it.
pub(super) fn mask_uri(text: &str) -> String {
    let Some((before, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['"', '\'', ' ', '\t']).unwrap_or(rest.len());
    let (uri, after) = rest.split_at(end);
    // A password may hold any sign unescaped by mistake, so the last `@` counts.
    let (user, host) = uri.rsplit_once('@').map_or(("", uri), |(user, host)| (user, host));
    let user = match user.split_once(':') {
        Some((user, _)) => format!("{user}:***@"),
        None if user.is_empty() => String::new(),
        None => format!("{user}@"),
    };
    let host = host
        .split_once("password=")
        .map_or_else(|| host.to_owned(), |(host, _)| format!("{host}password=***"));
    format!("{before}://{user}{host}{}", mask_uri(after))
}

/// A text on one line, without signs that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|sign| match sign {
            '\t' => ' ',
            sign if sign.is_control() => '\u{fffd}',
            sign => sign,
        })
        .collect()
}

/// Everything that is wrong, sorted by place: the file first, then environment, then flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Problem>,
    left_out: usize,
}

impl Report {
    /// The problems, sorted.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether one of them stops us.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// A report of one problem that has no place in a file.
    pub fn of(source: &str, message: &str, help: &str) -> Self {
        let problem = Problem {
            severity: Severity::Error,
            source: Some(source.to_owned()).filter(|source| !source.is_empty()),
            line: None,
            column: None,
            message: plain(message),
            help: Some(help.to_owned()).filter(|help| !help.is_empty()),
            excerpt: None,
        };
        Self { problems: vec![problem], left_out: 0 }
    }

    /// This one, and then another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.left_out = self.left_out.saturating_add(other.left_out);
        self
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        if self.left_out > 0 {
            shown.push(format!("... and {} more\n", self.left_out));
        }
        out.write_str(shown.join("\n").trim_end())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.severity.as_str())?;
        if let Some(source) = &self.source {
            out.write_str(source)?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(out, ":{line}:{column}")?;
            }
            out.write_str(": ")?;
        }
        writeln!(out, "{}", self.message)?;
        let margin = self.line.map_or(0, |line| line.to_string().len());
        if let (Some(line), Some((text, meant))) = (self.line, &self.excerpt) {
            writeln!(out, " {line} | {}", text.trim_end())?;
            let mut carets = String::new();
            for _ in 0..meant.start {
                carets.push(' ');
            }
            for _ in meant.clone() {
                carets.push('^');
            }
            writeln!(out, " {:margin$} | {carets}", "")?;
        }
        if let Some(help) = &self.help {
            let mut line = String::new();
            write!(line, " {:margin$} = help: {help}", "")?;
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
