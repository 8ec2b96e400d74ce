//! How a server is named: `host`, `host:port`, `[::1]:5432`, `/socket/dir`, or a
//! `postgresql://` URI, which may name several and say who logs in.
//!
//! Source: PostgreSQL manual, 34.1.1.2 "Connection URIs".

use crate::backend::ChannelBinding;
use crate::backend::Secret;
use crate::backend::SslMode;
use crate::backend::SslNegotiation;
use crate::config::node::Entry;
use crate::config::node::Kind;
use crate::config::node::Node;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::problem::mask_uri;
use crate::config::setting::Choice;
use crate::config::setting::Setting;
use crate::config::setting::items;
use crate::config::setting::nearest;
use crate::config::setting::quoted;
use crate::config::setting::text;
use crate::failover::Tags;
use std::net::Ipv6Addr;

/// PostgreSQL's port.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Host name, address without brackets, or the directory of a unix socket.
    pub(super) host: String,
    /// TCP port, or the number in the socket's name.
    pub(super) port: u16,
}

impl Address {
    /// `host:port`, as in metrics and logs.
    pub(super) fn name(&self) -> String {
        let Self { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// What a URI says beside the address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UriLogin {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<String>,
    pub(super) sslmode: Option<SslMode>,
    pub(super) channel_binding: Option<ChannelBinding>,
    pub(super) sslnegotiation: Option<SslNegotiation>,
}

/// One server of `servers.hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) address: Address,
    pub(super) login: UriLogin,
    pub(super) place: Place,
}

/// `servers.hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hosts(pub(super) Vec<Host>);

impl Setting for Hosts {
    fn form() -> String {
        "list of \"HOST[:PORT]\", \"/SOCKET/DIR[:PORT]\" or \"postgresql://...\"".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let items = match &node.kind {
            // The commas of a URI are its own.
            Kind::Word(word) if is_uri(word) => vec![node.clone()],
            Kind::Word(_)
            | Kind::Text(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Bool(_)
            | Kind::DateTime
            | Kind::List(_)
            | Kind::Table(_) => items(node, notes)?,
        };
        let mut hosts = Vec::new();
        let mut all_read = true;
        for item in items {
            match one(&item, notes) {
                Some(found) => hosts.extend(found),
                None => all_read = false,
            }
        }
        all_read.then_some(Self(hosts))
    }

    fn write(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|host| quoted(&host.address.name())).collect();
        format!("[{}]", names.join(", "))
    }
}

fn is_uri(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

fn one(node: &Node, notes: &mut Notes) -> Option<Vec<Host>> {
    let written = text(node, notes)?.trim();
    let read = if is_uri(written) {
        uri(written)
    } else {
        address(written).map(|address| (vec![address], UriLogin::default()))
    };
    match read {
        Ok((addresses, login)) => Some(
            addresses
                .into_iter()
                .map(|address| Host { address, login: login.clone(), place: node.place.clone() })
                .collect(),
        ),
        Err(Wrong { what, help }) => {
            notes.error(&node.place, format!("`{}` {what}", mask_uri(written)), help);
            None
        }
    }
}

/// Why a server's name was not understood.
#[derive(Debug)]
pub(super) struct Wrong {
    what: String,
    help: String,
}

fn wrong<T>(what: &str, help: &str) -> Result<T, Wrong> {
    Err(Wrong { what: what.to_owned(), help: help.to_owned() })
}

/// Reads `HOST[:PORT]`, `[V6][:PORT]` or `/DIR[:PORT]`.
pub(super) fn address(written: &str) -> Result<Address, Wrong> {
    let like =
        "write \"HOST\", \"HOST:PORT\", \"[::1]:5432\", \"/socket/dir\" or a postgresql:// URI";
    if written.contains("://") {
        return wrong("is not a server's address", "only postgresql:// URIs are understood");
    }
    if written.contains('=') {
        return wrong("is not a server's address", like);
    }
    if written.parse::<Ipv6Addr>().is_ok() {
        return Ok(Address { host: written.to_owned(), port: DEFAULT_PORT });
    }
    let (host, port) = if let Some(rest) = written.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return wrong("has no closing bracket", like);
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return wrong("has something else than an IPv6 address in its brackets", like);
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return wrong("has something after its brackets", like),
        }
    } else {
        match written.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (written, None),
        }
    };
    if host.is_empty() {
        return wrong("names no host", like);
    }
    let is_name = |sign: char| sign.is_alphanumeric() || ".-_:%".contains(sign);
    if !host.starts_with('/') && !host.chars().all(is_name) {
        return wrong("is not a server's address", like);
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => port_number(port)?,
    };
    if host.contains(':') && !written.starts_with('[') {
        return wrong(
            "is not a server's address",
            "write an IPv6 address in brackets: \"[::1]:5432\"",
        );
    }
    Ok(Address { host: host.to_owned(), port })
}

fn port_number(text: &str) -> Result<u16, Wrong> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|digit| digit.is_ascii_digit()) => Ok(port),
        Ok(_) | Err(_) => wrong("has no valid port", "a port is a number from 1 to 65535"),
    }
}

/// Reads `postgresql://[USER[:PASSWORD]@][HOST[:PORT],...][/DATABASE][?NAME=VALUE&...]`.
fn uri(written: &str) -> Result<(Vec<Address>, UriLogin), Wrong> {
    let rest = written.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, list) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user, None),
    };
    let mut login = UriLogin {
        user: given(user)?,
        password: given(password.unwrap_or(""))?.map(Secret::new),
        database: given(database)?,
        sslmode: None,
        channel_binding: None,
        sslnegotiation: None,
    };
    let mut hosts = Vec::new();
    for host in list.split(',').filter(|host| !host.is_empty()) {
        let host = decoded(host)?;
        // `postgresql://:5433` is libpq's default host; what that is depends on its build.
        hosts.push(address(&host)?);
    }
    let mut port = None;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decoded(value)?;
        match name {
            "user" => login.user = Some(value),
            "password" => login.password = Some(Secret::new(value)),
            "dbname" => login.database = Some(value),
            "sslmode" => login.sslmode = Some(choice(name, &value)?),
            "channel_binding" => login.channel_binding = Some(choice(name, &value)?),
            "sslnegotiation" => login.sslnegotiation = Some(choice(name, &value)?),
            "host" => hosts.push(address(&value)?),
            "port" => port = Some(port_number(&value)?),
            _ => return unknown_parameter(name),
        }
    }
    if let (Some(port), [only]) = (port, hosts.as_mut_slice()) {
        only.port = port;
    }
    if hosts.is_empty() {
        return wrong("names no host", "");
    }
    Ok((hosts, login))
}

fn unknown_parameter<T>(name: &str) -> Result<T, Wrong> {
    let known = [
        "user",
        "password",
        "dbname",
        "sslmode",
        "sslnegotiation",
        "channel_binding",
        "host",
        "port",
    ];
    let help = nearest(name, &known).map_or_else(
        || format!("here a URI can have: {}; the rest is set in [servers]", known.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    Err(Wrong { what: format!("has an unknown parameter `{name}`"), help })
}

fn choice<T: Choice>(name: &str, word: &str) -> Result<T, Wrong> {
    match T::WORDS.iter().find(|(_, known)| *known == word) {
        Some((value, _)) => Ok(*value),
        None => wrong(&format!("has an unknown {name}"), &T::form()),
    }
}

/// A part of a URI that may be absent.
fn given(part: &str) -> Result<Option<String>, Wrong> {
    if part.is_empty() { Ok(None) } else { decoded(part).map(Some) }
}

/// Undoes percent-encoding (RFC 3986, 2.1).
fn decoded(part: &str) -> Result<String, Wrong> {
    let help = "in a URI, a percent sign is written %25";
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match value {
            Some(value) if value != 0 => bytes.push(value),
            Some(_) | None => return wrong("has a bad percent-encoding", help),
        }
    }
    String::from_utf8(bytes).or_else(|_| wrong("is not UTF-8 behind its percent-encoding", help))
}

/// One section `[servers.overrides."host:port"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) address: Address,
    pub(super) own: Own,
    pub(super) place: Place,
}

/// What differs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) weight: u32,
    pub(super) priority: u32,
    pub(super) replication_address: Option<Address>,
}

impl Default for Own {
    fn default() -> Self {
        Self { weight: 1, priority: Tags::default().priority, replication_address: None }
    }
}

impl Own {
    const KEYS: [&'static str; 3] = ["weight", "priority", "replication_address"];

    /// What differs, as TOML.
    fn write(&self) -> String {
        let usual = Self::default();
        let mut parts = Vec::new();
        if self.weight != usual.weight {
            parts.push(format!("weight = {}", self.weight));
        }
        if self.priority != usual.priority {
            parts.push(format!("priority = {}", self.priority));
        }
        if let Some(address) = &self.replication_address {
            parts.push(format!("replication_address = {}", quoted(&address.name())));
        }
        format!("{{ {} }}", parts.join(", ")).replace("{  }", "{}")
    }
}

/// `servers.overrides`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overrides(pub(super) Vec<Override>);

impl Setting for Overrides {
    fn form() -> String {
        "a section for each server that differs: weight = number, priority = number, \
         replication_address = \"HOST[:PORT]\""
            .to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let Kind::Table(entries) = &node.kind else {
            let message = format!("expected a section, found {}", node.describe());
            notes.error(&node.place, message, "write [servers.overrides.\"HOST:PORT\"]");
            return None;
        };
        let read: Vec<Override> =
            entries.iter().filter_map(|entry| override_of(entry, notes)).collect();
        (read.len() == entries.len()).then_some(Self(read))
    }

    fn write(&self) -> String {
        let each = self
            .0
            .iter()
            .map(|one| format!("{} = {}", quoted(&one.address.name()), one.own.write()));
        format!("{{ {} }}", each.collect::<Vec<_>>().join(", ")).replace("{  }", "{}")
    }
}

fn override_of(entry: &Entry, notes: &mut Notes) -> Option<Override> {
    let Entry { name, name_place, node } = entry;
    let address = match address(name) {
        Ok(address) => address,
        Err(Wrong { what, help }) => {
            notes.error(name_place, format!("`{name}` {what}"), help);
            return None;
        }
    };
    let Kind::Table(entries) = &node.kind else {
        let message = format!("expected a section, found {}", node.describe());
        let help = "write [servers.overrides.\"HOST:PORT\"] with the dots of the host in quotes";
        notes.error(&node.place, message, help);
        return None;
    };
    let mut own = Some(Own::default());
    for entry in entries {
        let understood = own_key(name, entry, own.as_mut(), notes);
        own = own.filter(|_| understood.is_some());
    }
    let place = name_place.clone();
    own.map(|own| Override { address, own, place })
}

/// Reads one key of the section of `server`; `None` if something is wrong with it.
fn own_key(server: &str, entry: &Entry, own: Option<&mut Own>, notes: &mut Notes) -> Option<()> {
    // After a mistake the rest is read for its own mistakes.
    let mut rest = Own::default();
    let own = own.unwrap_or(&mut rest);
    match entry.name.as_str() {
        "weight" => own.weight = u32::read(&entry.node, notes)?,
        "priority" => own.priority = u32::read(&entry.node, notes)?,
        "replication_address" => own.replication_address = Some(tcp(&entry.node, notes)?),
        unknown => {
            let help = match entry.node.kind {
                Kind::Table(_) => {
                    format!("put the whole address in quotes: \"{server}.{unknown}\"")
                }
                Kind::Text(_)
                | Kind::Word(_)
                | Kind::Integer(_)
                | Kind::Float(_)
                | Kind::Bool(_)
                | Kind::DateTime
                | Kind::List(_) => nearest(unknown, &Own::KEYS).map_or_else(
                    || format!("a server has these keys of its own: {}", Own::KEYS.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                ),
            };
            notes.error(&entry.name_place, format!("unknown key `{unknown}`"), help);
            return None;
        }
    }
    Some(())
}

/// An address that servers can reach from one another.
fn tcp(node: &Node, notes: &mut Notes) -> Option<Address> {
    let written = text(node, notes)?.trim();
    let problem = match address(written) {
        Ok(address) if !address.host.starts_with('/') => return Some(address),
        Ok(_) => Wrong {
            what: "is a unix socket".to_owned(),
            help: "other servers reach it by HOST or HOST:PORT".to_owned(),
        },
        Err(wrong) => wrong,
    };
    notes.error(&node.place, format!("`{written}` {}", problem.what), problem.help);
    None
}
