//! What SQL says of statements that were prepared by the protocol, by their client's names: for as
//! long as it speaks of them, the backend knows them by these.

use crate::session::build::Builder;
use crate::session::replies::Undo;
use crate::session::statements::is_ours_on_servers;
use crate::sql::{Count, Facts, Touches};
use crate::wire::frame::Cursor;
use crate::wire::frame::FrameError;
use std::collections::HashSet;
use std::sync::Arc;

impl Builder<'_> {
    /// What is bound may have been prepared long ago. Several statements in one text never were.
    pub(super) fn lend_to_bound(
        &mut self,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let mut cursor = Cursor::new(message);
        cursor.text()?;
        let name = cursor.text()?;
        let touches =
            |facts: &Arc<Facts>| facts.count() == Count::One && !facts.prepared().is_empty();
        let facts = if name.is_empty() {
            self.unnamed.as_ref().map(|unnamed| &unnamed.facts)
        } else {
            self.names.get(name).map(|statement| &statement.facts)
        };
        if let Some(facts) = facts.filter(|facts| touches(facts)).map(Arc::clone) {
            self.lend_names(&facts, out);
        }
        Ok(())
    }

    /// `DEALLOCATE name` as SQL means the client's own statement, of which the backend does not
    /// know by that name: it is given an empty one to take away. So it is for `PREPARE name`, which
    /// is to fail. Where the same text runs it, it was lent already.
    ///
    /// What fails ahead of a `Query` would have the server pass over that, and nobody would be
    /// answered. This can't: the name is free.
    pub(super) fn lend_names(&mut self, facts: &Facts, out: &mut Vec<u8>) {
        if facts.prepared().is_empty() {
            return;
        }
        let touched = |how: Touches| facts.prepared().iter().filter(move |(it, _)| *it == how);
        let runs: HashSet<&[u8]> = touched(Touches::Runs).map(|(_, name)| &**name).collect();
        let mut given: HashSet<&[u8]> = HashSet::new();
        for (touches, name) in facts.prepared() {
            if is_ours_on_servers(name) || self.names.get(name).is_none() {
                continue;
            }
            let (undo, before) = match touches {
                // It was lent before all this.
                Touches::Runs => continue,
                Touches::Gives if !given.insert(name) => continue,
                Touches::Gives => (Undo::Nothing, None),
                Touches::Takes => {
                    let before = self.rename(name, None);
                    let undo =
                        Undo::Name { name: name.clone(), before: before.clone(), held: None };
                    (undo, before)
                }
            };
            // What was lent and is not taken away is found when the backend comes free.
            if !runs.contains(&**name) || !self.strays.is_lent(name) {
                self.close_foreign(name, out);
                self.parse_nothing(name, undo, out);
            }
            self.strays.give(name, before);
        }
    }
}
