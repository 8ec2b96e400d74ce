//! `pgsteer doctor`, `pgsteer setup`: what a failover lacks on the servers, and mending it.
//!
//! Both go to the servers themselves, as the control user, and need no proxy that runs; where
//! nobody names a server, one that runs says which there are. What is found, and what helps, is the
//! same that the proxy holds against itself before `auto` arms (`failover::prerequisites`).

mod render;
mod setup;

use crate::backend::Security;
use crate::cli::args::{Globals, Output};
use crate::cli::exit::Exit;
use crate::cli::office;
use crate::cli::say;
use crate::config::Config;
use crate::control::ControlConfig;
use crate::control::hands::Hands;
use crate::failover::{Gap, Instance, Onlooker, Promise, WeakPromise};
use crate::proxy::control_config;
use crate::store::{MemoryStore, Store};
use crate::topology::ServerId;
pub use setup::Args as SetupArgs;
pub(super) use setup::run as setup;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// What was found.
#[derive(Debug)]
struct Findings {
    /// Every server, and why it was not reached.
    servers: Vec<(Arc<str>, Result<(), String>)>,
    /// What the primary promises; `None`: no primary was found.
    promise: Option<Promise>,
    gaps: Vec<Gap>,
}

/// A look at the servers.
#[derive(Debug)]
struct Visit {
    runtime: Runtime,
    config: Config,
    /// How the servers are reached.
    security: Security,
    hands: Arc<Hands>,
}

/// `pgsteer doctor`
pub(super) fn run(globals: &Globals) -> Result<Exit, Exit> {
    let visit = Visit::begin(globals)?;
    let findings = visit.look();
    let mode = visit.config.failover.mode;
    match globals.output {
        Output::Json => say::data(&render::json(&findings, mode))?,
        Output::Table => say::data(&render::text(&findings, mode, globals.color.for_stdout()))?,
    }
    Ok(findings.exit())
}

impl Visit {
    /// Prepares as the command line says.
    fn begin(globals: &Globals) -> Result<Self, Exit> {
        let config = office::configuration(globals)?.config;
        let security = Security::load(config.server_tls.clone());
        let security = security.map_err(|error| failed(&error.to_string()))?;
        let hands = hands(&control_config(&config, &security, Err("none".into())));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| failed(&error.to_string()))?;
        Ok(Self { runtime, config, security, hands })
    }

    /// Looks at every server.
    fn look(&self) -> Findings {
        let outcomes = self.runtime.block_on(self.hands.survey_all());
        let names = self.config.servers.iter().map(|server| Arc::clone(&server.name));
        let outcomes = outcomes.into_iter().map(|done| done.map_err(|error| error.to_string()));
        let gaps = self.hands.gaps(&self.config.failover, Onlooker::Command);
        let primary = (0..)
            .map(ServerId)
            .zip(&self.config.servers)
            .find(|(id, _)| self.hands.survey(*id).is_some_and(|survey| survey.is_primary()));
        let promise = primary.map(|(_, server)| {
            let unseen = Promise::Asynchronous(WeakPromise::NotSeen);
            self.hands.promise(&server.name, &unseen).unwrap_or(unseen)
        });
        Findings { servers: names.zip(outcomes).collect(), promise, gaps }
    }
}

impl Findings {
    /// Whether a failover by itself would work.
    fn exit(&self) -> Exit {
        if self.gaps.iter().any(Gap::blocks) { Exit::Failed } else { Exit::Done }
    }
}

fn hands(config: &ControlConfig) -> Arc<Hands> {
    let nowhere = Store::Memory(MemoryStore::default());
    // It is no instance that acts, and tells of none.
    Arc::new(Hands::of(config, Instance(std::process::id()), &nowhere))
}

fn failed(why: &str) -> Exit {
    say::talk(&format!("error: {why}"));
    Exit::Failed
}
