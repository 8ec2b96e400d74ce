//! Names of a client's that a backend was given for a while, though it knows statements by names
//! of ours only: what is there under them is taken off before the backend serves another session.
//!
//! A transaction may say one name without end, so each is noted once, and nothing here is walked
//! through for a statement.

use crate::session::Prepared;
use crate::session::statements::weight;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A client's name that a backend was given for a while.
#[derive(Debug)]
pub struct Stray {
    /// As the client wrote it.
    pub name: Box<[u8]>,
    /// What is to have it again if it is there still.
    pub before: Option<Arc<Prepared>>,
    /// The encoding in which it was given, if that has been noted: a server converts names.
    pub letters: Option<Box<str>>,
}

/// All of them, of one backend.
#[derive(Debug, Default)]
pub struct Strays(Option<Box<Given>>);

/// Boxed, as few sessions have any.
#[derive(Debug, Default)]
struct Given {
    /// Those of ASCII, and those whose letters have been noted.
    noted: Vec<Stray>,
    /// Those whose letters are yet to be noted.
    new: Vec<Stray>,
    /// Which these are, and where: see [`key`].
    known: BTreeMap<Box<[u8]>, usize>,
    /// What is to be had again, in bytes.
    bytes: usize,
    /// What the backend was lent just now, for the group that is sent next.
    lent: BTreeSet<Box<[u8]>>,
    takes: Takes,
}

/// Whether a name among them was to be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Takes {
    #[default]
    None,
    Some,
}

/// A name in these letters, of which ASCII needs none.
fn key(name: &[u8], letters: &str) -> Box<[u8]> {
    if name.is_ascii() { name.into() } else { [name, b"\0", letters.as_bytes()].concat().into() }
}

/// Notes one, or what a known one is to be when it is had again.
fn put(
    list: &mut Vec<Stray>,
    known: &mut BTreeMap<Box<[u8]>, usize>,
    bytes: &mut usize,
    stray: Stray,
) {
    let place = known.entry(key(&stray.name, stray.letters.as_deref().unwrap_or_default()));
    let place = *place.or_insert(list.len());
    match list.get_mut(place) {
        Some(_) if stray.before.is_none() => {}
        Some(there) => {
            *bytes = *bytes - there.bytes() + stray.bytes();
            there.before = stray.before;
        }
        None => {
            *bytes += stray.bytes();
            list.push(stray);
        }
    }
}

impl Stray {
    fn bytes(&self) -> usize {
        self.before.as_ref().map_or(0, |before| weight(&self.name, before))
    }
}

impl Strays {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |given| given.noted.len() + given.new.len())
    }

    /// What of statements is kept here, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |given| given.bytes)
    }

    /// The backend is given a name, and what is to have it again: what had it last.
    pub fn give(&mut self, name: &[u8], before: Option<Arc<Prepared>>) {
        let Given { noted, new, known, bytes, takes, .. } = &mut **self.0.get_or_insert_default();
        if before.is_some() {
            *takes = Takes::Some;
        }
        let list = if name.is_ascii() { noted } else { new };
        let stray = Stray { name: name.into(), before, letters: None };
        put(list, known, bytes, stray);
    }

    /// The backend is lent what this name stands for: the next group is to find it there.
    pub fn lend(&mut self, name: &[u8]) {
        self.give(name, None);
        if let Some(given) = &mut self.0 {
            given.lent.insert(name.into());
        }
    }

    /// Whether the backend was lent it just now.
    pub fn is_lent(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|given| given.lent.contains(name))
    }

    /// What was lent was lent for another group.
    pub fn forget_lent(&mut self) {
        if let Some(given) = &mut self.0 {
            given.lent.clear();
        }
    }

    /// The names that the backend was given just now are in these letters.
    pub fn note_letters(&mut self, letters: Option<&str>) {
        let (Some(given), Some(letters)) = (&mut self.0, letters) else { return };
        let Given { noted, new, known, bytes, .. } = &mut **given;
        for stray in new.drain(..) {
            known.remove(&key(&stray.name, ""));
            *bytes -= stray.bytes();
            put(noted, known, bytes, Stray { letters: Some(letters.into()), ..stray });
        }
    }

    /// Whether a name among them was to be taken away.
    pub fn take_away(&self) -> bool {
        self.0.as_ref().is_some_and(|given| given.takes == Takes::Some)
    }

    /// Takes them all, in the order in which each name was given.
    pub fn take_all(&mut self) -> Vec<Stray> {
        let given = self.0.take().map(|given| *given).unwrap_or_default();
        let Given { mut noted, new, .. } = given;
        noted.extend(new);
        noted
    }
}
