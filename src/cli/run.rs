//! `pgsteer`, `pgsteer run`: the proxy itself.

use crate::cli::args::Globals;
use crate::cli::exit::Exit;
use crate::cli::load;
use crate::cli::log;
use crate::cli::log::Log;
use crate::cli::say;
use crate::config::Config;
use crate::config::Cores;
use crate::proxy;
use rustix::process::DumpableBehavior;
use rustix::process::set_dumpable_behavior;
use rustix::thread::disable_transparent_huge_pages;
use std::io;

/// Runs the proxy until it is told to stop.
pub(super) fn run(globals: &Globals) -> Result<Exit, Exit> {
    // The allocator asks for none, but some kernels give them to whoever does not object.
    let in_small_pages = disable_transparent_huge_pages(true);
    // From before the first password is read.
    let without_cores = guard_memory(Cores::Never);
    let (request, loaded) = load::checked(globals)?;
    start_log(globals, &loaded.config);
    if let Some(file) = &request.file {
        tracing::info!(file = %file.display(), "configuration read");
    }
    let guarded = without_cores.and_then(|()| guard_memory(loaded.config.observability.cores));
    if let Err(error) = guarded {
        tracing::warn!(%error, "the kernel does not let pgsteer say who may read its memory");
    }
    if let Err(error) = in_small_pages {
        tracing::debug!(%error, "the kernel may keep pgsteer's memory in huge pages");
    }
    match proxy::run(loaded.config, &request) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            say::talk(&format!("error: {error}"));
            Err(if error.is_configured() { Exit::Config } else { Exit::Failed })
        }
    }
}

/// Whether a crash leaves a core, and programs of the same user can read the memory.
///
/// Source: `PR_SET_DUMPABLE` in prctl(2).
fn guard_memory(cores: Cores) -> io::Result<()> {
    let behavior = match cores {
        Cores::Never => DumpableBehavior::NotDumpable,
        Cores::Allowed => DumpableBehavior::Dumpable,
    };
    Ok(set_dumpable_behavior(behavior)?)
}

/// The log as the configuration, the flags and `RUST_LOG` want it.
pub(super) fn start_log(globals: &Globals, config: &Config) {
    // What was typed just now goes before what lies in the environment.
    let directives = if globals.level().is_some() { None } else { std::env::var("RUST_LOG").ok() };
    log::start(&Log {
        format: config.observability.log,
        level: config.observability.log_level,
        directives: directives.as_deref().filter(|text| !text.is_empty()),
        color: globals.color.for_stderr(),
    });
}
