//! A client's bytes behind its login: messages, and groups of them.

use super::{Whim, message};
use pgsteer::session::{
    End, Executes, GROUP_MAX, MessageLimits, Names, Reader, Scan, Violation, scan, survey,
};
use pgsteer::sql::{Dialect, Facts, examine};
use pgsteer::wire::frame;
use pgsteer::wire::watch::Watch;
use std::sync::Arc;

/// What finds the first group, as [`scan`] does.
pub(crate) type Groups<'g> = &'g dyn Fn(&[u8], &mut Reader<'_>) -> Result<Scan, Violation>;

/// Anything.
pub(crate) fn run(data: &[u8]) {
    headers_are_where_they_say(data);
    a_stream_that_is_passed_on_is_followed(data);
    groups_as_they_arrive(data, &scan);
    groups_of_two_are_groups_of_each(data);
}

/// The headers are those that a reader finds who counts by hand.
fn headers_are_where_they_say(data: &[u8]) {
    let mut at = 0;
    loop {
        let rest = &data[at.min(data.len())..];
        let by_hand = (rest.len() >= 5).then(|| {
            let length = rest[1..5].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
            (rest[0], length)
        });
        match (frame::peek(rest), by_hand) {
            (Ok(None), None) => return,
            (Err(_), Some((_, length))) => {
                return assert!(!(4..1 << 30).contains(&length), "{length} is a length");
            }
            (Ok(Some(found)), Some((tag, length))) => {
                assert!((4..1 << 30).contains(&length), "{length} is no length");
                assert_eq!((found.tag, found.total), (tag, usize::try_from(length).unwrap() + 1));
                at += found.total;
            }
            (found, by_hand) => panic!("{found:?}, not {by_hand:?}"),
        }
    }
}

/// Who only watches the bytes pass in pieces tells the messages that who has them all finds.
fn a_stream_that_is_passed_on_is_followed(data: &[u8]) {
    let (mut at, mut tags, mut end) = (0, Vec::new(), Ok(()));
    while let Some(rest) = data.get(at..).filter(|_| end.is_ok()) {
        match frame::peek(rest) {
            Ok(Some(header)) => {
                tags.push(header.tag);
                at += header.total;
            }
            Ok(None) => break,
            Err(error) => end = Err(error),
        }
    }
    let (mut watch, mut told, mut passed) = (Watch::default(), Vec::new(), Ok(()));
    let (mut whim, mut rest) = (Whim::of(data), data);
    while !rest.is_empty() && passed.is_ok() {
        let (piece, behind) = rest.split_at(1 + whim.below(rest.len().min(20)));
        passed = watch.pass(piece, &mut |tag| told.push(tag));
        rest = behind;
    }
    assert_eq!((told, &passed), (tags, &end));
    assert!(end.is_err() || watch.is_between() == (at == data.len()));
}

/// What was found, in order.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Group { bytes: usize, end: End, executes: Executes, mentioned: usize },
    PassedOver(usize),
    Goodbye,
    Refused(String),
}

/// The same groups are found whether all bytes come at once or in any pieces.
pub(crate) fn groups_as_they_arrive(data: &[u8], find: Groups<'_>) {
    // Where a batch is cut that fills the buffer does depend on it.
    if data.len() >= GROUP_MAX {
        return;
    }
    let at_once = found(data, find, &mut |left| left);
    let mut whim = Whim::of(data);
    let mut few = |left: usize| 1 + whim.below(left.min(40));
    let in_pieces = found(data, find, &mut few);
    assert_eq!(at_once, in_pieces, "it depends on how the bytes arrive");
}

/// Goodbyes and refusals apart, what comes behind changes nothing before.
fn groups_of_two_are_groups_of_each(data: &[u8]) {
    let mut whim = Whim::of(data);
    let (one, two) = data.split_at(whim.below(data.len() + 1));
    let first = found(one, &scan, &mut |left| left);
    let whole: usize = first
        .iter()
        .map(|found| match found {
            Found::Group { bytes, .. } | Found::PassedOver(bytes) => *bytes,
            Found::Goodbye | Found::Refused(_) => usize::MAX / 4,
        })
        .sum();
    if whole == one.len() {
        let both = found(data, &scan, &mut |left| left);
        let second = found(two, &scan, &mut |left| left);
        assert_eq!(both, first.into_iter().chain(second).collect::<Vec<_>>());
    }
}

/// Feeds the bytes as they come and takes what is found, as the frontend does.
fn found(data: &[u8], find: Groups<'_>, piece: &mut dyn FnMut(usize) -> usize) -> Vec<Found> {
    let (names, mut all) = (Names::default(), Vec::new());
    let (mut taken, mut arrived, mut framed) = (0_usize, 0, 0);
    let mut look = |sql: &[u8]| -> Arc<Facts> { Arc::new(examine(sql, Dialect::default())) };
    loop {
        let mut mentioned = Vec::new();
        let scanned = find(
            data.get(taken..arrived).unwrap_or(&[]),
            &mut Reader {
                most: MessageLimits::default(),
                names: &names,
                unnamed: None,
                examine: &mut look,
                framed: &mut framed,
                mentioned: &mut mentioned,
            },
        );
        match scanned {
            Ok(Scan::Incomplete) if arrived == data.len() => return all,
            Ok(Scan::Incomplete) => arrived += piece(data.len() - arrived),
            Ok(Scan::Group(group)) => {
                let bytes = &data[taken..taken + group.bytes];
                surveyed(bytes);
                all.push(Found::Group {
                    bytes: group.bytes,
                    end: group.end,
                    executes: group.executes,
                    mentioned: mentioned.len(),
                });
                taken += group.bytes;
                assert!(group.bytes > 0 && taken <= arrived, "what has not come is no group");
            }
            Ok(Scan::Leftover(bytes)) => {
                all.push(Found::PassedOver(bytes));
                taken += bytes;
                arrived = arrived.max(taken.min(data.len()));
            }
            Ok(Scan::Terminate) => {
                all.push(Found::Goodbye);
                return all;
            }
            Err(violation) => {
                all.push(Found::Refused(violation.to_string()));
                return all;
            }
        }
    }
}

/// A group that was found can be read by those who read it after.
fn surveyed(group: &[u8]) {
    let portals = pgsteer::session::OwnPortals::default();
    let mut known = pgsteer::session::Known {
        names: &Names::default(),
        unnamed: None,
        portals: &portals,
        examine: &mut |sql| Arc::new(examine(sql, Dialect::default())),
        is_own: &|facts| facts.shown().is_some(),
    };
    drop(survey(group, &mut known));
}

/// A conversation.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let parse = message(b'P', b"name\0SELECT $1\0\0\0");
    let bind = message(b'B', b"portal\0name\0\0\0\0\0\0\0");
    let describe = message(b'D', b"Sname\0");
    let execute = message(b'E', b"portal\0\0\0\0\0");
    let sync = frame::SYNC.to_vec();
    vec![
        message(b'Q', b"SELECT 1\0"),
        [parse.clone(), bind.clone(), describe, execute, sync.clone()].concat(),
        [parse.clone(), message(b'H', b""), bind, sync].concat(),
        [parse, message(b'Q', b"SELECT 2\0")].concat(),
        message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        [message(b'd', b"1\n2\n"), message(b'c', b"")].concat(),
        message(b'f', b"no\0"),
        message(b'C', b"Sname\0"),
        message(b'X', b""),
    ]
}
