//! What must be known to undo something, and must be known by nobody else.

use std::collections::BTreeMap;
use std::fmt;

/// Settings of one server by their names, as they were before we changed them. Among them is
/// `primary_conninfo`, which may hold a password: no `Debug`, no log, no answer shows a value.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Note(BTreeMap<String, String>);

impl Note {
    /// Nothing noted.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and this setting.
    #[must_use]
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.0.insert(setting.to_owned(), value.to_owned());
        self
    }

    /// What a setting was; `None` if that was not noted.
    pub fn get(&self, setting: &str) -> Option<&str> {
        self.0.get(setting).map(String::as_str)
    }

    /// Every setting and its value, by name.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn from_map(map: BTreeMap<String, String>) -> Self {
        Self(map)
    }

    pub(super) const fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}
