//! What a backend reports of its settings without being asked.
//!
//! A server tells each of its clients what the settings are that it reports, and what they become.
//! Here a client has many backends, one after the other, and each tells only whom it serves at the
//! time. So what a backend has is kept with it, and who comes next is told where that is something
//! else than what it knows. Backends that are alike share what they have: as a rule a look at a
//! pointer tells that there is nothing to tell.

use super::Pools;
use crate::clock;
use crate::session::Settings;
use crate::wire::message;
use std::sync::{Arc, PoisonError};

/// The values of reported settings that a session has which sets nothing itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Defaults(Vec<(Box<str>, Box<str>)>);

/// Of one backend.
#[derive(Debug)]
pub struct Reports {
    /// Shared by all backends that have the same.
    defaults: Arc<Defaults>,
    /// What it has said since it was opened of settings that it carries, and what it has said of
    /// any since that was looked through.
    said: Vec<(Box<str>, Box<str>)>,
    news: News,
}

/// Whether anything was said that was not looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    No,
    Yes,
}

/// What is no setting, or the server's own, or follows from who logged in and as whom it acts: no
/// session is told anything else of these by another backend.
const FIXED: [&str; 6] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
];

impl Defaults {
    /// By what a backend has told at its login.
    pub(super) fn new<'a>(params: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        Self(params.filter_map(|(name, value)| pair(name, value)).collect())
    }

    /// Every name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The same but for these.
    fn with(&self, said: &[(Box<str>, Box<str>)]) -> Self {
        let mut defaults = self.0.clone();
        for (name, value) in said {
            match defaults.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.clone_from(value),
                None => defaults.push((name.clone(), value.clone())),
            }
        }
        Self(defaults)
    }
}

impl Reports {
    /// Nothing was said yet.
    pub(super) const fn new(defaults: Arc<Defaults>) -> Self {
        Self { defaults, said: Vec::new(), news: News::No }
    }

    /// Takes a `ParameterStatus` that the backend has sent, whoever is told.
    pub fn hear(&mut self, status: &[u8]) {
        let Ok((name, value)) = message::read_parameter_status(status) else { return };
        let Some((name, value)) = pair(name, value) else { return };
        self.news = News::Yes;
        match self.said.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.said.push((name, value)),
        }
    }

    /// The backend carries other settings than before: of one that it carries no more it says
    /// nothing if the default is what it carried.
    pub fn note_carried(&mut self) {
        if !self.said.is_empty() {
            self.news = News::Yes;
        }
    }

    /// Whether these are its defaults, and it has said nothing new.
    pub fn are_still(&self, defaults: &Arc<Defaults>) -> bool {
        Arc::ptr_eq(&self.defaults, defaults) && self.news == News::No
    }

    /// What a session has there that sets nothing itself.
    pub const fn defaults(&self) -> &Arc<Defaults> {
        &self.defaults
    }

    /// What it has said of this one last.
    pub fn said(&self, name: &str) -> Option<&str> {
        self.said.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// Looks through what was said: where no setting that the backend carries explains it, it is
    /// the default by now. To be called where it carries nothing that is not known.
    #[inline]
    pub fn look_through(&mut self, carried: &Settings, pools: &Pools) {
        if self.news == News::Yes {
            self.settle(carried, pools);
        }
    }

    #[cold]
    fn settle(&mut self, carried: &Settings, pools: &Pools) {
        if let Some(defaults) = self.changed(carried) {
            self.defaults = pools.same_defaults(defaults);
            // What was told to those who logged in may be out of date.
            pools.note_change(clock::now());
        }
    }

    /// The defaults of a backend that carries this, if they are others by what was said.
    fn changed(&mut self, carried: &Settings) -> Option<Defaults> {
        self.news = News::No;
        let is_default = |(name, _): &mut (Box<str>, Box<str>)| carried.get(name).is_none();
        let said: Vec<_> = self.said.extract_if(.., is_default).collect();
        let differs = said.iter().any(|(name, value)| self.defaults.get(name) != Some(&**value));
        differs.then(|| self.defaults.with(&said))
    }
}

impl Pools {
    /// These defaults, in the one place where all that have them look.
    pub(super) fn same_defaults(&self, defaults: Defaults) -> Arc<Defaults> {
        let mut known = self.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.iter().find(|known| ***known == defaults) {
            return Arc::clone(same);
        }
        known.retain(|known| Arc::strong_count(known) > 1);
        let defaults = Arc::new(defaults);
        known.push(Arc::clone(&defaults));
        defaults
    }
}

/// What is read and may differ from one backend to another.
fn pair(name: &[u8], value: &[u8]) -> Option<(Box<str>, Box<str>)> {
    let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
        return None;
    };
    (!FIXED.contains(&name)).then(|| (name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(reports: &mut Reports, name: &str, value: &str) {
        let mut status = Vec::new();
        message::write_parameter_status(&mut status, name.as_bytes(), value.as_bytes());
        reports.hear(&status);
    }

    fn carrying(name: &str, value: &str) -> Settings {
        let mut settings = Settings::default();
        settings.set(name, value);
        settings
    }

    fn reports() -> Reports {
        let params = [("TimeZone", "UTC"), ("server_version", "15.1")];
        let params = params.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Reports::new(Arc::new(Defaults::new(params)))
    }

    fn timezone(defaults: Option<&Defaults>) -> Option<&str> {
        defaults.and_then(|defaults| defaults.get("TimeZone"))
    }

    #[test]
    fn what_no_setting_explains_is_the_default() {
        let mut reports = reports();
        says(&mut reports, "TimeZone", "Asia/Tokyo");
        assert!(!reports.are_still(&Arc::clone(reports.defaults())));
        let changed = reports.changed(&carrying("datestyle", "ISO"));
        assert_eq!(timezone(changed.as_ref()), Some("Asia/Tokyo"));
        assert_eq!(reports.said("TimeZone"), None);
    }

    #[test]
    fn what_a_setting_explains_is_the_default_only_when_it_is_what_was_left() {
        let mut reports = reports();
        says(&mut reports, "TimeZone", "Europe/Paris");
        assert_eq!(reports.changed(&carrying("timezone", "Europe/Paris")), None);
        // Taken away again, it says nothing, for that has become the default.
        reports.note_carried();
        let changed = reports.changed(&Settings::default());
        assert_eq!(timezone(changed.as_ref()), Some("Europe/Paris"));
        // As a rule it says what it goes back to.
        let mut reports = self::reports();
        says(&mut reports, "TimeZone", "Europe/Paris");
        assert_eq!(reports.changed(&carrying("timezone", "Europe/Paris")), None);
        says(&mut reports, "TimeZone", "UTC");
        assert_eq!(reports.changed(&Settings::default()), None);
        assert!(reports.are_still(&Arc::clone(reports.defaults())));
    }

    #[test]
    fn what_is_the_servers_own_is_no_default() {
        let mut reports = reports();
        says(&mut reports, "server_version", "15.2");
        assert!(reports.are_still(&Arc::clone(reports.defaults())));
        assert_eq!(reports.defaults().iter().count(), 1);
    }
}
