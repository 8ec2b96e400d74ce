//! Clients of every kind at work, none of whom may notice more of a switchover than a wait.
//!
//! What each was told is kept here, outside pgsteer, and held against the tables at the end.

use crate::support::House;
use crate::support::Reply;
use crate::support::Wire;
use pgsteer::clock;
use pgsteer::clock::Moment;
use pgsteer::sandbox::Server;
use pgsteer::wire::message;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What they write to: who, the number of his turn, and the part of it.
pub const TABLE: &str = "CREATE TABLE work (kind text, member int, number bigint, part int)";

/// Members of each kind.
const EACH: usize = 2;
/// Rows of a `COPY`, and what a client thinks before each that it sends.
const COPIED: usize = 20;
const THINKS: Duration = Duration::from_millis(10);

/// What a member does, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Statements that were prepared once; it reads what it wrote.
    Prepared,
    /// Transactions of several statements, with pauses in between.
    Transactions,
    /// `COPY ... FROM STDIN`, its data bit by bit.
    CopyIn,
    /// `COPY ... TO STDOUT` at the primary.
    CopyOut,
    /// The same wherever it is sent.
    CopyOutAnywhere,
    /// Its settings are its own, wherever it is served.
    Settings,
}

/// All kinds.
pub const KINDS: [Kind; 6] = [
    Kind::Prepared,
    Kind::Transactions,
    Kind::CopyIn,
    Kind::CopyOut,
    Kind::CopyOutAnywhere,
    Kind::Settings,
];

/// Members at work.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    members: Vec<JoinHandle<Diary>>,
}

/// What a member lived through.
#[derive(Debug)]
pub struct Diary {
    kind: Kind,
    member: usize,
    /// When each of its turns began and ended.
    pub turns: Vec<(Moment, Moment)>,
    /// What it saw that it must not see; it stops at the first.
    failed: Option<String>,
    /// The longest wait for an answer, and to what.
    longest: (Duration, String),
}

/// What became of all of them.
#[derive(Debug)]
pub struct Diaries(Vec<Diary>);

impl Crowd {
    /// Two of each kind, each on a connection of its own.
    pub fn open(house: &House) -> Self {
        house.wire().run(TABLE);
        let (stop, address) = (Arc::new(AtomicBool::new(false)), house.proxy.address());
        let seats = KINDS.iter().flat_map(|kind| (0..EACH).map(move |member| (*kind, member)));
        let open = |seat| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || Diary::keep(seat, address, &stop))
        };
        let members = seats.map(open).collect();
        Self { stop, members }
    }

    /// Lets each member finish its turn.
    pub fn close(self) -> Diaries {
        self.stop.store(true, Ordering::SeqCst);
        Diaries(self.members.into_iter().map(|member| member.join().unwrap()).collect())
    }
}

impl Diaries {
    /// What they saw that they must not see.
    pub fn failed(&self) -> Vec<String> {
        let failed = |diary: &Diary| {
            let why = diary.failed.as_ref()?;
            Some(format!("{:?} {}: {why}", diary.kind, diary.member))
        };
        self.0.iter().filter_map(failed).collect()
    }

    /// The longest wait for an answer, and to what.
    pub fn longest(&self) -> &(Duration, String) {
        self.0.iter().map(|diary| &diary.longest).max().unwrap()
    }

    /// How many turns of this kind there were.
    pub fn turns(&self, kind: Kind) -> usize {
        self.of(kind).map(|diary| diary.turns.len()).sum()
    }

    /// How many turns of this kind were in the middle at one of these moments.
    pub fn spanned(&self, kind: Kind, moments: &[Moment]) -> usize {
        let turns = self.of(kind).flat_map(|diary| &diary.turns);
        turns.filter(|(from, to)| moments.iter().any(|at| from < at && at < to)).count()
    }

    /// Fails if the server does not hold each turn that was told to be done, once.
    pub fn settle(&self, server: &Server) {
        for diary in &self.0 {
            let Some(parts) = diary.kind.writes() else { continue };
            let (kind, member) = (diary.kind.name(), diary.member);
            let held = server.rows(&format!(
                "SELECT count(*), count(DISTINCT (number, part)), coalesce(max(number), 0) \
                 FROM work WHERE kind = '{kind}' AND member = {member}"
            ));
            let told = diary.turns.len();
            let rows = (told * parts).to_string();
            let last = told.saturating_sub(1).to_string();
            assert_eq!(held.unwrap()[0], [rows.clone(), rows, last].map(Some), "{kind} {member}");
        }
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Diary> {
        self.0.iter().filter(move |diary| diary.kind == kind)
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Transactions => "transactions",
            Self::CopyIn => "copy_in",
            Self::CopyOut => "copy_out",
            Self::CopyOutAnywhere => "copy_out_anywhere",
            Self::Settings => "settings",
        }
    }

    /// How many rows a turn leaves behind.
    const fn writes(self) -> Option<usize> {
        match self {
            Self::Prepared | Self::Settings => Some(1),
            Self::Transactions => Some(3),
            Self::CopyIn => Some(COPIED),
            Self::CopyOut | Self::CopyOutAnywhere => None,
        }
    }
}

impl Diary {
    fn keep((kind, member): (Kind, usize), address: SocketAddr, stop: &AtomicBool) -> Self {
        let wire = Wire::log_in(address, "postgres").unwrap_or_else(|why| panic!("{why:?}"));
        let longest = (Duration::ZERO, String::new());
        let mut seat = Seat { wire, kind, member, longest };
        let mut diary =
            Self { kind, member, turns: Vec::new(), failed: None, longest: seat.longest.clone() };
        diary.failed = seat.sit_down().err();
        while diary.failed.is_none() && !stop.load(Ordering::SeqCst) {
            let began = clock::now();
            match seat.turn(diary.turns.len()) {
                Ok(()) => diary.turns.push((began, clock::now())),
                Err(why) => diary.failed = Some(format!("turn {}: {why}", diary.turns.len())),
            }
        }
        diary.longest = seat.longest;
        diary
    }
}

/// Where a member sits.
struct Seat {
    wire: Wire,
    kind: Kind,
    member: usize,
    longest: (Duration, String),
}

impl Seat {
    fn sit_down(&mut self) -> Result<(), String> {
        match self.kind {
            Kind::Prepared => {
                let mut bytes = Vec::new();
                let put = b"INSERT INTO work VALUES ('prepared', $1, $2, 0)";
                let get = b"SELECT count(*) FROM work WHERE kind = 'prepared' AND member = $1";
                message::write_parse(&mut bytes, b"put", put);
                message::write_parse(&mut bytes, b"get", get);
                message::write_sync(&mut bytes);
                self.ask("Parse", &bytes).map(drop)
            }
            Kind::CopyOut => self.query("SET pgsteer.role = 'primary'").map(drop),
            Kind::Settings => {
                self.query("SET work_mem = '9MB'")?;
                self.query(&format!("SET app.tenant = 'tenant {}'", self.member)).map(drop)
            }
            Kind::Transactions | Kind::CopyIn | Kind::CopyOutAnywhere => Ok(()),
        }
    }

    fn turn(&mut self, number: usize) -> Result<(), String> {
        match self.kind {
            Kind::Prepared => self.prepared(number),
            Kind::Transactions => self.transaction(number),
            Kind::CopyIn => self.copy_in(number),
            // It takes a while at the server, row by row.
            Kind::CopyOut => {
                self.copy_out("SELECT i, pg_sleep(0.01) FROM generate_series(1, 20) i")
            }
            Kind::CopyOutAnywhere => self.copy_out(
                "SELECT i, (SELECT sum(j * i) FROM generate_series(1, 5000) j) \
                 FROM generate_series(1, 20) i",
            ),
            Kind::Settings => self.settings(number),
        }
    }

    fn prepared(&mut self, number: usize) -> Result<(), String> {
        let (member, turn) = (self.member.to_string(), number.to_string());
        let put = execute("put", &[&member, &turn]);
        let reply = self.ask("the prepared INSERT", &put)?;
        expect(&reply.tags, &["INSERT 0 1".to_owned()])?;
        let get = execute("get", &[&member]);
        let reply = self.ask("the prepared SELECT", &get)?;
        expect(&reply.value(), &Some((number + 1).to_string()))
    }

    fn transaction(&mut self, number: usize) -> Result<(), String> {
        let member = self.member;
        self.query("BEGIN")?;
        for part in 0..3 {
            self.query(&format!(
                "INSERT INTO work VALUES ('transactions', {member}, {number}, {part})"
            ))?;
            std::thread::sleep(3 * THINKS);
        }
        let seen = format!(
            "SELECT count(*) FROM work WHERE kind = 'transactions' AND member = {member} \
             AND number = {number}"
        );
        expect(&self.query(&seen)?.value().as_deref(), &Some("3"))?;
        expect(&self.query("COMMIT")?.tags, &["COMMIT".to_owned()])
    }

    fn copy_in(&mut self, number: usize) -> Result<(), String> {
        let copy = "COPY work FROM STDIN";
        self.send(copy)?;
        let began = clock::now();
        self.until(b'G', copy)?;
        self.waited(began, copy);
        for part in 0..COPIED {
            let row = format!("copy_in\t{}\t{number}\t{part}\n", self.member);
            let mut data = vec![b'd'];
            data.extend_from_slice(&u32::try_from(row.len() + 4).unwrap().to_be_bytes());
            data.extend_from_slice(row.as_bytes());
            self.wire.send(&data).map_err(|error| error.to_string())?;
            std::thread::sleep(THINKS);
        }
        let reply = self.ask("CopyDone", b"c\0\0\0\x04")?;
        expect(&reply.tags, &[format!("COPY {COPIED}")])
    }

    fn copy_out(&mut self, rows: &str) -> Result<(), String> {
        let copy = format!("COPY ({rows}) TO STDOUT");
        let began = clock::now();
        self.send(&copy)?;
        self.until(b'H', &copy)?;
        self.waited(began, &copy);
        for row in 1..=20 {
            let line = self.until(b'd', &copy)?;
            let prefix = format!("{row}\t");
            expect(&line[5..].starts_with(prefix.as_bytes()), &true)?;
        }
        let reply = self.ask("the rest of a COPY", &[])?;
        expect(&reply.tags, &["COPY 20".to_owned()])
    }

    fn settings(&mut self, number: usize) -> Result<(), String> {
        expect(&self.query("SHOW work_mem")?.value().as_deref(), &Some("9MB"))?;
        let tenant = Some(format!("tenant {}", self.member));
        // A read, which goes anywhere, and a write.
        let read = "SELECT current_setting('app.tenant') FROM pg_class LIMIT 1";
        expect(&self.query(read)?.value(), &tenant)?;
        let write = format!(
            "INSERT INTO work SELECT 'settings', substr(current_setting('app.tenant'), 8)::int, \
             {number}, 0 RETURNING current_setting('app.tenant')"
        );
        expect(&self.query(&write)?.value(), &tenant)
    }

    fn query(&mut self, sql: &str) -> Result<Reply, String> {
        let mut bytes = Vec::new();
        message::write_query(&mut bytes, sql);
        self.ask(sql, &bytes)
    }

    fn send(&mut self, sql: &str) -> Result<(), String> {
        let mut bytes = Vec::new();
        message::write_query(&mut bytes, sql);
        self.wire.send(&bytes).map_err(|error| error.to_string())
    }

    /// Asks, and takes nothing but a success: not even a warning.
    fn ask(&mut self, what: &str, bytes: &[u8]) -> Result<Reply, String> {
        let began = clock::now();
        let reply = self.wire.ask(bytes);
        self.waited(began, what);
        let fine = reply.is_good() && reply.notices.is_empty();
        if fine { Ok(reply) } else { Err(format!("{what}: {reply:?}")) }
    }

    /// Reads up to a message of this tag.
    fn until(&mut self, tag: u8, what: &str) -> Result<Vec<u8>, String> {
        while let Some(message) = self.wire.message() {
            match message[0] {
                found if found == tag => return Ok(message),
                b'E' | b'N' => {
                    return Err(format!("{what}: {}", String::from_utf8_lossy(&message)));
                }
                _ => {}
            }
        }
        Err(format!("{what}: the connection is closed"))
    }

    fn waited(&mut self, began: Moment, what: &str) {
        let waited = clock::now().since(began);
        if waited > self.longest.0 {
            self.longest = (waited, what.to_owned());
        }
    }
}

/// Bind, Execute and Sync of a statement that was prepared under this name.
fn execute(name: &str, parameters: &[&str]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(&[0, 0, 0]);
    body.extend_from_slice(&u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        body.extend_from_slice(&u32::try_from(parameter.len()).unwrap().to_be_bytes());
        body.extend_from_slice(parameter.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    let mut bytes = vec![b'B'];
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(&body);
    message::write_execute(&mut bytes);
    message::write_sync(&mut bytes);
    bytes
}

fn expect<A: PartialEq<B> + std::fmt::Debug + ?Sized, B: std::fmt::Debug + ?Sized>(
    found: &A,
    expected: &B,
) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
}
