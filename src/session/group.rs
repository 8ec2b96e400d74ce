//! Groups: what a client asks for in one piece, and so the unit of routing, retry and failure.
//!
//! One `Query` is a group. In the extended protocol a group reaches up to `Sync` or `Flush`, for
//! a client may wait for the answers after either. A group that grows past what is buffered is
//! cut: it is routed by what is known, which is "unsure", and can't be run again. A `Query`, a
//! `FunctionCall` or COPY data behind messages that no `Sync` has ended is a group of its own in
//! the same implicit transaction: what stands before it is a group that ends as if with `Flush`.
//!
//! Source: PostgreSQL manual, 55.2.3 "Extended Query" and 55.2.4 "Pipelining".

use crate::session::Names;
use crate::session::statements::ENTRY;
use crate::sql::Facts;
use crate::wire::frame;
use crate::wire::frame::Cursor;
use crate::wire::frame::FrameError;
use crate::wire::frame::Header;
use std::collections::HashSet;
use std::sync::Arc;

/// How much of a group is buffered before it is cut, in bytes: enough for large batches of
/// prepared statements, little enough that ten thousand clients can't exhaust the memory.
pub const GROUP_MAX: usize = 1024 * 1024;
/// The longest text that a named statement may have, in bytes: it is kept to be parsed again.
const NAMED_STATEMENT_MAX: usize = 16 * 1024 * 1024;
/// The longest message other than `Query`, `Parse` and `Bind`, in bytes; PostgreSQL's own limit
/// is 10,000 for most and 30,000 for none of these.
const SHORT_MESSAGE_MAX: usize = 64 * 1024;

/// How a group ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With its `Query` (or `FunctionCall`): the server owes one `ReadyForQuery`.
    Query,
    /// With `Sync`: likewise.
    Sync,
    /// With `Flush`, or with what comes next without one: answers are due, and the implicit
    /// transaction stays open.
    Flush,
    /// With the buffer: so many bytes of its last message are still to come and pass through.
    Cut {
        /// Bytes of the last message that have not arrived.
        rest: usize,
        /// What was cut.
        of: Cut,
    },
}

/// What is cut where a group outgrows the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A `Query`: the server owes one `ReadyForQuery`.
    Query,
    /// A batch of the extended protocol: `Sync` is still to come.
    Batch,
}

/// One group at the start of the client's bytes.
#[derive(Debug)]
pub struct Group {
    /// How many bytes it has (for [`End::Cut`], as far as they arrived).
    pub bytes: usize,
    /// How it ends.
    pub end: End,
    /// Whether it executes anything, rather than only preparing and describing.
    pub executes: Executes,
    /// The named statements that it parses.
    pub parses: Parses,
}

/// How much more a group has to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parses {
    /// Statements that get a name.
    pub named: usize,
    /// What they take, in bytes.
    pub bytes: usize,
    /// Names of statements that it closes.
    pub closed: usize,
}

/// Whether a group runs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executes {
    /// It only parses, describes or closes.
    Nothing,
    /// It runs at least one statement.
    Something,
}

/// What the client's bytes begin with.
#[derive(Debug)]
pub enum Scan {
    /// Less than a group: read on.
    Incomplete,
    /// A whole group.
    Group(Group),
    /// A message of an ended COPY, which a server ignores: pass over so many bytes, also of
    /// those that have not arrived.
    Leftover(usize),
    /// The client says goodbye.
    Terminate,
}

/// The client broke the protocol, or asked for more than we keep.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// The bytes are no messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message that has no place here.
    #[error("unexpected message {tag:?}")]
    Unexpected {
        /// Its tag.
        tag: char,
    },
    /// A message beyond its kind's limit.
    #[error("message {tag:?} of {bytes} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Its tag.
        tag: char,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A message beyond what this session may send.
    #[error("message {tag:?} of {bytes} bytes exceeds {key} of {limit} bytes (limits.rules)")]
    OverLimit {
        /// Its tag.
        tag: char,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
        /// Which.
        key: &'static str,
    },
}

/// How long a session's messages may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Any message, other than COPY data.
    pub message: usize,
    /// One with a statement's text: `Query`, `Parse`.
    pub statement: usize,
}

impl Default for MessageLimits {
    /// As long as the protocol lets them be.
    fn default() -> Self {
        Self { message: usize::MAX, statement: usize::MAX }
    }
}

impl MessageLimits {
    fn check(self, header: Header) -> Result<(), Violation> {
        let (limit, key) = match header.tag {
            b'Q' | b'P' if self.statement < self.message => (self.statement, "max_statement"),
            _ => (self.message, "max_message"),
        };
        if header.total <= limit {
            return Ok(());
        }
        let tag = char::from(header.tag);
        Err(Violation::OverLimit { tag, bytes: header.total, limit, key })
    }
}

/// What the scan needs to know of statements.
pub struct Reader<'a> {
    /// The statements that the client prepared earlier.
    pub names: &'a Names,
    /// The facts of the unnamed statement, if the client parsed one.
    pub unnamed: Option<&'a Arc<Facts>>,
    /// What a text is.
    pub examine: &'a mut dyn FnMut(&[u8]) -> Arc<Facts>,
    /// How many bytes at the beginning are whole messages of a group whose end had not come when
    /// it was looked at before: they are not walked through again for every packet that brings a
    /// little more. 0 when the beginning is another.
    pub framed: &'a mut usize,
    /// How long messages may be.
    pub most: MessageLimits,
    /// Takes the facts of every statement that the group mentions, in order; `None` is a
    /// statement that can't be known.
    pub mentioned: &'a mut Vec<Option<Arc<Facts>>>,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// Finds the first group in `inbox`.
///
/// # Errors
/// [`Violation`] if the bytes can't be a client's; the connection is to be closed.
pub fn scan(inbox: &[u8], reader: &mut Reader<'_>) -> Result<Scan, Violation> {
    reader.mentioned.clear();
    let mut at = std::mem::take(reader.framed);
    while let Some(rest) = inbox.get(at..)
        && let Some(header) = frame::peek(rest)?
    {
        let first = at == 0;
        match header.tag {
            b'X' => return Ok(Scan::Terminate),
            b'd' | b'c' | b'f' if first => return leftover(header),
            _ => reader.most.check(header)?,
        }
        match header.tag {
            b'Q' | b'F' if first => return Ok(query(rest, header, reader)),
            b'Q' | b'F' | b'd' | b'c' | b'f' => return group(inbox, at, End::Flush, reader),
            b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' => {}
            tag => return Err(Violation::Unexpected { tag: char::from(tag) }),
        }
        let length = length(rest, header)?;
        if rest.len() < header.total {
            if length == Length::Bounded || inbox.len() < GROUP_MAX {
                break;
            }
            return cut(inbox, at, header, reader);
        }
        at += header.total;
        let end = match header.tag {
            b'S' => End::Sync,
            b'H' => End::Flush,
            _ if at >= GROUP_MAX => End::Cut { rest: 0, of: Cut::Batch },
            _ => continue,
        };
        return group(inbox, at, end, reader);
    }
    *reader.framed = at;
    Ok(Scan::Incomplete)
}

/// A group of the extended protocol: what its messages mention and do. They are looked into once,
/// when the group is whole.
fn group(inbox: &[u8], bytes: usize, end: End, reader: &mut Reader<'_>) -> Result<Scan, Violation> {
    let mut executes = Executes::Nothing;
    let mut more = Parses::default();
    let mut parsed = Parsed::default();
    let mut at = 0;
    while at < bytes
        && let Some(rest) = inbox.get(at..)
        && let Some(header) = frame::peek(rest)?
    {
        at += header.total;
        let mut body = Cursor::new(rest.get(..header.total).unwrap_or(rest));
        match header.tag {
            b'P' => {
                let name = body.text()?;
                if !name.is_empty() {
                    more.named += 1;
                    more.bytes += ENTRY + header.total;
                }
                parsed.insert(name);
                reader.mentioned.push(Some((reader.examine)(body.text()?)));
            }
            b'B' => {
                // A portal can't be moved, so it counts as begun.
                executes = Executes::Something;
                body.text()?;
                mention(body.text()?, &parsed, reader);
            }
            b'D' if body.byte()? == b'S' => mention(body.text()?, &parsed, reader),
            b'E' => executes = Executes::Something,
            b'C' if body.byte()? == b'S' && reader.names.get(body.text()?).is_some() => {
                more.closed += 1;
            }
            _ => {}
        }
    }
    Ok(Scan::Group(Group { bytes, end, executes, parses: more }))
}

/// The names of statements that a group parses: mostly one, and any number.
#[derive(Default)]
struct Parsed<'a> {
    first: Option<&'a [u8]>,
    others: HashSet<&'a [u8]>,
}

impl<'a> Parsed<'a> {
    fn insert(&mut self, name: &'a [u8]) {
        match self.first {
            None => self.first = Some(name),
            Some(first) if first == name => {}
            Some(_) => {
                self.others.insert(name);
            }
        }
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.first == Some(name) || self.others.contains(name)
    }
}

/// A `Query` or a `FunctionCall`, which is a group by itself.
fn query(rest: &[u8], header: Header, reader: &mut Reader<'_>) -> Scan {
    let whole = rest.get(..header.total);
    if whole.is_none() && rest.len() < GROUP_MAX {
        return Scan::Incomplete;
    }
    let text = whole.filter(|_| header.tag == b'Q').map(Cursor::new).map(|mut body| body.text());
    reader.mentioned.push(match text {
        Some(Ok(text)) => Some((reader.examine)(text)),
        Some(Err(_)) | None => None,
    });
    let bytes = header.total.min(rest.len());
    let end = match header.total - bytes {
        0 => End::Query,
        rest => End::Cut { rest, of: Cut::Query },
    };
    let parses = Parses::default();
    Scan::Group(Group { bytes, end, executes: Executes::Something, parses })
}

/// Whether a message of the extended protocol may be longer than what is buffered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// `Bind`, and `Parse` of the unnamed statement: cut when they outgrow the buffer.
    Any,
    /// The others: kept until they are whole.
    Bounded,
}

/// Refuses what is too long for its kind, whether it has arrived or not.
fn length(rest: &[u8], header: Header) -> Result<Length, Violation> {
    let limit = match header.tag {
        b'B' => return Ok(Length::Any),
        // Whether it has a name is not known before a byte of it has come.
        b'P' if rest.get(frame::HEADER).is_none_or(|first| *first == 0) => return Ok(Length::Any),
        b'P' => NAMED_STATEMENT_MAX,
        _ => SHORT_MESSAGE_MAX,
    };
    if header.total > limit {
        let tag = char::from(header.tag);
        return Err(Violation::TooLong { tag, bytes: header.total, limit });
    }
    Ok(Length::Bounded)
}

/// The buffer is full, and its last message, at `at`, has not arrived whole: it is cut, unless its
/// names are still to come, which must be replaced. Then the cut is before it.
fn cut(
    inbox: &[u8],
    at: usize,
    header: Header,
    reader: &mut Reader<'_>,
) -> Result<Scan, Violation> {
    let rest = inbox.get(at..).unwrap_or(&[]);
    let mut names = Cursor::new(rest);
    let has_names = names.text().is_ok() && (header.tag != b'B' || names.text().is_ok());
    if !has_names {
        if at == 0 {
            return Err(FrameError::Truncated { tag: char::from(header.tag) }.into());
        }
        return group(inbox, at, End::Cut { rest: 0, of: Cut::Batch }, reader);
    }
    let end = End::Cut { rest: header.total - rest.len(), of: Cut::Batch };
    let found = group(inbox, at, end, reader)?;
    reader.mentioned.push(None);
    Ok(match found {
        Scan::Group(group) => Scan::Group(Group { bytes: inbox.len(), ..group }),
        other @ (Scan::Incomplete | Scan::Leftover(_) | Scan::Terminate) => other,
    })
}

/// Bytes that a client still sent for a COPY that had failed meanwhile.
fn leftover(header: Header) -> Result<Scan, Violation> {
    if header.tag != b'd' && header.total > SHORT_MESSAGE_MAX {
        let tag = char::from(header.tag);
        let limit = SHORT_MESSAGE_MAX;
        return Err(Violation::TooLong { tag, bytes: header.total, limit });
    }
    Ok(Scan::Leftover(header.total))
}

/// Notes the facts of the statement with this name.
fn mention(name: &[u8], parsed: &Parsed<'_>, reader: &mut Reader<'_>) {
    let facts = match name {
        // Its `Parse` was counted already.
        _ if parsed.contains(name) => return,
        _ if name.is_empty() => reader.unnamed.map(Arc::clone),
        _ => reader.names.get(name).map(|prepared| Arc::clone(&prepared.facts)),
    };
    reader.mentioned.push(facts);
}
