//! The names of the custom settings (`app.x`) that a session may have set. No server lists them,
//! so each is asked for by its name when it is looked what the session has left.
//!
//! Invariant: they are bounded in number and in bytes. A statement whose names are too many is
//! refused, rather than one of them not asked for: that would be left to the next session.

use std::collections::BTreeSet;

/// Most names of one session.
pub const NAMES_MAX: usize = 1000;
/// Most bytes of them: about a hundred for each.
pub const NAMES_BYTES_MAX: usize = 128 * 1024;

/// The names that a session may have set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CustomNames {
    names: BTreeSet<Box<str>>,
    /// What they take.
    bytes: usize,
}

/// There are as many names as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyNames;

/// Whether a setting is one that no server lists.
pub fn is_custom(name: &str) -> bool {
    name.contains('.')
}

impl<'a> FromIterator<&'a str> for CustomNames {
    /// Those of these that are custom, however many they are.
    fn from_iter<Names: IntoIterator<Item = &'a str>>(names: Names) -> Self {
        let mut all = Self::default();
        for name in names.into_iter().filter(|name| is_custom(name)) {
            all.insert(name);
        }
        all
    }
}

impl CustomNames {
    /// Adds those of these that are custom, or none.
    ///
    /// # Errors
    /// [`TooManyNames`].
    pub fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Result<(), TooManyNames> {
        let mut added = Vec::new();
        for name in names.filter(|name| is_custom(name)) {
            if self.insert(name) {
                added.push(name);
            }
            if self.names.len() > NAMES_MAX || self.bytes > NAMES_BYTES_MAX {
                self.keep_only(|name| !added.contains(&name));
                return Err(TooManyNames);
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: &str) -> bool {
        let new = !self.names.contains(name);
        if new {
            self.names.insert(name.into());
            self.bytes += name.len();
        }
        new
    }

    /// Forgets all others.
    pub fn keep_only(&mut self, keep: impl Fn(&str) -> bool) {
        self.names.retain(|name| keep(name));
        self.bytes = self.names.iter().map(|name| name.len()).sum();
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// What they take, in bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_added_at_all() {
        let mut names = CustomNames::default();
        names.add(["a.b", "work_mem", "a.c", "a.b"].into_iter()).unwrap();
        assert_eq!(names.iter().collect::<Vec<_>>(), ["a.b", "a.c"]);
        assert_eq!(names.bytes(), 6);
        let before = names.clone();
        let many: Vec<String> = (0..NAMES_MAX).map(|number| format!("n.{number}")).collect();
        let long = [format!("l.{}", "x".repeat(NAMES_BYTES_MAX))];
        for more in [&many[..], &long] {
            let more = ["a.b", "a.d"].into_iter().chain(more.iter().map(String::as_str));
            assert_eq!(names.add(more), Err(TooManyNames));
            assert_eq!(names, before);
        }
        let fits = many.iter().map(String::as_str).take(NAMES_MAX - 2);
        names.add(fits.chain(["a.b"])).unwrap();
        assert_eq!(names.add(["a.d"].into_iter()), Err(TooManyNames));
        names.add(["a.c"].into_iter()).unwrap();
        names.keep_only(|name| name == "a.c");
        assert_eq!((names.iter().next(), names.bytes()), (Some("a.c"), 3));
    }
}
