//! Another server becomes the primary: what clients live through, row by row.
//!
//! Nothing here promotes but the test itself, by SQL, as a person or another tool would; pgsteer
//! follows. Each row is lived through twice: the old primary is killed, and it hangs, so that no
//! socket ever says that it is gone.

mod cancelled;
mod confirmed;
mod floors;
mod held;
mod late;
mod reads;
mod replication;
mod rows;
mod state;

use crate::support::Blueprint;
use crate::support::House;
use crate::support::Reply;
use crate::support::Wire;
use crate::support::await_that;
use pgsteer::clock;
use pgsteer::clock::Moment;
use std::time::Duration;

/// How the old primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// `kill -9` of all its processes.
    Killed,
    /// `SIGSTOP` of all its processes: its sockets stay open, and it can come back.
    Hung,
}

/// A primary and two standbys; the first one is to take over.
pub struct Scene {
    pub house: House,
}

/// Far less than a hung server would be waited for without the change of primary, and than a
/// statement may be held.
pub const SOON: Duration = Duration::from_secs(20);

impl Scene {
    /// A set that notices quickly; statements are held for as long as the test needs.
    pub fn new(more: &str, tables: &[&str]) -> Self {
        Self::with_pool(more, tables, 60)
    }

    /// The same with so many backends a server, and one shard: its order is the order of all.
    pub fn with_pool(more: &str, tables: &[&str], size: u32) -> Self {
        let toml = format!(
            "[servers]\ncheck_interval = \"50ms\"\ncheck_timeout = \"300ms\"\n\
             gone_after = \"100ms\"\nsilent_after = \"500ms\"\n{more}"
        );
        let house = Blueprint::new()
            .set("routing.hold_max", "50s")
            .set("pool.size", &size.to_string())
            .set("limits.shards", "1")
            .servers(|plan| {
                let plan = plan.setting("wal_retrieve_retry_interval", "100ms");
                plan.setting("max_prepared_transactions", "10")
            })
            .toml(&toml)
            .build();
        // No unique index: what is done twice must be seen.
        house.server("primary").rows("CREATE TABLE ledger (id int)").unwrap();
        house.server("primary").rows("INSERT INTO ledger VALUES (0)").unwrap();
        for sql in tables {
            house.server("primary").rows(sql).unwrap();
        }
        // In session mode nothing is read on a standby.
        if !more.contains("session") {
            house.await_catalog();
        }
        Self { house }
    }

    /// The primary is lost.
    pub fn lose(&self, how: Loss) {
        match how {
            Loss::Killed => self.house.server("primary").kill9().unwrap(),
            Loss::Hung => self.house.server("primary").sigstop(),
        }
    }

    /// The standbys receive nothing more.
    pub fn freeze(&self) {
        for standby in self.house.cluster.standbys().iter().filter(|server| server.is_running()) {
            // A receiver that may still get something from the old primary vetoes.
            standby.set("primary_conninfo", "").unwrap();
            let sql = "SELECT count(*) FROM pg_stat_wal_receiver";
            standby.await_value(sql, "0", "cut off").unwrap();
        }
    }

    /// The first standby takes over, and the second one follows it. Returns when pgsteer has
    /// followed, too: a new session's write goes through.
    pub fn take_over(&self) -> Moment {
        self.freeze();
        let (first, second) = (self.house.server("standby1"), self.house.server("standby2"));
        first.rows("SELECT pg_promote(false)").unwrap();
        await_that("the promotion", || {
            first.rows("SELECT pg_reload_conf()").unwrap();
            first.value("SELECT pg_is_in_recovery()").unwrap() == "f"
        });
        if second.is_running() {
            let address = first.address();
            let (host, port) = address.rsplit_once(':').unwrap();
            let upstream = format!("host={host} port={port} user=postgres");
            second.set("primary_conninfo", &upstream).unwrap();
        }
        // Before, a backend that rests on the lost primary could be taken.
        let name = first.address();
        await_that("it is followed", || self.house.status()["primary"] == *name);
        let mut wire = self.house.wire();
        wire.run("INSERT INTO ledger VALUES (0) /* the first one */");
        clock::now()
    }

    /// How often the ledger of the server that took over holds this.
    pub fn count(&self, id: i32) -> usize {
        let sql = format!("SELECT count(*) FROM ledger WHERE id = {id}");
        self.house.server("standby1").value(&sql).unwrap().parse().unwrap()
    }

    /// How often this server ran a statement with this marker.
    pub fn runs(&self, server: &str, marker: &str) -> usize {
        self.house.server(server).logged(marker)
    }
}

/// A client that waits for an answer in another thread.
pub struct Waits(std::thread::JoinHandle<(Reply, Wire, Moment)>);

/// Sends, and waits for the answer elsewhere.
pub fn ask(mut wire: Wire, bytes: Vec<u8>) -> Waits {
    Waits(std::thread::spawn(move || {
        let reply = wire.ask(&bytes);
        (reply, wire, clock::now())
    }))
}

/// One `Query`.
pub fn query(sql: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    pgsteer::wire::message::write_query(&mut bytes, sql);
    bytes
}

/// One statement by the extended protocol.
pub fn extended(sql: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    pgsteer::wire::message::write_parse(&mut bytes, b"", sql.as_bytes());
    pgsteer::wire::message::write_bind_text(&mut bytes, &[]);
    pgsteer::wire::message::write_execute(&mut bytes);
    pgsteer::wire::message::write_sync(&mut bytes);
    bytes
}

impl Waits {
    /// The answer, which must have come soon after the change.
    pub fn end(self, changed: Moment) -> (Reply, Wire) {
        let (reply, wire, at) = self.0.join().unwrap();
        let waited = at.since(changed);
        assert!(waited < SOON, "only after {waited:?}: {reply:?}");
        (reply, wire)
    }
}
