//! The client's conversation without a socket: groups found in every split of their bytes, names
//! replaced, replies told apart.

use pgsteer::session::{
    Builder, Cut, Disposition, End, Executes, GROUP_MAX, Held, Library, MessageLimits, Names,
    PreparedBySql, Reader, Reading, Recall, Renamed, Replies, Scan, Settings, Strays, Tally, Undo,
    UnnamedThere, scan,
};
use pgsteer::sql::{Dialect, Facts, examine};
use pgsteer::wire::frame;
use std::sync::Arc;

pub(crate) fn facts(sql: &[u8]) -> Arc<Facts> {
    Arc::new(examine(sql, Dialect::default()))
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, b'P', |out| {
        frame::write_text(out, name.as_bytes());
        frame::write_text(out, sql.as_bytes());
        out.extend_from_slice(&[0, 0]);
    });
    out
}

pub(crate) fn bind(portal: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, b'B', |out| {
        frame::write_text(out, portal.as_bytes());
        frame::write_text(out, name.as_bytes());
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
    });
    out
}

pub(crate) fn describe(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, b'D', |out| {
        out.push(b'S');
        frame::write_text(out, name.as_bytes());
    });
    out
}

pub(crate) fn execute() -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, b'E', |out| out.extend_from_slice(&[0, 0, 0, 0, 0]));
    out
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, b'Q', |out| frame::write_text(out, sql.as_bytes()));
    out
}

pub(crate) fn sync() -> Vec<u8> {
    frame::SYNC.to_vec()
}

pub(crate) fn message(tag: u8) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, tag, |_| ());
    out
}

/// Scans with what one session knows.
fn scanned(bytes: &[u8], names: &Names) -> (Result<Scan, pgsteer::session::Violation>, usize) {
    let mut mentioned = Vec::new();
    let found = scan(
        bytes,
        &mut Reader {
            most: MessageLimits::default(),
            names,
            unnamed: None,
            examine: &mut |sql| facts(sql),
            framed: &mut 0,
            mentioned: &mut mentioned,
        },
    );
    (found, mentioned.len())
}

/// A batch of many short messages is sent on when the buffer is full, wherever its end is.
#[test]
fn a_batch_is_cut_where_the_buffer_is_full() {
    let one = [parse("", "SELECT 1"), bind("", ""), execute()].concat();
    let batch = one.repeat(GROUP_MAX / one.len() + 2);
    let longest = batch.len() - 1;
    let (found, mentioned) = scanned(&batch[..longest], &Names::default());
    let Ok(Scan::Group(group)) = found else { panic!("more was waited for") };
    assert_eq!(group.end, End::Cut { rest: 0, of: Cut::Batch });
    assert_eq!(group.executes, Executes::Something);
    assert!((GROUP_MAX..GROUP_MAX + one.len()).contains(&group.bytes), "{}", group.bytes);
    assert!(mentioned > 1);
    let (early, _) = scanned(&batch[..GROUP_MAX - 1], &Names::default());
    assert!(matches!(early, Ok(Scan::Incomplete)), "it may still end");
}

#[test]
fn a_group_is_found_only_when_it_is_whole_in_every_split() {
    let groups: [(&str, Vec<u8>, End); 4] = [
        ("query", query("SELECT 1"), End::Query),
        ("lone sync", sync(), End::Sync),
        ("extended", [parse("", "SELECT $1"), bind("", ""), execute(), sync()].concat(), End::Sync),
        ("flush", [parse("a", "SELECT 1"), describe("a"), message(b'H')].concat(), End::Flush),
    ];
    let names = Names::default();
    for (what, bytes, end) in groups {
        let followed = [bytes.clone(), query("SELECT 2")].concat();
        for split in 0..=followed.len() {
            let (found, _) = scanned(&followed[..split], &names);
            match found.unwrap() {
                Scan::Group(group) => {
                    assert!(split >= bytes.len(), "{what}: found in {split} bytes");
                    assert_eq!((group.bytes, group.end), (bytes.len(), end), "{what}");
                }
                Scan::Incomplete => assert!(split < bytes.len(), "{what}: not found in {split}"),
                other @ (Scan::Leftover(_) | Scan::Terminate) => panic!("{what}: {other:?}"),
            }
        }
    }
}

/// As some drivers do: `Close` goes out with whatever comes next.
#[test]
fn what_no_sync_has_ended_is_a_group_before_a_query() {
    let begun = [parse("a", "SELECT 1"), bind("", "a"), execute()].concat();
    for (next, end) in [(query("SELECT 2"), End::Query), (message(b'F'), End::Query)] {
        let bytes = [begun.clone(), next].concat();
        let (found, mentioned) = scanned(&bytes, &Names::default());
        let Ok(Scan::Group(group)) = found else { panic!("{found:?}") };
        assert_eq!((group.bytes, group.end, mentioned), (begun.len(), End::Flush, 1));
        let (found, _) = scanned(&bytes[begun.len()..], &Names::default());
        let Ok(Scan::Group(group)) = found else { panic!("{found:?}") };
        assert_eq!(group.end, end);
    }
    let copying = [begun.clone(), message(b'd')].concat();
    let (found, _) = scanned(&copying, &Names::default());
    assert!(matches!(found, Ok(Scan::Group(group)) if group.bytes == begun.len()));

    // The server sends its answers only if it is asked to.
    let mut desk = Desk::default();
    assert_eq!(tags(&desk.build(&begun)), "PBEH");
    assert_eq!(desk.answer("12DC").0, "12DC");
    let flushed = [bind("", "a"), execute(), message(b'H')].concat();
    assert_eq!(tags(&desk.build(&flushed)), "BEH", "once is enough");
    assert_eq!(desk.answer("E").0, "E");
    assert_eq!(tags(&desk.build(&execute())), "", "nothing is asked of one that skips");
}

#[test]
fn the_statements_of_a_group_are_named_once_each() {
    let names = Names::default();
    let bytes = [parse("", "SELECT 1"), describe(""), bind("", ""), execute(), sync()].concat();
    let (found, mentioned) = scanned(&bytes, &names);
    assert!(matches!(found, Ok(Scan::Group(group)) if group.executes == Executes::Something));
    assert_eq!(mentioned, 1);
    let (_, mentioned) = scanned(&[bind("", "unknown"), execute(), sync()].concat(), &names);
    assert_eq!(mentioned, 1, "a statement that is not known counts as one that is not known");
}

#[test]
fn bytes_that_are_no_messages_end_the_conversation_and_nothing_else() {
    let names = Names::default();
    // Every one- and two-byte change of a valid batch: an answer or a violation, never a panic.
    let valid = [parse("s", "SELECT 1"), bind("", "s"), execute(), sync()].concat();
    for at in 0..valid.len() {
        for value in 0..=255_u8 {
            let mut bytes = valid.clone();
            bytes[at] = value;
            drop(scanned(&bytes, &names));
            let next = (at + 1) % bytes.len();
            bytes[next] = bytes[next].wrapping_add(value);
            drop(scanned(&bytes, &names));
        }
    }
    for wrong in [query("x")[..5].to_vec(), message(b'p'), message(b'Z')] {
        let mut bytes = wrong;
        if bytes[0] == b'Q' {
            bytes[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        }
        assert!(scanned(&bytes, &names).0.is_err());
    }
}

#[test]
fn a_query_that_outgrows_the_buffer_is_cut_and_a_named_parse_refused() {
    let names = Names::default();
    let long = query(&format!("SELECT '{}'", "x".repeat(3 * 1024 * 1024)));
    let (found, _) = scanned(&long[..1024 * 1024], &names);
    let Ok(Scan::Group(group)) = found else { panic!("not cut: {found:?}") };
    assert_eq!(group.end, End::Cut { rest: long.len() - 1024 * 1024, of: Cut::Query });

    let mut refused = parse("s", "SELECT 1");
    refused[1..5].copy_from_slice(&(17 * 1024 * 1024_u32).to_be_bytes());
    assert!(scanned(&refused, &names).0.is_err());
}

/// What one backend and one client know.
pub(crate) struct Desk {
    pub(crate) names: Names,
    unnamed: Option<pgsteer::session::Unnamed>,
    there: UnnamedThere,
    held: Held,
    library: Library,
    /// `None`: not known.
    settings: Option<Settings>,
    pub(crate) replies: Replies,
    pub(crate) strays: Strays,
    by_sql: PreparedBySql,
    renamed: Vec<Renamed>,
    /// `None`: not to be shared.
    shape: Option<u64>,
    /// Whether statements without a name are found again.
    recall: Option<Recall>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            names: Names::default(),
            unnamed: None,
            there: UnnamedThere::default(),
            held: Held::default(),
            library: Library::default(),
            settings: Some(Settings::default()),
            replies: Replies::default(),
            strays: Strays::default(),
            by_sql: PreparedBySql::Nothing,
            renamed: Vec::new(),
            shape: Some(1),
            recall: None,
        }
    }
}

impl Desk {
    pub(crate) fn build(&mut self, group: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut builder = Builder {
            names: &mut self.names,
            unnamed: &mut self.unnamed,
            unnamed_there: &mut self.there,
            held: &mut self.held,
            library: &self.library,
            reading: self.settings.as_ref().map_or(Reading::Unknown, Reading::By),
            shape: &|| self.shape,
            recall: self.recall.as_mut(),
            replies: &mut self.replies,
            strays: &mut self.strays,
            by_sql: self.by_sql,
            renamed: &mut self.renamed,
            own: None,
            tally: Tally::default(),
        };
        builder.build(group, &mut |sql| facts(sql), &mut out).unwrap();
        out
    }

    /// Feeds the server's tags; the dispositions, with `1` for each answer that is put in.
    fn answer(&mut self, sent: &str) -> (String, Vec<Undo>) {
        let mut seen = String::new();
        let mut undone = Vec::new();
        for tag in sent.bytes() {
            seen.push_str(&tags(&self.replies.put_in()));
            let taken = self.replies.take(tag, &mut |undo| undone.push(undo)).unwrap();
            seen.push(if taken == Disposition::Forward { char::from(tag) } else { '-' });
        }
        seen.push_str(&tags(&self.replies.put_in()));
        (seen, undone)
    }
}

fn tags(bytes: &[u8]) -> String {
    let mut tags = String::new();
    let mut at = 0;
    while let Some(header) = frame::peek(&bytes[at..]).unwrap() {
        tags.push(char::from(header.tag));
        at += header.total;
    }
    tags
}

#[test]
fn a_named_statement_is_parsed_once_a_backend_and_its_answer_is_put_in() {
    let mut desk = Desk::default();
    let first = desk.build(&[parse("mine", "SELECT $1"), sync()].concat());
    assert_eq!(tags(&first), "PS");
    assert!(!first.windows(4).any(|name| name == b"mine"), "the client's name stays with us");
    assert_eq!(desk.answer("1Z").0, "1Z");

    // Another session, the same text and the same backend: nothing is sent.
    desk.names = Names::default();
    let second = desk.build(&[parse("other", "SELECT $1"), describe("other"), sync()].concat());
    assert_eq!(tags(&second), "DS");
    assert_eq!(desk.answer("tTZ").0, "1tTZ");

    // Another backend: what it lacks goes ahead, and its answer is ours.
    desk.held = Held::default();
    let third = desk.build(&[bind("", "other"), execute(), sync()].concat());
    assert_eq!(tags(&third), "PBES");
    assert_eq!(desk.answer("12DDCZ").0, "-2DDCZ");
}

/// What the text speaks of may be something else behind DDL.
#[test]
fn statements_are_shared_only_within_one_shape() {
    let mut desk = Desk::default();
    let fresh = |desk: &mut Desk, shape: Option<u64>| {
        desk.shape = shape;
        desk.names = Names::default();
        let sent = tags(&desk.build(&[parse("s", "SELECT $1"), sync()].concat()));
        let answers = if sent == "PS" { "1Z" } else { "Z" };
        assert_eq!(desk.answer(answers).0, "1Z");
        sent
    };
    assert_eq!(fresh(&mut desk, Some(1)), "PS");
    assert_eq!(fresh(&mut desk, Some(1)), "S");
    assert_eq!(fresh(&mut desk, Some(2)), "PS");
    assert_eq!(fresh(&mut desk, None), "PS", "nobody's but its own");
    assert_eq!(fresh(&mut desk, None), "PS", "nor the one before");
    assert_eq!(fresh(&mut desk, Some(2)), "S");
    // A name keeps the meaning that it had, on this backend and on others.
    desk.build(&[parse("kept", "SELECT $1"), sync()].concat());
    desk.answer("Z");
    desk.shape = Some(3);
    assert_eq!(tags(&desk.build(&[bind("", "kept"), execute(), sync()].concat())), "BES");
}

#[test]
fn what_comes_again_without_a_name_is_prepared_once_a_backend() {
    let mut desk = Desk { recall: Some(Recall::default()), ..Desk::default() };
    let sent = |desk: &mut Desk, sql: &str| {
        let batch = [parse("", sql), describe(""), bind("", ""), execute(), sync()].concat();
        let sent = tags(&desk.build(&batch));
        let answers = if sent.starts_with('P') { "1tT2DCZ" } else { "tT2DCZ" };
        assert_eq!(desk.answer(answers).0, "1tT2DCZ");
        sent
    };
    let sql = "SELECT a FROM t WHERE b = $1";
    assert_eq!(sent(&mut desk, sql), "PDBES", "as it is");
    assert_eq!(desk.held.len(), 0);
    assert_eq!(sent(&mut desk, sql), "PDBES", "under a name of ours");
    assert_eq!(desk.held.len(), 1);
    assert_eq!(sent(&mut desk, sql), "DBES");
    // Another backend.
    desk.held = Held::default();
    assert_eq!(sent(&mut desk, sql), "PDBES");
    assert_eq!(sent(&mut desk, sql), "DBES");
    // Another shape; and then nobody knows it.
    desk.shape = Some(2);
    assert_eq!(sent(&mut desk, sql), "PDBES");
    assert_eq!(sent(&mut desk, sql), "DBES");
    desk.shape = None;
    assert_eq!((sent(&mut desk, sql), sent(&mut desk, sql)), ("PDBES".into(), "PDBES".into()));
    desk.shape = Some(2);
    let held = desk.held.len();
    for sql in ["SELECT 'now'", "SELECT $$now$$", "INSERT INTO t VALUES (1)", "BEGIN"] {
        for _ in 0..4 {
            assert_eq!(sent(&mut desk, sql), "PDBES", "{sql}");
        }
    }
    assert_eq!(desk.held.len(), held);
}

/// A `Parse` that fails was never there.
#[test]
fn what_fails_without_a_name_is_not_held() {
    let mut desk = Desk { recall: Some(Recall::default()), ..Desk::default() };
    let batch = [parse("", "SELECT a FROM gone"), bind("", ""), execute(), sync()].concat();
    for _ in 0..3 {
        assert_eq!(tags(&desk.build(&batch)), "PBES");
        let (told, undone) = desk.answer("EZ");
        assert_eq!(told, "EZ");
        for undo in undone {
            if let Undo::Unnamed { held: Some(statement) } = undo {
                desk.held.remove(statement.id());
            }
        }
        assert_eq!(desk.held.len(), 0);
    }
}

/// A constant such as `'2024-01-01 00:00'::timestamptz` is read when it is prepared.
#[test]
fn statements_are_shared_only_by_those_who_read_them_alike() {
    let mut desk = Desk::default();
    let in_zone = |zone: &str| {
        let mut settings = Settings::default();
        settings.set("TimeZone", zone);
        // Of no account to what a text means.
        settings.set("application_name", &format!("in {zone}"));
        Some(settings)
    };
    let prepare = [parse("a", "SELECT '2024-01-01'::timestamptz"), sync()].concat();
    let sent = |desk: &mut Desk, settings: Option<Settings>| {
        desk.names = Names::default();
        desk.settings = settings;
        let sent = tags(&desk.build(&prepare));
        desk.answer(if sent == "PS" { "1Z" } else { "Z" });
        sent
    };
    assert_eq!(sent(&mut desk, in_zone("Asia/Tokyo")), "PS");
    assert_eq!(sent(&mut desk, in_zone("UTC")), "PS", "another reading is another statement");
    assert_eq!(sent(&mut desk, in_zone("Asia/Tokyo")), "S", "the first one's is still there");
    assert_eq!(sent(&mut desk, None), "PS", "who knows how it is read now?");
    assert_eq!(sent(&mut desk, None), "PS");

    // A session that reads otherwise by now, on a backend that has not got it: what is parsed
    // ahead there is not what others know by the old name.
    assert_eq!(sent(&mut desk, in_zone("UTC")), "S");
    (desk.held, desk.settings) = (Held::default(), in_zone("Asia/Tokyo"));
    assert_eq!(tags(&desk.build(&[bind("", "a"), execute(), sync()].concat())), "PBES");
    desk.answer("12CZ");
    assert_eq!(sent(&mut desk, in_zone("UTC")), "PS");
    assert_eq!(sent(&mut desk, in_zone("Asia/Tokyo")), "S");
}

/// So is `'today'`, by the clock: nobody is given another's, nor an earlier session's.
#[test]
fn statements_that_tell_the_time_are_not_shared() {
    let mut desk = Desk::default();
    let mut sent = |sql: &str| {
        desk.names = Names::default();
        let sent = tags(&desk.build(&[parse("a", sql), sync()].concat()));
        desk.answer(if sent == "PS" { "1Z" } else { "Z" });
        sent
    };
    for (sql, again) in [
        ("SELECT 1 WHERE d = 'today'", "PS"),
        ("SELECT date 'TODAY'", "PS"),
        ("INSERT INTO t VALUES (' Now '::timestamptz)", "PS"),
        ("INSERT INTO t VALUES ('now()')", "PS"),
        ("UPDATE t SET d = $$tomorrow$$", "PS"),
        ("DELETE FROM t WHERE d < 'yesterday 12:00'", "PS"),
        (r"SELECT E'\x6eow'::time", "PS"),
        (r"SELECT U&'\006eow'::time", "PS"),
        ("SELECT date 'to'\n'day'", "PS"),
        ("SELECT '{now,2024-01-01}'::timestamptz[]", "PS"),
        ("EXPLAIN SELECT date 'today'", "PS"),
        ("DECLARE c CURSOR FOR SELECT date 'today'", "PS"),
        ("CREATE TABLE x AS SELECT date 'today'", "PS"),
        ("CALL p('now')", "PS"),
        ("this is no SQL 'x'", "PS"),
        ("SELECT now(), 'x'", "S"),
        ("SELECT * FROM t WHERE word = 'known' OR word = 'snow' OR now = $1", "S"),
        (r"SELECT x ~ '^\d+$', E'\n' FROM today", "S"),
        ("SELECT '2024-01-01'::timestamptz", "S"),
    ] {
        assert_eq!(sent(sql), "PS", "{sql}");
        assert_eq!(sent(sql), again, "{sql}");
    }
    // Nor where it is prepared anew, on a backend that has not got it.
    let mut desk = Desk::default();
    desk.build(&[parse("a", "SELECT date 'today'"), sync()].concat());
    desk.answer("1Z");
    desk.held = Held::default();
    assert_eq!(tags(&desk.build(&[bind("", "a"), execute(), sync()].concat())), "PBES");
    desk.answer("12CZ");
    desk.names = Names::default();
    assert_eq!(tags(&desk.build(&[parse("a", "SELECT date 'today'"), sync()].concat())), "PS");
}

#[test]
fn what_an_error_skips_is_undone() {
    let mut desk = Desk::default();
    let batch = [parse("a", "SELEC 1"), parse("b", "SELECT 2"), bind("", "b"), execute(), sync()];
    desk.build(&batch.concat());
    let (seen, undone) = desk.answer("EZ");
    assert_eq!(seen, "EZ");
    let named = undone.iter().filter(|undo| matches!(undo, Undo::Name { .. })).count();
    assert_eq!(named, 2, "neither name stands for anything");
    assert!(desk.replies.is_settled());
}

#[test]
fn after_an_error_before_sync_everything_up_to_it_is_passed_over() {
    let mut desk = Desk::default();
    desk.build(&[parse("", "SELEC"), message(b'H')].concat());
    assert_eq!(desk.answer("E").0, "E");
    assert!(desk.replies.is_skipping());
    let rest = desk.build(&[bind("", ""), execute(), sync()].concat());
    assert_eq!(tags(&rest), "S");
    assert_eq!(desk.answer("Z").0, "Z");
}

#[test]
fn an_unnamed_statement_of_an_earlier_group_is_parsed_where_it_is_bound() {
    let mut desk = Desk::default();
    desk.build(&[parse("", "SELECT 1"), describe(""), sync()].concat());
    assert_eq!(desk.answer("1tTZ").0, "1tTZ");
    // The same backend still has it.
    assert_eq!(tags(&desk.build(&[bind("", ""), execute(), sync()].concat())), "BES");
    assert_eq!(desk.answer("2DCZ").0, "2DCZ");
    // Another one has not.
    desk.there = UnnamedThere::No;
    desk.held = Held::default();
    assert_eq!(tags(&desk.build(&[bind("", ""), execute(), sync()].concat())), "PBES");
    assert_eq!(desk.answer("12DCZ").0, "-2DCZ");
}

#[test]
fn a_name_that_is_taken_gets_the_servers_own_error() {
    let mut desk = Desk::default();
    desk.build(&[parse("s", "SELECT 1"), sync()].concat());
    desk.answer("1Z");
    let again = desk.build(&[parse("s", "SELECT 2"), sync()].concat());
    assert_eq!(tags(&again), "PPS");
    assert_eq!(desk.answer("1EZ").0, "-EZ");
    let strays = desk.strays.take_all();
    assert_eq!(strays.iter().map(|stray| &*stray.name).collect::<Vec<_>>(), [b"s"]);
}

/// What fails ahead of a `Query` has the server pass over it: nobody would be answered.
#[test]
fn names_that_sql_speaks_of_are_lent_in_a_way_that_can_not_fail() {
    let mut desk = Desk::default();
    desk.build(&[parse("s", "SELECT 1"), sync()].concat());
    desk.answer("1Z");
    for sql in ["PREPARE s AS SELECT 2", "DEALLOCATE s"] {
        assert_eq!(tags(&desk.build(&query(sql))), "CPQ", "{sql}");
        assert_eq!(desk.answer("31CZ").0, "--CZ", "{sql}");
    }
    assert_eq!(tags(&desk.build(&query("DEALLOCATE s"))), "Q", "it is nobody's name any more");
    desk.answer("EZ");

    // A name that SQL may have taken is tried first, ahead of what can fail.
    desk.by_sql = PreparedBySql::Perhaps;
    assert_eq!(tags(&desk.build(&[parse("t", "SELECT 4"), sync()].concat())), "PCPS");
    assert_eq!(desk.answer("131Z").0, "--1Z");
    assert_eq!(tags(&desk.build(&[parse("u", "SELECT 3"), sync()].concat())), "PCPS");
    assert_eq!(desk.answer("EZ").0, "EZ");
}

#[test]
fn a_message_that_nothing_asked_for_is_out_of_step() {
    for tag in *b"12T3CDZ" {
        let mut replies = Replies::default();
        assert!(replies.take(tag, &mut |_| ()).is_err(), "{}", char::from(tag));
    }
    for tag in *b"NSAE" {
        let mut replies = Replies::default();
        assert!(replies.take(tag, &mut |_| ()).is_ok(), "{}", char::from(tag));
    }
}

#[test]
fn a_cut_bind_keeps_its_length_with_its_new_name() {
    let mut desk = Desk::default();
    desk.build(&[parse("a_rather_long_name_of_the_client", "SELECT $1"), sync()].concat());
    desk.answer("1Z");
    let mut whole = bind("", "a_rather_long_name_of_the_client");
    whole.extend_from_slice(&[7; 100]);
    let length = u32::try_from(whole.len() - 1).unwrap();
    whole[1..5].copy_from_slice(&length.to_be_bytes());
    let cut = whole.len() - 60;
    let sent = desk.build(&whole[..cut]);
    let header = frame::peek(&sent).unwrap().unwrap();
    assert_eq!(header.total, sent.len() + 60, "the rest still belongs to the message");
}
