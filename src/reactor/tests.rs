//! Every promise of a reactor, each with a shard of its own: who waits is woken, nobody is kept
//! from his turn, and what ends leaves nothing behind.

use super::*;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use tokio::sync::{Notify, oneshot};

/// Longest for what is done at once, or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs this as a shard does.
pub(super) fn on_a_shard<T, F>(begin: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (tell, told) = mpsc::channel();
    let shard = thread::spawn(move || drop(tell.send(run(begin()).unwrap())));
    let outcome = told.recv_timeout(PATIENCE);
    if outcome.is_err() && shard.is_finished() {
        shard.join().unwrap();
    }
    outcome.expect("who was told to wait was never woken")
}

type Here = Registered<UnixStream>;

pub(super) fn pair() -> (Here, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    (Registered::new(here).unwrap(), there)
}

async fn receive(stream: &Here) -> Vec<u8> {
    let mut room = [0; 16];
    let bytes = poll_fn(|context| stream.poll_receive(context, &mut room)).await.unwrap();
    room[..bytes].to_vec()
}

/// Polls once: nothing is there, and this task waits from now on.
async fn wait(stream: &Here) {
    let polled =
        poll_fn(|context| Poll::Ready(stream.poll_receive(context, &mut [0; 16]).is_pending()));
    assert!(polled.await, "nothing was sent");
}

/// Lets every other task that is ready have its turn.
pub(super) async fn give_way() {
    let mut gave = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits until there is something.
async fn until_heard(stream: &Here) {
    poll_fn(|context| stream.poll_peek(context, &mut [0; 1])).await.unwrap();
}

/// Starts a task, and returns what waits for what it comes to.
pub(super) fn spawn_for<T: 'static>(
    task: impl Future<Output = T> + 'static,
) -> impl Future<Output = T> + 'static {
    let (tell, told) = oneshot::channel();
    spawn("a task", async move { drop(tell.send(task.await)) });
    async { told.await.expect("the task was dropped") }
}

/// Gives way until it is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        give_way().await;
    }
}

#[test]
fn who_waits_is_woken_by_each_thing_that_comes_and_by_the_end() {
    let read = on_a_shard(|| async {
        let (here, mut there) = pair();
        let read = Rc::new(Cell::new(0));
        let reads = Rc::clone(&read);
        let reader = spawn_for(async move {
            loop {
                wait(&here).await;
                wait(&here).await;
                match receive(&here).await.len() {
                    0 => return reads.get(),
                    more => reads.set(reads.get() + more),
                }
            }
        });
        for sent in 0..3 {
            until(|| read.get() == 4 * sent).await;
            give_way().await;
            there.write_all(b"more").unwrap();
        }
        until(|| read.get() == 12).await;
        drop(there);
        reader.await
    });
    assert_eq!(read, 12);
}

/// The kernel tells of both in one event, and of neither again.
#[test]
fn an_end_behind_what_was_read_is_found() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        there.write_all(b"last").unwrap();
        drop(there);
        assert_eq!(receive(&here).await, b"last");
        assert_eq!(receive(&here).await, b"");
        assert_eq!(receive(&here).await, b"");
    });
}

/// A pooled backend goes from task to task.
#[test]
fn who_takes_over_is_woken_and_not_who_waited_before() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let woken = Rc::new(Cell::new(0));
        let first = {
            let woken = Rc::clone(&woken);
            spawn_for(async move {
                wait(&here).await;
                (here, woken)
            })
        };
        let (here, woken) = first.await;
        let waits_for_ever = poll_fn(move |_| {
            woken.set(woken.get() + 1);
            Poll::<()>::Pending
        });
        spawn("a task in the place of the first", waits_for_ever);
        let second = spawn_for(async move { receive(&here).await });
        give_way().await;
        there.write_all(b"hello").unwrap();
        assert_eq!(second.await, b"hello");
    });
}

/// Another may take what a task was woken for.
#[test]
fn who_was_woken_for_nothing_is_woken_again() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        there.write_all(b"gone").unwrap();
        let taker = here.socket().try_clone().unwrap();
        poll_fn(|context| here.poll_peek(context, &mut [0; 1])).await.unwrap();
        assert_eq!((&taker).read(&mut [0; 16]).unwrap(), 4);
        let reader = spawn_for(async move { receive(&here).await });
        give_way().await;
        there.write_all(b"there").unwrap();
        assert_eq!(reader.await, b"there");
    });
}

#[test]
fn what_is_looked_at_stays_and_silence_is_known() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        assert!(here.is_quiet());
        there.write_all(b"hello").unwrap();
        let mut seen = [0; 2];
        let peeked = poll_fn(|context| here.poll_peek(context, &mut seen)).await;
        assert_eq!((peeked.unwrap(), &seen), (2, b"he"));
        assert!(!here.is_quiet());
        assert_eq!(receive(&here).await, b"hello");
        assert!(here.is_quiet());
        drop(there);
        poll_fn(|context| here.poll_peek(context, &mut seen)).await.unwrap();
        assert!(!here.is_quiet());
    });
}

#[test]
fn who_finds_no_room_is_woken_when_there_is_some() {
    let (sent, read) = on_a_shard(|| async {
        const SENT: usize = 4 << 20;
        let (here, mut there) = pair();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).map(|read| (read, all.iter().all(|byte| *byte == 7)))
        });
        let mut sent = 0;
        while sent < SENT {
            let piece = vec![7; 60_000.min(SENT - sent)];
            sent += poll_fn(|context| here.poll_send(context, &piece)).await.unwrap();
            let pieces = [io::IoSlice::new(&[7]), io::IoSlice::new(&[7, 7])];
            sent += poll_fn(|context| here.poll_send_vectored(context, &pieces)).await.unwrap();
        }
        poll_fn(|context| here.poll_sent(context)).await.unwrap();
        drop(here);
        (sent, reader.join().unwrap().unwrap())
    });
    assert_eq!((sent, true), (read.0, read.1));
}

#[test]
fn who_reads_and_who_writes_wait_side_by_side() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        there.set_nonblocking(true).unwrap();
        let here = Rc::new(here);
        let to_write = Rc::clone(&here);
        let filled = Rc::new(Cell::new(0));
        let sent = Rc::clone(&filled);
        let writer = spawn_for(async move {
            loop {
                let write = |context: &mut Context<'_>| to_write.poll_send(context, &[7; 4096]);
                match poll_fn(|context| Poll::Ready(write(context))).await {
                    Poll::Ready(bytes) => sent.set(sent.get() + bytes.unwrap()),
                    Poll::Pending => return poll_fn(write).await.unwrap(),
                }
            }
        });
        give_way().await;
        let to_read = Rc::clone(&here);
        let reader = spawn_for(async move { receive(&to_read).await });
        give_way().await;
        there.write_all(b"hello").unwrap();
        assert_eq!(reader.await, b"hello");
        let to_read = Rc::clone(&here);
        let reader = spawn_for(async move { receive(&to_read).await });
        give_way().await;
        let mut taken = vec![0; filled.get()];
        there.read_exact(&mut taken).unwrap();
        assert!(writer.await > 0);
        there.write_all(b"world").unwrap();
        assert_eq!(reader.await, b"world");
    });
}

/// One that is always ready must not keep the others of its shard from their turn.
#[test]
fn who_always_finds_something_gives_way() {
    let turns = on_a_shard(|| async {
        const READS: usize = 4096;
        let (here, mut there) = pair();
        there.write_all(&[0; READS]).unwrap();
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        spawn("another", async move {
            loop {
                counted.set(counted.get() + 1);
                give_way().await;
            }
        });
        let reader = spawn_for(async move {
            until_heard(&here).await;
            let before = turns.get();
            for _ in 0..READS {
                let one = poll_fn(|context| here.poll_receive(context, &mut [0; 1])).await;
                assert_eq!(one.unwrap(), 1);
            }
            turns.get() - before
        });
        reader.await
    });
    assert!(turns > 10, "4,096 reads, and nobody had a turn between");
}

/// Tasks that always make each other ready must not keep sockets from being looked at.
#[test]
fn who_is_always_ready_does_not_keep_sockets_from_being_heard() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        for _ in 0..3 {
            spawn("restless", async {
                loop {
                    give_way().await;
                }
            });
        }
        let reader = spawn_for(async move { receive(&here).await });
        give_way().await;
        there.write_all(b"hello").unwrap();
        assert_eq!(reader.await, b"hello");
    });
}

#[test]
fn another_thread_wakes_a_shard_that_sleeps_and_one_that_does_not() {
    on_a_shard(|| async {
        const ROUNDS: u32 = 20_000;
        let (go, gone) = tokio::sync::mpsc::channel::<u32>(1);
        let (answer, mut answered) = tokio::sync::mpsc::channel::<u32>(4);
        let other = thread::spawn(move || {
            let mut gone = gone;
            while let Some(number) = gone.blocking_recv() {
                answer.blocking_send(number).unwrap();
            }
        });
        for number in 0..ROUNDS {
            go.send(number).await.unwrap();
            assert_eq!(answered.recv().await, Some(number));
        }
        drop(go);
        other.join().unwrap();
    });
}

#[test]
fn many_tasks_are_woken_by_many_threads() {
    on_a_shard(|| async {
        let all: FuturesUnordered<_> = (0..500)
            .map(|number| {
                let (tell, told) = oneshot::channel();
                thread::spawn(move || tell.send(number).unwrap());
                spawn_for(async move { told.await.unwrap() })
            })
            .collect();
        assert_eq!(all.fold(0, |sum, number| async move { sum + number }).await, 124_750);
    });
}

/// What wakes a task may outlive it, and somebody else be in its place by then.
#[test]
fn who_is_over_is_not_woken_and_neither_is_who_came_after() {
    on_a_shard(|| async {
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = Rc::clone(&kept);
        spawn_for(poll_fn(move |context| {
            keep.replace(Some(context.waker().clone()));
            Poll::Ready(())
        }))
        .await;
        let old = kept.take().unwrap();
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        let new = Rc::clone(&kept);
        spawn(
            "in its place",
            poll_fn(move |context| {
                counted.set(counted.get() + 1);
                new.replace(Some(context.waker().clone()));
                Poll::Pending
            }),
        );
        until(|| polls.get() == 1).await;
        old.wake_by_ref();
        thread::spawn(move || old.wake()).join().unwrap();
        for _ in 0..10 {
            give_way().await;
        }
        assert_eq!(polls.get(), 1);
        kept.take().unwrap().wake();
        until(|| polls.get() == 2).await;
    });
}

/// Some futures wake by wakers of their own, and poll only who was woken by that.
#[test]
fn a_future_with_a_waker_of_its_own_is_woken() {
    on_a_shard(|| async {
        let (one, mut to_one) = pair();
        let (two, mut to_two) = pair();
        let reader = spawn_for(async move {
            let both: FuturesUnordered<_> = [receive(&one), receive(&two)].into_iter().collect();
            both.collect::<Vec<_>>().await
        });
        give_way().await;
        to_two.write_all(b"two").unwrap();
        give_way().await;
        to_one.write_all(b"one").unwrap();
        let mut read = reader.await;
        read.sort();
        assert_eq!(read, [b"one", b"two"]);
    });
}

/// What wakes may take other sockets with it, when it wakes and when it is let go.
#[test]
fn a_waker_may_let_go_of_sockets() {
    struct Holder(Mutex<Option<Here>>);
    impl Wake for Holder {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    fn poll_by(here: &Here, holder: Arc<Holder>) {
        let waker = Waker::from(holder);
        let polled = here.poll_receive(&mut Context::from_waker(&waker), &mut [0; 16]);
        assert!(polled.is_pending());
    }
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let (held, mut from_held) = pair();
        poll_by(&here, Arc::new(Holder(Mutex::new(Some(held)))));
        wait(&here).await;
        assert_eq!(from_held.read(&mut [0; 1]).unwrap(), 0, "let go with its waker");

        let (held, mut from_held) = pair();
        let holder = Arc::new(Holder(Mutex::new(Some(held))));
        poll_by(&here, Arc::clone(&holder));
        there.write_all(b"hello").unwrap();
        until(|| holder.0.lock().unwrap().is_none()).await;
        assert_eq!(from_held.read(&mut [0; 1]).unwrap(), 0, "let go when it woke");
        assert_eq!(receive(&here).await, b"hello");
    });
}

#[test]
fn a_panic_ends_its_own_task_only() {
    struct Heavy;
    impl Drop for Heavy {
        fn drop(&mut self) {
            panic!("on purpose, too");
        }
    }
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let reader = spawn_for(async move { receive(&here).await });
        let (kept, lost) = oneshot::channel::<()>();
        spawn("a defect", async move {
            give_way().await;
            let _kept = kept;
            panic!("on purpose");
        });
        let heavy = Heavy;
        let ends_at_once = poll_fn(move |_| {
            let _kept = &heavy;
            Poll::Ready(())
        });
        spawn("one whose end is a defect", ends_at_once);
        lost.await.unwrap_err();
        there.write_all(b"hello").unwrap();
        assert_eq!(reader.await, b"hello");
    });
}

#[test]
fn tasks_end_with_their_shard_and_leave_nothing_behind() {
    let (kept, waker) = on_a_shard(|| async {
        let whole = Arc::new(Notify::new());
        let kept = Arc::downgrade(&whole);
        let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = Rc::clone(&waker);
        let (here, _there) = pair();
        spawn("one that waits", async move {
            let _both = (whole, here);
            poll_fn(|context| {
                keep.replace(Some(context.waker().clone()));
                Poll::<()>::Pending
            })
            .await;
        });
        until(|| waker.borrow().is_some()).await;
        (kept, waker.take().unwrap())
    });
    // It was told before the end.
    let begun = crate::clock::now();
    while kept.upgrade().is_some() && crate::clock::now().since(begun) < PATIENCE {
        thread::yield_now();
    }
    assert!(kept.upgrade().is_none());
    waker.wake();
}

#[test]
fn without_a_shard_nothing_is_started_and_within_one_no_second() {
    let (kept, lost) = oneshot::channel::<()>();
    spawn("nowhere", async move {
        drop(kept);
        pending::<()>().await;
    });
    lost.blocking_recv().unwrap_err();
    let (here, _there) = UnixStream::pair().unwrap();
    Registered::new(here).unwrap_err();
    assert!(!is_here());
    on_a_shard(|| async {
        assert!(is_here());
        run(async {}).unwrap_err();
    });
}

/// What serves it may be another thread that never rests.
#[test]
fn who_is_served_by_a_channel_gives_way() {
    let turns = on_a_shard(|| async {
        const SENT: u32 = 4096;
        let (source, mut channel) = tokio::sync::mpsc::channel(4096);
        for number in 0..SENT {
            source.try_send(number).unwrap();
        }
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        spawn("another", async move {
            loop {
                counted.set(counted.get() + 1);
                give_way().await;
            }
        });
        let reader = spawn_for(async move {
            for _ in 0..SENT {
                poll_fn(|context| poll_turn(context)).await;
                channel.recv().await.unwrap();
            }
            turns.get()
        });
        reader.await
    });
    assert!(turns > 10, "4,096 messages, and nobody had a turn between");
    let context = Context::from_waker(Waker::noop());
    assert!((0..1000).all(|_| poll_turn(&context).is_ready()), "there is no shard here");
}

/// A look that must not be fooled: a backend of which a task that has read much thinks that nothing
/// has come is lent although it is closed.
#[test]
fn a_look_afresh_sees_what_has_come_also_behind_much_that_was_read() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        there.write_all(b"hello").unwrap();
        until_heard(&here).await;
        let looker = spawn_for(poll_fn(move |context| {
            while poll_turn(context).is_ready() {}
            let mut look = || here.poll_receive(context, &mut [0; 1]).is_pending();
            Poll::Ready((look(), afresh(&mut look), look()))
        }));
        assert_eq!(looker.await, (true, false, true));
    });
}

/// It must not be taken for another one's, nor be waited for in vain.
#[test]
fn a_socket_of_another_shard_is_refused() {
    let (here, _there) = on_a_shard(|| async { pair() });
    on_a_shard(|| async move {
        let (own, mut there) = pair();
        let error = poll_fn(|context| here.poll_receive(context, &mut [0; 1])).await.unwrap_err();
        assert!(error.to_string().contains("another thread"), "{error}");
        poll_fn(|context| here.poll_send(context, b"x")).await.unwrap_err();
        here.into_socket().unwrap_err();
        there.write_all(b"hello").unwrap();
        assert_eq!(receive(&own).await, b"hello");
    });
}

/// The kernel's queue has it once, or not at all.
#[test]
fn a_socket_leaves_and_comes_back() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let here = Registered::new(here.into_socket().unwrap()).unwrap();
        there.write_all(b"hello").unwrap();
        assert_eq!(receive(&here).await, b"hello");
    });
}

#[test]
fn a_socket_moves_from_one_shard_to_another() {
    let (moved, mut there) = on_a_shard(|| async {
        let (here, there) = pair();
        (here.into_socket().unwrap(), there)
    });
    there.write_all(b"hello").unwrap();
    let read = on_a_shard(|| async { receive(&Registered::new(moved).unwrap()).await });
    assert_eq!(read, b"hello");
}
