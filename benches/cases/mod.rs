//! The steps of a statement's way, each by itself: timed for people by `benches/micro`, counted in
//! instructions by `benches/instructions`.
//!
//! A case is built once, with everything that it needs, and then done over and over; what differs
//! between two counts of it is the step alone.

use pgsteer::auth::{Keyring, Userlist};
use pgsteer::backend::{ChannelBinding, SslMode, SslNegotiation, Target, TlsPolicy};
use pgsteer::clock::Moment;
use pgsteer::frontend::{Material, Wishes, plan};
use pgsteer::metrics::{Build, Metrics};
use pgsteer::pg::{Lsn, Position, SystemId, Timeline, Version};
use pgsteer::pool::{Policy as PoolPolicy, PoolKey, Pools, ShardPools, Wanted};
use pgsteer::route;
use pgsteer::route::{Consistency, Need, Patience, Request, RoleWish};
use pgsteer::sandbox::SUPERUSER;
use pgsteer::session::{
    Anchor, Demand, End, Executes, MessageLimits, Names, Reader, SharedSettings, scan,
};
use pgsteer::sql::{Dialect, FactsCache};
use pgsteer::topology::{
    Epoch, History, Lag, Observation, Primary, Role, Seen, Server, ServerId, Signals,
    StandbySample, Topology, Unfit,
};
use pgsteer::wire::frame;
use pgsteer::wire::message;
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// One step.
pub(crate) struct Case {
    /// How it is called, in results and in the baseline.
    pub(crate) name: &'static str,
    /// Makes it ready. The address is a server's that trusts the superuser.
    pub(crate) ready: fn(SocketAddr) -> Box<dyn FnMut()>,
}

/// All of them.
pub(crate) const CASES: [Case; 13] = [
    Case { name: "frame/1000 rows", ready: |_| frame_rows() },
    Case { name: "group/simple", ready: |_| group(query(SHORT)) },
    Case { name: "group/extended", ready: |_| group(extended(SHORT_PARAMETER)) },
    Case { name: "facts/same text", ready: |_| facts(&[SHORT]) },
    Case { name: "facts/two texts in turn", ready: |_| facts(&[SHORT, LONG]) },
    Case { name: "facts/another number", ready: |_| facts_of_numbers() },
    Case { name: "facts/1 of 10 texts", ready: |_| facts_of(10) },
    Case { name: "facts/1 of 10000 texts", ready: |_| facts_of(10_000) },
    Case { name: "facts/never seen", ready: |_| facts_never_seen() },
    Case { name: "plan", ready: |_| planned() },
    Case { name: "route/3 servers", ready: |_| routed(3) },
    Case { name: "route/32 servers", ready: |_| routed(32) },
    Case { name: "check-out and release", ready: checked_out },
];

const SHORT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";
const SHORT_PARAMETER: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
const LONG: &str = "SELECT o.id, o.placed_at, o.state, c.name, c.city, sum(l.amount * l.price) AS \
                    total FROM orders o JOIN customers c ON c.id = o.customer JOIN lines l ON \
                    l.order_id = o.id WHERE o.placed_at >= '2026-01-01' AND o.state IN ('paid', \
                    'sent') AND c.country = 'NL' GROUP BY o.id, o.placed_at, o.state, c.name, \
                    c.city ORDER BY total DESC LIMIT 50";
/// The moment at which everything is decided.
const NOW: Moment = Moment::from_nanos(10_000_000_000);

/// Finds where each of a thousand rows ends.
fn frame_rows() -> Box<dyn FnMut()> {
    let mut rows = Vec::new();
    for _ in 0..1000 {
        message::write_data_row(&mut rows, &[Some(b"1"), Some(&[b'x'; 100])]);
    }
    Box::new(move || {
        let mut at = 0;
        while let Some(rest) = black_box(&rows).get(at..)
            && let Ok(Some(header)) = frame::peek(rest)
        {
            at += header.total;
        }
        black_box(at);
    })
}

/// Finds a client's group, and the facts of its statement.
fn group(bytes: Vec<u8>) -> Box<dyn FnMut()> {
    let mut cache = FactsCache::default();
    let names = Names::default();
    let mut mentioned = Vec::new();
    Box::new(move || {
        let mut framed = 0;
        let mut reader = Reader {
            names: &names,
            unnamed: None,
            examine: &mut |sql| cache.examine(sql, Dialect::default()),
            framed: &mut framed,
            most: MessageLimits::default(),
            mentioned: &mut mentioned,
        };
        drop(black_box(scan(black_box(&bytes), &mut reader)));
    })
}

/// The facts of these texts in turn.
fn facts(texts: &'static [&'static str]) -> Box<dyn FnMut()> {
    let mut cache = FactsCache::default();
    let mut turn = texts.iter().cycle();
    Box::new(move || {
        let text = turn.next().map_or("", |text| text);
        drop(black_box(cache.examine(text.as_bytes(), Dialect::default())));
    })
}

fn facts_of_numbers() -> Box<dyn FnMut()> {
    let mut cache = FactsCache::default();
    let texts: Vec<_> = (0..100).map(|n| SHORT.replace('1', &(n + 100_000).to_string())).collect();
    in_turn(texts, move |text| drop(black_box(cache.examine(text, Dialect::default()))))
}

fn facts_of(texts: usize) -> Box<dyn FnMut()> {
    let mut cache = FactsCache::default();
    let texts: Vec<_> = (0..texts).map(|n| format!("SELECT a{n:05} FROM t WHERE b = $1")).collect();
    for text in &texts {
        cache.examine(text.as_bytes(), Dialect::default());
    }
    in_turn(texts, move |text| drop(black_box(cache.examine(text, Dialect::default()))))
}

/// Each text is read by PostgreSQL's grammar.
fn facts_never_seen() -> Box<dyn FnMut()> {
    let mut number = 0_u32;
    let mut cache = FactsCache::default();
    Box::new(move || {
        number += 1;
        let text = format!("SELECT a{number:08} FROM t WHERE b = $1");
        drop(black_box(cache.examine(text.as_bytes(), Dialect::default())));
    })
}

fn in_turn(texts: Vec<String>, mut step: impl FnMut(&[u8]) + 'static) -> Box<dyn FnMut()> {
    let mut at = 0;
    Box::new(move || {
        at = (at + 1) % texts.len();
        step(texts.get(at).map_or(&[], |text| text.as_bytes()));
    })
}

/// What a group needs of a server, once its facts are known.
fn planned() -> Box<dyn FnMut()> {
    let mentioned = [Some(FactsCache::default().examine(SHORT.as_bytes(), Dialect::default()))];
    Box::new(move || {
        let material = Material {
            mentioned: black_box(&mentioned),
            catalog: None,
            wishes: Wishes { role: RoleWish::Auto, consistency: Consistency::Session },
            end: End::Query,
            executes: Executes::Something,
            now: NOW,
        };
        black_box(plan(&material));
    })
}

/// Which of so many servers a read goes to, of a session that has written.
fn routed(servers: u16) -> Box<dyn FnMut()> {
    let world = world(servers);
    let load: Vec<u32> = (0..u32::from(servers)).collect();
    let policy = route::Policy::default();
    let mut turn = 0;
    Box::new(move || {
        turn += 1;
        let request = Request {
            need: Need::Read,
            consistency: Consistency::Session,
            demand: Demand::Position(position(200)),
            anchor: Anchor::Nowhere,
            since: NOW,
            failed: 0,
            load: &load,
            turn,
            patience: Patience::None,
        };
        black_box(route::decide(NOW, &request, black_box(&world), &policy));
    })
}

/// A primary, and standbys that have all replayed what is asked for.
fn world(servers: u16) -> Topology {
    let all = (0..servers).map(|id| server(ServerId(id)));
    let mut topology = Topology::unseen(all.collect());
    topology.epoch = Epoch(1);
    topology.history = History::new(Timeline(1), vec![]);
    topology.primary = Primary::Open { server: ServerId(0), timeline: Timeline(1) };
    topology
}

fn server(id: ServerId) -> Server {
    let standby = id != ServerId(0);
    let seen = Observation {
        sent_at: NOW - Duration::from_millis(100),
        role: if standby { Role::Standby } else { Role::Primary },
        system: SystemId(1),
        timeline: Timeline(1),
        version: Version(150_018),
        lsn: Lsn(300),
        received: None,
        streaming: Some(standby),
        upstream: None,
        lag: Lag::default(),
    };
    let sent_at = NOW - Duration::from_millis(50);
    Server {
        id,
        name: Arc::from("s"),
        host: Arc::from("s"),
        port: 5432,
        weight: 1,
        seen: Seen::Answered(seen),
        reads: if standby { Ok(()) } else { Err(Unfit::IsPrimary) },
        sample: standby.then(|| StandbySample { sent_at, position: position(300) }),
        visible_on_primary: None,
    }
}

fn position(lsn: u64) -> Position {
    Position { system: SystemId(1), timeline: Timeline(1), lsn: Lsn(lsn) }
}

/// Takes an idle backend and gives it back.
fn checked_out(server: SocketAddr) -> Box<dyn FnMut()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tls = TlsPolicy {
        mode: SslMode::Disable,
        root_cert: None,
        identity: None,
        channel_binding: ChannelBinding::default(),
        negotiation: SslNegotiation::default(),
    };
    let host = server.ip().to_string();
    let target = Target::alone(ServerId(0), "s", &host, server.port(), &tls).unwrap();
    let metrics = Arc::new(Metrics::new(&[Arc::from("s")], Build::default()).unwrap());
    let signals = Arc::new(Signals::new(Waker::noop().clone()));
    let keyring = Arc::new(Keyring::new(Userlist::parse("").unwrap(), [1; 32]));
    let patience = Duration::from_secs(10);
    let pools = Pools::new(
        PoolPolicy::default(),
        Box::new([target]),
        keyring,
        patience,
        (metrics, signals),
    );
    let pools = ShardPools::new(0, Arc::new(pools));
    let key = PoolKey {
        server: ServerId(0),
        database: Arc::from("postgres"),
        user: Arc::from(SUPERUSER),
    };
    let (pool, settings) = (pools.pool(&key), SharedSettings::default());
    let wanted = Wanted { identity: None, settings: &settings };
    runtime.block_on(pool.check_out(wanted, (NOW, patience))).unwrap().release(NOW);
    Box::new(move || {
        // Its sockets end with it.
        black_box(&runtime);
        let pool = Rc::clone(&pool);
        let wanted = Wanted { identity: None, settings: black_box(&settings) };
        if let Some(checkout) = pool.try_check_out(wanted) {
            checkout.release(NOW);
        }
    })
}

fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message::write_query(&mut out, sql);
    out
}

fn extended(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message::write_parse(&mut out, b"", sql.as_bytes());
    message::write_bind_text(&mut out, &["1"]);
    message::write_execute(&mut out);
    message::write_sync(&mut out);
    out
}
