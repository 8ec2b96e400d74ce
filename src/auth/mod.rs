//! Who a client is, and how we are whom we say to the servers.
//!
//! The exchanges are messages in and messages out; what comes of a client's login is the proof
//! [`Authenticated`], which only this module can make. Sockets, clocks and randomness belong to
//! the callers.
//!
//! Invariants:
//! - Nothing secret is in any `Debug`.
//! - Whatever is compared with a secret is compared in constant time.
//! - A user that does not exist can't be told from a wrong password.

mod failures;
mod keyring;
mod login;
mod password;
mod policy;
mod proof;
mod quota;
pub mod rules;
pub mod scram;
mod secret;
mod userlist;

pub use failures::{Failures, Source};
pub use keyring::{Keyring, Known, Word};
pub use login::{LoginSecret, md5_hash_response, md5_response};
pub use password::Password;
pub use policy::{Access, Method, Policy};
pub use proof::{
    Authenticated, Challenge, Entry, Origin, Refusal, by_certificate, by_md5, by_peer, challenge,
    trust, trust_by_rule,
};
pub use quota::Quota;
pub use secret::Secret;
pub use userlist::{Stored, Userlist, UserlistError};
