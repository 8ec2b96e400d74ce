//! Asking a server to cancel what another connection does.

use super::error::{ConnectError, Stage};
use super::open::{Attempt, open};
use super::target::Target;
use crate::net::Stream;
use crate::timer;
use crate::wire::message::write_cancel_request;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends a `CancelRequest` and waits until the server has closed the connection: the signal has
/// been sent by then. Whether it hits anything, nobody says. Not cancel-safe: dropped, the
/// request may or may not have been sent.
pub async fn cancel(
    target: &Target,
    pid: i32,
    key: &[u8],
    within: Duration,
) -> Result<(), ConnectError> {
    let mut stage = Stage::Resolving;
    let tried = timer::timeout(within, send(target, (pid, key), within, &mut stage)).await;
    tried.unwrap_or(Err(ConnectError::Timeout { stage, within }))
}

async fn send(
    target: &Target,
    (pid, key): (i32, &[u8]),
    within: Duration,
    stage: &mut Stage,
) -> Result<(), ConnectError> {
    let mut stream = opened(target, within, stage).await?;
    *stage = Stage::LoggingIn;
    let broken = |source| ConnectError::Broken { stage: Stage::LoggingIn, source };
    let mut request = Vec::new();
    write_cancel_request(&mut request, pid, key);
    stream.write_all(&request).await.map_err(broken)?;
    stream.sent().await.map_err(broken)?;
    // The server says nothing. An end without TLS's farewell, or a reset, is an end, too; and
    // somebody who talks is not waited for beyond one message.
    let mut nothing = [0; 1];
    drop(stream.read(&mut nothing).await);
    Ok(())
}

async fn opened(
    target: &Target,
    within: Duration,
    stage: &mut Stage,
) -> Result<Stream, ConnectError> {
    let (first, second) = Attempt::of(target.mode);
    match (open(target, first, within, stage).await, second) {
        (Err(ConnectError::Tls { .. }), Some(second)) => open(target, second, within, stage).await,
        (opened, _) => opened,
    }
}
