//! Following an order to its end, step by step.

use crate::admin::{AccountReport, OrderState, StepReport};
use crate::cli::args::Output;
use crate::cli::ask::Answer;
use crate::cli::exit::Exit;
use crate::cli::office;
use crate::cli::office::Office;
use crate::cli::say;
use crate::clock;
use std::thread;
use std::time::Duration;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest that is waited for the end.
const FOLLOW_MAX: Duration = Duration::from_mins(2);
/// Longest that a proxy may be silent meanwhile: it is not restarted in less.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// Follows it; the steps are said as they come. An order that is still under way at the end was
/// waited for long enough.
///
/// # Errors
/// How the command ends if the proxy can't be asked any more; what it does then goes on.
pub(super) fn follow(office: &Office, number: &str, output: Output) -> Result<AccountReport, Exit> {
    let began = clock::now();
    let mut heard = began;
    let mut told = 0;
    loop {
        match office.try_get(&format!("/orders/{number}")) {
            Ok(answer) => {
                heard = clock::now();
                let account: AccountReport = known(&answer)?;
                for step in account.steps.iter().skip(told) {
                    tell(step, output);
                }
                told = account.steps.len();
                let waited = clock::now().since(began);
                if account.state != OrderState::Underway || waited >= FOLLOW_MAX {
                    return Ok(account);
                }
            }
            Err(error) if clock::now().since(heard) >= SILENT_MAX => {
                say::talk(&format!(
                    "error: {error}; what was ordered goes on, or is completed or undone after a \
                     restart: see `pgsteer status`"
                ));
                return Err(Exit::Failed);
            }
            Err(_) => {}
        }
        thread::sleep(PAUSE);
    }
}

fn known(answer: &Answer) -> Result<AccountReport, Exit> {
    if answer.status == 404 {
        say::talk(&format!("error: {}", answer.body.trim()));
        return Err(Exit::Failed);
    }
    office::read(answer)
}

fn tell(step: &StepReport, output: Output) {
    let StepReport { after_ms, phase, why, .. } = step;
    let why = why.as_deref().map_or_else(String::new, |why| format!("  {why}"));
    if output == Output::Table {
        say::talk(&format!("{after_ms:>7.0} ms  {phase:<9}{why}"));
    }
}
