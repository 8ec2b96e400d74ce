//! A connection to a server, logged in.

use super::error::{ConnectError, Stage};
use super::handshake::log_in;
use super::open::{Attempt, open};

use super::target::{CancelKey, Login, Target};
use crate::clock;
use crate::clock::Moment;
use crate::net;
use crate::net::{Stream, TlsStays};
use crate::pg::SqlState;
use crate::timer;
use crate::topology::ServerId;
use bytes::BytesMut;
use std::io;
use std::time::Duration;

/// A parameter's name and value, in the encoding of the session.
pub type Reported = (Box<[u8]>, Box<[u8]>);

/// A connection to a server, logged in. Dropped, it is closed without a word, which a server
/// takes as the end of the session.
#[derive(Debug)]
pub struct Backend {
    /// What the server sends next is a message's first byte.
    pub stream: Stream,
    /// Which server.
    pub server: ServerId,
    /// The server's process.
    pub pid: i32,
    /// The key to cancel it with.
    pub key: CancelKey,
    /// The parameters that the server reported, in order.
    pub params: Vec<Reported>,
    /// When the login was over: a sample that was sent later vouches for this backend.
    pub opened_at: Moment,
    /// Used by [`Backend::query`]; empty between two calls.
    pub(super) buffer: BytesMut,
}

/// A backend that belongs to no runtime, on its way to another one.
#[derive(Debug)]
pub struct Detached {
    stream: net::Detached,
    server: ServerId,
    pid: i32,
    key: CancelKey,
    params: Vec<Reported>,
    opened_at: Moment,
}

/// Connects and logs in. Not cancel-safe: dropped, the connection is closed.
pub async fn connect(
    target: &Target,
    login: &Login,
    within: Duration,
) -> Result<Backend, ConnectError> {
    let mut stage = Stage::Resolving;
    let tried = timer::timeout(within, attempts(target, login, within, &mut stage)).await;
    tried.unwrap_or(Err(ConnectError::Timeout { stage, within }))
}

async fn attempts(
    target: &Target,
    login: &Login,
    within: Duration,
    stage: &mut Stage,
) -> Result<Backend, ConnectError> {
    let (first, second) = Attempt::of(target.mode);
    let error = match attempt(target, login, (first, within), stage).await {
        Ok(backend) => return Ok(backend),
        Err(error) => error,
    };
    match second {
        Some(second) if worth_another(&error) => {
            let tried = attempt(target, login, (second, within), stage).await;
            // "It has no TLS" would hide why it refused us without.
            tried.map_err(|next| if matches!(next, ConnectError::NoTls) { error } else { next })
        }
        Some(_) | None => Err(error),
    }
}

/// Whether another degree of security may help: the handshake failed, or `pg_hba.conf` has no
/// line for this one. A wrong password is not sent twice.
fn worth_another(error: &ConnectError) -> bool {
    match error {
        ConnectError::Tls { .. } => true,
        ConnectError::LoginRefused(error) => error.code == SqlState::INVALID_AUTHORIZATION,
        ConnectError::Broken { stage, .. } => *stage == Stage::Securing,
        ConnectError::Refused { .. }
        | ConnectError::Unreachable { .. }
        | ConnectError::Unresolved { .. }
        | ConnectError::Timeout { .. }
        | ConnectError::NotPostgres { .. }
        | ConnectError::NoTls
        | ConnectError::DirectTls { .. }
        | ConnectError::NoSecret { .. }
        | ConnectError::Method { .. }
        | ConnectError::Scram(_)
        | ConnectError::Server(_)
        | ConnectError::Protocol { .. } => false,
    }
}

async fn attempt(
    target: &Target,
    login: &Login,
    (how, within): (Attempt, Duration),
    stage: &mut Stage,
) -> Result<Backend, ConnectError> {
    let mut stream = open(target, how, within, stage).await?;
    *stage = Stage::LoggingIn;
    let welcome = log_in(&mut stream, login, target.channel_binding).await?;
    Ok(Backend {
        stream,
        server: target.server,
        pid: welcome.pid,
        key: welcome.key,
        params: welcome.params,
        opened_at: clock::now(),
        buffer: BytesMut::new(),
    })
}

impl Backend {
    /// Takes it off its runtime, so that it can be moved to another thread's.
    ///
    /// # Errors
    /// A TLS connection can't be moved: it comes back. If the system fails, it is closed.
    pub fn detach(self) -> Result<Detached, Option<Box<Self>>> {
        let Self { stream, server, pid, key, params, opened_at, buffer } = self;
        match stream.detach() {
            Ok(stream) => Ok(Detached { stream, server, pid, key, params, opened_at }),
            Err(TlsStays::Tls(stream)) => {
                let back = Self { stream, server, pid, key, params, opened_at, buffer };
                Err(Some(Box::new(back)))
            }
            Err(TlsStays::Closed(_)) => Err(None),
        }
    }

    /// The last value that the server reported for a parameter.
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        let reported = self.params.iter().rev().find(|(known, _)| **known == *name.as_bytes());
        reported.map(|(_, value)| &**value)
    }
}

impl Detached {
    /// Whether nothing has arrived since it rested, so that it was not closed either.
    pub fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
    }

    /// Puts it on the current runtime.
    pub fn attach(self) -> io::Result<Backend> {
        let Self { stream, server, pid, key, params, opened_at } = self;
        let stream = stream.attach()?;
        Ok(Backend { stream, server, pid, key, params, opened_at, buffer: BytesMut::new() })
    }
}
