//! Replication connections: `pg_basebackup`, `pg_receivewal`, subscribers of logical replication.
//!
//! Such a client logs in as any other. Then it is given a backend of its own, opened with what
//! its startup message said, and from there on every byte passes as it is, both ways. The backend
//! counts against the limit of its user's pool, and is never in it.
//!
//! It leads to the primary, unless `pgsteer.role` in its `options` asks for a standby. When the
//! primary is replaced the connection is ended, so that the client comes back and finds the new
//! one: a stream has no statements that could go on elsewhere.
//!
//! Deliberately absent: any look into the commands, and slots on the new primary.

mod relay;

use crate::clock;
use crate::clock::Moment;
use crate::frontend::Shard;
use crate::frontend::cancel::{KeyForm, Registered};
use crate::frontend::greet::{arrive, own_waker};
use crate::frontend::local;
use crate::frontend::login::LoggedIn;
use crate::frontend::plan::Wishes;
use crate::frontend::report::No;
use crate::frontend::seat::{News, Seat, Taken};
use crate::frontend::state::bit;
use crate::metrics::{ClientState, ErrorOrigin};
use crate::net::Stream;
use crate::pool::{Alone, CheckoutError, PoolKey, Purpose};
use crate::route::{
    Consistency, Need, Patience, PrimaryReason, Refusal, Request, RoleWish, Route, decide,
};
use crate::session::{Anchor, Demand};
use crate::timer;
use crate::topology::{ServerId, Topology};
use crate::wire::frame::TxStatus;
use crate::wire::message;
use relay::{Last, Relay};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tracing::info;

/// Pause before a server that could not be reached is tried once more.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to read what it is told at its login, or its last word.
const WORD_MAX: Duration = Duration::from_secs(5);

/// Serves such a client to its end. `entered` is told whether it got a backend, or why not.
pub(super) async fn replicate(
    shard: Rc<Shard>,
    (login, role): (LoggedIn, RoleWish),
    entered: impl Fn(Option<&No>),
) {
    let LoggedIn { mut stream, introduction, unsent, ahead, .. } = login;
    let replication = introduction.replication;
    let mut presence = arrive(&shard);
    let task = own_waker().await;
    let seat = shard.seats.sit(task.clone());
    presence.turn(ClientState::Waiting);
    let first = Wishes { role, consistency: shard.live().routing.consistency };
    let wanted = wanted(&introduction.settings, first);
    let opened = match wanted {
        Ok((role, params)) => {
            let purpose = Purpose { replication, params };
            let (user, database) = (Arc::clone(&introduction.user), &introduction.database);
            let database = Arc::clone(database);
            let key = PoolKey { server: ServerId(0), database, user };
            let mut search = Search::new(&shard, &seat, role, (key, purpose));
            search.open().await
        }
        Err(no) => Err(no),
    };
    entered(opened.as_ref().err());
    let Opened { mut alone, taken } = match opened {
        Ok(opened) => opened,
        Err(no) => {
            say(&mut stream, &unsent).await;
            return last_word(&shard, &mut stream, &no).await;
        }
    };
    presence.turn(ClientState::Active);
    let keys = if introduction.minor.has_long_keys() { KeyForm::Long } else { KeyForm::Short };
    let random = || shard.numbers.draw();
    let cancel = shard.shared.cancels.enter(task, (Some(alone.backend.pid), keys), random);
    cancel.attach(Arc::clone(&alone.running));
    let server = Arc::clone(&alone.running.target.name);
    info!(%server, ?replication, "a replication connection begins");
    let last = if say(&mut stream, &[unsent, welcome(&alone, &cancel)].concat()).await {
        let streams = (&mut stream, &mut alone.backend.stream);
        Relay::new(streams, &ahead, &shard).run(&seat).await
    } else {
        Last::Nothing
    };
    info!(%server, ?replication, ?last, "a replication connection has ended");
    cancel.detach();
    // The server is rid of it before the client is told, and comes back.
    drop((alone, taken));
    match last {
        Last::Nothing => {}
        Last::Replaced => last_word(&shard, &mut stream, &No::Replaced).await,
        Last::ShuttingDown => last_word(&shard, &mut stream, &No::ShuttingDown).await,
    }
    drop(timer::timeout(WORD_MAX, stream.shutdown()).await);
}

/// What the client asks of pgsteer, and what of its server.
fn wanted(
    settings: &[(String, String)],
    first: Wishes,
) -> Result<(RoleWish, Vec<(String, String)>), No> {
    let mut wishes = first;
    let mut params = Vec::new();
    for (name, value) in settings {
        match name.to_ascii_lowercase().strip_prefix("pgsteer.") {
            Some(name) => wishes = local::with_option(wishes, name, value)?,
            None => params.push((name.clone(), value.clone())),
        }
    }
    Ok((wishes.role, params))
}

/// A backend, and the seat's hold on it if it is the primary's.
struct Opened {
    alone: Alone,
    taken: Option<Taken>,
}

/// Looks for a server that lets the client in.
struct Search<'a> {
    shard: &'a Rc<Shard>,
    seat: &'a Seat,
    need: Need,
    key: PoolKey,
    purpose: Purpose,
    since: Moment,
    failed: u64,
    last_error: Option<CheckoutError>,
}

impl<'a> Search<'a> {
    fn new(
        shard: &'a Rc<Shard>,
        seat: &'a Seat,
        role: RoleWish,
        (key, purpose): (PoolKey, Purpose),
    ) -> Self {
        let need = match role {
            RoleWish::Standby => Need::Standby,
            RoleWish::Auto | RoleWish::Primary => Need::Primary(PrimaryReason::Mode),
        };
        let (since, failed) = (clock::now(), 0);
        Self { shard, seat, need, key, purpose, since, failed, last_error: None }
    }

    /// Opens a backend of a server that fits; waits for one as long as a statement would.
    async fn open(&mut self) -> Result<Opened, No> {
        loop {
            let now = clock::now();
            let topology = self.shard.topology();
            match self.decide(now, &topology) {
                Route::Go { server, .. } => {
                    if let Some(opened) = self.at(server, &topology).await? {
                        return Ok(opened);
                    }
                }
                Route::Wait { until, .. } => {
                    let pause = until.since(now);
                    let pause = if self.failed == 0 { pause } else { pause.min(RECONNECT_PAUSE) };
                    let seats = &self.shard.seats;
                    let news = seats.news(seats.queue(), News::Any);
                    // Both ends of the wait lead to the same: another decision.
                    if timer::timeout(pause, news).await.is_err() {
                        self.failed = 0;
                    }
                }
                Route::Refuse(refusal) => return Err(self.refused(refusal, now)),
            }
        }
    }

    fn decide(&self, now: Moment, topology: &Topology) -> Route {
        let request = Request {
            need: self.need,
            consistency: Consistency::Eventual,
            demand: Demand::Nothing,
            anchor: Anchor::Nowhere,
            since: self.since,
            failed: self.failed,
            load: &self.shard.loads(),
            turn: self.shard.turn(),
            patience: Patience::None,
        };
        decide(now, &request, topology, &self.shard.live().routing)
    }

    /// A backend of this server; `None` if another look is needed.
    async fn at(&mut self, server: ServerId, decided: &Topology) -> Result<Option<Opened>, No> {
        let key = PoolKey { server, ..self.key.clone() };
        let pool = self.shard.pools.pool(&key);
        let patience = self.shard.shared.pools.policy().wait_timeout;
        let reign = (decided.epoch, decided.primary);
        let seats = Rc::clone(&self.shard.seats);
        // A server that hangs would be waited for in vain while another is the primary already.
        let came = tokio::select! {
            biased;
            came = pool.open_alone(self.purpose.clone(), patience) => came,
            () = seats.news(seats.queue(), News::Since(reign)) => return Ok(None),
        };
        let alone = match came {
            Ok(alone) => alone,
            Err(CheckoutError::Connect { server: name, error }) if !error.is_final() => {
                self.shard.shared.signals.lost_backend(server);
                self.failed |= bit(server);
                self.last_error = Some(CheckoutError::Connect { server: name, error });
                return Ok(None);
            }
            Err(error) => return Err(No::Checkout(error)),
        };
        let primary = decided.writable() == Some(server);
        let taken = primary.then(|| self.seat.take(decided.epoch));
        if self.shard.reign() != reign {
            return Ok(None);
        }
        if primary && alone.backend.param("in_hot_standby") == Some(b"on") {
            self.shard.shared.signals.lost_backend(server);
            self.failed |= bit(server);
            return Ok(None);
        }
        Ok(Some(Opened { alone, taken }))
    }

    fn refused(&mut self, refusal: Refusal, now: Moment) -> No {
        match self.last_error.take() {
            Some(error) => No::Checkout(error),
            None => No::Refused(refusal, now.since(self.since)),
        }
    }
}

/// What the server told at the login, under our key.
fn welcome(alone: &Alone, cancel: &Registered) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in &alone.backend.params {
        message::write_parameter_status(&mut out, name, value);
    }
    message::write_key_data(&mut out, cancel.pid, &cancel.secret);
    message::write_ready(&mut out, TxStatus::Idle);
    out
}

/// Says so; whether the client has taken it.
async fn say(stream: &mut Stream, bytes: &[u8]) -> bool {
    let said = async {
        stream.write_all(bytes).await?;
        stream.sent().await
    };
    matches!(timer::timeout(WORD_MAX, said).await, Ok(Ok(())))
}

/// Says why it ends.
async fn last_word(shard: &Shard, stream: &mut Stream, no: &No) {
    let mut report = no.report();
    report.severity = message::Severity::Fatal;
    shard.shared.metrics.statements.failed(ErrorOrigin::Proxy, report.code);
    let mut out = Vec::new();
    message::write_error(&mut out, &report);
    if !say(stream, &out).await {
        tracing::debug!("a client left before it was told why it is closed");
    }
}
