//! The command line, as clap reads it.
//!
//! Flags that are keys in disguise (`--server`, `--listen`, `--http`, `-v`) become
//! [`Flag`]s, so that they are checked, and named in messages, like any other layer.

use crate::cli::say::ColorWish;
use crate::config::Flag;
use crate::config::Request;
use std::path::Path;
use std::path::PathBuf;

/// Where a file is looked for without `-c`, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["pgsteer.toml", "/etc/pgsteer/pgsteer.toml"];

/// How the file is found.
const CONFIG_HELP: &str = "\
A file  [env: PGSTEER_CONFIG]  [default: ./pgsteer.toml, then /etc/pgsteer/pgsteer.toml]";

/// The help screen's groups; a test checks that no command is forgotten.
const HELP: &str = "\
{name} - one address for a PostgreSQL primary and its standbys

  pgsteer --server db1 --server db2      run; finds the primary, listens on 127.0.0.1:6432
  pgsteer -c /etc/pgsteer/pgsteer.toml   run with a file
  pgsteer demo                           throw-away primary and two standbys to play with

{usage-heading} {usage}

Run      run (without a command)
Look     status  route  history  doctor
Act      failover  switchover  drill
Set up   check-config  config  setup  demo

Options
{options}

`pgsteer help <command>` shows more. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 degraded,
4 refused, 5 timed out, 78 wrong configuration, 130 interrupted.
";

/// The whole command line.
#[derive(Debug, clap::Parser)]
#[command(name = "pgsteer", version, help_template = HELP, max_term_width = 100)]
#[command(disable_help_subcommand = false, subcommand_required = false)]
pub struct Args {
    /// What every command understands.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do; nothing: run.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the proxy, as without a command
    Run,
    /// Show the servers, their lag and what is wrong
    Status(crate::cli::status::Args),
    /// Say where a statement would go, and why, without running it
    Route(crate::cli::route::Args),
    /// Show the changes of primary that are remembered
    History,
    /// Replace a primary that is lost: shows what it would do, and asks
    Failover(crate::cli::order::FailoverArgs),
    /// Hand over to a standby without losing or failing a statement
    Switchover(crate::cli::order::SwitchoverArgs),
    /// Hand over and back under a small load, and report what clients saw
    Drill(crate::cli::drill::Args),
    /// Start throw-away servers and a proxy to play with
    Demo(crate::cli::demo::Args),
    /// Show what a failover lacks on the servers, why it matters, and what helps
    Doctor,
    /// Print, or run, the statements that doctor finds missing
    Setup(crate::cli::doctor::SetupArgs),
    /// Check the configuration and report every mistake in it
    CheckConfig,
    /// Print the configuration's reference
    Config(crate::cli::config_reference::Args),
}

/// What every command understands.
#[derive(Debug, Clone, clap::Args)]
pub struct Globals {
    /// The configuration file.
    #[arg(short, long, global = true, value_name = "FILE", env = "PGSTEER_CONFIG")]
    #[arg(help = CONFIG_HELP, hide_env = true)]
    pub config: Option<PathBuf>,
    /// A PostgreSQL server; repeat for each. The primary is found, not told
    #[arg(short, long, global = true, value_name = "HOST[:PORT]")]
    pub server: Vec<String>,
    /// Where clients connect; repeat for several  [default: 127.0.0.1:6432]
    #[arg(short, long, global = true, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Where metrics and health are served, or asked for by `status` and `route`
    /// [default: 127.0.0.1:9632]
    #[arg(long, global = true, value_name = "ADDR")]
    pub http: Option<String>,
    /// Any key of the configuration.
    #[arg(help = "Override any key of the configuration, e.g. --set routing.max_lag.time=5s")]
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// table | json
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub output: Output,
    /// More log: -v debug, -vv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Less log: -q warnings, -qq errors only
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub quiet: u8,
    /// auto | always | never
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub color: ColorWish,
}

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For machines.
    Json,
}

impl Globals {
    /// The configuration that this command line asks for.
    ///
    /// # Errors
    /// The `--set` that has no `=`.
    pub fn request(&self) -> Result<Request, String> {
        Ok(Request { file: self.file(), env: Request::env_of_process(), flags: self.flags()? })
    }

    /// The file: the one that is named, else the first of [`DEFAULT_FILES`] that exists.
    fn file(&self) -> Option<PathBuf> {
        let found = || DEFAULT_FILES.iter().map(Path::new).find(|path| path.exists());
        self.config.clone().or_else(|| found().map(Path::to_path_buf))
    }

    fn flags(&self) -> Result<Vec<Flag>, String> {
        let flag = |name: &str, key: &str, value: &str| Flag {
            name: name.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let mut flags = Vec::new();
        for set in &self.set {
            let Some((key, value)) = set.split_once('=') else {
                return Err(format!(
                    "--set {set}: write --set KEY=VALUE, as in --set pool.size=40"
                ));
            };
            flags.push(flag(&format!("--set {}", key.trim()), key.trim(), value));
        }
        flags.extend(self.server.iter().map(|host| flag("--server", "servers.hosts", host)));
        flags.extend(self.listen.iter().map(|address| flag("--listen", "listen", address)));
        flags.extend(self.http.iter().map(|address| flag("--http", "http", address)));
        if let Some((name, level)) = self.level() {
            flags.push(flag(name, "observability.log_level", level));
        }
        Ok(flags)
    }

    /// The log level that `-v` or `-q` ask for.
    pub const fn level(&self) -> Option<(&'static str, &'static str)> {
        match (self.verbose, self.quiet) {
            (0, 0) => None,
            (0, 1) => Some(("-q", "warn")),
            (0, _) => Some(("-qq", "error")),
            (1, _) => Some(("-v", "debug")),
            (_, _) => Some(("-vv", "trace")),
        }
    }
}
