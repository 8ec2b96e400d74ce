//! From an accepted connection to the end of its session: one task a client.

use crate::frontend::Shard;
use crate::frontend::client::Client;
use crate::frontend::greet::greet;
use crate::frontend::introduction::Introduction;
use crate::frontend::login;
use crate::frontend::login::Entered;
use crate::frontend::replicate::replicate;
use crate::frontend::report::No;
use crate::frontend::serve::serve;
use crate::frontend::state::Serving;
use crate::limits::{Bounds, Caller, Entry, Rules};
use crate::metrics::Admission;
use crate::net::{Newcomer, Peer, Stream};
use crate::pool::CheckoutError;
use crate::route::RoleWish;
use crate::session::{KeepLimits, MessageLimits};
use crate::wire::message;
use crate::wire::startup::{CancelKey, Replication};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;

/// Where clients come in.
#[derive(Debug, Clone)]
pub struct Inlet {
    /// The entry of `listen`, without its role.
    pub name: Arc<str>,
    /// What they wish for unless they say otherwise.
    pub role: RoleWish,
}

/// Lets one client in, serves it, and sees it out. `kept` is kept until it is gone.
///
/// Who has been let in may rest for hours: what that took is in a box that is gone by then.
pub fn admit<K>(
    shard: Rc<Shard>,
    (newcomer, inlet): (Newcomer, Inlet),
    kept: K,
) -> impl Future<Output = ()> {
    let entering = Box::pin(enter(shard, newcomer, inlet));
    async move {
        let Some(mut guest) = entering.await else { return };
        serve(&mut guest.serving).await;
        let Guest { serving, entries, counted } = guest;
        drop((serving, entries, counted, kept));
    }
}

/// A client that is served, and what counts it meanwhile.
struct Guest {
    /// In a box of its own, for it goes through many hands before it stays.
    serving: Box<Serving>,
    entries: [Entry; 2],
    counted: Counted,
}

/// Lets a client in. It may be `None` because all was said to it already.
async fn enter(shard: Rc<Shard>, newcomer: Newcomer, inlet: Inlet) -> Option<Guest> {
    let peer = newcomer.peer;
    let stream = match newcomer.attach() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "a client's socket could not be taken over");
            return None;
        }
    };
    let counted = Counted::new(&shard);
    let limit = shard.pools.pools.policy().max_clients;
    if shard.shared.clients.load(Ordering::Relaxed) > limit {
        drop(counted);
        Box::pin(one_too_many(&shard, stream, &No::TooManyClients(limit))).await;
        return None;
    }
    let rules = Arc::clone(&shard.live().limits);
    let stranger = Caller::Stranger { address: address(peer), listener: &inlet.name };
    let entry = match shard.shared.counts.enter(&rules, stranger) {
        Ok(entry) => entry,
        Err(exceeded) => {
            drop(counted);
            Box::pin(one_too_many(&shard, stream, &No::TooManyOfThem(exceeded))).await;
            return None;
        }
    };
    let gate = shard.shared.gate.load_full();
    let within = rules.bounds(stranger).login.map_or(gate.timeout, |own| own.min(gate.timeout));
    let recall = |packet: &[u8]| shard.greetings.borrow().introduction(packet);
    match login::enter_within((stream, peer), &gate, within, recall).await {
        Entered::Session(login) => {
            let (serving, known) = known(shard, (login, &inlet), &rules).await?;
            Some(Guest { serving, entries: [known, entry], counted })
        }
        Entered::Cancel(key, stream) => {
            Box::pin(cancel(&shard, &key, stream)).await;
            None
        }
        Entered::Nobody(why) => {
            shard.shared.metrics.clients.admit(why);
            None
        }
    }
}

async fn cancel(shard: &Shard, key: &CancelKey, stream: Stream) {
    shard.shared.metrics.clients.admit(Admission::Cancel);
    shard.shared.cancels.cancel(key.pid, &key.key).await;
    // Closed only now: whoever cancels waits for that.
    drop(stream);
}

/// There is no place for another client. Whoever is in needs none to cancel what it runs; when a
/// crowd knocks, that is heard of some only. None of them is counted as a client.
async fn one_too_many(shard: &Shard, stream: Stream, no: &No) {
    let Ok(_place) = shard.shared.spare_places.try_acquire() else {
        shard.shared.metrics.clients.admit(Admission::Limit);
        return refuse(stream, no).await;
    };
    let gate = shard.shared.gate.load_full();
    match login::enter_to_cancel(stream, &gate, &no.report()).await {
        Some((key, stream)) => cancel(shard, &key, stream).await,
        None => shard.shared.metrics.clients.admit(Admission::Limit),
    }
}

/// Who came in, and where.
type Came<'a> = (login::LoggedIn, &'a Inlet);

/// One that has proved who it is: counted by the rules that ask for that, and greeted. One that
/// wants to replicate is served here.
async fn known(shard: Rc<Shard>, came: Came<'_>, rules: &Rules) -> Option<(Box<Serving>, Entry)> {
    let (login, inlet) = came;
    let introduction = Arc::clone(&login.introduction);
    let Introduction { user, database, replication, .. } = &*introduction;
    let (address, listener) = (address(login.peer), &*inlet.name);
    let caller = Caller::Known { address, listener, user, database };
    let entry = match shard.shared.counts.enter(rules, caller) {
        Ok(entry) => entry,
        Err(exceeded) => {
            shard.shared.metrics.clients.admit(Admission::Limit);
            let mut client = Client::new(Rc::clone(&shard), login.stream);
            client.out().extend_from_slice(&login.unsent);
            farewell(&mut client, &No::TooManyOfThem(exceeded)).await;
            return None;
        }
    };
    match replication {
        Replication::None => {
            let serving = session(shard, (login, inlet), &rules.bounds(caller)).await?;
            Some((serving, entry))
        }
        Replication::Physical | Replication::Database => {
            let metrics = Arc::clone(&shard.shared.metrics);
            let counts_as = |no: Option<&No>| no.map_or(Admission::Accepted, counts_as);
            let entered = |no: Option<&No>| metrics.clients.admit(counts_as(no));
            Box::pin(replicate(shard, (login, inlet.role), entered)).await;
            None
        }
    }
}

async fn session(
    shard: Rc<Shard>,
    (login, inlet): Came<'_>,
    bounds: &Bounds,
) -> Option<Box<Serving>> {
    let came = (login, inlet.role);
    let mut serving = match greet(Rc::clone(&shard), came).await {
        Ok(serving) => serving,
        Err((mut client, no)) => {
            shard.shared.metrics.clients.admit(counts_as(&no));
            farewell(&mut client, &no).await;
            return None;
        }
    };
    shard.shared.metrics.clients.admit(Admission::Accepted);
    let bytes = |limit: Option<u64>| {
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    };
    serving.session.most =
        MessageLimits { message: bytes(bounds.message), statement: bytes(bounds.statement) };
    serving.session.keeps = KeepLimits {
        statements: bytes(bounds.prepared.map(u64::from)),
        memory: bytes(bounds.memory),
    };
    serving.session.seat.allow(bounds.times);
    Some(serving)
}

/// Where a client comes from, if it is from an address.
const fn address(peer: Peer) -> Option<IpAddr> {
    match peer {
        Peer::Ip(address) => Some(address.ip()),
        Peer::Unix | Peer::Unknown => None,
    }
}

/// What a client that proved who it is, and is not served, is in the metrics.
fn counts_as(no: &No) -> Admission {
    match no {
        No::BadWish { .. } | No::UnknownWish { .. } | No::Protocol(_) => Admission::ProtocolError,
        No::Settings(..) | No::SettingRefused { .. } | No::Startup(..) => Admission::Refused,
        No::Checkout(CheckoutError::Connect { error, .. }) if error.is_final() => {
            Admission::Refused
        }
        No::TooManyClients(_) | No::TooManyOfThem(_) => Admission::Limit,
        No::Checkout(_)
        | No::Refused(..)
        | No::ReadBroken
        | No::LoginBroken
        | No::InDoubt(_)
        | No::TransactionLost(_)
        | No::TransactionFailed
        | No::StateLost(_)
        | No::NotOnStandby(_)
        | No::NotReset(..)
        | No::Cancelled
        | No::TooMuchHeld
        | No::TooMuchKept(_)
        | No::OutOfStep
        | No::Replaced
        | No::Terminated
        | No::Overdue(_)
        | No::NameOfOurs(_)
        | No::TooManyCustom
        | No::OverLimit(_)
        | No::ShuttingDown => Admission::Unavailable,
    }
}

/// The last word to a client that has logged in.
async fn farewell(client: &mut Client, no: &No) {
    let mut report = no.report();
    report.severity = message::Severity::Fatal;
    client.report(&report);
    client.farewell().await;
}

/// The last word to one that has not.
async fn refuse(mut stream: Stream, no: &No) {
    let mut bytes = Vec::new();
    message::write_error(&mut bytes, &no.report());
    // The client is told if it still listens; it is closed either way.
    drop(stream.write_all(&bytes).await);
    drop(stream.sent().await);
}

/// Counts a client for as long as it is here.
struct Counted(Rc<Shard>);

impl Counted {
    fn new(shard: &Rc<Shard>) -> Self {
        shard.shared.clients.fetch_add(1, Ordering::Relaxed);
        Self(Rc::clone(shard))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.shared.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
