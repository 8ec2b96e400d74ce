//! The first packet of a connection, which anybody can send.

use super::Whim;
use pgsteer::wire::message;
use pgsteer::wire::startup::{CancelKey, FirstPacket, Startup, StartupError, read, size};

/// Anything, and the same behind a version and a length that fit.
pub(crate) fn run(data: &[u8]) {
    look(data);
    for code in [[0, 3, 0, 0], [0, 3, 0, 2], [4, 210, 22, 46]] {
        look(&packet(code, data));
    }
}

fn packet(code: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code, body].concat()
}

fn look(data: &[u8]) {
    let whole = read(data);
    // Its size is known from its beginning, whatever follows.
    for cut in 4..data.len().min(12) {
        assert_eq!(size(&data[..cut]), size(data), "{cut}");
    }
    assert_eq!(size(&data[..data.len().min(3)]), Ok(None));
    if let Ok(packet) = &whole {
        assert_eq!(size(data), Ok(Some(data.len())));
        // One byte more or less is another packet, which is cut short or too long.
        assert_eq!(read(&[data, b"x"].concat()), Err(StartupError::Length));
        assert_eq!(read(&data[..data.len() - 1]), Err(StartupError::Length));
        understood(packet, data);
    }
    if let Err(error) = whole {
        let report = error.report();
        assert!(!report.message.is_empty());
    }
}

/// What was read is what was written.
fn understood(packet: &FirstPacket, data: &[u8]) {
    match packet {
        FirstPacket::Ssl | FirstPacket::GssEnc => assert_eq!(data.len(), 8),
        FirstPacket::Cancel(CancelKey { pid, key }) => {
            let mut again = Vec::new();
            message::write_cancel_request(&mut again, *pid, key);
            assert_eq!(again, data);
        }
        FirstPacket::Startup(startup) => {
            named_as_said(startup, &data[8..]);
            written_again(startup);
        }
    }
}

/// User and database are those that a reader finds who knows nothing but zeros; the last of a name
/// counts.
fn named_as_said(startup: &Startup, body: &[u8]) {
    let texts: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
    let last = |name: &[u8]| {
        let pair = texts.chunks(2).rev().find(|pair| pair.len() == 2 && pair[0] == name);
        pair.map(|pair| pair[1]).filter(|value| !value.is_empty())
    };
    let user = last(b"user").unwrap_or_else(|| panic!("nobody comes in without a name"));
    let database = last(b"database").unwrap_or(user);
    for (read, said) in [(&startup.user, user), (&startup.database, database)] {
        assert!(said.starts_with(read.as_bytes()), "{read:?} of {said:?}");
        // A server keeps 63 bytes, and no part of a character.
        let whole = read.len() == said.len() || (60..=63).contains(&read.len());
        assert!(whole, "{read:?} of {said:?}");
    }
}

fn written_again(startup: &Startup) {
    let params = [("user", &*startup.user), ("database", &*startup.database)];
    let mut out = Vec::new();
    if message::write_startup(&mut out, &params).is_ok() {
        let Ok(FirstPacket::Startup(again)) = read(&out) else { panic!("{startup:?}") };
        assert_eq!((&again.user, &again.database), (&startup.user, &startup.database));
    }
}

/// One of each kind.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut whim = Whim::of(b"");
    let long = vec![b'x'; 60 + whim.below(8)];
    let bodies: [&[u8]; 6] = [
        b"user\0alice\0database\0shop\0\0",
        b"user\0alice\0options\0-c work_mem=1MB --search-path=a\\ b\0\0",
        b"user\0alice\0replication\0database\0_pq_.fancy\x001\0\0",
        b"user\0\xC3\xA9\0application_name\0\xFF\0\0",
        b"user\0a\0user\0b\0\0",
        b"\0\0\x04\xD2abcd",
    ];
    let mut seeds: Vec<_> = bodies.iter().map(|body| body.to_vec()).collect();
    seeds.push([b"user\0", &*long, b"\xC3\xA9\xC3\xA9\0\0"].concat());
    seeds.push(message::SSL_REQUEST.to_vec());
    seeds.push(packet([4, 210, 22, 48], b""));
    seeds
}
