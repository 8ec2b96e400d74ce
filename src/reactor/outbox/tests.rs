//! Every promise of the outbox, with real sockets.

use super::*;
use crate::reactor;
use crate::reactor::tests::{give_way, on_a_shard, pair, spawn_for};
use crate::reactor::{HERE, Registered};
use std::cell::Cell;
use std::future::poll_fn;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;
use std::thread;

type Here = Registered<UnixStream>;

/// Somebody else is ready, so that what is written waits for him.
fn in_company() {
    reactor::spawn("company", async {});
}

async fn write(socket: &Here, bytes: &[u8]) {
    in_company();
    let written = poll_fn(|context| socket.poll_send(context, bytes)).await.unwrap();
    assert_eq!(written, bytes.len());
}

/// What the other side finds now.
fn found(there: &mut UnixStream) -> Vec<u8> {
    there.set_nonblocking(true).unwrap();
    let mut found = Vec::new();
    match there.read_to_end(&mut found) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => (),
        read => drop(read.unwrap()),
    }
    found
}

/// Writes short messages until the socket takes no more; how many bytes it took.
async fn fill(socket: &Here, byte: u8) -> usize {
    in_company();
    let mut taken = 0;
    poll_fn(|context| {
        loop {
            match socket.poll_send(context, &[byte; 1000]) {
                Poll::Ready(more) => taken += more.unwrap(),
                Poll::Pending => return Poll::Ready(()),
            }
            assert!(taken < 64 << 20, "it takes as much as anybody writes");
        }
    })
    .await;
    taken
}

/// There is nobody to be sent with.
#[test]
fn who_is_alone_sends_at_once() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let written = poll_fn(|context| here.poll_send(context, b"alone")).await.unwrap();
        assert_eq!(written, 5);
        assert_eq!(found(&mut there), b"alone");
    });
}

/// One behind the other, and while nobody has been woken to do so.
#[test]
fn what_is_short_is_sent_when_all_have_had_their_turn() {
    on_a_shard(|| async {
        let ((one, mut to_one), (other, mut to_other)) = (pair(), pair());
        write(&one, b"first").await;
        write(&other, b"other").await;
        write(&one, b"second").await;
        assert_eq!((found(&mut to_one), found(&mut to_other)), (vec![], vec![]));
        give_way().await;
        assert_eq!(found(&mut to_one), b"firstsecond");
        assert_eq!(found(&mut to_other), b"other");
    });
}

#[test]
fn a_thread_that_sleeps_has_sent_all() {
    on_a_shard(|| async {
        let (asks, mut there) = pair();
        let answers = thread::spawn(move || {
            let mut heard = [0; 8];
            there.read_exact(&mut heard).unwrap();
            std::io::Write::write_all(&mut there, &heard).unwrap();
        });
        write(&asks, b"are you ").await;
        let mut room = [0; 8];
        poll_fn(|context| asks.poll_receive(context, &mut room)).await.unwrap();
        assert_eq!(&room, b"are you ");
        answers.join().unwrap();
    });
}

#[test]
fn what_is_long_goes_at_once_and_behind_what_was_short() {
    on_a_shard(|| async {
        let ((here, mut there), (other, mut to_other)) = (pair(), pair());
        write(&other, b"other").await;
        write(&here, b"short").await;
        write(&here, &[7; LETTER_MAX + 1]).await;
        assert_eq!(found(&mut there), [b"short".as_slice(), &[7; LETTER_MAX + 1]].concat());
        assert_eq!(found(&mut to_other), b"other");
    });
}

/// The first waits for no more than that.
#[test]
fn a_full_outbox_is_sent() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        for _ in 1..LETTERS {
            write(&here, b"x").await;
        }
        assert_eq!(found(&mut there), b"");
        write(&here, b"x").await;
        assert_eq!(found(&mut there), [b'x'; LETTERS]);
    });
}

#[test]
fn who_is_about_to_compute_sends_first() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        write(&here, b"x").await;
        reactor::send_now();
        assert_eq!(found(&mut there), b"x");
    });
}

#[test]
fn a_socket_is_closed_or_given_away_behind_what_was_written() {
    on_a_shard(|| async {
        let ((closed, mut there), (given, mut to_given)) = (pair(), pair());
        write(&closed, b"goodbye").await;
        drop(closed);
        assert_eq!(found(&mut there), b"goodbye");
        write(&given, b"wait").await;
        let given = given.into_socket().unwrap();
        assert_eq!(found(&mut to_given), b"wait");
        drop(given);
    });
    // Also when the thread is done with it.
    let (_here, mut there) = on_a_shard(|| async {
        let (here, there) = pair();
        write(&here, b"the last").await;
        (here, there)
    });
    assert_eq!(found(&mut there), b"the last");
}

/// Whoever wrote it may do something else meanwhile, or nothing.
#[test]
fn what_finds_no_room_follows_though_nobody_waits_for_that() {
    let (taken, read) = on_a_shard(|| async {
        let (here, mut there) = pair();
        let taken = fill(&here, 7).await;
        give_way().await;
        let reader = thread::spawn(move || {
            let mut all = vec![0; taken];
            there.read_exact(&mut all).map(|()| (all.iter().all(|byte| *byte == 7), there))
        });
        // This task waits for something that comes from elsewhere, and the thread sleeps.
        let (ours, theirs) = tokio::sync::oneshot::channel();
        thread::spawn(move || drop(ours.send(reader.join().unwrap().unwrap())));
        let (all, mut there) = theirs.await.unwrap();
        write(&here, b"next").await;
        reactor::send_now();
        assert_eq!(found(&mut there), b"next");
        (taken, all)
    });
    assert!(taken > LETTER_MAX && read, "{taken} bytes");
}

/// While somebody reads, so that there is room at any moment or not.
#[test]
fn what_is_long_does_not_overtake_what_is_short() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).unwrap();
            all.chunks(4).map(|number| u32::from_be_bytes(number.try_into().unwrap())).collect()
        });
        let mut next = 0_u32;
        for turn in 0..3000 {
            let count = if turn % 3 == 2 { 3000 } else { 400 };
            let mut bytes: Vec<u8> = (next..next + count).flat_map(u32::to_be_bytes).collect();
            while !bytes.is_empty() {
                let sent = poll_fn(|context| here.poll_send(context, &bytes)).await.unwrap();
                bytes.drain(..sent);
            }
            next += count;
        }
        poll_fn(|context| here.poll_sent(context)).await.unwrap();
        drop(here);
        let read: Vec<u32> = reader.join().unwrap();
        assert!(read.iter().copied().eq(0..next), "{} of {next} numbers", read.len());
    });
}

/// Else it would take as much as anybody writes.
#[test]
fn a_socket_without_room_takes_nothing_more() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let taken = fill(&here, 7).await;
        assert_eq!(fill(&here, 8).await, 0);
        // Neither what is long, which would overtake the rest.
        let long = poll_fn(|context| Poll::Ready(here.poll_send(context, &[8; 9000]).is_pending()));
        assert!(long.await);
        let mut all = Vec::new();
        while all.len() < taken {
            all.extend(found(&mut there));
            give_way().await;
        }
        assert!(all.iter().all(|byte| *byte == 7));
    });
}

/// Who closes it behind a last word waits for this.
#[test]
fn it_is_known_when_all_was_sent() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let here = Rc::new(here);
        write(&here, b"word").await;
        poll_fn(|context| here.poll_sent(context)).await.unwrap();
        assert_eq!(found(&mut there), b"word");
        let taken = fill(&here, 7).await;
        let waiting = Rc::clone(&here);
        let waits = poll_fn(move |context| Poll::Ready(waiting.poll_sent(context).is_pending()));
        assert!(waits.await, "there was room for {taken} bytes");
        let waiting = Rc::clone(&here);
        let sent = spawn_for(async move { poll_fn(|context| waiting.poll_sent(context)).await });
        let mut all = Vec::new();
        while all.len() < taken {
            all.extend(found(&mut there));
            give_way().await;
        }
        sent.await.unwrap();
        let socket = Rc::into_inner(here).unwrap().into_socket();
        drop(socket.expect("it has nothing behind"));
    });
}

#[test]
fn a_socket_that_is_behind_is_not_given_away() {
    on_a_shard(|| async {
        let (here, _there) = pair();
        fill(&here, 7).await;
        let error = here.into_socket().unwrap_err();
        assert!(error.to_string().contains("does not read"), "{error}");
    });
}

/// Its reader is told, though the other side is there; whoever writes more is told, too, also what
/// would be held back; and nothing of that is sent.
#[test]
fn a_connection_to_which_nothing_can_be_sent_ends() {
    on_a_shard(|| async {
        let (here, _there) = pair();
        rustix::net::shutdown(here.socket(), Shutdown::Write).unwrap();
        write(&here, b"x").await;
        let read = poll_fn(|context| here.poll_receive(context, &mut [0; 1])).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::BrokenPipe);
        for message in [&[8; 10][..], &[8; 9000]] {
            let more = poll_fn(|context| here.poll_send(context, message)).await;
            assert_eq!(more.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        let sent = poll_fn(|context| here.poll_sent(context)).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
        // Others have nothing to do with it.
        let (other, mut there) = pair();
        write(&other, b"other").await;
        give_way().await;
        assert_eq!(found(&mut there), b"other");
    });
}

/// What was behind then is lost to both sides: what it was followed by would not make sense.
#[test]
fn a_connection_that_breaks_while_something_is_behind_ends() {
    on_a_shard(|| async {
        let (here, there) = pair();
        fill(&here, 7).await;
        drop(there);
        let more = poll_fn(|context| here.poll_send(context, b"more")).await;
        assert_eq!(more.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let read = poll_fn(|context| here.poll_receive(context, &mut [0; 1])).await;
        read.unwrap_err();
    });
}

/// The other side need not read for that, and is read on.
#[test]
fn our_side_ends_at_once_whatever_is_behind() {
    on_a_shard(|| async {
        let (here, mut there) = pair();
        let taken = fill(&here, 7).await;
        here.end_writing().unwrap();
        let all = found(&mut there);
        assert!(all.len() < taken && all.iter().all(|byte| *byte == 7));
        // There is room again, and that is no news.
        reactor::spawn("awake", async {});
        give_way().await;
        there.write_all(b"bye").unwrap();
        let mut room = [0; 9];
        let read = poll_fn(|context| here.poll_receive(context, &mut room)).await.unwrap();
        assert_eq!(&room[..read], b"bye");
        give_way().await;
        assert_eq!(found(&mut there), b"", "nothing follows");
        // What was written and is held back still goes.
        let (here, mut there) = pair();
        write(&here, b"last").await;
        here.end_writing().unwrap();
        assert_eq!(found(&mut there), b"last");
    });
}

/// As if everything had slept since something was posted.
fn sleep_upon_it() {
    let long_ago = clock::now() - LATE - Duration::from_millis(1);
    HERE.with(|here| here.outbox.posted.borrow_mut().since.replace(long_ago)).unwrap();
}

/// Who was the primary when it was written may have been replaced while everything slept.
#[test]
fn what_was_slept_upon_is_sent_to_a_server_only_if_it_may_be() {
    for (late, heard) in [(Late::HangUp, &b""[..]), (Late::Send, b"COMMIT")] {
        on_a_shard(move || async move {
            reactor::judge_late(move || late);
            let (here, mut there) = pair();
            write(&here, b"COMMIT").await;
            sleep_upon_it();
            give_way().await;
            assert_eq!(found(&mut there), heard);
            let read = poll_fn(|context| Poll::Ready(here.poll_receive(context, &mut [0; 1])));
            assert_eq!(read.await.is_ready(), late == Late::HangUp, "whether it has ended");
        });
    }
}

/// Whoever judges that is asked only then.
#[test]
fn what_is_in_time_is_sent_to_servers_unasked() {
    on_a_shard(|| async {
        let asked = Rc::new(Cell::new(0));
        let counts = Rc::clone(&asked);
        reactor::judge_late(move || {
            counts.set(counts.get() + 1);
            Late::Send
        });
        // A thread that stands still for so long is late, each time anew.
        for round in 0.. {
            let (here, mut there) = pair();
            write(&here, b"COMMIT").await;
            give_way().await;
            assert_eq!(found(&mut there), b"COMMIT");
            if asked.get() <= round {
                return;
            }
            assert!(round < 5, "it asks always");
        }
    });
}

/// What a client is told is still true, and it keeps its connection, whatever else is late.
#[test]
fn what_was_slept_upon_is_told_to_a_client() {
    on_a_shard(|| async {
        reactor::judge_late(|| Late::HangUp);
        let (server, _its) = pair();
        let (socket, mut there) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let here = Registered::of_client(socket).unwrap();
        write(&here, b"done").await;
        write(&server, b"COMMIT").await;
        sleep_upon_it();
        give_way().await;
        assert_eq!(found(&mut there), b"done");
        let read = poll_fn(|context| Poll::Ready(here.poll_receive(context, &mut [0; 1])));
        assert!(read.await.is_pending(), "it goes on");
    });
}
