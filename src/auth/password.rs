//! A stored password, which is hashed once for a salt and not once for each login.
//!
//! Hashing takes a millisecond or more, on the thread that serves the clients. What comes of it
//! depends on nothing but the password, the salt and the number of iterations, and all servers of
//! a set have the same verifier of a user.

use super::Secret;
use super::scram::Keys;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

/// A password. Clones share what was derived of it; its `Debug` shows nothing.
#[derive(Debug, Clone)]
pub struct Password {
    text: Secret,
    /// Guards the keys, latest last; never held while one is derived.
    derived: Arc<Mutex<VecDeque<Derived>>>,
}

#[derive(Debug)]
struct Derived {
    salt: Box<[u8]>,
    iterations: NonZeroU32,
    keys: Keys,
}

/// Most keys that are kept of one password: that of the servers, and a few of a time when the
/// password is changed. A server chooses the salt, and must not fill our memory with them.
const DERIVED_MAX: usize = 4;

impl Password {
    /// The text itself, for the one place that must send or hash it.
    pub fn reveal(&self) -> &str {
        self.text.reveal()
    }

    /// Its keys for this salt.
    pub(super) fn keys(&self, salt: &[u8], iterations: NonZeroU32) -> Keys {
        if let Some(keys) = self.known(salt, iterations) {
            return keys;
        }
        let keys = Keys::derive(self.reveal(), salt, iterations);
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if derived.len() >= DERIVED_MAX {
            derived.pop_front();
        }
        derived.push_back(Derived { salt: salt.into(), iterations, keys: keys.clone() });
        keys
    }

    fn known(&self, salt: &[u8], iterations: NonZeroU32) -> Option<Keys> {
        let derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = derived.iter();
        let found = found.find(|known| *known.salt == *salt && known.iterations == iterations);
        found.map(|known| known.keys.clone())
    }
}

impl From<Secret> for Password {
    fn from(text: Secret) -> Self {
        Self { text, derived: Arc::default() }
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Password {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn iterations(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_password_is_hashed_once_for_a_salt() {
        let password = Password::from(Secret::new("secret".to_owned()));
        // Tenths of a second; a look-up takes microseconds.
        let slow = iterations(200_000);
        let started = clock::now();
        let first = password.keys(b"salt", slow);
        let hashed = clock::now().since(started);

        let started = clock::now();
        for _ in 0..10 {
            assert_eq!(password.clone().keys(b"salt", slow), first, "clones share it");
        }
        assert!(clock::now().since(started) < hashed / 2, "it was hashed again");

        assert_ne!(password.keys(b"pepper", iterations(1)), first);
        assert_ne!(password.keys(b"salt", iterations(1)), first);
        assert_eq!(first, Keys::derive("secret", b"salt", slow));
    }

    #[test]
    fn a_server_that_changes_its_salt_fills_no_memory() {
        let password = Password::from(Secret::new("secret".to_owned()));
        for salt in 0..100_u8 {
            password.keys(&[salt], iterations(1));
        }
        assert_eq!(password.derived.lock().unwrap().len(), DERIVED_MAX);
        assert!(password.known(&[99], iterations(1)).is_some());
        assert!(password.known(&[0], iterations(1)).is_none());
        assert!(!format!("{password:?}").contains("secret"));
    }
}
