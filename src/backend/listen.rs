//! A backend that mostly listens: it is told something now and then, and heard all the time.

use super::connect::Backend;
use super::error::ServerError;
use super::io::{ReadError, message};
use super::query::QueryError;
use crate::wire::message::{read_error, write_query};
use std::io;
use tokio::io::AsyncWriteExt;

/// The longest message that is expected: a channel and a payload of 8 kB, or an error.
const MESSAGE_MAX: usize = 64 * 1024;

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// A `NotificationResponse`.
    Notification(bytes::BytesMut),
    /// It is done with what it was told.
    Ready,
    /// Something of no concern.
    Other,
}

impl Backend {
    /// Tells the server something; [`Backend::hear`] hears when it is done. Not cancel-safe.
    ///
    /// # Errors
    /// [`QueryError`] if the connection broke.
    pub async fn tell(&mut self, sql: &str) -> Result<(), QueryError> {
        let mut out = Vec::new();
        write_query(&mut out, sql);
        self.stream.write_all(&out).await.map_err(QueryError::Broken)?;
        self.stream.flush().await.map_err(QueryError::Broken)
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// [`QueryError`] if the connection broke, or if the server has anything to complain of.
    pub async fn hear(&mut self) -> Result<Heard, QueryError> {
        let read = message(&mut self.stream, &mut self.buffer, MESSAGE_MAX).await;
        let read = read.map_err(|error| match error {
            ReadError::Closed => QueryError::Broken(io::ErrorKind::UnexpectedEof.into()),
            ReadError::Io(source) => QueryError::Broken(source),
            ReadError::TooLong { .. } => QueryError::TooLarge,
            ReadError::Frame(error) => QueryError::Protocol { what: error.to_string() },
        })?;
        match read.first() {
            Some(b'A') => Ok(Heard::Notification(read)),
            Some(b'Z') => Ok(Heard::Ready),
            Some(b'E') => Err(QueryError::Server(ServerError::new(&read_error(&read)?))),
            Some(_) | None => Ok(Heard::Other),
        }
    }
}
