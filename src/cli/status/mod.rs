//! `pgsteer status`: the servers as a tree, what is wrong and which setting says so, the clients.
//!
//! The running proxy is asked over HTTP; `render` turns its answer into text and knows no
//! terminal.

mod render;
mod tree;
mod words;

use crate::admin::{ChangeReport, StatusReport};
use crate::cli::args::Globals;
use crate::cli::args::Output;
use crate::cli::ask;
use crate::cli::ask::Answer;
use crate::cli::ask::Question;
use crate::cli::exit::Exit;
use crate::cli::load;
use crate::cli::office;
use crate::cli::say;
use render::Glyphs;
use render::Health;
use render::Style;
use std::time::Duration;

/// Longest wait for the proxy's answer.
const WAIT: Duration = Duration::from_secs(5);

/// `pgsteer status ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with 3 if anything is wrong
    #[arg(long)]
    pub check: bool,
}

/// Asks, and prints the answer.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Exit> {
    let request = load::request(globals)?;
    let question = Question::get("/status");
    let answer = ask::address(&request).and_then(|address| ask::ask(address, question, WAIT));
    let body = match answer {
        Ok(Answer { status: 200, body }) => body,
        Ok(Answer { status, body }) => {
            say::talk(&format!("error: the proxy answered {status}: {}", body.trim()));
            return Err(Exit::Failed);
        }
        Err(error) => return Err(office::failed(&error, globals.color.for_stderr())),
    };
    let report: StatusReport = serde_json::from_str(&body).map_err(|error| {
        say::talk(&format!("error: the answer is not a status: {error}"));
        Exit::Failed
    })?;
    let shown = match globals.output {
        Output::Json => format!("{}\n", body.trim_end()),
        Output::Table => text(&report, globals),
    };
    say::data(&shown)?;
    let degraded = args.check && Health::of(&report) != Health::Healthy;
    Ok(if degraded { Exit::Degraded } else { Exit::Done })
}

/// The report for people, as this standard output can show it.
pub(super) fn text(report: &StatusReport, globals: &Globals) -> String {
    let columns = terminal_size::terminal_size_of(std::io::stdout());
    let columns = columns.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0);
    render::render(report, Style { color: globals.color.for_stdout(), glyphs: glyphs(), columns })
}

/// A completed change of primary in a line.
pub(super) fn change(change: &ChangeReport) -> String {
    render::failover::change(change)
}

/// Lines and dots where the locale can show them: the first variable that is set decides.
fn glyphs() -> Glyphs {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name));
    let folded = locale.unwrap_or_default().to_ascii_lowercase();
    if folded.contains("utf-8") || folded.contains("utf8") {
        Glyphs::Unicode
    } else {
        Glyphs::Ascii
    }
}
