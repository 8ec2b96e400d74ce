//! A success that a cancel may have brought about: the server is asked whether its commits wait
//! for a standby at all. If they don't, the cancel has cut nothing short, and the success is what
//! it always was. If they do, nobody knows, and the client is told so.

use crate::frontend::exchange::{Shown, Word};
use crate::frontend::lost::Loss;
use crate::frontend::own;
use crate::frontend::report::{Doubt, No};
use crate::frontend::serve::Stop;
use crate::frontend::state::Serving;
use crate::wire::frame::TxStatus;
use crate::wire::message;
use std::sync::Arc;

/// Whether a commit of this session waits for nobody but its own server.
pub(super) const WAITS_FOR_NOBODY: &str = "SELECT \
    pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.=) '' \
    OR pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off' \
    OR pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'local'";

impl Serving {
    /// The server says that it has committed, and a cancel was on its way.
    pub(super) async fn on_unconfirmed(&mut self, status: TxStatus) -> Result<(), Stop> {
        let thread = self.session.seat.thread();
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        let Shown::Unsure(held) = std::mem::replace(&mut attached.exchange.shown, Shown::Yes)
        else {
            return Ok(());
        };
        let running = Arc::clone(&attached.checkout.running);
        // What is asked now must not be cancelled in the place of what was.
        self.session.cancel.detach();
        let mut unheard = self.client.reported.clone();
        let conn = &mut attached.checkout;
        let asking = async {
            self.session.cancel.settled().await;
            own::run(conn, ";", &mut unheard).await?;
            match status {
                TxStatus::Idle => own::run_unhurried(conn, WAITS_FOR_NOBODY, &mut unheard).await,
                // What is lifted there stays so until its end.
                TxStatus::Open | TxStatus::Failed => {
                    own::run(conn, WAITS_FOR_NOBODY, &mut unheard).await
                }
            }
        };
        let asked = thread.unless_cut(asking).await;
        let Ok(Ok(answer)) = asked else {
            self.client.shard.give_buffer(held);
            return self.on_server_gone(Loss::Broken(None)).await;
        };
        running.forget_cancels();
        attached.exchange.word = Word::Taken;
        self.session.cancel.attach(running);
        if matches!(answer.rows.first().map(Vec::as_slice), Some([Some(yes)]) if yes == "t") {
            self.client.out().extend_from_slice(&held);
        } else {
            self.client.report(&No::InDoubt(Doubt::Unconfirmed).report());
        }
        self.client.shard.give_buffer(held);
        // A time limit of the session's may have ended our question, and its transaction with it.
        let status = answer.status.unwrap_or(status);
        message::write_ready(self.client.out(), status);
        self.on_ready(status).await
    }
}
