//! The servers at a glance, again and again.

use crate::cli::args::Globals;
use crate::cli::args::Output;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::stop::Asked;
use crate::cli::demo::stop::Stop;
use crate::cli::exit::Exit;
use crate::cli::say;
use crate::sandbox::Server;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Pause between two glances.
const PAUSE: Duration = Duration::from_secs(1);
/// Moves the cursor up so many lines, and clears what is below.
const REDRAW: (&str, &str) = ("\u{1b}[", "A\u{1b}[J");

/// Shows the servers until somebody asks to stop, or the proxy has ended.
pub(super) async fn until_stopped(
    stage: &Stage,
    stop: &mut Stop,
    globals: &Globals,
) -> Result<Exit, Exit> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut shown = String::new();
    while stage.proxy.is_running() {
        if globals.output == Output::Table {
            let lines = table(stage);
            if is_terminal {
                let up = shown.lines().count();
                let redraw =
                    if up == 0 { String::new() } else { format!("{}{up}{}", REDRAW.0, REDRAW.1) };
                say::data(&format!("{redraw}{lines}"))?;
            } else if roles(&lines) != roles(&shown) {
                // A log gets a table when a server changed its role or its state, and no more.
                say::data(&lines)?;
            }
            shown = lines;
        }
        if stop.within(PAUSE).await == Asked::Yes {
            say::talk("stopping");
            return Ok(Exit::Done);
        }
    }
    say::talk(&format!("error: pgsteer ended; its log says:\n{}", stage.proxy.log()));
    Err(Exit::Failed)
}

/// One line a server.
fn table(stage: &Stage) -> String {
    let head = format!("  {:<10}{:<18}{:<10}{:>16}\n", "SERVER", "ADDRESS", "ROLE", "REPLAY LAG");
    let flushed = stage.cluster.servers().iter().find_map(flushed);
    let line = |server: &Server| {
        let (role, lag) = state(server, flushed.as_deref());
        format!("  {:<10}{:<18}{role:<10}{lag:>16}\n", server.name(), server.address())
    };
    let lines: Vec<String> = stage.cluster.servers().iter().map(line).collect();
    format!("{head}{}", lines.concat())
}

/// The columns that matter when they change.
fn roles(table: &str) -> Vec<&str> {
    table.lines().filter_map(|line| line.split_whitespace().nth(2)).collect()
}

/// How far the primary has written, if this is it.
fn flushed(server: &Server) -> Option<String> {
    server.value("SELECT pg_current_wal_flush_lsn() WHERE NOT pg_is_in_recovery()").ok()
}

/// A server's role and, of a standby, how many bytes it has yet to replay.
fn state(server: &Server, flushed: Option<&str>) -> (&'static str, String) {
    match (server.is_standby(), flushed) {
        (Err(_), _) => ("down", "-".to_owned()),
        (Ok(false), _) => ("primary", "-".to_owned()),
        (Ok(true), None) => ("standby", "unknown".to_owned()),
        (Ok(true), Some(flushed)) => {
            let behind = format!(
                "SELECT greatest(0, pg_wal_lsn_diff('{flushed}', pg_last_wal_replay_lsn()))"
            );
            let bytes = server.value(&behind);
            ("standby", bytes.map_or_else(|_| "unknown".to_owned(), |bytes| format!("{bytes} B")))
        }
    }
}
