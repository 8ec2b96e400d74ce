//! Whether this proxy may act by itself: nobody else may be able to do the same.

use crate::failover::{Arming, Record, ServerView, Survey};
use crate::topology::ServerId;
use std::sync::Arc;

/// What `auto` lacks. `survey` is the last that was read of a server, however long ago.
///
/// Two proxies with a store each must never both decide: so this one must hold its lock on every
/// server that answers and on the recorded primary, on which it must have been until it was lost,
/// and must have seen no other there.
pub(super) fn arming(
    record: &Record,
    views: &[ServerView],
    survey: impl Fn(ServerId) -> Option<Arc<Survey>>,
) -> Arming {
    let mut lacking: Vec<Arc<str>> = Vec::new();
    for view in views {
        let counts = view.answer().is_some() || view.name == record.primary.server;
        if !counts {
            continue;
        }
        match survey(view.id) {
            None => lacking.push(format!("{} was not surveyed yet", view.name).into()),
            Some(survey) if !survey.locked => {
                lacking.push(format!("the lock on {} is another's", view.name).into());
            }
            Some(survey) if !survey.others.is_empty() => {
                lacking.push(
                    format!(
                        "{} other pgsteer is connected to {}: only one may decide",
                        survey.others.len(),
                        view.name
                    )
                    .into(),
                );
            }
            Some(_) => {}
        }
    }
    if lacking.is_empty() { Arming::Armed } else { Arming::Disarmed(lacking) }
}
