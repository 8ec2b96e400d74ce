//! Questions of our own on a backend: the control plane's, and the lookup of verifiers.

use super::connect::Backend;
use super::error::ServerError;
use super::io::{ReadError, message};
use crate::wire::message::{
    Malformed, read_columns, read_command_complete, read_data_row, read_error,
    read_parameter_status, write_bind_text, write_execute, write_parse, write_query, write_sync,
};
use std::io;
use tokio::io::AsyncWriteExt;

/// Most bytes of answers to one call; as rows they take up to six times as much.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// One row; `None` is NULL.
pub type Row = Vec<Option<Vec<u8>>>;

/// What one statement answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultSet {
    /// The columns' names; none if the statement gives no rows.
    pub columns: Vec<String>,
    /// The rows, as text.
    pub rows: Vec<Row>,
    /// The command tag: `SELECT 1`.
    pub tag: String,
    /// Whether the server had a warning to give on the way: a commit whose wait for a standby
    /// was broken off succeeds with no other sign.
    pub warned: bool,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The server answered with an error.
    #[error("{0}")]
    Server(#[source] ServerError),
    /// The answer is longer than any that we ask for.
    #[error("the answer is longer than {ANSWER_MAX} bytes")]
    TooLarge,
    /// The server breaks the rules of the protocol.
    #[error("the server broke the protocol: {what}")]
    Protocol {
        /// Which rule.
        what: String,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
}

impl QueryError {
    /// Whether the backend can be asked again; otherwise it must be dropped.
    pub const fn leaves_usable(&self) -> bool {
        match self {
            Self::Server(error) => !error.ends_connection,
            Self::TooLarge | Self::Protocol { .. } | Self::Broken(_) => false,
        }
    }
}

impl ResultSet {
    /// A value as text: `None` for NULL, for a place that is not there, and for what is no UTF-8.
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        let value = self.rows.get(row)?.get(column)?.as_deref()?;
        std::str::from_utf8(value).ok()
    }
}

impl Backend {
    /// Asks by the simple protocol: any number of statements, one result set each. Works on
    /// replication connections, too.
    ///
    /// Not cancel-safe: a backend whose question was given up, for a timeout say, must be
    /// dropped.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<ResultSet>, QueryError> {
        let mut out = Vec::new();
        write_query(&mut out, sql);
        self.send(&out).await?;
        let answer = self.answer(&mut 0).await?;
        self.settle().await?;
        answer.map_err(QueryError::Server)
    }

    /// Asks several questions in one go: one round trip. A question that fails does not keep
    /// the next from being asked.
    ///
    /// Not cancel-safe, as [`Backend::query`].
    pub async fn pipeline(
        &mut self,
        questions: &[&str],
    ) -> Result<Vec<Result<Vec<ResultSet>, ServerError>>, QueryError> {
        let mut out = Vec::new();
        for sql in questions {
            write_query(&mut out, sql);
        }
        self.send(&out).await?;
        let mut size = 0;
        let mut answers = Vec::with_capacity(questions.len());
        for _ in questions {
            answers.push(self.answer(&mut size).await?);
        }
        self.settle().await?;
        Ok(answers)
    }

    /// Asks one statement with parameters, which go apart from the SQL and as text.
    ///
    /// Not cancel-safe, as [`Backend::query`].
    pub async fn query_with(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<ResultSet, QueryError> {
        let mut out = Vec::new();
        write_parse(&mut out, b"", sql.as_bytes());
        write_bind_text(&mut out, parameters);
        write_execute(&mut out);
        write_sync(&mut out);
        self.send(&out).await?;
        let answer = self.answer(&mut 0).await?;
        self.settle().await?;
        Ok(answer.map_err(QueryError::Server)?.pop().unwrap_or_default())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), QueryError> {
        self.stream.write_all(bytes).await.map_err(QueryError::Broken)?;
        self.stream.flush().await.map_err(QueryError::Broken)
    }

    /// Reads up to one `ReadyForQuery`.
    async fn answer(
        &mut self,
        size: &mut usize,
    ) -> Result<Result<Vec<ResultSet>, ServerError>, QueryError> {
        let mut sets = Vec::new();
        let mut current = ResultSet::default();
        let mut failed = None;
        loop {
            let message = self.next(size).await?;
            match message.first().copied().unwrap_or_default() {
                b'Z' => return Ok(failed.map_or(Ok(sets), Err)),
                b'T' => current.columns = read_columns(&message)?.into_iter().map(text).collect(),
                b'D' => {
                    let row = read_data_row(&message)?;
                    current.rows.push(row.into_iter().map(|v| v.map(<[u8]>::to_vec)).collect());
                }
                b'C' => {
                    current.tag = text(read_command_complete(&message)?);
                    sets.push(std::mem::take(&mut current));
                }
                b'E' => {
                    let error = ServerError::new(&read_error(&message)?);
                    if error.ends_connection {
                        return Err(QueryError::Server(error));
                    }
                    failed = Some(error);
                }
                b'S' => self.reported(&message)?,
                b'N' => current.warned |= read_error(&message)?.severity == b"WARNING",
                // Notifications, an empty query, and the steps of the extended protocol.
                b'A' | b'I' | b'1' | b'2' | b'n' => (),
                other => {
                    let what = format!("unexpected message {:?}", char::from(other));
                    return Err(QueryError::Protocol { what });
                }
            }
        }
    }

    /// Reads on until nothing is left in the buffer: a server may send a parameter, or end the
    /// connection, right behind its `ReadyForQuery`, and the stream belongs to the relay again.
    async fn settle(&mut self) -> Result<(), QueryError> {
        while !self.buffer.is_empty() {
            let message = self.next(&mut 0).await?;
            match message.first() {
                Some(b'S') => self.reported(&message)?,
                Some(b'E') => {
                    return Err(QueryError::Server(ServerError::new(&read_error(&message)?)));
                }
                Some(_) | None => (),
            }
        }
        Ok(())
    }

    async fn next(&mut self, size: &mut usize) -> Result<bytes::BytesMut, QueryError> {
        let left = ANSWER_MAX.saturating_sub(*size);
        let read = message(&mut self.stream, &mut self.buffer, left).await;
        let read = read.map_err(|error| match error {
            ReadError::Closed => QueryError::Broken(io::ErrorKind::UnexpectedEof.into()),
            ReadError::Io(source) => QueryError::Broken(source),
            ReadError::TooLong { .. } => QueryError::TooLarge,
            ReadError::Frame(error) => QueryError::Protocol { what: error.to_string() },
        })?;
        *size += read.len();
        Ok(read)
    }

    fn reported(&mut self, message: &[u8]) -> Result<(), QueryError> {
        let (name, value) = read_parameter_status(message)?;
        match self.params.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = value.into(),
            None => self.params.push((name.into(), value.into())),
        }
        Ok(())
    }
}

impl From<Malformed> for QueryError {
    fn from(error: Malformed) -> Self {
        Self::Protocol { what: error.to_string() }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
