//! A client that sees everything: every message as it came, errors with all their fields.
//!
//! Drivers hide what these tests ask about: a second error, a notice, the end of a connection,
//! the byte that says whether a transaction has failed. This one blocks; who needs several at a
//! time takes threads.

use pgsteer::wire::frame;
use pgsteer::wire::message;
use std::fmt;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence of the other side before a test fails.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// A connection.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    inbox: Vec<u8>,
    pub pid: i32,
    pub key: Vec<u8>,
    spoke: Spoke,
}

/// The protocol of the last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoke {
    Simple,
    Extended,
}

/// An error or a notice.
#[derive(Clone, PartialEq, Eq)]
pub struct Said {
    pub severity: String,
    pub code: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

/// How the answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    /// `ReadyForQuery` with this status: `I`, `T` or `E`.
    Ready(char),
    /// The connection was closed.
    #[default]
    Closed,
}

/// An answer, up to `ReadyForQuery` or to the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    pub rows: Vec<Vec<Option<String>>>,
    pub tags: Vec<String>,
    pub errors: Vec<Said>,
    pub notices: Vec<Said>,
    pub ended: Ended,
}

impl Wire {
    /// Connects, and says nothing yet.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self { stream, inbox: Vec::new(), pid: 0, key: Vec::new(), spoke: Spoke::Simple })
    }

    /// Logs in as the superuser, who is trusted.
    pub fn log_in(address: SocketAddr, database: &str) -> Result<Self, Reply> {
        Self::log_in_with(address, &[("user", "postgres"), ("database", database)])
    }

    /// Logs in with these parameters.
    pub fn log_in_with(address: SocketAddr, params: &[(&str, &str)]) -> Result<Self, Reply> {
        let wire = Self::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        wire.start(params)
    }

    /// Logs in on a connection that has said nothing yet.
    pub fn start(mut self, params: &[(&str, &str)]) -> Result<Self, Reply> {
        let mut startup = Vec::new();
        message::write_startup(&mut startup, params).unwrap();
        let reply = self.ask(&startup);
        if reply.ended == Ended::Ready('I') { Ok(self) } else { Err(reply) }
    }

    /// One `Query`.
    pub fn query(&mut self, sql: &str) -> Reply {
        let mut bytes = Vec::new();
        message::write_query(&mut bytes, sql);
        self.ask(&bytes)
    }

    /// One statement by the extended protocol: Parse, Bind, Execute, Sync.
    pub fn extended(&mut self, sql: &str) -> Reply {
        let mut bytes = Vec::new();
        message::write_parse(&mut bytes, b"", sql.as_bytes());
        message::write_bind_text(&mut bytes, &[]);
        message::write_execute(&mut bytes);
        message::write_sync(&mut bytes);
        self.spoke = Spoke::Extended;
        let reply = self.ask(&bytes);
        self.spoke = Spoke::Simple;
        reply
    }

    /// The statement, which must succeed: the first value of its first row.
    pub fn value(&mut self, sql: &str) -> String {
        let reply = self.query(sql);
        reply.value().unwrap_or_else(|| panic!("{sql}: {reply:?}"))
    }

    /// The statement, which must succeed.
    pub fn run(&mut self, sql: &str) -> Reply {
        let reply = self.query(sql);
        assert!(reply.is_good(), "{sql}: {reply:?}");
        reply
    }

    /// Sends, and reads the answer to its end.
    pub fn ask(&mut self, bytes: &[u8]) -> Reply {
        if self.send(bytes).is_err() {
            // What was said before the end is still to be read.
        }
        self.reply()
    }

    /// Sends only.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Asks pgsteer, there, to cancel what this runs. Returns when it has closed that connection.
    pub fn cancel(&self, address: SocketAddr) {
        let mut request = Vec::new();
        message::write_cancel_request(&mut request, self.pid, &self.key);
        let mut wire = Self::connect(address).unwrap();
        wire.send(&request).unwrap();
        assert!(wire.message().is_none());
    }

    /// Reads up to `ReadyForQuery` or the end. A COPY is refused with `CopyFail`.
    pub fn reply(&mut self) -> Reply {
        let mut reply = Reply::default();
        while let Some(message) = self.message() {
            match message[0] {
                b'Z' => {
                    reply.ended = Ended::Ready(char::from(message[5]));
                    return reply;
                }
                b'D' => reply.rows.push(row(&message)),
                b'C' => {
                    let tag = message::read_command_complete(&message).unwrap();
                    reply.tags.push(String::from_utf8_lossy(tag).into_owned());
                }
                b'E' => reply.errors.push(Said::read(&message)),
                b'N' => reply.notices.push(Said::read(&message)),
                b'K' => {
                    let found = message::read_key_data(&message).unwrap();
                    (self.pid, self.key) = (found.pid, found.key.to_vec());
                }
                b'G' => {
                    self.send(b"f\0\0\0\x06x\0").unwrap_or(());
                    if self.spoke == Spoke::Extended {
                        // The server passes over the first one while it copies in.
                        self.send(b"S\0\0\0\x04").unwrap_or(());
                    }
                }
                _ => {}
            }
        }
        reply
    }

    /// The next message, whole; `None` at the end of the connection.
    pub fn message(&mut self) -> Option<Vec<u8>> {
        let mut chunk = [0; 8 * 1024];
        loop {
            if let Ok(Some(header)) = frame::peek(&self.inbox)
                && header.total <= self.inbox.len()
            {
                let rest = self.inbox.split_off(header.total);
                return Some(std::mem::replace(&mut self.inbox, rest));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.inbox.extend_from_slice(&chunk[..read]),
                Err(error) if is_late(&error) => panic!("no answer within {SILENCE_MAX:?}"),
                Err(_) => return None,
            }
        }
    }

    /// Whatever arrives without being asked for, within this time.
    pub fn unasked(&mut self, within: Duration) -> Vec<u8> {
        self.stream.set_read_timeout(Some(within)).unwrap();
        let mut arrived = std::mem::take(&mut self.inbox);
        let mut chunk = [0; 4096];
        while let Ok(read) = self.stream.read(&mut chunk)
            && read > 0
        {
            arrived.extend_from_slice(&chunk[..read]);
        }
        self.stream.set_read_timeout(Some(SILENCE_MAX)).unwrap();
        arrived
    }
}

impl Drop for Wire {
    /// Says goodbye as drivers do.
    fn drop(&mut self) {
        self.stream.write_all(b"X\0\0\0\x04").unwrap_or(());
    }
}

impl Reply {
    /// Whether there was no error, and the connection is there.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty() && self.ended != Ended::Closed
    }

    /// The code of the first error, or nothing.
    pub fn code(&self) -> &str {
        self.errors.first().map_or("", |said| &said.code)
    }

    /// The codes of all errors.
    pub fn codes(&self) -> Vec<&str> {
        self.errors.iter().map(|said| said.code.as_str()).collect()
    }

    /// The first error.
    pub fn error(&self) -> &Said {
        self.errors.first().unwrap_or_else(|| panic!("no error: {self:?}"))
    }

    /// The first value of the first row.
    pub fn value(&self) -> Option<String> {
        if !self.is_good() {
            return None;
        }
        self.rows.first()?.first()?.clone()
    }
}

impl Said {
    fn read(message: &[u8]) -> Self {
        let fields = message::read_error(message).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            severity: text(fields.severity),
            code: fields.code.to_string(),
            message: text(fields.message),
            detail: fields.detail.map(text).unwrap_or_default(),
            hint: fields.hint.map(text).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, code, message, detail, hint } = self;
        write!(out, "{severity} {code}: {message} | {detail} | {hint}")
    }
}

/// For how many seconds a statement was held before it was refused, in the error's own words.
pub fn held_for(reply: &Reply) -> f64 {
    let (_, rest) = reply.error().detail.split_once("was held for ").expect("it was not held");
    let (seconds, _) = rest.split_once(' ').expect("a number and its unit");
    seconds.parse().unwrap_or_else(|error| panic!("{seconds}: {error}"))
}

fn row(message: &[u8]) -> Vec<Option<String>> {
    let columns = message::read_data_row(message).unwrap();
    let text = |column: &[u8]| String::from_utf8_lossy(column).into_owned();
    columns.into_iter().map(|column| column.map(text)).collect()
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
