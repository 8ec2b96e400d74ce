//! `pgsteer drill`: a switchover there and back under a small load, with a report of what clients
//! saw.
//!
//! The way back is by itself only where the old primary becomes a standby by itself
//! (`failover.demote = "crash_restart"`), and where that can be done with both servers; elsewhere
//! it is refused before anything is done.
//!
//! What it writes are messages in the log that nobody reads, so no table is needed and nothing is
//! left behind.

use crate::admin::{AccountReport, OrderState, PreviewReport};
use crate::backend::{Login, LoginSecret, SslMode, Target, TlsPolicy};
use crate::cli::args::{Globals, Output};
use crate::cli::ask;
use crate::cli::crowd::{Crowd, Door, Script, Tally};
use crate::cli::exit::Exit;
use crate::cli::office;
use crate::cli::office::Office;
use crate::cli::order;
use crate::cli::order::Order;
use crate::cli::say;
use crate::clock;
use crate::config::{Config, ListenAt};
use crate::route::RoleWish;
use crate::topology::ServerId;
use serde_json::json;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// `pgsteer drill ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server to hand over to, and back from [default: the best]
    #[arg(long, value_name = "SERVER")]
    pub to: Option<String>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// How many clients write, and how many read
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub clients: u8,
}

/// How long the load goes on before, between and after.
const CALM: Duration = Duration::from_secs(2);
/// Longest wait for the old primary to be a standby to which can be handed back.
const BACK_MAX: Duration = Duration::from_mins(1);
/// Pause between two looks at it.
const PAUSE: Duration = Duration::from_millis(250);

/// One act and what clients saw meanwhile.
struct Act {
    name: String,
    /// `None`: nothing was changed.
    change: Option<AccountReport>,
    seen: Tally,
}

/// Asks, and does it.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Exit> {
    let loaded = office::configuration(globals)?;
    let office = Office::find(globals)?;
    if office.status.failover.demote != "crash_restart" {
        say::talk(
            "refused: with failover.demote = \"fence\" the old primary of a switchover must be \
             rejoined by its operator, so there is no way back by itself; nothing was changed. For a \
             drill set failover.demote = \"crash_restart\" and reload, which takes a superuser as \
             servers.user; `pgsteer switchover` hands over without a way back",
        );
        return Err(Exit::Refused);
    }
    let there = Order { path: "switchover", to: args.to.clone(), accept_loss: None };
    let preview: PreviewReport = office.get(&there.preview_path())?;
    if let Some(objection) = order::objection(&preview) {
        say::talk(&format!("refused: {objection}"));
        return Err(Exit::Refused);
    }
    let Some(to) = preview.to.clone() else { return Err(Exit::Refused) };
    returns(&office, [&preview.primary, &to])?;
    if !args.yes {
        say::talk(&format!("drill: {} hands over to {to}, and gets it back", preview.primary));
        order::by_name(&to)?;
    }
    let door = door(&loaded.config).map_err(|why| {
        say::talk(&format!("error: {why}"));
        Exit::Failed
    })?;
    let script = Script {
        write: |number| {
            format!("SELECT pg_catalog.pg_logical_emit_message(true, 'pgsteer drill', '{number}')")
        },
        read: "SELECT pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_class LIMIT 1",
        writers: args.clients.into(),
        readers: args.clients.into(),
    };
    let crowd = Crowd::start(script, door).map_err(|error| {
        say::talk(&format!("error: no clients: {error}"));
        Exit::Failed
    })?;
    let drill = Drill { office: &office, crowd: &crowd, output: globals.output };
    let acts = drill.through(&preview.primary, &to);
    drop(crowd);
    report(&acts?, globals)
}

/// Refuses where one of the two that hand over could not be made a standby.
fn returns(office: &Office, both: [&String; 2]) -> Result<(), Exit> {
    let undemotable = &office.status.failover.undemotable;
    let Some(obstacle) = undemotable.iter().find(|it| both.contains(&&it.server)) else {
        return Ok(());
    };
    say::talk(&format!(
        "refused: {} could not become a standby when it hands over: {}; nothing was changed",
        obstacle.server, obstacle.why
    ));
    Err(Exit::Refused)
}

struct Drill<'a> {
    office: &'a Office,
    crowd: &'a Crowd,
    output: Output,
}

impl Drill<'_> {
    fn through(&self, from: &str, to: &str) -> Result<Vec<Act>, Exit> {
        let mut acts = vec![self.calm("before")?];
        acts.push(self.hand_over(to)?);
        acts.push(self.calm("between")?);
        self.await_fit(from)?;
        acts.push(self.hand_over(from)?);
        acts.push(self.calm("after")?);
        Ok(acts)
    }

    /// The load alone.
    fn calm(&self, name: &str) -> Result<Act, Exit> {
        thread::sleep(CALM);
        let seen = self.crowd.tally();
        if seen.writes.done == 0 || seen.reads.done == 0 {
            let why = seen.errors.first().map_or("no answer", String::as_str);
            say::talk(&format!("error: the load does not get through: {why}"));
            return Err(Exit::Failed);
        }
        Ok(Act { name: name.to_owned(), change: None, seen })
    }

    fn hand_over(&self, to: &str) -> Result<Act, Exit> {
        let order = Order { path: "switchover", to: Some(to.to_owned()), accept_loss: None };
        let account = order::carry_out(self.office, &order, self.output)?;
        if account.state != OrderState::Done {
            let why = account.refusal.as_deref().unwrap_or("it did not come to its end");
            say::talk(&format!("the switchover to {to} was not done: {why}"));
            return Err(match account.state {
                OrderState::Refused => Exit::Refused,
                OrderState::Underway | OrderState::Waiting => Exit::TimedOut,
                OrderState::Done | OrderState::Lost => Exit::Failed,
            });
        }
        // Whoever waited gets his answer a moment later.
        thread::sleep(PAUSE);
        let seen = self.crowd.tally();
        Ok(Act { name: format!("to {to}"), change: Some(account), seen })
    }

    /// Waits until a server can be handed over to.
    fn await_fit(&self, to: &str) -> Result<(), Exit> {
        let back = Order { path: "switchover", to: Some(to.to_owned()), accept_loss: None };
        let began = clock::now();
        loop {
            let answer = self.office.try_get(&back.preview_path()).ok();
            let preview = answer.and_then(|answer| office::read::<PreviewReport>(&answer).ok());
            let objection = preview.as_ref().and_then(order::objection);
            match (preview, objection) {
                (Some(_), None) => return Ok(()),
                (_, objection) if clock::now().since(began) >= BACK_MAX => {
                    let why = objection.unwrap_or_else(|| "no answer".to_owned());
                    say::talk(&format!("error: {to} did not get fit to be handed back to: {why}"));
                    return Err(Exit::TimedOut);
                }
                (_, _) => thread::sleep(PAUSE),
            }
        }
    }
}

/// Tells what clients saw; a statement that failed fails the drill.
fn report(acts: &[Act], globals: &Globals) -> Result<Exit, Exit> {
    let is_clean = acts.iter().all(|act| act.seen.is_clean());
    match globals.output {
        Output::Json => {
            let acts = acts.iter().map(
                |act| json!({"act": act.name, "change": act.change, "clients": act.seen.as_json()}),
            );
            let report = json!({"passed": is_clean, "acts": acts.collect::<Vec<_>>()});
            say::data(&format!("{report}\n"))?;
        }
        Output::Table => {
            let width = acts.iter().map(|act| act.name.len()).max().unwrap_or(0);
            let lines = acts.iter().map(|act| {
                let took = act.change.as_ref().map_or_else(String::new, |account| {
                    format!("in {:.0} ms", account.seconds * 1000.0)
                });
                format!("  {:<width$}  {took:<10}  {}\n", act.name, act.seen.line())
            });
            let verdict = if is_clean { "ok     no statement failed\n" } else { "FAIL\n" };
            say::data(&format!("\n{}\n{verdict}", lines.collect::<String>()))?;
            let errors = acts.iter().flat_map(|act| &act.seen.errors);
            errors.for_each(|error| say::talk(&format!("       {error}")));
        }
    }
    if is_clean { Ok(Exit::Done) } else { Err(Exit::Failed) }
}

/// Where the proxy of this configuration takes clients, and the user that it uses itself.
fn door(config: &Config) -> Result<Door, String> {
    let writes = config.listen.iter().find(|listen| listen.role != RoleWish::Standby);
    let listen = writes.ok_or("the configuration has no listener that leads to the primary")?;
    let (host, port) = match &listen.at {
        ListenAt::Tcp(address) => {
            let reached = SocketAddr::new(ask::reachable(address.ip()), address.port());
            (reached.ip().to_string(), reached.port())
        }
        ListenAt::Unix { directory, port } => (directory.display().to_string(), *port),
    };
    // It is the way to ourselves: whoever is there has the token as well.
    let tls = TlsPolicy { mode: SslMode::Prefer, ..TlsPolicy::default() };
    let target = Target::alone(ServerId(0), "pgsteer", &host, port, &tls);
    let target = target.map_err(|error| error.to_string())?;
    let login = &config.control_login;
    let password = config.servers.first().and_then(|server| config.password_for(server));
    let secret = password.map_or(LoginSecret::None, |it| LoginSecret::Password(it.clone().into()));
    let mut login = Login::new(&login.user, &login.database, secret);
    login.params.push(("application_name".to_owned(), "pgsteer drill".to_owned()));
    Ok(Door { target, login })
}
