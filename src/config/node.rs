//! One value as it was written, whichever layer it comes from, with its place.

use crate::config::problem::Place;
use std::sync::Arc;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

/// One value. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// What was written.
#[derive(Clone)]
pub(super) enum Kind {
    /// Text in quotes.
    Text(String),
    /// Text of a variable or a flag, which has no quotes: each setting reads it its own way.
    Word(String),
    /// A number without a fraction, as written but for underscores.
    Integer(String),
    /// Any other number.
    Float(String),
    /// `true` or `false`.
    Bool(bool),
    /// A date, a time.
    DateTime,
    /// `[ ... ]`
    List(Vec<Node>),
    /// `{ ... }` or a section.
    Table(Vec<Entry>),
}

/// `name = value` in a table.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) name_place: Place,
    pub(super) node: Node,
}

impl Node {
    /// A word of a variable or a flag. What looks like a list or a table is read as TOML.
    pub(super) fn word(text: &str, place: &Place) -> Self {
        let trimmed = text.trim();
        if trimmed.starts_with('[') || trimmed.starts_with('{') {
            let document = format!("v={trimmed}");
            if let Ok(table) = DeTable::parse(&document)
                && let Some(entry) = entries(table.get_ref()).pop()
            {
                return entry.node.moved_to(place);
            }
        }
        Self { place: place.clone(), kind: Kind::Word(text.to_owned()) }
    }

    fn moved_to(mut self, place: &Place) -> Self {
        self.place = place.clone();
        match &mut self.kind {
            Kind::List(items) => {
                *items =
                    std::mem::take(items).into_iter().map(|item| item.moved_to(place)).collect();
            }
            Kind::Table(entries) => {
                for entry in entries {
                    entry.name_place = place.clone();
                    entry.node = entry.node.clone().moved_to(place);
                }
            }
            Kind::Text(_)
            | Kind::Word(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Bool(_)
            | Kind::DateTime => {}
        }
        self
    }

    /// What it is, for "found ...".
    pub(super) const fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) | Kind::Word(_) => "text",
            Kind::Integer(_) | Kind::Float(_) => "a number",
            Kind::Bool(_) => "true or false",
            Kind::DateTime => "a date or time",
            Kind::List(_) => "a list",
            Kind::Table(_) => "a table",
        }
    }
}

/// The entries of a table in the order of the file.
pub(super) fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(name, value)| Entry {
            name: name.get_ref().to_string(),
            name_place: Place::file(&name.span()),
            node: node(value),
        })
        .collect();
    entries.sort_by(|a, b| a.name_place.cmp(&b.name_place));
    entries
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::Text(text.to_string()),
        DeValue::Integer(number) => Kind::Integer(number.to_string()),
        DeValue::Float(number) => Kind::Float(number.to_string()),
        DeValue::Boolean(value) => Kind::Bool(*value),
        DeValue::Datetime(_) => Kind::DateTime,
        DeValue::Array(items) => Kind::List(items.iter().map(node).collect()),
        DeValue::Table(table) => Kind::Table(entries(table)),
    };
    Node { place: Place::file(&value.span()), kind }
}

/// A place that names a variable.
pub(super) fn env_place(name: &str) -> Place {
    Place::Env(Arc::from(name))
}

/// A place that names a flag.
pub(super) fn flag_place(name: &str) -> Place {
    Place::Flag(Arc::from(name))
}
