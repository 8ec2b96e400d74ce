//! What the salts of users who do not exist are made of.
//!
//! The salts of those who do exist are kept by the servers. If the others had new ones after each
//! restart, whoever asks before and after it would know who does not exist.

use crate::store::StoreError;
use crate::store::files;
use crate::store::files::{Privacy, Unwritten};
use ring::rand::SecureRandom as _;
use std::io;
use std::path::Path;

/// How many bytes it has.
const LENGTH: usize = 32;
/// What the file begins with, so that no other is taken for it.
const PREFIX: &str = "pgsteer-salts-";
/// Its name. It is of no set of servers: a server more must not change a salt.
const NAME: &str = "salts";

/// The secret that lies in this directory, which is made if there is none. All who are given the
/// directory have the same.
///
/// # Errors
/// [`StoreError`], with the remedy.
pub fn salts(directory: &Path) -> Result<[u8; LENGTH], StoreError> {
    files::make_directory(directory)?;
    let path = directory.join(NAME);
    // Two that start at once must not make two.
    let gate = files::wait_for_lock(directory)?;
    let made = match files::read(&path, Privacy::Secret)? {
        Some(text) => {
            let what = "it is not what pgsteer has written there; remove it".to_owned();
            parse(&text).ok_or(StoreError::Broken { path, what })
        }
        None => make(&path),
    };
    drop(gate);
    made
}

fn make(path: &Path) -> Result<[u8; LENGTH], StoreError> {
    let mut bytes = [0; LENGTH];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    let none = |_| io::Error::other("the system has no randomness");
    filled.map_err(none).map_err(files::io_error("make", path))?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    let digits = digits.collect::<String>();
    files::write(path, &format!("{PREFIX}{digits}\n")).map_err(Unwritten::into_error)?;
    Ok(bytes)
}

fn parse(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.trim_end().strip_prefix(PREFIX)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    bytes?.try_into().ok()
}
