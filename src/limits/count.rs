//! How many connections there are, by each rule.

use super::rule::{Caller, Each, Rule, Rules};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The connections of all clients. Shared by the shards; locked when a client comes and goes.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<Key, u32>>);

/// A rule, by whom it is about, and of whom it counts apart.
type Key = (Box<str>, Box<str>);

/// A client that is counted, for as long as this lives.
#[derive(Debug)]
pub struct Entry(Option<Box<Counted>>);

/// By which rules it is counted: most clients by none.
#[derive(Debug)]
struct Counted {
    counts: Arc<Counts>,
    keys: Vec<Key>,
}

/// A rule has as many connections as it allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} connections are open {whose}, as many as limits.rules allows")]
pub struct Exceeded {
    /// How many it allows.
    pub limit: u32,
    /// Of whom: `of user "app"`.
    pub whose: String,
}

/// Which rules count a client now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Those that only ask where it comes from.
    Door,
    /// The others.
    Login,
}

impl Counts {
    /// Counts a client, by the rules that can be asked now: before its login those that only ask
    /// where it comes from, after it the others.
    ///
    /// # Errors
    /// [`Exceeded`]: it is to be turned away, and is not counted.
    pub fn enter(self: &Arc<Self>, rules: &Rules, caller: Caller<'_>) -> Result<Entry, Exceeded> {
        let stage = match caller {
            Caller::Stranger { .. } => Stage::Door,
            Caller::Known { .. } => Stage::Login,
        };
        let asked = |rule: &&Rule| match stage {
            Stage::Door => !rule.asks_who(),
            Stage::Login => rule.asks_who(),
        };
        let mut keys: Vec<Key> = Vec::new();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for rule in rules.0.iter().filter(asked).filter(|rule| rule.fits(caller)) {
            let Some(limit) = rule.connections else { continue };
            let key = key(rule, caller);
            if keys.contains(&key) {
                continue;
            }
            if counts.get(&key).is_some_and(|count| *count >= limit) || limit == 0 {
                return Err(Exceeded { limit, whose: whose(&key) });
            }
            keys.push(key);
        }
        for key in &keys {
            *counts.entry(key.clone()).or_default() += 1;
        }
        drop(counts);
        if keys.is_empty() {
            return Ok(Entry(None));
        }
        Ok(Entry(Some(Box::new(Counted { counts: Arc::clone(self), keys }))))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(counted) = &self.0 else { return };
        let mut counts = counted.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &counted.keys {
            if let Some(count) = counts.get_mut(key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
    }
}

fn key(rule: &Rule, caller: Caller<'_>) -> Key {
    let (address, listener, user, database) = match caller {
        Caller::Stranger { address, listener } => (address, listener, "", ""),
        Caller::Known { address, listener, user, database } => (address, listener, user, database),
    };
    let apart = match rule.each {
        None => String::new(),
        Some(Each::User) => format!("user {user:?}"),
        Some(Each::Database) => format!("database {database:?}"),
        Some(Each::Address) => match address {
            Some(address) => format!("address {}", address.to_canonical()),
            None => "unix sockets".to_owned(),
        },
        Some(Each::Listener) => format!("listener {listener:?}"),
    };
    (Who(rule).to_string().into(), apart.into())
}

fn whose((who, apart): &Key) -> String {
    match (who.is_empty(), apart.is_empty()) {
        (true, true) => "in all".to_owned(),
        (false, true) => format!("of {who}"),
        (true, false) => format!("of {apart}"),
        (false, false) => format!("of {apart} ({who})"),
    }
}

/// Whom a rule is about, as a user reads it.
struct Who<'a>(&'a Rule);

impl fmt::Display for Who<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = &self.0.who;
        let user = who.user.as_ref().map(|user| format!("user {user:?}"));
        let database = who.database.as_ref().map(|database| format!("database {database:?}"));
        let address = who.address.map(|address| format!("network {address}"));
        let listener = who.listener.as_ref().map(|listener| format!("listener {listener:?}"));
        let each: Vec<String> = [user, database, address, listener].into_iter().flatten().collect();
        out.write_str(&each.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Bounds, Who as About};
    use super::*;

    fn rule(user: Option<&str>, each: Option<Each>, connections: u32) -> Rule {
        Rule {
            who: About { user: user.map(Into::into), ..About::default() },
            each,
            connections: Some(connections),
            bounds: Bounds::default(),
        }
    }

    fn known<'a>(user: &'a str, address: &str) -> Caller<'a> {
        let (address, listener) = (address.parse().ok(), "10.0.0.9:6432");
        Caller::Known { address, listener, user, database: "shop" }
    }

    fn stranger(address: &str) -> Caller<'static> {
        Caller::Stranger { address: address.parse().ok(), listener: "10.0.0.9:6432" }
    }

    #[test]
    fn each_rule_counts_its_own_until_they_are_gone() {
        let rules = Rules(vec![rule(Some("app"), None, 2), rule(None, Some(Each::User), 3)]);
        let counts = Arc::new(Counts::default());
        let enter = |user| counts.enter(&rules, known(user, "10.0.0.1"));
        let first = enter("app").unwrap();
        let second = enter("app").unwrap();
        let whose = enter("app").unwrap_err();
        assert_eq!(whose, Exceeded { limit: 2, whose: "of user \"app\"".to_owned() });
        // Who was refused is not counted by the other rule either.
        drop(first);
        let third = enter("app").unwrap();
        let others: Vec<_> = (0..3).map(|_| enter("other").unwrap()).collect();
        assert_eq!(enter("other").unwrap_err().whose, "of user \"other\"");
        drop((second, third, others));
        assert!(counts.0.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn strangers_are_counted_by_where_they_come_from_alone() {
        let rules = Rules(vec![rule(Some("app"), None, 0), rule(None, Some(Each::Address), 1)]);
        let counts = Arc::new(Counts::default());
        let here = counts.enter(&rules, stranger("10.0.0.1")).unwrap();
        let there = counts.enter(&rules, stranger("10.0.0.2")).unwrap();
        let whose = counts.enter(&rules, stranger("::ffff:10.0.0.1")).unwrap_err().whose;
        assert_eq!(whose, "of address 10.0.0.1");
        let mut elsewhere = stranger("10.0.0.3");
        if let Caller::Stranger { listener, .. } = &mut elsewhere {
            *listener = "10.0.0.9:6433";
        }
        let by_listener = Rules(vec![
            rule(None, Some(Each::Listener), 1),
            Rule {
                who: About { listener: Some("10.0.0.9:6433".into()), ..About::default() },
                each: None,
                connections: Some(0),
                bounds: Bounds::default(),
            },
        ]);
        let only = counts.enter(&by_listener, stranger("10.0.0.1")).unwrap();
        let whose = counts.enter(&by_listener, stranger("10.0.0.2")).unwrap_err().whose;
        assert_eq!(whose, "of listener \"10.0.0.9:6432\"");
        let whose = counts.enter(&by_listener, elsewhere).unwrap_err().whose;
        assert_eq!(whose, "of listener \"10.0.0.9:6433\"");
        drop(only);
        // At the login it is not counted again by what has counted it at the door.
        let known = counts.enter(&rules, known("other", "10.0.0.1")).unwrap();
        drop((here, there, known));
        assert!(counts.0.lock().unwrap().is_empty());
    }
}
