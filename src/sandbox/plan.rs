//! What a cluster is to be like.

/// The superuser of every cluster.
pub const SUPERUSER: &str = "postgres";
/// Its password, where clients need one ([`Auth::Password`]).
pub const SUPERUSER_PASSWORD: &str = "throw-away";

/// What a cluster is to be like: how many standbys, and every server's settings.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) standbys: usize,
    pub(super) auth: Auth,
    durability: Durability,
    log: StatementLog,
    settings: Vec<Setting>,
    quorum: Quorum,
    naming: Naming,
    /// How long a link may be silent before the primary speaks up; `None`: as by default.
    sender_timeout: Option<String>,
    /// Lines of `pg_hba.conf` that go before ours.
    hba: Vec<String>,
    /// Files beside the configuration, such as a certificate: name and text.
    pub(super) files: Vec<(String, String)>,
}

/// How clients prove to the servers who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    Trust,
    /// Over TCP by a password, with SCRAM-SHA-256; over the unix socket not at all.
    Password,
    /// As the lines of [`Plan::hba`] say, which then have to let the standbys in as well; only
    /// the superuser needs nothing over the unix socket.
    Listed,
}

/// Whether a crash of the machine may lose what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It may (`fsync = off`): a crash of PostgreSQL alone loses nothing even so.
    Careless,
    /// It may not.
    Durable,
}

/// Whether a commit waits for a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// It does not.
    None,
    /// For any one of them, whoever is the primary.
    AnyOne,
}

/// What tells a server's name as a receiver of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Its `cluster_name`, and a standby's `primary_conninfo`.
    Clusters,
    /// Its `primary_conninfo` alone, which the primary has as well; `cluster_name` is the same
    /// everywhere, as on Debian.
    Links,
}

/// Whether the servers log every statement: where one ran is then in their own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementLog {
    /// Errors only.
    Off,
    /// All (`log_statement = all`).
    All,
}

#[derive(Debug, Clone)]
struct Setting {
    /// Of this server; `None`: of all.
    server: Option<String>,
    name: String,
    value: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    /// A primary and two standbys that trust everybody on this machine.
    pub const fn new() -> Self {
        Self {
            standbys: 2,
            auth: Auth::Trust,
            durability: Durability::Careless,
            log: StatementLog::Off,
            settings: Vec::new(),
            quorum: Quorum::None,
            naming: Naming::Clusters,
            sender_timeout: None,
            hba: Vec::new(),
            files: Vec::new(),
        }
    }

    /// So many standbys.
    #[must_use]
    pub fn standbys(self, standbys: usize) -> Self {
        Self { standbys, ..self }
    }

    /// How clients prove who they are.
    #[must_use]
    pub fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    /// What a crash of the machine may lose.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// What the servers log.
    #[must_use]
    pub fn log(self, log: StatementLog) -> Self {
        Self { log, ..self }
    }

    /// A setting of every server.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(Setting {
            server: None,
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// A setting of one server, such as `recovery_min_apply_delay` of `standby1`.
    #[must_use]
    pub fn server_setting(mut self, server: &str, name: &str, value: &str) -> Self {
        let server = Some(server.to_owned());
        self.settings.push(Setting { server, name: name.to_owned(), value: value.to_owned() });
        self
    }

    /// Whether commits wait for a standby.
    #[must_use]
    pub fn quorum(self, quorum: Quorum) -> Self {
        Self { quorum, ..self }
    }

    /// What tells the servers' names.
    #[must_use]
    pub fn naming(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// Has every standby's link to its primary kept alive: the primary speaks twice within
    /// `timeout` (`wal_sender_timeout` of that link).
    #[must_use]
    pub fn keepalive(self, timeout: &str) -> Self {
        Self { sender_timeout: Some(timeout.to_owned()), ..self }
    }

    /// A line of every server's `pg_hba.conf`, before the ones that are there anyway.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// A file in every server's data directory, such as a certificate and its key.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// The names of the servers: the primary first.
    pub(super) fn names(&self) -> Vec<String> {
        let standbys = (1..=self.standbys).map(|number| format!("standby{number}"));
        std::iter::once("primary".to_owned()).chain(standbys).collect()
    }

    /// The text of a server's configuration file.
    pub(super) fn configuration(&self, server: &str) -> String {
        let mut text = String::from("# Written by pgsteer's sandbox.\n");
        let mut set = |name: &str, value: &str| {
            let value = value.replace('\'', "''");
            text.extend([name, " = '", &value, "'\n"]);
        };
        match self.naming {
            Naming::Clusters => set("cluster_name", server),
            Naming::Links => {
                set("cluster_name", "main");
                set("primary_conninfo", &self.link(server));
            }
        }
        for (name, value) in COMMON {
            set(name, value);
        }
        if self.durability == Durability::Careless {
            set("fsync", "off");
        }
        if self.log == StatementLog::All {
            set("log_statement", "all");
        }
        if self.quorum == Quorum::AnyOne {
            // Of all others: whoever is the primary then waits for one of them.
            let others: Vec<_> = self.names().into_iter().filter(|name| name != server).collect();
            if !others.is_empty() {
                set("synchronous_standby_names", &format!("ANY 1 ({})", others.join(", ")));
            }
        }
        let applies =
            |setting: &&Setting| setting.server.as_deref().is_none_or(|its| its == server);
        for setting in self.settings.iter().filter(applies) {
            set(&setting.name, &setting.value);
        }
        text
    }

    /// How a server receives the log, but from where.
    pub(super) fn link(&self, server: &str) -> String {
        let password = match self.auth {
            Auth::Trust | Auth::Listed => String::new(),
            Auth::Password => format!(" password={SUPERUSER_PASSWORD}"),
        };
        let keepalive = self.sender_timeout.as_ref().map_or_else(String::new, |timeout| {
            format!(" options='-c wal_sender_timeout={timeout}'")
        });
        format!("user={SUPERUSER} application_name={server}{password}{keepalive}")
    }

    /// The text of `pg_hba.conf`.
    pub(super) fn hba_file(&self) -> String {
        let mut text = String::from("# Written by pgsteer's sandbox.\n");
        for line in &self.hba {
            text.extend([line, "\n"]);
        }
        text.extend(["local all ", SUPERUSER, " trust\n"]);
        let method = match self.auth {
            Auth::Trust => "trust",
            Auth::Password => "scram-sha-256",
            Auth::Listed => return text,
        };
        for database in ["all", "replication"] {
            text.extend(["local ", database, " all ", method, "\n"]);
            text.extend(["host ", database, " all 127.0.0.1/32 ", method, "\n"]);
        }
        text
    }
}

/// What every server of ours is told.
const COMMON: [(&str, &str); 19] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    // Three servers at a time, several sets at a time: 16 MiB segments, as few as possible kept.
    ("min_wal_size", "32MB"),
    // A standby that was away finds what it missed.
    ("wal_keep_size", "256MB"),
    ("wal_level", "replica"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("hot_standby", "on"),
    ("wal_receiver_status_interval", "1s"),
    // Default 5 s: a standby that starts before its primary would idle that long.
    ("wal_retrieve_retry_interval", "200ms"),
    // Files in the data directory go away with it; those in /dev/shm outlive a kill -9.
    ("dynamic_shared_memory_type", "mmap"),
    // Until PostgreSQL 13 the default was md5.
    ("password_encryption", "scram-sha-256"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    // When, process, user@database/application: what finds one client's statement.
    ("log_line_prefix", "%m [%p] %q%u@%d/%a "),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    ("timezone", "UTC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_one_server_stays_there_and_later_ones_win() {
        let plan = Plan::new().standbys(1).setting("max_connections", "50").server_setting(
            "standby1",
            "recovery_min_apply_delay",
            "500ms",
        );

        let quorum = plan.clone().standbys(2).quorum(Quorum::AnyOne);
        let names = "synchronous_standby_names = 'ANY 1 (primary, standby2)'";
        assert!(quorum.configuration("standby1").contains(names));
        assert_eq!(plan.names(), ["primary", "standby1"]);
        assert!(!plan.configuration("primary").contains("recovery_min_apply_delay"));
        let standby = plan.configuration("standby1");
        assert!(standby.contains("recovery_min_apply_delay = '500ms'\n"));
        let (ours, wished) = (standby.find("'200'").unwrap(), standby.find("'50'").unwrap());
        assert!(ours < wished, "PostgreSQL takes the last of two");
    }
}
