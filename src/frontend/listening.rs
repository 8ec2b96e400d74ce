//! A session that listens and holds no backend: its channels are listened to for it.
//!
//! What the server would do is not imitated. Every statement that may touch the session's channels
//! runs on a backend that listens to them itself, so `LISTEN`, `UNLISTEN`, their transactions, and
//! what the session notifies itself of are the server's own doing; what it listens to is what the
//! probe finds. In between, and while it only reads, it is listened for
//! ([`crate::notifications`]).
//!
//! The handovers lose nothing and tell nothing twice: at each, the backend notifies a channel of
//! the session's own, in the same queue as everything else. What comes before that mark is one
//! side's, what comes behind it the other's.
//!
//! A session whose channels can't be listened to for it is pinned to its backend, as ever.

use crate::clock;
use crate::frontend::attached::{Attached, Standing};
use crate::frontend::client::{Client, Gone};
use crate::frontend::lost::missed;
use crate::frontend::obtain::Obtained;
use crate::frontend::own;
use crate::frontend::plan::{Plan, PureRead};
use crate::frontend::processes::Processes;
use crate::frontend::seat::Work;
use crate::frontend::send::pure_read;
use crate::frontend::serve::Stop;
use crate::frontend::settle::NotBrought;
use crate::frontend::state::{Serving, Session};
use crate::notifications::{Ear, Hearing, Place, Senders};
use crate::pg::quote_identifier;
use crate::pool::Conn;
use crate::session::{Pin, Pins};
use crate::sql::Effects;
use crate::timer;
use crate::wire::frame;
use crate::wire::message;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Most channels of one session that are listened to for it.
const CHANNELS_MAX: usize = 1024;
/// Longest wait for a mark; it comes in a millisecond or so.
const MARK_MAX: Duration = Duration::from_secs(5);

/// That a session is listened for.
#[derive(Debug)]
pub(super) struct Listening {
    ear: Ear,
    channels: BTreeSet<Box<str>>,
    /// The session's own channel, for its marks.
    own: Box<str>,
    marks: u64,
    whose: Whose,
}

/// Whose what is heard now is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The client's.
    Ours,
    /// Nobody's: its backend listens.
    Backends,
    /// The client's, behind this mark.
    OursBehind(u64),
}

/// What becomes of something that was heard.
enum Heard {
    Nothing,
    /// The mark that was waited for.
    Mark,
    ForClient(Arc<[u8]>),
    Missed,
}

impl Listening {
    /// Whether its backend listens.
    pub(super) fn is_on_backend(&self) -> bool {
        self.whose == Whose::Backends
    }

    /// If its backend listened, that is gone, and there was no handover.
    pub(super) fn has_no_backend(&mut self, client: &mut Client) {
        if self.is_on_backend() {
            self.whose = Whose::Ours;
            message::write_notice(client.out(), &missed());
        }
    }

    fn next_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }

    fn take(&mut self, hearing: Hearing) -> Heard {
        let message = match (hearing, self.whose) {
            (Hearing::Gap, Whose::Backends) => return Heard::Nothing,
            (Hearing::Gap, Whose::Ours | Whose::OursBehind(_)) => {
                self.whose = Whose::Ours;
                return Heard::Missed;
            }
            (Hearing::Message(message), _) => message,
        };
        if let Some(mark) = mark_of(&message, &self.own) {
            if self.whose == Whose::OursBehind(mark) {
                self.whose = Whose::Ours;
            }
            return if mark == self.marks { Heard::Mark } else { Heard::Nothing };
        }
        match self.whose {
            Whose::Ours => Heard::ForClient(message),
            Whose::Backends | Whose::OursBehind(_) => Heard::Nothing,
        }
    }
}

/// The mark that a notification is, if it came over this channel.
fn mark_of(notification: &[u8], own: &str) -> Option<u64> {
    let notification = message::read_notification(notification).ok()?;
    let mark = (notification.channel == own.as_bytes()).then_some(notification.payload)?;
    std::str::from_utf8(mark).ok()?.parse().ok()
}

/// Whether the plan must find the session's channels on its backend.
pub(super) fn listens_itself(session: &Session, plan: &Plan, standing: Standing) -> bool {
    session.listening.is_some() && standing == Standing::Primary && pure_read(plan) == PureRead::No
}

/// Notes who notifies from the backend before it can, once anybody listens.
pub(super) fn note_sender(client: &Client, attached: &mut Attached, plan: &Plan) {
    let senders = client.shard.shared.listeners.senders();
    if plan.effects.any(Effects::LISTEN) {
        senders.want();
    }
    if attached.noted.is_none() && attached.standing == Standing::Primary && plan.may_notify() {
        let processes = attached.exchange.processes;
        attached.noted = senders.note(processes.backend(), processes.client);
    }
}

/// Whoever listens is to know that what the backend notifies from here on is another's.
pub(super) async fn mark_end(
    session: &Session,
    client: &Client,
    attached: &mut Attached,
) -> Result<(), own::Unanswered> {
    let Some(noted) = attached.noted.take() else { return Ok(()) };
    let Some(sql) = noted.mark(&session.database) else { return Ok(()) };
    let reported = &mut client.reported.clone();
    let answer = own::run(&mut attached.checkout, &sql, reported).await?;
    if answer.error.is_some() { Err(own::Unanswered) } else { Ok(()) }
}

/// Has the backend listen to the session's channels.
///
/// Dropped, it leaves the session listened for as it was: the backend is closed, and the next one
/// gets another mark.
pub(super) async fn bring(
    client: &mut Client,
    session: &mut Session,
    obtained: &mut Obtained,
) -> Result<(), NotBrought> {
    let client_knows = session.cancel.pid;
    let Some(listening) = session.listening.as_deref_mut() else { return Ok(()) };
    listening.has_no_backend(client);
    let mark = listening.next_mark();
    listen(client, &mut obtained.checkout, listening, mark).await?;
    // What was heard before that is told before what the backend tells.
    let heard = timer::timeout(MARK_MAX, hear_up_to_mark(client, listening)).await;
    if !matches!(heard, Ok(Some(()))) {
        message::write_notice(client.out(), &missed());
    }
    let told = std::mem::take(&mut obtained.checkout.heard);
    let (server, backend) = (obtained.checkout.server(), obtained.checkout.running.pid);
    let processes = Processes { server, backend, client: client_knows, since: obtained.at };
    let names = Naming::new(client, processes);
    sift(&told, (&names, &listening.own, mark), Side::Behind, client.out());
    listening.whose = Whose::Backends;
    obtained.at = clock::now();
    Ok(())
}

/// Listens, and notifies the mark.
async fn listen(
    client: &mut Client,
    conn: &mut Conn,
    listening: &Listening,
    mark: u64,
) -> Result<(), NotBrought> {
    let mut sql = String::new();
    for channel in listening.channels.iter().chain([&listening.own]) {
        sql.push_str("LISTEN ");
        sql.push_str(&quote_identifier(channel));
        sql.push(';');
    }
    push_mark(&mut sql, &listening.own, mark);
    run(conn, &sql, client).await?;
    // No client is to see it among its channels.
    let quiet = format!("UNLISTEN {}", quote_identifier(&listening.own));
    run(conn, &quiet, client).await
}

/// Tells the client what was heard, up to the last mark; `None` if the ear was lost.
async fn hear_up_to_mark(client: &mut Client, listening: &mut Listening) -> Option<()> {
    loop {
        let hearing = listening.ear.hear().await?;
        match listening.take(hearing) {
            Heard::Nothing => {}
            Heard::Mark => return Some(()),
            Heard::ForClient(message) => client.out().extend_from_slice(&message),
            Heard::Missed => message::write_notice(client.out(), &missed()),
        }
    }
}

impl Serving {
    /// The backend is to be given back: from now on its session is listened for, if that can be;
    /// else it stays pinned.
    pub(super) async fn hand_over_channels(
        &mut self,
        attached: &mut Attached,
    ) -> Result<(), own::Unanswered> {
        let listens = attached.pins == Pins::of(Pin::Listen);
        let listened = attached.pins.is_empty() && self.session.listening.is_some();
        if !(listens || listened) {
            return Ok(());
        }
        let channels: BTreeSet<Box<str>> =
            attached.channels.iter().map(|channel| channel.as_str().into()).collect();
        if channels.is_empty() {
            self.session.listening = None;
            return Ok(());
        }
        let encoding = self.client.reported.get("client_encoding").unwrap_or("UTF8");
        let place =
            Place { database: Arc::clone(&self.session.database), encoding: encoding.into() };
        if channels.len() > CHANNELS_MAX || !channels.iter().all(|name| is_plain(name, encoding)) {
            return Ok(());
        }
        let Some(mut listening) = self.follow(place, channels).await else { return Ok(()) };
        let mark = listening.next_mark();
        let own = quote_identifier(&listening.own);
        let mut sql = format!("LISTEN {own};");
        push_mark(&mut sql, &listening.own, mark);
        for sql in [sql.as_str(), "UNLISTEN *"] {
            let reported = &mut self.client.reported;
            let answer = own::run_unhurried(&mut attached.checkout, sql, reported).await?;
            if answer.error.is_some() {
                return Err(own::Unanswered);
            }
            self.client.out().extend_from_slice(&answer.for_client);
        }
        let told = std::mem::take(&mut attached.checkout.heard);
        let names = Naming::new(&self.client, attached.exchange.processes);
        sift(&told, (&names, &listening.own, mark), Side::Before, self.client.out());
        listening.whose = Whose::OursBehind(mark);
        self.session.listening = Some(listening);
        attached.pins.remove(Pin::Listen);
        attached.channels.clear();
        Ok(())
    }

    /// Has exactly these channels listened to; `None` if that can't be done now.
    async fn follow(
        &mut self,
        place: Place,
        channels: BTreeSet<Box<str>>,
    ) -> Option<Box<Listening>> {
        let listeners = &self.client.shard.shared.listeners;
        let with_own = |own: &str| channels.iter().cloned().chain([own.into()]).collect();
        if let Some(known) = self.session.listening.take_if(|known| known.ear.place == place) {
            if known.channels == channels {
                return Some(known);
            }
            let followed = listeners.follow(&known.ear, with_own(&known.own)).await;
            return followed.is_ok().then(|| Box::new(Listening { channels, ..*known }));
        }
        self.session.listening = None;
        let (id, own) = listeners.number();
        let ear = listeners.listen(id, place, with_own(&own)).await.ok()?;
        let whose = Whose::Backends;
        Some(Box::new(Listening { ear, channels, own, marks: 0, whose }))
    }

    /// Waits for the client, and tells it meanwhile what is heard for it.
    pub(super) async fn rest(&mut self, work: Work) -> Result<(), Stop> {
        let Self { client, session, .. } = self;
        let Session { listening, seat, .. } = session;
        let Some(here) = listening else {
            seat.unless_sent_away(work, client.more()).await??;
            return Ok(());
        };
        let next = poll_fn(|context| {
            if let Poll::Ready(more) = client.poll_more(context) {
                return Poll::Ready(Next::Client(more));
            }
            // A client that takes nothing is not heard for without end: its ear fills up.
            if client.is_backed_up() {
                return Poll::Pending;
            }
            here.ear.poll_hear(context).map(Next::Heard)
        });
        match seat.unless_sent_away(work, next).await? {
            Next::Client(more) => Ok(more?),
            Next::Heard(Some(hearing)) => {
                self.tell_what_was_heard(hearing);
                Ok(())
            }
            Next::Heard(None) => {
                self.lose_ear();
                Ok(())
            }
        }
    }

    /// Tells the client what was heard for it, before anything else is done.
    pub(super) fn tell_all_heard(&mut self) {
        while !self.client.is_backed_up()
            && let Some(listening) = &mut self.session.listening
        {
            match listening.ear.heard() {
                Ok(Some(hearing)) => self.tell_what_was_heard(hearing),
                Ok(None) => break,
                Err(_) => self.lose_ear(),
            }
        }
    }

    fn tell_what_was_heard(&mut self, hearing: Hearing) {
        let Some(listening) = &mut self.session.listening else { return };
        listening.has_no_backend(&mut self.client);
        match listening.take(hearing) {
            Heard::Nothing | Heard::Mark => {}
            Heard::ForClient(message) => self.client.out().extend_from_slice(&message),
            Heard::Missed => message::write_notice(self.client.out(), &missed()),
        }
    }

    /// It fell behind, or its listener ended: it listens itself again, and is told.
    fn lose_ear(&mut self) {
        if let Some(listening) = self.session.listening.take() {
            self.session.lost_state.listen_to(listening.channels);
        }
    }
}

/// What ends a rest.
enum Next {
    Client(Result<(), Gone>),
    Heard(Option<Hearing>),
}

/// Whether a name means the same to us and to the server.
fn is_plain(name: &str, encoding: &str) -> bool {
    name.is_ascii() || encoding == "UTF8" && !name.contains(char::REPLACEMENT_CHARACTER)
}

fn push_mark(sql: &mut String, own: &str, mark: u64) {
    sql.push_str("NOTIFY ");
    sql.push_str(&quote_identifier(own));
    sql.push_str(", '");
    sql.push_str(&mark.to_string());
    sql.push('\'');
}

async fn run(conn: &mut Conn, sql: &str, client: &Client) -> Result<(), NotBrought> {
    // The backend carries another's settings yet.
    let mut unheard = client.reported.clone();
    let answer = own::run_unhurried(conn, sql, &mut unheard).await;
    let answer = answer.map_err(|own::Unanswered| NotBrought::Broken)?;
    if answer.error.is_some() { Err(NotBrought::Broken) } else { Ok(()) }
}

/// Tells the client of notifications that came while something of ours ran on its backend.
pub(super) fn tell_what_backend_heard(client: &mut Client, attached: &mut Attached) {
    if attached.checkout.heard.is_empty() {
        return;
    }
    let told = std::mem::take(&mut attached.checkout.heard);
    let names = Naming::new(client, attached.exchange.processes);
    sift(&told, (&names, "", 0), Side::All, client.out());
}

/// By what a backend's notifications get the processes that clients know.
struct Naming {
    processes: Processes,
    senders: Arc<Senders>,
}

impl Naming {
    fn new(client: &Client, processes: Processes) -> Self {
        Self { processes, senders: Arc::clone(client.shard.shared.listeners.senders()) }
    }
}

/// Whose notifications are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Those before the mark, which was not seen yet.
    Before,
    /// Those behind the mark, which was not seen yet.
    Behind,
    /// All: the mark was seen.
    All,
    /// None: the mark was seen.
    None,
}

/// Passes on the notifications that a backend told while it was handed over, from its side of the
/// mark alone, each under the process that its sender's client knows.
fn sift(told: &[u8], (names, own, mark): (&Naming, &str, u64), side: Side, out: &mut Vec<u8>) {
    let (mut rest, mut side) = (told, side);
    while let Ok(Some(header)) = frame::peek(rest)
        && let Some((message, next)) = rest.split_at_checked(header.total)
    {
        rest = next;
        if let Some(found) = mark_of(message, own) {
            side = match side {
                Side::Before if found == mark => Side::None,
                Side::Behind if found == mark => Side::All,
                side @ (Side::Before | Side::Behind | Side::All | Side::None) => side,
            };
        } else if matches!(side, Side::Before | Side::All) {
            match names.processes.as_clients_know(message, &names.senders) {
                Some(told) => out.extend_from_slice(&told),
                None => out.extend_from_slice(message),
            }
        }
    }
}
