//! `cancel.peers`: the pgsteers behind one address, which pass cancel requests on to each other.

use crate::config::build::Builder;
use crate::config::keys;
use crate::config::node::Node;
use crate::config::problem::Notes;
use crate::config::setting::Setting;
use crate::config::setting::items;
use crate::config::setting::quoted;
use crate::config::setting::text;
use crate::config::types::Peers;
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
    pub(super) fn peers(&mut self) -> Option<Peers> {
        let list = self.get(&keys::CANCEL_PEERS);
        let number = self.get(&keys::CANCEL_NUMBER);
        let all = list.value.0;
        let (place, message) = if all.is_empty() {
            if number.is_default() {
                return None;
            }
            (&number.place, "`cancel.number` is set, `cancel.peers` is not".to_owned())
        } else if all.len() > PEERS_MAX {
            (&list.place, format!("at most {PEERS_MAX} peers are supported"))
        } else {
            match u8::try_from(number.value) {
                // Two that take themselves for the first would wait for each other in vain.
                Ok(_) if number.is_default() => {
                    (&list.place, "`cancel.peers` is set, `cancel.number` is not".to_owned())
                }
                Ok(own) if own > 0 && usize::from(own) <= all.len() => {
                    return Some(Peers { own, all });
                }
                Ok(_) | Err(_) => {
                    (&number.place, format!("`cancel.number` must be from 1 to {}", all.len()))
                }
            }
        };
        let help = "name all pgsteers in cancel.peers, in one order, and say which one this is";
        self.notes().error(place, message, help);
        None
    }
}
