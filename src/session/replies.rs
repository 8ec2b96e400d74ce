//! Who owes which reply: what the server will answer to what was sent, in order.
//!
//! Most answers are the client's and pass. Some are to messages that we sent for it and are
//! swallowed; some the server will never give, because it holds the statement already, and are
//! put in at their place. After an error the server skips everything up to `Sync`, and so do the
//! expectations: what was noted of skipped messages is handed back to be undone.
//!
//! Source: PostgreSQL manual, 55.2.3 "Extended Query".

use crate::session::Prepared;
use crate::wire::frame;
use crate::wire::frame::TxStatus;
use std::collections::VecDeque;
use std::sync::Arc;

/// One answer that is due.
#[derive(Debug)]
pub enum Expect {
    /// To a client's `Parse`: `1`.
    Parse(Undo),
    /// To a `Parse` that we sent ahead: `1`, swallowed.
    OwnParse(Undo),
    /// To a client's `Parse` that was not sent, as the server holds the statement: nothing
    /// comes, and `1` is put in.
    KnownParse(Undo),
    /// To a message of the client's that is for pgsteer and was not sent: nothing comes, and this
    /// is put in.
    Own(Vec<u8>, Undo),
    /// To `Bind`: `2`.
    Bind,
    /// To `Describe`: `t` and then `T` or `n`, or only one of these.
    Describe,
    /// To `Execute`: rows, then `C`, `I`, `s`.
    Execute,
    /// Behind an `Execute` by which the server forgets all statements: nothing comes, and nothing
    /// is put in.
    Forgotten(Box<[Undo]>),
    /// To a client's `Close`: `3`.
    Close(Undo),
    /// To a `Close` that we sent: `3`, swallowed.
    OwnClose(Undo),
    /// To `Sync`, or to a whole `Query`: `Z`.
    Ready,
    /// To a `Sync` that was sent in the place of a `Query` for pgsteer: `Z`, with this put in
    /// before it unless the server comes to an error.
    OwnReady(Vec<u8>),
    /// To a `Query` of ours that must fail, to bring the client's transaction into the state that
    /// it was told of: swallowed, except `Z`.
    OwnFailure,
}

/// What was noted when a message was sent, in case the server never runs it.
#[derive(Debug)]
pub enum Undo {
    /// Nothing.
    Nothing,
    /// The backend was noted to hold this statement.
    Held(Arc<Prepared>),
    /// The backend was noted to hold this statement no more.
    Evicted(Arc<Prepared>),
    /// The statement without a name was noted to be another one. What it was is not kept; if the
    /// backend was noted to hold it by a name, `held` is that statement.
    Unnamed {
        /// What the backend was noted to hold.
        held: Option<Arc<Prepared>>,
    },
    /// The client's name was noted to stand for a statement; before it stood for `before`.
    /// If the backend was noted to hold it, too, `held` is that statement.
    Name {
        /// The client's name.
        name: Box<[u8]>,
        /// What it stood for.
        before: Option<Arc<Prepared>>,
        /// What the backend was noted to hold.
        held: Option<Arc<Prepared>>,
    },
}

/// What is to happen to a message of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It is the client's.
    Forward,
    /// It answers us.
    Swallow,
}

/// The server's answers can't be told apart any more: the backend must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {tag:?}, which nothing asked for")]
pub struct OutOfStep {
    /// The message's tag.
    pub tag: char,
}

/// The answers that one backend still owes.
#[derive(Debug, Default)]
pub struct Replies {
    due: Due,
    /// The server skips messages until `Sync`, which was not sent yet.
    skipping: bool,
    /// `Sync`s that a server in copy-in mode may pass over without an answer.
    voided: u32,
    /// Whether all answers are accounted for.
    account: Account,
}

/// Room for what is due, kept from one backend to the next.
#[derive(Debug, Default)]
pub struct Room(VecDeque<Expect>);

impl Room {
    /// Most answers that room is kept for: batches of more are seldom.
    const KEPT_MAX: usize = 256;

    /// Whether it is neither none nor too much.
    pub fn is_worth_keeping(&self) -> bool {
        (1..=Self::KEPT_MAX).contains(&self.0.capacity())
    }
}

/// What is due, in order, and how much of it is of the kinds that are asked for with each message:
/// a client may have a hundred thousand answers due.
#[derive(Debug, Default)]
struct Due {
    queue: VecDeque<Expect>,
    /// How many of them are [`Expect::Ready`].
    readies: usize,
    /// How many of them are [`Expect::KnownParse`].
    known: usize,
}

impl Due {
    fn push_back(&mut self, expect: Expect) {
        self.count(&expect, usize::wrapping_add);
        self.queue.push_back(expect);
    }

    fn push_front(&mut self, expect: Expect) {
        self.count(&expect, usize::wrapping_add);
        self.queue.push_front(expect);
    }

    fn pop_front(&mut self) -> Option<Expect> {
        let expect = self.queue.pop_front()?;
        self.count(&expect, usize::wrapping_sub);
        Some(expect)
    }

    fn pop_back(&mut self) -> Option<Expect> {
        let expect = self.queue.pop_back()?;
        self.count(&expect, usize::wrapping_sub);
        Some(expect)
    }

    /// Takes off what is due before the first `Z`, or everything.
    fn up_to_ready(&mut self) -> Vec<Expect> {
        let mut taken = Vec::new();
        while !matches!(self.queue.front(), None | Some(Expect::Ready | Expect::OwnReady(_))) {
            taken.extend(self.pop_front());
        }
        taken
    }

    /// Takes off every `Z` that is due; how many there were.
    fn forget_ready(&mut self) -> usize {
        let ends = |expect: &Expect| matches!(expect, Expect::Ready);
        self.queue.retain(|expect| !ends(expect));
        std::mem::take(&mut self.readies)
    }

    fn front(&self) -> Option<&Expect> {
        self.queue.front()
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn count(&mut self, expect: &Expect, change: fn(usize, usize) -> usize) {
        match expect {
            Expect::Ready => self.readies = change(self.readies, 1),
            Expect::KnownParse(_) => self.known = change(self.known, 1),
            Expect::Parse(_)
            | Expect::OwnParse(_)
            | Expect::Own(..)
            | Expect::Forgotten(_)
            | Expect::Bind
            | Expect::Describe
            | Expect::Execute
            | Expect::Close(_)
            | Expect::OwnClose(_)
            | Expect::OwnReady(_)
            | Expect::OwnFailure => {}
        }
    }
}

/// A walk through what is due, which takes nothing: for an answer that came in one piece.
#[derive(Debug)]
pub struct Walk<'a> {
    due: &'a VecDeque<Expect>,
    at: usize,
}

impl Walk<'_> {
    /// Whether this message is the client's as it is, and goes on with what is due.
    pub fn takes(&mut self, tag: u8) -> bool {
        match (self.due.get(self.at), tag) {
            (Some(Expect::Ready), b'T' | b'D' | b'C')
            | (Some(Expect::Execute), b'D')
            | (Some(Expect::Describe), b't') => true,
            (Some(Expect::Parse(_)), b'1')
            | (Some(Expect::Bind), b'2')
            | (Some(Expect::Describe), b'T' | b'n')
            | (Some(Expect::Execute), b'C') => {
                self.at += 1;
                true
            }
            _ => false,
        }
    }

    /// Whether a `Z` is all that is left.
    pub fn is_at_ready(&self) -> bool {
        self.at + 1 == self.due.len() && matches!(self.due.get(self.at), Some(Expect::Ready))
    }
}

/// Whether a server that seems to owe nothing may still send something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Account {
    /// It owes what is noted.
    #[default]
    Exact,
    /// A COPY failed with a `Sync` on its way that the server may have answered or passed over:
    /// the backend must not serve another session.
    Unsure,
}

/// What a `CommandComplete` means to whoever waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// A `Query` told of a statement: if it stands alone, it was committed before.
    Whole,
    /// A step of a batch was done: without a `COMMIT` of its own it is committed with the `Sync`,
    /// which was sent.
    OfStep,
    /// Likewise, and `Sync` was not sent: its client may wait for this.
    OfStepAlone,
}

impl Replies {
    /// Nothing is due, and there is room for what will be.
    pub fn within(room: Room) -> Self {
        Self {
            due: Due { queue: room.0, readies: 0, known: 0 },
            skipping: false,
            voided: 0,
            account: Account::default(),
        }
    }

    /// Takes the room; nothing is due any more.
    pub fn take_room(&mut self) -> Room {
        if !self.due.is_empty() {
            self.take_all();
        }
        Room(std::mem::take(&mut self.due.queue))
    }

    /// Notes that an answer is due.
    pub fn expect(&mut self, expect: Expect) {
        self.due.push_back(expect);
    }

    /// Whether everything was answered.
    pub fn is_settled(&self) -> bool {
        self.due.is_empty()
    }

    /// Whether a `Parse` is due that the server was not sent, as it holds the statement.
    pub const fn relies_on_held(&self) -> bool {
        self.due.known > 0
    }

    /// Whether the next answer is to a message by which the server plans a statement, and runs
    /// nothing yet.
    pub fn is_planning(&self) -> bool {
        matches!(self.due.front(), Some(Expect::Bind | Expect::Describe))
    }

    /// Whether the next answer is to a query of ours.
    pub fn is_ours_next(&self) -> bool {
        matches!(self.due.front(), Some(Expect::OwnFailure))
    }

    /// Whether the next `Z` ends an answer of ours.
    pub fn is_own_next(&self) -> bool {
        matches!(self.due.front(), Some(Expect::OwnReady(_)))
    }

    /// Takes the answer of ours that the next `Z` ends; from then on that is any other.
    pub fn take_own(&mut self) -> Option<Vec<u8>> {
        if !self.is_own_next() {
            return None;
        }
        let Some(Expect::OwnReady(answer)) = self.due.pop_front() else { return None };
        self.due.push_front(Expect::Ready);
        Some(answer)
    }

    /// To look whether an answer is all that is due; `None`: it can't be told by a walk.
    pub const fn walk(&self) -> Option<Walk<'_>> {
        if self.skipping || self.voided > 0 {
            return None;
        }
        Some(Walk { due: &self.due.queue, at: 0 })
    }

    /// All that was due has come.
    pub fn take_all(&mut self) {
        self.due.queue.clear();
        (self.due.readies, self.due.known) = (0, 0);
    }

    /// What the next `CommandComplete` means to whoever waits for it.
    pub fn success(&self) -> Success {
        match self.due.front() {
            Some(Expect::Execute) if self.due.readies > 0 => Success::OfStep,
            Some(Expect::Execute) => Success::OfStepAlone,
            _ => Success::Whole,
        }
    }

    /// Whether the server skips what is sent until the next `Sync`.
    pub const fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether all answers are accounted for.
    pub const fn account(&self) -> Account {
        self.account
    }

    /// The client's `Sync` was sent.
    pub fn expect_ready(&mut self) {
        if self.voided > 0 && self.skipping {
            self.account = Account::Unsure;
        }
        self.voided = 0;
        self.skipping = false;
        self.due.push_back(Expect::Ready);
    }

    /// Whether something must be put in before the next message of the server.
    pub fn puts_in_now(&self) -> bool {
        matches!(self.due.front(), Some(Expect::KnownParse(_) | Expect::Own(..)))
            || self.has_forgotten()
    }

    /// Whether the server has just forgotten all statements, which was reckoned with.
    pub fn has_forgotten(&self) -> bool {
        matches!(self.due.front(), Some(Expect::Forgotten(_)))
    }

    /// What must be put in now, before the next message of the server.
    pub fn put_in(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        while self.puts_in_now() {
            match self.due.pop_front() {
                Some(Expect::Own(answer, _)) => answers.extend_from_slice(&answer),
                Some(Expect::Forgotten(_)) => {}
                _ => answers.extend_from_slice(frame::PARSE_COMPLETE),
            }
        }
        answers
    }

    /// Takes the `Z` off that is due for a group of which no server has seen anything; whether it
    /// was all that is due.
    pub fn conclude(&mut self) -> Option<Concluded> {
        match (self.due.pop_front(), self.due.is_empty()) {
            (None, _) => Some(Concluded::Silently),
            (Some(Expect::Ready), true) => Some(Concluded::Ready),
            (Some(_), _) => None,
        }
    }

    /// Takes a message of the server; notes of skipped messages are handed to `undo`, latest
    /// first.
    ///
    /// # Errors
    /// [`OutOfStep`] if nothing asked for it.
    pub fn take(&mut self, tag: u8, undo: &mut dyn FnMut(Undo)) -> Result<Disposition, OutOfStep> {
        match tag {
            b'N' | b'S' | b'A' => Ok(self.unasked()),
            b'E' => {
                if self.is_ours_next() {
                    return Ok(Disposition::Swallow);
                }
                self.fail(undo);
                Ok(Disposition::Forward)
            }
            b'Z' => self.ready(),
            b'1' => match self.due.pop_front() {
                Some(Expect::Parse(_)) => Ok(Disposition::Forward),
                Some(Expect::OwnParse(_)) => Ok(Disposition::Swallow),
                other => self.out_of_step(tag, other),
            },
            b'2' => match self.due.pop_front() {
                Some(Expect::Bind) => Ok(Disposition::Forward),
                other => self.out_of_step(tag, other),
            },
            b'3' => match self.due.pop_front() {
                Some(Expect::Close(_)) => Ok(Disposition::Forward),
                Some(Expect::OwnClose(_)) => Ok(Disposition::Swallow),
                other => self.out_of_step(tag, other),
            },
            b'T' | b'n' | b't' | b'D' | b'C' | b'I' | b's' | b'G' | b'H' | b'd' | b'c' | b'V'
            | b'W' => self.part_of_an_answer(tag),
            _ => Err(OutOfStep { tag: char::from(tag) }),
        }
    }

    /// The server wants COPY data. In the extended protocol, a `Sync` that was sent right behind
    /// the `Execute` is read in copy-in mode and passed over.
    ///
    /// Source: PostgreSQL manual, 55.2.6 "COPY Operations".
    pub fn copy_in_begins(&mut self) -> CopyIn {
        if !matches!(self.due.front(), Some(Expect::Execute)) {
            return CopyIn::Simple;
        }
        self.voided = u32::try_from(self.due.forget_ready()).unwrap_or(u32::MAX);
        CopyIn::Extended
    }

    /// Everything due is void: the backend is gone, or the group is run again elsewhere.
    pub fn abandon(&mut self, undo: &mut dyn FnMut(Undo)) {
        while let Some(expect) = self.due.pop_back() {
            undo_of(expect, undo);
        }
        self.skipping = false;
        self.voided = 0;
    }

    fn unasked(&self) -> Disposition {
        match self.due.front() {
            Some(Expect::OwnFailure) => Disposition::Swallow,
            _ => Disposition::Forward,
        }
    }

    /// A part of an answer that only an `Execute`, a `Describe` or a `Query` has.
    fn part_of_an_answer(&mut self, tag: u8) -> Result<Disposition, OutOfStep> {
        match (self.due.front(), tag) {
            (Some(Expect::OwnFailure), _) => Ok(Disposition::Swallow),
            (Some(Expect::Describe), b'T' | b'n') | (Some(Expect::Execute), b'C' | b'I' | b's') => {
                self.due.pop_front();
                Ok(Disposition::Forward)
            }
            (Some(Expect::Ready), _)
            | (Some(Expect::Describe), b't')
            | (Some(Expect::Execute), b'D' | b'G' | b'H' | b'W' | b'd' | b'c') => {
                Ok(Disposition::Forward)
            }
            _ => Err(OutOfStep { tag: char::from(tag) }),
        }
    }

    /// An error: what is due up to the next `Sync` will never come.
    fn fail(&mut self, undo: &mut dyn FnMut(Undo)) {
        let mut skipped = self.due.up_to_ready();
        if self.due.is_empty() && !skipped.is_empty() {
            self.skipping = true;
        }
        // What is for pgsteer has failed with what it ends.
        self.take_own();
        while let Some(expect) = skipped.pop() {
            undo_of(expect, undo);
        }
    }

    fn ready(&mut self) -> Result<Disposition, OutOfStep> {
        match self.due.pop_front() {
            Some(Expect::Ready | Expect::OwnReady(_) | Expect::OwnFailure) => {
                Ok(Disposition::Forward)
            }
            None if self.voided > 0 => {
                self.voided -= 1;
                self.skipping = false;
                Ok(Disposition::Forward)
            }
            other => self.out_of_step(b'Z', other),
        }
    }

    fn out_of_step(&mut self, tag: u8, expected: Option<Expect>) -> Result<Disposition, OutOfStep> {
        // Put back, so that what it noted is undone when the group is abandoned.
        if let Some(expect) = expected {
            self.due.push_front(expect);
        }
        Err(OutOfStep { tag: char::from(tag) })
    }
}

/// How a group ends that no server has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concluded {
    /// With `Flush`.
    Silently,
    /// With `Sync`: `Z` is due.
    Ready,
}

/// Which protocol a COPY FROM STDIN was asked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyIn {
    /// `Query`: `Z` follows by itself.
    Simple,
    /// `Execute`: the client sends `Sync` when it is done.
    Extended,
}

/// The status that a `ReadyForQuery` message carries.
pub fn status_of(message: &[u8]) -> Option<TxStatus> {
    message.get(5).copied().and_then(TxStatus::from_byte)
}

fn undo_of(expect: Expect, undo: &mut dyn FnMut(Undo)) {
    match expect {
        Expect::Parse(note)
        | Expect::OwnParse(note)
        | Expect::KnownParse(note)
        | Expect::OwnClose(note)
        | Expect::Own(_, note)
        | Expect::Close(note) => undo(note),
        Expect::Forgotten(notes) => notes.into_iter().for_each(undo),
        Expect::Bind
        | Expect::Describe
        | Expect::Execute
        | Expect::Ready
        | Expect::OwnReady(_)
        | Expect::OwnFailure => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expect(kind: u8) -> Expect {
        match kind {
            0 | 1 => Expect::Ready,
            2 => Expect::Parse(Undo::Nothing),
            3 => Expect::Bind,
            4 => Expect::Describe,
            5 => Expect::Execute,
            6 => Expect::OwnParse(Undo::Nothing),
            7 => Expect::KnownParse(Undo::Nothing),
            8 => Expect::Close(Undo::Nothing),
            9 => Expect::OwnFailure,
            _ => Expect::OwnReady(b"C".to_vec()),
        }
    }

    fn replies(kinds: &[u8]) -> Replies {
        let mut replies = Replies::default();
        for kind in kinds {
            replies.expect(expect(*kind));
        }
        replies
    }

    /// Whether a walk finds these to be all that is due, up to a `Z`.
    fn is_whole(replies: &Replies, tags: &[u8]) -> bool {
        let mut walk = replies.walk().unwrap();
        tags.iter().all(|tag| walk.takes(*tag)) && walk.is_at_ready()
    }

    #[test]
    fn a_walk_finds_the_usual_answers() {
        let cases: [(&[u8], &[u8], bool); 9] = [
            (&[0], b"TDDC", true),
            (&[0], b"", true),
            (&[3, 5, 0], b"2DC", true),
            (&[2, 3, 4, 5, 0], b"12TDDDC", true),
            (&[3, 5, 0, 3, 5, 0], b"2C", false),
            (&[7, 3, 5, 0], b"2C", false),
            (&[3, 5, 0], b"2s", false),
            (&[9, 0], b"C", false),
            (&[10], b"", false),
        ];
        for (due, tags, expected) in cases {
            assert_eq!(is_whole(&replies(due), tags), expected, "{due:?} {tags:?}");
        }
    }

    #[test]
    fn an_answer_of_ours_stands_before_its_end_and_an_error_takes_its_place() {
        let mut well = replies(&[10]);
        assert!(well.is_own_next());
        assert_eq!(well.take_own().as_deref(), Some(b"C".as_slice()));
        assert!(!well.is_own_next() && well.take_own().is_none());
        assert_eq!(well.take(b'Z', &mut |_| {}), Ok(Disposition::Forward));
        assert!(well.is_settled());

        let mut failed = replies(&[10]);
        assert_eq!(failed.take(b'E', &mut |_| {}), Ok(Disposition::Forward));
        assert!(failed.take_own().is_none() && !failed.is_skipping());
        assert_eq!(failed.take(b'Z', &mut |_| {}), Ok(Disposition::Forward));
        assert!(failed.is_settled());
    }

    proptest! {
        /// What a walk takes for the client's, message by message is the client's too, with
        /// nothing put in and nothing left.
        #[test]
        fn a_walk_takes_nothing_that_is_not_the_clients(
            kinds in prop::collection::vec(0_u8..11, 1..6),
            picks in prop::collection::vec(0_usize..10, 0..8),
        ) {
            let tags: Vec<u8> = picks.iter().map(|pick| b"TDCnt123sI"[*pick]).collect();
            let mut replies = replies(&kinds);
            if is_whole(&replies, &tags) {
                for tag in tags.iter().chain(b"Z") {
                    prop_assert!(!replies.puts_in_now());
                    let taken = replies.take(*tag, &mut |_| {});
                    prop_assert_eq!(taken, Ok(Disposition::Forward));
                }
                prop_assert!(replies.is_settled());
            }
        }
    }
}
