//! Two hundred clients, ten backends: each sees its own settings, tables, locks and statements,
//! hears what it listens for, and nothing of anybody else's.
//!
//! Every client acts at random and knows what it must see. The opposite arm does the same with
//! `pool.reset = "off"` and must find a leak, or this test would prove nothing.
//! `PGSTEER_LEAKS=180` goes on for so many seconds.

use crate::raw::{Answer, Message, Raw, bind, execute, parse};
use crate::support::{Blueprint, Dice, House};
use pgsteer::clock;
use pgsteer::clock::Moment;
use pgsteer::sandbox::{StatementLog, eventually};
use pgsteer::tasks;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const CLIENTS: u64 = 200;
/// Without the reset a leak is found within this, the logins included.
const FOUND_WITHIN: Duration = Duration::from_secs(10);
/// What each client does, in rounds of one action and one look.
const ROUNDS: u64 = 20;
/// Clients that hold a backend for themselves at a time: fewer than there are.
const PINNED_MAX: usize = 6;

/// What every session starts with.
const DEFAULTS: [(&str, &str); 6] = [
    ("search_path", "\"$user\", public"),
    ("TimeZone", "UTC"),
    ("work_mem", "4MB"),
    ("app.x", ""),
    ("app.y", ""),
    ("role", "none"),
];

const LOOK: &str = "SELECT current_setting('search_path'), current_setting('TimeZone'), \
    current_setting('work_mem'), coalesce(current_setting('app.x', true), ''), \
    coalesce(current_setting('app.y', true), ''), current_setting('role'), current_user";

/// What a session that holds nothing finds on its backend: nothing.
const REST: &str = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
        AND pid = pg_backend_pid()) || ',' || (SELECT count(*) FROM pg_class \
        WHERE relnamespace = pg_my_temp_schema()) || ',' || (SELECT count(*) FROM \
        pg_listening_channels()) || ',' || (SELECT count(*) FROM pg_cursors WHERE is_holdable) \
        || ',' || (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)";

/// One client and what it knows.
struct Actor {
    id: u64,
    raw: Raw,
    dice: Dice,
    settings: BTreeMap<&'static str, String>,
    /// Its named statement's text, if it has one.
    named: Option<String>,
    /// What it has been told while it listened, by whomever.
    ear: Ear,
    places: Arc<Semaphore>,
}

/// Whether a client listens on its channel, and how many notifications it has had.
#[derive(Debug, Clone, Copy)]
enum Ear {
    Closed,
    Open(u64),
}

/// What a client saw that it must not see.
type Seen = Result<(), String>;

impl Actor {
    async fn act(&mut self) -> Seen {
        let (name, value) = self.pick();
        let set = if name == "role" {
            format!("SET ROLE {value}")
        } else {
            format!("SET {name} = {value}")
        };
        match self.dice.below(16) {
            0..=2 => self.run(&set).await?,
            3 => self.each(&["BEGIN", &set, "SELECT 1", "COMMIT"]).await?,
            4 => {
                self.each(&["BEGIN", &set, "ROLLBACK"]).await?;
                return Ok(());
            }
            5 => return self.set_local(name, &value).await,
            6 => {
                self.run(&format!("RESET {name}")).await?;
                self.settings.insert(name, default(name));
                return Ok(());
            }
            7 if name != "role" => {
                let value = value.replace('\'', "");
                self.run(&format!("SELECT set_config('{name}', '{value}', false)")).await?;
            }
            8 => {
                // One transaction: what failed in it did not happen.
                return self.fails(&format!("{set}; SELECT 1/0"), "22012").await;
            }
            9 => return self.fails("SELECT nothing_like_it", "42703").await,
            10 => return self.prepare().await,
            11 => {
                self.run("DISCARD ALL").await?;
                self.settings = defaults();
                self.named = None;
                return Ok(());
            }
            12 => {
                // Code that is not in the text; labelled as harmless, too.
                let value = format!("{}kB", 64 + self.id);
                let sneaks = match self.dice.below(4) {
                    0 => format!("SELECT sneaky('work_mem', '{value}')"),
                    1 => format!("DO 'BEGIN PERFORM sneaky(''work_mem'', ''{value}''); END'"),
                    2 => format!("CALL sneaks('work_mem', '{value}')"),
                    _ => format!("INSERT INTO sneaking VALUES ('work_mem', '{value}')"),
                };
                self.run(&sneaks).await?;
                self.settings.insert("work_mem", value);
                return Ok(());
            }
            13 => {
                self.run("RESET ALL").await?;
                let role = self.settings.remove("role");
                self.settings = defaults();
                self.settings.extend(role.map(|role| ("role", role)));
                return Ok(());
            }
            // Somebody who listens there hears of it, and nobody else does.
            14 => {
                let other = 1 + self.dice.below(CLIENTS);
                return self.run(&format!("NOTIFY c{other}, 'c{other}'")).await;
            }
            _ => return self.pin().await,
        }
        self.settings.insert(name, value.replace('\'', ""));
        Ok(())
    }

    /// A setting and a value that no other client gives it.
    fn pick(&mut self) -> (&'static str, String) {
        let (id, number) = (self.id, self.dice.below(1000));
        match self.dice.below(6) {
            0 => ("search_path", format!("s{id}_{number}, public")),
            1 => ("TimeZone", format!("'Etc/GMT+{}'", 1 + (id + number) % 12)),
            2 => ("work_mem", format!("'{}kB'", 1025 + 2 * id)),
            3 => ("app.x", format!("'{id} {number}'")),
            4 => ("app.y", format!("'{id} it is {number}'")),
            _ => ("role", format!("r{}", id % 4)),
        }
    }

    /// Every look must show what the client's own acts have made of it.
    async fn look(&mut self) -> Seen {
        let answer = match self.dice.below(3) {
            0 => self.raw.query(LOOK).await,
            1 => self.raw.batch(&[parse("", LOOK), bind("", &[]), execute()]).await,
            _ => {
                // The rest, and what a transaction shows.
                let rest = self.ask(REST).await?;
                self.same("left on the backend", rest.value().as_str(), "0,0,0,0,0")?;
                self.ask("BEGIN").await?;
                let answer = self.ask(LOOK).await?;
                self.ask("COMMIT").await?;
                answer
            }
        };
        self.compare(&answer)?;
        if let Some(text) = self.named.clone() {
            let answer = self.raw.batch(&[bind("mine", &[]), execute()]).await;
            self.no_error("named", &answer)?;
            self.same("its named statement", &answer.value(), &text)?;
        }
        Ok(())
    }

    fn compare(&self, answer: &Answer) -> Seen {
        self.no_error("look", answer)?;
        let row: Vec<_> = answer.rows().remove(0).into_iter().map(Option::unwrap).collect();
        let names = ["search_path", "TimeZone", "work_mem", "app.x", "app.y", "role"];
        for (name, value) in names.iter().zip(&row) {
            self.same(name, value, &self.settings[name])?;
        }
        let role = &self.settings["role"];
        let user = if role == "none" { "app" } else { role };
        self.same("current_user", &row[6], user)?;
        self.same("the reported TimeZone", &self.raw.params["TimeZone"], &self.settings["TimeZone"])
    }

    async fn set_local(&mut self, name: &'static str, value: &str) -> Seen {
        let set = if name == "role" {
            format!("SET LOCAL ROLE {value}")
        } else {
            format!("SET LOCAL {name} = {value}")
        };
        self.each(&["BEGIN", &set]).await?;
        let seen = self.ask(&format!("SELECT current_setting('{name}')")).await?.value();
        self.same(name, &seen, &value.replace('\'', ""))?;
        let end = if self.dice.below(2) == 0 { "COMMIT" } else { "ROLLBACK" };
        self.run(end).await
    }

    async fn prepare(&mut self) -> Seen {
        let text = format!("client {} statement {}", self.id, self.dice.below(1000));
        if self.named.is_some() {
            let answer = self.raw.batch(&[crate::raw::close("mine")]).await;
            self.no_error("close", &answer)?;
        }
        let answer = self.raw.batch(&[parse("mine", &format!("SELECT '{text}'"))]).await;
        self.no_error("prepare", &answer)?;
        self.named = Some(text);
        Ok(())
    }

    /// Something that can't be moved: as long as it is there the backend is the client's own, and
    /// when it is gone so is the hold.
    async fn pin(&mut self) -> Seen {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return Ok(()) };
        // As itself: a role can't create what it has no right to.
        self.run("RESET ROLE").await?;
        self.settings.insert("role", "none".to_owned());
        let id = self.id;
        let (first, question, seen, last) = match self.dice.below(6) {
            0 => (
                format!("CREATE TEMP TABLE mine AS SELECT {id} AS owner"),
                "SELECT owner FROM mine".to_owned(),
                id.to_string(),
                "DROP TABLE mine".to_owned(),
            ),
            1 => (
                format!("SELECT pg_advisory_lock({id})"),
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
                    .to_owned(),
                id.to_string(),
                format!("SELECT pg_advisory_unlock({id})"),
            ),
            2 => (
                format!(
                    "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT {id} FROM \
                     generate_series(1, 9); COMMIT"
                ),
                "FETCH 1 FROM held".to_owned(),
                id.to_string(),
                "CLOSE held".to_owned(),
            ),
            3 => (
                format!("LISTEN c{id}"),
                "SELECT pg_listening_channels()".to_owned(),
                format!("c{id}"),
                "UNLISTEN *".to_owned(),
            ),
            4 => (
                format!("PREPARE p AS SELECT {id}"),
                "EXECUTE p".to_owned(),
                id.to_string(),
                "DEALLOCATE p".to_owned(),
            ),
            // A function that is labelled STABLE and takes a lock.
            _ => (
                format!("BEGIN; SELECT locks({id}); COMMIT"),
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
                    .to_owned(),
                id.to_string(),
                "SELECT pg_advisory_unlock_all()".to_owned(),
            ),
        };
        let listens = first.starts_with("LISTEN");
        if listens { self.listen(&first).await } else { self.run(&first).await }?;
        let backend = self.ask("SELECT pg_backend_pid()").await?.value();
        for _ in 0..=self.dice.below(3) {
            let answer = self.ask(&question).await?;
            self.same(&first, &answer.value(), &seen)?;
            let now = self.ask("SELECT pg_backend_pid()").await?.value();
            // One that only listens is listened for.
            if !listens {
                self.same("the pinned backend", &now, &backend)?;
            }
            pgsteer::timer::sleep(Duration::from_millis(self.dice.below(4))).await;
        }
        self.run(&last).await?;
        self.ear = Ear::Closed;
        self.release(place).await
    }

    /// Listens on its own channel, and hears there what it says itself.
    async fn listen(&mut self, listen: &str) -> Seen {
        self.ear = Ear::Open(0);
        self.run(listen).await?;
        // It comes with the answer.
        self.run(&format!("NOTIFY c{id}, 'c{id}'", id = self.id)).await?;
        match self.ear {
            Ear::Open(1..) => Ok(()),
            Ear::Open(0) | Ear::Closed => Err(format!("client {}: told nothing", self.id)),
        }
    }

    async fn release(&mut self, place: OwnedSemaphorePermit) -> Seen {
        let rest = self.ask(REST).await?;
        self.same("left on the backend", &rest.value(), "0,0,0,0,0")?;
        drop(place);
        Ok(())
    }

    async fn fails(&mut self, sql: &str, code: &str) -> Seen {
        let answer = self.raw.query(sql).await;
        self.same(sql, &answer.code().unwrap_or_default(), code)
    }

    async fn each(&mut self, statements: &[&str]) -> Seen {
        for sql in statements {
            self.run(sql).await?;
        }
        Ok(())
    }

    async fn run(&mut self, sql: &str) -> Seen {
        self.ask(sql).await.map(drop)
    }

    async fn ask(&mut self, sql: &str) -> Result<Answer, String> {
        let answer = self.raw.query(sql).await;
        if let Ear::Open(heard) = &mut self.ear {
            *heard += notified(&answer);
        }
        self.no_error(sql, &answer)?;
        Ok(answer)
    }

    fn no_error(&self, what: &str, answer: &Answer) -> Seen {
        let mine = format!("c{}", self.id);
        for message in answer.0.iter().filter(|message| message.tag() == 'A') {
            let told = notification(message);
            if matches!(self.ear, Ear::Closed) || told != (mine.clone(), mine.clone()) {
                let id = self.id;
                return Err(format!("client {id}: {what}: somebody else's notification: {told:?}"));
            }
        }
        match answer.error() {
            None => Ok(()),
            Some(error) => Err(format!("client {}: {what}: {:?}", self.id, error.field(b'M'))),
        }
    }

    fn same(&self, what: &str, seen: &str, mine: &str) -> Seen {
        if seen == mine {
            return Ok(());
        }
        Err(format!("client {}: {what}: saw {seen:?} where its own is {mine:?}", self.id))
    }
}

fn notified(answer: &Answer) -> u64 {
    answer.0.iter().filter(|message| message.tag() == 'A').map(|_| 1).sum()
}

/// The channel and the payload of a notification.
fn notification(message: &Message) -> (String, String) {
    let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    // Behind the header and the process.
    let mut texts = message.0[9..].split(|byte| *byte == 0).map(text);
    (texts.next().unwrap(), texts.next().unwrap())
}

fn defaults() -> BTreeMap<&'static str, String> {
    DEFAULTS.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

fn default(name: &str) -> String {
    defaults()[name].clone()
}

/// What the backends did last.
fn held(house: &House) -> Vec<String> {
    let sql = "SELECT pid || ' ' || state || ' ' || left(query, 40) FROM pg_stat_activity \
               WHERE usename = 'app'";
    let rows = house.cluster.servers().iter().flat_map(|server| server.rows(sql).unwrap());
    let metrics = house.http("/metrics").body;
    let active =
        metrics.lines().filter(|line| line.contains("state=\"active\"")).map(str::to_owned);
    active.chain(rows.flatten().flatten()).collect()
}

fn house(reset: &str) -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).log(StatementLog::Off))
        .set("pool.size", "10")
        .set("pool.wait_timeout", "1m")
        .set("pool.audit_every", "5")
        .set("pool.reset", reset)
        .build();
    let primary = house.server("primary");
    for sql in [
        "CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app",
        "DO $$ BEGIN FOR i IN 0..3 LOOP EXECUTE format('CREATE ROLE r%s', i); \
         EXECUTE format('GRANT r%s TO app', i); END LOOP; END $$",
        "CREATE FUNCTION sneaky(text, text) RETURNS text STABLE LANGUAGE plpgsql AS \
         'BEGIN RETURN set_config($1, $2, false); END'",
        "CREATE PROCEDURE sneaks(text, text) LANGUAGE plpgsql AS \
         'BEGIN PERFORM set_config($1, $2, false); END'",
        "CREATE TABLE sneaking (name text, value text); GRANT INSERT ON sneaking TO PUBLIC",
        "CREATE FUNCTION sneak() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM set_config(new.name, new.value, false); RETURN NULL; END'",
        "CREATE TRIGGER sneak BEFORE INSERT ON sneaking FOR EACH ROW EXECUTE FUNCTION sneak()",
        "CREATE FUNCTION locks(bigint) RETURNS int STABLE LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_lock($1); RETURN 1; END'",
    ] {
        primary.rows(sql).unwrap();
    }
    house.cluster.await_replay().unwrap();
    house
}

/// How long they act.
#[derive(Debug, Clone, Copy)]
enum Lasts {
    Rounds(u64),
    Time(Duration),
}

impl Lasts {
    /// As `make test` has it, or as the environment says.
    fn from_env() -> Self {
        let seconds = std::env::var("PGSTEER_LEAKS").ok();
        seconds.map_or(Self::Rounds(ROUNDS), |seconds| {
            Self::Time(Duration::from_secs(seconds.parse().unwrap()))
        })
    }

    fn is_over(self, rounds: u64, began: Moment) -> bool {
        match self {
            Self::Rounds(all) => rounds >= all,
            Self::Time(all) => clock::now().since(began) >= all,
        }
    }
}

/// Lets all of them act for so long; what the first one saw that is not its own.
async fn mix(house: &House, lasts: Lasts, chance: &mut Dice) -> Seen {
    let places = Arc::new(Semaphore::new(PINNED_MAX));
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    let (began, acts) = (clock::now(), Arc::new(AtomicU64::new(0)));
    for id in 1..=CLIENTS {
        let raw = Raw::enter_as(house, "app").await;
        // Each has a row of its own, drawn from the printed seed.
        let mut dice = chance.clone();
        for _ in 0..1000 * id {
            dice.roll();
        }
        let places = Arc::clone(&places);
        let mut actor =
            Actor { id, raw, dice, settings: defaults(), named: None, ear: Ear::Closed, places };
        let (stop, acts) = (Arc::clone(&stop), Arc::clone(&acts));
        running.push(tasks::spawn("actor", async move {
            for round in 0.. {
                if lasts.is_over(round, began) {
                    break;
                }
                acts.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut seen = actor.act().await;
                if seen.is_ok() {
                    seen = actor.look().await;
                }
                if seen.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    return (seen, actor);
                }
            }
            (Ok(()), actor)
        }));
    }
    let mut found = Vec::new();
    let mut actors = Vec::new();
    for actor in running {
        let (seen, actor) = actor.await.unwrap();
        found.extend(seen.err());
        actors.push(actor);
    }
    let all = if found.is_empty() { Ok(()) } else { Err(found.join("\n")) };
    chance.roll();
    eprintln!("{} acts in {:?}", acts.load(Ordering::Relaxed), clock::now().since(began));
    if all.is_ok() {
        // All are still there, and none of them holds a backend.
        let active = |line: &&str| {
            line.starts_with("pgsteer_pool_connections{") && line.contains("state=\"active\"")
        };
        let free = eventually(Duration::from_mins(1), || {
            let metrics = house.http("/metrics").body;
            let mut lines = metrics.lines().filter(active).peekable();
            lines.peek().expect("the metric is there");
            lines.all(|line| line.ends_with(" 0")).then_some(())
        });
        assert!(free.is_some(), "a backend is still held: {:?}", held(house));
    }
    drop(actors);
    all
}

/// What pins a session, what it is told as, and what ends it.
const PINS: [(&str, &str, &str); 11] = [
    ("CREATE TEMP TABLE t (i int)", "temporary objects", "DROP TABLE t"),
    ("CREATE TEMP TABLE t (i int)", "temporary objects", "DISCARD TEMP"),
    (
        "CREATE TEMP SEQUENCE q; CREATE TEMP VIEW v AS SELECT 1",
        "temporary objects",
        "DROP SEQUENCE q; DROP VIEW v",
    ),
    ("SELECT pg_advisory_lock(1)", "advisory locks", "SELECT pg_advisory_unlock(1)"),
    (
        "SELECT pg_try_advisory_lock_shared(1, 2)",
        "advisory locks",
        "SELECT pg_advisory_unlock_all()",
    ),
    ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "cursors WITH HOLD", "CLOSE c"),
    ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "cursors WITH HOLD", "CLOSE ALL"),
    ("PREPARE p AS SELECT 1; LISTEN news", "LISTEN, statements of PREPARE", "DEALLOCATE p"),
    (
        "PREPARE p AS SELECT 1; LISTEN news; LISTEN olds",
        "LISTEN, statements of PREPARE",
        "UNLISTEN *; DEALLOCATE p",
    ),
    ("PREPARE p AS SELECT 1", "statements of PREPARE", "DEALLOCATE p"),
    (
        "PREPARE p AS SELECT 1; LISTEN news; CREATE TEMP TABLE t ()",
        "temporary objects, LISTEN, statements of PREPARE",
        "DISCARD ALL",
    ),
];

/// Whether a backend of the primary is held.
fn is_held(house: &House) -> bool {
    let metrics = house.http("/metrics").body;
    let active = |line: &&str| {
        line.starts_with("pgsteer_pool_connections{")
            && line.contains(&house.server("primary").address())
            && line.contains("state=\"active\"")
    };
    !metrics.lines().find(active).unwrap().ends_with(" 0")
}

/// The pinned sessions, as `pgsteer status` tells of them: application, why.
fn pinned(house: &House) -> Vec<(String, String)> {
    let status = house.status();
    let told = status["pinned"]["oldest"].as_array().unwrap().iter();
    let word = |session: &serde_json::Value, key| session[key].as_str().unwrap().to_owned();
    told.map(|session| (word(session, "application"), word(session, "because"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pins_a_session_holds_it_and_its_end_lets_go() {
    let house = house("tracked");
    let login = [("user", "app"), ("database", "postgres"), ("application_name", "pinner")];
    let mut raw = Raw::connect(house.proxy.address(), &login).await.unwrap();
    for (pin, told, end) in PINS {
        raw.query("UNLISTEN *").await;
        assert_eq!(pinned(&house), [], "before {pin}");
        assert_eq!(raw.query(pin).await.code(), None, "{pin}");
        // Behind its answer the backend is looked at: what is asked next comes after that.
        assert_eq!(raw.value("SELECT 1").await, "1");
        assert!(is_held(&house), "{pin}");
        assert_eq!(pinned(&house), [("pinner".to_owned(), told.to_owned())], "{pin}");
        assert_eq!(raw.query(end).await.code(), None, "{end}");
        let free = eventually(Duration::from_mins(1), || (!is_held(&house)).then_some(()));
        assert!(free.is_some(), "still held after {end}");
    }
    // One that leaves holds nothing either.
    assert_eq!(raw.query("CREATE TEMP TABLE t (i int)").await.code(), None);
    assert_eq!(raw.value("SELECT 1").await, "1");
    assert_eq!(house.metric("pgsteer_pinned_sessions{reason=\"temporary\"}"), Some(1.0));
    raw.leave().await;
    let gone = eventually(Duration::from_mins(1), || {
        let count = house.metric("pgsteer_pinned_sessions{reason=\"temporary\"}");
        (count == Some(0.0) && pinned(&house).is_empty()).then_some(())
    });
    assert!(gone.is_some(), "still told of: {:?}", pinned(&house));
}

/// Behind a function that may have done anything the backend is reset: that is not the client's
/// business, who has its settings still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_ours_is_not_told() {
    let house = house("tracked");
    let mut raw = Raw::enter_as(&house, "app").await;
    raw.value("SET TimeZone = 'Etc/GMT+7'").await;
    for _ in 0..5 {
        raw.value("DO 'BEGIN PERFORM 1; END'").await;
        // Whatever comes behind the answer is read with the next one.
        pgsteer::timer::sleep(Duration::from_millis(50)).await;
        assert_eq!(raw.query("SELECT 1").await.tags(), "TDCZ");
        assert_eq!(raw.params["TimeZone"], "Etc/GMT+7");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_through_ten_backends_mix_nothing() {
    let house = house("tracked");
    let mut dice = Dice::from_env();
    mix(&house, Lasts::from_env(), &mut dice).await.unwrap();
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    for server in house.cluster.servers() {
        let backends: u64 = server.value(count).unwrap().parse().unwrap();
        assert!(backends <= 10, "{backends} backends on {}", server.name());
    }
    // Nor did anybody leave what nobody has stumbled over yet.
    let metrics = house.http("/metrics").body;
    let audits = |result: &str| -> u64 {
        let series = format!("pgsteer_pool_audits_total{{result=\"{result}\"}} ");
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    };
    assert_eq!(audits("leak"), 0, "{}", house.proxy.log());
    assert!(audits("clean") > 0, "nothing was audited");
    eprintln!(
        "{} audits\n{}",
        audits("clean"),
        metrics.lines().filter(|l| l.contains("queries_total")).collect::<Vec<_>>().join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_reset_the_same_run_finds_a_leak() {
    let house = house("off");
    let mut dice = Dice::from_env();
    let began = clock::now();
    let lasts = Lasts::Time(FOUND_WITHIN);
    let leak = mix(&house, lasts, &mut dice).await.expect_err("without the reset nothing leaked?");
    let of_another = ["where its own is", "left on the backend", "somebody else's"];
    assert!(of_another.iter().any(|found| leak.contains(found)), "something else failed: {leak}");
    eprintln!("found after {:?}, as it must be: {leak}", clock::now().since(began));
}

/// Ways to make a backend listen that is the session's for as long as it does.
const LISTENS: [&str; 3] = [
    "CREATE TEMP TABLE t (i int); LISTEN news",
    "PREPARE p AS SELECT 1; LISTEN news",
    "DO $$ BEGIN EXECUTE 'LISTEN news'; END $$; CREATE TEMP TABLE t (i int)",
];

/// How somebody leaves a backend that listens.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// It says goodbye.
    Politely,
    /// It is gone without a word.
    Suddenly,
    /// It stays, and takes back whatever it did.
    WithDiscard,
}

/// What a client finds on a backend that was another's, who listened there: whether it is the same
/// one, the channels that it listens to, and what the client is told that nobody told it.
#[derive(Debug)]
struct Found {
    same: bool,
    channels: u64,
    told: Vec<(String, String)>,
}

/// A house with one backend, so that the next one has to have it.
fn narrow(mode: &str, reset: &str) -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .set("pool.mode", mode)
        .set("pool.size", "1")
        .set("pool.wait_timeout", "1m")
        .set("pool.reset", reset)
        .build();
    let create = "CREATE ROLE app LOGIN; GRANT TEMPORARY ON DATABASE postgres TO app";
    house.server("primary").rows(create).unwrap();
    house
}

/// Somebody listens and leaves, and the next one has the backend while it is notified.
async fn next_on_the_backend(house: &House, listens: &str, leaves: Leaves) -> Found {
    let mut listener = Raw::enter_as(house, "app").await;
    assert_eq!(listener.query(listens).await.code(), None, "{listens}");
    let backend = listener.value("SELECT pg_backend_pid()").await;
    let count = "SELECT count(*) FROM pg_listening_channels()";
    assert_eq!(listener.value(count).await, "1", "{listens}: it does not listen");
    let stays = match leaves {
        Leaves::Politely => {
            listener.leave().await;
            None
        }
        Leaves::Suddenly => {
            listener.reset();
            None
        }
        Leaves::WithDiscard => {
            assert_eq!(listener.query("DISCARD ALL").await.code(), None, "{listens}");
            Some(listener)
        }
    };
    let mut next = Raw::enter_as(house, "app").await;
    let same = next.value("SELECT pg_backend_pid()").await == backend;
    let channels = next.value(count).await.parse().unwrap();
    house.server("primary").rows("NOTIFY news, 'not for everybody'").unwrap();
    let mut told = Vec::new();
    // What a backend is told goes out with its next answer at the latest, or by itself.
    for _ in 0..3 {
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
        let answer = next.query("SELECT 1").await;
        let notifications = answer.0.iter().filter(|message| message.tag() == 'A');
        told.extend(notifications.map(notification));
    }
    next.leave().await;
    drop(stays);
    Found { same, channels, told }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_listened_tells_the_next_one_nothing() {
    let all = [Leaves::Politely, Leaves::Suddenly, Leaves::WithDiscard];
    for (mode, leaves) in [("transaction", &all[..]), ("session", &all[..2])] {
        let house = narrow(mode, "tracked");
        let mut passed_on = 0;
        for listens in LISTENS {
            for leaves in leaves {
                let found = next_on_the_backend(&house, listens, *leaves).await;
                let case = format!("{mode}: {listens}: {leaves:?}: {found:?}");
                assert_eq!((found.channels, found.told.len()), (0, 0), "{case}");
                passed_on += u64::from(found.same);
            }
        }
        assert!(passed_on > 0, "{mode}: no backend was given on, so none could have told");
    }
    // The opposite: where nothing is looked for, the next one has a backend that listens.
    let house = narrow("transaction", "off");
    let listens = "DO $$ BEGIN EXECUTE 'LISTEN news'; END $$";
    let found = next_on_the_backend(&house, listens, Leaves::Politely).await;
    assert!(found.same && found.channels == 1, "{found:?}");
}

/// In one database each hears the channels that it listens to, whoever has had which backend, and
/// in another database nobody hears any of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_reaches_only_who_listens_to_its_channel() {
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "2").build();
    house.server("primary").rows("CREATE DATABASE other").unwrap();
    let enter = async |database: &str| {
        let login = [("user", "postgres"), ("database", database)];
        Raw::connect(house.proxy.address(), &login).await.unwrap()
    };
    let mut listeners = Vec::new();
    for (number, database) in ["postgres", "postgres", "other"].into_iter().enumerate() {
        let mut raw = enter(database).await;
        // The last two have the same channel, in two databases.
        let channel = ["one", "two", "two"][number];
        assert_eq!(raw.query(&format!("LISTEN {channel}")).await.code(), None);
        listeners.push((raw, database, channel));
    }
    let mut deaf = enter("postgres").await;
    for round in 0..20 {
        for (database, channel) in
            [("postgres", "one"), ("postgres", "two"), ("other", "one"), ("other", "two")]
        {
            let mut sender = enter(database).await;
            let notify = format!("NOTIFY {channel}, '{database} {channel} {round}'");
            assert_eq!(sender.query(&notify).await.code(), None);
            sender.leave().await;
        }
        for (raw, database, channel) in &mut listeners {
            let answer = raw.until('A').await;
            let told: Vec<_> = answer.0.iter().map(notification).collect();
            let mine = format!("{database} {channel} {round}");
            assert_eq!(told, [((*channel).to_owned(), mine)], "nothing else came before it");
        }
        let answer = deaf.query("SELECT 1").await;
        assert_eq!(answer.tags(), "TDCZ", "it does not listen");
    }
    // Nor is anything left that was on its way.
    for (raw, ..) in &mut listeners {
        assert_eq!(raw.query("SELECT 1").await.tags(), "TDCZ");
    }
}
