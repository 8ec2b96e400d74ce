//! What a client can make its shard do with a megabyte: never more than the megabyte is worth.
//!
//! A shard serves many, and nobody may hold it up by messages that are all in order. Each of these
//! floods once took time that grew with the square of what was sent.

use crate::session::{Desk, bind, describe, execute, facts, message, parse, query, sync};
use pgsteer::session::{
    End, GROUP_MAX, Group, MessageLimits, Names, Reader, Scan, Strays, Violation, scan,
};
use pgsteer::wire::frame;
use std::time::Duration;

/// What this thread has worked so far: waiting for others does not count.
pub(crate) fn worked() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap())
}

/// What it has worked since then.
pub(crate) fn since(began: Duration) -> Duration {
    worked().saturating_sub(began)
}

/// More than any flood takes in a build without optimisation, and far less than it took.
const ENOUGH: Duration = Duration::from_secs(5);

/// A client's bytes as they wait to be sent on.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// How much of them was sent on.
    taken: usize,
    framed: usize,
    examined: usize,
}

impl Inbox {
    fn scan(&mut self, names: &Names) -> Result<Scan, Violation> {
        let examined = &mut self.examined;
        let mut reader = Reader {
            most: MessageLimits::default(),
            names,
            unnamed: None,
            examine: &mut |sql| {
                *examined += 1;
                facts(sql)
            },
            framed: &mut self.framed,
            mentioned: &mut Vec::new(),
        };
        scan(&self.bytes[self.taken..], &mut reader)
    }
}

fn group(found: Result<Scan, Violation>) -> Option<Group> {
    match found.unwrap() {
        Scan::Group(group) => Some(group),
        Scan::Incomplete => None,
        other @ (Scan::Leftover(_) | Scan::Terminate) => panic!("{other:?}"),
    }
}

/// One packet a byte: the batch is not read again for each.
#[test]
fn a_batch_is_looked_into_once_however_it_arrives() {
    let batch = [parse("a", "SELECT 1"), parse("b", "SELECT 2"), describe("b")].concat().repeat(50);
    let names = Names::default();
    let mut inbox = Inbox::default();
    for byte in &batch {
        inbox.bytes.push(*byte);
        assert!(group(inbox.scan(&names)).is_none());
        assert_eq!(inbox.examined, 0);
    }
    assert_eq!(inbox.framed, batch.len(), "nothing is walked through twice");
    inbox.bytes.extend(sync());
    let found = group(inbox.scan(&names)).expect("a whole group");
    assert_eq!((found.bytes, found.end), (inbox.bytes.len(), End::Sync));
    assert_eq!((inbox.examined, inbox.framed), (100, 0));
}

/// Wherever the end of the buffer lies in a batch, what is cut there can be given its name on the
/// servers.
#[test]
fn no_message_is_cut_within_its_names() {
    let names = Names::default();
    let behind = [bind("a portal", "a statement"), parse("", "SELECT 1"), execute()].concat();
    for begun in 0..behind.len() {
        // So many bytes of `behind` are the last of the buffer.
        let text = "x".repeat(GROUP_MAX - begun - parse("long", "").len());
        let whole = [parse("long", &text), behind.clone()].concat();
        let mut inbox = Inbox { bytes: whole[..GROUP_MAX].to_vec(), ..Inbox::default() };
        // What is short is waited for, and so is a header.
        let found = loop {
            if let Some(found) = group(inbox.scan(&names)) {
                break found;
            }
            assert!(inbox.bytes.len() < GROUP_MAX + execute().len(), "{begun}: not cut");
            inbox.bytes.push(whole[inbox.bytes.len()]);
        };
        let mut desk = Desk::default();
        let sent = desk.build(&inbox.bytes[..found.bytes]);
        assert!(sent.len() > GROUP_MAX / 2, "{begun}");

        // What is left goes on where that has ended.
        let End::Cut { rest, .. } = found.end else { panic!("{begun}: {found:?}") };
        inbox.bytes = whole[found.bytes + rest..].to_vec();
        inbox.bytes.extend(sync());
        let found = group(inbox.scan(&names)).unwrap_or_else(|| panic!("{begun}: no end"));
        assert_eq!((found.bytes, found.end), (inbox.bytes.len(), End::Sync), "{begun}");
    }
}

/// A limit holds for what arrives in one piece as for what arrives in two, and what has no limit
/// is not judged before that is known.
#[test]
fn a_limit_does_not_depend_on_packets() {
    let nobodys = Names::default();
    let refused = |bytes: &[u8]| {
        let mut inbox = Inbox { bytes: bytes.to_vec(), ..Inbox::default() };
        matches!(inbox.scan(&nobodys), Err(Violation::TooLong { .. }))
    };
    let long = describe(&"x".repeat(70_000));
    for arrived in [frame::HEADER, 1_000, long.len()] {
        assert!(refused(&long[..arrived]), "{arrived}");
    }
    let mut unnamed = parse("", "SELECT 1");
    unnamed[1..5].copy_from_slice(&(20 * 1024 * 1024_u32).to_be_bytes());
    let mut named = parse("a", "SELECT 1");
    named[1..5].copy_from_slice(&(20 * 1024 * 1024_u32).to_be_bytes());
    for arrived in frame::HEADER..unnamed.len() {
        assert!(!refused(&unnamed[..arrived]), "{arrived}");
        assert_eq!(refused(&named[..arrived]), arrived > frame::HEADER, "{arrived}");
    }
}

/// What is sent, by its number.
type One<'o> = &'o dyn Fn(usize) -> Vec<u8>;

/// Sends a megabyte of it, has the server answer, and says how long that took.
fn flood(one: One<'_>, answers: &str) -> Duration {
    let mut bytes = Vec::new();
    let mut count = 0;
    while bytes.len() < GROUP_MAX - 100 {
        bytes.extend(one(count));
        count += 1;
    }
    bytes.extend(sync());
    let began = worked();
    let mut desk = Desk::default();
    let mut inbox = Inbox { bytes, ..Inbox::default() };
    // As the frontend does, but for the bytes that it moves.
    while let Some(found) = group(inbox.scan(&desk.names)) {
        desk.build(&inbox.bytes[inbox.taken..][..found.bytes]);
        std::hint::black_box(desk.replies.relies_on_held());
        inbox.taken += found.bytes;
        if since(began) > ENOUGH {
            break;
        }
    }
    // A round more than are due, for the `Sync` behind them all.
    for tag in answers.repeat(count + 1).bytes() {
        desk.replies.put_in();
        std::hint::black_box(desk.replies.success());
        // In the last round not every answer is due.
        std::hint::black_box(desk.replies.take(tag, &mut drop).is_ok());
        if since(began) > ENOUGH {
            break;
        }
    }
    since(began)
}

#[test]
fn no_megabyte_holds_a_shard_up() {
    fn name(number: usize) -> String {
        format!("s{number}")
    }
    let floods: [(&str, One<'_>, &str); 7] = [
        ("parse", &|at| parse(&name(at), "a"), "1"),
        ("describe", &|at| [parse(&name(at), "a"), describe("none")].concat(), "1tn"),
        ("bind", &|at| [bind("", &name(at)), execute()].concat(), "2C"),
        ("execute", &|_| execute(), "C"),
        ("sync", &|_| sync(), "Z"),
        ("error", &|_| [execute(), sync()].concat(), "EZ"),
        ("query", &|_| query(""), "IZ"),
    ];
    for (what, one, answers) in floods {
        let took = flood(one, answers);
        assert!(took < ENOUGH, "{what}: {took:?}");
    }
    // A flood of what ends a group by itself is as many groups.
    assert!(flood(&|_| message(b'H'), "N") < ENOUGH);
}

/// A text of the length that is parsed may name one statement thousands of times: the backend is
/// lent that once, and nobody looks through all the names for each.
#[test]
fn a_name_that_a_text_repeats_is_lent_once() {
    let lent = |piece: &str| {
        let mut desk = Desk::default();
        desk.build(&[parse("s", "SELECT 1"), sync()].concat());
        let text = query(&piece.repeat(60_000 / piece.len()));
        let began = worked();
        let sent = desk.build(&text);
        let took = since(began);
        assert!(took < ENOUGH, "{piece}: {took:?}");
        sent.len() - text.len()
    };
    let once = lent(&format!("PREPARE s AS VALUES(1){};", " ".repeat(59_000)));
    assert!(once > 0);
    for piece in ["PREPARE s AS VALUES(1);", "PREPARE s AS VALUES(1);EXECUTE s;"] {
        assert_eq!(lent(piece), once, "{piece}");
    }
}

/// What speaks of a client's name may be bound as often as a megabyte holds: nobody looks through
/// what was lent before, and what was noted of a name is not noted again.
#[test]
fn a_name_that_is_bound_again_and_again_is_noted_once() {
    let names: Vec<String> = (0..2_000).map(|number| format!("s{number}")).collect();
    let many = names.iter().map(|name| format!("PREPARE {name} AS VALUES(1);"));
    let many = many.collect::<Vec<_>>().concat();
    for text in ["PREPARE s0 AS SELECT 1", many.as_str()] {
        let mut desk = Desk::default();
        for name in &names {
            desk.build(&parse(name, "SELECT 1"));
        }
        desk.build(&[parse("p", text), parse("q", "SELECT 2")].concat());
        let some = [bind("", "p").repeat(500), bind("", "q"), execute()].concat();
        let began = worked();
        for _ in 0..GROUP_MAX / some.len() {
            let sent = desk.build(&some);
            assert!(sent.len() < 10 * some.len(), "{text:.30}: {} bytes", sent.len());
            let took = since(began);
            assert!(took < ENOUGH, "{text:.30}: {took:?}");
        }
        assert!(desk.strays.len() <= 1, "{text:.30}: {}", desk.strays.len());
    }
}

/// A name that a transaction gives and takes away again and again is noted once, with what had it
/// last; and what is kept of others so is counted.
#[test]
fn a_name_that_is_taken_away_again_and_again_is_noted_once() {
    let (mut strays, mut desk) = (Strays::default(), Desk::default());
    let mut prepared = |text: &str| {
        desk.build(&parse(text, text));
        desk.names.get(text.as_bytes()).cloned()
    };
    for name in ["a", "\u{e4}"] {
        let name = name.as_bytes();
        for number in 0..1_000 {
            let text = format!("SELECT {number}");
            strays.give(name, prepared(&text));
            strays.give(name, None);
            if number % 2 == 0 {
                strays.note_letters(Some("UTF8"));
            }
        }
    }
    strays.note_letters(Some("UTF8"));
    assert_eq!(strays.len(), 2);
    assert!(strays.bytes() < 1_000, "{}", strays.bytes());
    let last: Vec<_> = strays.take_all().into_iter().map(|stray| stray.before.unwrap()).collect();
    for before in last {
        assert_eq!(before.text(), Some(&b"SELECT 999"[..]));
    }
    let distinct = 100;
    for number in 0..distinct {
        let text = format!("SELECT '{}'", "x".repeat(1_000));
        strays.give(format!("s{number}").as_bytes(), prepared(&text));
    }
    assert!(strays.bytes() > distinct * 1_000, "{}", strays.bytes());
}
