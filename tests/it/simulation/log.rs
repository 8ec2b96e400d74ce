//! The write-ahead log of a fake server: records that know who wrote them.
//!
//! A commit has an identity, so that a checker can ask whether *this* commit is there; numbers
//! alone let another's fifth record pass for ours.

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Nobody waits for it.
    Filler,
    /// A client's commit.
    Write(u32),
}

/// One record. Equal on two servers only if it is the same record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it ends.
    pub end: u64,
    /// On which branch it was written, and by whom.
    pub branch: (u32, usize),
    pub content: Content,
}

/// A log, and the branches that lead to its end.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub entries: Vec<Entry>,
    /// Bytes of one more record, of which the end is missing.
    pub partial: u64,
    pub timeline: u32,
    /// Where each earlier branch was left, oldest first.
    pub forks: Vec<(u32, u64)>,
}

/// Where every log begins.
pub(super) const BEGIN: u64 = 10_000;
/// Bytes in a segment: the position of a new stream begins at one.
const SEGMENT: u64 = 2_000;

impl Log {
    pub(super) fn new() -> Self {
        let first = Entry { end: BEGIN, branch: (1, 0), content: Content::Filler };
        Self { entries: vec![first], partial: 0, timeline: 1, forks: Vec::new() }
    }

    /// The end of the last whole record.
    pub(super) fn whole(&self) -> u64 {
        self.entries.last().map_or(BEGIN, |entry| entry.end)
    }

    /// Up to where bytes were received.
    pub(super) fn end(&self) -> u64 {
        self.whole() + self.partial
    }

    pub(super) fn append(&mut self, content: Content, bytes: u64, server: usize) -> u64 {
        let end = self.whole() + bytes;
        self.entries.push(Entry { end, branch: (self.timeline, server), content });
        end
    }

    /// Takes over what `source` held up to there; false if this is not the beginning of its log.
    pub(super) fn receive(&mut self, source: &Self, upto: u64) -> bool {
        let (held, before) = (self.entries.len(), self.end());
        if source.entries.get(held - 1) != self.entries.last() {
            return false;
        }
        let more = source.entries.iter().skip(held).take_while(|entry| entry.end <= upto);
        self.entries.extend(more);
        self.partial = upto.max(before).saturating_sub(self.whole());
        true
    }

    /// Where the segment begins in which the log ends.
    pub(super) fn segment(&self) -> u64 {
        self.end() / SEGMENT * SEGMENT
    }

    /// The next branch begins behind the last whole record.
    pub(super) fn fork(&mut self) {
        self.partial = 0;
        self.forks.push((self.timeline, self.whole()));
        self.timeline += 1;
    }

    /// Where that branch was left on the way to this log's end.
    pub(super) fn left(&self, timeline: u32) -> Option<u64> {
        self.forks.iter().find(|(known, _)| *known == timeline).map(|(_, at)| *at)
    }

    pub(super) fn holds(&self, id: u32) -> bool {
        // What is asked for is mostly new.
        self.entries.iter().rev().any(|entry| entry.content == Content::Write(id))
    }

    /// Whether all of this is the beginning of the other.
    pub(super) fn leads_to(&self, other: &Self) -> bool {
        other.entries.get(self.entries.len() - 1) == self.entries.last()
    }
}
