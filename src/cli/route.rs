//! `pgsteer route "SQL"`: where a statement would go, and why, without running it.
//!
//! The running proxy is asked, since it knows the servers, their lag and the functions of the
//! database; without one, the statement alone is judged.

use crate::cli::args::Globals;
use crate::cli::args::Output;
use crate::cli::ask;
use crate::cli::ask::Answer;
use crate::cli::ask::AskError;
use crate::cli::ask::Question;
use crate::cli::exit::Exit;
use crate::cli::load;
use crate::cli::say;
use std::time::Duration;

/// Longest wait for the proxy's answer.
const WAIT: Duration = Duration::from_secs(5);

/// `pgsteer route ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One statement, or several
    pub sql: String,
    /// The database whose functions count
    #[arg(short, long, value_name = "NAME", default_value = "postgres")]
    pub database: String,
}

/// Asks, and prints the answer.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Exit> {
    let request = load::request(globals)?;
    let path = format!("/route?database={}", ask::escaped(&args.database));
    let question = Question { path, body: Some(args.sql.clone()) };
    let answer =
        ask::address(globals, &request).and_then(|address| ask::ask(address, question, WAIT));
    match answer {
        Ok(Answer { status: 200, body }) => {
            let shown = match globals.output {
                Output::Json => body,
                Output::Table => table(&body),
            };
            say::data(&format!("{}\n", shown.trim_end()))?;
            Ok(Exit::Done)
        }
        Ok(Answer { status, body }) => {
            say::talk(&format!("error: the proxy answered {status}: {}", body.trim()));
            Err(Exit::Failed)
        }
        Err(error @ AskError::TooLate { .. }) => {
            say::talk(&format!("error: {error}"));
            Err(Exit::TimedOut)
        }
        Err(error @ (AskError::Strange { .. } | AskError::Unreachable { .. } | AskError::Off)) => {
            say::talk(&format!("error: {error}"));
            Err(Exit::Failed)
        }
    }
}

/// The answer's fields, one a line; what is not an object is shown as it came.
fn table(body: &str) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(body) else {
        return body.to_owned();
    };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    let line = |(name, value): (&String, &serde_json::Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name:<width$}  {value}")
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}
