//! `pgsteer demo lag`: a standby falls behind under writes, gets no reads, and comes back.

use crate::cli::args::Globals;
use crate::cli::args::Output;
use crate::cli::demo::fail;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::stop::Asked;
use crate::cli::demo::stop::Stop;
use crate::cli::exit::Exit;
use crate::cli::say;
use crate::sandbox::SandboxError;
use crate::sandbox::Server;
use crate::sandbox::Sql;
use crate::sandbox::SqlError;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Seconds of reads before the standby is stopped.
const BEFORE: u32 = 3;
/// Seconds until a standby that replays nothing must be without reads: `routing.max_lag.time` is
/// one, and the second in which that passes still counts some.
const NOTICED_AFTER: usize = 3;
/// Shortest time without replay in which the absence of reads can be seen.
const SHORTEST: Duration = Duration::from_secs(5);
/// Seconds within which it must have reads again.
const BACK_MAX: u32 = 15;
/// Clients that read at the same time.
const READERS: usize = 4;
/// Pause of a client between two statements.
const THINK: Duration = Duration::from_millis(5);

/// The table that is written to.
const TABLE: &str = "CREATE TABLE lag_demo (id bigserial, at timestamptz DEFAULT now())";
/// Tells which server answers, by its port.
const READ: &str = "SELECT inet_server_port() FROM pg_class LIMIT 1";
const WRITE: &str = "INSERT INTO lag_demo DEFAULT VALUES";
/// How old the newest row is that a standby has.
const AGE: &str =
    "SELECT round(extract(epoch FROM clock_timestamp() - max(at))::numeric, 1) FROM lag_demo";

/// What the clients have seen since it was last asked for.
#[derive(Debug, Default)]
struct Counts {
    /// Answers by the port of the server.
    reads: BTreeMap<u16, u64>,
    writes: u64,
    errors: Vec<String>,
}

/// One second of the play.
#[derive(Debug)]
struct Second {
    counts: Counts,
    /// Age of the newest row on the standby, in seconds.
    age: String,
}

/// Plays it.
pub(super) async fn play(
    stage: &Stage,
    stop: &mut Stop,
    duration: Duration,
    globals: &Globals,
) -> Result<Exit, Exit> {
    if duration < SHORTEST {
        // In less than that nothing could be seen, and every check would be met by nothing.
        say::talk(&format!("error: {duration:?} is too short to see anything: take {SHORTEST:?}"));
        return Err(Exit::Usage);
    }
    let Some(standby) = stage.cluster.standbys().first() else {
        say::talk("error: this needs a standby: --standbys 2");
        return Err(Exit::Usage);
    };
    stage.cluster.primary().rows(TABLE).map_err(|error| fail(&error))?;
    stage.cluster.await_replay().map_err(|error| fail(&error))?;
    let crowd = Crowd::start(stage.proxy.address());
    let play = Play { stage, standby, crowd: &crowd, globals };
    let checks = play.through(stop, duration).await;
    crowd.leave();
    let Some(checks) = checks.map_err(|error| fail(&error))? else { return Ok(Exit::Done) };
    if globals.output == Output::Json {
        let list: Vec<Value> =
            checks.iter().map(|check| json!({"check": check.what, "ok": check.ok})).collect();
        say::data(&format!("{}\n", json!({"scene": "lag", "checks": list})))?;
    }
    let all_ok = checks.iter().all(|check| check.ok);
    if all_ok { Ok(Exit::Done) } else { Err(Exit::Failed) }
}

/// Something that must be true, and whether it was.
#[derive(Debug)]
struct Check {
    what: String,
    ok: bool,
}

/// The play's cast.
#[derive(Clone, Copy)]
struct Play<'a> {
    stage: &'a Stage,
    standby: &'a Server,
    crowd: &'a Crowd,
    globals: &'a Globals,
}

impl Play<'_> {
    /// All three acts; `None` if somebody asked to stop.
    async fn through(
        self,
        stop: &mut Stop,
        duration: Duration,
    ) -> Result<Option<Vec<Check>>, SandboxError> {
        let name = self.standby.name();
        let mut checks = Vec::new();

        self.say(&format!("\n{name} is level: reads go to every standby\n{}", self.head()));
        let Some(before) = self.seconds(stop, BEFORE).await else { return Ok(None) };
        let ports: Vec<u16> = self.stage.cluster.standbys().iter().map(Server::port).collect();
        let all_read = ports.iter().all(|port| total(&before, *port) > 0);
        checks.push(self.report(("every standby served reads".to_owned(), all_read)));

        self.standby.pause_replay()?;
        let what = format!("\n{name} replays nothing for {duration:?}, while writes go on");
        self.say(&format!("{what}\n{}", self.head()));
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1);
        let Some(behind) = self.seconds(stop, seconds).await else { return Ok(None) };
        let noticed = behind.get(NOTICED_AFTER..).unwrap_or(&[]);
        let port = self.standby.port();
        checks.push(self.report((format!("{name} got no reads"), total(noticed, port) == 0)));
        let others: u64 = noticed.iter().map(Second::reads).sum();
        checks.push(self.report(("reads went elsewhere".to_owned(), others > 0)));

        self.standby.resume_replay()?;
        self.say(&format!("\n{name} replays again\n{}", self.head()));
        let Some(back) = self.until_it_reads(stop).await else { return Ok(None) };
        checks.push(self.report((format!("{name} got reads again"), total(&back, port) > 0)));
        let mut all = before.iter().chain(&behind).chain(&back);
        let error = all.find_map(|second| second.counts.errors.first());
        checks.push(self.report(("no statement failed".to_owned(), error.is_none())));
        if let Some(error) = error {
            self.say(&format!("     the first error: {error}"));
        }
        Ok(Some(checks))
    }

    /// Seconds until the standby serves reads again, and one more.
    async fn until_it_reads(self, stop: &mut Stop) -> Option<Vec<Second>> {
        let mut seconds = Vec::new();
        for _ in 0..BACK_MAX {
            seconds.extend(self.seconds(stop, 1).await?);
            if total(&seconds, self.standby.port()) > 0 {
                break;
            }
        }
        Some(seconds)
    }

    /// So many seconds, each shown; `None` if somebody asked to stop.
    async fn seconds(self, stop: &mut Stop, seconds: u32) -> Option<Vec<Second>> {
        let mut seen = Vec::new();
        self.crowd.take();
        for _ in 0..seconds {
            if stop.within(Duration::from_secs(1)).await == Asked::Yes {
                return None;
            }
            let age = self.standby.value(AGE).unwrap_or_else(|_| "unknown".to_owned());
            let second = Second { counts: self.crowd.take(), age };
            self.say(&self.line(&second));
            seen.push(second);
        }
        Some(seen)
    }

    fn head(self) -> String {
        let servers = self.stage.cluster.servers().iter();
        let names: Vec<String> = servers.map(|server| format!("{:>10}", server.name())).collect();
        format!("  WRITES/s   READS/s ON{}   {} IS BEHIND", names.concat(), self.standby.name())
    }

    fn line(self, second: &Second) -> String {
        let servers = self.stage.cluster.servers().iter();
        let reads = servers.map(|server| second.counts.reads.get(&server.port()).unwrap_or(&0));
        let reads: Vec<String> = reads.map(|reads| format!("{reads:>10}")).collect();
        let (writes, age) = (second.counts.writes, &second.age);
        format!("  {writes:>8}             {}   {age:>9} s", reads.concat())
    }

    fn report(self, (what, ok): (String, bool)) -> Check {
        self.say(&format!("{}   {what}", if ok { "ok  " } else { "FAIL" }));
        Check { what, ok }
    }

    /// For people; a script waits for the last line.
    fn say(self, text: &str) {
        if self.globals.output == Output::Table {
            // A reader who has left does not end the play: its exit code may still count.
            say::data(&format!("{text}\n")).unwrap_or(());
        }
    }
}

impl Second {
    fn reads(&self) -> u64 {
        self.counts.reads.values().sum()
    }
}

/// Reads that the server on this port served.
fn total(seconds: &[Second], port: u16) -> u64 {
    seconds.iter().filter_map(|second| second.counts.reads.get(&port)).sum()
}

/// Clients of the proxy, each on a thread of its own: one writes, the others read.
#[derive(Debug)]
struct Crowd {
    shared: std::sync::Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<Counts>,
    leave: AtomicBool,
}

impl Crowd {
    fn start(proxy: SocketAddr) -> Self {
        let shared = std::sync::Arc::new(Shared::default());
        let work = std::iter::once(WRITE).chain(std::iter::repeat_n(READ, READERS));
        let threads = work
            .map(|sql| {
                let shared = std::sync::Arc::clone(&shared);
                std::thread::spawn(move || shared.work(proxy, sql))
            })
            .collect();
        Self { shared, threads }
    }

    /// What was counted since the last call.
    fn take(&self) -> Counts {
        std::mem::take(&mut *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn leave(self) {
        self.shared.leave.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or(());
        }
    }
}

impl Shared {
    /// Runs the statement over and over; after an error on a new connection.
    fn work(&self, proxy: SocketAddr, sql: &str) {
        let mut connection = None;
        while !self.leave.load(Ordering::Relaxed) {
            let outcome = once(&mut connection, proxy, sql);
            self.count(sql, outcome);
            std::thread::sleep(THINK);
        }
    }

    fn count(&self, sql: &str, outcome: Result<Option<u16>, SqlError>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(None) => counts.writes += 1,
            Ok(Some(port)) => *counts.reads.entry(port).or_default() += 1,
            Err(error) => counts.errors.push(format!("{sql}: {error}")),
        }
    }
}

/// Runs the statement once; a read gives the port of the server that answered.
fn once(
    connection: &mut Option<Sql>,
    proxy: SocketAddr,
    sql: &str,
) -> Result<Option<u16>, SqlError> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => arrive(proxy)?,
    };
    let rows = open.rows(sql)?;
    *connection = Some(open);
    Ok(rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok()))
}

/// A new client. It takes whatever is within the limit: by default a session would keep away from
/// a standby that is older than what it saw before, and the limit would have nothing to do.
fn arrive(proxy: SocketAddr) -> Result<Sql, SqlError> {
    let mut open = Sql::connect_tcp(proxy, "postgres")?;
    open.rows("SET pgsteer.consistency = 'eventual'")?;
    Ok(open)
}
