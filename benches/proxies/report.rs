//! Tables: medians over the rounds, ratios against a peer taken round by round, and how far two
//! runs of the very same thing differ.

use crate::measure::quantile;
use crate::place::{commit, machine};
use serde_json::{Value, json};

/// One figure of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// Whether its ratio to the peer is shown as well.
    pub(crate) ratio: Ratio,
}

/// Whether a ratio says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ratio {
    Shown,
    Idle,
}

/// One table: a row a target.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    figures: &'static [Figure],
    /// The target that the others are compared with.
    peer: String,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    target: String,
    /// What each round came to, in the order of the figures; NaN: it has no such figure.
    rounds: Vec<Vec<f64>>,
    missing: Option<String>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    about: Vec<String>,
    parts: Vec<(String, Vec<Table>)>,
}

impl Figure {
    /// A figure whose ratio to the peer is shown.
    pub(crate) const fn compared(name: &'static str, digits: usize) -> Self {
        Self { name, digits, ratio: Ratio::Shown }
    }

    /// A figure that stands for itself.
    pub(crate) const fn plain(name: &'static str, digits: usize) -> Self {
        Self { name, digits, ratio: Ratio::Idle }
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(title: &str, peer: &str, figures: &'static [Figure]) -> Self {
        Self { title: title.to_owned(), figures, peer: peer.to_owned(), rows: Vec::new() }
    }

    /// Takes in what a target came to in one round, or why it was not measured.
    pub(crate) fn take(&mut self, target: &str, came: Result<Vec<f64>, String>) {
        eprintln!("  {}: {target}: {}", self.title, self.told(came.as_ref()));
        let at = self.rows.iter().position(|row| row.target == target);
        let at = at.unwrap_or_else(|| {
            let target = target.to_owned();
            self.rows.push(Row { target, rounds: Vec::new(), missing: None });
            self.rows.len() - 1
        });
        let Some(row) = self.rows.get_mut(at) else { return };
        match came {
            Ok(figures) => row.rounds.push(figures),
            Err(why) => row.missing = why.lines().next().map(str::to_owned),
        }
    }

    /// Brings the rows into this order.
    pub(crate) fn sort_as<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let order: Vec<_> = names.collect();
        let place = |row: &Row| order.iter().position(|name| *name == row.target);
        self.rows.sort_by_key(|row| place(row));
    }

    fn told(&self, came: Result<&Vec<f64>, &String>) -> String {
        match came {
            Ok(figures) => {
                let each = self.figures.iter().zip(figures);
                let each = each.map(|(it, value)| format!("{} {}", shown(*value, it), it.name));
                each.collect::<Vec<_>>().join(", ")
            }
            Err(why) => format!("NOT MEASURED: {why}"),
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n### {}\n\n| target |", self.title);
        for figure in self.figures {
            text.push_str(&format!(" {} |", figure.name));
            if figure.ratio == Ratio::Shown {
                text.push_str(" x |");
            }
        }
        let columns = text.lines().last().unwrap_or("").matches('|').count() - 1;
        text.push_str(&format!("\n|{}\n", "---|".repeat(columns)));
        for row in &self.rows {
            text.push_str(&self.line(row, columns));
        }
        text
    }

    fn line(&self, row: &Row, columns: usize) -> String {
        if row.rounds.is_empty() {
            let why = row.missing.as_deref().unwrap_or("?");
            let rest = " |".repeat(columns - 1);
            return format!("| {} | NOT MEASURED: {why}{}\n", row.target, rest);
        }
        let peer = self.rows.iter().find(|row| row.target == self.peer);
        let mut line = format!("| {} |", row.target);
        for (at, figure) in self.figures.iter().enumerate() {
            let own = column(row, at);
            line.push_str(&format!(" {} |", spread(&own, figure)));
            if figure.ratio == Ratio::Shown {
                let theirs = peer.map(|peer| column(peer, at)).unwrap_or_default();
                let ratios: Vec<_> = own.iter().zip(&theirs).map(|(a, b)| a / b).collect();
                line.push_str(&format!(" {} |", spread(&ratios, &RATIO)));
            }
        }
        line.push('\n');
        line
    }

    fn json(&self) -> Value {
        let names: Vec<_> = self.figures.iter().map(|figure| figure.name).collect();
        let rows = self.rows.iter().map(
            |row| json!({ "target": row.target, "missing": row.missing, "rounds": row.rounds }),
        );
        json!({
            "title": self.title,
            "peer": self.peer,
            "figures": names,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

impl Report {
    /// An empty report, which says where and how.
    pub(crate) fn new(command: &str, versions: Vec<String>) -> Self {
        let mut about = vec![
            format!("machine: {}", machine()),
            format!("commit: {}", commit()),
            format!("command: {command}"),
        ];
        about.extend(versions);
        Self { about, parts: Vec::new() }
    }

    /// Takes in a section: what it is about, and its tables.
    pub(crate) fn take(&mut self, about: &str, tables: Vec<Table>) {
        self.parts.push((about.to_owned(), tables));
    }

    /// For people.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# What a proxy costs\n\n");
        for line in &self.about {
            text.push_str(&format!("- {line}\n"));
        }
        text.push_str(
            "\nMedians of the rounds, in brackets the lowest and the highest. `x` is the ratio to \
             the row that the part names, taken round by round. What \"pgsteer again\" differs by \
             from the row above it is noise, and no smaller difference means anything.\n",
        );
        for (about, tables) in &self.parts {
            text.push_str(&format!("\n## {about}\n"));
            for table in tables {
                text.push_str(&table.markdown());
            }
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        let parts = self.parts.iter().map(|(about, tables)| {
            let tables: Vec<_> = tables.iter().map(Table::json).collect();
            json!({ "about": about, "tables": tables })
        });
        let parts: Vec<_> = parts.collect();
        format!("{:#}\n", json!({ "about": self.about, "parts": parts }))
    }
}

/// How a ratio is shown.
const RATIO: Figure = Figure::plain("x", 2);

/// A figure's values, a round each.
fn column(row: &Row, at: usize) -> Vec<f64> {
    row.rounds.iter().map(|round| round.get(at).copied().unwrap_or(f64::NAN)).collect()
}

/// The median, and of several values the lowest and the highest.
fn spread(values: &[f64], figure: &Figure) -> String {
    let mut sorted: Vec<_> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let median = shown(quantile(&sorted, 0.5), figure);
    match (sorted.first(), sorted.last()) {
        (Some(least), Some(most)) if sorted.len() > 1 => {
            format!("{median} [{}, {}]", shown(*least, figure), shown(*most, figure))
        }
        _ => median,
    }
}

fn shown(value: f64, figure: &Figure) -> String {
    if value.is_finite() { format!("{value:.*}", figure.digits) } else { "-".to_owned() }
}
