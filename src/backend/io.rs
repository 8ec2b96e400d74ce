//! Whole messages off a server's stream.

use super::error::{ConnectError, Stage};
use crate::net::Stream;
use crate::wire::frame;
use crate::wire::frame::FrameError;
use bytes::BytesMut;
use ring::rand::SecureRandom;
use std::io;
use tokio::io::AsyncReadExt;

/// Bytes that are read at a time.
const CHUNK: usize = 8192;

/// Why there is no next message.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the server closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("message {tag:?} of {total} bytes is longer than expected")]
    TooLong { tag: char, total: usize },
}

/// The next whole message. Cancel-safe: what has arrived stays in `buffer`.
pub(super) async fn message(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<BytesMut, ReadError> {
    loop {
        if let Some(header) = frame::peek(buffer)? {
            if header.total > limit {
                let tag = char::from(header.tag);
                return Err(ReadError::TooLong { tag, total: header.total });
            }
            if buffer.len() >= header.total {
                return Ok(buffer.split_to(header.total));
            }
        }
        buffer.reserve(CHUNK);
        if stream.read_buf(buffer).await? == 0 {
            return Err(ReadError::Closed);
        }
    }
}

impl ReadError {
    /// The same as a reason for not being connected, once the server has shown that it speaks
    /// the protocol.
    pub(super) fn while_logging_in(self) -> ConnectError {
        let stage = Stage::LoggingIn;
        match self {
            Self::Closed => ConnectError::Broken {
                stage,
                source: io::Error::new(io::ErrorKind::UnexpectedEof, Self::Closed.to_string()),
            },
            Self::Io(source) => ConnectError::Broken { stage, source },
            Self::Frame(_) | Self::TooLong { .. } => {
                ConnectError::Protocol { what: self.to_string() }
            }
        }
    }
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system has no randomness"))?;
    Ok(bytes)
}
