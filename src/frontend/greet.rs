//! After the login: the client is told the server's parameters and its key, and is ready.
//!
//! What a client is told depends on its database, its user and the settings that it brought.
//! The first one with these asks a server, any that answers; the others are told the same, so
//! that a login needs no server at all. Any server: logins work while there is no primary.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::Shard;
use crate::frontend::attached::Attached;
use crate::frontend::cancel::KeyForm;
use crate::frontend::client::Client;
use crate::frontend::introduction::{Greeting, Introduction};
use crate::frontend::local;
use crate::frontend::login::LoggedIn;
use crate::frontend::lost::{LostState, LostTransaction};
use crate::frontend::obtain::Waited;
use crate::frontend::own;
use crate::frontend::params::{Reported, Standby};
use crate::frontend::plan::{Again, MayCommit, Plan, PureRead, Taint, Wishes};
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::state::{HasOwn, Serving, Session, Skipping};
use crate::metrics::{Presence, StatementSide};
use crate::pg::SqlState;
use crate::pg::quote_literal;
use crate::pool::Mode;
use crate::route::{Consistency, Need, Patience, PrimaryReason, RoleWish};
use crate::session::{
    End, FirstRole, Floor, ISOLATION, Isolates, KeepLimits, MessageLimits, Names, OwnPortals,
};
use crate::sql::Effects;
use crate::topology::Topology;
use crate::wire::frame::TxStatus;
use crate::wire::message;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// Greets a client that has logged in. Its session, ready to be served.
///
/// # Errors
/// What the client is to be told before it is closed.
pub(super) async fn greet(
    shard: Rc<Shard>,
    (login, role): (LoggedIn, RoleWish),
) -> Result<Box<Serving>, (Client, No)> {
    let LoggedIn { stream, introduction, unsent, ahead, .. } = login;
    let mut client = Client::new(Rc::clone(&shard), stream);
    client.take_in_ahead(&ahead);
    client.out().extend_from_slice(&unsent);
    let keys = if introduction.minor.has_long_keys() { KeyForm::Long } else { KeyForm::Short };
    let (task, random) = (own_waker().await, || shard.numbers.draw());
    let cancel = shard.shared.cancels.enter(task.clone(), (None, keys), random);
    let Introduction { user, database, startup, identity, .. } = &*introduction;
    let role_given = identity.as_ref().and_then(|identity| identity.role());
    let wishes = Wishes { role, consistency: shard.live().routing.consistency };
    let mut session = Session {
        shape: shard.shared.shapes.of(database, clock::now()),
        user: Arc::clone(user),
        database: Arc::clone(database),
        first_role: role_given.map(FirstRole::new).unwrap_or_default(),
        isolates: Isolates::Anywhere,
        identity: identity.clone(),
        names: Names::default(),
        unnamed: None,
        floor: Floor::default(),
        settings: Arc::clone(startup),
        custom: startup.iter().map(|(name, _)| name).collect(),
        startup: Arc::clone(startup),
        wishes,
        first_wishes: wishes,
        wishes_after: None,
        own: HasOwn::No,
        own_portals: OwnPortals::default(),
        patience: Patience::None,
        cancel,
        seat: shard.seats.sit(task),
        presence: arrive(&shard),
        mentioned: Vec::new(),
        waited: Waited::No,
        skipping: Skipping::No,
        lost_transaction: LostTransaction::No,
        lost_state: LostState::default(),
        held: None,
        listening: None,
        withheld: None,
        most: MessageLimits::default(),
        keeps: KeepLimits::default(),
        pools: Vec::new(),
    };
    for (name, value) in &introduction.wishes {
        if let Err(no) = local::hear_first(&mut session, name, value) {
            return Err((client, no));
        }
    }
    session.first_wishes = session.wishes;
    let mut serving = Box::new(Serving { client, session, attached: None, retry: None });
    if let Err(no) = serving.settle_in(&introduction, keys).await {
        return Err((serving.client, at_login(no)));
    }
    serving.tell();
    Ok(serving)
}

/// Of a session that has only begun no other server has taken the settings: a client is told what
/// its server says of them.
fn at_login(no: No) -> No {
    if let No::Settings(error) | No::SettingRefused { error, .. } = no {
        No::Startup(error)
    } else {
        no
    }
}

/// Counts a client that has come.
pub(super) fn arrive(shard: &Shard) -> Presence {
    let metrics = &shard.shared.metrics;
    metrics.clients.arrive(metrics.statements.holder(StatementSide::Client))
}

impl Serving {
    /// Tells the client all that it is told at its login.
    fn tell(&mut self) {
        let Self { client, session, .. } = self;
        // Where there is no standby a client that has other hosts to try goes on to those.
        let standby = match session.wishes.role {
            RoleWish::Standby if has_standby(&client.shard.topology()) => Standby::Yes,
            RoleWish::Standby | RoleWish::Auto | RoleWish::Primary => Standby::No,
        };
        let reported = client.reported.clone();
        let out = client.out();
        reported.write_all(standby, out);
        message::write_key_data(out, session.cancel.pid, &session.cancel.secret);
        message::write_ready(out, TxStatus::Idle);
    }

    /// What a session needs before its client is told that it is ready.
    async fn settle_in(
        &mut self,
        introduction: &Arc<Introduction>,
        keys: KeyForm,
    ) -> Result<(), No> {
        match self.recalled(introduction) {
            Some(known) => self.take_over(known),
            // Boxed: nearly everybody who comes is told what others were.
            None => Box::pin(self.learn_parameters(introduction)).await?,
        }
        let shard = Rc::clone(&self.client.shard);
        let on_standby = self.session.wishes.role == RoleWish::Standby;
        let topology = shard.topology();
        let is_there =
            if on_standby { has_standby(&topology) } else { topology.writable().is_some() };
        if shard.shared.pools.policy().mode != Mode::Session || !is_there {
            return Ok(());
        }
        let primary = Need::Primary(PrimaryReason::Mode);
        let need = if on_standby { Need::Standby } else { primary };
        Box::pin(self.keep_one(need, keys)).await
    }

    /// Gives a session that keeps its backend one. It is told that backend's own process, which is
    /// what `pg_backend_pid()` and notifications will show it.
    async fn keep_one(&mut self, need: Need, keys: KeyForm) -> Result<(), No> {
        let shard = Rc::clone(&self.client.shard);
        self.attach_to_learn(&own_plan(need), clock::now()).await?;
        if let Some(attached) = &mut self.attached {
            let running = Arc::clone(&attached.checkout.running);
            let random = || shard.numbers.draw();
            let given = (Some(running.pid), keys);
            let task = own_waker().await;
            self.session.cancel = shard.shared.cancels.enter(task, given, random);
            self.session.cancel.attach(running);
            attached.exchange.processes.client = self.session.cancel.pid;
            // It is told below, with everything else.
            if let Some(untold) = attached.exchange.to_tell.take() {
                self.client.tell(untold);
            }
        }
        Ok(())
    }

    /// What others who said the same were told lately.
    fn recalled(&self, introduction: &Arc<Introduction>) -> Option<Greeting> {
        let shard = &self.client.shard;
        let mut greetings = shard.greetings.borrow_mut();
        let known = greetings.of(introduction)?;
        let counts = known.is_fresh(clock::now()) && known.at > shard.shared.pools.renewed();
        (counts || !shard.topology().any_answers()).then(|| known.clone())
    }

    fn take_over(&mut self, known: Greeting) {
        self.client.reported = known.told;
        self.session.first_role = known.first_role;
        self.session.isolates = known.isolates;
    }

    /// What the servers report to such a session, from one of them.
    async fn learn_parameters(&mut self, introduction: &Arc<Introduction>) -> Result<(), No> {
        // A server may be slow: meanwhile the client knows that it is let in.
        self.client.flush().await.map_err(|_| No::ShuttingDown)?;
        match self.learn_at(Need::Anywhere, introduction).await {
            // Of such a session a standby answers nothing.
            Err(No::Settings(error))
                if error.code == SqlState::FEATURE_NOT_SUPPORTED
                    && self.session.wishes.role != RoleWish::Standby =>
            {
                self.learn_at(Need::Primary(PrimaryReason::Mode), introduction).await
            }
            learned => learned,
        }
    }

    /// The same from a server.
    async fn learn_at(&mut self, need: Need, introduction: &Arc<Introduction>) -> Result<(), No> {
        let shard = Rc::clone(&self.client.shard);
        let plan = own_plan(need);
        // What a backend says from here on may be newer.
        let at = clock::now();
        self.attach_to_learn(&plan, at).await?;
        let Some(mut attached) = self.attached.take() else { return Ok(()) };
        let Learned { base, first_role, isolates } = reported_by(&mut attached).await?;
        let mut told = Reported::new(base);
        attached.checkout.look_through_reports(&shard.shared.pools);
        if told.compare(&attached.checkout.reports, &self.session.settings).is_some() {
            tracing::debug!("a server reports other settings than it shows");
        }
        // What came of bringing the settings is told below, with everything else.
        self.client.out().clear();
        self.session.cancel.detach();
        attached.into_inner().checkout.release(clock::now());
        let greeting = Greeting { told, first_role, isolates, at };
        shard.greetings.borrow_mut().remember(introduction, greeting.clone());
        self.take_over(greeting);
        Ok(())
    }

    /// A backend, which may be the first in its database: from `since` on it is watched who may
    /// connect there, and with which settings, and what it says is as it was then.
    async fn attach_to_learn(&mut self, plan: &Plan, since: Moment) -> Result<(), No> {
        match self.attach_or_no(plan).await {
            Ok(Ok(())) => {
                let (shard, database) = (&self.client.shard, &self.session.database);
                if shard.topology().catalog(database).is_none() {
                    shard.shared.signals.want_catalog(database, since);
                }
                Ok(())
            }
            Ok(Err(no)) => Err(no),
            Err(Stop::Refuse(no)) => Err(*no),
            Err(Stop::Gone) => Err(No::ShuttingDown),
        }
    }
}

/// What a login learns of a backend.
struct Learned {
    base: BTreeMap<Box<str>, Box<str>>,
    first_role: FirstRole,
    isolates: Isolates,
}

/// What a backend reports now: what it said at its login, and what its settings are since. With it
/// the role that it has, and how its transactions are isolated.
async fn reported_by(attached: &mut Attached) -> Result<Learned, No> {
    let conn = &mut *attached.checkout;
    let mut base: BTreeMap<Box<str>, Box<str>> = BTreeMap::new();
    for (name, value) in &conn.backend.params {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
        base.insert(text(name), text(value));
    }
    let sql = asking(base.keys());
    let answer = own::run_unhurried(conn, &sql, &mut Reported::default()).await;
    let answer = answer.map_err(|_| No::LoginBroken)?;
    if let Some(error) = answer.error
        && error.code == SqlState::FEATURE_NOT_SUPPORTED
    {
        return Err(No::Settings(error));
    }
    let (mut first_role, mut isolates) = (FirstRole::default(), Isolates::Anywhere);
    for row in answer.rows {
        match row.as_slice() {
            [Some(name), Some(value)] => {
                base.insert(name.as_str().into(), value.as_str().into());
            }
            [None, Some(role)] => first_role = FirstRole::new(role),
            [Some(isolation), None] => isolates = Isolates::by_default(isolation),
            _ => {}
        }
    }
    Ok(Learned { base, first_role, isolates })
}

/// What asks for these settings, and for what else a login learns.
pub(super) fn asking<'a>(names: impl Iterator<Item = &'a Box<str>>) -> String {
    let names: Vec<_> = names.map(|name| quote_literal(name)).collect();
    // That view leaves out what follows from the role.
    format!(
        "SELECT name, setting FROM pg_catalog.pg_settings \
         WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY[{}]) \
         UNION ALL SELECT 'is_superuser', pg_catalog.current_setting('is_superuser') \
         UNION ALL SELECT NULL, pg_catalog.current_setting('role') \
         UNION ALL SELECT pg_catalog.current_setting('{ISOLATION}'), NULL",
        names.join(",")
    )
}

/// Whether any standby takes reads.
fn has_standby(topology: &Topology) -> bool {
    let mut standbys =
        topology.servers.iter().filter(|server| topology.writable() != Some(server.id));
    standbys.any(|server| server.reads.is_ok())
}

/// What wakes the task that this runs in.
pub(super) async fn own_waker() -> Waker {
    poll_fn(|context| Poll::Ready(context.waker().clone())).await
}

/// A plan of our own, which asks for a backend and nothing else.
pub(super) fn own_plan(need: Need) -> Plan {
    Plan {
        need,
        consistency: Consistency::Eventual,
        unfit: None,
        forbidden: None,
        effects: Effects::NONE,
        taint: Taint::None,
        again: Again::MustNot,
        commits: MayCommit::No,
        read: PureRead::No,
        end: End::Flush,
        since: clock::now(),
    }
}
