//! What a statement costs where there is much of everything: statements, pools, clients, servers.
//!
//! Counted in instructions of pgsteer's own code, under callgrind: no clock could tell a hundredth.

use crate::Args;
use crate::crowds::allow_files;
use crate::peer;
use crate::report::{Figure, Table};
use crate::site::Site;
use crate::traced;
use crate::traced::Traced;
use crate::wire::{Client, Dial};
use pgsteer::sandbox::{Cluster, Plan, Postgres, Template};
use pgsteer::wire::message;

const FIGURES: [Figure; 1] = [Figure::compared("instructions a statement", 0)];
/// Statements that are counted, the first and the second time.
const TIMES: (u32, u32) = (1_000, 3_000);
const STATEMENT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";

/// All of them.
pub(crate) fn growth(site: &Site, args: &Args) -> Vec<Table> {
    if !traced::is_there() {
        let mut table = Table::new("growth", "", &FIGURES);
        table.take("all", Err("valgrind is missing".to_owned()));
        return vec![table];
    }
    allow_files();
    let most = |sizes: &[usize]| -> Vec<usize> {
        sizes.iter().copied().filter(|size| *size <= args.most).collect()
    };
    vec![
        texts(site, &most(&[10, 1_000, 10_000, 100_000])),
        names(site, &most(&[10, 400, 1_000, 10_000, 100_000])),
        clients(site, &most(&[100, 1_000, 10_000, 20_000])),
        pools(site, &most(&[1, 100, 1_000])),
        servers(&most(&[3, 32])),
    ]
}

/// Distinct texts by the simple protocol.
fn texts(site: &Site, sizes: &[usize]) -> Table {
    let mut table = Table::new("growth: distinct texts, simple", &row(sizes), &FIGURES);
    for size in sizes {
        let came = Stage::start(site, "texts", 1).and_then(|mut stage| {
            let mut one = [stage.dial.client()?];
            let text = |number: usize| {
                let column = number % size;
                query(&format!("SELECT abalance AS c{column} FROM pgbench_accounts WHERE aid = 1"))
            };
            ask(&mut one, 0..*size, text)?;
            stage.count(&mut one, *size, text)
        });
        table.take(&row(&[*size]), came);
    }
    table
}

/// Prepared statements of one client.
fn names(site: &Site, sizes: &[usize]) -> Table {
    let mut table = Table::new("growth: prepared statements of a client", &row(sizes), &FIGURES);
    for size in sizes {
        let came = Stage::start(site, "names", 1).and_then(|mut stage| {
            let mut one = [stage.dial.client()?];
            ask(&mut one, 0..*size, prepare)?;
            stage.count(&mut one, *size, |number| execute(number % size))
        });
        table.take(&row(&[*size]), came);
    }
    table
}

/// Clients, all of which ask in turn.
fn clients(site: &Site, sizes: &[usize]) -> Table {
    let mut table = Table::new("growth: clients", &row(sizes), &FIGURES);
    for size in sizes {
        let came = Stage::start(site, "clients", 1).and_then(|mut stage| {
            let all = (0..*size).map(|_| stage.dial.client());
            let mut all = all.collect::<Result<Vec<_>, _>>()?;
            ask(&mut all, 0..*size, |_| query(STATEMENT))?;
            stage.count(&mut all, *size, |_| query(STATEMENT))
        });
        table.take(&row(&[*size]), came);
    }
    table
}

/// Pools: a user each, with a client and a backend.
fn pools(site: &Site, sizes: &[usize]) -> Table {
    let mut table = Table::new("growth: pools, each with a client", &row(sizes), &FIGURES);
    for size in sizes {
        let users = format!(
            "DO $$ BEGIN FOR i IN 0..{} LOOP IF to_regrole('user' || i) IS NULL THEN \
             EXECUTE 'CREATE ROLE user' || i || ' SUPERUSER LOGIN'; END IF; END LOOP; END $$",
            size - 1
        );
        site.cluster.primary().rows(&users).unwrap();
        let came = Stage::start(site, "pools", 1).and_then(|mut stage| {
            let all = (0..*size).map(|number| stage.dial.client_as(&format!("user{number}")));
            let mut all = all.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            ask(&mut all, 0..*size, |_| query(STATEMENT))?;
            stage.count(&mut all, *size, |_| query(STATEMENT))
        });
        table.take(&row(&[*size]), came);
    }
    table
}

/// Servers, with routing.
fn servers(sizes: &[usize]) -> Table {
    let mut table = Table::new("growth: servers, with routing", &row(sizes), &FIGURES);
    for size in sizes {
        table.take(&row(&[*size]), with_servers(*size));
    }
    table
}

fn with_servers(size: usize) -> Result<Vec<f64>, String> {
    let template = Template::new(Postgres::find(None).unwrap()).unwrap();
    let plan = Plan::new().standbys(size - 1).setting("max_wal_senders", "40");
    let plan = plan.setting("shared_buffers", "8MB");
    let cluster = Cluster::start(&template, &plan).map_err(|error| error.to_string())?;
    let make = "CREATE TABLE pgbench_accounts AS SELECT id AS aid, id AS abalance \
                FROM generate_series(1, 100) id";
    cluster.primary().rows(make).map_err(|error| error.to_string())?;
    cluster.await_replay().map_err(|error| error.to_string())?;
    let mut stage = Stage::on(&cluster, "servers", size)?;
    let mut one = [stage.dial.client()?];
    ask(&mut one, 0..2 * size, |_| query(STATEMENT))?;
    stage.count(&mut one, 1, |_| query(STATEMENT))
}

/// A traced proxy, and the way to it.
struct Stage {
    traced: Traced,
    dial: Dial,
}

impl Stage {
    fn start(site: &Site, name: &str, servers: usize) -> Result<Self, String> {
        Self::on(&site.cluster, name, servers)
    }

    fn on(cluster: &Cluster, name: &str, servers: usize) -> Result<Self, String> {
        let name = format!("growth-{name}-{}", pgsteer::clock::now().nanos());
        let flags = ["--set", "pool.max_clients=30000"];
        let traced = Traced::start(&peer::binary(), (cluster, servers), &name, &flags);
        let traced = traced.map_err(|error| error.to_string())?;
        let dial = Dial::plain(traced.proxy.address());
        Ok(Self { traced, dial })
    }

    /// Instructions a statement; each of so many is asked as often as the others.
    fn count(
        &mut self,
        clients: &mut [Client],
        many: usize,
        statement: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Vec<f64>, String> {
        let mut at = many;
        let mut failed = Ok(());
        let each = traced::each(&mut self.traced, TIMES, |times| {
            let until = at + usize::try_from(times).unwrap_or(0);
            let asked = ask(clients, at..until, &statement);
            at = until;
            if failed.is_ok() {
                failed = asked;
            }
        });
        failed?;
        Ok(vec![f64::from(u32::try_from(each).unwrap_or(u32::MAX))])
    }
}

/// Has the clients ask in turn.
fn ask(
    clients: &mut [Client],
    numbers: std::ops::Range<usize>,
    statement: impl Fn(usize) -> Vec<u8>,
) -> Result<(), String> {
    let count = clients.len();
    for number in numbers {
        let Some(client) = clients.get_mut(number % count) else { continue };
        client.ask(&statement(number)).map_err(|error| format!("{number}: {error}"))?;
    }
    Ok(())
}

fn row(sizes: &[usize]) -> String {
    sizes.first().map_or_else(String::new, usize::to_string)
}

fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message::write_query(&mut out, sql);
    out
}

fn prepare(number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let text = format!("SELECT abalance AS c{number} FROM pgbench_accounts WHERE aid = 1");
    message::write_parse(&mut out, format!("s{number}").as_bytes(), text.as_bytes());
    message::write_sync(&mut out);
    out
}

/// `Bind` by name without parameters, `Execute`, `Sync`.
fn execute(number: usize) -> Vec<u8> {
    let name = format!("s{number}");
    let mut out = vec![b'B'];
    let length = 4 + 1 + name.len() + 1 + 6;
    out.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_be_bytes());
    out.push(0);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&[0; 7]);
    message::write_execute(&mut out);
    message::write_sync(&mut out);
    out
}
