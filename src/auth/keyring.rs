//! What all users prove themselves with, to us and by us: the file's entries, the verifiers
//! that the servers were asked for, and the keys that logins showed.
//!
//! Invariants:
//! - A key is kept only while it belongs to the verifier that is known of its user.
//! - What the servers said is bounded in number and in age; the age counts only while a server
//!   can be asked again, so that logins go on when none can.

use super::login::LoginSecret;
use super::scram::{Keys, Verifier};
use super::userlist::{Stored, Userlist};
use crate::clock::Moment;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a server's word on a user counts before it is asked again.
const FOUND_TTL: Duration = Duration::from_mins(1);
/// How long its word counts that there is no such user: soon after `CREATE ROLE` it can log in.
const MISSING_TTL: Duration = Duration::from_secs(2);
/// After a failed login the servers are asked again, but not more often than this.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);
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
}

/// What the servers said of a user.
#[derive(Debug, Clone)]
struct Found {
    verifier: Option<Verifier>,
    at: Moment,
    /// A login failed since.
    doubted: bool,
}

struct MockSecret([u8; SECRET]);

/// What is known of a user who wants to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// This is to be proved.
    Verifier(Verifier),
    /// The servers must be asked; if none answers, this is what they said before.
    Ask(Option<Verifier>),
    /// There is no way to prove anything; the reason is for the log, not for the client.
    Nothing(&'static str),
}

impl Keyring {
    /// With these users. `secret` must be random: it makes users that don't exist look as if
    /// they did.
    pub fn new(file: Userlist, secret: [u8; SECRET]) -> Self {
        let users = Users { file, ..Users::default() };
        Self { secret: MockSecret(secret), users: Mutex::new(users) }
    }

    /// Takes the users of the file as it is now.
    pub fn replace_file(&self, file: Userlist) {
        let mut users = self.lock();
        users.file = file;
        users.made.clear();
    }

    /// What a user has to prove. The file goes before the servers.
    pub fn known(&self, user: &Arc<str>, now: Moment) -> Known {
        let password = {
            let users = self.lock();
            match users.file.get(user) {
                Some(Stored::Verifier(verifier)) => return Known::Verifier(verifier.clone()),
                Some(Stored::Md5(_)) => {
                    return Known::Nothing("only an md5 hash is stored in auth.file");
                }
                Some(Stored::Password(password)) => match users.made.get(user) {
                    Some(verifier) => return Known::Verifier(verifier.clone()),
                    None => password.clone(),
                },
                None => return users.found(user, now),
            }
        };
        // Takes a millisecond or more: not under the lock.
        let salt = Verifier::mock(user, &self.secret.0);
        let verifier = Verifier::from_password(password.reveal(), salt.salt());
        self.lock().made.insert(Arc::clone(user), verifier.clone());
        Known::Verifier(verifier)
    }

    /// The verifier of a user that has none: the exchange with it looks like any other and
    /// fails at its end.
    pub fn mock(&self, user: &str) -> Verifier {
        Verifier::mock(user, &self.secret.0)
    }

    /// The servers said this of a user.
    pub fn learn(&self, user: &Arc<str>, verifier: Option<Verifier>, now: Moment) {
        let mut users = self.lock();
        if let (Some(verifier), Some(keys)) = (&verifier, users.keys.get(user))
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
        users.found.insert(Arc::clone(user), Found { verifier, at: now, doubted: false });
    }

    /// A user has shown these keys at a login.
    pub fn remember(&self, user: &Arc<str>, keys: Keys) {
        let mut users = self.lock();
        if users.keys.len() < USERS_MAX || users.keys.contains_key(user) {
            users.keys.insert(Arc::clone(user), keys);
        }
    }

    /// A login failed: perhaps the password was changed, so the servers' word is doubted.
    pub fn doubt(&self, user: &str) {
        if let Some(found) = self.lock().found.get_mut(user) {
            found.doubted = true;
        }
    }

    /// A server refused the user's keys: they are of an older password.
    pub fn forget_keys(&self, user: &str) {
        self.lock().keys.remove(user);
        self.doubt(user);
    }

    /// What we log in to a server with, as this user.
    pub fn secret_for(&self, user: &str) -> LoginSecret {
        let users = self.lock();
        let keys = || users.keys.get(user).cloned().map_or(LoginSecret::None, LoginSecret::Keys);
        match users.file.get(user) {
            Some(Stored::Password(password)) => LoginSecret::Password(password.clone()),
            Some(Stored::Md5(hash)) => LoginSecret::Md5(hash.clone()),
            Some(Stored::Verifier(_)) | None => keys(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Users {
    fn found(&self, user: &str, now: Moment) -> Known {
        let Some(found) = self.found.get(user) else { return Known::Ask(None) };
        let ttl = if found.verifier.is_some() { FOUND_TTL } else { MISSING_TTL };
        let age = now.since(found.at);
        if age >= ttl || (found.doubted && age >= RECHECK_PAUSE) {
            return Known::Ask(found.verifier.clone());
        }
        match &found.verifier {
            Some(verifier) => Known::Verifier(verifier.clone()),
            None => Known::Nothing("no server knows this user with a SCRAM password"),
        }
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

        let Known::Verifier(first) = keyring.known(&alice, START) else { panic!("unknown") };
        assert_eq!(keyring.known(&alice, START), Known::Verifier(first), "the salt stays");
        assert!(matches!(keyring.secret_for("alice"), LoginSecret::Password(_)));
        assert!(matches!(keyring.known(&Arc::from("old"), START), Known::Nothing(_)));
        assert!(matches!(keyring.secret_for("old"), LoginSecret::Md5(_)));

        keyring.replace_file(Userlist::default());
        assert_eq!(keyring.known(&alice, START), Known::Ask(None));
        assert!(matches!(keyring.secret_for("alice"), LoginSecret::None));
    }

    #[test]
    fn the_servers_word_counts_for_a_while() {
        let keyring = keyring("");
        let (bob, eve) = (Arc::from("bob"), Arc::from("eve"));
        assert_eq!(keyring.known(&bob, START), Known::Ask(None));

        keyring.learn(&bob, Some(verifier("x")), START);
        keyring.learn(&eve, None, START);

        let soon = START + Duration::from_secs(1);
        assert_eq!(keyring.known(&bob, soon), Known::Verifier(verifier("x")));
        assert!(matches!(keyring.known(&eve, soon), Known::Nothing(_)));
        assert_eq!(keyring.known(&eve, START + MISSING_TTL), Known::Ask(None));
        assert_eq!(keyring.known(&bob, START + FOUND_TTL), Known::Ask(Some(verifier("x"))));
    }

    #[test]
    fn a_failed_login_makes_us_ask_again_but_not_at_once() {
        let keyring = keyring("");
        let bob = Arc::from("bob");
        keyring.learn(&bob, Some(verifier("x")), START);
        keyring.doubt("bob");
        let at_once = START + Duration::from_millis(10);
        assert_eq!(keyring.known(&bob, at_once), Known::Verifier(verifier("x")));
        assert_eq!(keyring.known(&bob, START + RECHECK_PAUSE), Known::Ask(Some(verifier("x"))));
    }

    #[test]
    fn the_keys_of_an_older_password_are_dropped() {
        let keyring = keyring("");
        let bob = Arc::from("bob");
        let keys = Keys::derive("x", b"salt", std::num::NonZeroU32::new(4096).unwrap());
        keyring.remember(&bob, keys);
        keyring.learn(&bob, Some(verifier("x")), START);
        assert!(matches!(keyring.secret_for("bob"), LoginSecret::Keys(_)));

        keyring.learn(&bob, Some(verifier("y")), START);
        assert!(matches!(keyring.secret_for("bob"), LoginSecret::None));
    }

    #[test]
    fn guessed_names_do_not_fill_the_memory() {
        let keyring = keyring("");
        for number in 0..=USERS_MAX {
            let at = START + Duration::from_nanos(u64::try_from(number).unwrap());
            keyring.learn(&Arc::from(format!("user{number}")), None, at);
        }
        assert_eq!(keyring.lock().found.len(), USERS_MAX);
        assert_eq!(keyring.known(&Arc::from("user0"), START), Known::Ask(None), "the oldest went");
        assert!(!format!("{keyring:?}").contains("[1, 1"), "the secret stays secret");
    }
}
