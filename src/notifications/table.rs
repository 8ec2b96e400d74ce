//! Who listens to what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// The name of a channel.
pub(super) type Channel = Box<str>;

/// What an ear is told.
#[derive(Debug, Clone)]
pub enum Hearing {
    /// A `NotificationResponse`, as the server sent it.
    Message(Arc<[u8]>),
    /// The listener was away for a while: something may be missing.
    Gap,
}

/// What the connection is to listen to from now on, and to no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) listen: Vec<Channel>,
    pub(super) unlisten: Vec<Channel>,
}

/// Who listens to what, on one connection.
#[derive(Debug, Default)]
pub(super) struct Table {
    members: BTreeMap<u64, Member>,
    channels: BTreeMap<Channel, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Member {
    ear: mpsc::Sender<Hearing>,
    channels: BTreeSet<Channel>,
    missed: Missed,
}

/// Whether the connection was lost while the member listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missed {
    No,
    Perhaps,
}

impl Table {
    /// This member listens to exactly these.
    pub(super) fn follow(
        &mut self,
        id: u64,
        ear: mpsc::Sender<Hearing>,
        channels: BTreeSet<Channel>,
    ) -> Change {
        let mut change = Change::default();
        for channel in &channels {
            let hear = self.channels.entry(channel.clone()).or_default();
            if hear.is_empty() {
                change.listen.push(channel.clone());
            }
            hear.insert(id);
        }
        let before = self.members.remove(&id).map(|before| before.channels).unwrap_or_default();
        self.forget(id, before.difference(&channels), &mut change);
        self.members.insert(id, Member { ear, channels, missed: Missed::No });
        change
    }

    /// Forgets those who are gone.
    pub(super) fn sweep(&mut self) -> Change {
        let gone = self.members.iter().filter(|(_, member)| member.ear.is_closed());
        let gone: Vec<u64> = gone.map(|(id, _)| *id).collect();
        self.leave(&gone)
    }

    /// Puts a message into the ears of those who listen to its channel. One whose ear is full
    /// loses it.
    pub(super) fn deliver(&mut self, channel: &str, message: &Arc<[u8]>) -> Change {
        let Some(hear) = self.channels.get(channel) else { return Change::default() };
        let mut gone = Vec::new();
        for id in hear {
            let Some(member) = self.members.get(id) else { continue };
            match member.ear.try_send(Hearing::Message(Arc::clone(message))) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => gone.push(*id),
            }
        }
        self.leave(&gone)
    }

    /// The connection is lost.
    pub(super) fn lose(&mut self) {
        for member in self.members.values_mut() {
            member.missed = Missed::Perhaps;
        }
    }

    /// The connection stands again, and listens to everything: who listened before is told that
    /// something may be missing.
    pub(super) fn resume(&mut self) {
        for member in self.members.values_mut() {
            if std::mem::replace(&mut member.missed, Missed::No) == Missed::Perhaps {
                // One whose ear is full or gone is found at the next message, or swept.
                drop(member.ear.try_send(Hearing::Gap));
            }
        }
    }

    /// Everything that is listened to.
    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.keys()
    }

    /// Whether nobody listens.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn leave(&mut self, gone: &[u64]) -> Change {
        let mut change = Change::default();
        for id in gone {
            if let Some(member) = self.members.remove(id) {
                self.forget(*id, member.channels.iter(), &mut change);
            }
        }
        change
    }

    fn forget<'a>(
        &mut self,
        id: u64,
        channels: impl Iterator<Item = &'a Channel>,
        change: &mut Change,
    ) {
        for channel in channels {
            let Some(hear) = self.channels.get_mut(channel) else { continue };
            hear.remove(&id);
            if hear.is_empty() {
                self.channels.remove(channel);
                change.unlisten.push(channel.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(channels: &[&str]) -> BTreeSet<Channel> {
        channels.iter().map(|channel| Channel::from(*channel)).collect()
    }

    fn change(listen: &[&str], unlisten: &[&str]) -> Change {
        let boxed = |names: &[&str]| names.iter().map(|name| Channel::from(*name)).collect();
        Change { listen: boxed(listen), unlisten: boxed(unlisten) }
    }

    fn message() -> Arc<[u8]> {
        Arc::from(b"A".as_slice())
    }

    fn heard(ear: &mut mpsc::Receiver<Hearing>) -> Vec<&'static str> {
        let mut heard = Vec::new();
        while let Ok(hearing) = ear.try_recv() {
            heard.push(match hearing {
                Hearing::Message(_) => "message",
                Hearing::Gap => "gap",
            });
        }
        heard
    }

    #[test]
    fn a_channel_is_listened_to_while_anybody_does() {
        let mut table = Table::default();
        let (first, mut one) = mpsc::channel(8);
        let (second, two) = mpsc::channel(8);
        assert_eq!(table.follow(1, first.clone(), set(&["a", "b"])), change(&["a", "b"], &[]));
        assert_eq!(table.follow(2, second, set(&["b", "c"])), change(&["c"], &[]));
        assert_eq!(table.follow(1, first, set(&["b"])), change(&[], &["a"]));
        assert_eq!(table.deliver("a", &message()), Change::default());
        assert_eq!(table.deliver("b", &message()), Change::default());
        assert_eq!(heard(&mut one), ["message"], "of its own channels alone");
        drop(two);
        assert_eq!(table.sweep(), change(&[], &["c"]));
        drop(one);
        assert_eq!(table.deliver("b", &message()), change(&[], &["b"]));
        assert!(table.is_empty() && table.channels().next().is_none());
    }

    #[test]
    fn who_does_not_empty_its_ear_loses_it_and_nobody_else_does() {
        let mut table = Table::default();
        let (slow, mut behind) = mpsc::channel(1);
        let (quick, mut ahead) = mpsc::channel(8);
        table.follow(1, slow, set(&["a"]));
        table.follow(2, quick, set(&["a"]));
        table.deliver("a", &message());
        assert_eq!(table.deliver("a", &message()), Change::default(), "one still listens");
        assert_eq!(heard(&mut ahead), ["message", "message"]);
        assert_eq!(heard(&mut behind), ["message"]);
        assert!(behind.is_closed(), "so that its session knows");
    }

    #[test]
    fn only_who_listened_before_is_told_of_a_gap() {
        let mut table = Table::default();
        let (before, mut one) = mpsc::channel(8);
        let (since, mut two) = mpsc::channel(8);
        table.follow(1, before, set(&["a"]));
        table.lose();
        table.follow(2, since, set(&["a"]));
        table.resume();
        table.resume();
        assert_eq!((heard(&mut one), heard(&mut two)), (vec!["gap"], vec![]));
    }
}
