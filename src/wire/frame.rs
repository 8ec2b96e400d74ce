//! Where one message ends and the next begins: the only code that reads lengths off a socket.
//!
//! The relay never decodes a message to pass it on. It looks at five bytes, the tag and the
//! length, and at the inside of a few short messages, through cursors that stop at the message's
//! own end. No byte can panic it, make it allocate more than a message that it wants whole, or
//! be read as part of another message.
//!
//! Source: PostgreSQL manual, 55.2 "Message Flow" and 55.7 "Message Formats".

/// Bytes before a message's body: the tag and the length.
pub const HEADER: usize = 5;

/// The largest message that PostgreSQL itself takes or sends, in bytes: just under 1 GiB.
///
/// Source: `PQ_LARGE_MESSAGE_LIMIT` in `libpq/libpq.h`, `MaxAllocSize` in `utils/memutils.h`.
const LARGEST: u32 = 0x3FFF_FFFF;

/// The tag and the size of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What kind of message it is.
    pub tag: u8,
    /// Its size in bytes, tag and length included.
    pub total: usize,
}

/// The bytes are not a message of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is less than its own four bytes, or beyond what PostgreSQL would take.
    #[error("message {tag:?} says that it is {length} bytes long")]
    Length {
        /// The message's tag.
        tag: char,
        /// The length that it claims, in bytes.
        length: u32,
    },
    /// A field runs past its message's end.
    #[error("message {tag:?} is cut short")]
    Truncated {
        /// The message's tag.
        tag: char,
    },
}

/// The header at the start of `bytes`; `None` while fewer than five have arrived.
///
/// # Errors
/// [`FrameError::Length`] if the length can't be one.
pub fn peek(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let [tag, a, b, c, d, ..] = *bytes else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]);
    if !(4..=LARGEST).contains(&length) {
        return Err(FrameError::Length { tag: char::from(tag), length });
    }
    let total = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
    Ok(Some(Header { tag, total }))
}

/// What a server says of the transaction in its `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TxStatus {
    /// `I`: no transaction is open.
    Idle,
    /// `T`: a transaction is open.
    Open,
    /// `E`: a transaction is open and has failed.
    Failed,
}

impl TxStatus {
    /// Reads the one byte of a `ReadyForQuery`.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte that stands for it on the wire.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// A walk through one message's body that can't leave it.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The body of `message`, which is one whole message, header included.
    pub fn new(message: &'a [u8]) -> Self {
        let tag = message.first().copied().unwrap_or(0);
        Self { tag, rest: message.get(HEADER..).unwrap_or(&[]) }
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, FrameError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(*first)
    }

    /// The bytes up to the next zero, which is passed over.
    pub fn text(&mut self) -> Result<&'a [u8], FrameError> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| self.truncated())?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or(&[]);
        Ok(text)
    }

    /// What was not walked yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn truncated(&self) -> FrameError {
        FrameError::Truncated { tag: char::from(self.tag) }
    }
}

/// Writes one message: the tag, room for the length, then what `body` appends.
///
/// A body beyond 2 GiB can't be built: what we write ourselves is short, and what we rewrite
/// was bounded when it was read.
pub fn write(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Adds `missing` to the length of the message that starts at `start`.
pub fn lengthen(out: &mut [u8], start: usize, missing: usize) {
    if missing == 0 {
        return;
    }
    if let Some(place) = out.get_mut(start + 1..start + HEADER)
        && let Ok(bytes) = <[u8; 4]>::try_from(&*place)
    {
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        place.copy_from_slice(&u32::from_be_bytes(bytes).saturating_add(missing).to_be_bytes());
    }
}

/// Appends `text` and the zero that ends it.
pub fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// `AuthenticationOk`, whole.
pub const AUTHENTICATION_OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
/// `Sync`, whole.
pub const SYNC: &[u8] = b"S\0\0\0\x04";
/// `Flush`, whole.
pub const FLUSH: &[u8] = b"H\0\0\0\x04";
/// `ParseComplete`, whole.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes_and_a_sane_length() {
        assert_eq!(peek(b"Q\0\0\0"), Ok(None));
        assert_eq!(peek(b"Q\0\0\0\x04"), Ok(Some(Header { tag: b'Q', total: 5 })));
        assert!(peek(b"Q\0\0\0\x03").is_err());
        assert!(peek(b"Q\xFF\xFF\xFF\xFF").is_err());
        assert!(peek(b"Q\x40\0\0\0").is_err());
    }

    #[test]
    fn a_cursor_stops_at_its_message() {
        let mut cursor = Cursor::new(b"P\0\0\0\x08ab\0c");
        assert_eq!(cursor.text(), Ok(&b"ab"[..]));
        assert_eq!(cursor.text(), Err(FrameError::Truncated { tag: 'P' }));
        assert_eq!(cursor.byte(), Ok(b'c'));
        assert!(cursor.byte().is_err());
    }

    #[test]
    fn what_is_written_is_framed() {
        let mut out = Vec::new();
        write(&mut out, b'Q', |out| write_text(out, b"SELECT 1"));
        assert_eq!(peek(&out), Ok(Some(Header { tag: b'Q', total: out.len() })));
    }
}
