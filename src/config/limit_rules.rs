//! `limits.rules`: whom a limit is about, and what they may take.

use crate::config::node::{Entry, Kind, Node};
use crate::config::problem::Notes;
use crate::config::setting::Bytes;
use crate::config::setting::Setting;
use crate::config::setting::items;
use crate::config::setting::nearest;
use crate::config::setting::quoted;
use crate::config::setting::text;
use crate::limits::{Bounds, Each, Rule, Rules, Times};
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// What a rule may say, in the order in which it is written.
const NAMES: [&str; 15] = [
    "user",
    "database",
    "address",
    "listener",
    "each",
    "connections",
    "login_timeout",
    "idle_timeout",
    "idle_in_transaction_timeout",
    "transaction_timeout",
    "query_timeout",
    "max_message",
    "max_statement",
    "max_prepared",
    "max_memory",
];

/// The words of `each`.
const EACH: [(Each, &str); 4] = [
    (Each::User, "user"),
    (Each::Database, "database"),
    (Each::Address, "address"),
    (Each::Listener, "listener"),
];

impl Setting for Rules {
    fn form() -> String {
        "list of { user, database, address, listener, each, LIMIT = ... }".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let items = items(node, notes)?;
        let rules: Vec<Rule> = items.iter().filter_map(|item| rule(item, notes)).collect();
        (rules.len() == items.len()).then_some(Self(rules))
    }

    fn write(&self) -> String {
        let rules: Vec<String> = self.0.iter().map(written).collect();
        format!("[{}]", rules.join(", "))
    }
}

fn rule(node: &Node, notes: &mut Notes) -> Option<Rule> {
    let Kind::Table(entries) = &node.kind else {
        let message = format!("expected a table, found {}", node.describe());
        notes.error(&node.place, message, "write { user = \"app\", connections = 50 }");
        return None;
    };
    let mut rule = Some(Rule::default());
    for entry in entries {
        // After a mistake the rest is read for its own mistakes.
        let mut rest = Rule::default();
        let understood = say(entry, rule.as_mut().unwrap_or(&mut rest), notes);
        rule = rule.filter(|_| understood.is_some());
    }
    let rule = rule?;
    if rule.connections.is_none() && rule.bounds == Bounds::default() {
        let help = format!("add one of: {}", NAMES.get(5..).unwrap_or_default().join(", "));
        notes.error(&node.place, "this rule limits nothing".to_owned(), help);
        return None;
    }
    let of_login = rule.who.user.is_some() || rule.who.database.is_some();
    if of_login && rule.bounds.login.is_some() {
        let message = "before its login nobody knows a client's user and database".to_owned();
        notes.error(
            &node.place,
            message,
            "let a rule with login_timeout name an address, or nobody",
        );
        return None;
    }
    Some(rule)
}

fn say(entry: &Entry, rule: &mut Rule, notes: &mut Notes) -> Option<()> {
    let Entry { name, name_place, node } = entry;
    let bounds = &mut rule.bounds;
    match name.as_str() {
        "user" => rule.who.user = Some(text(node, notes)?.into()),
        "database" => rule.who.database = Some(text(node, notes)?.into()),
        "address" => rule.who.address = Some(network(node, notes)?),
        "listener" => rule.who.listener = Some(text(node, notes)?.trim().into()),
        "each" => rule.each = Some(each(node, notes)?),
        "connections" => rule.connections = Some(u32::read(node, notes)?),
        "login_timeout" => bounds.login = Some(seconds(node, notes)?),
        "idle_timeout" => bounds.times.idle = Some(seconds(node, notes)?),
        "idle_in_transaction_timeout" => {
            bounds.times.idle_in_transaction = Some(seconds(node, notes)?);
        }
        "transaction_timeout" => bounds.times.transaction = Some(seconds(node, notes)?),
        "query_timeout" => bounds.times.query = Some(seconds(node, notes)?),
        "max_message" => bounds.message = Some(bytes(node, notes)?),
        "max_statement" => bounds.statement = Some(bytes(node, notes)?),
        "max_prepared" => bounds.prepared = Some(u32::read(node, notes)?),
        "max_memory" => bounds.memory = Some(bytes(node, notes)?),
        unknown => {
            let help = nearest(unknown, &NAMES)
                .map_or_else(|| NAMES.join(", "), |near| format!("did you mean `{near}`?"));
            notes.error(name_place, format!("a rule of limits has no `{unknown}`"), help);
            return None;
        }
    }
    Some(())
}

fn network(node: &Node, notes: &mut Notes) -> Option<IpNet> {
    let written = text(node, notes)?.trim();
    let read = written.parse::<IpNet>().ok();
    let read = read.or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
    if read.is_none() {
        let help = "write \"10.0.0.0/8\", \"2001:db8::/32\" or a single address";
        notes.error(&node.place, format!("`{written}` is not a network"), help);
    }
    read.map(|network| network.trunc())
}

fn each(node: &Node, notes: &mut Notes) -> Option<Each> {
    let word = text(node, notes)?;
    let found = EACH.iter().find(|(_, known)| *known == word).map(|(each, _)| *each);
    if found.is_none() {
        let known = EACH.map(|(_, known)| known).join(", ");
        notes.error(&node.place, format!("`{word}` is not one of: {known}"), "");
    }
    found
}

fn seconds(node: &Node, notes: &mut Notes) -> Option<Duration> {
    let read = Duration::read(node, notes)?;
    if read < Duration::from_secs(1) {
        let help = "times are looked at once a second";
        notes.error(&node.place, "must be at least \"1s\"".to_owned(), help);
        return None;
    }
    Some(read)
}

/// The least that a client needs for its login and its own small messages.
const LEAST_BYTES: u64 = 1024;

fn bytes(node: &Node, notes: &mut Notes) -> Option<u64> {
    let Bytes(read) = Bytes::read(node, notes)?;
    if read < LEAST_BYTES {
        notes.error(&node.place, "must be at least \"1kB\"".to_owned(), "");
        return None;
    }
    Some(read)
}

fn written(rule: &Rule) -> String {
    let Rule { who, each, connections, bounds } = rule;
    let Times { idle, idle_in_transaction, transaction, query } = bounds.times;
    let name = |name: &Option<Box<str>>| name.as_ref().map(|name| quoted(name));
    let time = |time: Option<Duration>| time.map(|time| time.write());
    let size = |size: Option<u64>| size.map(|size| Bytes(size).write());
    let each = each.and_then(|each| EACH.iter().find(|(known, _)| *known == each));
    let values = [
        name(&who.user),
        name(&who.database),
        who.address.map(|address| quoted(&address.to_string())),
        name(&who.listener),
        each.map(|(_, word)| quoted(word)),
        connections.map(|connections| connections.to_string()),
        time(bounds.login),
        time(idle),
        time(idle_in_transaction),
        time(transaction),
        time(query),
        size(bounds.message),
        size(bounds.statement),
        bounds.prepared.map(|prepared| prepared.to_string()),
        size(bounds.memory),
    ];
    let said =
        NAMES.iter().zip(values).filter_map(|(name, value)| Some(format!("{name} = {}", value?)));
    format!("{{ {} }}", said.collect::<Vec<_>>().join(", "))
}
