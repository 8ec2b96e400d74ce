//! The layers - defaults, file, environment, flags - as one list of values per key.
//!
//! Every value of every layer is checked, also one that a later layer overrides: a mistake in
//! the file should not come to light on the day when the variable is removed.

use crate::config::changes::Shown;
use crate::config::changes::Source;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::node::Entry;
use crate::config::node::Kind;
use crate::config::node::Node;
use crate::config::node::entries;
use crate::config::node::env_place;
use crate::config::node::flag_place;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::problem::SourceFile;
use crate::config::setting::Setting;
use crate::config::setting::nearest;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use toml::de::DeTable;

/// The prefix of our variables; a section and a key are joined by two underscores.
const PREFIX: &str = "PGSTEER_";

/// A value of the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag, for messages: `--listen`, `--set pool.size`. Never holds the value.
    pub name: String,
    /// The key that it sets.
    pub key: String,
    /// The value, as written.
    pub value: String,
}

impl fmt::Debug for Flag {
    /// Without the value: it may be a secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Flag({} -> {})", self.name, self.key)
    }
}

/// A value and where it comes from.
#[derive(Debug)]
pub(super) struct Got<T> {
    pub(super) value: T,
    pub(super) place: Place,
    /// Whether a mistake was noted, so that the value is only the default in its place: rules
    /// across keys must not complain about that as well.
    pub(super) broken: bool,
}

impl<T> Got<T> {
    /// Whether nobody said anything.
    pub(super) fn is_default(&self) -> bool {
        self.place == Place::Nowhere
    }
}

/// All layers, being read.
#[derive(Default)]
pub(super) struct Layers {
    /// By key, lowest layer first.
    values: BTreeMap<String, Vec<Node>>,
    pub(super) notes: Notes,
    pub(super) shown: Vec<Shown>,
    /// Whether the file could not be understood, so that what it says is not known.
    pub(super) file_broken: bool,
}

impl Layers {
    /// No layers yet; `notes` has what was wrong with the bytes of the file.
    pub(super) fn new(notes: Notes) -> Self {
        Self { file_broken: notes.has_errors(), notes, ..Self::default() }
    }

    /// Adds the file, unless it is no text.
    pub(super) fn add_file(&mut self, text: &str) {
        if self.file_broken {
            return;
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            self.notes.error(&Place::file(&span), error.message().to_owned(), "");
        }
        // What the parser makes of a broken text may lack half of it: more complaints about that
        // would mislead.
        self.file_broken = !errors.is_empty();
        if errors.is_empty() {
            self.add_table("", entries(table.get_ref()));
        }
    }

    fn add_table(&mut self, prefix: &str, entries: Vec<Entry>) {
        for Entry { name, name_place, node } in entries {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if keys::find(&path).is_some() {
                self.values.entry(path).or_default().push(node);
                continue;
            }
            let below = keys::below(&path);
            if below.is_empty() || name.is_empty() || name.contains('.') {
                self.unknown(prefix, &name, &name_place);
                continue;
            }
            if let Kind::Table(entries) = node.kind {
                self.add_table(&path, entries);
            } else {
                let message = format!("`{path}` is a section, found {}", node.describe());
                let help = if prefix.is_empty() {
                    format!("write [{path}] with these keys: {}", below.join(", "))
                } else {
                    format!("write {name} = {{ {} }}", with_defaults(&path))
                };
                self.notes.error(&node.place, message, help);
            }
        }
    }

    fn unknown(&mut self, prefix: &str, name: &str, place: &Place) {
        let siblings = keys::below(prefix);
        let message = match prefix {
            "" => format!("unknown key `{name}`"),
            prefix => format!("unknown key `{name}` in [{prefix}]"),
        };
        self.notes.error(place, message, did_you_mean(name, &siblings));
    }

    /// Adds the environment.
    pub(super) fn add_env(&mut self, env: &BTreeMap<String, String>) {
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let key = rest.replace("__", ".").to_ascii_lowercase();
            let place = env_place(name);
            if keys::find(&key).is_some() {
                self.values.entry(key).or_default().push(Node::word(value, &place));
            } else if rest.contains("__") {
                let (message, help) = unknown_name(&key);
                let help = help.map_or_else(String::new, |near| {
                    format!(
                        "did you mean {PREFIX}{}?",
                        near.replace('.', "__").to_ascii_uppercase()
                    )
                });
                self.notes.error(&place, message, help);
            }
        }
    }

    /// Adds the command line. Of one key given several times, `--server` and `--listen` add up,
    /// anything else counts last.
    pub(super) fn add_flags(&mut self, flags: &[Flag]) {
        let mut lists: BTreeMap<&str, Node> = BTreeMap::new();
        for flag in flags {
            let place = flag_place(&flag.name);
            if keys::find(&flag.key).is_none() {
                let (message, help) = unknown_name(&flag.key);
                let help = help.map_or_else(
                    || "`pgsteer config reference` lists every key".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                self.notes.error(&place, message, help);
                continue;
            }
            if flag.name.starts_with("--set")
                || !["servers.hosts", "listen"].contains(&flag.key.as_str())
            {
                let node = Node::word(&flag.value, &place);
                self.values.entry(flag.key.clone()).or_default().push(node);
                continue;
            }
            let list = lists
                .entry(flag.key.as_str())
                .or_insert_with(|| Node { place: place.clone(), kind: Kind::List(Vec::new()) });
            if let Kind::List(items) = &mut list.kind {
                // The commas of a URI are its own.
                let split = if flag.value.contains("://") { None } else { Some(',') };
                let each = flag.value.split(|sign| Some(sign) == split).map(str::trim);
                items.extend(each.map(|item| Node::word(item, &place)));
            }
        }
        for (key, list) in lists {
            self.values.entry(key.to_owned()).or_default().push(list);
        }
    }

    /// The value of a key: the highest layer's, else the default.
    pub(super) fn get<T: Setting>(&mut self, key: &Key<T>, file: Option<&SourceFile>) -> Got<T> {
        let mut got = Got { value: (key.default)(), place: Place::Nowhere, broken: false };
        for node in self.values.remove(key.name).unwrap_or_default() {
            match key.read(&node, &mut self.notes) {
                Some(value) => got = Got { value, place: node.place, broken: got.broken },
                None => got.broken = true,
            }
        }
        self.shown.push(Shown {
            key: key.name,
            value: got.value.write(),
            default: (key.default)().write(),
            source: source(&got.place, file),
        });
        got
    }
}

fn source(place: &Place, file: Option<&SourceFile>) -> Source {
    match (place, file) {
        (Place::File { start, .. }, Some(file)) => {
            Source::File { path: Arc::from(file.path.as_str()), line: file.line(*start) }
        }
        (Place::Env(name), _) => Source::Env(Arc::clone(name)),
        (Place::Flag(name), _) => Source::Flag(Arc::clone(name)),
        (Place::File { .. } | Place::Nowhere, _) => Source::Default,
    }
}

/// What PgBouncer's users, and everybody at first, would write.
const OUR_NAMES: &[(&str, &str)] = &[
    ("auth_file", "auth.file"),
    ("auth_query", "auth.query"),
    ("auth_type", "auth.method"),
    ("client_login_timeout", "limits.login_timeout"),
    ("client_tls_cert_file", "tls.cert"),
    ("client_tls_key_file", "tls.key"),
    ("client_tls_sslmode", "tls.mode"),
    ("dbname", "servers.database"),
    ("default_pool_size", "pool.size"),
    ("listen_addr", "listen"),
    ("listen_port", "listen"),
    ("max_client_conn", "pool.max_clients"),
    ("pool_mode", "pool.mode"),
    ("pool_size", "pool.size"),
    ("query_wait_timeout", "pool.wait_timeout"),
    ("server_idle_timeout", "pool.idle_timeout"),
    ("server_lifetime", "pool.max_lifetime"),
    ("server_reset_query", "pool.reset"),
    ("server_tls_ca_file", "servers.sslrootcert"),
    ("server_tls_sslmode", "servers.sslmode"),
    ("unix_socket_dir", "listen"),
];

fn with_defaults(section: &str) -> String {
    let keys = keys::ALL.iter().filter_map(|key| {
        let name = key.name().strip_prefix(section)?.strip_prefix('.')?;
        Some(format!("{name} = {}", key.default_text()))
    });
    keys.collect::<Vec<_>>().join(", ")
}

fn did_you_mean(name: &str, siblings: &[&str]) -> String {
    if ["role", "primary", "standbys"].contains(&name) {
        return "roles are discovered, never declared".to_owned();
    }
    if let Some((_, ours)) = OUR_NAMES.iter().find(|(theirs, _)| *theirs == name) {
        return format!("here it is called `{ours}`");
    }
    if let Some(near) = nearest(name, siblings) {
        return format!("did you mean `{near}`?");
    }
    // Right key, wrong section.
    let elsewhere = keys::ALL
        .iter()
        .map(|key| key.name())
        .find(|key| key.rsplit_once('.').is_some_and(|(_, last)| last == name));
    match elsewhere.and_then(|key| key.rsplit_once('.')) {
        Some((section, _)) => format!("`{name}` belongs to [{section}]"),
        None => format!("known here: {}", siblings.join(", ")),
    }
}

fn unknown_name(key: &str) -> (String, Option<&'static str>) {
    let names: Vec<&'static str> = keys::ALL.iter().map(|key| key.name()).collect();
    let (section, last) = key.split_once('.').unwrap_or(("", key));
    // The likeness of whole names is dominated by their sections: compare within one, first.
    let siblings: Vec<&'static str> = names
        .iter()
        .copied()
        .filter(|name| name.split_once('.').is_some_and(|(s, _)| s == section))
        .collect();
    let short: Vec<&'static str> =
        siblings.iter().filter_map(|name| name.split_once('.').map(|(_, rest)| rest)).collect();
    let within = nearest(last, &short).and_then(|near| {
        siblings
            .iter()
            .copied()
            .find(|name| name.split_once('.').is_some_and(|(_, rest)| rest == near))
    });
    (format!("unknown key `{key}`"), within.or_else(|| nearest(key, &names)))
}
