//! What a session keeps between its transactions.

use crate::clock::Moment;
use crate::frontend::attached::Hold;
use crate::frontend::cancel::Registered;
use crate::frontend::client::Client;
use crate::frontend::exchange::Erred;
use crate::frontend::hold::Held;
use crate::frontend::listening::Listening;
use crate::frontend::lost::{LostState, LostTransaction};
use crate::frontend::obtain::Waited;
use crate::frontend::plan::Wishes;
use crate::frontend::probe;
use crate::frontend::seat::Seat;
use crate::metrics::Presence;
use crate::pool::{Conn, PoolKey, ShardPool, Wanted};
use crate::route::Patience;
use crate::session::{
    CustomNames, FirstRole, Floor, ISOLATION, Identity, Isolates, KeepLimits, MessageLimits, Names,
    OwnPortals, Renamed, Settings, Shape, SharedSettings, TooManyNames, Undo, Unnamed,
    UnnamedThere,
};
use crate::sql::{Change, Effects, Facts, Scope};
use crate::topology::ServerId;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// One client's session.
#[derive(Debug)]
pub struct Serving {
    /// The client.
    pub client: Client,
    /// What it keeps.
    pub session: Session,
    /// The backend that it holds now.
    pub attached: Option<Hold>,
    /// What is known of the group that is being tried again, if one is.
    pub retry: Option<Retry>,
}

/// What a session keeps.
#[derive(Debug)]
pub struct Session {
    /// Who.
    pub user: Arc<str>,
    /// In which database.
    pub database: Arc<str>,
    /// What it gave at its start of who it is to be.
    pub identity: Option<Arc<Identity>>,
    /// The role that it began with, whoever gave it.
    pub first_role: FirstRole,
    /// Where its transactions can run, as it began.
    pub isolates: Isolates,
    /// What that is like.
    pub shape: Arc<Shape>,
    /// Its prepared statements.
    pub names: Names,
    /// The one without a name.
    pub unnamed: Option<Unnamed>,
    /// What its reads must see.
    pub floor: Floor,
    /// Its settings.
    pub settings: SharedSettings,
    /// Of its settings, those without which the present group is sent.
    pub(super) withheld: Option<Box<Settings>>,
    /// Those that it gave at its start, to which `RESET` goes back.
    pub startup: SharedSettings,
    /// Custom settings that it may have set.
    pub custom: CustomNames,
    /// What it wishes for.
    pub wishes: Wishes,
    /// What it wished for at its start.
    pub first_wishes: Wishes,
    /// What it wishes for when the present transaction is over, if that is something else.
    pub wishes_after: Option<Wishes>,
    /// Whether the present group holds something that is for pgsteer.
    pub own: HasOwn,
    /// The portals of what is for pgsteer.
    pub own_portals: OwnPortals,
    /// Whether its next read waits for a standby.
    pub patience: Patience,
    /// How it is cancelled.
    pub cancel: Registered,
    /// Whether what it asks next has waited unseen, so that a cancel may have been for it.
    pub(super) waited: Waited,
    /// Where it is found when the primary changes.
    pub seat: Seat,
    /// Counts it, in the state that it is in.
    pub presence: Presence,
    /// The facts of the present group's statements.
    pub mentioned: Vec<Option<Arc<Facts>>>,
    /// The client's messages are passed over until its next `Sync`.
    pub skipping: Skipping,
    /// Whether its transaction was lost and it was not told yet.
    pub lost_transaction: LostTransaction,
    /// What it lost with its backend and was not told of yet.
    pub(super) lost_state: LostState,
    /// How long its messages may be.
    pub most: MessageLimits,
    /// How much may be kept of it.
    pub keeps: KeepLimits,
    /// That it is listened for, if it is.
    pub(super) listening: Option<Box<Listening>>,
    /// How its statement is held although it has a backend.
    pub(super) held: Option<Box<Held>>,
    /// Its pools, by server.
    pub pools: Vec<Option<Rc<ShardPool>>>,
}

/// Whether a group holds something that is for pgsteer and for no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasOwn {
    /// No.
    No,
    /// Yes.
    Yes,
}

/// Whether messages are passed over until `Sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Skipping {
    /// No.
    #[default]
    No,
    /// Yes: an error was reported in the middle of a group.
    UntilSync,
}

/// The bit that stands for a server.
pub(super) fn bit(server: ServerId) -> u64 {
    1_u64.checked_shl(u32::from(server.0)).unwrap_or(0)
}

/// A group that is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// When it arrived first.
    pub since: Moment,
    /// Servers that failed it, as bits.
    pub failed: u64,
    /// How often it was sent.
    pub tries: u32,
    /// A standby found that it needs the primary.
    pub needs_primary: NeedsPrimary,
    /// Whether it failed by a statement that was prepared for somebody else.
    pub afresh: Afresh,
}

/// Whether a group is sent without relying on what others have prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afresh {
    /// No.
    No,
    /// Yes.
    Yes,
}

/// Whether a standby refused the group as a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedsPrimary {
    /// No.
    No,
    /// Yes.
    Yes,
}

impl Session {
    /// What the client calls the statement with this id.
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        let unnamed = self.unnamed.as_ref().and_then(|unnamed| unnamed.prepared.as_ref());
        let is_unnamed = unnamed.is_some_and(|prepared| prepared.id() == id);
        self.names.name_of(id).or_else(|| is_unnamed.then_some(&[][..]))
    }

    /// Whether what it says, beside what says so itself, is nothing for a standby: its transactions
    /// are, or become, `SERIALIZABLE` by default.
    pub fn isolates(&self) -> Isolates {
        let sets = |facts: &Arc<Facts>| facts.settings().iter().any(|set| &*set.name == ISOLATION);
        // On a standby's backend of a role with that default we could not even set another.
        if self.isolates == Isolates::OnPrimary || self.mentioned.iter().flatten().any(sets) {
            return Isolates::OnPrimary;
        }
        self.settings.isolates()
    }

    /// Which backend of a pool it asks for.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { identity: self.identity.as_ref(), settings: &self.settings }
    }

    /// The pool of this session on a server.
    pub fn pool(&mut self, client: &Client, server: ServerId) -> Rc<ShardPool> {
        if self.pools.len() <= server.index() {
            self.pools.resize(server.index() + 1, None);
        }
        if let Some(Some(pool)) = self.pools.get(server.index()) {
            return Rc::clone(pool);
        }
        let key =
            PoolKey { server, database: Arc::clone(&self.database), user: Arc::clone(&self.user) };
        let pool = client.shard.pools.pool(&key);
        if let Some(place) = self.pools.get_mut(server.index()) {
            *place = Some(Rc::clone(&pool));
        }
        pool
    }

    /// Notes the custom settings that the present group sets, for the next probe.
    pub(super) fn note_settings(&mut self) -> Result<(), TooManyNames> {
        let settings = self.mentioned.iter().flatten().flat_map(|facts| facts.settings());
        let of_session = settings.filter(|setting| setting.scope == Scope::Session);
        self.custom.add(of_session.map(|setting| &*setting.name))
    }

    /// Forgets the names that need not be asked for: of what has no value, and was not given at
    /// the start. Only where no transaction is open, behind a probe or without a backend.
    ///
    /// What the present group sets is kept: it may be noted before a probe, and sent behind it.
    pub(super) fn forget_names(&mut self, unread: &BTreeSet<Box<str>>) {
        let Self { custom, settings, startup, mentioned, .. } = self;
        let present = mentioned.iter().flatten().flat_map(|facts| facts.settings());
        let present: BTreeSet<&str> = present.map(|setting| &*setting.name).collect();
        custom.keep_only(|name| {
            let has_value = settings.get(name).is_some() || unread.contains(name);
            has_value || startup.get(name).is_some() || present.contains(name)
        });
    }

    /// The settings that a probe found, and those that `RESET` has brought back to what the
    /// client gave at its start: what a probe lists and has not found was reset, whoever did that.
    /// `unread` it found, in letters that we can't read.
    pub(super) fn adopt_settings(
        &mut self,
        found: Settings,
        unread: &BTreeSet<Box<str>>,
        resets: &Resets,
    ) {
        let mut settings = found;
        let startup = Arc::clone(&self.startup);
        for (name, value) in startup.iter() {
            let reset = match resets {
                _ if unread.contains(name) => false,
                _ if probe::lists(name) => true,
                resets => resets.has(name),
            };
            if reset && settings.get(name).is_none() {
                settings.set(name, value);
            }
        }
        if *self.settings != settings {
            self.settings = Arc::new(settings);
        }
        self.forget_names(unread);
    }

    /// Takes back what a group that is sent again made of the names.
    pub(super) fn rename_back(&mut self, renamed: Vec<Renamed>) {
        for (name, before) in renamed.into_iter().rev() {
            match before {
                Some(before) => drop(self.names.insert(&name, before)),
                None => drop(self.names.remove(&name)),
            }
        }
    }

    /// Undoes what was noted of messages that the server never ran.
    pub fn undo(&mut self, undo: Undo, backend: &mut Conn) {
        let held = &mut backend.held;
        match undo {
            Undo::Nothing => {}
            Undo::Held(statement) => held.remove(statement.id()),
            Undo::Evicted(statement) => held.restore(statement),
            Undo::Unnamed { held: parsed } => {
                // Whether the one before is still there depends on where it failed: none is safe.
                self.unnamed = None;
                backend.unnamed_there = UnnamedThere::No;
                if let Some(statement) = parsed {
                    held.remove(statement.id());
                }
            }
            Undo::Name { name, before, held: parsed } => {
                match before {
                    Some(before) => drop(self.names.insert(&name, before)),
                    None => drop(self.names.remove(&name)),
                }
                if let Some(statement) = parsed {
                    held.remove(statement.id());
                }
            }
        }
    }
}

/// Settings that went back to the session's start: what a statement did counts when it is answered.
#[derive(Debug)]
pub struct Resets {
    named: BTreeMap<Box<str>, Change>,
    others: Change,
    under_way: Vec<Arc<Facts>>,
}

impl Default for Resets {
    fn default() -> Self {
        Self { named: BTreeMap::new(), others: Change::Set, under_way: Vec::new() }
    }
}

impl Resets {
    /// A group that runs these is about to be sent.
    pub fn note(&mut self, mentioned: &[Option<Arc<Facts>>]) {
        let changes = |facts: &&Arc<Facts>| resets_all(facts) || !facts.settings().is_empty();
        self.under_way.extend(mentioned.iter().flatten().filter(changes).cloned());
    }

    /// What was under way was answered.
    pub fn settle(&mut self, erred: Erred) {
        for facts in std::mem::take(&mut self.under_way) {
            match erred {
                Erred::No => self.add(&facts),
                // It was undone with what failed.
                Erred::Yes => {}
            }
        }
    }

    fn add(&mut self, facts: &Facts) {
        if resets_all(facts) {
            self.named.clear();
            self.others = Change::Reset;
        }
        for setting in facts.settings().iter().filter(|it| it.scope == Scope::Session) {
            self.named.insert(setting.name.clone(), setting.change);
        }
    }

    /// The backend was given the session's value of it, which a probe finds.
    pub fn forget(&mut self, name: &str) {
        self.named.insert(name.into(), Change::Set);
    }

    fn has(&self, name: &str) -> bool {
        *self.named.get(name).unwrap_or(&self.others) == Change::Reset
    }
}

fn resets_all(facts: &Facts) -> bool {
    facts.effects().any(Effects::RESET_ALL | Effects::DISCARD_ALL)
}
