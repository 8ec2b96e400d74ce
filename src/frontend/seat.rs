//! Where a session is found when the primary changes under it, and where it waits for a change.
//!
//! A session waits on two sockets, and a server that hangs closes neither. So every session has a
//! seat at its shard. While it holds a backend of the primary, the seat tells in which epoch; when
//! that epoch has ended the shard cuts it off, and whatever the session waits for on that backend
//! ends. What waits for a primary is called in the order in which it came. And when pgsteer shuts
//! down, those who have nothing to do are sent away.
//!
//! Costs a cell at the check-out and one at the release: nothing is looked at until the primary
//! changes.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::overdue;
use crate::frontend::overdue::{Doing, Overdue, Watch};
use crate::limits::Times;
use crate::topology::{Epoch, Primary, Topology};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// All seats of one shard.
#[derive(Debug)]
pub(super) struct Seats {
    next: Cell<u64>,
    places: RefCell<BTreeMap<u64, Rc<Place>>>,
    /// Those who wait.
    waiting: RefCell<Slab<Waiting>>,
    /// The primary of the last look.
    seen: Cell<Option<Reign>>,
    house: Cell<House>,
}

/// Whether sessions may stay that have nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum House {
    Open,
    Closing,
}

/// A primary, or the lack of one, and its epoch.
pub(super) type Reign = (Epoch, Primary);

/// One session's seat, for as long as this lives.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    place: Rc<Place>,
    seats: Rc<Seats>,
}

#[derive(Debug)]
struct Place {
    /// Of the session's task, which is one and the same for as long as it lives.
    waker: Waker,
    /// The epoch of the primary whose backend the session holds.
    epoch: Cell<Option<Epoch>>,
    cut: Cell<bool>,
    watch: Watch,
}

/// A session's hold on a backend of the primary, as far as its seat must know it.
#[derive(Debug)]
pub struct Taken(Rc<Place>);

/// What a session keeps in hand to be cut off by, while it is busy with the rest of itself.
#[derive(Debug, Clone)]
pub(super) struct Thread(Rc<Place>);

/// The primary was replaced: nothing more is to be waited for on its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the primary was replaced")]
pub(super) struct CutOff;

/// Why a session does not wait any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SentAway {
    /// pgsteer shuts down, and the session has nothing to do.
    #[error("pgsteer is shutting down")]
    Closing,
    /// What it does, or does not do, lasts too long.
    #[error("it lasts too long")]
    Overdue(Overdue),
}

/// Whether a session has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing: it can be sent away.
    None,
    /// Something: it stays until that is done.
    Some,
}

/// A place in the queue of those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// One who waits for news.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    waker: Waker,
    of: News,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Anything that is published.
    Any,
    /// Another primary than this, or another reason to have none.
    Since(Reign),
}

impl Seats {
    /// Nobody sits.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            next: Cell::new(0),
            places: RefCell::default(),
            waiting: RefCell::default(),
            seen: Cell::new(None),
            house: Cell::new(House::Open),
        })
    }

    /// A seat for a session whose task is woken by `waker`.
    pub(super) fn sit(self: &Rc<Self>, waker: Waker) -> Seat {
        let id = self.number();
        let watch = Watch::new(clock::now());
        let place = Place { waker, epoch: Cell::new(None), cut: Cell::new(false), watch };
        let place = Rc::new(place);
        self.places.borrow_mut().insert(id, Rc::clone(&place));
        Seat { id, place, seats: Rc::clone(self) }
    }

    /// The next place in the queue.
    pub(super) fn queue(&self) -> Ticket {
        Ticket(self.number())
    }

    /// Waits for news: look first, and do not wait for anything between the look and this.
    pub(super) async fn news(&self, ticket: Ticket, of: News) {
        let mut stay = Stay { seats: self, ticket, at: None };
        poll_fn(|context| stay.poll(context, of)).await;
    }

    /// A topology was published: cuts off whoever it cuts off, and calls those who wait for it.
    /// The primary of the last call, if this one is another.
    pub(super) fn look(&self, topology: &Topology) -> Option<Reign> {
        let now = (topology.epoch, topology.primary);
        let before = self.seen.replace(Some(now));
        if before != Some(now) {
            for place in self.places.borrow().values() {
                if place.epoch.get().is_some_and(|epoch| topology.has_ended(epoch)) {
                    place.cut.set(true);
                    place.waker.wake_by_ref();
                }
            }
        }
        self.call(now);
        before.filter(|before| *before != now)
    }

    /// Calls those for whom this primary is news, first come first called.
    fn call(&self, now: Reign) {
        let mut waiting = self.waiting.borrow_mut();
        let for_whom = waiting.iter().filter(|(_, one)| one.of != News::Since(now));
        let mut called: Vec<_> = for_whom.map(|(at, one)| (one.ticket, at)).collect();
        called.sort_unstable();
        for (_, at) in called {
            waiting.remove(at).waker.wake();
        }
    }

    /// Looks for what lasts too long.
    pub(super) fn look_at_times(&self, now: Moment) {
        for place in self.places.borrow().values() {
            if place.watch.look(now) == overdue::News::Some {
                place.waker.wake_by_ref();
            }
        }
    }

    /// From now on, whoever has nothing to do is sent away.
    pub(super) fn close(&self) {
        self.house.set(House::Closing);
        for place in self.places.borrow().values() {
            place.waker.wake_by_ref();
        }
    }

    fn number(&self) -> u64 {
        let next = self.next.get();
        self.next.set(next + 1);
        next
    }
}

/// A ticket's stay in the queue, which ends when it is called or its wait is given up.
struct Stay<'a> {
    seats: &'a Seats,
    ticket: Ticket,
    at: Option<usize>,
}

impl Stay<'_> {
    fn poll(&mut self, context: &Context<'_>, of: News) -> Poll<()> {
        let mut waiting = self.seats.waiting.borrow_mut();
        let Some(at) = self.at else {
            let one = Waiting { ticket: self.ticket, waker: context.waker().clone(), of };
            self.at = Some(waiting.insert(one));
            return Poll::Pending;
        };
        match waiting.get_mut(at).filter(|one| one.ticket == self.ticket) {
            Some(one) => {
                one.waker.clone_from(context.waker());
                Poll::Pending
            }
            // The place may be another's by now.
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let mut waiting = self.seats.waiting.borrow_mut();
        let own = |at: &usize| waiting.get(*at).is_some_and(|one| one.ticket == self.ticket);
        if let Some(at) = self.at.filter(own) {
            waiting.remove(at);
        }
    }
}

impl Seat {
    /// The session holds a backend of the primary of this epoch from now on. Look at the topology
    /// after this: what has ended before is not cut.
    pub(super) fn take(&self, epoch: Epoch) -> Taken {
        self.place.epoch.set(Some(epoch));
        self.place.cut.set(false);
        Taken(Rc::clone(&self.place))
    }

    /// Whether the session was cut off from the backend that it holds.
    pub(super) fn is_cut(&self) -> bool {
        self.place.cut.get()
    }

    /// Whether pgsteer shuts down, so that who has nothing to do is to be sent away.
    pub(super) fn is_closing(&self) -> bool {
        self.seats.house.get() == House::Closing
    }

    /// Waits for `future`, unless pgsteer shuts down and the session has no work, or what it does
    /// lasts too long. As cancel-safe as the future is.
    ///
    /// # Errors
    /// [`SentAway`]: why, for the client to be told.
    pub(super) fn unless_sent_away<T>(
        &self,
        work: Work,
        mut future: impl Future<Output = T> + Unpin,
    ) -> impl Future<Output = Result<T, SentAway>> {
        // No `async`: it would have room for the future twice, in each client that rests.
        poll_fn(move |context| match Pin::new(&mut future).poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if work == Work::None && self.is_closing() => {
                Poll::Ready(Err(SentAway::Closing))
            }
            Poll::Pending => match self.place.watch.take_found() {
                Some(overdue) => Poll::Ready(Err(SentAway::Overdue(overdue))),
                None => Poll::Pending,
            },
        })
    }

    /// So long the session may do what it does.
    pub(super) fn allow(&self, times: Times) {
        self.place.watch.allow(times);
    }

    /// The session does this from now on.
    pub(super) fn turn(&self, doing: Doing, now: Moment) {
        self.place.watch.turn(doing, now);
    }

    /// To wait with while the session itself is lent out.
    pub(super) fn thread(&self) -> Thread {
        Thread(Rc::clone(&self.place))
    }
}

impl Thread {
    /// Waits for `future`, unless the session is cut off from its backend. As cancel-safe as the
    /// future is.
    ///
    /// # Errors
    /// [`CutOff`]: the backend is to be closed.
    pub(super) async fn unless_cut<T>(&self, future: impl Future<Output = T>) -> Result<T, CutOff> {
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if self.0.cut.get() => Poll::Ready(Err(CutOff)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.epoch.set(None);
        self.0.cut.set(false);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.places.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Timeline;
    use crate::topology::{NoPrimary, ServerId};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn topology(epoch: u64, primary: Primary) -> Topology {
        let mut topology = Topology::unseen(Box::default());
        topology.epoch = Epoch(epoch);
        topology.primary = primary;
        topology
    }

    fn open(epoch: u64, server: u16) -> Topology {
        topology(epoch, Primary::Open { server: ServerId(server), timeline: Timeline(1) })
    }

    fn none(epoch: u64, why: NoPrimary) -> Topology {
        topology(epoch, Primary::None { last: Some(ServerId(0)), why })
    }

    #[test]
    fn only_who_holds_a_backend_of_an_ended_epoch_is_cut() {
        let cases = [
            (open(1, 0), false),
            (open(2, 1), true),
            (open(2, 0), true),
            (none(1, NoPrimary::Failover), true),
            (none(1, NoPrimary::Switchover), false),
            (none(1, NoPrimary::Unseen), false),
            (none(1, NoPrimary::Demoted), false),
            (none(2, NoPrimary::Unseen), true),
        ];
        for (next, cut) in cases {
            let seats = Seats::new();
            seats.look(&open(1, 0));
            let woken = Arc::new(Woken::default());
            let [idle, holds, held] = [(); 3].map(|()| seats.sit(Waker::from(Arc::clone(&woken))));
            let taken = holds.take(Epoch(1));
            drop(held.take(Epoch(1)));
            seats.look(&next);
            assert_eq!(holds.is_cut(), cut, "{:?}", next.primary);
            assert_eq!((idle.is_cut(), held.is_cut()), (false, false), "{:?}", next.primary);
            assert_eq!(woken.0.load(Ordering::Relaxed), u32::from(cut), "{:?}", next.primary);
            drop(taken);
            assert!(!holds.is_cut(), "with its backend gone it is whole again");
        }
    }

    #[test]
    fn what_waits_on_a_hung_backend_ends_when_it_is_cut() {
        let seats = Seats::new();
        let seat = seats.sit(Waker::noop().clone());
        let thread = seat.thread();
        let taken = seat.take(Epoch(1));
        let mut context = Context::from_waker(Waker::noop());
        let mut waits = pin!(thread.unless_cut(std::future::pending::<()>()));
        assert_eq!(waits.as_mut().poll(&mut context), Poll::Pending);
        seats.look(&open(2, 1));
        assert_eq!(waits.as_mut().poll(&mut context), Poll::Ready(Err(CutOff)));
        drop(taken);
    }

    #[test]
    fn who_has_nothing_to_do_is_sent_away_when_the_house_closes() {
        let seats = Seats::new();
        let woken = Arc::new(Woken::default());
        let seat = seats.sit(Waker::from(Arc::clone(&woken)));
        let mut context = Context::from_waker(Waker::noop());
        let mut idles = pin!(seat.unless_sent_away(Work::None, std::future::pending::<()>()));
        let mut works = pin!(seat.unless_sent_away(Work::Some, std::future::pending::<()>()));
        let mut done = pin!(seat.unless_sent_away(Work::None, std::future::ready(())));
        assert_eq!(idles.as_mut().poll(&mut context), Poll::Pending);
        seats.close();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(idles.as_mut().poll(&mut context), Poll::Ready(Err(SentAway::Closing)));
        assert_eq!(works.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(done.as_mut().poll(&mut context), Poll::Ready(Ok(())), "what came is heard");
    }

    #[test]
    fn those_who_wait_are_called_in_their_order_and_only_for_their_news() {
        let seats = Seats::new();
        let mut context = Context::from_waker(Waker::noop());
        let unseen = none(1, NoPrimary::Unseen);
        let mut any = pin!(seats.news(seats.queue(), News::Any));
        let mut primary = pin!(seats.news(seats.queue(), News::Since((Epoch(1), unseen.primary))));
        assert_eq!(any.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(primary.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(seats.look(&unseen), None);
        assert_eq!(any.as_mut().poll(&mut context), Poll::Ready(()));
        assert_eq!(primary.as_mut().poll(&mut context), Poll::Pending, "no news");
        // What was between two looks is gone, and not missed.
        let before = seats.look(&open(1, 0));
        assert_eq!(before, Some((Epoch(1), unseen.primary)));
        assert_eq!(primary.as_mut().poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let seats = Seats::new();
        let seat = seats.sit(Waker::noop().clone());
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut waits = Box::pin(seats.news(seats.queue(), News::Any));
            assert_eq!(waits.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(seats.waiting.borrow().len(), 1);
        }
        drop(seat);
        assert_eq!((seats.waiting.borrow().len(), seats.places.borrow().len()), (0, 0));
    }
}
