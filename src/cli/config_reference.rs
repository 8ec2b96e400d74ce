//! `pgsteer config reference`: what can be set.

use crate::cli::exit::Exit;
use crate::cli::say;
use crate::config::reference;

/// `pgsteer config ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print every key with its default, as a file to start from
    Reference {
        /// As the page of the manual
        #[arg(long)]
        markdown: bool,
    },
}

/// Prints it.
pub fn run(args: &Args) -> Result<Exit, Exit> {
    let What::Reference { markdown } = args.what;
    let text = if markdown { reference::markdown() } else { reference::toml() };
    say::data(&text)?;
    Ok(Exit::Done)
}
