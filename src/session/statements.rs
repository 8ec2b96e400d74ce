//! Prepared statements of the protocol, for sessions that change backends.
//!
//! A client's `Parse` with a name is kept, with its text, under a name of ours that is the same
//! for every session that prepares the same text with the same parameter types, under settings
//! by which it reads the same: `'2024-01-01 00:00'::timestamptz` is another moment in another
//! time zone, and the server keeps the one that it read when the statement was prepared. A backend
//! remembers which of our names it holds; what it lacks is parsed ahead of the message that
//! needs it. The client's own names never reach a pooled backend, so two sessions can't meet.
//!
//! Deliberately absent: `PREPARE` in SQL. It pins the session instead. As to a server the names of
//! both are the same, a backend is given the client's own for a while where SQL speaks of it.

use crate::session::Settings;
use crate::sql::Facts;
use crate::wire::frame;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A statement as a client parsed it, shared by all who parsed the same.
#[derive(Debug)]
pub struct Prepared {
    /// Ours alone; the name on the servers is made of it.
    id: u64,
    /// What follows the name in `Parse`: the text, its zero, and the parameter types.
    body: Box<[u8]>,
    /// How the text is read where it is parsed, and what the database is like there; `None`: in a
    /// way of one backend's own, and nobody else is given it.
    sense: Option<(Box<str>, u64)>,
    /// What the statement is.
    pub facts: Arc<Facts>,
}

/// How a backend reads a text now.
#[derive(Debug, Clone, Copy)]
pub enum Reading<'a> {
    /// As these settings say.
    By(&'a Settings),
    /// As settings say that are not known before the transaction ends.
    Unknown,
}

/// The names on the servers begin so.
const PREFIX: &[u8] = b"pgsteer_";

/// Appends a name of the client's that stands for nothing, so that the server says so: one that
/// could be ours is changed to what no statement of ours is called.
pub(super) fn write_foreign_name(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(name);
    if is_ours_on_servers(name) {
        out.push(b' ');
    }
}

/// The first name of ours in a text: where it stands, and which statement's it is.
pub fn find_ours(text: &[u8]) -> Option<(Range<usize>, u64)> {
    let from = text.windows(PREFIX.len()).position(|part| part == PREFIX)?;
    let digits = text.get(from + PREFIX.len()..)?;
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let to = from + PREFIX.len() + digits;
    let id = std::str::from_utf8(text.get(from + PREFIX.len()..to)?).ok()?.parse().ok()?;
    Some((from..to, id))
}

/// Whether a statement of ours could have this name on the servers.
pub fn is_ours_on_servers(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|number| number.first().is_some_and(u8::is_ascii_digit))
}

impl Prepared {
    /// Appends the name that the statement has on every backend.
    pub fn write_name(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFIX);
        let mut digits = [0_u8; 20];
        let mut rest = self.id;
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            used += 1;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or(&[]));
    }

    /// The name that it has on every backend.
    pub fn name_on_servers(&self) -> String {
        let mut name = Vec::new();
        self.write_name(&mut name);
        String::from_utf8_lossy(&name).into_owned()
    }

    /// Appends a `Parse` that makes a backend hold the statement under our name.
    pub fn write_parse(&self, out: &mut Vec<u8>) {
        frame::write(out, b'P', |out| {
            self.write_name(out);
            out.push(0);
            out.extend_from_slice(&self.body);
        });
    }

    /// Appends a `Parse` that makes a backend hold it under this name.
    pub fn write_parse_as(&self, name: &[u8], out: &mut Vec<u8>) {
        frame::write(out, b'P', |out| {
            frame::write_text(out, name);
            out.extend_from_slice(&self.body);
        });
    }

    /// Whether a backend that reads so would make the same of it.
    pub fn reads_alike(&self, reading: Reading<'_>) -> bool {
        match (&self.sense, reading) {
            (Some((own, _)), Reading::By(settings)) => **own == *settings.reading(),
            (None, _) | (_, Reading::Unknown) => false,
        }
    }

    /// Whether it is what a `Parse` of this body would make now, in a database of this shape.
    fn is(&self, body: &[u8], reading: Reading<'_>, shape: u64) -> bool {
        self.sense.as_ref().is_some_and(|(_, own)| *own == shape)
            && *self.body == *body
            && self.reads_alike(reading)
    }

    /// The same text, as it is read now.
    #[must_use]
    pub fn read_anew(
        &self,
        library: &Library,
        (reading, shape): (Reading<'_>, Option<u64>),
    ) -> Arc<Self> {
        library.intern(&self.body, &self.facts, (reading, shape))
    }

    /// Its text.
    pub fn text(&self) -> Option<&[u8]> {
        self.body.split(|byte| *byte == 0).next()
    }

    /// What tells it from others on a backend.
    pub const fn id(&self) -> u64 {
        self.id
    }
}

/// All statements that any session holds, each once. Touched only when a client parses a named
/// statement, so one lock serves all shards.
#[derive(Debug, Default)]
pub struct Library {
    next: AtomicU64,
    /// Guards the index; a statement lives as long as a session holds it.
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    /// By their reading, [`NOT_UTF8`], the shape and their body.
    statements: HashMap<Box<[u8]>, Weak<Prepared>>,
    /// How many entries the index had after it was last swept.
    swept_at: usize,
}

impl Library {
    /// The statement with this body that is read so in a database of this shape, made if nobody
    /// holds it. Without a shape it is nobody else's; nor is one that tells the time, whose
    /// session takes it along.
    pub fn intern(
        &self,
        body: &[u8],
        facts: &Arc<Facts>,
        (reading, shape): (Reading<'_>, Option<u64>),
    ) -> Arc<Prepared> {
        let (Reading::By(settings), Some(shape)) = (reading, shape) else {
            return self.make(body, facts, None);
        };
        let reading = settings.reading();
        if facts.tells_the_time() {
            return self.make(body, facts, Some((reading.into(), shape)));
        }
        let key = [reading.as_bytes(), &[NOT_UTF8], &shape.to_be_bytes(), body].concat();
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = index.statements.get(&*key).and_then(Weak::upgrade) {
            return known;
        }
        // Dead entries are swept when the index has doubled: amortised, each costs once.
        if index.statements.len() > 2 * index.swept_at + 1024 {
            index.statements.retain(|_, held| held.strong_count() > 0);
            index.swept_at = index.statements.len();
        }
        let prepared = self.make(body, facts, Some((reading.into(), shape)));
        index.statements.insert(key.into(), Arc::downgrade(&prepared));
        prepared
    }

    fn make(
        &self,
        body: &[u8],
        facts: &Arc<Facts>,
        sense: Option<(Box<str>, u64)>,
    ) -> Arc<Prepared> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(Prepared { id, body: body.into(), sense, facts: Arc::clone(facts) })
    }
}

/// The statements without a name that a shard was asked for last, to be found again without a
/// lock: clients send the same few over and over. What comes once only is never prepared for
/// others, or a client that writes its values into the text would drive out everybody's.
#[derive(Debug)]
pub struct Recall {
    known: [Option<Arc<Prepared>>; PLACES],
    /// Hashes of bodies that came once.
    seen: [u64; PLACES],
}

impl Default for Recall {
    fn default() -> Self {
        Self { known: [const { None }; PLACES], seen: [0; PLACES] }
    }
}

/// How many are kept.
const PLACES: usize = 256;

impl Recall {
    /// As [`Library::intern`] says, for what came before.
    pub(super) fn intern(
        &mut self,
        library: &Library,
        (body, facts): (&[u8], &Arc<Facts>),
        (reading, shape): (Reading<'_>, u64),
    ) -> Option<Arc<Prepared>> {
        let hash = hash(body);
        let [place, ..] = hash.to_be_bytes();
        let place = usize::from(place);
        let (known, seen) = (self.known.get_mut(place)?, self.seen.get_mut(place)?);
        if let Some(known) = known.as_ref().filter(|known| known.is(body, reading, shape)) {
            return Some(Arc::clone(known));
        }
        if std::mem::replace(seen, hash) != hash {
            return None;
        }
        Some(Arc::clone(known.insert(library.intern(body, facts, (reading, Some(shape))))))
    }
}

/// Tells texts apart, if not for certain.
fn hash(body: &[u8]) -> u64 {
    let add = |all: u64, word: u64| (all.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = body.as_chunks::<8>();
    let all = words.iter().fold(1, |all, word| add(all, u64::from_le_bytes(*word)));
    rest.iter().fold(all, |all, byte| add(all, u64::from(*byte)))
}

/// Parts a reading from what follows it: no reading holds it.
const NOT_UTF8: u8 = 0xFF;

/// The statements that one client has prepared, by the client's names; `""` is the unnamed one.
/// Most idle clients have none: those take no room for a table.
#[derive(Debug, Default)]
pub struct Names(Option<Box<Named>>);

#[derive(Debug, Default)]
struct Named {
    all: HashMap<Box<[u8]>, Arc<Prepared>>,
    /// What they take.
    bytes: usize,
}

/// How much may be kept of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepLimits {
    /// Named prepared statements.
    pub statements: usize,
    /// Bytes of these and of its settings.
    pub memory: usize,
}

impl Default for KeepLimits {
    /// Whatever it likes.
    fn default() -> Self {
        Self { statements: usize::MAX, memory: usize::MAX }
    }
}

/// What an entry takes beside its name and its text, in bytes; about.
pub(super) const ENTRY: usize = 200;

pub(super) fn weight(name: &[u8], statement: &Prepared) -> usize {
    ENTRY + name.len() + statement.body.len()
}

impl Names {
    /// The statement with this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.0.as_ref()?.all.get(name)
    }

    /// The name of the statement with this id.
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        let mut named = self.0.as_ref()?.all.iter();
        named.find(|(_, statement)| statement.id == id).map(|(name, _)| &**name)
    }

    /// Gives a statement a name; returns the one that had it.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Prepared>) -> Option<Arc<Prepared>> {
        let named = self.0.get_or_insert_default();
        named.bytes += weight(name, &statement);
        let before = named.all.insert(name.into(), statement);
        named.bytes -= before.as_ref().map_or(0, |before| weight(name, before));
        before
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        let named = self.0.as_mut()?;
        let before = named.all.remove(name);
        named.bytes -= before.as_ref().map_or(0, |before| weight(name, before));
        before
    }

    /// Forgets all, as `DISCARD ALL` and `DEALLOCATE ALL` do.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Every name.
    pub fn all(&self) -> Vec<Box<[u8]>> {
        self.0.iter().flat_map(|named| named.all.keys().cloned()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |named| named.all.len())
    }

    /// What they take, in bytes, as if nobody shared them.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |named| named.bytes)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The statements that one backend holds under our names, oldest first. What a backend holds
/// stays in the library, so that the next client that parses the same finds it.
#[derive(Debug, Default)]
pub struct Held {
    ids: HashSet<u64>,
    order: VecDeque<Arc<Prepared>>,
}

/// Most statements that a backend holds; one more closes the oldest.
const HELD_MAX: usize = 500;

impl Held {
    /// Whether the backend holds it.
    pub fn contains(&self, statement: &Prepared) -> bool {
        self.ids.contains(&statement.id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes note that it was parsed there. The oldest one beyond the bound is to be closed: its
    /// `Close` is appended to `out`, and it is returned.
    pub fn insert(
        &mut self,
        statement: &Arc<Prepared>,
        out: &mut Vec<u8>,
    ) -> Option<Arc<Prepared>> {
        if !self.ids.insert(statement.id) {
            return None;
        }
        self.order.push_back(Arc::clone(statement));
        if self.order.len() <= HELD_MAX {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.ids.remove(&oldest.id);
        frame::write(out, b'C', |out| {
            out.push(b'S');
            oldest.write_name(out);
            out.push(0);
        });
        Some(oldest)
    }

    /// Takes note that the backend still holds it: its `Close` was passed over.
    pub fn restore(&mut self, statement: Arc<Prepared>) {
        if self.ids.insert(statement.id) {
            self.order.push_front(statement);
        }
    }

    /// Takes note that the backend does not hold it after all.
    pub fn remove(&mut self, id: u64) {
        if self.ids.remove(&id) {
            self.order.retain(|held| held.id != id);
        }
    }

    /// Takes note that the backend holds these of them at most.
    pub fn keep_only(&mut self, there: &HashSet<u64>) {
        self.ids.retain(|id| there.contains(id));
        self.order.retain(|held| there.contains(&held.id));
    }

    /// Takes note that the backend holds nothing any more.
    pub fn take_all(&mut self) -> impl Iterator<Item = Arc<Prepared>> {
        self.ids.clear();
        std::mem::take(&mut self.order).into_iter()
    }

    /// The statements that take them all off the backend; `None`: it holds nothing.
    pub fn deallocation(&self) -> Option<String> {
        if self.order.is_empty() {
            return None;
        }
        let each = self.order.iter().map(|held| format!("DEALLOCATE {};", held.name_on_servers()));
        Some(each.collect())
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.order.clear();
    }
}
