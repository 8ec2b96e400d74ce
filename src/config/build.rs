//! From layers of values to one checked [`Config`]: the rules across keys live here.

use crate::backend::TlsPolicy;
use crate::config::choices::TlsMode;
use crate::config::hosts::Host;
use crate::config::hosts::Hosts;
use crate::config::hosts::Overrides;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::layers::Got;
use crate::config::layers::Layers;
use crate::config::listen::At;
use crate::config::listen::CLIENT_PORT;
use crate::config::listen::Listeners;
use crate::config::login;
use crate::config::login::Said;
use crate::config::problem::NAME_A_FILE;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::problem::SourceFile;
use crate::config::secret;
use crate::config::setting::Setting;
use crate::config::state;
use crate::config::types::ClientTls;
use crate::config::types::ClientTlsMode;
use crate::config::types::Config;
use crate::config::types::ControlLogin;
use crate::config::types::Limits;
use crate::config::types::Listen;
use crate::config::types::ListenAt;
use crate::config::types::Observability;
use crate::config::types::ServerConfig;
use crate::control;
use crate::failover;
use crate::pool;
use crate::route;
use crate::route::LagLimit;
use crate::route::RoleWish;
use crate::topology::MAX_SERVERS;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What helps where a list has the same twice.
const NAME_IT_ONCE: &str = "name it once";

/// Reads every key and checks the rules across keys.
pub(super) struct Builder<'b> {
    pub(super) layers: Layers,
    pub(super) file: Option<&'b SourceFile>,
    pub(super) env: &'b BTreeMap<String, String>,
}

impl Builder<'_> {
    pub(super) fn get<T: Setting>(&mut self, key: &Key<T>) -> Got<T> {
        self.layers.get(key, self.file)
    }

    /// A key whose place nobody needs.
    fn value<T: Setting>(&mut self, key: &Key<T>) -> T {
        self.get(key).value
    }

    pub(super) fn notes(&mut self) -> &mut Notes {
        &mut self.layers.notes
    }

    /// Builds it; what is `None`, or built on a default in place of a mistake, was noted.
    ///
    /// The sections are read in the order of the table, which is the order of `sources`.
    pub(super) fn build(mut self) -> (Option<Config>, Notes) {
        let listeners = self.get(&keys::LISTEN);
        let http = self.value(&keys::HTTP).0;
        let tls = self.tls();
        let servers = self.servers();
        let auth = self.auth(&listeners, tls.as_ref());
        let pool = self.pool();
        let routing = self.routing(&servers);
        let failover = self.failover(&routing);
        let state_dir = self.state_dir();
        let peers = self.peers(&listeners);
        let listen = self.listen(&listeners);
        let limits = self.limits(&listen);
        let observability = Observability {
            log: self.value(&keys::LOG),
            log_level: self.value(&keys::LOG_LEVEL),
            cores: self.value(&keys::CORE_DUMPS),
        };
        let Servers { list, tls: server_tls, login, mut control, .. } = servers;
        control.max_lag = routing.max_lag;
        control.observation_age_max = routing.observation_age_max;
        let Layers { notes, shown, .. } = self.layers;
        let config = login.filter(|_| !notes.has_errors()).map(|control_login| Config {
            listen,
            http,
            tls,
            servers: list,
            server_tls,
            control_login,
            control,
            auth,
            pool,
            routing,
            failover,
            state_dir,
            peers,
            limits,
            observability,
            sources: shown,
        });
        (config, notes)
    }

    fn listen(&mut self, listeners: &Got<Listeners>) -> Vec<Listen> {
        let tcp = |role| {
            let mut alike = listeners.value.0.iter().filter(|listener| listener.role == role);
            alike.find_map(|listener| match &listener.at {
                At::Tcp(address) => Some(address.port()),
                At::Unix(_) => None,
            })
        };
        let mut seen = BTreeSet::new();
        let mut listen = Vec::new();
        for listener in &listeners.value.0 {
            let role = listener.role;
            let at = match &listener.at {
                At::Tcp(address) => ListenAt::Tcp(*address),
                At::Unix(directory) => {
                    let port = tcp(role).or(tcp(RoleWish::Auto)).unwrap_or(CLIENT_PORT);
                    ListenAt::Unix { directory: directory.clone(), port }
                }
            };
            let one = Listen { at, role };
            if !seen.insert(one.at.clone()) {
                let message = format!("`{one}` is listed twice");
                self.notes().error(&listener.place, message, NAME_IT_ONCE);
            }
            listen.push(one);
        }
        listen
    }

    fn tls(&mut self) -> Option<ClientTls> {
        let mode = self.get(&keys::TLS_MODE);
        let cert = self.get(&keys::TLS_CERT);
        let key = self.get(&keys::TLS_KEY);
        let client_ca = self.get(&keys::TLS_CLIENT_CA);
        if let Some(path) = &client_ca.value {
            self.readable(path, &client_ca.place);
        }
        let checked = match mode.value {
            TlsMode::Disable => return None,
            TlsMode::Prefer => ClientTlsMode::Prefer,
            TlsMode::Require => ClientTlsMode::Require,
        };
        match (&cert.value, &key.value) {
            (Some(cert_path), Some(key_path)) => {
                self.readable(cert_path, &cert.place);
                if let Some(about) = self.readable(key_path, &key.place) {
                    self.private(key_path, about, &key.place);
                }
                let (cert, key) = (cert_path.clone(), key_path.clone());
                Some(ClientTls { mode: checked, cert, key, client_ca: client_ca.value })
            }
            (Some(_), None) => self.alone(&cert.place, "`tls.cert` is set, `tls.key` is not"),
            (None, Some(_)) => self.alone(&key.place, "`tls.key` is set, `tls.cert` is not"),
            (None, None) if checked == ClientTlsMode::Require => {
                self.alone(&mode.place, "TLS is required, but there is no certificate")
            }
            (None, None) if client_ca.value.is_some() => {
                let message = "`tls.client_ca` is set, but there is no certificate of our own";
                self.alone(&client_ca.place, message)
            }
            (None, None) => None,
        }
    }

    fn alone(&mut self, place: &Place, message: &str) -> Option<ClientTls> {
        self.notes().error(place, message.to_owned(), "set both tls.cert and tls.key");
        None
    }

    /// Checks that a file can be read; its mode.
    pub(super) fn readable(&mut self, path: &Path, place: &Place) -> Option<u32> {
        let about = File::open(path).and_then(|file| file.metadata()).and_then(|about| {
            if about.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok(about) }
        });
        match about {
            Ok(about) => Some(about.mode()),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                self.notes().error(place, message, NAME_A_FILE);
                None
            }
        }
    }

    pub(super) fn private(&mut self, path: &Path, mode: u32, place: &Place) {
        if secret::open_to_others(mode) {
            let shown = path.display();
            let message = format!("{shown} has mode {:04o}: others can read it", mode & 0o7777);
            self.notes().warning(place, message, format!("chmod 0640 {shown}"));
        }
    }

    fn servers(&mut self) -> Servers {
        let hosts = self.get(&keys::HOSTS);
        let user = self.value(&keys::USER);
        let password = self.get(&keys::PASSWORD);
        let database = self.value(&keys::DATABASE);
        let tls = self.server_tls(&hosts.value);
        let control = self.watching();
        let overrides = self.get(&keys::OVERRIDES);
        self.host_rules(&hosts, &overrides);

        let env = self.env;
        let password = password.value.fetch(env, &password.place, self.notes());
        let said = Said { user, password, database };
        let login = login::find(said, &hosts.value.0, env, self.notes());
        let list = self.server_list(&hosts.value, &overrides.value, login.as_ref());
        let check_interval = control.interval;
        Servers { list, tls, login, control: control.policy, check_interval }
    }

    fn watching(&mut self) -> Watching {
        let interval = self.get(&keys::CHECK_INTERVAL);
        let policy = control::Policy {
            check_interval: interval.value,
            check_timeout: self.value(&keys::CHECK_TIMEOUT),
            gone_after: self.value(&keys::GONE_AFTER),
            silent_after: self.value(&keys::SILENT_AFTER),
            ..control::Policy::default()
        };
        Watching { policy, interval }
    }

    fn host_rules(&mut self, hosts: &Got<Hosts>, overrides: &Got<Overrides>) {
        let list = &hosts.value.0;
        if list.is_empty() && !hosts.broken && !self.layers.file_broken {
            let help = "name them: --server HOST, or hosts = [\"HOST\"] in [servers]";
            self.notes().error(&hosts.place, "there are no servers".to_owned(), help);
        }
        if list.len() > MAX_SERVERS {
            let message = format!("{} servers are too many: at most {MAX_SERVERS}", list.len());
            self.notes().error(&hosts.place, message, "");
        }
        let mut names = BTreeSet::new();
        for host in list {
            let name = host.address.name();
            if names.contains(&name) {
                let message = format!("`{name}` is listed twice");
                self.notes().error(&host.place, message, NAME_IT_ONCE);
            }
            names.insert(name);
        }
        let mut overridden = BTreeSet::new();
        for one in &overrides.value.0 {
            let name = one.address.name();
            if !names.contains(&name) && !list.is_empty() {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let help = format!("servers.hosts has: {}", known.join(", "));
                self.notes().error(&one.place, format!("no server is called `{name}`"), help);
            }
            if !overridden.insert(name) {
                let message = "this server has two sections".to_owned();
                self.notes().error(&one.place, message, "write all that is about it in one");
            }
        }
    }

    fn server_list(
        &mut self,
        hosts: &Hosts,
        overrides: &Overrides,
        login: Option<&ControlLogin>,
    ) -> Vec<ServerConfig> {
        let asked = login.filter(|login| login.password.is_none());
        let passfile = asked.and_then(|_| login::passfile(self.env, &mut self.layers.notes));
        let one = |host: &Host| {
            let own = overrides.0.iter().find(|one| one.address == host.address);
            let own = own.map(|own| own.own.clone()).unwrap_or_default();
            let reached = own.replication_address.as_ref().unwrap_or(&host.address);
            let found = passfile.as_deref().zip(login);
            ServerConfig {
                name: Arc::from(host.address.name()),
                host: Arc::from(host.address.host.as_str()),
                port: host.address.port,
                weight: own.weight,
                priority: own.priority,
                replication_address: (Arc::from(reached.host.as_str()), reached.port),
                passfile_password: found
                    .and_then(|(file, login)| login::password_of(file, host, login)),
            }
        };
        hosts.0.iter().map(one).collect()
    }

    fn pool(&mut self) -> pool::Policy {
        pool::Policy {
            mode: self.value(&keys::POOL_MODE),
            size: self.value(&keys::POOL_SIZE),
            max_clients: self.value(&keys::MAX_CLIENTS),
            wait_timeout: self.value(&keys::WAIT_TIMEOUT),
            idle_timeout: self.value(&keys::IDLE_TIMEOUT),
            max_lifetime: self.value(&keys::MAX_LIFETIME),
            reset: self.value(&keys::RESET),
            unnamed: self.value(&keys::UNNAMED_STATEMENTS),
            audit_every: self.value(&keys::AUDIT_EVERY),
        }
    }

    fn routing(&mut self, servers: &Servers) -> route::Policy {
        let reads = self.value(&keys::READS);
        let consistency = self.value(&keys::CONSISTENCY);
        let time = self.value(&keys::MAX_LAG_TIME).limit();
        let bytes = self.value(&keys::MAX_LAG_BYTES).limit().map(|bytes| bytes.0);
        let on_all_stale = self.value(&keys::ON_ALL_STALE);
        let balance = self.value(&keys::BALANCE);
        let replay_wait_max = self.value(&keys::REPLAY_WAIT_MAX);
        let age = self.get(&keys::OBSERVATION_AGE_MAX);
        let interval = servers.control.check_interval;
        if age.value <= interval && !age.broken && !servers.check_interval.broken {
            // Whoever said one of the two is told; the default is nobody's mistake.
            let place = if age.is_default() { &servers.check_interval.place } else { &age.place };
            let message = format!(
                "routing.observation_age_max ({}) must be longer than servers.check_interval ({})",
                age.value.write().trim_matches('"'),
                interval.write().trim_matches('"'),
            );
            let help = "or every standby counts as unseen between two looks at it";
            self.notes().error(place, message, help);
        }
        route::Policy {
            reads,
            consistency,
            max_lag: LagLimit { bytes, time },
            on_all_stale,
            balance,
            replay_wait_max,
            observation_age_max: age.value,
            hold_max: self.value(&keys::HOLD_MAX),
            hold_memory: self.value(&keys::HOLD_MEMORY).0,
            read_functions: self.value(&keys::READ_FUNCTIONS),
            write_functions: self.value(&keys::WRITE_FUNCTIONS),
        }
    }

    fn failover(&mut self, routing: &route::Policy) -> failover::Policy {
        let mode = self.value(&keys::FAILOVER_MODE);
        let profile = self.value(&keys::FAILOVER_PROFILE);
        let max_data_loss = self.value(&keys::MAX_DATA_LOSS);
        let drain = self.get(&keys::FAILOVER_DRAIN_TIMEOUT);
        if drain.value >= routing.hold_max && !drain.is_default() {
            let message = format!(
                "failover.drain_timeout ({}) is not shorter than routing.hold_max ({})",
                drain.value.write().trim_matches('"'),
                routing.hold_max.write().trim_matches('"'),
            );
            let help = "statements that wait for a switchover may fail with SQLSTATE 57P03";
            self.notes().warning(&drain.place, message, help.to_owned());
        }
        failover::Policy {
            mode,
            max_data_loss,
            drain_timeout: drain.value,
            demotion: self.value(&keys::DEMOTE),
            rejoin: self.value(&keys::REJOIN),
            ..failover::Policy::of(profile)
        }
    }

    fn state_dir(&mut self) -> Option<PathBuf> {
        let named = self.value(&keys::STATE_DIR);
        let found = named.or_else(|| state::directory(self.env, state::Runner::of_process()))?;
        // It stays the same place wherever we are.
        Some(std::path::absolute(&found).unwrap_or(found))
    }

    fn limits(&mut self, listen: &[Listen]) -> Limits {
        let login_timeout = self.value(&keys::LOGIN_TIMEOUT);
        let login_failure_delay = self.value(&keys::LOGIN_FAILURE_DELAY);
        let rules = self.get(&keys::LIMIT_RULES);
        let names: Vec<String> = listen.iter().map(|listen| listen.at.to_string()).collect();
        for unknown in rules.value.0.iter().filter_map(|rule| rule.who.listener.as_deref()) {
            if !names.iter().any(|name| name == unknown) {
                let message = format!("`{unknown}` is no address where we listen");
                let help = format!("a rule can be about: {}", names.join(", "));
                self.notes().error(&rules.place, message, help);
            }
        }
        Limits {
            login_timeout,
            login_failure_delay,
            rules: Arc::new(rules.value),
            shards: usize::try_from(self.value(&keys::SHARDS)).ok().and_then(NonZeroUsize::new),
            scheduling: self.value(&keys::SCHEDULING),
            drain_delay: self.value(&keys::DRAIN_DELAY),
            drain_timeout: self.value(&keys::DRAIN_TIMEOUT),
        }
    }
}

/// `[servers]`, checked.
#[derive(Debug)]
struct Servers {
    list: Vec<ServerConfig>,
    tls: TlsPolicy,
    login: Option<ControlLogin>,
    control: control::Policy,
    check_interval: Got<Duration>,
}

/// How the servers are watched, and who said how often.
#[derive(Debug)]
struct Watching {
    policy: control::Policy,
    interval: Got<Duration>,
}
