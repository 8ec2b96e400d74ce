//! What a group runs, and does not only prepare or bind: only then is a server asked for the right
//! to a statement, and does it anything.

use crate::session::Names;
use crate::sql::Facts;
use crate::wire::frame;
use crate::wire::frame::Cursor;
use crate::wire::frame::FrameError;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What is known of statements before a group.
pub struct Before<'a> {
    /// Those with names.
    pub names: &'a Names,
    /// The one without.
    pub unnamed: Option<&'a Arc<Facts>>,
    /// What a text is.
    pub examine: &'a mut dyn FnMut(&[u8]) -> Arc<Facts>,
}

impl fmt::Debug for Before<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Before").finish_non_exhaustive()
    }
}

/// A statement that is run; `None`: one that is not known, for it was bound by an earlier group.
pub type Run = Option<Arc<Facts>>;

/// What a group runs, in order. Takes as long as the group is: to be asked where it matters.
///
/// # Errors
/// [`FrameError`] if a message is not what the scan took it for, or was cut.
pub fn runs(group: &[u8], before: &mut Before<'_>) -> Result<Vec<Run>, FrameError> {
    let (mut parsed, mut bound) = (HashMap::<&[u8], Run>::new(), HashMap::<&[u8], Run>::new());
    let mut runs = Vec::new();
    let mut rest = group;
    while let Some(header) = frame::peek(rest)? {
        let message = rest.get(..header.total).unwrap_or(rest);
        rest = rest.get(message.len()..).unwrap_or(&[]);
        let mut body = Cursor::new(message);
        match header.tag {
            b'Q' => runs.push(Some((before.examine)(body.text()?))),
            b'F' => runs.push(None),
            b'P' => {
                let name = body.text()?;
                parsed.insert(name, Some((before.examine)(body.text()?)));
            }
            b'B' => {
                let portal = body.text()?;
                let name = body.text()?;
                let known = match parsed.get(name) {
                    Some(facts) => facts.clone(),
                    None if name.is_empty() => before.unnamed.cloned(),
                    None => before.names.get(name).map(|prepared| Arc::clone(&prepared.facts)),
                };
                bound.insert(portal, known);
            }
            b'C' => {
                let names = if body.byte()? == b'S' { &mut parsed } else { &mut bound };
                names.insert(body.text()?, None);
            }
            b'E' => runs.push(bound.get(body.text()?).cloned().flatten()),
            _ => {}
        }
    }
    Ok(runs)
}
