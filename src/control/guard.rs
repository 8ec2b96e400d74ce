//! The guard between a standby and the primary: executed once for all sessions that wait for it.
//!
//! One task a standby. A round takes a moment, asks both servers for their snapshots, and waits
//! until the primary shows what the standby knows as committed (`snapshot` says why that is
//! enough); then everything that the standby showed before that moment is visible on the primary.
//!
//! A round that fails, for whatever reason, vouches for nothing; the next one starts anew.

use crate::clock;
use crate::clock::Moment;
use crate::control::desk::Desk;
use crate::control::fold::Report;
use crate::control::look::Row;
use crate::control::snapshot;
use crate::control::snapshot::{SNAPSHOT, Snapshot};
use crate::control::watch::Question;
use crate::timer;
use crate::topology::ServerId;
use crate::topology::Signals;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Between two rounds, and between two questions to a primary that does not show everything yet.
const PACE: Duration = Duration::from_millis(2);

/// The pause after a round that failed; doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(250);

/// Longest round: a commit that waits for its synchronous standby stays invisible for as long.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// What a guard needs.
pub(crate) struct Guard {
    pub(crate) standby: ServerId,
    pub(crate) desk: Arc<Desk>,
    pub(crate) signals: Arc<Signals>,
    /// Rung when a wish for this standby changed.
    pub(crate) poke: Arc<Notify>,
    /// Where each server's questions go.
    pub(crate) servers: Arc<[mpsc::Sender<Question>]>,
}

impl Guard {
    /// Serves wishes for ever.
    pub(crate) async fn run(self) {
        let mut retry = RETRY_FIRST;
        loop {
            if !self.is_wanted() {
                self.poke.notified().await;
                retry = RETRY_FIRST;
                continue;
            }
            let round = timer::timeout(ROUND_MAX, self.round()).await;
            let passed = matches!(round, Ok(Some(())));
            let pause = if passed { PACE } else { retry };
            // A wish outlives its session, so one for a server that is gone is tried ever less.
            retry = if passed { RETRY_FIRST } else { (retry * 2).min(RETRY_MAX) };
            timer::sleep(pause).await;
        }
    }

    fn is_wanted(&self) -> bool {
        let wanted = self.signals.wanted_visibility(self.standby);
        let topology = self.desk.topology();
        let visible = topology.server(self.standby).and_then(|server| server.visible_on_primary);
        wanted != Moment::ORIGIN && visible.is_none_or(|visible| visible < wanted)
    }

    /// One round; `None` if it vouches for nothing.
    async fn round(&self) -> Option<()> {
        let up_to = clock::now();
        let topology = self.desk.topology();
        let (epoch, primary) = (topology.epoch, topology.writable()?);
        let (standby, mine) =
            tokio::join!(self.ask(self.standby, SNAPSHOT), self.ask(primary, SNAPSHOT));
        let candidates = snapshot::candidates(&read(&mine?)?, &read(&standby?)?)?;
        let mut hidden = self.choose(self.standby, snapshot::which_committed, &candidates).await?;
        while !hidden.is_empty() {
            hidden = self.choose(primary, snapshot::which_hidden, &hidden).await?;
            if !hidden.is_empty() {
                timer::sleep(PACE).await;
            }
        }
        self.desk.report(self.standby, Report::Visible { up_to, epoch });
        Some(())
    }

    /// Asks a server which of these transactions have a property.
    async fn choose(
        &self,
        server: ServerId,
        question: fn(&[u64]) -> String,
        xids: &[u64],
    ) -> Option<Vec<u64>> {
        if xids.is_empty() {
            return Some(Vec::new());
        }
        let rows = self.ask(server, &question(xids)).await?;
        rows.iter().map(|row| row.first()?.as_deref()?.parse().ok()).collect()
    }

    async fn ask(&self, server: ServerId, sql: &str) -> Option<Vec<Row>> {
        let (reply, answer) = oneshot::channel();
        let question = Question { sql: sql.to_owned(), reply };
        self.servers.get(server.index())?.send(question).await.ok()?;
        answer.await.ok()
    }
}

fn read(rows: &[Row]) -> Option<Snapshot> {
    rows.first()?.first()?.as_deref()?.parse().ok()
}
