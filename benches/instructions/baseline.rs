//! What was counted, against what is written down.

use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::Command;

/// How much more than the baseline is a regression, in hundredths.
const TOLERANCE: f64 = 3.0;

/// Instructions by name, in the order in which they were counted.
#[derive(Debug)]
pub(crate) struct Counted {
    taken: Vec<(String, u64)>,
    baseline: Value,
}

impl Counted {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let text = std::fs::read_to_string(file()).unwrap_or_default();
        let baseline = serde_json::from_str(&text).unwrap_or_else(|_| json!({}));
        Self { taken: Vec::new(), baseline }
    }

    /// Takes in one count.
    pub(crate) fn take(&mut self, name: &str, instructions: u64) {
        println!("{}", self.line(name, instructions));
        self.taken.push((name.to_owned(), instructions));
    }

    /// Writes it down; what was not counted now stays as it is.
    pub(crate) fn write(&self) {
        let old = self.baseline.get("instructions").and_then(Value::as_object).cloned();
        let mut all: Map<String, Value> = old.unwrap_or_default();
        for (name, instructions) in &self.taken {
            all.insert(name.clone(), json!(instructions));
        }
        let about = json!({ "rustc": said("rustc"), "valgrind": said("valgrind") });
        let text = format!("{:#}\n", json!({ "made_with": about, "instructions": all }));
        std::fs::write(file(), text).unwrap();
    }

    /// Tells what is worse and what is better; whether nothing is worse.
    pub(crate) fn compare(&self) -> bool {
        let made_with = self.baseline.get("made_with");
        for program in ["rustc", "valgrind"] {
            let then = made_with.and_then(|made| made.get(program)).and_then(Value::as_str);
            let now = said(program);
            if then != Some(&now) {
                println!("NOTE: the baseline was made with {}, this is {now}", then.unwrap_or("?"));
            }
        }
        let (mut worse, mut better) = (0, 0);
        for (name, instructions) in &self.taken {
            match self.change(name, *instructions) {
                None => println!("NOTE: {name} is not in the baseline"),
                Some(change) if change > TOLERANCE => worse += 1,
                Some(change) if change < -TOLERANCE => better += 1,
                Some(_) => {}
            }
        }
        println!("{} counted, {worse} worse, {better} better", self.taken.len());
        if better > 0 {
            println!("write down what was won: make bench-check ARGS=update");
        }
        worse == 0
    }

    fn line(&self, name: &str, instructions: u64) -> String {
        let Some((then, change)) = self.then(name).zip(self.change(name, instructions)) else {
            return format!("{name:40} {instructions:>9}");
        };
        let word = match change {
            change if change > TOLERANCE => "WORSE",
            change if change < -TOLERANCE => "better",
            _ => "",
        };
        format!("{name:40} {instructions:>9} {then:>9} {change:>+7.1} % {word}")
    }

    /// By how many hundredths it differs from the baseline.
    fn change(&self, name: &str, instructions: u64) -> Option<f64> {
        let then = self.then(name)?;
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a count")]
        let change = (instructions as f64 / then.max(1) as f64 - 1.0) * 100.0;
        Some(change)
    }

    fn then(&self, name: &str) -> Option<u64> {
        self.baseline.get("instructions")?.get(name)?.as_u64()
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.json")
}

fn said(program: &str) -> String {
    let done = Command::new(program).arg("--version").output();
    let text = done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
