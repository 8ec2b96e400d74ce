//! What a key is, whatever its type.

use crate::config::node::Node;
use crate::config::problem::Notes;
use crate::config::setting::Setting;

/// When a change of a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// After a reload.
    OnReload,
    /// After a restart.
    OnRestart,
}

/// One key: everything that is to be known of it.
#[derive(Debug)]
pub(super) struct Key<T: 'static> {
    /// Its full name: `routing.hold_max`.
    pub(super) name: &'static str,
    /// What it does; one or two sentences.
    pub(super) doc: &'static str,
    /// What it is if nobody says.
    pub(super) default: fn() -> T,
    /// A value, as TOML, for keys whose default says little; else empty.
    pub(super) example: &'static str,
    /// What else it must be.
    pub(super) check: fn(&T) -> Result<(), &'static str>,
    /// When a change counts.
    pub(super) counts: Counts,
}

/// A key without its type.
pub(super) trait AnyKey: Sync {
    fn name(&self) -> &'static str;
    fn doc(&self) -> &'static str;
    fn example(&self) -> &'static str;
    fn counts(&self) -> Counts;
    fn form(&self) -> String;
    fn default_text(&self) -> String;
}

impl<T: Setting> AnyKey for Key<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn example(&self) -> &'static str {
        self.example
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn form(&self) -> String {
        T::form()
    }

    fn default_text(&self) -> String {
        (self.default)().write()
    }
}

impl<T: Setting> Key<T> {
    /// Reads and checks one value.
    pub(super) fn read(&self, node: &Node, notes: &mut Notes) -> Option<T> {
        let value = T::read(node, notes)?;
        match (self.check)(&value) {
            Ok(()) => Some(value),
            Err(must) => {
                let help = format!("left out, it is {}", (self.default)().write());
                notes.error(&node.place, format!("`{}` {must}", self.name), help);
                None
            }
        }
    }
}

/// The section of a key's name and the rest: `routing`, `hold_max`.
pub(super) fn split(name: &'static str) -> (&'static str, &'static str) {
    name.split_once('.').unwrap_or(("", name))
}
