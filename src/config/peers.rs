//! `cancel.peers`: the pgsteers behind one address, which pass cancel requests on to each other.

use crate::backend::SslMode;
use crate::backend::TlsPolicy;
use crate::config::build::Builder;
use crate::config::keys;
use crate::config::layers::Got;
use crate::config::listen::At;
use crate::config::listen::Listeners;
use crate::config::node::Node;
use crate::config::problem::Notes;
use crate::config::setting::Setting;
use crate::config::setting::items;
use crate::config::setting::quoted;
use crate::config::setting::text;
use crate::config::types::Peers;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

/// Most peers: a key of protocol 3.0 has few bits to spare, and one whose owner is not known is
/// shown to all.
const PEERS_MAX: usize = 32;

/// `HOST:PORT` of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerList(pub(super) Vec<(Arc<str>, u16)>);

impl Setting for PeerList {
    fn form() -> String {
        "list of \"HOST:PORT\"".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let items = items(node, notes)?;
        let count = items.len();
        let read: Vec<_> = items.iter().filter_map(|item| peer(item, notes)).collect();
        (read.len() == count).then_some(Self(read))
    }

    fn write(&self) -> String {
        let each = self.0.iter().map(|(host, port)| {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
            quoted(&format!("{host}:{port}"))
        });
        format!("[{}]", each.collect::<Vec<_>>().join(", "))
    }
}

fn peer(node: &Node, notes: &mut Notes) -> Option<(Arc<str>, u16)> {
    let written = text(node, notes)?.trim();
    let parts = written.rsplit_once(':').and_then(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let understood = bare.is_some() || !host.contains([':', '/', '[', ']', '=', ' ']);
        let host = bare.unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (understood && !host.is_empty()).then(|| (Arc::from(host), port))
    });
    if parts.is_none() {
        let help = "write \"10.0.0.2:6432\", \"pgsteer-2.pgsteer:6432\" or \"[::1]:6432\"";
        notes.error(&node.place, format!("`{written}` is no peer's address and port"), help);
    }
    parts
}

impl Builder<'_> {
    pub(super) fn peers(&mut self, listeners: &Got<Listeners>) -> Option<Peers> {
        let list = self.get(&keys::CANCEL_PEERS);
        let number = self.get(&keys::CANCEL_NUMBER);
        let tls = self.peer_tls(&list);
        let all = &list.value.0;
        let help = "name all pgsteers in cancel.peers, in one order, and say which one this is";
        let (place, message) = if list.broken || number.broken {
            return None;
        } else if all.is_empty() {
            if number.is_default() {
                return None;
            }
            (&number.place, "`cancel.number` is set, `cancel.peers` is not".to_owned())
        } else if all.len() > PEERS_MAX {
            (&list.place, format!("at most {PEERS_MAX} peers are supported"))
        } else if let Some(twice) = twice(all) {
            (&list.place, format!("`{twice}` is listed twice in `cancel.peers`"))
        } else if number.is_default() {
            // Two that take themselves for the first would wait for each other in vain.
            (&list.place, "`cancel.peers` is set, `cancel.number` is not".to_owned())
        } else {
            let own = u8::try_from(number.value).ok().filter(|own| *own > 0);
            match own.filter(|own| usize::from(*own) <= all.len()) {
                Some(own) => match listens_as(all, listeners) {
                    Some(here) if here != usize::from(own) => {
                        let message = format!(
                            "`cancel.number` is {own}, but this pgsteer listens at the address of \
                             peer {here}"
                        );
                        (&number.place, message)
                    }
                    Some(_) | None => return Some(Peers { own, all: all.clone(), tls: tls? }),
                },
                None => (&number.place, format!("`cancel.number` must be from 1 to {}", all.len())),
            }
        };
        self.notes().error(place, message, help);
        None
    }

    /// How the peers are reached.
    fn peer_tls(&mut self, list: &Got<PeerList>) -> Option<TlsPolicy> {
        let mode = self.get(&keys::CANCEL_SSLMODE);
        let root = self.get(&keys::CANCEL_SSLROOTCERT);
        if list.value.0.is_empty() && !list.broken {
            for (said, place, key) in [
                (!mode.is_default(), &mode.place, "sslmode"),
                (!root.is_default(), &root.place, "sslrootcert"),
            ] {
                if said {
                    let message = format!("`cancel.{key}` is set, `cancel.peers` is not");
                    self.notes().error(place, message, "name the peers, or leave it out");
                }
            }
            return None;
        }
        if let Some(path) = &root.value {
            self.readable(path, &root.place);
            if mode.value == SslMode::Disable {
                let message = "`cancel.sslrootcert` is set, but `cancel.sslmode` is `disable`";
                let help = "set cancel.sslmode to verify-full, or leave cancel.sslrootcert out";
                self.notes().error(&root.place, message.to_owned(), help);
            }
        }
        Some(TlsPolicy { mode: mode.value, root_cert: root.value, ..TlsPolicy::default() })
    }
}

/// The first that is there more than once.
fn twice(all: &[(Arc<str>, u16)]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let twice = all.iter().find(|peer| !seen.insert(*peer));
    twice.map(|(host, port)| format!("{host}:{port}"))
}

/// Which of them listens at an address of ours, from 1, as far as that can be told: names, and
/// listeners on all addresses, tell nothing.
fn listens_as(all: &[(Arc<str>, u16)], listeners: &Got<Listeners>) -> Option<usize> {
    let own: Vec<SocketAddr> = listeners
        .value
        .0
        .iter()
        .filter_map(|listener| match &listener.at {
            At::Tcp(address) => Some(*address),
            At::Unix(_) => None,
        })
        .collect();
    let is_own = |(host, port): &(Arc<str>, u16)| {
        host.parse().is_ok_and(|host: IpAddr| own.contains(&SocketAddr::new(host, *port)))
    };
    all.iter().position(is_own).map(|at| at + 1)
}
