//! What our own acts did to the servers, as far as it is still so.
//!
//! Nothing here must survive a restart: every act is idempotent, and what it did is found out by
//! doing it again.

use crate::clock::Moment;
use crate::control::hands::HandError;
use crate::failover::{
    Act, Catching, Demotable, Fenced, Frozen, Receiver, ServerView, Sight, Testimony,
};
use crate::pg::Lsn;
use crate::topology::ServerId;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After an act was carried out, the same is not done again before the server was looked at.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The first pause after an act that failed; doubled with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A former primary that can't be made a standby after so many attempts is fenced: until then
/// nothing but its distance to clients keeps it from taking writes.
const DEMOTIONS: u32 = 3;

/// What an act came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// The standby is cut off, and holds the log up to there.
    Frozen(Frozen),
    /// The primary takes no writes.
    Fenced(Fenced),
    /// It is as it was asked for.
    Plain,
}

/// What is remembered of each server.
#[derive(Debug)]
pub(super) struct Memory {
    servers: Vec<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    /// What it answered last.
    answered: Option<Testimony>,
    frozen: Option<(Frozen, Moment)>,
    /// Why it could not be frozen when that was tried last.
    stuck: Option<Arc<str>>,
    /// It was told to receive from another one; how far it had come when that moved last.
    catching: Option<(Catching, Option<Reached>)>,
    fenced: Option<(Fenced, Moment)>,
    /// What is under way there, and how it is told that something else is to be done.
    flying: Option<(Act, CancellationToken)>,
    /// A checkpoint is being written there. It has a connection of its own, may take as long as
    /// the disk does, and keeps nothing else waiting; nor does it tell anything of other acts.
    checkpoint: bool,
    /// What was carried out last, and when.
    done: Option<(Act, Moment)>,
    /// How many acts in a row failed, when the last one did, and which that was.
    failed: Option<(u32, Moment, Act)>,
    /// How many attempts to make it a standby failed since it was away.
    resisted: u32,
}

/// How far one has come that takes over what another one holds more.
#[derive(Debug, Clone, Copy)]
struct Reached {
    held: Lsn,
    /// Of what was sent, the farthest that was written. A stream begins with the start of a
    /// segment; one that breaks off and begins anew again and again gets nowhere.
    written: Lsn,
}

impl Reached {
    /// Whether it is farther now.
    fn gets_on(&mut self, held: Lsn, written: Option<Lsn>) -> bool {
        let before = (self.held, self.written);
        self.held = self.held.max(held);
        self.written = self.written.max(written.unwrap_or_default());
        before != (self.held, self.written)
    }
}

/// Up to where it has written what comes from there.
fn written(receiver: Receiver, there: ServerId) -> Option<Lsn> {
    match receiver {
        Receiver::Streams { from, written, .. } if from.is_none_or(|from| from == there) => written,
        Receiver::Streams { .. } | Receiver::Idle | Receiver::Hidden => None,
    }
}

impl Memory {
    /// Nothing was done yet.
    pub(super) fn new(servers: usize) -> Self {
        Self { servers: (0..servers).map(|_| Remembered::default()).collect() }
    }

    /// Adds to a view what our acts did.
    pub(super) fn complete(&mut self, view: &mut ServerView) {
        if matches!(view.sight, Sight::Missing(_)) {
            // Back again, it may let in whom it did not.
            self.forget_catching(|catching| catching.from == view.id);
        }
        let Some(server) = self.servers.get_mut(view.id.index()) else { return };
        let asked = view.answer().map(|answer| answer.at);
        let newer = |since: Moment| asked.is_some_and(|at| at > since);
        match view.answer() {
            Some(answer) => server.answered = Some(*answer),
            None => view.last = server.answered,
        }
        if matches!(view.sight, Sight::Missing(_)) {
            // If it restarted, it may hold less for certain than it did.
            server.frozen = None;
            // And may be set up otherwise.
            server.resisted = 0;
            server.stuck = None;
        }
        if let Some((frozen, since)) = server.frozen {
            let follows = matches!(view.as_standby(), Some((_, _, Receiver::Streams { .. })));
            if newer(since) && (follows || view.as_primary().is_some()) {
                server.frozen = None;
            } else {
                view.frozen = Some(frozen);
            }
        }
        view.stuck.clone_from(&server.stuck);
        view.failed = server.failed.as_ref().map(|(_, at, _)| *at);
        if let (Some((catching, before)), Some(answer)) = (&mut server.catching, view.answer())
            && let Some((held, _, receiver)) = view.as_standby()
        {
            // What it had when it was told is nothing that it received since.
            let reached = before.get_or_insert(Reached { held, written: Lsn(0) });
            if reached.gets_on(held, written(receiver, catching.from)) {
                catching.since = catching.since.max(answer.at);
            }
        }
        view.catching = server.catching.as_ref().map(|(catching, _)| catching.clone());
        if view.as_standby().is_some() && server.fenced.is_some_and(|(_, since)| newer(since)) {
            // Its fence is lifted there. What it may be once more is fenced anew.
            server.fenced = None;
        }
        view.fenced = server.fenced.map(|(fenced, _)| fenced);
        if server.resisted >= DEMOTIONS {
            view.tags.demotable = Demotable::No;
        }
    }

    /// What standbys were told to take over from such a one, and how far they came, is past.
    pub(super) fn forget_catching(&mut self, is_past: impl Fn(&Catching) -> bool) {
        for server in &mut self.servers {
            if server.catching.as_ref().is_some_and(|(catching, _)| is_past(catching)) {
                server.catching = None;
            }
        }
    }

    /// This process stood still for so long: what standbys received meanwhile was not seen. Where
    /// that happens again and again, as on a crowded machine, the rest of the time counts.
    pub(super) fn slept(&mut self, asleep: Duration, now: Moment) {
        for (catching, _) in self.servers.iter_mut().filter_map(|server| server.catching.as_mut()) {
            catching.since = now.min(catching.since + asleep);
        }
    }

    /// A primary could not be made a standby.
    pub(super) fn resisted(&mut self, server: ServerId, why: &HandError) {
        let Some(server) = self.servers.get_mut(server.index()) else { return };
        // What it lacks for that it lacks the next time, too.
        let lacks = matches!(why, HandError::Unfit(_));
        server.resisted = if lacks { DEMOTIONS } else { server.resisted.saturating_add(1) };
    }

    /// Whether this act is to be begun now: nothing is under way there, it did not just succeed,
    /// and did not just fail. If another is under way, that one is told.
    pub(super) fn may_begin(&self, act: &Act, now: Moment) -> bool {
        let Some(server) = act.server().and_then(|id| self.servers.get(id.index())) else {
            return false;
        };
        if matches!(act, Act::Checkpoint(_)) {
            return !server.checkpoint;
        }
        let resting = server.failed.as_ref().is_some_and(|(times, at, failed)| {
            let pause = RETRY_FIRST * 2_u32.saturating_pow((*times).min(8).saturating_sub(1));
            // A stream that did not come says nothing of what else is to be done there.
            let concerns = failed == act || !matches!(failed, Act::Repoint { .. });
            concerns && now.since(*at) < pause.min(RETRY_MAX)
        });
        let fresh = server
            .done
            .as_ref()
            .is_some_and(|(done, at)| done == act && now.since(*at) < AGAIN_AFTER);
        if resting || fresh {
            return false;
        }
        let Some((flying, elsewhere)) = &server.flying else { return true };
        if flying != act {
            elsewhere.cancel();
        }
        false
    }

    /// An act is under way. A standby that is being given its upstream back may confirm a commit
    /// any moment: it does not count as frozen from here on, whatever comes of the act. What is
    /// returned is set once something else is to be done there.
    pub(super) fn begin(&mut self, act: &Act, now: Moment) -> CancellationToken {
        let elsewhere = CancellationToken::new();
        let Some(server) = act.server().and_then(|id| self.servers.get_mut(id.index())) else {
            return elsewhere;
        };
        if matches!(act, Act::Checkpoint(_)) {
            server.checkpoint = true;
            return elsewhere;
        }
        server.flying = Some((act.clone(), elsewhere.clone()));
        if let Act::Repoint { to: from, .. } = *act
            && server.catching.as_ref().is_none_or(|(catching, _)| catching.from != from)
        {
            server.catching = Some((Catching { from, since: now, trouble: None }, None));
        }
        if matches!(act, Act::Unfreeze(_) | Act::Repoint { .. } | Act::Promote(_)) {
            server.frozen = None;
            server.stuck = None;
        }
        elsewhere
    }

    /// An act came to its end. One that gave way has neither failed nor succeeded.
    pub(super) fn end(&mut self, act: &Act, outcome: &Result<Done, HandError>, now: Moment) {
        let Some(server) = act.server().and_then(|id| self.servers.get_mut(id.index())) else {
            return;
        };
        if matches!(act, Act::Checkpoint(_)) {
            server.checkpoint = false;
            return;
        }
        server.flying = None;
        if matches!(outcome, Err(HandError::GaveWay)) {
            return;
        }
        if let (Act::Repoint { .. }, Some((catching, _))) = (act, &mut server.catching) {
            catching.trouble = outcome.as_ref().err().map(|why| why.to_string().into());
        }
        if let Act::Freeze(_) = act {
            server.stuck = outcome.as_ref().err().map(|why| why.to_string().into());
        }
        let Ok(done) = *outcome else {
            let times = server.failed.as_ref().map_or(0, |(times, ..)| *times).saturating_add(1);
            server.failed = Some((times, now, act.clone()));
            if matches!(act, Act::Unfence(_)) {
                // It may have been done. What the next survey finds counts.
                server.fenced = None;
            }
            return;
        };
        server.failed = None;
        server.done = Some((act.clone(), now));
        match (act, done) {
            (Act::Freeze(_), Done::Frozen(frozen)) => server.frozen = Some((frozen, now)),
            (Act::Fence(_), Done::Fenced(fenced)) => server.fenced = Some((fenced, now)),
            // Until then it takes no writes.
            (Act::Unfence(_), _) => server.fenced = None,
            (_, Done::Frozen(_) | Done::Fenced(_) | Done::Plain) => {}
        }
    }

    /// This server is the primary now: what was done to it as something else is past.
    pub(super) fn appointed(&mut self, server: ServerId) {
        if let Some(server) = self.servers.get_mut(server.index()) {
            server.frozen = None;
            server.stuck = None;
            server.fenced = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::{Missing, Standing, Tags};
    use crate::pg::{Lsn, SystemId, Timeline};

    const B: ServerId = ServerId(1);
    const FREEZE: Act = Act::Freeze(B);
    const REPOINT: Act = Act::Repoint { server: B, to: ServerId(0) };
    const LATE: Result<Done, HandError> = Err(HandError::Late(Duration::ZERO));

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn standby(millis: u64, receiver: Receiver) -> Sight {
        let held = Lsn(10);
        Sight::Answers(Testimony {
            at: at(millis),
            system: SystemId(7),
            timeline: Some(Timeline(1)),
            role: Standing::Standby { received: held, replayed: held, receiver },
        })
    }

    /// `b` was frozen at 100 ms.
    fn frozen() -> Memory {
        let mut memory = Memory::new(2);
        memory.begin(&FREEZE, at(90));
        let held = Frozen { at: Lsn(10), timeline: Timeline(1) };
        memory.end(&FREEZE, &Ok(Done::Frozen(held)), at(100));
        memory
    }

    fn view(sight: Sight) -> ServerView {
        ServerView {
            id: B,
            name: Arc::from("b"),
            sight,
            last: None,
            history: None,
            frozen: None,
            stuck: None,
            failed: None,
            catching: None,
            fenced: None,
            tags: Tags::default(),
            keepalive: true,
        }
    }

    fn is_frozen(memory: &mut Memory, sight: Sight) -> bool {
        let mut view = view(sight);
        memory.complete(&mut view);
        view.frozen.is_some()
    }

    #[test]
    fn a_standby_that_is_being_freed_does_not_count_as_frozen() {
        assert!(is_frozen(&mut frozen(), standby(200, Receiver::Idle)));
        for act in [Act::Unfreeze(B), REPOINT, Act::Promote(B)] {
            let mut memory = frozen();
            memory.begin(&act, at(90));
            assert!(!is_frozen(&mut memory, standby(200, Receiver::Idle)), "{act:?}");
            memory.end(&act, &LATE, at(300));
            assert!(!is_frozen(&mut memory, standby(400, Receiver::Idle)), "{act:?} failed");
        }
    }

    #[test]
    fn what_one_answered_last_is_known_while_it_does_not_answer() {
        let mut memory = Memory::new(2);
        let last = |memory: &mut Memory, sight| {
            let mut view = view(sight);
            memory.complete(&mut view);
            view.last.map(|answer| answer.at)
        };
        let gone = Missing { since: at(400), gone: 1, restarting: false, silent: None };
        assert_eq!(last(&mut memory, Sight::Missing(gone)), None, "it never did");
        assert_eq!(last(&mut memory, standby(200, Receiver::Idle)), None, "it answers");
        assert_eq!(last(&mut memory, standby(300, Receiver::Idle)), None);
        for _ in 0..2 {
            assert_eq!(last(&mut memory, Sight::Missing(gone)), Some(at(300)));
        }
    }

    /// What it has received last moves the clock, and neither what it had when it was told, nor
    /// that it is told again, or frozen in between.
    #[test]
    fn how_long_one_that_takes_over_has_received_nothing_is_known() {
        let mut memory = frozen();
        let since = |memory: &mut Memory, millis, held| {
            let role = Standing::Standby {
                received: Lsn(held),
                replayed: Lsn(1),
                receiver: Receiver::Idle,
            };
            let Sight::Answers(answer) = standby(millis, Receiver::Idle) else { unreachable!() };
            let mut view = view(Sight::Answers(Testimony { role, ..answer }));
            memory.complete(&mut view);
            view.catching.map(|catching| (catching.since, catching.trouble.is_some()))
        };
        assert_eq!(since(&mut memory, 150, 10), None);
        memory.begin(&REPOINT, at(200));
        assert_eq!(since(&mut memory, 300, 10), Some((at(200), false)));
        assert_eq!(since(&mut memory, 400, 11), Some((at(400), false)));
        memory.end(&REPOINT, &LATE, at(500));
        memory.begin(&REPOINT, at(600));
        assert_eq!(since(&mut memory, 700, 11), Some((at(400), true)));
        memory.end(&REPOINT, &Ok(Done::Plain), at(800));
        memory.begin(&FREEZE, at(900));
        assert_eq!(since(&mut memory, 1000, 11), Some((at(400), false)));

        let from = |server| move |catching: &Catching| catching.from == server;
        memory.forget_catching(from(B));
        assert_eq!(since(&mut memory, 1100, 11), Some((at(400), false)), "from another one");
        let mut source = view(standby(1200, Receiver::Idle));
        source.id = ServerId(0);
        memory.complete(&mut source);
        assert_eq!(since(&mut memory, 1300, 11), Some((at(400), false)));
        let missing = Missing { since: at(1400), gone: 1, restarting: true, silent: None };
        source.sight = Sight::Missing(missing);
        memory.complete(&mut source);
        assert_eq!(since(&mut memory, 1500, 11), None, "it may let it in once it is back");
    }

    /// What it is sent anew adds nothing to what it holds, and may take long.
    #[test]
    fn one_gets_on_as_long_as_it_writes_more_than_it_did() {
        let mut memory = Memory::new(3);
        memory.begin(&REPOINT, at(100));
        let mut since = |millis, from, written| {
            let receiver =
                Receiver::Streams { from, heard: Duration::ZERO, written: Some(Lsn(written)) };
            let mut view = view(standby(millis, receiver));
            memory.complete(&mut view);
            view.catching.unwrap().since
        };
        let there = Some(ServerId(0));
        assert_eq!(since(200, Some(ServerId(2)), 9), at(100), "from another one");
        assert_eq!(since(300, there, 4), at(300), "what it holds goes up to 10");
        assert_eq!(since(400, there, 5), at(400));
        assert_eq!(since(500, there, 5), at(400));
        assert_eq!(since(600, there, 1), at(400), "it begins anew");
        assert_eq!(since(700, there, 5), at(400), "and gets no farther");
        assert_eq!(since(800, None, 6), at(800), "most likely it is that one");
    }

    /// However often that happens, it adds up to no more than it was.
    #[test]
    fn how_long_this_process_stood_still_is_not_counted() {
        let mut memory = Memory::new(2);
        memory.begin(&REPOINT, at(1000));
        let since = |memory: &Memory| memory.servers[1].catching.as_ref().unwrap().0.since;
        for pause in 1..=10 {
            memory.slept(Duration::from_millis(300), at(1000 + pause * 1000));
        }
        assert_eq!(since(&memory), at(4000));
        memory.slept(Duration::from_mins(10), at(12_000));
        assert_eq!(since(&memory), at(12_000), "the time before is forgotten with it");
    }

    #[test]
    fn a_standby_that_streams_since_is_frozen_no_more() {
        let streams = Receiver::Streams { from: None, heard: Duration::ZERO, written: None };
        assert!(is_frozen(&mut frozen(), standby(50, streams)), "it was asked before");
        assert!(!is_frozen(&mut frozen(), standby(200, streams)));
    }

    /// Its fence is lifted while it is a standby.
    #[test]
    fn who_was_a_standby_since_is_not_taken_for_fenced() {
        let (fence, end) = (Act::Fence(B), Lsn(10));
        let is_fenced = |memory: &mut Memory, sight| {
            let mut view = view(sight);
            memory.complete(&mut view);
            view.fenced.is_some()
        };
        let primary = |millis| {
            let Sight::Answers(answer) = standby(millis, Receiver::Idle) else { unreachable!() };
            Sight::Answers(Testimony { role: Standing::Primary { flushed: end }, ..answer })
        };
        let mut memory = Memory::new(2);
        memory.begin(&fence, at(90));
        memory.end(&fence, &Ok(Done::Fenced(Fenced { end, foreign: 0 })), at(100));
        assert!(is_fenced(&mut memory, primary(200)));
        assert!(is_fenced(&mut memory, standby(50, Receiver::Idle)), "it was asked before");
        assert!(!is_fenced(&mut memory, standby(300, Receiver::Idle)));
        assert!(!is_fenced(&mut memory, primary(400)));
    }

    #[test]
    fn a_standby_that_was_away_is_frozen_again() {
        let mut memory = frozen();
        let gone = Missing { since: at(150), gone: 1, restarting: false, silent: None };
        assert!(!is_frozen(&mut memory, Sight::Missing(gone)));
        assert!(!is_frozen(&mut memory, standby(300, Receiver::Idle)));
    }

    /// Until it is, is away, or something else is done to it.
    #[test]
    fn one_that_could_not_be_frozen_is_known_with_its_reason() {
        let stuck = |memory: &mut Memory, sight| {
            let mut view = view(sight);
            memory.complete(&mut view);
            view.stuck.is_some()
        };
        let seen = standby(200, Receiver::Idle);
        let gone = Missing { since: at(300), gone: 1, restarting: false, silent: None };
        let failed = || {
            let mut memory = Memory::new(2);
            memory.begin(&FREEZE, at(90));
            memory.end(&FREEZE, &LATE, at(100));
            memory
        };
        assert!(stuck(&mut failed(), seen));
        let mut memory = failed();
        memory.end(&FREEZE, &Err(HandError::GaveWay), at(110));
        assert!(stuck(&mut memory, seen), "it was not tried again");

        let frozen = Frozen { at: Lsn(10), timeline: Timeline(1) };
        memory.end(&FREEZE, &Ok(Done::Frozen(frozen)), at(120));
        assert!(!stuck(&mut memory, seen));
        let mut memory = failed();
        memory.begin(&REPOINT, at(90));
        assert!(!stuck(&mut memory, seen));
        let mut memory = failed();
        assert!(!stuck(&mut memory, Sight::Missing(gone)));
        assert!(!stuck(&mut memory, seen), "it may be set up otherwise");
    }

    #[test]
    fn one_that_cannot_be_made_a_standby_is_not_asked_for_ever() {
        let demotable = |memory: &mut Memory, sight| {
            let mut view = view(sight);
            memory.complete(&mut view);
            view.tags.demotable
        };
        let role = Standing::Primary { flushed: Lsn(10) };
        let (at, timeline) = (at(100), Some(Timeline(1)));
        let answers = Sight::Answers(Testimony { at, system: SystemId(7), timeline, role });
        let mut memory = Memory::new(2);
        for _ in 0..2 {
            memory.resisted(B, &HandError::Late(Duration::ZERO));
            assert_eq!(demotable(&mut memory, answers), Demotable::Perhaps);
        }
        memory.resisted(B, &HandError::Late(Duration::ZERO));
        assert_eq!(demotable(&mut memory, answers), Demotable::No);
        let gone = Missing { since: at, gone: 1, restarting: false, silent: None };
        assert_eq!(demotable(&mut memory, Sight::Missing(gone)), Demotable::Perhaps, "it restarts");
        memory.resisted(B, &HandError::Unfit("it lacks something"));
        assert_eq!(demotable(&mut memory, answers), Demotable::No, "it would lack it again");
    }

    #[test]
    fn a_fenced_primary_is_fenced_until_it_was_freed() {
        let mut memory = Memory::new(2);
        let fence = Act::Fence(B);
        memory.begin(&fence, at(90));
        let held = Fenced { end: Lsn(10), foreign: 0 };
        memory.end(&fence, &Ok(Done::Fenced(held)), at(100));
        let unfence = Act::Unfence(B);
        memory.begin(&unfence, at(90));
        assert!(memory.servers[1].fenced.is_some());
        memory.end(&unfence, &LATE, at(200));
        assert!(memory.servers[1].fenced.is_none(), "it failed, and may have been done");
        memory.end(&fence, &Ok(Done::Fenced(held)), at(250));
        memory.begin(&unfence, at(90));
        memory.end(&unfence, &Ok(Done::Plain), at(300));
        assert!(memory.servers[1].fenced.is_none());
    }

    /// One act a server at a time: the next is begun when that one has come to its end.
    #[test]
    fn what_is_under_way_is_told_of_something_else_and_only_then() {
        let mut memory = Memory::new(2);
        let elsewhere = memory.begin(&REPOINT, at(90));
        assert!(!memory.may_begin(&REPOINT, at(0)), "it is under way");
        assert!(!elsewhere.is_cancelled(), "nothing else is to be done");
        let other = Act::Freeze(ServerId(0));
        assert!(memory.may_begin(&other, at(0)) && !elsewhere.is_cancelled(), "another server");

        assert!(!memory.may_begin(&FREEZE, at(0)), "it has not ended yet");
        assert!(elsewhere.is_cancelled());
        memory.end(&REPOINT, &Err(HandError::GaveWay), at(1));
        assert!(memory.may_begin(&FREEZE, at(1)));
        assert!(memory.may_begin(&REPOINT, at(1)), "it has not failed");
        let next = memory.begin(&FREEZE, at(90));
        assert!(!next.is_cancelled(), "what was told is not told to the next");
    }

    /// What came of it is seen by whoever asks behind that.
    #[test]
    fn when_an_act_failed_last_is_known_until_one_succeeds() {
        let failed = |memory: &mut Memory| {
            let mut view = view(standby(0, Receiver::Idle));
            memory.complete(&mut view);
            view.failed
        };
        let mut memory = Memory::new(2);
        assert_eq!(failed(&mut memory), None);
        memory.begin(&FREEZE, at(90));
        memory.end(&FREEZE, &LATE, at(100));
        assert_eq!(failed(&mut memory), Some(at(100)));
        memory.begin(&REPOINT, at(150));
        assert_eq!(failed(&mut memory), Some(at(100)));
        memory.end(&REPOINT, &Ok(Done::Plain), at(200));
        assert_eq!(failed(&mut memory), None);
    }

    #[test]
    fn a_checkpoint_keeps_nothing_waiting_and_is_written_once_at_a_time() {
        let (mut memory, checkpoint) = (Memory::new(2), Act::Checkpoint(B));
        assert!(memory.may_begin(&checkpoint, at(0)));
        memory.begin(&checkpoint, at(90));
        assert!(!memory.may_begin(&checkpoint, at(0)));
        let fence = Act::Fence(B);
        assert!(memory.may_begin(&fence, at(0)));
        let elsewhere = memory.begin(&fence, at(90));
        // However it ends: that says nothing of the fence, which is still under way.
        memory.end(&checkpoint, &LATE, at(1));
        assert!(!memory.may_begin(&fence, at(1)));
        assert!(memory.may_begin(&checkpoint, at(1)) && !elsewhere.is_cancelled());
        let held = Fenced { end: Lsn(10), foreign: 0 };
        memory.end(&fence, &Ok(Done::Fenced(held)), at(2));
        memory.begin(&checkpoint, at(90));
        memory.end(&checkpoint, &LATE, at(3));
        assert!(memory.may_begin(&Act::Demote { server: B, to: ServerId(0) }, at(3)));
    }

    #[test]
    fn a_stream_that_does_not_come_delays_nothing_but_the_next_attempt() {
        let mut memory = Memory::new(2);
        for millis in [0, 1000, 2000] {
            memory.begin(&REPOINT, at(90));
            memory.end(&REPOINT, &LATE, at(millis));
        }
        assert!(!memory.may_begin(&REPOINT, at(2100)));
        assert!(memory.may_begin(&FREEZE, at(2001)));
        memory.begin(&FREEZE, at(90));
        memory.end(&FREEZE, &LATE, at(2100));
        assert!(!memory.may_begin(&REPOINT, at(2200)), "nothing can be done there");
        assert!(memory.may_begin(&REPOINT, at(2500)));
    }
}
