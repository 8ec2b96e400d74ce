//! Statements that are for pgsteer and for no server, in a batch of the extended protocol.
//!
//! A `SHOW pgsteer.role` is prepared, bound, described and executed like any other statement, and
//! no server knows what to say to it. Its answers are composed here and put in at their places
//! among those of a server, if the batch needs one at all.
//!
//! Deliberately absent: what is asked and what is answered. The frontend knows both.

use crate::session::Names;
use crate::sql::Facts;
use crate::wire::frame;
use crate::wire::frame::Cursor;
use crate::wire::frame::FrameError;
use crate::wire::message;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What pgsteer says to a statement of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAnswer {
    /// What stands in `CommandComplete`.
    pub tag: &'static str,
    /// One row of one column, if it answers with a row.
    pub row: Option<OwnRow>,
}

impl OwnAnswer {
    /// Writes it as the answer to a `Query`, without its end.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(row) = &self.row {
            message::write_row_description(out, &[&row.title]);
            message::write_data_row(out, &[Some(row.value.as_bytes())]);
        }
        message::write_command_complete(out, self.tag);
    }
}

/// One row of one column of the type `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRow {
    /// The column's name.
    pub title: String,
    /// Its value.
    pub value: &'static str,
}

/// The portals of such statements, as long as their batch.
#[derive(Debug, Default)]
pub struct OwnPortals(Vec<OwnPortal>);

/// One of them.
#[derive(Debug)]
struct OwnPortal {
    name: Box<[u8]>,
    facts: Arc<Facts>,
    /// The format code of the result: a text looks the same in both.
    format: u16,
    /// Whether its row was fetched.
    fetched: Fetched,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetched {
    No,
    Yes,
}

/// What tells such statements, and answers them.
pub struct Own<'a> {
    /// What pgsteer says to a statement; `None`: it is none of its own.
    pub answer: &'a dyn Fn(&Facts) -> Option<OwnAnswer>,
    /// Their portals.
    pub portals: &'a mut OwnPortals,
}

/// Most portals; what is bound beyond goes to a server, which knows no answer.
const PORTALS_MAX: usize = 64;

/// What stands behind the text in a `Parse` that leaves all types to the server.
const NO_TYPES: &[u8] = &[0, 0];
/// `BindComplete`, whole.
const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// `CloseComplete`, whole.
const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// `NoData`, whole.
const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// `PortalSuspended`, whole.
const PORTAL_SUSPENDED: &[u8] = b"s\0\0\0\x04";
/// `ParameterDescription` of no parameters, whole.
const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";

impl fmt::Debug for Own<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Own").field("portals", &self.portals).finish_non_exhaustive()
    }
}

impl Own<'_> {
    /// Whether a `Parse` of this statement is kept from the server: it declares no parameters.
    pub(super) fn parses(&self, facts: &Facts, types: &[u8]) -> bool {
        types == NO_TYPES && (self.answer)(facts).is_some()
    }

    /// The answer to a `Bind`, if the statement is pgsteer's and the server need not see it.
    pub(super) fn bind(&mut self, facts: Option<&Arc<Facts>>, message: &[u8]) -> Option<Vec<u8>> {
        let mut cursor = Cursor::new(message);
        let portal = cursor.text().ok()?;
        self.portals.close(portal);
        let facts = facts.filter(|facts| (self.answer)(facts).is_some())?;
        cursor.text().ok()?;
        let format = format_of(cursor.rest()).filter(|_| self.portals.0.len() < PORTALS_MAX)?;
        let (name, facts) = (portal.into(), Arc::clone(facts));
        self.portals.0.push(OwnPortal { name, facts, format, fetched: Fetched::No });
        Some(BIND_COMPLETE.to_vec())
    }

    /// The answer to `Describe` of a statement.
    pub(super) fn describe_statement(&self, facts: &Facts) -> Option<Vec<u8>> {
        let answer = (self.answer)(facts)?;
        Some([NO_PARAMETERS, &described(&answer, 0)].concat())
    }

    /// The answer to `Describe` of a portal.
    pub(super) fn describe_portal(&self, name: &[u8]) -> Option<Vec<u8>> {
        let portal = self.portals.get(name)?;
        Some(described(&(self.answer)(&portal.facts)?, portal.format))
    }

    /// The answer to `Execute`.
    pub(super) fn execute(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut cursor = Cursor::new(message);
        let name = cursor.text().ok()?;
        let portal = self.portals.0.iter_mut().find(|portal| *portal.name == *name)?;
        let OwnAnswer { tag, row } = (self.answer)(&portal.facts)?;
        let mut out = Vec::new();
        let fetched = std::mem::replace(&mut portal.fetched, Fetched::Yes);
        if let Some(row) = row.filter(|_| fetched == Fetched::No) {
            message::write_data_row(&mut out, &[Some(row.value.as_bytes())]);
            // As a server does: with as many rows as were asked for it does not look further.
            if cursor.rest() == 1_u32.to_be_bytes() {
                out.extend_from_slice(PORTAL_SUSPENDED);
                return Some(out);
            }
        }
        message::write_command_complete(&mut out, tag);
        Some(out)
    }

    /// The answer to `Close` of a portal, if it was one of these.
    pub(super) fn close_portal(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let before = self.portals.0.len();
        self.portals.close(name);
        (self.portals.0.len() < before).then(|| CLOSE_COMPLETE.to_vec())
    }

    /// The answer to `Close` of a statement, if it is one of these.
    pub(super) fn close_statement(&self, facts: &Facts) -> Option<Vec<u8>> {
        (self.answer)(facts).map(|_| CLOSE_COMPLETE.to_vec())
    }
}

impl OwnPortals {
    /// The batch is over.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, name: &[u8]) -> Option<&OwnPortal> {
        self.0.iter().find(|portal| *portal.name == *name)
    }

    fn close(&mut self, name: &[u8]) {
        self.0.retain(|portal| *portal.name != *name);
    }
}

fn described(answer: &OwnAnswer, format: u16) -> Vec<u8> {
    let mut out = Vec::new();
    match &answer.row {
        Some(row) => message::write_row_description_in(&mut out, &[&row.title], format),
        None => out.extend_from_slice(NO_DATA),
    }
    out
}

/// The result's format in what follows the names in a `Bind` without parameters; `None` if it is
/// anything else.
fn format_of(rest: &[u8]) -> Option<u16> {
    let [0, 0, 0, 0, formats @ ..] = rest else { return None };
    match *formats {
        [0, 0] => Some(0),
        [0, 1, 0, format @ (0 | 1)] => Some(u16::from(format)),
        _ => None,
    }
}

/// How much of a group is for pgsteer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Nothing.
    Nothing,
    /// Some of it; the rest is for a server.
    Part,
    /// All of it: no server need see the group.
    All,
}

/// What a look at a group finds.
#[derive(Debug)]
pub struct Survey {
    /// How much of it is for pgsteer.
    pub extent: Extent,
    /// What of pgsteer's own it executes, in order.
    pub executed: Vec<Arc<Facts>>,
}

/// What is known of statements before a group.
pub struct Known<'a> {
    /// Those with names.
    pub names: &'a Names,
    /// The one without.
    pub unnamed: Option<&'a Arc<Facts>>,
    /// The portals of pgsteer's own.
    pub portals: &'a OwnPortals,
    /// What a text is.
    pub examine: &'a mut dyn FnMut(&[u8]) -> Arc<Facts>,
    /// Whether a statement is pgsteer's own.
    pub is_own: &'a dyn Fn(&Facts) -> bool,
}

impl fmt::Debug for Known<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Known").finish_non_exhaustive()
    }
}

/// Statements or portals by their names.
type ByName<'a> = HashMap<&'a [u8], Option<Arc<Facts>>>;

/// Looks through a group of the extended protocol, whose messages were framed before.
///
/// # Errors
/// [`FrameError`] if a message is not what the scan took it for.
pub fn survey(group: &[u8], known: &mut Known<'_>) -> Result<Survey, FrameError> {
    let (mut parsed, mut bound) = (ByName::new(), ByName::new());
    let mut executed = Vec::new();
    let (mut ours, mut others) = (0_u32, 0_u32);
    let mut rest = group;
    while let Some(header) = frame::peek(rest)? {
        let message = rest.get(..header.total).unwrap_or(rest);
        rest = rest.get(message.len()..).unwrap_or(&[]);
        let mut body = Cursor::new(message);
        let facts = match header.tag {
            b'P' => {
                let name = body.text()?;
                let facts = (known.examine)(body.text()?);
                let taken = !name.is_empty() && known.names.get(name).is_some();
                let facts = Some(facts).filter(|_| !taken && body.rest() == NO_TYPES);
                parsed.insert(name, facts.clone());
                facts
            }
            b'B' => {
                let portal = body.text()?;
                let facts = known.statement(body.text()?, &parsed);
                let room = known.portals.0.len() + bound.len() < PORTALS_MAX;
                let facts = facts.filter(|_| room && format_of(body.rest()).is_some());
                bound.insert(portal, facts.clone());
                facts
            }
            b'D' | b'C' if body.byte()? == b'S' => known.statement(body.text()?, &parsed),
            b'D' | b'C' => known.portal(body.text()?, &bound),
            b'E' => {
                let facts = known.portal(body.text()?, &bound);
                executed.extend(facts.clone().filter(|facts| (known.is_own)(facts)));
                facts
            }
            _ => continue,
        };
        match facts.filter(|facts| (known.is_own)(facts)) {
            Some(_) => ours += 1,
            None => others += 1,
        }
    }
    let extent = match (ours, others) {
        (0, _) => Extent::Nothing,
        (_, 0) => Extent::All,
        _ => Extent::Part,
    };
    Ok(Survey { extent, executed })
}

impl Known<'_> {
    fn statement(&self, name: &[u8], parsed: &ByName<'_>) -> Option<Arc<Facts>> {
        match parsed.get(name) {
            Some(facts) => facts.clone(),
            None if name.is_empty() => self.unnamed.cloned(),
            None => self.names.get(name).map(|prepared| Arc::clone(&prepared.facts)),
        }
    }

    fn portal(&self, name: &[u8], bound: &ByName<'_>) -> Option<Arc<Facts>> {
        match bound.get(name) {
            Some(facts) => facts.clone(),
            None => self.portals.get(name).map(|portal| Arc::clone(&portal.facts)),
        }
    }
}
