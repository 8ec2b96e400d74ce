//! Whose process is whose: a client knows its session by a number of ours, its server by another.

use crate::clock::Moment;
use crate::notifications::{Process, Senders, process_of, renamed};
use crate::topology::ServerId;

/// Who a backend is to its server, and who its session is to the client.
#[derive(Debug, Clone, Copy)]
pub struct Processes {
    /// The backend's server.
    pub server: ServerId,
    /// The backend's process.
    pub backend: i32,
    /// What the client was told.
    pub client: i32,
    /// Since when the session holds the backend.
    pub since: Moment,
}

impl Processes {
    /// The backend, for those who are notified from it.
    pub(super) const fn backend(self) -> Process {
        (self.server, self.backend)
    }

    /// A `NotificationResponse` under the process that its sender's client knows, if the server
    /// names another: clients tell their own from others' by it.
    ///
    /// Another's is the only one who can have notified from that backend since this one is
    /// held: in a transaction it heard nothing. If there were several, it stays the server's.
    pub(super) fn as_clients_know(self, message: &[u8], senders: &Senders) -> Option<Vec<u8>> {
        let process = process_of(message)?;
        let known = if process == self.backend {
            Some(self.client)
        } else {
            senders.only_one((self.server, process), self.since)
        };
        known.filter(|known| *known != process).map(|known| renamed(message, known))
    }
}
