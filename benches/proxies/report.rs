//! The table: medians, ratios against PgBouncer, and how far two runs of the same thing differ.

use crate::Args;
use crate::measure::{Sample, quantile};
use crate::target::{Site, Target};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The head of a table.
const HEADING: &str = "\n\n| target | tps | p50 ms | p99 ms | us | of it user | tps x | p99 x | us x |\
     \n|---|---|---|---|---|---|---|---|---|\n";

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    about: Vec<String>,
    workloads: Vec<&'static str>,
    taken: BTreeMap<(&'static str, Target), Vec<Sample>>,
    missing: BTreeMap<(&'static str, Target), String>,
}

/// The medians of one target.
#[derive(Debug, Clone, Copy)]
struct Medians {
    tps: f64,
    p50: f64,
    p99: f64,
    cost: Option<f64>,
    user: Option<f64>,
    /// The lowest and the highest throughput.
    spread: (f64, f64),
}

impl Report {
    /// An empty report, which says where and how.
    pub(crate) fn new(args: &Args, site: &Site) -> Self {
        let mut about = vec![
            format!("machine: {}", machine()),
            format!("commit: {}", said("git", &["describe", "--always", "--dirty", "--abbrev=12"])),
            format!(
                "command: make bench ARGS=\"--rounds {} --seconds {} --clients {} --pool {}\"",
                args.rounds, args.seconds, args.clients, args.pool
            ),
        ];
        about.extend(site.versions());
        let (taken, missing) = (BTreeMap::new(), BTreeMap::new());
        Self { about, workloads: Vec::new(), taken, missing }
    }

    /// Takes in one run.
    pub(crate) fn take(
        &mut self,
        workload: &'static str,
        target: Target,
        sample: Result<Sample, String>,
    ) {
        if !self.workloads.contains(&workload) {
            self.workloads.push(workload);
        }
        match sample {
            Ok(sample) => self.taken.entry((workload, target)).or_default().push(sample),
            Err(why) => drop(self.missing.insert((workload, target), why)),
        }
    }

    fn medians(&self, workload: &'static str, target: Target) -> Option<Medians> {
        let samples = self.taken.get(&(workload, target)).filter(|all| !all.is_empty())?;
        let sorted = |of: &dyn Fn(&Sample) -> Option<f64>| {
            let mut all: Vec<f64> = samples.iter().filter_map(of).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let tps = sorted(&|sample| Some(sample.run.tps));
        let cost = sorted(&|sample| sample.cost.map(|(user, system)| user + system));
        let user = sorted(&|sample| sample.cost.map(|(user, _)| user));
        let some = |all: &Vec<f64>| (!all.is_empty()).then(|| quantile(all, 0.5));
        Some(Medians {
            tps: quantile(&tps, 0.5),
            p50: quantile(&sorted(&|sample| Some(sample.run.p50)), 0.5),
            p99: quantile(&sorted(&|sample| Some(sample.run.p99)), 0.5),
            cost: some(&cost),
            user: some(&user),
            spread: (quantile(&tps, 0.0), quantile(&tps, 1.0)),
        })
    }

    /// For people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# What a proxy costs\n\n");
        for line in &self.about {
            text.extend(["- ", line, "\n"]);
        }
        text.push_str(
            "\nMedians of the rounds; in brackets the lowest and the highest throughput. `us` is \
             the proxy's processor time for one transaction, and of that its own code. Ratios are \
             against PgBouncer; what \"pgsteer again\" differs by from pgsteer is noise.\n",
        );
        for workload in &self.workloads {
            text.extend(["\n## ", workload, HEADING]);
            let peer = self.medians(workload, Target::PgBouncer);
            for target in Target::all() {
                text.push_str(&self.row(workload, *target, peer));
            }
        }
        text
    }

    fn row(&self, workload: &'static str, target: Target, peer: Option<Medians>) -> String {
        let Some(own) = self.medians(workload, target) else {
            let why = self.missing.get(&(workload, target)).map_or("", String::as_str);
            return format!("| {} | NOT MEASURED: {why} | | | | | | | |\n", target.name());
        };
        let shown = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let ratio = |own: Option<f64>, of: &dyn Fn(Medians) -> Option<f64>| {
            shown(own.zip(peer.and_then(of)).map(|(own, peer)| own / peer), 2)
        };
        format!(
            "| {} | {:.0} [{:.0}, {:.0}] | {:.2} | {:.2} | {} | {} | {} | {} | {} |\n",
            target.name(),
            own.tps,
            own.spread.0,
            own.spread.1,
            own.p50,
            own.p99,
            shown(own.cost, 1),
            shown(own.user, 1),
            ratio(Some(own.tps), &|peer| Some(peer.tps)),
            ratio(Some(own.p99), &|peer| Some(peer.p99)),
            ratio(own.cost, &|peer| peer.cost),
        )
    }

    /// For programs: every run.
    pub(crate) fn json(&self) -> String {
        let runs: Vec<Value> = self
            .taken
            .iter()
            .flat_map(|((workload, target), samples)| {
                samples.iter().map(move |sample| {
                    json!({
                        "workload": workload,
                        "target": target.name(),
                        "transactions": sample.run.transactions,
                        "tps": sample.run.tps,
                        "p50_ms": sample.run.p50,
                        "p99_ms": sample.run.p99,
                        "user_us": sample.cost.map(|(user, _)| user),
                        "system_us": sample.cost.map(|(_, system)| system),
                    })
                })
            })
            .collect();
        let mut text = format!("{:#}", json!({ "about": self.about, "runs": runs }));
        text.push('\n');
        text
    }
}

/// The machine in a few words.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':')).map_or("unknown", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} x {cores}, Linux {}", model.trim(), kernel.trim())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let done = std::process::Command::new(program).args(arguments).output();
    let text = done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
