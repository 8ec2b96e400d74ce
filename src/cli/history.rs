//! `pgsteer history`: the changes of primary that are remembered.

use crate::admin::ChangeReport;
use crate::cli::args::{Globals, Output};
use crate::cli::exit::Exit;
use crate::cli::office::Office;
use crate::cli::say;
use crate::cli::status;

/// What the proxy answers.
#[derive(Debug, serde::Deserialize)]
struct History {
    changes: Vec<ChangeReport>,
}

/// Asks, and prints the answer, oldest first.
pub fn run(globals: &Globals) -> Result<Exit, Exit> {
    let office = Office::find(globals)?;
    match globals.output {
        Output::Json => say::data(&format!("{}\n", office.text("/history")?.trim_end()))?,
        Output::Table => {
            let History { changes } = office.get("/history")?;
            if changes.is_empty() {
                say::talk("no change of primary is remembered");
            }
            let lines: Vec<_> = changes.iter().map(|one| status::change(one) + "\n").collect();
            say::data(&lines.concat())?;
        }
    }
    Ok(Exit::Done)
}
