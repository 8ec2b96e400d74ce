//! Where we listen, as it is written: `ADDRESS[:PORT]` or `unix:/DIR`, and behind it perhaps
//! `?role=standby`.

use crate::config::node::Node;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::setting::Setting;
use crate::config::setting::items;
use crate::config::setting::quoted;
use crate::config::setting::text;
use crate::route::RoleWish;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where clients connect: `PgBouncer`'s port, so that we can take its place.
pub(super) const CLIENT_PORT: u16 = 6432;

/// Where metrics and health are served.
pub(super) const HTTP_PORT: u16 = 9632;

/// One entry of `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) at: At,
    pub(super) role: RoleWish,
    pub(super) place: Place,
}

/// Where it listens; the port in a unix socket's name is that of the first TCP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listeners(pub(super) Vec<Listener>);

impl Setting for Listeners {
    fn form() -> String {
        "list of \"ADDRESS[:PORT]\" or \"unix:/DIR\", each with \"?role=standby\" or without"
            .to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let items = items(node, notes)?;
        let count = items.len();
        let read: Vec<Listener> = items.iter().filter_map(|item| listener(item, notes)).collect();
        (read.len() == count).then_some(Self(read))
    }

    fn write(&self) -> String {
        let each = self.0.iter().map(|listener| {
            let at = match &listener.at {
                At::Tcp(address) => address.to_string(),
                At::Unix(directory) => format!("unix:{}", directory.display()),
            };
            quoted(&format!("{at}{}", suffix(listener.role)))
        });
        format!("[{}]", each.collect::<Vec<_>>().join(", "))
    }
}

/// What stands behind an address whose sessions wish for this.
pub(super) const fn suffix(role: RoleWish) -> &'static str {
    match role {
        RoleWish::Auto => "",
        RoleWish::Primary => "?role=primary",
        RoleWish::Standby => "?role=standby",
    }
}

fn listener(node: &Node, notes: &mut Notes) -> Option<Listener> {
    let written = text(node, notes)?.trim();
    let place = node.place.clone();
    let (written, role) = match written.split_once('?') {
        None => (written, RoleWish::Auto),
        Some((at, "role=auto")) => (at, RoleWish::Auto),
        Some((at, "role=primary")) => (at, RoleWish::Primary),
        Some((at, "role=standby")) => (at, RoleWish::Standby),
        Some((_, asked)) => {
            let message = format!("`{asked}` is nothing that a listener can be asked for");
            notes.error(&place, message, "write ?role=standby, ?role=primary or nothing");
            return None;
        }
    };
    let directory =
        written.strip_prefix("unix:").or_else(|| written.starts_with('/').then_some(written));
    if let Some(directory) = directory {
        if directory.starts_with('/') {
            return Some(Listener { at: At::Unix(PathBuf::from(directory)), role, place });
        }
        let message = format!("`{written}` is not an absolute directory");
        notes.error(&place, message, "write \"unix:/run/pgsteer\"");
        return None;
    }
    let address = socket_address(node, written, CLIENT_PORT, notes)?;
    Some(Listener { at: At::Tcp(address), role, place })
}

/// Reads `ADDRESS[:PORT]`.
fn socket_address(node: &Node, written: &str, port: u16, notes: &mut Notes) -> Option<SocketAddr> {
    if let Ok(address) = written.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(written);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, port));
    }
    let (host, said) = written.rsplit_once(':').unwrap_or((written, ""));
    let said_port = if said.is_empty() { Some(port) } else { said.parse().ok() };
    if host == "localhost"
        && let Some(port) = said_port
    {
        return Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let help = match (host, said_port) {
        ("*" | "", Some(port)) => {
            format!("for every address write \"0.0.0.0:{port}\" or \"[::]:{port}\"")
        }
        (host, _) if host.parse::<u16>().is_ok() => format!("write \"127.0.0.1:{host}\""),
        _ => format!("write an IP address and a port, such as \"127.0.0.1:{port}\""),
    };
    notes.error(&node.place, format!("`{written}` is not an address to listen on"), help);
    None
}

/// `http`: an address, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Http(pub(super) Option<SocketAddr>);

impl Setting for Http {
    fn form() -> String {
        "\"ADDRESS[:PORT]\" or \"off\"".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let written = text(node, notes)?.trim();
        if written.is_empty() || written == "off" {
            return Some(Self(None));
        }
        socket_address(node, written, HTTP_PORT, notes).map(|address| Self(Some(address)))
    }

    fn write(&self) -> String {
        quoted(&self.0.map_or_else(|| "off".to_owned(), |address| address.to_string()))
    }
}
