//! Who may log in from where, to what, and how it is proved: ordered rules in the syntax of
//! `pg_hba.conf`.
//!
//! The first rule that fits decides; if none does, nobody is let in. What a line means is what
//! PostgreSQL makes of it. What can't be had here (groups, host names, methods) is an error when
//! the rules are read, never a rule that silently does something else.
//!
//! Source: PostgreSQL manual, 21.1 "The `pg_hba.conf` File"; `check_hba` in `libpq/hba.c`.

mod parse;
mod token;

#[cfg(test)]
mod tests;

pub use parse::RuleError;

use regex::Regex;
use std::net::IpAddr;

/// Ordered rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands, from 1.
    pub line: usize,
    /// How it is proved who comes.
    pub method: RuleMethod,
    /// Whether a certificate is demanded besides.
    pub certificate: Certificate,
    connection: Connection,
    databases: Vec<Name>,
    users: Vec<Name>,
    /// For sockets empty.
    address: Option<Address>,
}

/// How it is proved who comes: a rule's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleMethod {
    /// Not at all.
    Trust,
    /// Nobody comes in.
    Reject,
    /// By SCRAM-SHA-256.
    ScramSha256,
    /// By the old hash where that is what is stored, else by SCRAM-SHA-256.
    Md5,
    /// By a certificate with the user's name.
    Cert,
    /// By the operating system's word, through a socket file.
    Peer,
}

/// Whether a certificate is demanded: `clientcert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// No.
    NotNeeded,
    /// A good one, whosever it is.
    Verified,
    /// One with the user's name.
    OfTheUser,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

/// What a database or a user is to be called.
#[derive(Debug, Clone)]
enum Name {
    All,
    SameUser,
    Replication,
    Is(String),
    Like(Regex),
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All)
            | (Self::SameUser, Self::SameUser)
            | (Self::Replication, Self::Replication) => true,
            (Self::Is(one), Self::Is(other)) => one == other,
            (Self::Like(one), Self::Like(other)) => one.as_str() == other.as_str(),
            (Self::All | Self::SameUser | Self::Replication | Self::Is(_) | Self::Like(_), _) => {
                false
            }
        }
    }
}

impl Eq for Name {}

/// Which addresses a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    All,
    SameHost,
    Network { address: IpAddr, mask: IpAddr },
}

/// Who wants in.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// Through where.
    pub from: Through,
    /// As whom.
    pub user: &'a str,
    /// To what.
    pub wants: Wants<'a>,
}

/// What somebody wants to be connected with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants<'a> {
    /// This database.
    Database(&'a str),
    /// The log: physical replication.
    Replication,
}

/// Where somebody comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// A socket file.
    Socket,
    /// The network.
    Network {
        /// Its address.
        address: IpAddr,
        /// Whether it came over TLS.
        secured: Secured,
    },
}

/// Whether a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secured {
    /// By TLS.
    Yes,
    /// Not at all.
    No,
}

impl Rules {
    /// Reads a text. Every mistake in it is told at once.
    pub fn parse(text: &str) -> Result<Self, Vec<RuleError>> {
        parse::rules(text).map(Self)
    }

    /// The first rule that fits. `is_ours` tells whether an address is one of this machine's.
    pub fn find(&self, visit: Visit<'_>, is_ours: impl Fn(IpAddr) -> bool) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(visit, &is_ours))
    }

    /// The first rule with this method, for those who must prepare for it.
    pub fn first_with(&self, methods: &[RuleMethod]) -> Option<&Rule> {
        self.0.iter().find(|rule| methods.contains(&rule.method))
    }

    /// The first rule that asks for a certificate.
    pub fn first_with_certificate(&self) -> Option<&Rule> {
        self.0.iter().find(|rule| {
            rule.method == RuleMethod::Cert || rule.certificate != Certificate::NotNeeded
        })
    }

    /// The first rule that only fits connections with TLS.
    pub fn first_with_tls(&self) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.connection == Connection::HostSsl)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rule {
    fn fits(&self, visit: Visit<'_>, is_ours: &impl Fn(IpAddr) -> bool) -> bool {
        self.connection.fits(visit.from)
            && self.fits_address(visit.from, is_ours)
            && self.databases.iter().any(|name| name.fits_database(visit))
            && self.users.iter().any(|name| name.fits_user(visit.user))
    }

    fn fits_address(&self, from: Through, is_ours: &impl Fn(IpAddr) -> bool) -> bool {
        let Through::Network { address, .. } = from else { return true };
        match &self.address {
            None | Some(Address::All) => true,
            Some(Address::SameHost) => is_ours(address),
            Some(Address::Network { address: network, mask }) => {
                masked(address.to_canonical(), *mask).is_some_and(|masked| masked == *network)
            }
        }
    }
}

impl Connection {
    const fn fits(self, from: Through) -> bool {
        match (self, from) {
            (Self::Local, Through::Socket)
            | (Self::Host, Through::Network { .. })
            | (Self::HostSsl, Through::Network { secured: Secured::Yes, .. })
            | (Self::HostNoSsl, Through::Network { secured: Secured::No, .. }) => true,
            (Self::Local | Self::Host | Self::HostSsl | Self::HostNoSsl, _) => false,
        }
    }
}

impl Name {
    /// Source: `check_db` in `libpq/hba.c`: physical replication is no database, and `all` does
    /// not mean it.
    fn fits_database(&self, visit: Visit<'_>) -> bool {
        match (self, visit.wants) {
            (Self::Replication, Wants::Replication) | (Self::All, Wants::Database(_)) => true,
            (Self::SameUser, Wants::Database(database)) => database == visit.user,
            (Self::Is(name), Wants::Database(database)) => name == database,
            (Self::Like(pattern), Wants::Database(database)) => pattern.is_match(database),
            (Self::Replication, Wants::Database(_))
            | (Self::All | Self::SameUser | Self::Is(_) | Self::Like(_), Wants::Replication) => {
                false
            }
        }
    }

    fn fits_user(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Is(name) => name == user,
            Self::Like(pattern) => pattern.is_match(user),
            Self::SameUser | Self::Replication => false,
        }
    }
}

/// An address without the bits that a mask leaves out; `None`: they are of two families.
fn masked(address: IpAddr, mask: IpAddr) -> Option<IpAddr> {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => Some(IpAddr::V4(address & mask)),
        (IpAddr::V6(address), IpAddr::V6(mask)) => Some(IpAddr::V6(address & mask)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}
