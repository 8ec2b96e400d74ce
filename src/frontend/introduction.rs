//! What a client says of itself in its first packet, and what others who said the same were told.
//!
//! An application logs in with the very same bytes each time, and what they mean follows from them
//! alone: a shard remembers both, so that the next one's packet is looked up and not read.
//!
//! Invariants:
//! - Only who was let in is remembered: a stranger pushes nobody out.
//! - Nothing that a client proves itself with is in here.

use crate::clock::Moment;
use crate::frontend::params::Reported;
use crate::pool;
use crate::session::{FirstRole, Identity, Isolates, Settings, SharedSettings, is_ours};
use crate::wire::startup::{Minor, Negotiation, Replication, Startup};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// What a client says of itself.
#[derive(Debug)]
pub struct Introduction {
    /// Its first packet, the length word included.
    packet: Box<[u8]>,
    /// Who it is.
    pub user: Arc<str>,
    /// Where it wants to be.
    pub database: Arc<str>,
    /// The other parameters of its startup message, in the order in which they apply.
    pub settings: Vec<(String, String)>,
    /// Whether it wants to send replication commands.
    pub replication: Replication,
    /// Which protocol it speaks.
    pub minor: Minor,
    /// What must be said about that.
    pub negotiation: Negotiation,
    /// Those of the parameters that are settings of its session.
    pub startup: SharedSettings,
    /// Those that only a login can give to a backend.
    pub identity: Option<Arc<Identity>>,
    /// What it wishes of us, by name without its prefix.
    pub wishes: Vec<(String, String)>,
}

/// What a login was told, and when a server was asked for it.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    pub(super) told: Reported,
    pub(super) first_role: FirstRole,
    pub(super) isolates: Isolates,
    pub(super) at: Moment,
}

/// How long a greeting counts while a server can be asked again: an upgrade or a changed default
/// shows within this time.
const GREETING_AGE_MAX: Duration = Duration::from_mins(1);

// What tells that one is out of date must outlast it.
const _: () = assert!(GREETING_AGE_MAX.as_secs() < pool::KEPT.as_secs());

/// Who came to a shard, and what they were told.
#[derive(Debug, Default)]
pub(super) struct Greetings(HashMap<ByPacket, Greeting>);

/// Most greetings that are remembered; when there are more, all are asked for again.
const GREETINGS_MAX: usize = 1024;

/// Found by the bytes of its packet.
#[derive(Debug)]
struct ByPacket(Arc<Introduction>);

impl Introduction {
    /// What this packet says, which was read as `startup`.
    pub(super) fn new(packet: Vec<u8>, startup: Startup) -> Self {
        let Startup { user, database, settings, replication, minor, negotiation } = startup;
        let wishes = settings.iter().filter(|(name, _)| is_ours(name)).map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let name = name.strip_prefix("pgsteer.").unwrap_or(&name);
            (name.to_owned(), value.clone())
        });
        Self {
            packet: packet.into(),
            user: user.into(),
            database: database.into(),
            replication,
            minor,
            negotiation,
            startup: Arc::new(Settings::from_startup(&settings)),
            identity: Identity::from_startup(&settings),
            wishes: wishes.collect(),
            settings,
        }
    }

    /// Whether a server tells both the same.
    fn is_like(&self, other: &Self) -> bool {
        self.user == other.user
            && self.database == other.database
            && self.identity == other.identity
            && self.startup == other.startup
    }
}

impl Greeting {
    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.at) < GREETING_AGE_MAX
    }
}

impl Greetings {
    /// What was read of this very packet when somebody else who was let in sent it.
    pub(super) fn introduction(&self, packet: &[u8]) -> Option<Arc<Introduction>> {
        self.0.get_key_value(packet).map(|(known, _)| Arc::clone(&known.0))
    }

    /// What who said the same was told, also if it was said in other words: a server that is asked
    /// takes a backend, for which one may have to wait.
    pub(super) fn of(&mut self, introduction: &Arc<Introduction>) -> Option<&Greeting> {
        if !self.0.contains_key(&*introduction.packet) {
            let mut known = self.0.iter();
            let alike = known.find(|(known, _)| known.0.is_like(introduction));
            let greeting = alike.map(|(_, greeting)| greeting.clone())?;
            self.remember(introduction, greeting);
        }
        self.0.get(&*introduction.packet)
    }

    /// Who said this was told that.
    pub(super) fn remember(&mut self, introduction: &Arc<Introduction>, greeting: Greeting) {
        if self.0.len() >= GREETINGS_MAX {
            self.0.clear();
        }
        self.0.insert(ByPacket(Arc::clone(introduction)), greeting);
    }
}

impl Borrow<[u8]> for ByPacket {
    fn borrow(&self) -> &[u8] {
        &self.0.packet
    }
}

impl PartialEq for ByPacket {
    fn eq(&self, other: &Self) -> bool {
        self.0.packet == other.0.packet
    }
}

impl Eq for ByPacket {}

/// As the bytes, by which it is looked for.
impl Hash for ByPacket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.packet.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::write_startup;
    use crate::wire::startup::{FirstPacket, read};

    fn introduced(params: &[(&str, &str)]) -> (Vec<u8>, Arc<Introduction>) {
        let mut packet = Vec::new();
        write_startup(&mut packet, params).unwrap();
        let FirstPacket::Startup(startup) = read(&packet).unwrap() else { panic!("no startup") };
        (packet.clone(), Arc::new(Introduction::new(packet, startup)))
    }

    fn greeting(at: u64) -> Greeting {
        Greeting {
            told: Reported::default(),
            first_role: FirstRole::default(),
            isolates: Isolates::default(),
            at: Moment::from_nanos(at),
        }
    }

    #[test]
    fn only_the_very_same_packet_is_known_and_what_it_says_in_other_words() {
        let mut greetings = Greetings::default();
        let (packet, known) = introduced(&[("user", "a"), ("application_name", "x")]);
        let (other, unknown) = introduced(&[("user", "b"), ("application_name", "x")]);
        greetings.remember(&known, greeting(1));
        assert!(Arc::ptr_eq(&greetings.introduction(&packet).unwrap(), &known));
        assert!(greetings.introduction(&other).is_none());
        assert!(greetings.of(&unknown).is_none());
        let (third, reworded) = introduced(&[("user", "a"), ("Application_Name", "x")]);
        assert_eq!(greetings.of(&reworded).unwrap().at, Moment::from_nanos(1));
        assert!(Arc::ptr_eq(&greetings.introduction(&third).unwrap(), &reworded));
        greetings.remember(&known, greeting(2));
        assert_eq!(greetings.of(&known).unwrap().at, Moment::from_nanos(2));
    }

    #[test]
    fn what_is_ours_is_told_from_settings() {
        let (_, client) = introduced(&[
            ("user", "a"),
            ("PgSteer.Role", "standby"),
            ("role", "b"),
            ("work_mem", "1MB"),
        ]);
        assert_eq!(client.wishes, [("role".to_owned(), "standby".to_owned())]);
        assert_eq!(client.identity.as_ref().unwrap().role(), Some("b"));
        let startup: Vec<_> = client.startup.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(startup, ["work_mem"]);
    }

    #[test]
    fn so_many_are_known_and_no_more() {
        let mut greetings = Greetings::default();
        for number in 0..=GREETINGS_MAX {
            let (_, client) = introduced(&[("user", &number.to_string())]);
            greetings.remember(&client, greeting(0));
            assert!(greetings.0.len() <= GREETINGS_MAX);
        }
        assert_eq!(greetings.0.len(), 1);
    }
}
