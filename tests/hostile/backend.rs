//! A server's bytes: messages that are read whole, and answers that are told apart.

use super::{Whim, message};
use pgsteer::session::{Disposition, Expect, Replies, Undo};
use pgsteer::wire::message as wire;
use std::collections::BTreeSet;

/// Anything: as messages, as the answers of a server that lies, and as those of one that does not.
pub(crate) fn run(data: &[u8]) {
    for tag in *b"RESKZCTDNAp" {
        look(&message(tag, data));
    }
    look(data);
    a_server_that_lies(data);
    an_honest_server(data);
}

/// What can be read is what was written, and nothing more.
fn look(whole: &[u8]) {
    let mut again = Vec::new();
    if let Ok(columns) = wire::read_data_row(whole) {
        wire::write_data_row(&mut again, &columns);
    } else if let Ok((name, value)) = wire::read_parameter_status(whole) {
        wire::write_parameter_status(&mut again, name, value);
    } else if let Ok(found) = wire::read_key_data(whole) {
        wire::write_key_data(&mut again, found.pid, found.key);
    } else if let Ok(status) = wire::read_ready(whole) {
        wire::write_ready(&mut again, status);
    } else if let Ok(tag) = wire::read_command_complete(whole) {
        again = message(b'C', &[tag, b"\0"].concat());
    } else if let Ok(found) = wire::read_notification(whole) {
        let texts = [found.channel, b"\0", found.payload, b"\0"].concat();
        again = message(b'A', &[&found.pid.to_be_bytes(), &*texts].concat());
    } else {
        return others(whole);
    }
    // The length is the framer's affair.
    assert_eq!(again.get(5..), whole.get(5..), "{whole:?}");
}

/// Those that are not written by us, or not in one way alone: nothing in them is from elsewhere.
fn others(whole: &[u8]) {
    if let Ok(names) = wire::read_columns(whole) {
        let length: usize = names.iter().map(|name| name.len() + 1 + 18).sum();
        assert_eq!(length + 2 + 5, whole.len());
    }
    if let Ok(fields) = wire::read_error(whole) {
        assert!(whole.ends_with(b"\0"));
        let texts = [Some(fields.message), fields.detail, fields.hint, fields.routine];
        for text in texts.into_iter().flatten().filter(|text| !text.is_empty()) {
            assert!(whole.windows(text.len()).any(|window| window == text));
        }
    }
    if let Ok(request) = wire::read_auth_request(whole) {
        let mut again = Vec::new();
        let writable = !matches!(request, wire::AuthRequest::Other(_));
        if writable && wire::write_auth_request(&mut again, &request).is_ok() {
            assert_eq!(wire::read_auth_request(&again), Ok(request));
        }
    }
}

/// A note that can be told from every other.
fn note(number: usize) -> Undo {
    Undo::Name { name: number.to_be_bytes().into(), before: None, held: None }
}

/// Takes a note back, which must have been given and not been taken back before.
fn taken_back(open: &mut BTreeSet<usize>, undo: Undo) {
    let Undo::Name { name, .. } = undo else { panic!("nobody noted {undo:?}") };
    let number = usize::from_be_bytes((&*name).try_into().unwrap());
    assert!(open.remove(&number), "undone twice: {number}");
}

/// Whatever comes, each message is somebody's or the end, no note is undone twice, and afterwards
/// all can be given up.
fn a_server_that_lies(data: &[u8]) {
    let mut replies = Replies::default();
    let mut open = BTreeSet::new();
    for (number, byte) in data.iter().enumerate() {
        if *byte < 0x20 {
            open.insert(number);
            let undo = || note(number);
            match byte % 11 {
                0 => replies.expect(Expect::Parse(undo())),
                1 => replies.expect(Expect::OwnParse(undo())),
                2 => replies.expect(Expect::KnownParse(undo())),
                3 => replies.expect(Expect::Close(undo())),
                4 => replies.expect(Expect::OwnClose(undo())),
                5 => replies.expect(Expect::Own(b"2\0\0\0\x04".to_vec(), undo())),
                6 => replies.expect(Expect::Bind),
                7 => replies.expect(Expect::Describe),
                8 => replies.expect(Expect::Execute),
                9 => replies.expect_ready(),
                _ => replies.expect(Expect::OwnFailure),
            }
            continue;
        }
        put_in(&mut replies);
        assert!(!replies.puts_in_now());
        if *byte == b'G' {
            // It is looked at once the answer was taken for what was asked.
            if replies.take(b'G', &mut |undo| taken_back(&mut open, undo)).is_ok() {
                replies.copy_in_begins();
            }
            continue;
        }
        let settled = replies.is_settled();
        let taken = replies.take(*byte, &mut |undo| taken_back(&mut open, undo));
        if taken.is_err() {
            assert_eq!(replies.is_settled(), settled, "an answer to nothing answered something");
        }
        assert!(taken.is_ok() || !matches!(byte, b'N' | b'S' | b'A' | b'E'));
    }
    replies.abandon(&mut |undo| taken_back(&mut open, undo));
    assert!(replies.is_settled() && !replies.relies_on_held() && !replies.is_skipping());
}

/// A server that does what it is asked, and fails now and then: the client is told what it would
/// have been told without us, and nothing is left.
fn an_honest_server(data: &[u8]) {
    let mut replies = Replies::default();
    let mut whim = Whim::of(data);
    for batch in data.chunks(12) {
        let fails_at = if whim.below(3) == 0 { whim.below(batch.len()) } else { usize::MAX };
        let (mut sent, mut due) = (String::new(), String::new());
        let mut failed = false;
        for (number, byte) in batch.iter().enumerate() {
            let (expect, answer, shown) = asked(*byte);
            replies.expect(expect);
            failed |= number == fails_at && !answer.is_empty();
            if failed {
                if number == fails_at {
                    sent.push('E');
                    due.push('E');
                }
                continue;
            }
            if whim.below(4) == 0 {
                sent.push('N');
                due.push('N');
            }
            sent.push_str(answer);
            due.push_str(shown);
        }
        replies.expect_ready();
        sent.push('Z');
        due.push('Z');
        let mut told = String::new();
        for tag in sent.bytes() {
            told.push_str(&put_in(&mut replies));
            match replies.take(tag, &mut |_| ()).unwrap_or_else(|why| panic!("{sent}: {why}")) {
                Disposition::Forward => told.push(char::from(tag)),
                Disposition::Swallow => {}
            }
        }
        told.push_str(&put_in(&mut replies));
        // When it comes among what is put in does not matter.
        let without_notices = |text: &str| text.replace('N', "");
        assert_eq!(without_notices(&told), without_notices(&due), "of {sent}");
        assert_eq!(told.matches('N').count(), due.matches('N').count());
        assert!(replies.is_settled() && !replies.is_skipping());
    }
}

fn put_in(replies: &mut Replies) -> String {
    replies.put_in().chunks(5).map(|message| char::from(message[0])).collect()
}

/// What is asked of the server by a byte, what it answers, and what of it the client sees.
fn asked(byte: u8) -> (Expect, &'static str, &'static str) {
    let own = b"3\0\0\0\x04".to_vec();
    match byte % 11 {
        0 => (Expect::Parse(Undo::Nothing), "1", "1"),
        1 => (Expect::OwnParse(Undo::Nothing), "1", ""),
        2 => (Expect::KnownParse(Undo::Nothing), "", "1"),
        3 => (Expect::Bind, "2", "2"),
        4 => (Expect::Describe, "tT", "tT"),
        5 => (Expect::Describe, "n", "n"),
        6 => (Expect::Execute, "DDC", "DDC"),
        7 => (Expect::Execute, "s", "s"),
        8 => (Expect::Close(Undo::Nothing), "3", "3"),
        9 => (Expect::OwnClose(Undo::Nothing), "3", ""),
        _ => (Expect::Own(own, Undo::Nothing), "", "3"),
    }
}

/// Bodies of messages, and answers.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 12] = [
        b"SERROR\0VERROR\0C42P01\0Mno\0Dbecause\0Hthen\0Rf\0\0",
        b"TimeZone\0UTC\0",
        b"\0\0\0\x07\0\0\x01\0",
        b"I",
        b"SELECT 1\0",
        b"\0\x01one\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        b"\0\x02\0\0\0\x01a\xff\xff\xff\xff",
        b"\0\0\0\x07channel\0payload\0",
        b"\0\0\0\x0ASCRAM-SHA-256\0\0",
        b"\0\0\0\x05salt",
        b"\x00\x06\x07\x08\x09121tTDCZ",
        b"\x00\x02\x05\x08\x09EZ\x08\x09GZNAS",
    ];
    bodies.iter().map(|body| body.to_vec()).collect()
}
