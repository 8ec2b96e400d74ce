//! What the messages of a client's group say together, and none of them alone.

use crate::wire::frame;
use crate::wire::frame::{Cursor, FrameError};

/// Whether the group runs anything; its messages were framed before.
pub(super) fn executes(group: &[u8]) -> bool {
    let mut rest = group;
    while let Ok(Some(header)) = frame::peek(rest) {
        if header.tag == b'E' {
            return true;
        }
        rest = rest.get(header.total..).unwrap_or(&[]);
    }
    false
}

/// What the portal was bound to, if it was by this `Bind`.
///
/// # Errors
/// [`FrameError`] if it is not what it seems.
pub(super) fn bound<'a>(bind: &'a [u8], portal: &[u8]) -> Result<Option<&'a [u8]>, FrameError> {
    if bind.is_empty() {
        return Ok(None);
    }
    let mut cursor = Cursor::new(bind);
    Ok(if cursor.text()? == portal { Some(cursor.text()?) } else { None })
}

/// How what the backend is sent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// As the client's group does.
    AsItIs,
    /// With a `Flush` of ours: what comes next waits for the answers, of which the server would
    /// send none yet.
    WithFlush,
}

impl Ends {
    /// By the group's last message, of which so much is missing.
    pub(super) const fn of(tag: u8, missing: usize) -> Self {
        match (tag, missing) {
            (b'P' | b'B' | b'D' | b'E' | b'C', 0) => Self::WithFlush,
            _ => Self::AsItIs,
        }
    }
}
