//! What is derived from a password, and who may know which of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::hmac;
use ring::pbkdf2;
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of an SHA-256 digest.
const DIGEST: usize = 32;
/// PostgreSQL's own number of iterations, and the RFC's least.
pub(super) const ITERATIONS: u32 = 4096;
/// Bytes of salt that PostgreSQL uses (`SCRAM_DEFAULT_SALT_LEN`).
const SALT: usize = 16;

pub(super) type Digest = [u8; DIGEST];

/// What a client needs to prove itself. Whoever has it can log in as that user on every server
/// with the same verifier. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey(Digest);

/// What a server needs to prove itself. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerKey(Digest);

/// Both keys of one user: enough to log in, and to know that the server is no impostor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Proves the client.
    pub client: ClientKey,
    /// Proves the server.
    pub server: ServerKey,
}

/// What a server stores of a password: enough to check a proof, not to make one. Its `Debug`
/// shows nothing, for passwords can be guessed against it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    stored: Digest,
    server: ServerKey,
}

/// A text is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM verifier: expected SCRAM-SHA-256$<iterations>:<salt>$<stored>:<server>")]
pub struct VerifierError;

impl Verifier {
    /// Reads the form in which PostgreSQL stores it.
    ///
    /// Source: PostgreSQL manual, 53.8 "`pg_authid`".
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(VerifierError)?;
        let (work, keys) = rest.split_once('$').ok_or(VerifierError)?;
        let (iterations, salt) = work.split_once(':').ok_or(VerifierError)?;
        let (stored, server) = keys.split_once(':').ok_or(VerifierError)?;
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| VerifierError);
        let digest = |text: &str| bytes(text)?.try_into().map_err(|_| VerifierError);
        let salt = bytes(salt)?.into_boxed_slice();
        if salt.is_empty() || !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(VerifierError);
        }
        Ok(Self {
            iterations: iterations.parse().map_err(|_| VerifierError)?,
            salt,
            stored: digest(stored)?,
            server: ServerKey(digest(server)?),
        })
    }

    /// The verifier of a password, with a salt that must be random or at least the user's own.
    pub fn from_password(password: &str, salt: &[u8]) -> Self {
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        let keys = Keys::derive(password, salt, iterations);
        Self { iterations, salt: salt.into(), stored: keys.client.stored(), server: keys.server }
    }

    /// The verifier of a user that does not exist: the exchange looks like any other, is the
    /// same every time for the same name, and always fails, because nobody knows a key of which
    /// this would be the digest.
    pub fn mock(user: &str, secret: &[u8; DIGEST], iterations: Option<NonZeroU32>) -> Self {
        let derive = |what: &str| mac(secret, &[what.as_bytes(), user.as_bytes()]);
        let salt = derive("salt");
        let default = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        Self {
            iterations: iterations.unwrap_or(default),
            salt: salt.get(..SALT).unwrap_or(&salt).into(),
            stored: derive("stored"),
            server: ServerKey(derive("server")),
        }
    }

    /// The form in which PostgreSQL stores it.
    pub fn to_text(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored),
            STANDARD.encode(self.server.0),
        )
    }

    /// How often the password is hashed.
    pub(in crate::auth) const fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    pub(in crate::auth) fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub(super) const fn server_key(&self) -> &ServerKey {
        &self.server
    }

    /// The client key within a proof of `message`, if the proof is right.
    pub(super) fn check(&self, message: &str, proof: &Digest) -> Option<ClientKey> {
        let key = ClientKey(xor(proof, &mac(&self.stored, &[message.as_bytes()])));
        bool::from(key.stored().ct_eq(&self.stored)).then_some(key)
    }

    /// Whether this key belongs to the same password and salt.
    pub fn matches(&self, keys: &Keys) -> bool {
        bool::from(keys.client.stored().ct_eq(&self.stored))
    }
}

impl Keys {
    /// The keys of a password, which is normalised first.
    pub(in crate::auth) fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new([0; DIGEST]);
        let password = normalised(password);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut *salted);
        Self {
            client: ClientKey(mac(&*salted, &[b"Client Key"])),
            server: ServerKey(mac(&*salted, &[b"Server Key"])),
        }
    }
}

impl ClientKey {
    fn stored(&self) -> Digest {
        sha256(&self.0)
    }

    /// The proof for `message`.
    pub(super) fn proof(&self, message: &str) -> Digest {
        xor(&self.0, &mac(&self.stored(), &[message.as_bytes()]))
    }
}

impl ServerKey {
    /// The server's signature of `message`.
    pub(super) fn sign(&self, message: &str) -> Digest {
        mac(&self.0, &[message.as_bytes()])
    }

    pub(super) fn signed(&self, message: &str, signature: &[u8]) -> bool {
        bool::from(self.sign(message).as_slice().ct_eq(signature))
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ClientKey(***)")
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ServerKey(***)")
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Verifier({} iterations, ***)", self.iterations)
    }
}

/// `SASLprep`, or the password as it is where that has no answer; an ASCII password is its own
/// normal form.
///
/// Source: RFC 4013; `pg_saslprep` and its callers in `common/scram-common.c`.
fn normalised(password: &str) -> Zeroizing<String> {
    if password.is_ascii() {
        return Zeroizing::new(password.to_owned());
    }
    let normal = stringprep::saslprep(password);
    Zeroizing::new(normal.map_or_else(|_| password.to_owned(), Cow::into_owned))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Digest {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    sized(context.sign().as_ref())
}

fn sha256(bytes: &[u8]) -> Digest {
    sized(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn sized(bytes: &[u8]) -> Digest {
    let mut sized = [0; DIGEST];
    for (to, from) in sized.iter_mut().zip(bytes) {
        *to = *from;
    }
    sized
}

fn xor(a: &Digest, b: &Digest) -> Digest {
    let mut both = *a;
    for (to, from) in both.iter_mut().zip(b) {
        *to ^= from;
    }
    both
}
