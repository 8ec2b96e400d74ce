//! `pgsteer demo failover` and `pgsteer demo switchover`: the primary is killed, or hands over,
//! under writers and readers; then what they saw is told, and their ledger is held against what
//! the new primary has.

mod tell;

use crate::admin::{OrderState, StatusReport, StepsReport};
use crate::backend::{Login, LoginSecret, SslMode, Target, TlsPolicy};
use crate::cli::args::{Globals, Output};
use crate::cli::crowd::{Crowd, Door, Script};
use crate::cli::demo::fail;
use crate::cli::demo::rest::Rest;
use crate::cli::demo::stage::Stage;
use crate::cli::exit::Exit;
use crate::cli::office::Office;
use crate::cli::order;
use crate::cli::order::Order;
use crate::cli::say;
use crate::clock;
use crate::clock::Moment;
use crate::sandbox::{Rejoined, SUPERUSER, SandboxError, Server};
use crate::topology::ServerId;
use std::time::Duration;
use tell::{Story, Terms, Whole, steps_since};

/// What happens to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// It is killed, and pgsteer replaces it.
    Killed,
    /// It hands over.
    HandsOver,
}

/// Where writes go. Without a unique index a number that was written twice is there twice.
const TABLE: &str = "CREATE TABLE demo_ledger (number bigint, at timestamptz DEFAULT now())";
/// Tells which server answers, by its port.
const READ: &str = "SELECT inet_server_port() FROM pg_class LIMIT 1";

/// How long the load goes on before, and after the first write on the new primary.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(2);
/// Longest waits: until pgsteer may act, until writes go on, until the set is whole again.
const ARMED_MAX: Duration = Duration::from_secs(30);
const CHANGE_MAX: Duration = Duration::from_mins(1);
const WHOLE_MAX: Duration = Duration::from_mins(1);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Plays it.
///
/// # Errors
/// How the command ends if it was stopped, or if it could not be played to its end.
pub(super) fn play(
    event: Event,
    (stage, clients): (&Stage, u8),
    rest: &Rest,
    globals: &Globals,
) -> Result<Exit, Exit> {
    if stage.cluster.standbys().is_empty() {
        say::talk("error: this needs a standby: --standbys 2");
        return Err(Exit::Usage);
    }
    let play = Play { stage, rest, globals };
    let office = play.armed()?;
    play.can_be_shown(event, &office)?;
    stage.cluster.primary().rows(TABLE).map_err(|error| fail(&error))?;
    let crowd = play.crowd(clients)?;
    play.say(&format!("\n{clients} clients write and {clients} read, through pgsteer"));
    rest.take(BEFORE)?;
    let before = crowd.tally();
    play.say(&format!("  {}", before.line()));

    let old = stage.cluster.primary();
    let began = play.happens(event, &office, old)?;
    let (port, first) = play.await_write_elsewhere(&crowd, old)?;
    rest.take(AFTER)?;
    let steps: StepsReport = office.get("/steps")?;
    let steps = steps_since(&steps, clock::now(), began);
    let (seen, ledger) = crowd.leave();

    let new = play.server_on(&port)?;
    let held = held(new).map_err(|error| fail(&error))?;
    let judgement = ledger.judge(&held);
    let first = (new.address(), first.since(began));
    let promise = office.status.failover.promise.clone().unwrap_or_default();
    let told = status(stage).and_then(|status| status.failover.last_change);
    let loss = told.map_or_else(String::new, |change| change.loss.text);
    let terms = Terms { promise, loss };
    let story = Story { event, terms, steps, first, before, seen, ledger, judgement };
    play.say(&story.text());
    let whole = play.make_whole(event, (old, new))?;
    play.end(&story, &whole)
}

/// The play's cast.
#[derive(Clone, Copy)]
struct Play<'a> {
    stage: &'a Stage,
    rest: &'a Rest,
    globals: &'a Globals,
}

impl<'a> Play<'a> {
    /// Waits until pgsteer may act by itself.
    fn armed(self) -> Result<Office, Exit> {
        let mut last = None;
        let settled = self.until(ARMED_MAX, || {
            let failover = status(self.stage)?.failover;
            // With two standbys commits wait for one, and that is proved first.
            let one = self.stage.cluster.standbys().len() < 2;
            let promised = one || failover.promise.as_deref() == Some("quorum");
            let armed = failover.armed && promised;
            // In another mode it never will.
            let settled = (armed || failover.mode != "auto").then_some(armed);
            last = Some(failover);
            settled
        })?;
        if settled != Some(true) {
            say::talk("error: pgsteer would not act by itself:");
            if let Some(failover) = last {
                say::talk(&format!("  failover.mode is \"{}\"", failover.mode));
                let lacking = failover.lacking.iter().chain(&failover.unavailable);
                lacking.for_each(|what| say::talk(&format!("  {what}")));
            }
            return Err(Exit::Failed);
        }
        Office::at(self.stage.proxy.http_address(), self.globals.color.for_stderr())
    }

    /// Without a quorum a failover under load loses what is not known beforehand, and pgsteer does
    /// not do that by itself unless it is told that it may.
    fn can_be_shown(self, event: Event, office: &Office) -> Result<(), Exit> {
        let quorum = office.status.failover.promise.as_deref() == Some("quorum");
        let may_lose = self.globals.set.iter().any(|set| set.contains("max_data_loss"));
        if event == Event::HandsOver || quorum || may_lose {
            return Ok(());
        }
        say::talk(
            "error: a failover that loses nothing needs two standbys (--standbys 2); to see one \
             that may lose something: --set failover.max_data_loss=any",
        );
        Err(Exit::Usage)
    }

    fn crowd(self, clients: u8) -> Result<Crowd, Exit> {
        let address = self.stage.proxy.address();
        let tls = TlsPolicy { mode: SslMode::Disable, ..TlsPolicy::default() };
        let host = address.ip().to_string();
        let target = Target::alone(ServerId(0), "pgsteer", &host, address.port(), &tls);
        let target = target.map_err(|error| fail(&error))?;
        let login = Login::new(SUPERUSER, "postgres", LoginSecret::None);
        let script = Script {
            write: |number| {
                format!(
                    "INSERT INTO demo_ledger (number) VALUES ({number}) \
                     RETURNING inet_server_port()"
                )
            },
            read: READ,
            writers: clients.into(),
            readers: clients.into(),
        };
        Crowd::start(script, Door { target, login }).map_err(|error| fail(&error))
    }

    /// Does it; the moment when it began.
    fn happens(self, event: Event, office: &Office, old: &Server) -> Result<Moment, Exit> {
        let name = old.address();
        match event {
            Event::Killed => {
                self.say(&format!("\nkill -9 for every process of the primary {name}\n"));
                let began = clock::now();
                old.kill9().map_err(|error| fail(&error))?;
                Ok(began)
            }
            Event::HandsOver => {
                self.say(&format!("\nthe primary {name} hands over\n"));
                let order = Order { path: "switchover", to: None, accept_loss: None };
                let began = clock::now();
                // Its steps are told afterwards, with the rest.
                let account = order::carry_out(office, &order, Output::Json)?;
                if account.state != OrderState::Done {
                    let why = account.refusal.as_deref().unwrap_or("it is not known why");
                    say::talk(&format!("error: the switchover was not done: {why}"));
                    return Err(Exit::Failed);
                }
                Ok(began)
            }
        }
    }

    /// Waits until a write was acknowledged by another server; its port, and when.
    fn await_write_elsewhere(self, crowd: &Crowd, old: &Server) -> Result<(String, Moment), Exit> {
        let old = old.port().to_string();
        let elsewhere = || {
            crowd.look(|tally| {
                let others = tally.writes.first.iter().filter(|(by, _)| **by != old);
                others.min_by_key(|(_, at)| **at).map(|(by, at)| (by.clone(), *at))
            })
        };
        if let Some(found) = self.until(CHANGE_MAX, elsewhere)? {
            return Ok(found);
        }
        let why = status(self.stage).and_then(|status| status.failover.why);
        let why = why.unwrap_or_else(|| "no reason is given".to_owned());
        say::talk(&format!("error: no write was accepted within {CHANGE_MAX:?}: {why}"));
        say::talk(&format!("pgsteer's log says:\n{}", self.stage.proxy.log()));
        Err(Exit::Failed)
    }

    /// The server of the cluster on this port.
    fn server_on(self, port: &str) -> Result<&'a Server, Exit> {
        let mut servers = self.stage.cluster.servers().iter();
        servers.find(|server| server.port().to_string() == port).ok_or_else(|| {
            say::talk(&format!("error: a write was answered by port {port}, which is no server"));
            Exit::Failed
        })
    }

    /// Has the old primary follow the new one, as an operator would, and waits until it streams.
    fn make_whole(self, event: Event, (old, new): (&Server, &Server)) -> Result<Whole, Exit> {
        let began = clock::now();
        let how = match event {
            Event::Killed => {
                let rejoined = self.stage.cluster.rejoin(old, new).map_err(|error| fail(&error))?;
                match rejoined {
                    Rejoined::Rewound => "pg_rewind",
                    Rejoined::Copied => "a copy of the new primary",
                }
            }
            Event::HandsOver => "pgsteer itself",
        };
        let name = old.address();
        let streams = self.until(WHOLE_MAX, || {
            let status = status(self.stage)?;
            let server = status.servers.into_iter().find(|server| server.name == name)?;
            server.reads.then_some(())
        })?;
        let took = streams.map(|()| clock::now().since(began));
        Ok(Whole { server: name, how, took })
    }

    /// The verdict.
    fn end(self, story: &Story, whole: &Whole) -> Result<Exit, Exit> {
        let checks = story.checks(whole);
        match self.globals.output {
            Output::Json => say::data(&format!("{}\n", story.as_json(whole)))?,
            Output::Table => {
                let line = |(what, ok): &(String, bool)| {
                    format!("{}   {what}\n", if *ok { "ok  " } else { "FAIL" })
                };
                let lines: String = checks.iter().map(line).collect();
                say::data(&format!("\n{lines}"))?;
                story.seen.errors.iter().for_each(|error| say::talk(&format!("       {error}")));
            }
        }
        let all_ok = checks.iter().all(|(_, ok)| *ok);
        if all_ok { Ok(Exit::Done) } else { Err(Exit::Failed) }
    }

    /// Looks until something is found, or `limit` has passed.
    fn until<T>(
        self,
        limit: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>, Exit> {
        let end = clock::now() + limit;
        loop {
            if let Some(found) = look() {
                return Ok(Some(found));
            }
            if clock::now() >= end {
                return Ok(None);
            }
            self.rest.take(PAUSE)?;
        }
    }

    /// For people; a script waits for the last line.
    fn say(self, text: &str) {
        if self.globals.output == Output::Table {
            // A reader who has left does not end the play: its exit code may still count.
            say::data(&format!("{text}\n")).unwrap_or(());
        }
    }
}

/// What the proxy says of itself now.
fn status(stage: &Stage) -> Option<StatusReport> {
    let answer = stage.proxy.get("/status").ok().filter(|answer| answer.status == 200)?;
    serde_json::from_str(&answer.body).ok()
}

/// The numbers that a server holds.
fn held(server: &Server) -> Result<Vec<u64>, SandboxError> {
    let rows = server.rows("SELECT number FROM demo_ledger")?;
    Ok(rows.iter().filter_map(|row| row.first()?.as_ref()?.parse().ok()).collect())
}
