//! `pgsteer demo`: throw-away servers with pgsteer in front of them, to play with.
//!
//! Everything is real: PostgreSQL's own programs, streaming replication, and this same binary as
//! the proxy. It ends with Ctrl-C; however it ends, nothing stays behind ([`crate::sandbox`]).

mod change;
mod lag;
mod rest;
mod stage;
mod stop;
mod watch;

use crate::cli::args::Globals;
use crate::cli::args::Output;
use crate::cli::demo::change::Event;
use crate::cli::demo::rest::Rest;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::stop::Asked;
use crate::cli::demo::stop::Stop;
use crate::cli::exit::Exit;
use crate::cli::say;
use std::path::PathBuf;
use std::time::Duration;

/// `pgsteer demo ...`
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Args {
    /// The directory of PostgreSQL's programs [default: wherever they are installed]
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    /// How many standbys
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=8))]
    pub standbys: u8,
    /// What is shown; nothing: the servers, until Ctrl-C
    #[command(subcommand)]
    pub scene: Option<Scene>,
}

/// What is shown.
#[derive(Debug, clap::Subcommand)]
pub enum Scene {
    /// A standby falls behind under writes, gets no reads, and comes back
    Lag {
        /// For how long it replays nothing
        #[arg(value_name = "DURATION", default_value = "30s", value_parser = crate::config::duration)]
        duration: Duration,
    },
    /// The primary is killed under writers and readers: what they saw of it
    Failover {
        /// How many write, and how many read
        #[arg(long, value_name = "N", default_value_t = 4)]
        #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
        clients: u8,
    },
    /// The primary hands over under writers and readers: what they saw of it
    Switchover {
        /// How many write, and how many read
        #[arg(long, value_name = "N", default_value_t = 4)]
        #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
        clients: u8,
    },
}

/// Builds it, shows it, takes it down.
///
/// # Errors
/// How the command ends if there is nothing to show.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| fail(&error))?;
    runtime.block_on(play(args, globals))
}

async fn play(args: &Args, globals: &Globals) -> Result<Exit, Exit> {
    // Until here a Ctrl-C simply ends us, and the sandbox's guard cleans up.
    let stage = Stage::set(args, globals)?;
    let mut stop = Stop::listen().map_err(|error| fail(&error))?;
    match &args.scene {
        None => {
            match globals.output {
                Output::Json => say::data(&format!("{}\n", stage.as_json()))?,
                Output::Table => say::data(&stage.welcome())?,
            }
            watch::until_stopped(stage, &mut stop, globals).await
        }
        Some(Scene::Lag { duration }) => lag::play(&stage, &mut stop, *duration, globals).await,
        Some(Scene::Failover { clients }) => {
            change(Event::Killed, (stage, *clients), &mut stop, globals).await
        }
        Some(Scene::Switchover { clients }) => {
            change(Event::HandsOver, (stage, *clients), &mut stop, globals).await
        }
    }
}

/// Plays a change of primary on a thread of its own, since it waits for servers.
async fn change(
    event: Event,
    (stage, clients): (Stage, u8),
    stop: &mut Stop,
    globals: &Globals,
) -> Result<Exit, Exit> {
    let rest = Rest::default();
    let (inside, globals) = (rest.clone(), globals.clone());
    let mut scene = tokio::task::spawn_blocking(move || {
        change::play(event, (&stage, clients), &inside, &globals)
    });
    loop {
        tokio::select! {
            played = &mut scene => return played.unwrap_or(Err(Exit::Failed)),
            asked = stop.within(LISTEN) => if asked == Asked::Yes { rest.end() },
        }
    }
}

/// How long is listened at a time.
const LISTEN: Duration = Duration::from_secs(1);

/// Says what went wrong.
fn fail(error: &dyn std::error::Error) -> Exit {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    say::talk(&format!("error: {}", texts.join(": ")));
    Exit::Failed
}
