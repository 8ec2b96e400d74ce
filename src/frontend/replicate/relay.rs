//! Bytes both ways, as they are.
//!
//! Each way has one buffer, and nothing is read before it was written to its end: a slow client
//! stops the reading from the server, and the other way round.

use crate::frontend::Shard;
use crate::frontend::seat::Seat;
use crate::metrics::Tally;
use crate::net::Stream;
use crate::wire::watch::Watch;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is moved at a time, in bytes.
const BUFFER: usize = 64 * 1024;

/// What the client is still to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// Nothing: it has left, or its server has said all, or it is in the middle of a message.
    Nothing,
    /// Its server is the primary no more.
    Replaced,
    /// pgsteer is shutting down.
    ShuttingDown,
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Nothing was asked that was not answered.
    Nothing,
    /// A command, which comes to an end.
    Command,
    /// A stream both ways, which comes to none.
    Streams,
}

/// A client and its backend.
pub(super) struct Relay<'a> {
    client: &'a mut Stream,
    backend: &'a mut Stream,
    up: Flow,
    down: Flow,
    doing: Doing,
}

impl<'a> Relay<'a> {
    /// `ahead` is what the client has said already.
    pub(super) fn new(
        (client, backend): (&'a mut Stream, &'a mut Stream),
        ahead: &[u8],
        shard: &Shard,
    ) -> Self {
        let clients = &shard.shared.metrics.clients;
        let (mut up, down) = (Flow::new(&clients.received), Flow::new(&clients.sent));
        let mut doing = Doing::Nothing;
        if !ahead.is_empty() {
            up.begin_with(ahead, &mut |_| doing = Doing::Command);
        }
        Self { client, backend, up, down, doing }
    }

    /// Moves bytes until one side has ended, or both must part.
    pub(super) async fn run(mut self, seat: &Seat) -> Last {
        let last = poll_fn(|context| self.poll(context, seat)).await;
        // What it has half, it would take every further word for the rest of.
        if self.down.is_between() { last } else { Last::Nothing }
    }

    fn poll(&mut self, context: &mut Context<'_>, seat: &Seat) -> Poll<Last> {
        let Self { client, backend, up, down, doing } = self;
        let mut begins = |_| {
            if *doing == Doing::Nothing {
                *doing = Doing::Command;
            }
        };
        match up.poll(context, (client, backend), &mut begins) {
            Poll::Ready(Broken::Source) => return Poll::Ready(Last::Nothing),
            // What the server said before it closed is still to be read.
            Poll::Ready(Broken::Sink) | Poll::Pending => {}
        }
        let mut begins = |tag| match tag {
            b'W' => *doing = Doing::Streams,
            b'Z' => *doing = Doing::Nothing,
            _ => {}
        };
        match down.poll(context, (backend, client), &mut begins) {
            Poll::Ready(Broken::Source | Broken::Sink) => return Poll::Ready(Last::Nothing),
            Poll::Pending => {}
        }
        if seat.is_cut() {
            return Poll::Ready(Last::Replaced);
        }
        if seat.is_closing() && *doing != Doing::Command {
            return Poll::Ready(Last::ShuttingDown);
        }
        Poll::Pending
    }
}

/// Which end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Nothing more comes, and what came was passed on.
    Source,
    /// Nothing more is taken.
    Sink,
}

/// One way.
struct Flow {
    buffer: Box<[u8]>,
    /// How much of the buffer is filled, and how much of that was written.
    filled: usize,
    written: usize,
    stage: Stage,
    watch: Watch,
    moved: Tally,
}

/// How far one way has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// All was written and sent.
    Reads,
    /// The sink may hold back what was written to it.
    Sends,
    /// It is over.
    Over(Broken),
}

impl Flow {
    fn new(moved: &Tally) -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
            written: 0,
            stage: Stage::Reads,
            watch: Watch::default(),
            moved: moved.clone(),
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        (source, sink): (&mut Stream, &mut Stream),
        begins: &mut dyn FnMut(u8),
    ) -> Poll<Broken> {
        loop {
            match self.stage {
                Stage::Over(broken) => return Poll::Ready(broken),
                Stage::Sends => self.stage = ready!(self.poll_send(context, sink)),
                Stage::Reads => self.stage = ready!(self.poll_read(context, source, begins)),
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, sink: &mut Stream) -> Poll<Stage> {
        while let Some(rest) =
            self.buffer.get(self.written..self.filled).filter(|it| !it.is_empty())
        {
            match ready!(Pin::new(&mut *sink).poll_write(context, rest)) {
                Ok(0) | Err(_) => return Poll::Ready(Stage::Over(Broken::Sink)),
                Ok(written) => self.written += written,
            }
        }
        // Others need not join it, and it may be the last.
        Poll::Ready(match ready!(sink.poll_sent(context)) {
            Ok(()) => Stage::Reads,
            Err(_) => Stage::Over(Broken::Sink),
        })
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        source: &mut Stream,
        begins: &mut dyn FnMut(u8),
    ) -> Poll<Stage> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let read = ready!(Pin::new(source).poll_read(context, &mut buffer));
        let bytes = buffer.filled();
        if read.is_err() || bytes.is_empty() || self.watch.pass(bytes, begins).is_err() {
            return Poll::Ready(Stage::Over(Broken::Source));
        }
        let filled = bytes.len();
        Poll::Ready(self.passes_on(filled))
    }

    /// So much of the buffer is to be written.
    fn passes_on(&mut self, filled: usize) -> Stage {
        (self.filled, self.written) = (filled, 0);
        self.moved.inc_by(u64::try_from(filled).unwrap_or(0));
        Stage::Sends
    }

    /// This has been read before; it is shorter than the buffer.
    fn begin_with(&mut self, bytes: &[u8], begins: &mut dyn FnMut(u8)) {
        self.stage = match self.buffer.get_mut(..bytes.len()) {
            Some(place) if self.watch.pass(bytes, begins).is_ok() => {
                place.copy_from_slice(bytes);
                self.passes_on(bytes.len())
            }
            Some(_) | None => Stage::Over(Broken::Source),
        };
    }

    /// Whether all that came was passed on, and ends with a message.
    fn is_between(&self) -> bool {
        self.written == self.filled && self.watch.is_between()
    }
}
