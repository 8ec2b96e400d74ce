//! Whose process is whose: a client knows its session by a number of ours, its server by another.

use crate::wire::frame;

/// Who a backend is to its server, and who its session is to the client.
#[derive(Debug, Clone, Copy)]
pub struct Processes {
    /// The backend's process.
    pub backend: i32,
    /// What the client was told.
    pub client: i32,
}

impl Processes {
    /// Whether a `NotificationResponse` was sent by this very session: clients tell their own
    /// from others' by the process.
    pub(super) fn is_own(self, message: &[u8]) -> bool {
        self.backend != self.client
            && message.get(frame::HEADER..frame::HEADER + 4) == Some(&self.backend.to_be_bytes())
    }

    /// The same notification under the process that the client knows.
    pub(super) fn as_the_client_knows(self, message: &[u8]) -> Vec<u8> {
        let mut own = message.to_vec();
        if let Some(process) = own.get_mut(frame::HEADER..frame::HEADER + 4) {
            process.copy_from_slice(&self.client.to_be_bytes());
        }
        own
    }
}
