//! SIGHUP: the configuration is read again, all or nothing.

use crate::config::{Change, Config, Request};
use crate::proxy::build::Parts;
use tracing::{error, info, warn};

/// Reads the configuration again; what holds from now on. A bad file keeps the old one.
pub(super) fn reload(parts: &Parts, old: Config, request: &Request) -> Config {
    let loaded = match request.load() {
        Ok(loaded) => loaded,
        Err(report) => {
            for problem in report.problems() {
                error!(problem = %problem.one_line(), "the configuration was not reloaded");
            }
            parts.reload_failed();
            return old;
        }
    };
    for warning in loaded.warnings.problems() {
        warn!(problem = %warning.one_line(), "configuration");
    }
    tell(&old, &loaded.config);
    let new = loaded.config.in_process_of(&old);
    if let Err(error) = parts.apply(&new) {
        error!(%error, "the configuration was not reloaded");
        parts.reload_failed();
        return old;
    }
    info!("configuration reloaded");
    new
}

/// Says what changed, and what of it needs a restart.
fn tell(old: &Config, new: &Config) {
    for change in Config::changes(old, new) {
        let Change { key, old, new, needs_restart } = change;
        if needs_restart {
            warn!(%key, %old, %new, "changed in the file; takes effect after a restart");
        } else {
            info!(%key, %old, %new, "changed");
        }
    }
}
