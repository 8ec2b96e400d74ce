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
use crate::sql::Dialect;
use crate::sql::examine;
use crate::sql::explain;
use crate::topology::Role;
use serde_json::Value;
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
    if args.sql.trim().is_empty() {
        say::talk("error: there is no statement: try pgsteer route 'SELECT 1'");
        return Err(Exit::Usage);
    }
    let request = load::request(globals)?;
    let path = format!("/route?database={}", ask::escaped(&args.database));
    let question = Question { path, body: Some(args.sql.clone()), token: None };
    let answer = ask::address(&request).and_then(|address| ask::ask(address, question, WAIT));
    let body = match answer {
        Ok(Answer { status: 200, body }) => body,
        Ok(Answer { status, body }) => {
            say::talk(&format!("error: the proxy answered {status}: {}", body.trim()));
            return Err(Exit::Failed);
        }
        Err(error @ (AskError::Unreachable { .. } | AskError::Off)) => {
            say::talk(&format!(
                "note: {error}; judged by the statement alone, without the database's catalog"
            ));
            alone(&args.sql)
        }
        Err(error @ AskError::TooLate { .. }) => {
            say::talk(&format!("error: {error}"));
            return Err(Exit::TimedOut);
        }
        Err(AskError::Wrong(report)) => {
            say::report(&report, globals.color.for_stderr());
            return Err(Exit::Config);
        }
        Err(error @ AskError::Strange { .. }) => {
            say::talk(&format!("error: {error}"));
            return Err(Exit::Failed);
        }
    };
    let shown = match globals.output {
        Output::Json => body,
        Output::Table => table(&body),
    };
    say::data(&format!("{}\n", shown.trim_end()))?;
    Ok(Exit::Done)
}

/// What the statement alone says, in the shape of the proxy's answer.
fn alone(sql: &str) -> String {
    let facts = examine(sql.as_bytes(), Dialect::default());
    let judgement = facts.judge(None);
    let role = if judgement.fit.is_ok() { Role::Standby } else { Role::Primary };
    let answer = serde_json::json!({
        "target": role.as_str(),
        "why": explain(&facts, judgement, None),
    });
    answer.to_string()
}

/// The answer's fields, one a line, a list's items below each other; what is not an object is
/// shown as it came.
fn table(body: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str(body) else {
        return body.to_owned();
    };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (name, value) in &fields {
        let values = match value {
            Value::Array(items) => items.iter().map(word).collect(),
            Value::Null => Vec::new(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                vec![word(value)]
            }
        };
        for (row, value) in values.iter().enumerate() {
            let name = if row == 0 { name } else { "" };
            lines.push(format!("{name:<width$}  {value}"));
        }
    }
    lines.join("\n")
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
