//! A connection on its way in, of which more may have been read than was dealt with.
//!
//! What has arrived is read at once, as much as there is: nearly always that is one message, and
//! one call for it. What came behind it stays here: for the next message, and in the end for the
//! session. Whoever makes the connection private must see to it that nothing is left here, for it
//! came from anybody (CVE-2021-23214).

use crate::frontend::login::{Failure, lost};
use crate::net::Stream;
use crate::wire::startup;
use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use tokio::io::AsyncWriteExt;

/// So much is read at a time, in bytes; more than that is never here beyond what was asked for.
const AT_ONCE: usize = 512;

/// A connection, and what was read of it and not dealt with.
#[derive(Debug)]
pub(super) struct Line {
    /// The connection.
    pub(super) stream: Stream,
    /// What came behind what was dealt with.
    pub(super) ahead: Vec<u8>,
}

impl Line {
    /// A connection of which nothing was read.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The next first packet, the length word included.
    pub(super) async fn packet(&mut self) -> Result<Vec<u8>, Failure> {
        let size = loop {
            match startup::size(&self.ahead)? {
                Some(size) => break size,
                None => self.hear_more().await?,
            }
        };
        self.exactly(size).await
    }

    /// The first of these bytes, without taking them.
    pub(super) async fn peek(&mut self, bytes: usize) -> Result<&[u8], Failure> {
        while self.ahead.len() < bytes {
            self.hear_more().await?;
        }
        self.ahead.get(..bytes).ok_or(Failure::Left)
    }

    /// So many bytes.
    pub(super) async fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        self.peek(bytes).await?;
        let behind = self.ahead.split_off(bytes);
        Ok(std::mem::replace(&mut self.ahead, behind))
    }

    /// Says this.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).await.map_err(Failure::Broken)?;
        self.stream.flush().await.map_err(Failure::Broken)
    }

    async fn hear_more(&mut self) -> Result<(), Failure> {
        let Self { stream, ahead } = self;
        let read = poll_fn(|context| {
            let mut place = [0; AT_ONCE];
            let bytes = ready!(stream.poll_receive(context, &mut place))?;
            ahead.extend_from_slice(place.get(..bytes).unwrap_or_default());
            Poll::Ready(io::Result::Ok(bytes))
        });
        if read.await.map_err(lost)? == 0 { Err(Failure::Left) } else { Ok(()) }
    }
}
