//! `pgsteer setup`: prints the statements that are missing, or runs them.
//!
//! Nothing is changed unasked, and nothing that is a matter of taste: what costs availability or
//! disk is left to the operator, and told.

use crate::auth::Secret;
use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::doctor::{Findings, Visit, failed, hands, render};
use crate::cli::exit::Exit;
use crate::cli::say;
use crate::clock;
use crate::control::hands::Hands;
use crate::failover::{Gap, Remedy};
use crate::proxy::control_config;
use crate::topology::ServerId;
use std::sync::Arc;
use std::time::Duration;

/// `pgsteer setup ...`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "clap reads flags so")]
pub struct Args {
    /// Print the statements as a script for psql (the default)
    #[arg(long, conflicts_with = "apply")]
    pub dry_run: bool,
    /// Run them, after a question
    #[arg(long)]
    pub apply: bool,
    /// Don't ask
    #[arg(short, long, requires = "apply")]
    pub yes: bool,
    /// Run them as this superuser, whose password is in PGPASSWORD [default: the control user]
    #[arg(long = "as", value_name = "USER", requires = "apply")]
    pub superuser: Option<String>,
}

/// How long standbys get to hear of a grant, and servers to take in a setting.
const EFFECT_MAX: Duration = Duration::from_secs(5);

/// Between two looks whether it is there.
const PACE: Duration = Duration::from_millis(100);

/// What was hidden behind a missing right shows itself in the next round.
const ROUNDS_MAX: usize = 3;

/// `pgsteer setup`
pub(in crate::cli) fn run(args: &Args, globals: &Globals) -> Result<Exit, Exit> {
    let visit = Visit::begin(globals)?;
    let mut findings = visit.look();
    for (name, reached) in &findings.servers {
        if let Err(why) = reached {
            say::talk(&format!("warning: {name} was not reached: {why}"));
        }
    }
    if findings.gaps.is_empty() {
        say::talk("nothing is lacking");
        return Ok(Exit::Done);
    }
    if !args.apply {
        say::data(&findings.script())?;
        return Ok(findings.exit());
    }
    let hands = visit.hands_of(args.superuser.as_deref());
    let mut done: Vec<Gap> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let new = |gap: &&Gap| !gap.remedy.statements().is_empty() && !done.contains(gap);
        if !findings.gaps.iter().any(|gap| new(&gap)) {
            break;
        }
        say::data(&findings.script())?;
        if !args.yes {
            confirm::typed("Type yes to run these statements, anything else to leave it:", "yes")?;
        }
        visit.apply(&hands, &findings)?;
        done.extend(findings.gaps);
        findings = visit.look_beyond(&done);
    }
    tell(&findings, &done);
    Ok(findings.exit())
}

impl Visit {
    /// Hands of the control user, or of another one.
    fn hands_of(&self, superuser: Option<&str>) -> Arc<Hands> {
        let Some(user) = superuser else { return Arc::clone(&self.hands) };
        let mut config = control_config(&self.config, &self.security, Err("none".into()));
        user.clone_into(&mut config.user);
        let password = std::env::var("PGPASSWORD").ok().map(Secret::new);
        for server in &mut config.servers {
            server.password.clone_from(&password);
        }
        hands(&config)
    }

    fn apply(&self, hands: &Hands, findings: &Findings) -> Result<(), Exit> {
        for (server, (name, _)) in (0..).map(ServerId).zip(&findings.servers) {
            for statement in render::statements(&findings.gaps, name) {
                self.runtime.block_on(hands.apply(server, statement)).map_err(|error| {
                    failed(&format!(
                        "{name}: {error}\n  = help: {}\n  = help: run it as a superuser: add \
                         --as USER, or feed the script to psql",
                        statement.shown
                    ))
                })?;
            }
        }
        Ok(())
    }

    /// Looks until nothing is left of what was mended by what was run.
    fn look_beyond(&self, done: &[Gap]) -> Findings {
        let began = clock::now();
        loop {
            let findings = self.look();
            let mut mended = done.iter().filter(|gap| matches!(gap.remedy, Remedy::Sql(_)));
            let late = clock::now().since(began) > EFFECT_MAX;
            if late || !mended.any(|gap| findings.gaps.contains(gap)) {
                return findings;
            }
            std::thread::sleep(PACE);
        }
    }
}

impl Findings {
    fn script(&self) -> String {
        let names: Vec<_> = self.servers.iter().map(|(name, _)| Arc::clone(name)).collect();
        render::script(&self.gaps, &names)
    }
}

/// Says what is left.
fn tell(left: &Findings, done: &[Gap]) {
    say::talk(if done.is_empty() { "nothing to run" } else { "done" });
    for gap in &left.gaps {
        let why = match &gap.remedy {
            Remedy::Sql(_) => "still lacking",
            Remedy::SqlAndRestart(_) => "restart the server for",
            Remedy::Advice(_) => "left to you",
        };
        say::talk(&format!("{why}: {}", gap.what()));
    }
}
