//! What all users prove themselves with, to us and by us: the file's entries, the verifiers
//! that the servers were asked for, and the keys that logins showed.
//!
//! Invariants:
//! - A key is kept only while it belongs to the verifier that is known of its user.
//! - What the servers said is bounded in number. It counts where they can't be asked now, so that
//!   logins go on; and for a while for a user who comes from where he has proved himself by it. All
//!   others have the servers asked, whoever they say that they are: by the time nobody learns who
//!   has been here.

use super::Secret;
use super::failures::Source;
use super::login::LoginSecret;
use super::scram::{Keys, Verifier};
use super::userlist::{Stored, Userlist};
use crate::clock::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most users of which the servers' word, or a key, is kept.
const USERS_MAX: usize = 10_000;
/// Bytes of the secret that makes users up.
const SECRET: usize = 32;

/// What all users prove themselves with. Shared by all shards.
#[derive(Debug)]
pub struct Keyring {
    /// Makes the verifiers of users that don't exist, and the salts of those in the file.
    secret: MockSecret,
    /// Guards everything that changes; held for a look-up in a map, never over a wait.
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    file: Userlist,
    /// Verifiers of the file's plain passwords, made when they are needed first.
    made: BTreeMap<Arc<str>, Verifier>,
    found: BTreeMap<Arc<str>, Found>,
    keys: BTreeMap<Arc<str>, Keys>,
    /// Who proved himself from where, since he last failed to.
    at_home: BTreeSet<(Arc<str>, Source)>,
    /// How often real users' passwords are hashed, as far as it is known.
    iterations: Option<NonZeroU32>,
}

/// What the servers said of a user, and when they were asked.
#[derive(Debug, Clone)]
struct Found {
    word: Word,
    at: Moment,
}

struct MockSecret([u8; SECRET]);

/// What is known of a user who wants to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// This is to be proved.
    Verifier(Verifier),
    /// Only the old hash is stored: for rules with the method `md5`.
    Md5(Secret),
    /// The servers must be asked; if none answers in time, this is what they said before.
    Ask(Option<Word>),
}

/// The servers' word on a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// This is to be proved.
    Verifier(Verifier),
    /// Only the old hash is stored: for rules with the method `md5`.
    Md5(Secret),
    /// There is nothing to be proved, so nobody can be that user.
    Nothing,
}

impl Keyring {
    /// With these users. `secret` must be random: it makes users that don't exist look as if
    /// they did.
    pub fn new(file: Userlist, secret: [u8; SECRET]) -> Self {
        let iterations = file.iterations();
        let users = Users { file, iterations, ..Users::default() };
        Self { secret: MockSecret(secret), users: Mutex::new(users) }
    }

    /// Takes the users of the file as it is now.
    pub fn replace_file(&self, file: Userlist) {
        let mut users = self.lock();
        users.iterations = file.iterations().or(users.iterations);
        users.file = file;
        users.made.clear();
        // The servers may be asked otherwise from now on.
        users.at_home.clear();
    }

    /// What a user has to prove. The file goes before the servers.
    pub fn known(&self, user: &Arc<str>) -> Known {
        let password = {
            let users = self.lock();
            match users.file.get(user) {
                Some(Stored::Verifier(verifier)) => return Known::Verifier(verifier.clone()),
                Some(Stored::Md5(hash)) => return Known::Md5(hash.clone()),
                Some(Stored::Password(password)) => match users.made.get(user) {
                    Some(verifier) => return Known::Verifier(verifier.clone()),
                    None => password.clone(),
                },
                None => {
                    return Known::Ask(users.found.get(user).map(|found| found.word.clone()));
                }
            }
        };
        // Takes a millisecond or more: not under the lock.
        let salt = Verifier::mock(user, &self.secret.0, None);
        let verifier = Verifier::from_password(password.reveal(), salt.salt());
        self.lock().made.insert(Arc::clone(user), verifier.clone());
        Known::Verifier(verifier)
    }

    /// What a user who comes from there has to prove, if the servers said it at `since` or later
    /// and he has proved himself from there.
    pub fn cached(&self, user: &Arc<str>, from: Source, since: Moment) -> Option<Word> {
        let users = self.lock();
        let found = users.found.get(user).filter(|found| found.at >= since)?;
        let is_at_home = users.at_home.contains(&(Arc::clone(user), from));
        match &found.word {
            Word::Verifier(_) | Word::Md5(_) if is_at_home => Some(found.word.clone()),
            Word::Verifier(_) | Word::Md5(_) | Word::Nothing => None,
        }
    }

    /// A user has proved himself from there.
    pub fn welcome(&self, user: &Arc<str>, from: Source) {
        let mut users = self.lock();
        if users.at_home.len() >= USERS_MAX {
            users.at_home.clear(); // they ask again
        }
        users.at_home.insert((Arc::clone(user), from));
    }

    /// Somebody from there was not who he said.
    pub fn doubt(&self, user: &Arc<str>, from: Source) {
        self.lock().at_home.remove(&(Arc::clone(user), from));
    }

    /// The verifier of a user that has none: the exchange with it looks like any other and
    /// fails at its end. It asks for as many iterations as the last real one did.
    pub fn mock(&self, user: &str) -> Verifier {
        let iterations = self.lock().iterations;
        Verifier::mock(user, &self.secret.0, iterations)
    }

    /// The servers said this of a user, when they were asked at this moment.
    pub fn learn(&self, user: &Arc<str>, word: Word, asked_at: Moment) {
        let mut users = self.lock();
        if users.found.get(user).is_some_and(|found| found.at > asked_at) {
            return; // The answer to a later question came first.
        }
        if let Word::Verifier(verifier) = &word {
            users.iterations = Some(verifier.iterations());
        }
        if let (Word::Verifier(verifier), Some(keys)) = (&word, users.keys.get(user))
            && !verifier.matches(keys)
        {
            users.keys.remove(user); // of an older password
        }
        if users.found.len() >= USERS_MAX && !users.found.contains_key(user) {
            let oldest = users.found.iter().min_by_key(|(_, found)| found.at);
            if let Some(oldest) = oldest.map(|(name, _)| Arc::clone(name)) {
                users.found.remove(&oldest);
            }
        }
        users.found.insert(Arc::clone(user), Found { word, at: asked_at });
    }

    /// A user has shown these keys at a login.
    pub fn remember(&self, user: &Arc<str>, keys: Keys) {
        let mut users = self.lock();
        if users.keys.len() < USERS_MAX || users.keys.contains_key(user) {
            users.keys.insert(Arc::clone(user), keys);
        }
    }

    /// A server refused the user's keys: they are of an older password, unless they belong to the
    /// verifier that is known now; then that server has not heard of it yet.
    pub fn forget_keys(&self, user: &str) {
        let mut users = self.lock();
        users.at_home.retain(|(known, _)| **known != *user); // it may have been changed
        let known = match (users.file.get(user), users.found.get(user)) {
            (Some(Stored::Verifier(verifier)), _)
            | (None, Some(Found { word: Word::Verifier(verifier), .. })) => Some(verifier),
            (Some(Stored::Password(_) | Stored::Md5(_)), _)
            | (None, Some(Found { word: Word::Nothing | Word::Md5(_), .. }) | None) => None,
        };
        let keys = users.keys.get(user);
        if !known.zip(keys).is_some_and(|(verifier, keys)| verifier.matches(keys)) {
            users.keys.remove(user);
        }
    }

    /// What we log in to a server with, as this user.
    pub fn secret_for(&self, user: &str) -> LoginSecret {
        let users = self.lock();
        let keys = || users.keys.get(user).cloned().map_or(LoginSecret::None, LoginSecret::Keys);
        match users.file.get(user) {
            Some(Stored::Password(password)) => LoginSecret::Password(password.clone()),
            Some(Stored::Md5(hash)) => LoginSecret::Md5(hash.clone()),
            Some(Stored::Verifier(_)) => keys(),
            None => match users.found.get(user) {
                Some(Found { word: Word::Md5(hash), .. }) => LoginSecret::Md5(hash.clone()),
                Some(Found { word: Word::Verifier(_) | Word::Nothing, .. }) | None => keys(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MockSecret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const START: Moment = Moment::from_nanos(1_000_000_000_000);

    fn keyring(file: &str) -> Keyring {
        Keyring::new(Userlist::parse(file).unwrap(), [1; SECRET])
    }

    fn verifier(password: &str) -> Verifier {
        Verifier::from_password(password, b"salt")
    }

    #[test]
    fn the_file_goes_before_the_servers() {
        let keyring =
            keyring("\"alice\" \"secret\"\n\"old\" \"md5d41d8cd98f00b204e9800998ecf8427e\"");
        let alice = Arc::from("alice");

        let Known::Verifier(first) = keyring.known(&alice) else { panic!("unknown") };
        assert_eq!(keyring.known(&alice), Known::Verifier(first), "the salt stays");
        assert!(matches!(keyring.secret_for("alice"), LoginSecret::Password(_)));
        assert!(matches!(keyring.known(&Arc::from("old")), Known::Md5(_)));
        assert!(matches!(keyring.secret_for("old"), LoginSecret::Md5(_)));

        keyring.replace_file(Userlist::default());
        assert_eq!(keyring.known(&alice), Known::Ask(None));
        assert!(matches!(keyring.secret_for("alice"), LoginSecret::None));
    }

    #[test]
    fn the_servers_are_asked_each_time_and_their_last_word_is_remembered() {
        let keyring = keyring("");
        let (bob, eve) = (Arc::from("bob"), Arc::from("eve"));
        assert_eq!(keyring.known(&bob), Known::Ask(None));

        keyring.learn(&bob, Word::Verifier(verifier("x")), START);
        keyring.learn(&eve, Word::Nothing, START);
        assert_eq!(keyring.known(&bob), Known::Ask(Some(Word::Verifier(verifier("x")))));
        assert_eq!(keyring.known(&eve), Known::Ask(Some(Word::Nothing)));

        // Of two answers the one to the later question counts, whichever comes first.
        let later = START + Duration::from_secs(1);
        keyring.learn(&bob, Word::Verifier(verifier("z")), later);
        keyring.learn(&bob, Word::Verifier(verifier("y")), START);
        assert_eq!(keyring.known(&bob), Known::Ask(Some(Word::Verifier(verifier("z")))));
    }

    /// Servers can be told to hash more often (`scram_iterations`); whoever is made up must not be
    /// known by the default.
    #[test]
    fn who_does_not_exist_is_hashed_as_often_as_who_does() {
        let often = verifier("x").to_text().replace("$4096:", "$20000:");
        let real = Verifier::parse(&often).unwrap();
        let of = |keyring: &Keyring| keyring.mock("nobody").iterations().get();
        assert_eq!(of(&keyring("")), 4096);
        assert_eq!(of(&keyring(&format!("\"bob\" \"{often}\""))), 20_000);
        let asks = keyring("");
        asks.learn(&Arc::from("bob"), Word::Verifier(real), START);
        assert_eq!(of(&asks), 20_000);
        assert_eq!(asks.mock("nobody"), asks.mock("nobody"), "the same every time");
    }

    #[test]
    fn the_keys_of_an_older_password_are_dropped() {
        let keyring = keyring("");
        let bob = Arc::from("bob");
        let keys = Keys::derive("x", b"salt", NonZeroU32::new(4096).unwrap());
        keyring.remember(&bob, keys);
        keyring.learn(&bob, Word::Verifier(verifier("x")), START);
        assert!(matches!(keyring.secret_for("bob"), LoginSecret::Keys(_)));

        keyring.forget_keys("bob");
        assert!(matches!(keyring.secret_for("bob"), LoginSecret::Keys(_)), "a server is behind");

        keyring.learn(&bob, Word::Verifier(verifier("y")), START);
        assert!(matches!(keyring.secret_for("bob"), LoginSecret::None));
    }

    #[test]
    fn an_answer_counts_for_a_while_where_its_user_has_proved_himself() {
        let keyring = keyring("");
        let bob = Arc::from("bob");
        let from = |address: &str| Source::of(address.parse().unwrap());
        let (home, elsewhere) = (from("192.0.2.1"), from("192.0.2.2"));
        let later = START + Duration::from_nanos(1);
        keyring.learn(&bob, Word::Verifier(verifier("x")), START);
        assert_eq!(keyring.cached(&bob, home, START), None, "nobody has proved anything");

        keyring.welcome(&bob, home);
        let known = Some(Word::Verifier(verifier("x")));
        assert_eq!(keyring.cached(&bob, home, START), known);
        assert_eq!(keyring.cached(&bob, elsewhere, START), None);
        assert_eq!(keyring.cached(&Arc::from("eve"), home, START), None);
        assert_eq!(keyring.cached(&bob, home, later), None, "it is too old");

        keyring.doubt(&bob, home);
        assert_eq!(keyring.cached(&bob, home, START), None);
        keyring.welcome(&bob, home);
        keyring.forget_keys("bob");
        assert_eq!(keyring.cached(&bob, home, START), None, "a server knew better");
        keyring.welcome(&bob, home);
        keyring.learn(&bob, Word::Nothing, later);
        assert_eq!(keyring.cached(&bob, home, START), None, "he is no more");
    }

    #[test]
    fn guessed_names_do_not_fill_the_memory() {
        let keyring = keyring("");
        for number in 0..=USERS_MAX {
            let at = START + Duration::from_nanos(u64::try_from(number).unwrap());
            keyring.learn(&Arc::from(format!("user{number}")), Word::Nothing, at);
        }
        assert_eq!(keyring.lock().found.len(), USERS_MAX);
        assert_eq!(keyring.known(&Arc::from("user0")), Known::Ask(None), "the oldest went");
        for number in 0..=u32::try_from(USERS_MAX).unwrap() {
            let from = Source::of(std::net::Ipv4Addr::from_bits(number).into());
            keyring.welcome(&Arc::from("bob"), from);
        }
        assert!(keyring.lock().at_home.len() <= USERS_MAX);
        assert!(!format!("{keyring:?}").contains("[1, 1"), "the secret stays secret");
    }
}
