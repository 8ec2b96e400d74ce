//! The kernel's event queue, and what it has said of each socket.

use super::executor::{Executor, TaskId};
use super::outbox::{Owed, hang_up};
use super::wide;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::Duration;

/// Events that are taken from the kernel at once.
const EVENTS: usize = 512;
/// The event that is no socket's.
const BELL: Token = Token(usize::MAX);

/// A socket's place in the table. The number is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    index: u32,
    number: u32,
    reactor: u32,
    pub(super) other: OtherSide,
}

/// What is known of a socket.
struct Seat {
    number: u32,
    /// Open as long as the seat is taken.
    socket: RawFd,
    /// What was posted and is not the kernel's.
    owed: Owed,
    arrival: Arrival,
    outlet: Outlet,
    reader: Waiter,
    writer: Waiter,
}

/// Who is at the other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherSide {
    /// One that came to us: it is told what happened, which stays true however late.
    Client,
    /// One that we went to: it is asked to do something, which nobody may want any more.
    Server,
}

/// What is there to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing, as far as the kernel has said.
    Nothing,
    /// Something, most likely.
    Something,
    /// The end, at the latest behind something: no event will follow.
    End,
}

/// Whether there is room to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlet {
    Full,
    Room,
}

/// Who waits.
enum Waiter {
    Nobody,
    /// A task of this thread.
    Task(TaskId),
    /// A future that has a waker of its own.
    Other(Box<Waker>),
}

/// Which of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// What a wait came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Sockets only, or nothing.
    Sockets,
    /// Somebody else has woken a task.
    Bell,
}

/// The kernel's event queue and the sockets in it.
pub(super) struct Poller {
    queue: RefCell<Option<(Poll, Events)>>,
    seats: RefCell<Slab<Seat>>,
    /// To how many of them something is owed. Hardly ever to any: who asks for his own asks that.
    owing: Cell<u32>,
    numbers: Cell<u32>,
    /// Tells this one from those of other threads, and from earlier ones; zero: it is closed.
    reactor: Cell<u32>,
}

impl Poller {
    pub(super) const fn new() -> Self {
        Self {
            queue: RefCell::new(None),
            seats: RefCell::new(Slab::new()),
            owing: Cell::new(0),
            numbers: Cell::new(0),
            reactor: Cell::new(0),
        }
    }

    pub(super) fn open(&self) -> io::Result<mio::Waker> {
        static REACTORS: AtomicU32 = AtomicU32::new(1);
        if self.is_open() {
            return Err(io::Error::other("this thread runs a reactor already"));
        }
        let poll = Poll::new()?;
        let bell = mio::Waker::new(poll.registry(), BELL)?;
        self.queue.replace(Some((poll, Events::with_capacity(EVENTS))));
        self.reactor.set(REACTORS.fetch_add(1, Ordering::Relaxed));
        Ok(bell)
    }

    pub(super) fn close(&self) {
        self.reactor.set(0);
        self.owing.set(0);
        self.queue.replace(None);
        self.seats.take();
    }

    pub(super) const fn is_open(&self) -> bool {
        self.reactor.get() != 0
    }

    /// Registers a socket, for both ways and as long as it is open, of which this is known.
    pub(super) fn register(
        &self,
        socket: BorrowedFd<'_>,
        other: OtherSide,
        arrival: Arrival,
    ) -> io::Result<Place> {
        let queue = self.queue.borrow();
        let (poll, _) = queue.as_ref().ok_or_else(elsewhere)?;
        let mut seats = self.seats.borrow_mut();
        let entry = seats.vacant_entry();
        let index = u32::try_from(entry.key()).map_err(io::Error::other)?;
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        let place = Place { index, number, reactor: self.reactor.get(), other };
        let both = Interest::READABLE | Interest::WRITABLE;
        let socket = socket.as_raw_fd();
        poll.registry().register(&mut SourceFd(&socket), token(&place), both)?;
        let (reader, writer) = (Waiter::Nobody, Waiter::Nobody);
        let (outlet, owed) = (Outlet::Full, Owed::Nothing);
        entry.insert(Seat { number, socket, owed, arrival, outlet, reader, writer });
        Ok(place)
    }

    /// Takes a socket that stays open out of the kernel's queue.
    pub(super) fn release(&self, place: &Place, socket: BorrowedFd<'_>) -> io::Result<()> {
        let queue = self.queue.borrow();
        match queue.as_ref() {
            Some((poll, _)) if self.is_ours(place) => {
                poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()))
            }
            Some(_) => Err(elsewhere()),
            // With its reactor it has left the queue.
            None => Ok(()),
        }
    }

    /// Nobody will ask for it again. Whether nobody finds it any more: it may be another thread's.
    pub(super) fn forget(&self, place: &Place) -> bool {
        let ours = self.is_ours(place);
        if ours {
            let mut left = self.seats.borrow_mut().try_remove(wide(place.index));
            if let Some(seat) = &mut left {
                self.count(seat, |seat| seat.owed = Owed::Nothing);
            }
            // What it may take with it may ask for the table.
            drop(left);
        }
        ours
    }

    /// Whether there may be something to read, or room to write.
    pub(super) fn is_ready(&self, place: &Place, way: Way) -> io::Result<bool> {
        self.look(place, |seat| seat.is_ready(way))
    }

    /// The same; if not, the task that runs, or this waker if it is another's, is woken by the next
    /// event.
    pub(super) fn is_ready_or_awaited(
        &self,
        (place, way): (&Place, Way),
        (executor, waker): (&Executor, &Waker),
    ) -> io::Result<bool> {
        // Dropped when nobody has the table.
        let mut _before = Waiter::Nobody;
        self.look(place, |seat| {
            let ready = seat.is_ready(way);
            if !ready {
                let waiter = match executor.whose(waker) {
                    Some(task) => Waiter::Task(task),
                    None => Waiter::Other(Box::new(waker.clone())),
                };
                _before = std::mem::replace(seat.waiter(way), waiter);
            }
            ready
        })
    }

    /// The system said that nothing is there to be read, or no room: the next event will tell.
    pub(super) fn note_exhausted(&self, place: &Place, way: Way) -> io::Result<()> {
        self.look(place, |seat| match way {
            Way::In => seat.arrival = Arrival::Nothing,
            Way::Out => seat.outlet = Outlet::Full,
        })
    }

    /// Less was read than there was room for: that was all, but for an end that was told of.
    pub(super) fn note_emptied(&self, place: &Place) -> io::Result<()> {
        self.look(place, |seat| match seat.arrival {
            Arrival::Something => seat.arrival = Arrival::Nothing,
            Arrival::Nothing | Arrival::End => (),
        })
    }

    /// Keeps what found no room: it follows when there is some, behind what was kept before.
    pub(super) fn keep(&self, place: &Place, rest: &[u8]) {
        self.change(place, |seat| {
            seat.outlet = Outlet::Full;
            seat.owed.keep(rest);
        });
    }

    /// Nothing more is sent to it, and its connection ends.
    pub(super) fn break_off(&self, place: &Place) {
        self.change(place, |seat| {
            seat.owed = Owed::Broken;
            seat.with_socket(|socket, _| hang_up(socket));
        });
    }

    /// Nothing more is sent to it, also of what was kept.
    pub(super) fn give_up(&self, place: &Place) {
        self.change(place, |seat| seat.owed = Owed::Broken);
    }

    /// Whether nothing that was posted to it waits for room.
    ///
    /// # Errors
    /// Something that was posted to it can't be sent, or nothing at all.
    pub(super) fn has_caught_up(&self, place: &Place) -> io::Result<bool> {
        if self.owing.get() == 0 {
            return if self.is_ours(place) { Ok(true) } else { Err(elsewhere()) };
        }
        self.look(place, |seat| match seat.owed {
            Owed::Nothing => Ok(true),
            Owed::Behind(_) => Ok(false),
            Owed::Broken => Err(io::ErrorKind::BrokenPipe.into()),
        })?
    }

    /// Changes what is owed to it. Whoever leaves his place sends before that what he has posted.
    fn change(&self, place: &Place, change: impl FnOnce(&mut Seat)) {
        drop(self.look(place, |seat| self.count(seat, change)));
    }

    /// Counts a seat by what is owed to it behind this.
    fn count(&self, seat: &mut Seat, change: impl FnOnce(&mut Seat)) {
        let before = seat.owed.is_nothing();
        change(seat);
        let owing = self.owing.get();
        match (before, seat.owed.is_nothing()) {
            (true, false) => self.owing.set(owing + 1),
            (false, true) => self.owing.set(owing.saturating_sub(1)),
            (true, true) | (false, false) => (),
        }
    }

    const fn is_ours(&self, place: &Place) -> bool {
        place.reactor == self.reactor.get()
    }

    fn look<T>(&self, place: &Place, at: impl FnOnce(&mut Seat) -> T) -> io::Result<T> {
        if !self.is_ours(place) {
            return Err(elsewhere());
        }
        let mut seats = self.seats.borrow_mut();
        let seat = seats.get_mut(wide(place.index)).filter(|seat| seat.number == place.number);
        seat.map(at).ok_or_else(elsewhere)
    }

    /// Waits for events, at most so long, and makes ready who waits for them.
    pub(super) fn wait(&self, most: Option<Duration>, executor: &Executor) -> io::Result<Heard> {
        let mut queue = self.queue.borrow_mut();
        let (poll, events) = queue.as_mut().ok_or_else(elsewhere)?;
        match poll.poll(events, most) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Heard::Sockets),
            waited => waited?,
        }
        let mut heard = Heard::Sockets;
        for event in &*events {
            if event.token() == BELL {
                heard = Heard::Bell;
                continue;
            }
            let (index, number) = seat(event.token());
            let mut seats = self.seats.borrow_mut();
            // It may be another's by now: an event can be older than its place.
            if let Some(seat) = seats.get_mut(index).filter(|seat| seat.number == number) {
                seat.note(event);
                self.count(seat, Seat::catch_up);
                let (reader, writer) = (seat.leaves(Way::In), seat.leaves(Way::Out));
                drop(seats);
                reader.wake(executor);
                writer.wake(executor);
            }
        }
        Ok(heard)
    }
}

impl Seat {
    fn is_ready(&self, way: Way) -> bool {
        match way {
            Way::In => self.arrival != Arrival::Nothing,
            Way::Out => self.outlet == Outlet::Room,
        }
    }

    #[expect(unsafe_code, reason = "a seat can't own the socket, which its owner gets back")]
    fn with_socket<T>(&mut self, at: impl FnOnce(BorrowedFd<'_>, &mut Owed) -> T) -> T {
        // SAFETY: `Registered` leaves its seat before it closes its socket or gives it away, and
        // does neither where it can't.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        at(socket, &mut self.owed)
    }

    /// What was posted goes before all else, and nobody has to wait for that.
    fn catch_up(&mut self) {
        if self.outlet == Outlet::Full {
            return;
        }
        self.with_socket(|socket, owed| owed.catch_up(socket));
        if matches!(self.owed, Owed::Behind(_)) {
            self.outlet = Outlet::Full;
        }
    }

    fn waiter(&mut self, way: Way) -> &mut Waiter {
        match way {
            Way::In => &mut self.reader,
            Way::Out => &mut self.writer,
        }
    }

    /// Who waited for what is there now.
    fn leaves(&mut self, way: Way) -> Waiter {
        if self.is_ready(way) {
            std::mem::replace(self.waiter(way), Waiter::Nobody)
        } else {
            Waiter::Nobody
        }
    }

    /// What the kernel says.
    fn note(&mut self, event: &Event) {
        let failed = event.is_error();
        if failed || event.is_read_closed() {
            self.arrival = Arrival::End;
        } else if event.is_readable() && self.arrival == Arrival::Nothing {
            self.arrival = Arrival::Something;
        }
        if failed || event.is_writable() || event.is_write_closed() {
            self.outlet = Outlet::Room;
        }
    }
}

impl Waiter {
    fn wake(self, executor: &Executor) {
        match self {
            Self::Nobody => (),
            Self::Task(task) => executor.make_ready(task),
            Self::Other(waker) => waker.wake(),
        }
    }
}

/// Both numbers of a place. There is no place of the highest index, which is the bell's.
fn token(place: &Place) -> Token {
    Token(wide(place.number) << 32 | wide(place.index))
}

/// A place's index and its number.
fn seat(token: Token) -> (usize, u32) {
    (token.0 & wide(u32::MAX), u32::try_from(token.0 >> 32).unwrap_or(u32::MAX))
}

fn elsewhere() -> io::Error {
    io::Error::other("the socket belongs to another thread; this is a defect")
}
