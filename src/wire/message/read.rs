//! Messages that we read to the end, one whole framed message at a time.

use super::Malformed;
use crate::pg::SqlState;
use crate::wire::frame::{HEADER, TxStatus};

/// The process and the key that a `CancelRequest` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyData<'a> {
    /// The backend's process id.
    pub pid: i32,
    /// Its key: 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub key: &'a [u8],
}

/// The fields of an `ErrorResponse` or `NoticeResponse` that matter to us, as sent: their text
/// is in whatever encoding the session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// The word that is never translated (`V`); from servers before 9.6, the translated one.
    pub severity: &'a [u8],
    /// Which error it is.
    pub code: SqlState,
    /// The line for people.
    pub message: &'a [u8],
    /// More about this case.
    pub detail: Option<&'a [u8]>,
    /// What to do about it.
    pub hint: Option<&'a [u8]>,
    /// The function in PostgreSQL's source that raised it.
    pub routine: Option<&'a [u8]>,
}

impl ErrorFields<'_> {
    /// Whether the server closes the connection after this.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }
}

/// Reads an `ErrorResponse` or a `NoticeResponse`.
pub fn read_error(message: &[u8]) -> Result<ErrorFields<'_>, Malformed> {
    let tag = if message.first() == Some(&b'N') { b'N' } else { b'E' };
    let mut reader = Reader::new(message, tag)?;
    let mut translated = None;
    let mut severity = None;
    let mut fields = ErrorFields {
        severity: b"",
        code: SqlState::INTERNAL_ERROR,
        message: b"",
        detail: None,
        hint: None,
        routine: None,
    };
    loop {
        let field = reader.byte()?;
        if field == 0 {
            break;
        }
        let value = reader.text()?;
        match field {
            b'S' => translated = Some(value),
            b'V' => severity = Some(value),
            b'C' => fields.code = SqlState::from_bytes(value).ok_or(reader.malformed())?,
            b'M' => fields.message = value,
            b'D' => fields.detail = Some(value),
            b'H' => fields.hint = Some(value),
            b'R' => fields.routine = Some(value),
            _ => (), // the manual: "frontends should silently ignore fields of unrecognized type"
        }
    }
    fields.severity = severity.or(translated).unwrap_or_default();
    reader.end()?;
    Ok(fields)
}

/// Reads a `ParameterStatus`: name and value.
pub fn read_parameter_status(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(message, b'S')?;
    let pair = (reader.text()?, reader.text()?);
    reader.end()?;
    Ok(pair)
}

/// A `NotificationResponse`, its texts in the session's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The process that notified.
    pub pid: i32,
    /// The channel.
    pub channel: &'a [u8],
    /// What it said.
    pub payload: &'a [u8],
}

/// Reads a `NotificationResponse`.
pub fn read_notification(message: &[u8]) -> Result<Notification<'_>, Malformed> {
    let mut reader = Reader::new(message, b'A')?;
    let (pid, channel, payload) = (reader.int32()?, reader.text()?, reader.text()?);
    reader.end()?;
    Ok(Notification { pid, channel, payload })
}

/// Reads a `BackendKeyData`.
pub fn read_key_data(message: &[u8]) -> Result<KeyData<'_>, Malformed> {
    let mut reader = Reader::new(message, b'K')?;
    let pid = reader.int32()?;
    let key = reader.rest;
    if !(4..=256).contains(&key.len()) {
        return Err(reader.malformed());
    }
    Ok(KeyData { pid, key })
}

/// Reads a `ReadyForQuery`.
pub fn read_ready(message: &[u8]) -> Result<TxStatus, Malformed> {
    let mut reader = Reader::new(message, b'Z')?;
    let status = TxStatus::from_byte(reader.byte()?).ok_or(reader.malformed())?;
    reader.end()?;
    Ok(status)
}

/// Reads a `CommandComplete`: its tag.
pub fn read_command_complete(message: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(message, b'C')?;
    let tag = reader.text()?;
    reader.end()?;
    Ok(tag)
}

/// Reads the columns' names from a `RowDescription`.
pub fn read_columns(message: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    /// Bytes of a column after its name: table, column, type, size, modifier, format.
    const AFTER_NAME: usize = 4 + 2 + 4 + 2 + 4 + 2;
    let mut reader = Reader::new(message, b'T')?;
    let mut names = Vec::new();
    for _ in 0..reader.uint16()? {
        names.push(reader.text()?);
        reader.take(AFTER_NAME)?;
    }
    reader.end()?;
    Ok(names)
}

/// Reads a `DataRow`; `None` is NULL.
pub fn read_data_row(message: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut reader = Reader::new(message, b'D')?;
    let mut columns = Vec::new();
    for _ in 0..reader.uint16()? {
        let length = reader.int32()?;
        if length == -1 {
            columns.push(None);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| reader.malformed())?;
        columns.push(Some(reader.take(length)?));
    }
    reader.end()?;
    Ok(columns)
}

/// A walk through one message's body that can't leave it.
pub(super) struct Reader<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The body of `message`, which must be a whole message with this tag.
    pub(super) fn new(message: &'a [u8], tag: u8) -> Result<Self, Malformed> {
        match (message.first(), message.get(HEADER..)) {
            (Some(found), Some(rest)) if *found == tag => Ok(Self { tag, rest }),
            _ => Err(Malformed::new(tag)),
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    /// The bytes up to the next zero, which is passed over.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.rest.iter().position(|byte| *byte == 0).ok_or(self.malformed())?;
        let text = self.take(length)?;
        self.byte()?;
        Ok(text)
    }

    pub(super) fn uint16(&mut self) -> Result<u16, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(super) fn int32(&mut self) -> Result<i32, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    /// What was not walked yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    pub(super) fn malformed(&self) -> Malformed {
        Malformed::new(self.tag)
    }
}
