//! Statements of our own on a session's backend: settings that follow the session, the probe of
//! what a statement left behind, and the empty round trip after a cancel.
//!
//! They run only while nothing of the client's is under way on that backend.

use crate::backend::ServerError;
use crate::frontend::params::{Cause, Reported};
use crate::pg::SqlState;
use crate::pool::Conn;
use crate::session::{Disposition, Prepared, UnnamedThere, status_of};
use crate::timer;
use crate::wire::frame;
use crate::wire::frame::TxStatus;
use crate::wire::message;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What came of a statement of ours.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The rows, as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Messages that are the client's after all: changed parameters.
    pub for_client: Vec<u8>,
    /// The server's error, if it said no.
    pub error: Option<ServerError>,
    /// The transaction behind it.
    pub status: Option<TxStatus>,
}

impl Answer {
    /// Which error it is, if the server said no.
    pub(super) fn code(&self) -> Option<SqlState> {
        self.error.as_ref().map(|error| error.code)
    }
}

/// The backend did not answer as it must; it is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server did not answer a statement of pgsteer's own")]
pub(super) struct Unanswered;

/// Longest wait for the answer: these statements wait for no lock and touch no table.
const OWN_STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a statement is tried that the session's `statement_timeout` ends: what comes before
/// the one that lifts it takes microseconds.
pub(super) const TRIES_MAX: u32 = 20;
/// It fails, and with it the transaction around it.
pub(super) const FAILING: &str = "SELECT 1 OPERATOR(pg_catalog./) 0";
/// Most bytes of an answer.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// Runs `sql` and waits until the backend is ready again.
///
/// Not cancel-safe: dropped in the middle, the backend must be closed.
///
/// # Errors
/// [`Unanswered`] if the connection broke, took too long, or is out of step.
pub(super) async fn run(
    conn: &mut Conn,
    sql: &str,
    reported: &mut Reported,
) -> Result<Answer, Unanswered> {
    let mut bytes = Vec::with_capacity(sql.len() + 16);
    message::write_query(&mut bytes, sql);
    let answered = timer::timeout(OWN_STATEMENT_TIMEOUT, exchange(conn, bytes, reported));
    answered.await.map_err(|_| Unanswered)?
}

/// Prepares a statement under this name, in the place of what may be there.
///
/// Not cancel-safe: dropped in the middle, the backend must be closed.
///
/// # Errors
/// [`Unanswered`] as with [`run`].
pub(super) async fn lend(
    conn: &mut Conn,
    (name, statement): (&[u8], &Prepared),
    reported: &mut Reported,
) -> Result<Answer, Unanswered> {
    let mut bytes = Vec::new();
    write_close(name, &mut bytes);
    statement.write_parse_as(name, &mut bytes);
    message::write_sync(&mut bytes);
    let answered = timer::timeout(OWN_STATEMENT_TIMEOUT, exchange(conn, bytes, reported));
    answered.await.map_err(|_| Unanswered)?
}

/// Takes a statement away, whether or not it is there.
///
/// Not cancel-safe: dropped in the middle, the backend must be closed.
///
/// # Errors
/// [`Unanswered`] as with [`run`].
pub(super) async fn close(
    conn: &mut Conn,
    name: &[u8],
    reported: &mut Reported,
) -> Result<Answer, Unanswered> {
    let mut bytes = Vec::new();
    write_close(name, &mut bytes);
    message::write_sync(&mut bytes);
    let answered = timer::timeout(OWN_STATEMENT_TIMEOUT, exchange(conn, bytes, reported));
    answered.await.map_err(|_| Unanswered)?
}

fn write_close(name: &[u8], out: &mut Vec<u8>) {
    frame::write(out, b'C', |out| {
        out.push(b'S');
        frame::write_text(out, name);
    });
}

/// Runs `sql`, to which no `statement_timeout` of the session's, or of a role's, applies: it may be
/// too short for anything, and what is ours must be done. Only where no transaction is open, and
/// for what may run in one.
///
/// Costs nothing while the time suffices: it is lifted only for what was ended by it.
///
/// Not cancel-safe: dropped in the middle, the backend must be closed.
///
/// # Errors
/// [`Unanswered`] as with [`run`].
pub(super) async fn run_unhurried(
    conn: &mut Conn,
    sql: &str,
    reported: &mut Reported,
) -> Result<Answer, Unanswered> {
    let mut answer = run(conn, sql, reported).await?;
    if answer.code() != Some(SqlState::QUERY_CANCELED) {
        return Ok(answer);
    }
    let unhurried = unhurried(sql);
    for _ in 0..TRIES_MAX {
        let mut for_client = std::mem::take(&mut answer.for_client);
        answer = run(conn, &unhurried, reported).await?;
        for_client.append(&mut answer.for_client);
        answer.for_client = for_client;
        if answer.code() != Some(SqlState::QUERY_CANCELED) {
            break;
        }
    }
    Ok(answer)
}

/// The same with all the time that it takes.
pub(super) fn unhurried(sql: &str) -> String {
    format!("SET LOCAL statement_timeout = 0; {sql}")
}

async fn exchange(
    conn: &mut Conn,
    mut bytes: Vec<u8>,
    reported: &mut Reported,
) -> Result<Answer, Unanswered> {
    // Each `Query` destroys the unnamed statement.
    conn.unnamed_there = UnnamedThere::No;
    conn.backend.stream.write_all(&bytes).await.map_err(|_| Unanswered)?;
    conn.backend.stream.flush().await.map_err(|_| Unanswered)?;
    let mut answer = Answer::default();
    bytes.clear();
    bytes.append(&mut conn.partial);
    let mut at = 0;
    loop {
        while let Some(rest) = bytes.get(at..)
            && let Some(header) = frame::peek(rest).map_err(|_| Unanswered)?
            && let Some(message) = rest.get(..header.total)
        {
            at += header.total;
            match header.tag {
                // What nobody asked for may come at any time, also right behind.
                b'Z' if matches!(bytes.get(at), None | Some(b'A' | b'N' | b'S')) => {
                    answer.status = status_of(message);
                    conn.partial.extend_from_slice(bytes.get(at..).unwrap_or(&[]));
                    return Ok(answer);
                }
                b'D' => answer.rows.push(row(message)?),
                b'S' => {
                    conn.reports.hear(message);
                    if reported.take(message, Cause::Ours) == Disposition::Forward {
                        answer.for_client.extend_from_slice(message);
                    }
                }
                // The client's, whatever it was that we asked: whoever has the backend tells it.
                b'A' => conn.heard.extend_from_slice(message),
                b'E' => {
                    let fields = message::read_error(message).map_err(|_| Unanswered)?;
                    answer.error.get_or_insert_with(|| ServerError::new(&fields));
                }
                b'T' | b'C' | b'I' | b'N' | b'1' | b'3' => {}
                _ => return Err(Unanswered),
            }
        }
        if bytes.len() > ANSWER_MAX {
            return Err(Unanswered);
        }
        let read = conn.backend.stream.read_buf(&mut bytes).await;
        if read.map_err(|_| Unanswered)? == 0 {
            return Err(Unanswered);
        }
    }
}

fn row(message: &[u8]) -> Result<Vec<Option<String>>, Unanswered> {
    let columns = message::read_data_row(message).map_err(|_| Unanswered)?;
    let text = |column: &[u8]| String::from_utf8_lossy(column).into_owned();
    Ok(columns.into_iter().map(|column| column.map(text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::{confirm, greet, lend, probe};
    use crate::session::{FirstRole, Settings, Strays};
    use crate::sql::bare_names;

    /// A client's `search_path` leads to what others have put there, or the client itself to hide
    /// what it leaves behind.
    #[test]
    fn no_statement_of_ours_leaves_a_name_to_the_clients_path() {
        let mut settings = Settings::default();
        settings.set("work_mem", "1MB");
        settings.set("my.setting", "1");
        let role = FirstRole::new("a");
        let custom = ["my.setting"].into_iter().collect();
        let names = ["TimeZone".into(), "DateStyle".into()];
        let mut strays = Strays::default();
        strays.lend(b"s0");
        let texts = [
            probe::sql(("me", &role), &custom),
            greet::asking(names.iter()),
            lend::there(&strays.take_all()).unwrap(),
            confirm::WAITS_FOR_NOBODY.to_owned(),
            FAILING.to_owned(),
            settings.difference_from(&Settings::default(), &role).unwrap(),
        ];
        for sql in texts {
            assert_eq!(bare_names(&sql), Vec::<String>::new(), "{sql}");
        }
    }
}
