//! A blocking connection to one of our own servers, for set-up and for questions.
//!
//! It speaks the simple protocol where the superuser is trusted, as on a server's unix socket, so
//! it needs neither psql (the programs from npm have none) nor a runtime, and works in `Drop`.

use crate::pg::SqlState;
use crate::wire::frame;
use crate::wire::frame::FrameError;
use crate::wire::message;
use crate::wire::message::AuthRequest;
use crate::wire::message::Malformed;
use std::fmt::Debug;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest silence of a server before we give up on it: longer than any statement of ours takes.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The columns of a row, as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// Why a statement of ours has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The server said no.
    #[error("{message} ({code})")]
    Refused {
        /// Which error.
        code: SqlState,
        /// The line for people.
        message: String,
    },
    /// The server could not be reached, or was lost.
    #[error("no connection: {0}")]
    Lost(#[from] std::io::Error),
    /// What answered does not speak PostgreSQL.
    #[error("not an answer of PostgreSQL: {0}")]
    Frame(#[from] FrameError),
    /// What answered does not speak PostgreSQL.
    #[error("not an answer of PostgreSQL: {0}")]
    Message(#[from] Malformed),
    /// The server wants a password where ours trust.
    #[error("the server asks for a password")]
    Password,
    /// The answer has no row or no value where one was asked for.
    #[error("the answer is empty")]
    Empty,
}

/// A connection.
#[derive(Debug)]
pub struct Sql {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Sql {
    /// Connects to the server whose unix socket lies in `dir`.
    pub(super) fn connect(dir: &Path, port: u16, database: &str) -> Result<Self, SqlError> {
        let stream = UnixStream::connect(dir.join(format!(".s.PGSQL.{port}")))?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Self::log_in(Box::new(stream), database)
    }

    /// Connects to a proxy, or to a server, that trusts the superuser.
    ///
    /// # Errors
    /// [`SqlError::Lost`] if nobody listens; [`SqlError::Refused`] if we are not let in.
    pub fn connect_tcp(address: SocketAddr, database: &str) -> Result<Self, SqlError> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Self::log_in(Box::new(stream), database)
    }

    fn log_in(stream: Box<dyn Stream>, database: &str) -> Result<Self, SqlError> {
        let mut sql = Self { stream, received: Vec::new() };
        let mut startup = Vec::new();
        let login = [
            ("user", super::SUPERUSER),
            ("database", database),
            ("application_name", "pgsteer sandbox"),
            ("client_encoding", "UTF8"),
        ];
        message::write_startup(&mut startup, &login)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        sql.exchange(&startup)?;
        Ok(sql)
    }

    /// Runs the statements and gives all their rows.
    ///
    /// # Errors
    /// [`SqlError::Refused`] if the server refuses one: the ones behind it did not run.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>, SqlError> {
        let mut query = Vec::new();
        message::write_query(&mut query, sql);
        self.exchange(&query)
    }

    /// Runs the statement and gives the first value of its first row.
    ///
    /// # Errors
    /// [`SqlError::Empty`] if there is none or it is NULL; otherwise as [`Sql::rows`].
    pub fn value(&mut self, sql: &str) -> Result<String, SqlError> {
        let first = self.rows(sql)?.into_iter().next();
        first.and_then(|row| row.into_iter().next().flatten()).ok_or(SqlError::Empty)
    }

    /// Sends, and reads up to the server's `ReadyForQuery`.
    fn exchange(&mut self, request: &[u8]) -> Result<Vec<Row>, SqlError> {
        self.stream.write_all(request)?;
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            let message = self.message()?;
            match message.first() {
                Some(b'Z') => return refusal.map_or(Ok(rows), Err),
                Some(b'R') if message::read_auth_request(&message)? != AuthRequest::Ok => {
                    return Err(SqlError::Password);
                }
                Some(b'D') => rows.push(row(&message)?),
                Some(b'E') => {
                    let fields = message::read_error(&message)?;
                    let text = String::from_utf8_lossy(fields.message).into_owned();
                    let error = SqlError::Refused { code: fields.code, message: text };
                    if fields.is_fatal() {
                        return Err(error);
                    }
                    refusal = Some(error);
                }
                // Parameters, keys, notices, descriptions, tags: nothing that we ask for.
                Some(_) | None => {}
            }
        }
    }

    /// The next message, whole.
    fn message(&mut self) -> Result<Vec<u8>, SqlError> {
        let mut chunk = [0; 8192];
        loop {
            if let Some(header) = frame::peek(&self.received)?
                && header.total <= self.received.len()
            {
                let rest = self.received.split_off(header.total);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            self.received.extend_from_slice(chunk.get(..read).unwrap_or(&[]));
        }
    }
}

/// A socket, of either kind.
trait Stream: Read + Write + Debug + Send {}

impl Stream for UnixStream {}
impl Stream for TcpStream {}

fn row(message: &[u8]) -> Result<Row, SqlError> {
    let columns = message::read_data_row(message)?;
    let text = |column: &[u8]| String::from_utf8_lossy(column).into_owned();
    Ok(columns.into_iter().map(|column| column.map(text)).collect())
}
