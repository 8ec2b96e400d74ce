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
    FirstRole, Floor, ISOLATION, Identity, Isolates, KeepLimits, MessageLimits, Names, OwnPortals,
    Settings, SharedSettings,
};
use crate::sql::Effects;
use crate::topology::Topology;
use crate::wire::frame::TxStatus;
use crate::wire::message;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// What logins were told, by who logged in and with which settings.
pub(super) type Greetings = HashMap<Greeted, Greeting>;

/// What a login was told, and when a server was asked for it.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    told: Reported,
    first_role: FirstRole,
    isolates: Isolates,
    at: Moment,
}

/// How long a greeting counts while a server can be asked again: an upgrade or a changed default
/// shows within this time.
const GREETING_AGE_MAX: Duration = Duration::from_mins(1);

impl Greeting {
    fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.at) < GREETING_AGE_MAX
    }
}

/// Who was told something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Greeted {
    user: Arc<str>,
    database: Arc<str>,
    identity: Option<Arc<Identity>>,
    settings: SharedSettings,
}

/// Most greetings that are remembered; when there are more, all are asked for again.
const GREETINGS_MAX: usize = 1024;

/// Greets a client that has logged in. Its session, ready to be served.
///
/// # Errors
/// What the client is to be told before it is closed.
pub(super) async fn greet(
    shard: Rc<Shard>,
    (login, role): (LoggedIn, RoleWish),
    mut random: impl FnMut() -> i32,
) -> Result<Serving, (Client, No)> {
    let LoggedIn { stream, user, database, settings, minor, unsent, ahead, .. } = login;
    let mut client = Client::new(Rc::clone(&shard), stream);
    client.take_in(&ahead);
    client.out().extend_from_slice(&unsent);
    let keys = if minor.has_long_keys() { KeyForm::Long } else { KeyForm::Short };
    let cancel = shard.shared.cancels.enter(None, keys, &mut random);
    let startup = Arc::new(Settings::from_startup(&settings));
    let identity = Identity::from_startup(&settings);
    let role_given = identity.as_ref().and_then(|identity| identity.role());
    let wishes = Wishes { role, consistency: shard.live().routing.consistency };
    let mut session = Session {
        shape: shard.shared.shapes.of(&database, clock::now()),
        user,
        database,
        first_role: role_given.map(FirstRole::new).unwrap_or_default(),
        isolates: Isolates::Anywhere,
        identity,
        names: Names::default(),
        unnamed: None,
        floor: Floor::default(),
        settings: Arc::clone(&startup),
        custom: startup
            .iter()
            .filter(|(name, _)| name.contains('.'))
            .map(|(name, _)| name.into())
            .collect(),
        startup,
        wishes,
        first_wishes: wishes,
        wishes_after: None,
        own: HasOwn::No,
        own_portals: OwnPortals::default(),
        patience: Patience::None,
        cancel,
        seat: shard.seats.sit(own_waker().await),
        presence: arrive(&shard),
        mentioned: Vec::new(),
        waited: Waited::No,
        skipping: Skipping::No,
        lost_transaction: LostTransaction::No,
        lost_state: LostState::default(),
        held: None,
        listening: None,
        most: MessageLimits::default(),
        keeps: KeepLimits::default(),
        pools: Vec::new(),
    };
    for (name, value) in &settings {
        if let Some(name) = name.to_ascii_lowercase().strip_prefix("pgsteer.")
            && let Err(no) = local::hear_first(&mut session, name, value)
        {
            return Err((client, no));
        }
    }
    session.first_wishes = session.wishes;
    let mut serving = Serving { client, session, attached: None, retry: None };
    if let Err(no) = serving.settle_in(keys, &mut random).await {
        return Err((serving.client, at_login(no)));
    }
    serving.tell();
    Ok(serving)
}

/// Of a session that has only begun no other server has taken the settings: a client is told what
/// its server says of them.
fn at_login(no: No) -> No {
    if let No::Settings(code, message) = no { No::Startup(code, message) } else { no }
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
        keys: KeyForm,
        random: &mut impl FnMut() -> i32,
    ) -> Result<(), No> {
        self.learn_parameters().await?;
        let shard = Rc::clone(&self.client.shard);
        let on_standby = self.session.wishes.role == RoleWish::Standby;
        let topology = shard.topology();
        let is_there =
            if on_standby { has_standby(&topology) } else { topology.writable().is_some() };
        if shard.shared.pools.policy().mode != Mode::Session || !is_there {
            return Ok(());
        }
        // A session that keeps its backend is told that backend's own process, which is what
        // `pg_backend_pid()` and notifications will show it.
        let primary = Need::Primary(PrimaryReason::Mode);
        let plan = own_plan(if on_standby { Need::Standby } else { primary });
        self.attach_to_learn(&plan).await?;
        if let Some(attached) = &mut self.attached {
            let running = Arc::clone(&attached.checkout.running);
            self.session.cancel = shard.shared.cancels.enter(Some(running.pid), keys, random);
            self.session.cancel.attach(running);
            attached.exchange.processes.client = self.session.cancel.pid;
            // It is told below, with everything else.
            if let Some(untold) = attached.exchange.to_tell.take() {
                self.client.tell(untold);
            }
        }
        Ok(())
    }

    /// What the servers report to such a session, from memory or from a server.
    async fn learn_parameters(&mut self) -> Result<(), No> {
        let greeted = Greeted {
            user: Arc::clone(&self.session.user),
            database: Arc::clone(&self.session.database),
            identity: self.session.identity.clone(),
            settings: Arc::clone(&self.session.startup),
        };
        let shard = Rc::clone(&self.client.shard);
        let known = shard.greetings.borrow().get_key_value(&greeted).map(|(greeted, greeting)| {
            // Those who came alike carry the very same settings: a backend that served one of
            // them is known at a glance to be as another wants it. Names, too, are kept once.
            self.session.user = Arc::clone(&greeted.user);
            self.session.database = Arc::clone(&greeted.database);
            self.session.identity.clone_from(&greeted.identity);
            self.session.startup = Arc::clone(&greeted.settings);
            self.session.settings = Arc::clone(&greeted.settings);
            greeting.clone()
        });
        if let Some(known) = known
            && (known.is_fresh(clock::now()) && known.at > shard.shared.pools.renewed()
                || !shard.topology().any_answers())
        {
            self.client.reported = known.told;
            self.session.first_role = known.first_role;
            self.session.isolates = known.isolates;
            return Ok(());
        }
        // A server may be slow: meanwhile the client knows that it is let in.
        self.client.flush().await.map_err(|_| No::ShuttingDown)?;
        match self.learn_at(Need::Anywhere, &greeted).await {
            // Of such a session a standby answers nothing.
            Err(No::Settings(SqlState::FEATURE_NOT_SUPPORTED, _))
                if self.session.wishes.role != RoleWish::Standby =>
            {
                self.learn_at(Need::Primary(PrimaryReason::Mode), &greeted).await
            }
            learned => learned,
        }
    }

    /// The same from a server.
    async fn learn_at(&mut self, need: Need, greeted: &Greeted) -> Result<(), No> {
        let shard = Rc::clone(&self.client.shard);
        let plan = own_plan(need);
        // What a backend says from here on may be newer.
        let at = clock::now();
        self.attach_to_learn(&plan).await?;
        let Some(mut attached) = self.attached.take() else { return Ok(()) };
        let Learned { base, first_role, isolates } = reported_by(&mut attached).await?;
        let mut told = Reported::new(base);
        attached.checkout.look_through_reports(&shard.shared.pools);
        if told.compare(&attached.checkout.reports, &self.session.settings).is_some() {
            tracing::debug!("a server reports other settings than it shows");
        }
        self.session.first_role = first_role.clone();
        self.session.isolates = isolates;
        // What came of bringing the settings is told below, with everything else.
        self.client.out().clear();
        self.client.reported = told.clone();
        self.session.cancel.detach();
        attached.into_inner().checkout.release(clock::now());
        let mut greetings = shard.greetings.borrow_mut();
        if greetings.len() >= GREETINGS_MAX {
            greetings.clear();
        }
        greetings.insert(greeted.clone(), Greeting { told, first_role, isolates, at });
        Ok(())
    }

    async fn attach_to_learn(&mut self, plan: &Plan) -> Result<(), No> {
        match self.attach_or_no(plan).await {
            Ok(Ok(())) => Ok(()),
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
    let names: Vec<_> = base.keys().map(|name| quote_literal(name)).collect();
    // That view leaves out what follows from the role.
    let sql = format!(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ({}) \
         UNION ALL SELECT 'is_superuser', pg_catalog.current_setting('is_superuser') \
         UNION ALL SELECT NULL, pg_catalog.current_setting('role') \
         UNION ALL SELECT pg_catalog.current_setting('{ISOLATION}'), NULL",
        names.join(",")
    );
    let answer = own::run_unhurried(conn, &sql, &mut Reported::default()).await;
    let answer = answer.map_err(|_| No::LoginBroken)?;
    if let (Some(code @ SqlState::FEATURE_NOT_SUPPORTED), Some(message)) =
        (answer.code, answer.error)
    {
        return Err(No::Settings(code, message));
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
        since: clock::now(),
    }
}
