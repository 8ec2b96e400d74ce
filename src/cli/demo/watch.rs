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
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

/// Pause between two glances.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the set until somebody asks to stop, or the proxy has ended.
pub(super) async fn until_stopped(
    stage: Stage,
    stop: &mut Stop,
    globals: &Globals,
) -> Result<Exit, Exit> {
    let stage = Arc::new(stage);
    let mut screen = Screen::default();
    let mut nurse = Nurse::default();
    while stage.proxy.is_running() {
        // A proxy that does not answer now may do so in a second; that it ended is seen above.
        let report = report(&stage);
        if let Some(report) = &report
            && globals.output == Output::Table
        {
            screen.show(report, &status::text(report, globals))?;
        }
        nurse.look(&stage, report.as_ref());
        if stop.within(PAUSE).await == Asked::Yes {
            say::talk("stopping");
            return Ok(Exit::Done);
        }
    }
    say::talk(&format!("error: pgsteer ended; its log says:\n{}", stage.proxy.log()));
    Err(Exit::Failed)
}

/// Brings servers back that somebody ended, as an operator would; only while another one is the
/// primary, so that their end can be watched first.
#[derive(Debug, Default)]
struct Nurse {
    /// How many looks in a row found a server ended, by its place.
    ended: BTreeMap<usize, u32>,
    patient: Option<tokio::task::JoinHandle<()>>,
}

/// Looks before a server is brought back.
const WATCHED: u32 = 5;

impl Nurse {
    fn look(&mut self, stage: &Arc<Stage>, report: Option<&StatusReport>) {
        let primary = report.and_then(|report| report.primary.as_deref());
        let mut servers = stage.cluster.servers().iter();
        let primary = servers.position(|server| Some(server.address().as_str()) == primary);
        for (at, server) in stage.cluster.servers().iter().enumerate() {
            if server.is_running() {
                self.ended.remove(&at);
                continue;
            }
            let looks = self.ended.entry(at).or_default();
            *looks = looks.saturating_add(1);
            let busy = self.patient.as_ref().is_some_and(|patient| !patient.is_finished());
            if *looks >= WATCHED
                && !busy
                && let Some(primary) = primary.filter(|primary| *primary != at)
            {
                let stage = Arc::clone(stage);
                self.patient =
                    Some(tokio::task::spawn_blocking(move || bring_back(&stage, at, primary)));
                return;
            }
        }
    }
}

fn bring_back(stage: &Stage, at: usize, primary: usize) {
    let servers = stage.cluster.servers();
    let (Some(server), Some(primary)) = (servers.get(at), servers.get(primary)) else { return };
    if let Err(error) = stage.cluster.rejoin(server, primary) {
        say::talk(&format!("{} could not be brought back: {error}", server.address()));
    }
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
