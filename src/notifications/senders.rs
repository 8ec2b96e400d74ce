//! Who notifies from which backend: a server names the process that a notification came from, and
//! a client knows the sessions of pgsteer by other numbers.
//!
//! Before a session sends anything that may notify, it is noted as the holder of its backend.
//! Before the backend may notify for somebody else, it notifies a mark in the same queue; whoever
//! hears the mark knows that what comes from that process behind it is the next holder's. So a
//! listener that is behind still tells the right one.

use crate::clock;
use crate::clock::Moment;
use crate::topology::ServerId;
use crate::wire::frame;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Notes that are kept of one backend; more than that only a listener that is far behind needs.
const NOTES_MAX: usize = 256;
/// How long what a backend notified is still told under its last holder after that one has left,
/// and how often such notes are thrown away.
const HEARD_WITHIN: Duration = Duration::from_mins(1);

/// A backend: its server, and its process there.
pub type Process = (ServerId, i32);

/// Who notifies from which backend.
#[derive(Debug)]
pub struct Senders {
    /// The channel of the marks; other processes of pgsteer have others.
    channel: Box<str>,
    /// Whether any session has ever listened: before that, nothing is noted.
    wanted: AtomicBool,
    /// Guards the notes; held for a few instructions, by those who notify and are notified.
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    notes: HashMap<Process, VecDeque<Note>>,
    /// Every listener that hears marks now, and its database.
    listeners: HashMap<u64, Arc<str>>,
    last: u64,
    swept: Option<Moment>,
}

#[derive(Debug)]
struct Note {
    number: u64,
    client: i32,
    /// When another client's session left that held it before.
    behind: Option<Moment>,
    holds: Holds,
}

#[derive(Debug)]
enum Holds {
    /// It may notify from there at any time.
    Now,
    /// It doesn't any more; these listeners have not heard its mark yet.
    Left { at: Moment, unheard: BTreeSet<u64> },
}

/// That a session is noted as the holder of a backend. Dropped, it holds it no more.
#[derive(Debug)]
pub struct Noted {
    senders: Arc<Senders>,
    process: Process,
    number: u64,
}

impl Senders {
    /// Nobody yet. `channel` is to be nobody else's.
    pub(super) fn new(channel: Box<str>) -> Self {
        Self { channel, wanted: AtomicBool::new(false), book: Mutex::default() }
    }

    /// The channel of the marks.
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// Somebody listens: from now on it is noted who notifies.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Notes that a session, which its client knows by this number, may notify from a backend.
    pub fn note(self: &Arc<Self>, process: Process, client: i32) -> Option<Noted> {
        if !self.wanted.load(Ordering::Relaxed) {
            return None;
        }
        let mut book = self.book();
        book.sweep(clock::now());
        book.last += 1;
        let number = book.last;
        let notes = book.notes.entry(process).or_default();
        let behind = notes.back().and_then(|note| match &note.holds {
            _ if note.client == client => note.behind,
            Holds::Now => Some(clock::now()),
            Holds::Left { at, .. } => Some(*at),
        });
        while notes.len() >= NOTES_MAX || notes.front().is_some_and(Note::is_over) {
            notes.pop_front();
        }
        notes.push_back(Note { number, client, behind, holds: Holds::Now });
        Some(Noted { senders: Arc::clone(self), process, number })
    }

    /// The number by which the client is known that alone can have notified from a backend since
    /// then; `None` if there were several.
    pub fn only_one(&self, process: Process, since: Moment) -> Option<i32> {
        let now = clock::now();
        let book = self.book();
        let note = book.notes.get(&process)?.back().filter(|note| note.is_told(now))?;
        // What is older may have been thrown away.
        let alone = note.behind.is_none_or(|left| left <= since) && now.since(since) < HEARD_WITHIN;
        alone.then_some(note.client)
    }

    /// The number by which the client is known that notified from a backend what this listener has
    /// heard just now.
    pub(super) fn heard_by(&self, listener: u64, process: Process) -> Option<i32> {
        let now = clock::now();
        let book = self.book();
        let notes = book.notes.get(&process)?;
        let mut those = notes.iter().filter(|note| note.is_told(now) && note.is_ahead_of(listener));
        those.next().map(|note| note.client)
    }

    /// This listener hears every mark that is committed from now on in its database.
    pub(super) fn enter(&self, listener: u64, database: Arc<str>) {
        self.want();
        self.book().listeners.insert(listener, database);
    }

    /// This listener hears no more.
    pub(super) fn leave(&self, listener: u64) {
        let mut book = self.book();
        book.listeners.remove(&listener);
        for note in book.notes.values_mut().flatten() {
            note.was_heard_by(listener);
        }
    }

    /// This listener has heard a mark.
    pub(super) fn pass(&self, listener: u64, process: Process, mark: &[u8]) {
        let number = std::str::from_utf8(mark).ok().and_then(|mark| mark.parse::<u64>().ok());
        let Some(number) = number else { return };
        let mut book = self.book();
        let Some(notes) = book.notes.get_mut(&process) else { return };
        for note in notes.iter_mut().take_while(|note| note.number <= number) {
            note.was_heard_by(listener);
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    /// The session is about to leave the backend: the mark that is to be notified from there
    /// before anybody else does, if somebody listens in that database.
    pub fn mark(&self, database: &str) -> Option<String> {
        let mut book = self.senders.book();
        let listeners = book.listeners.iter().filter(|(_, there)| &***there == database);
        let unheard: BTreeSet<u64> = listeners.map(|(listener, _)| *listener).collect();
        let asks = !unheard.is_empty();
        book.end(self.process, self.number, &unheard);
        // It need not be safe, nor wait for a standby: what it marks is.
        asks.then(|| {
            let Self { senders, number, .. } = self;
            format!(
                "SET LOCAL synchronous_commit = off; NOTIFY \"{}\", '{number}'",
                senders.channel
            )
        })
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // Its backend was closed, or the mark was notified: then this changes nothing.
        let mut book = self.senders.book();
        let unheard = book.listeners.keys().copied().collect();
        book.end(self.process, self.number, &unheard);
    }
}

impl Book {
    fn end(&mut self, process: Process, number: u64, unheard: &BTreeSet<u64>) {
        let notes = self.notes.get_mut(&process).into_iter().flatten();
        for note in notes.filter(|note| note.number == number) {
            if matches!(note.holds, Holds::Now) {
                note.holds = Holds::Left { at: clock::now(), unheard: unheard.clone() };
            }
        }
    }

    /// Throws away what nobody can hear any more.
    fn sweep(&mut self, now: Moment) {
        if self.swept.is_some_and(|swept| now.since(swept) < HEARD_WITHIN) {
            return;
        }
        self.swept = Some(now);
        self.notes.retain(|_, notes| notes.back().is_some_and(|note| note.is_told(now)));
    }
}

impl Note {
    /// Whether what comes from its backend may be its own.
    fn is_told(&self, now: Moment) -> bool {
        match &self.holds {
            Holds::Now => true,
            Holds::Left { at, .. } => now.since(*at) < HEARD_WITHIN,
        }
    }

    /// Whether this listener may still hear what it notified.
    fn is_ahead_of(&self, listener: u64) -> bool {
        match &self.holds {
            Holds::Now => true,
            Holds::Left { unheard, .. } => unheard.contains(&listener),
        }
    }

    /// Whether every listener has heard all that it notified.
    fn is_over(&self) -> bool {
        match &self.holds {
            Holds::Now => false,
            Holds::Left { unheard, .. } => unheard.is_empty(),
        }
    }

    fn was_heard_by(&mut self, listener: u64) {
        if let Holds::Left { unheard, .. } = &mut self.holds {
            unheard.remove(&listener);
        }
    }
}

/// The process that a `NotificationResponse` names.
pub fn process_of(notification: &[u8]) -> Option<i32> {
    let named = notification.get(frame::HEADER..frame::HEADER + 4)?;
    Some(i32::from_be_bytes(named.try_into().ok()?))
}

/// The same notification under another process.
pub fn renamed(notification: &[u8], process: i32) -> Vec<u8> {
    let mut own = notification.to_vec();
    if let Some(named) = own.get_mut(frame::HEADER..frame::HEADER + 4) {
        named.copy_from_slice(&process.to_be_bytes());
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: Process = (ServerId(0), 4711);

    fn senders() -> Arc<Senders> {
        let senders = Arc::new(Senders::new("marks".into()));
        senders.enter(1, "app".into());
        senders
    }

    /// The number in a mark's text.
    fn number(mark: &str) -> Vec<u8> {
        mark.split('\'').nth(1).unwrap().as_bytes().to_vec()
    }

    #[test]
    fn until_its_mark_is_heard_what_comes_is_the_earlier_holders() {
        let senders = senders();
        let first = senders.note(BACKEND, 100).unwrap();
        assert_eq!(senders.heard_by(1, BACKEND), Some(100));
        let mark = first.mark("app").unwrap();
        drop(first);
        let second = senders.note(BACKEND, 200).unwrap();
        assert_eq!(senders.heard_by(1, BACKEND), Some(100), "it is behind");
        senders.pass(1, BACKEND, &number(&mark));
        assert_eq!(senders.heard_by(1, BACKEND), Some(200));
        assert_eq!(senders.heard_by(1, (ServerId(1), 4711)), None, "of another server");
        drop(second);
    }

    #[test]
    fn who_hears_no_marks_is_told_nobody_rather_than_the_wrong_one() {
        let senders = senders();
        let before = clock::now();
        let first = senders.note(BACKEND, 100).unwrap();
        assert_eq!(senders.only_one(BACKEND, before), Some(100));
        drop(first);
        assert_eq!(senders.only_one(BACKEND, before), Some(100), "it has just left");
        let between = clock::now();
        let second = senders.note(BACKEND, 200).unwrap();
        assert_eq!(senders.only_one(BACKEND, before), None, "it may be the first one's");
        drop(second);
        let behind = clock::now();
        for _ in 0..2 {
            let _again = senders.note(BACKEND, 300).unwrap();
            assert_eq!(senders.only_one(BACKEND, between), None);
            assert_eq!(senders.only_one(BACKEND, behind), Some(300));
        }
    }

    #[test]
    fn each_listener_is_as_far_as_it_is() {
        let senders = senders();
        senders.enter(2, "app".into());
        senders.enter(3, "other".into());
        let first = senders.note(BACKEND, 100).unwrap();
        let mark = first.mark("app").unwrap();
        drop(first);
        let _second = senders.note(BACKEND, 200).unwrap();
        senders.pass(1, BACKEND, &number(&mark));
        assert_eq!(senders.heard_by(1, BACKEND), Some(200));
        assert_eq!(senders.heard_by(2, BACKEND), Some(100));
        senders.leave(2);
        let notes = |senders: &Senders| senders.book().notes.values().map(VecDeque::len).sum();
        let before: usize = notes(&senders);
        let _third = senders.note(BACKEND, 300).unwrap();
        assert_eq!((before, notes(&senders)), (2, 2), "what all have heard is thrown away");
    }

    #[test]
    fn who_comes_later_hears_nothing_of_who_has_left() {
        let senders = Arc::new(Senders::new("marks".into()));
        assert!(senders.note(BACKEND, 100).is_none(), "nobody listens");
        senders.want();
        let first = senders.note(BACKEND, 100).unwrap();
        assert_eq!(first.mark("app"), None, "nobody would hear it");
        drop(first);
        senders.enter(1, "app".into());
        let _second = senders.note(BACKEND, 200).unwrap();
        assert_eq!(senders.heard_by(1, BACKEND), Some(200));
    }

    #[test]
    fn the_notes_of_one_backend_are_bounded() {
        let senders = senders();
        for client in 0..2000 {
            let noted = senders.note(BACKEND, client).unwrap();
            drop(noted.mark("app"));
        }
        assert_eq!(senders.book().notes.get(&BACKEND).unwrap().len(), NOTES_MAX);
    }
}
