//! Our side towards servers.

use super::keys::Keys;
use super::{Binding, Nonce, ScramError, attributes, decoded, printable, utf8};
use crate::auth::Password;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::num::NonZeroU32;

/// More than any sane verifier asks for: about half a second of one core.
const ITERATIONS_MAX: u32 = 1_000_000;

/// What we have of a user.
#[derive(Debug, Clone)]
pub enum ClientSecret {
    /// The password.
    Password(Password),
    /// The keys that the user's own login showed.
    Keys(Keys),
}

/// We have said hello; the salt is expected.
#[derive(Debug)]
pub struct ClientFirst {
    secret: ClientSecret,
    binding: Binding,
    bare: String,
    nonce: String,
}

/// We have sent our proof; the server's is expected.
#[derive(Debug)]
pub struct ClientFinal {
    keys: Keys,
    message: String,
}

/// The server has proved itself, too.
#[derive(Debug)]
pub struct Verified {
    /// The keys that worked: from now on the password need not be hashed again.
    pub keys: Keys,
}

impl ClientFirst {
    /// The first message. The name stays empty, as with libpq: the startup message says who.
    pub fn new(secret: ClientSecret, binding: Binding, nonce: Nonce) -> (String, Self) {
        let bare = format!("n=,r={}", nonce.0);
        let first = format!("{}{bare}", binding.gs2_header());
        (first, Self { secret, binding, bare, nonce: nonce.0 })
    }

    /// Takes the server's first message; gives the proof.
    pub fn next(self, server_first: &[u8]) -> Result<(String, ClientFinal), ScramError> {
        let server_first = utf8(server_first)?;
        let [nonce, salt, iterations] = attributes(server_first, ['r', 's', 'i'])?;
        let fresh =
            nonce.strip_prefix(&self.nonce).ok_or(ScramError::Malformed("another nonce"))?;
        printable(fresh)?;
        let salt = decoded(salt)?;
        let iterations: NonZeroU32 =
            iterations.parse().map_err(|_| ScramError::Malformed("the iterations"))?;
        if iterations.get() > ITERATIONS_MAX {
            return Err(ScramError::TooManyIterations(iterations.get()));
        }
        let keys = match self.secret {
            ClientSecret::Password(password) => password.keys(&salt, iterations),
            ClientSecret::Keys(keys) => keys,
        };
        let without_proof = format!("c={},r={nonce}", self.binding.repeated());
        let message = format!("{},{server_first},{without_proof}", self.bare);
        let proof = STANDARD.encode(keys.client.proof(&message));
        Ok((format!("{without_proof},p={proof}"), ClientFinal { keys, message }))
    }
}

impl ClientFinal {
    /// Takes the server's last message.
    pub fn finish(self, server_final: &[u8]) -> Result<Verified, ScramError> {
        let text = utf8(server_final)?;
        if let Some(error) = text.strip_prefix("e=") {
            return Err(ScramError::Refused(error.to_owned()));
        }
        let [signature] = attributes(text, ['v'])?;
        if self.keys.server.signed(&self.message, &decoded(signature)?) {
            Ok(Verified { keys: self.keys })
        } else {
            Err(ScramError::WrongServer)
        }
    }
}

#[cfg(test)]
impl ClientFirst {
    /// The same with the user's name in it, as the RFC's example has it.
    pub(super) fn named(self, user: &str) -> Self {
        Self { bare: format!("n={user},r={}", self.nonce), ..self }
    }
}

#[cfg(test)]
impl ClientFinal {
    /// The last state, as if a server had been talked to.
    pub(super) fn for_tests(keys: Keys) -> Self {
        Self { keys, message: String::new() }
    }
}
