//! The configuration that a command line asks for, or a useful refusal.

use crate::cli::args::DEFAULT_FILES;
use crate::cli::args::Globals;
use crate::cli::exit::Exit;
use crate::cli::say;
use crate::config::Loaded;
use crate::config::Report;
use crate::config::Request;
use std::net::SocketAddr;

/// What the command line asks for; a mistake in it is told at once.
pub fn request(globals: &Globals) -> Result<Request, Exit> {
    globals.request().map_err(|message| {
        say::talk(&format!("error: {message}"));
        Exit::Usage
    })
}

/// Loads it. Where nobody named a server in any way, that is all that is said.
pub fn load(request: &Request) -> Result<Loaded, Report> {
    if names_a_server(request) { request.load() } else { Err(nothing_to_do()) }
}

/// Whether anybody named a server, in any way.
pub fn names_a_server(request: &Request) -> bool {
    request.file.is_some()
        || request.flags.iter().any(|flag| flag.key == "servers.hosts")
        || request.env.contains_key("PGSTEER_SERVERS__HOSTS")
}

/// The same where a command would take the servers of a pgsteer that runs.
pub fn nobody_runs(address: SocketAddr) -> Report {
    Report::of(
        "",
        &format!(
            "no server is named, no configuration file was found, and no pgsteer answers on \
             http://{address}"
        ),
        "name the pgsteer that runs with --http ADDRESS, its file with -c FILE, or each server with \
         --server HOST",
    )
}

fn nothing_to_do() -> Report {
    let [here, there] = DEFAULT_FILES;
    Report::of(
        "",
        "no server is named, and no configuration file was found",
        &format!(
            "try `pgsteer --server HOST`, `pgsteer -c FILE` or `pgsteer demo`; \
             looked for ./{here} and {there}"
        ),
    )
}

/// Loads it and tells what is wrong or strange.
pub fn checked(globals: &Globals) -> Result<(Request, Loaded), Exit> {
    let request = request(globals)?;
    let color = globals.color.for_stderr();
    match load(&request) {
        Ok(loaded) => {
            say::report(&loaded.warnings, color);
            Ok((request, loaded))
        }
        Err(report) => {
            say::report(&report, color);
            Err(Exit::Config)
        }
    }
}
