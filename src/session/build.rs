//! A client's group, as the backend in hand must be asked it.
//!
//! Names of prepared statements are replaced by ours, what the backend lacks is parsed ahead,
//! what it holds is not parsed again. Everything else is copied byte for byte.

use crate::session::batch;
use crate::session::batch::Ends;
use crate::session::own::Own;
use crate::session::replies::{Expect, Replies, Undo};
use crate::session::statements::{
    Held, Library, Names, Prepared, Reading, Recall, write_foreign_name,
};
use crate::session::stray::Strays;
use crate::sql::Facts;
use crate::wire::frame;
use crate::wire::frame::Cursor;
use crate::wire::frame::FrameError;
use std::sync::Arc;

/// The statement that a client parsed without a name.
#[derive(Debug)]
pub struct Unnamed {
    /// What follows the name in its `Parse`; empty if it was too long to be kept.
    pub body: Vec<u8>,
    /// What it is.
    pub facts: Arc<Facts>,
    /// What it is among the statements that are shared, once that was asked for.
    pub prepared: Option<Arc<Prepared>>,
}

impl Unnamed {
    /// Its text, if it was kept.
    pub fn text(&self) -> Option<&[u8]> {
        let mut parts = self.body.split(|byte| *byte == 0);
        parts.next().filter(|_| !self.body.is_empty())
    }
}

/// Whether the backend in hand still holds the client's unnamed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnnamedThere {
    /// It was parsed there and nothing came between.
    Yes,
    /// It was parsed elsewhere, or something of ours came between.
    #[default]
    No,
}

/// What a session and its backend know of statements, for the time of one rewriting.
pub struct Builder<'a> {
    /// The client's names.
    pub names: &'a mut Names,
    /// The client's unnamed statement.
    pub unnamed: &'a mut Option<Unnamed>,
    /// Whether the backend holds it.
    pub unnamed_there: &'a mut UnnamedThere,
    /// What the backend holds under our names.
    pub held: &'a mut Held,
    /// What every session shares.
    pub library: &'a Library,
    /// How the backend reads a text now.
    pub reading: Reading<'a>,
    /// What its database is like; `None`: not as where others prepare, or it is not known.
    pub shape: &'a dyn Fn() -> Option<u64>,
    /// Where statements without a name are found again that others have prepared; `None`: each is
    /// prepared anew.
    pub recall: Option<&'a mut Recall>,
    /// What the backend will answer.
    pub replies: &'a mut Replies,
    /// Client names that were sent as they are and must be taken off the backend again.
    pub strays: &'a mut Strays,
    /// Whether the backend may hold what the client has prepared by SQL, under its own names.
    pub by_sql: PreparedBySql,
    /// Names that got another meaning, and the one that they had, in order.
    pub renamed: &'a mut Vec<Renamed>,
    /// The statements that are for pgsteer and for no server, if the batch has any.
    pub own: Option<Own<'a>>,
    /// How often named statements were at hand.
    pub tally: Tally,
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Builder").finish_non_exhaustive()
    }
}

/// How often a named statement was at hand on its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// The backend held it.
    pub hits: u32,
    /// It had to be sent.
    pub misses: u32,
    /// Another one had to give way.
    pub evicted: u32,
}

/// Whether a session may have prepared something by SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreparedBySql {
    /// It has not.
    Nothing,
    /// It has, or it may have.
    Perhaps,
}

/// A client's name, and what it stood for before.
pub type Renamed = (Box<[u8]>, Option<Arc<Prepared>>);

impl Builder<'_> {
    /// Appends to `out` what the backend is to be sent for `group`, which holds whole messages
    /// (the last one may be cut, see [`crate::session::End::Cut`]).
    ///
    /// `examine` gives the facts of a text; they are in the cache since the scan.
    ///
    /// # Errors
    /// [`FrameError`] if a message is not what the scan took it for.
    pub fn build(
        &mut self,
        group: &[u8],
        examine: &mut dyn FnMut(&[u8]) -> Arc<Facts>,
        out: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let mut at = 0;
        let runs = batch::executes(group);
        let mut ends = Ends::AsItIs;
        let mut bind: &[u8] = &[];
        while let Some(rest) = group.get(at..)
            && let Some(header) = frame::peek(rest)?
        {
            let message = rest.get(..header.total).unwrap_or(rest);
            at += message.len();
            ends = Ends::of(header.tag, header.total - message.len());
            if self.replies.is_skipping() && header.tag != b'S' {
                continue;
            }
            match header.tag {
                b'Q' | b'F' => {
                    let whole = message.len() == header.total;
                    if header.tag == b'Q' && whole && self.end_by_own(message, examine, out)? {
                        continue;
                    }
                    if header.tag == b'Q' && whole && !self.names.is_empty() {
                        let facts = examine(Cursor::new(message).text()?);
                        self.lend_names(&facts, out);
                    }
                    *self.unnamed_there = UnnamedThere::No;
                    if header.tag == b'Q' {
                        // It destroys the statement without a name, whatever comes of it.
                        *self.unnamed = None;
                    }
                    self.end_batch();
                    self.replies.expect(Expect::Ready);
                    out.extend_from_slice(message);
                }
                b'P' => self.parse(message, examine, out)?,
                b'B' => {
                    if runs && !self.names.is_empty() {
                        self.lend_to_bound(message, out)?;
                    }
                    self.bind(message, header.total, out)?;
                    bind = message;
                }
                b'D' => self.describe(message, out)?,
                b'C' => self.close(message, out)?,
                b'E' => {
                    let own = self.own.as_mut();
                    if let Some(answer) = own.and_then(|own| own.execute(message)) {
                        self.replies.expect(Expect::Own(answer, Undo::Nothing));
                    } else {
                        self.replies.expect(Expect::Execute);
                        out.extend_from_slice(message);
                        if group.get(at) != Some(&b'S') {
                            self.forget(bind, message)?;
                        }
                    }
                }
                b'S' => {
                    self.end_batch();
                    self.replies.expect_ready();
                    out.extend_from_slice(message);
                }
                _ => out.extend_from_slice(message),
            }
        }
        if ends == Ends::WithFlush && !self.replies.is_skipping() {
            out.extend_from_slice(frame::FLUSH);
        }
        Ok(())
    }

    /// A `Query` for pgsteer, which a server can't be sent: it ends there what was begun without
    /// `Sync`, as any does, and is answered when that is done.
    fn end_by_own(
        &mut self,
        message: &[u8],
        examine: &mut dyn FnMut(&[u8]) -> Arc<Facts>,
        out: &mut Vec<u8>,
    ) -> Result<bool, FrameError> {
        let Some(own) = &mut self.own else { return Ok(false) };
        let facts = examine(Cursor::new(message).text()?);
        let Some(answer) = (own.answer)(&facts) else { return Ok(false) };
        own.portals.clear();
        (*self.unnamed, *self.unnamed_there) = (None, UnnamedThere::No);
        let mut said = Vec::new();
        answer.write(&mut said);
        self.replies.expect(Expect::OwnReady(said));
        out.extend_from_slice(frame::SYNC);
        Ok(true)
    }

    fn parse(
        &mut self,
        message: &[u8],
        examine: &mut dyn FnMut(&[u8]) -> Arc<Facts>,
        out: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let mut cursor = Cursor::new(message);
        let name = cursor.text()?;
        let body = cursor.rest();
        if name.is_empty() {
            return self.parse_unnamed(message, body, examine, out);
        }
        let facts = examine(cursor.text()?);
        if self.names.get(name).is_some() {
            // The name is taken. The server's own error is wanted, so the name is made to be
            // taken there, too; it is cleared away before the backend rests.
            let mut stray = Vec::new();
            write_foreign_name(&mut stray, name);
            let own = self.own.as_ref().is_some_and(|own| own.parses(&facts, cursor.rest()));
            let body = if own { EMPTY_BODY } else { body };
            let both = [Expect::OwnParse(Undo::Nothing), Expect::Parse(Undo::Nothing)];
            for (expect, body) in both.into_iter().zip([EMPTY_BODY, body]) {
                self.replies.expect(expect);
                frame::write(out, b'P', |out| {
                    frame::write_text(out, &stray);
                    out.extend_from_slice(body);
                });
            }
            self.strays.give(&stray, None);
            return Ok(());
        }
        if self.by_sql == PreparedBySql::Perhaps {
            // If it is taken there, the server says so, and passes over the rest.
            let mut foreign = Vec::new();
            write_foreign_name(&mut foreign, name);
            self.parse_nothing(&foreign, Undo::Nothing, out);
            self.close_foreign(&foreign, out);
        }
        let statement = self.library.intern(body, &facts, (self.reading, (self.shape)()));
        let before = self.rename(name, Some(Arc::clone(&statement)));
        let name = name.into();
        let own = self.own.as_ref().is_some_and(|own| own.parses(&facts, cursor.rest()));
        if own || self.held.contains(&statement) {
            self.tally.hits += u32::from(!own);
            self.replies.expect(Expect::KnownParse(Undo::Name { name, before, held: None }));
            return Ok(());
        }
        self.hold(&statement, out);
        let held = Some(Arc::clone(&statement));
        self.replies.expect(Expect::Parse(Undo::Name { name, before, held }));
        statement.write_parse(out);
        Ok(())
    }

    fn parse_unnamed(
        &mut self,
        message: &[u8],
        body: &[u8],
        examine: &mut dyn FnMut(&[u8]) -> Arc<Facts>,
        out: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let text = Cursor::new(message);
        let whole = frame::peek(message)?.is_some_and(|header| header.total == message.len());
        let mut cursor = text;
        let facts = if whole {
            cursor.text()?;
            examine(cursor.text()?)
        } else {
            examine(b"\0")
        };
        let own = self.own.as_ref().filter(|_| whole);
        let own = own.is_some_and(|own| own.parses(&facts, cursor.rest()));
        let mut kept = self.unnamed.take().map_or_else(Vec::new, |unnamed| unnamed.body);
        kept.clear();
        if whole && body.len() <= UNNAMED_KEPT_MAX {
            kept.extend_from_slice(body);
        }
        let shared = if own || !whole { None } else { self.recall(body, &facts) };
        *self.unnamed = Some(Unnamed { body: kept, facts, prepared: shared.clone() });
        if let Some(statement) = shared {
            *self.unnamed_there = UnnamedThere::No;
            if self.held.contains(&statement) {
                self.tally.hits += 1;
                self.replies.expect(Expect::KnownParse(Undo::Unnamed { held: None }));
            } else {
                self.hold(&statement, out);
                let held = Some(Arc::clone(&statement));
                self.replies.expect(Expect::Parse(Undo::Unnamed { held }));
                statement.write_parse(out);
            }
            return Ok(());
        }
        if own {
            *self.unnamed_there = UnnamedThere::No;
            self.replies.expect(Expect::KnownParse(Undo::Unnamed { held: None }));
            return Ok(());
        }
        *self.unnamed_there = UnnamedThere::Yes;
        self.replies.expect(Expect::Parse(Undo::Unnamed { held: None }));
        out.extend_from_slice(message);
        Ok(())
    }

    /// The statement that others may have prepared of the same text, if it may be used here.
    fn recall(&mut self, body: &[u8], facts: &Arc<Facts>) -> Option<Arc<Prepared>> {
        let recall = self.recall.as_mut()?;
        if body.len() > RECALLED_MAX || !facts.means_the_same_again() {
            return None;
        }
        let shape = (self.shape)()?;
        recall.intern(self.library, (body, facts), (self.reading, shape))
    }

    fn bind(&mut self, message: &[u8], total: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let mut cursor = Cursor::new(message);
        let portal = cursor.text()?;
        let name = cursor.text()?;
        if self.own.is_some()
            && let facts = self.facts(name)
            && let Some(own) = &mut self.own
            && let Some(answer) = own.bind(facts.as_ref(), message.get(..total).unwrap_or(&[]))
        {
            self.replies.expect(Expect::Own(answer, Undo::Nothing));
            return Ok(());
        }
        let statement = self.there(name, out);
        self.replies.expect(Expect::Bind);
        let start = out.len();
        frame::write(out, b'B', |out| {
            frame::write_text(out, portal);
            write_name(out, statement.as_ref(), name);
            out.extend_from_slice(cursor.rest());
        });
        // A cut message keeps the length that it has with the bytes still to come.
        let missing = total.saturating_sub(message.len());
        frame::lengthen(out, start, missing);
        Ok(())
    }

    fn describe(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let mut cursor = Cursor::new(message);
        let of_statement = cursor.byte()? == b'S';
        let name = cursor.text()?;
        let answer = self.own.as_ref().and_then(|own| {
            if of_statement {
                own.describe_statement(&*self.facts(name)?)
            } else {
                own.describe_portal(name)
            }
        });
        if let Some(answer) = answer {
            self.replies.expect(Expect::Own(answer, Undo::Nothing));
            return Ok(());
        }
        if of_statement {
            let statement = self.there(name, out);
            frame::write(out, b'D', |out| {
                out.push(b'S');
                write_name(out, statement.as_ref(), name);
            });
        } else {
            out.extend_from_slice(message);
        }
        self.replies.expect(Expect::Describe);
        Ok(())
    }

    fn close(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let mut cursor = Cursor::new(message);
        let mut undo = Undo::Nothing;
        let of_statement = cursor.byte()? == b'S';
        let name = cursor.text()?;
        let facts = if of_statement && self.own.is_some() { self.facts(name) } else { None };
        let answer = self.own.as_mut().and_then(|own| {
            if of_statement { own.close_statement(&*facts?) } else { own.close_portal(name) }
        });
        if of_statement {
            if name.is_empty() {
                *self.unnamed = None;
            } else if let Some(before) = self.rename(name, None) {
                undo = Undo::Name { name: name.into(), before: Some(before), held: None };
            }
        }
        if let Some(answer) = answer {
            self.replies.expect(Expect::Own(answer, undo));
            return Ok(());
        }
        if of_statement {
            // The server does not know the client's name, and says "closed" to that, too.
            frame::write(out, b'C', |out| {
                out.push(b'S');
                write_name(out, None, name);
            });
        } else {
            out.extend_from_slice(message);
        }
        self.replies.expect(Expect::Close(undo));
        Ok(())
    }

    /// Has the backend hold nothing under this name.
    pub(super) fn parse_nothing(&mut self, name: &[u8], undo: Undo, out: &mut Vec<u8>) {
        self.replies.expect(Expect::OwnParse(undo));
        frame::write(out, b'P', |out| {
            frame::write_text(out, name);
            out.extend_from_slice(EMPTY_BODY);
        });
    }

    /// Takes this name off the backend, if it is there.
    pub(super) fn close_foreign(&mut self, name: &[u8], out: &mut Vec<u8>) {
        self.replies.expect(Expect::OwnClose(Undo::Nothing));
        frame::write(out, b'C', |out| {
            out.push(b'S');
            frame::write_text(out, name);
        });
    }

    /// Gives the client's name another meaning, or none; what it stood for.
    pub(super) fn rename(
        &mut self,
        name: &[u8],
        to: Option<Arc<Prepared>>,
    ) -> Option<Arc<Prepared>> {
        let before = match to {
            Some(statement) => self.names.insert(name, statement),
            None => self.names.remove(name),
        };
        self.renamed.push((name.into(), before.clone()));
        before
    }

    /// What this `Execute` runs, with more of its batch behind it, may have the server forget all
    /// statements: what is behind it is built for a backend that holds none. It is known if the
    /// `Bind` before it gave the portal; looking for an earlier one would take longer with each.
    fn forget(&mut self, bind: &[u8], message: &[u8]) -> Result<(), FrameError> {
        let bound = batch::bound(bind, Cursor::new(message).text()?)?;
        let facts = bound.and_then(|name| self.facts(name));
        if !facts.is_some_and(|facts| facts.deallocates_all()) {
            return Ok(());
        }
        let mut noted: Vec<Undo> = self.held.take_all().map(Undo::Evicted).collect();
        for name in self.names.all() {
            let before = self.rename(&name, None);
            noted.push(Undo::Name { name, before, held: None });
        }
        self.replies.expect(Expect::Forgotten(noted.into()));
        Ok(())
    }

    fn end_batch(&mut self) {
        if let Some(own) = &mut self.own {
            own.portals.clear();
        }
    }

    /// What the client's statement of this name is.
    fn facts(&self, name: &[u8]) -> Option<Arc<Facts>> {
        if name.is_empty() {
            return self.unnamed.as_ref().map(|unnamed| Arc::clone(&unnamed.facts));
        }
        self.names.get(name).map(|prepared| Arc::clone(&prepared.facts))
    }

    /// The statement to use in place of the client's name; `None`: as the client sent it.
    fn statement(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        if !name.is_empty() {
            let known = self.names.get(name).map(Arc::clone)?;
            if self.held.contains(&known) || known.reads_alike(self.reading) {
                return Some(known);
            }
            // Parsed here, it would not be what others know by that name of ours.
            let anew = known.read_anew(self.library, (self.reading, (self.shape)()));
            self.names.insert(name, Arc::clone(&anew));
            return Some(anew);
        }
        if *self.unnamed_there == UnnamedThere::Yes {
            return None;
        }
        let unnamed = self.unnamed.as_mut().filter(|unnamed| !unnamed.body.is_empty())?;
        if let Some(known) = &unnamed.prepared
            && (self.held.contains(known) || known.reads_alike(self.reading))
        {
            return Some(Arc::clone(known));
        }
        let sense = (self.reading, (self.shape)());
        let statement = self.library.intern(&unnamed.body, &unnamed.facts, sense);
        unnamed.prepared = Some(Arc::clone(&statement));
        Some(statement)
    }

    /// The same, with what the backend lacks sent ahead; and what it must not have taken away: the
    /// statement without a name that another session has left there.
    fn there(&mut self, name: &[u8], out: &mut Vec<u8>) -> Option<Arc<Prepared>> {
        let statement = self.statement(name);
        if let Some(statement) = &statement {
            self.ensure(statement, out);
        } else if name.is_empty() && *self.unnamed_there == UnnamedThere::No {
            self.close_foreign(name, out);
        }
        statement
    }

    /// Sends ahead what the backend lacks.
    fn ensure(&mut self, statement: &Arc<Prepared>, out: &mut Vec<u8>) {
        if self.held.contains(statement) {
            self.tally.hits += 1;
            return;
        }
        self.hold(statement, out);
        self.replies.expect(Expect::OwnParse(Undo::Held(Arc::clone(statement))));
        statement.write_parse(out);
    }

    fn hold(&mut self, statement: &Arc<Prepared>, out: &mut Vec<u8>) {
        self.tally.misses += 1;
        if let Some(oldest) = self.held.insert(statement, out) {
            self.tally.evicted += 1;
            self.replies.expect(Expect::OwnClose(Undo::Evicted(oldest)));
        }
    }
}

/// What follows the name in a `Parse` of nothing.
const EMPTY_BODY: &[u8] = &[0, 0, 0];

/// The longest unnamed statement that is kept for a `Bind` in a later group, in bytes.
const UNNAMED_KEPT_MAX: usize = 1024 * 1024;

/// The longest statement without a name that is found again, in bytes.
const RECALLED_MAX: usize = 16 * 1024;

/// Appends the statement's name on the servers, or, if there is none, the client's own.
fn write_name(out: &mut Vec<u8>, statement: Option<&Arc<Prepared>>, name: &[u8]) {
    match statement {
        Some(statement) => statement.write_name(out),
        None => write_foreign_name(out, name),
    }
    out.push(0);
}
