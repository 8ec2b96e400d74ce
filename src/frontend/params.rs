//! What the servers report of their settings, as the client knows it.
//!
//! A client believes its last `ParameterStatus`. When its session changes backends, the settings
//! follow, and what those report is the client's only if it differs from what the client knows.

use crate::frontend::exchange::Untold;
use crate::frontend::plan::READING;
use crate::pool::{Defaults, Reports};
use crate::session::{Disposition, Settings};
use crate::sql::Dialect;
use crate::wire::message;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// The reported settings of one session: those of its login, shared with all who logged in
/// alike, and what has changed since.
#[derive(Debug, Clone)]
pub struct Reported {
    base: Rc<Base>,
    /// A few at most.
    changed: Vec<(Box<str>, Box<str>)>,
    /// How the session's SQL is to be read: asked for with each group, told once in a session.
    dialect: Dialect,
    /// What the session has of settings that it does not set itself, if the client is known to
    /// believe just that.
    in_step: Option<Arc<Defaults>>,
}

/// What a login is told.
#[derive(Debug, Default)]
struct Base {
    values: BTreeMap<Box<str>, Box<str>>,
    /// The same as messages, to a session that is not for a standby: as good as every login.
    written: Vec<u8>,
}

impl Base {
    fn new(values: BTreeMap<Box<str>, Box<str>>) -> Self {
        let mut written = Vec::new();
        for (name, value) in &values {
            write(&mut written, (name.as_ref(), value.as_ref()), Standby::No);
        }
        Self { values, written }
    }
}

/// Whether a session is for a standby, as a client is told it at its login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standby {
    /// It isn't.
    No,
    /// It is.
    Yes,
}

/// Nothing yet. It stands in for what is lent to a backend, twice in each transaction.
impl Default for Reported {
    fn default() -> Self {
        thread_local! {
            static NOTHING: Rc<Base> = Rc::default();
        }
        let base = NOTHING.with(Rc::clone);
        Self { base, changed: Vec::new(), dialect: Dialect::default(), in_step: None }
    }
}

/// Whose statement changed a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client's, or the server did by itself: the client is to know.
    Client,
    /// Ours, which brought the session's settings to a backend: the client knows already.
    Ours,
}

/// It changes with the server that answers, and a client that chose its host by it would choose
/// wrong: it is told at its login what its session is for, and nothing later.
const OF_SERVERS: &str = "in_hot_standby";

impl Reported {
    /// What a login was told.
    pub fn new(values: BTreeMap<Box<str>, Box<str>>) -> Self {
        let mut reported = Self { base: Rc::new(Base::new(values)), ..Self::default() };
        reported.note_dialect();
        reported
    }

    /// The value that the client believes.
    pub fn get(&self, name: &str) -> Option<&str> {
        let changed = self.changed.iter().find(|(changed, _)| **changed == *name);
        changed.map(|(_, value)| value).or_else(|| self.base.values.get(name)).map(|value| &**value)
    }

    /// How the session's SQL is to be read.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the session's SQL is not to be read as these settings say, which are to be brought
    /// to its next backend: by then it would have been looked at.
    pub fn reads_otherwise(&self, settings: &Settings) -> bool {
        READING.iter().any(|name| settings.get(name).is_some_and(|own| self.get(name) != Some(own)))
    }

    /// Takes a `ParameterStatus`; whether the client is to have it.
    pub fn take(&mut self, status: &[u8], cause: Cause) -> Disposition {
        let Ok((name, value)) = message::read_parameter_status(status) else {
            return Disposition::Forward;
        };
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
            return Disposition::Forward;
        };
        if name == OF_SERVERS {
            return Disposition::Swallow;
        }
        if cause == Cause::Ours && self.get(name) == Some(value) {
            return Disposition::Swallow;
        }
        self.believe(name, value);
        Disposition::Forward
    }

    fn believe(&mut self, name: &str, value: &str) {
        self.in_step = None;
        self.changed.retain(|(changed, _)| **changed != *name);
        if self.base.values.get(name).is_none_or(|base| **base != *value) {
            self.changed.push((name.into(), value.into()));
        }
        self.note_dialect();
    }

    /// Tells the client the value of one, if it believes another.
    pub fn tell(&mut self, (name, value): (&str, &str), out: &mut Vec<u8>) {
        if self.get(name) != Some(value) {
            self.believe(name, value);
            message::write_parameter_status(out, name.as_bytes(), value.as_bytes());
        }
    }

    /// Whether the client is known to believe what a backend has of settings that the session does
    /// not set itself.
    pub fn is_in_step(&self, reports: &Reports) -> bool {
        self.in_step.as_ref().is_some_and(|defaults| reports.are_still(defaults))
    }

    /// Compares what the client believes with what a backend has that carries `settings`; what
    /// differs. What the session sets itself is left out: that has been told, or is.
    pub fn compare(&mut self, reports: &Reports, settings: &Settings) -> Option<Untold> {
        let defaults = reports.defaults().iter().filter(|(name, _)| settings.get(name).is_none());
        let differs = |(name, value): &(&str, &str)| self.get(name) != Some(*value);
        let pairs = defaults.filter(differs).map(|(name, value)| (name.into(), value.into()));
        let untold: Untold = pairs.collect();
        if untold.is_empty() {
            self.in_step = Some(Arc::clone(reports.defaults()));
            return None;
        }
        self.in_step = None;
        Some(untold)
    }

    fn note_dialect(&mut self) {
        let encoding = Dialect::from_encoding_name(self.get("client_encoding").unwrap_or("UTF8"));
        let strings = self.get("standard_conforming_strings").unwrap_or("on");
        self.dialect = encoding.with_standard_conforming_strings(strings);
    }

    /// Appends every parameter that a client is told at its login. On which kind of server its
    /// session is it is told if its servers tell that at all.
    pub fn write_all(&self, standby: Standby, out: &mut Vec<u8>) {
        if self.changed.is_empty() && standby == Standby::No {
            out.extend_from_slice(&self.base.written);
            return;
        }
        let as_before = |name: &str| self.changed.iter().all(|(changed, _)| **changed != *name);
        let base = self.base.values.iter().filter(|(name, _)| as_before(name));
        for (name, value) in base.chain(self.changed.iter().map(|(name, value)| (name, value))) {
            write(out, (name.as_ref(), value.as_ref()), standby);
        }
    }
}

fn write(out: &mut Vec<u8>, (name, value): (&str, &str), standby: Standby) {
    let value = match standby {
        _ if name != OF_SERVERS => value,
        Standby::No => "off",
        Standby::Yes => "on",
    };
    message::write_parameter_status(out, name.as_bytes(), value.as_bytes());
}
