//! What the operator chose.

use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// One rule of `limits.rules`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Whom it is about.
    pub who: Who,
    /// Apart for each of what its connections are counted; `None`: all together.
    pub each: Option<Each>,
    /// How many connections they may have at a time; `None`: the rule has no say.
    pub connections: Option<u32>,
    /// What each of them may take.
    pub bounds: Bounds,
}

/// Whom a rule is about; `None`: whoever.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    /// This user.
    pub user: Option<Box<str>>,
    /// This database.
    pub database: Option<Box<str>>,
    /// Clients from this network; those of unix sockets are from none.
    pub address: Option<IpNet>,
    /// Clients that come by this one of our own addresses, as `listen` names it.
    pub listener: Option<Box<str>>,
}

/// What connections are counted apart for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Each {
    /// Each user.
    User,
    /// Each database.
    Database,
    /// Each address.
    Address,
    /// Each of our own addresses.
    Listener,
}

/// How long things may last; `None`: as long as they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// A session without a transaction, between two statements.
    pub idle: Option<Duration>,
    /// An open transaction, between two statements.
    pub idle_in_transaction: Option<Duration>,
    /// A transaction, or a statement outside of one, with its wait for a backend.
    pub transaction: Option<Duration>,
    /// A statement, from when it was sent.
    pub query: Option<Duration>,
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(pub Vec<Rule>);

/// A client, as far as it is known who it is.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// Somebody from there.
    Stranger {
        /// `None`: a process of this machine, by a unix socket.
        address: Option<IpAddr>,
        /// By which of our addresses, as `listen` names it.
        listener: &'a str,
    },
    /// One who proved who it is.
    Known {
        /// Likewise.
        address: Option<IpAddr>,
        /// Likewise.
        listener: &'a str,
        /// Who.
        user: &'a str,
        /// Where.
        database: &'a str,
    },
}

/// What one client may take, by one rule or by all together; `None`: as much as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Time to log in.
    pub login: Option<Duration>,
    /// Bytes of one message other than COPY data.
    pub message: Option<u64>,
    /// Bytes of one statement's text.
    pub statement: Option<u64>,
    /// Named prepared statements of one session.
    pub prepared: Option<u32>,
    /// Bytes of what is kept of one session.
    pub memory: Option<u64>,
    /// How long things may last.
    pub times: Times,
}

impl Rules {
    /// What this client may take.
    pub fn bounds(&self, caller: Caller<'_>) -> Bounds {
        let fitting = self.0.iter().filter(|rule| rule.fits(caller));
        fitting.fold(Bounds::default(), |bounds, rule| bounds.and(&rule.bounds))
    }
}

impl Rule {
    /// Whether it is about this client, as far as it is known.
    pub(super) fn fits(&self, caller: Caller<'_>) -> bool {
        let (from, listener, user, database) = match caller {
            Caller::Stranger { address, listener } => (address, listener, None, None),
            Caller::Known { address, listener, user, database } => {
                (address, listener, Some(user), Some(database))
            }
        };
        let named = |wanted: &Option<Box<str>>, is: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| is == Some(wanted))
        };
        let near = self.who.address.is_none_or(|network| {
            from.is_some_and(|address| network.contains(&address.to_canonical()))
        });
        let here = named(&self.who.listener, Some(listener));
        near && here && named(&self.who.user, user) && named(&self.who.database, database)
    }

    /// Whether it asks who the client is, beyond where it comes from.
    pub(super) fn asks_who(&self) -> bool {
        let of_name = self.who.user.is_some() || self.who.database.is_some();
        of_name || matches!(self.each, Some(Each::User | Each::Database))
    }
}

impl Bounds {
    fn and(self, other: &Self) -> Self {
        Self {
            login: least(self.login, other.login),
            message: least(self.message, other.message),
            statement: least(self.statement, other.statement),
            prepared: least(self.prepared, other.prepared),
            memory: least(self.memory, other.memory),
            times: Times {
                idle: least(self.times.idle, other.times.idle),
                idle_in_transaction: least(
                    self.times.idle_in_transaction,
                    other.times.idle_in_transaction,
                ),
                transaction: least(self.times.transaction, other.times.transaction),
                query: least(self.times.query, other.times.query),
            },
        }
    }
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(who: (&str, &str, &str), query: u64) -> Rule {
        let named = |name: &str| (name != "-").then(|| name.into());
        let (user, database, address) = who;
        let address = (address != "-").then(|| address.parse().unwrap());
        let times = Times { query: Some(Duration::from_secs(query)), ..Times::default() };
        Rule {
            who: Who { user: named(user), database: named(database), address, listener: None },
            each: None,
            connections: None,
            bounds: Bounds { times, ..Bounds::default() },
        }
    }

    #[test]
    fn every_rule_counts_that_fits_and_the_smallest_time() {
        let rules = Rules(vec![
            rule(("-", "-", "-"), 60),
            rule(("report", "-", "-"), 600),
            rule(("app", "-", "-"), 10),
            rule(("app", "shop", "-"), 5),
            rule(("-", "-", "10.0.0.0/8"), 30),
            rule(("-", "-", "2001:db8::/32"), 20),
        ]);
        let known = |user, database, address: &str| {
            let address = address.parse().ok();
            let listener = "127.0.0.1:6432";
            rules
                .bounds(Caller::Known { address, listener, user, database })
                .times
                .query
                .unwrap()
                .as_secs()
        };
        assert_eq!(known("report", "shop", "192.168.0.1"), 60, "no rule gives more");
        assert_eq!(known("app", "other", "192.168.0.1"), 10);
        assert_eq!(known("app", "shop", "10.1.1.1"), 5);
        assert_eq!(known("report", "shop", "10.1.1.1"), 30);
        assert_eq!(known("report", "shop", "::ffff:10.1.1.1"), 30, "the same address");
        assert_eq!(known("report", "shop", "2001:db8::1"), 20);
        assert_eq!(known("report", "shop", "unix"), 60, "from no network");

        let stranger = |address: &str| {
            let address = address.parse().ok();
            rules
                .bounds(Caller::Stranger { address, listener: "unix:/run" })
                .times
                .query
                .unwrap()
                .as_secs()
        };
        assert_eq!(stranger("10.1.1.1"), 30, "what is about a user is not for strangers");
        let nobody = Caller::Stranger { address: None, listener: "unix:/run" };
        assert_eq!(Rules::default().bounds(nobody), Bounds::default());
    }
}
