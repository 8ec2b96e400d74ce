//! A question to whoever sits at the terminal.

use crate::cli::exit::Exit;
use crate::cli::say;
use std::io::{BufRead as _, IsTerminal as _, Read as _};

/// The longest answer that is read.
const LONGEST: u64 = 4096;

/// Asks, and has this word typed. Without a terminal there is nobody to ask.
///
/// # Errors
/// How the command ends if it was not typed.
pub(super) fn typed(question: &str, word: &str) -> Result<(), Exit> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        say::talk("refused: there is no terminal to ask at; add --yes to do it without asking");
        return Err(Exit::Refused);
    }
    say::talk(question);
    let mut answer = String::new();
    let read = input.lock().take(LONGEST).read_line(&mut answer);
    if read.is_ok() && answer.trim() == word {
        return Ok(());
    }
    say::talk("nothing was changed");
    Err(Exit::Refused)
}
