//! The set at a glance, again and again: what `pgsteer status` shows.

use crate::admin::StatusReport;
use crate::cli::args::Globals;
use crate::cli::args::Output;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::stop::Asked;
use crate::cli::demo::stop::Stop;
use crate::cli::exit::Exit;
use crate::cli::say;
use crate::cli::status;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Pause between two glances.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the set until somebody asks to stop, or the proxy has ended.
pub(super) async fn until_stopped(
    stage: &Stage,
    stop: &mut Stop,
    globals: &Globals,
) -> Result<Exit, Exit> {
    let mut screen = Screen::default();
    while stage.proxy.is_running() {
        // A proxy that does not answer now may do so in a second; that it ended is seen above.
        if globals.output == Output::Table
            && let Some(report) = report(stage)
        {
            screen.show(&report, &status::text(&report, globals))?;
        }
        if stop.within(PAUSE).await == Asked::Yes {
            say::talk("stopping");
            return Ok(Exit::Done);
        }
    }
    say::talk(&format!("error: pgsteer ended; its log says:\n{}", stage.proxy.log()));
    Err(Exit::Failed)
}

/// What the proxy says of the set now.
fn report(stage: &Stage) -> Option<StatusReport> {
    let answer = stage.proxy.get("/status").ok().filter(|answer| answer.status == 200)?;
    serde_json::from_str(&answer.body).ok()
}

/// What was shown last.
#[derive(Debug, Default)]
struct Screen {
    lines: usize,
    states: Vec<State>,
}

/// What matters of a server when it changes: its name, its role, whether it gets reads.
type State = (String, Option<String>, bool);

impl Screen {
    /// On a terminal the text takes the place of the last one. Anywhere else it is shown when a
    /// server changed its role or its fitness, so that a log holds what happened and no more.
    fn show(&mut self, report: &StatusReport, text: &str) -> Result<(), Exit> {
        let servers = report.servers.iter();
        let states: Vec<State> = servers
            .map(|server| (server.name.clone(), server.role.clone(), server.reads))
            .collect();
        if std::io::stdout().is_terminal() {
            // Up to where the last text began, and clear from there on.
            let back = match self.lines {
                0 => String::new(),
                lines => format!("\u{1b}[{lines}A\u{1b}[J"),
            };
            say::data(&format!("{back}{text}"))?;
        } else if states != self.states {
            say::data(text)?;
        }
        self.lines = text.lines().count();
        self.states = states;
        Ok(())
    }
}
