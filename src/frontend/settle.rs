//! Before a backend serves a session, and before it serves another: settings are brought, what
//! was left behind is found out, and only then is it released.

use crate::clock;
use crate::frontend::attached::{Attached, Computed, Standing};
use crate::frontend::cancel::UnderWay;
use crate::frontend::client::Client;
use crate::frontend::exchange::Completed;
use crate::frontend::obtain::Obtained;
use crate::frontend::own;
use crate::frontend::plan::Taint;
use crate::frontend::probe;
use crate::frontend::probe::Pin;
use crate::frontend::serve::Stop;
use crate::frontend::state::{Serving, Session};
use crate::pg::quote_identifier;
use crate::pool::{Mode, Reset};
use crate::session::{Settings, same};
use std::sync::Arc;

/// Why a backend could not be given the session's settings.
#[derive(Debug)]
pub(super) enum NotBrought {
    /// The server refused one, with this message.
    Refused(String),
    /// The backend broke.
    Broken,
}

/// Brings the session's settings to a backend that carries others.
///
/// Nothing of the client's is sent before the server has agreed: a statement must not run under
/// another's settings.
pub(super) async fn bring_settings(
    client: &mut Client,
    session: &mut Session,
    mut obtained: Obtained,
) -> Result<Obtained, NotBrought> {
    let conn = &mut *obtained.checkout;
    if same(&session.settings, &conn.carried) || reset_of(client) == Reset::Off {
        return Ok(obtained);
    }
    let Some(sql) = session.settings.difference_from(&conn.carried) else { return Ok(obtained) };
    let answer = own::run(conn, &sql, &mut session.reported).await;
    let answer = answer.map_err(|_| NotBrought::Broken)?;
    client.out().extend_from_slice(&answer.for_client);
    match answer.error {
        None => {
            conn.carried = Arc::clone(&session.settings);
            Ok(obtained)
        }
        // Dropped, the backend is closed: half of the settings may have arrived.
        Some(message) => Err(NotBrought::Refused(message)),
    }
}

fn reset_of(client: &Client) -> Reset {
    client.shard.shared.pools.policy().reset
}

impl Serving {
    /// The backend is free: finds out what the session left on it, and gives it back unless the
    /// session must stay.
    pub(super) async fn settle(&mut self) -> Result<(), Stop> {
        let Some(mut attached) = self.attached.take() else { return Ok(()) };
        let policy = self.client.shard.shared.pools.policy();
        if attached.exchange.completed == Completed::AllDeallocated {
            attached.checkout.held.clear();
            self.session.names.clear();
            self.session.unnamed = None;
            attached.exchange.completed = Completed::Nothing;
        }
        if policy.reset == Reset::Tracked && self.examine(&mut attached).await.is_err() {
            // It is closed: what it carries is not known. Its session goes on with what is known.
            self.let_go(*attached);
            return Ok(());
        }
        let stays = policy.mode == Mode::Session || !attached.pins.is_empty();
        if stays && attached.standing == Standing::Primary {
            self.attached = Some(attached);
            return Ok(());
        }
        if stays && policy.mode == Mode::Session {
            self.attached = Some(attached);
            return Ok(());
        }
        self.session.reported = std::mem::take(&mut attached.exchange.reported);
        self.client.shard.give_buffer(std::mem::take(&mut attached.exchange.to_server));
        let clean = attached.pins.is_empty() && attached.checkout.partial.is_empty();
        if let UnderWay::Yes = self.session.cancel.detach() {
            self.session.cancel.settled().await;
            let mut reported = self.session.reported.clone();
            if own::run(&mut attached.checkout, ";", &mut reported).await.is_err() {
                return Ok(());
            }
        }
        if clean {
            attached.checkout.release(clock::now());
        }
        Ok(())
    }

    /// The backend is closed.
    fn let_go(&mut self, attached: Attached) {
        self.session.cancel.detach();
        self.session.reported = attached.exchange.reported;
    }

    /// Asks the server what the session has left on its backend.
    async fn examine(&mut self, attached: &mut Attached) -> Result<(), own::Unanswered> {
        let taint = std::mem::take(&mut attached.taint);
        let strays = std::mem::take(&mut attached.strays);
        let conn = &mut *attached.checkout;
        let reported = &mut attached.exchange.reported;
        for name in strays {
            let name = quote_identifier(&String::from_utf8_lossy(&name));
            own::run(conn, &format!("DEALLOCATE {name}"), reported).await?;
        }
        if taint == Taint::None {
            return Ok(());
        }
        let sql = probe::sql(&self.session.user, &self.session.custom);
        let answer = own::run(conn, &sql, reported).await?;
        if answer.error.is_some() {
            return Err(own::Unanswered);
        }
        self.client.out().extend_from_slice(&answer.for_client);
        let found = probe::read(&answer.rows);
        attached.pins = found.pins;
        if attached.computed == Computed::Yes {
            attached.pins.add(Pin::Hidden);
        }
        let carried = Arc::new(found.settings.clone());
        self.session.adopt_settings(found.settings, &std::mem::take(&mut attached.resets));
        conn.carried = if *carried == *self.session.settings {
            Arc::clone(&self.session.settings)
        } else {
            carried
        };
        if taint == Taint::Hidden && attached.pins.is_empty() {
            // Code that is not in the text may have set what no probe lists.
            let answer = own::run(conn, "RESET ALL", reported).await?;
            if answer.error.is_some() {
                return Err(own::Unanswered);
            }
            self.client.out().extend_from_slice(&answer.for_client);
            let mut left = Settings::default();
            if let Some(role) = conn.carried.get("role") {
                left.set("role", role);
            }
            conn.carried = Arc::new(left);
        }
        Ok(())
    }
}

/// A client that leaves gives back what it holds, if it can be left clean: in session mode, and
/// when something pinned it.
pub(super) async fn release_at_end(session: &Session, mut attached: Attached) {
    if let UnderWay::Yes = session.cancel.detach() {
        session.cancel.settled().await;
    }
    let mut reported = session.reported.clone();
    let answer = own::run(&mut attached.checkout, "DISCARD ALL", &mut reported).await;
    if answer.is_ok_and(|answer| answer.error.is_none()) {
        attached.checkout.held.clear();
        attached.checkout.carried = Arc::default();
        attached.checkout.release(clock::now());
    }
}
