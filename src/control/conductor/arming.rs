//! Whether this proxy may act by itself: nobody else may be able to do the same.

use crate::failover::{Arming, Record, ServerView, Survey};
use crate::topology::ServerId;
use std::sync::Arc;

/// What `auto` lacks. `survey` is the last that was read of a server, however long ago;
/// `prerequisites` is what those surveys miss, in words.
///
/// Two proxies with a store each must never both decide: so this one must hold its lock on every
/// server that answers and on the recorded primary, on which it must have been until it was lost,
/// and must have seen no other there. Locks and others are among the prerequisites.
pub(super) fn arming(
    record: &Record,
    views: &[ServerView],
    survey: impl Fn(ServerId) -> Option<Arc<Survey>>,
    prerequisites: Vec<Arc<str>>,
) -> Arming {
    let counts = |view: &&ServerView| view.answer().is_some() || view.name == record.primary.server;
    let unknown = views.iter().filter(counts).filter(|view| survey(view.id).is_none());
    let told = |view: &ServerView| {
        let name = &view.name;
        format!("{name} was not reached since pgsteer was started: another one may act there")
    };
    let mut lacking: Vec<Arc<str>> = unknown.map(|view| told(view).into()).collect();
    lacking.extend(prerequisites);
    if lacking.is_empty() { Arming::Armed } else { Arming::Disarmed(lacking) }
}
