//! SIGHUP: the configuration is read again, all or nothing.

use crate::config::{Config, Request};
use crate::proxy::build::Parts;
use tracing::{error, info, warn};

/// Reads the configuration again; what holds from now on. A bad file keeps the old one.
pub fn reload(parts: &Parts, old: Config, request: &Request) -> Config {
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
    let new = loaded.config;
    for change in Config::changes(&old, &new) {
        if change.needs_restart {
            warn!(key = %change.key, old = %change.old, new = %change.new, "needs a restart");
        } else {
            info!(key = %change.key, old = %change.old, new = %change.new, "changed");
        }
    }
    if let Err(error) = parts.apply(&new) {
        error!(%error, "the configuration was not reloaded");
        parts.reload_failed();
        return old;
    }
    info!("configuration reloaded");
    new
}
