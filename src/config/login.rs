//! Who the control plane logs in as: the configuration, else a server's URI, else what libpq
//! would take from the environment, the password file and the operating system.
//!
//! One difference from libpq: without a database we take `postgres`, which every set has, and
//! not the one that is named like the user.
//!
//! Source: PostgreSQL manual, 34.15 "Environment Variables".

use crate::backend::Secret;
use crate::config::hosts::Host;
use crate::config::hosts::UriLogin;
use crate::config::pgpass;
use crate::config::pgpass::Wanted;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::types::ControlLogin;
use crate::net;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

/// The longest password file that is read.
const LONGEST: u64 = 1024 * 1024;

/// What the configuration itself says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<String>,
}

/// Finds the login; `None` once a problem was noted.
pub(super) fn find(
    said: Said,
    hosts: &[Host],
    env: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Option<ControlLogin> {
    let uri = of_uris(hosts, notes)?;
    let variable = |name: &str| env.get(name).filter(|text| !text.is_empty()).cloned();
    let user = said.user.or(uri.user).or_else(|| variable("PGUSER")).or_else(|| os_user(env));
    let Some(user) = user else {
        let message = "cannot tell whom to log in as: the operating system's user has no name";
        notes.error(&Place::Nowhere, message.to_owned(), "set servers.user or PGUSER");
        return None;
    };
    let password =
        said.password.or(uri.password).or_else(|| variable("PGPASSWORD").map(Secret::new));
    let database = said.database.or(uri.database).or_else(|| variable("PGDATABASE"));
    let database = database.unwrap_or_else(|| "postgres".to_owned());
    Some(ControlLogin { user, password, database })
}

/// What the URIs say together: they must not contradict each other.
pub(super) fn of_uris(hosts: &[Host], notes: &mut Notes) -> Option<UriLogin> {
    let mut all = UriLogin::default();
    for host in hosts {
        let UriLogin { user, password, database, sslmode, channel_binding, sslnegotiation } =
            host.login.clone();
        let agreed = agree(&mut all.user, user)
            && agree(&mut all.password, password)
            && agree(&mut all.database, database)
            && agree(&mut all.sslmode, sslmode)
            && agree(&mut all.channel_binding, channel_binding)
            && agree(&mut all.sslnegotiation, sslnegotiation);
        if !agreed {
            let message = "the URIs of two servers name different logins".to_owned();
            let help = "pgsteer watches all servers as one user: name it once, in [servers]";
            notes.error(&host.place, message, help);
            return None;
        }
    }
    Some(all)
}

fn agree<T: PartialEq>(so_far: &mut Option<T>, said: Option<T>) -> bool {
    match (&*so_far, said) {
        (_, None) => true,
        (Some(before), Some(said)) => *before == said,
        (None, said @ Some(_)) => {
            *so_far = said;
            true
        }
    }
}

/// The password file's text, if there is one that libpq would read.
pub(super) fn passfile(env: &BTreeMap<String, String>, notes: &mut Notes) -> Option<String> {
    let path = match env.get("PGPASSFILE").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => Path::new(env.get("HOME").filter(|home| !home.is_empty())?).join(".pgpass"),
    };
    let about = std::fs::metadata(&path).ok()?;
    let shown = path.display();
    if !about.is_file() || about.len() > LONGEST {
        let message = format!("the password file {shown} is not a plain file: not used");
        notes.warning(&Place::Nowhere, message, "");
        return None;
    }
    // As libpq: a password file that others may read is not used at all.
    if about.mode() & 0o077 != 0 {
        let message = format!("the password file {shown} can be read by others: not used");
        notes.warning(&Place::Nowhere, message, format!("chmod 0600 {shown}"));
        return None;
    }
    std::fs::read_to_string(&path).ok()
}

/// What the password file says for one server.
pub(super) fn password_of(file: &str, host: &Host, login: &ControlLogin) -> Option<Secret> {
    let wanted = Wanted { address: &host.address, database: &login.database, user: &login.user };
    pgpass::find(file, &wanted)
}

/// The operating system's name for this process's user. Users that are not in `/etc/passwd`
/// (LDAP and the like) are known by `USER`.
fn os_user(env: &BTreeMap<String, String>) -> Option<String> {
    let listed = net::user_name(rustix::process::geteuid().as_raw());
    listed.or_else(|| env.get("USER").cloned()).filter(|name| !name.is_empty())
}
