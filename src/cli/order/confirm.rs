//! The question before a change of primary.

use crate::cli::confirm;
use crate::cli::exit::Exit;

/// Has the server's name typed.
///
/// # Errors
/// How the command ends if it was not typed.
pub(in crate::cli) fn by_name(name: &str) -> Result<(), Exit> {
    let question =
        format!("Type {name} to make it the primary, anything else to leave all as it is:");
    confirm::typed(&question, name)
}
