//! The command line: what was asked, the configuration behind it, and how the process ends.
//!
//! Each command is a module with `run(...) -> Result<Exit, Exit>`; what it was given is a
//! `clap::Args` of its own beside [`args::Globals`], which every command understands. Data goes to
//! standard output, everything else to standard error ([`say`]); `Err` is only the early end.
//!
//! Deliberately absent: any decision about servers or statements. A command asks the running
//! proxy, or the same modules that the proxy is made of.

pub mod args;
pub mod ask;
mod check_config;
pub mod config_reference;
mod confirm;
pub mod crowd;
pub mod demo;
pub mod doctor;
pub mod drill;
pub mod exit;
pub mod history;
pub mod load;
pub mod log;
pub mod office;
pub mod order;
pub mod route;
mod run;
pub mod say;
pub mod status;

use crate::cli::args::Args;
use crate::cli::args::Command;
use crate::cli::exit::Exit;
use clap::Parser as _;
use std::process::ExitCode;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let exit = match Args::try_parse() {
        Ok(args) => dispatch(&args).unwrap_or_else(|exit| exit),
        Err(error) => {
            // Help and version count as errors to clap, but not to their reader.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            drop(error.print());
            exit
        }
    };
    exit.into()
}

fn dispatch(args: &Args) -> Result<Exit, Exit> {
    let globals = &args.globals;
    match &args.command {
        None | Some(Command::Run) => run::run(globals),
        Some(Command::Demo(args)) => demo::run(args, globals),
        Some(Command::Status(args)) => status::run(args, globals),
        Some(Command::Route(args)) => route::run(args, globals),
        Some(Command::History) => history::run(globals),
        Some(Command::Failover(args)) => order::failover(args, globals),
        Some(Command::Switchover(args)) => order::switchover(args, globals),
        Some(Command::Drill(args)) => drill::run(args, globals),
        Some(Command::Doctor) => doctor::run(globals),
        Some(Command::Setup(args)) => doctor::setup(args, globals),
        Some(Command::CheckConfig) => check_config::run(globals),
        Some(Command::Config(args)) => config_reference::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_makes_sense_to_clap() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_screen_names_every_command() {
        let mut command = Args::command();
        let help = command.render_help().to_string();
        for known in command.get_subcommands() {
            assert!(help.contains(known.get_name()), "`{}` is not in the help", known.get_name());
        }
    }
}
