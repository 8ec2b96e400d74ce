//! `pgsteer failover`, `pgsteer switchover`: what it would do, a question, and then how it goes.
//!
//! Nothing is ordered before the preview was seen and agreed to: by typing the name of the server
//! that is to be the primary, or by `--yes`. The proxy decides and acts; a command that is
//! interrupted changes nothing about that.

mod confirm;
mod follow;
mod preview;

use crate::admin::{AccountReport, OrderState, PreviewReport};
use crate::cli::args::{Globals, Output};
use crate::cli::ask;
use crate::cli::exit::Exit;
use crate::cli::office::Office;
use crate::cli::order::follow::follow;
use crate::cli::say;
use crate::failover::MaxLoss;
pub(in crate::cli) use confirm::by_name;
pub(in crate::cli) use preview::objection;
use serde_json::json;

/// `pgsteer failover ...`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "clap reads flags so; they become a `Way`")]
pub struct FailoverArgs {
    /// The server to promote [default: the best]
    #[arg(long, value_name = "SERVER")]
    pub to: Option<String>,
    /// How much of what was acknowledged may be lost: 0, a size as in 16MB, or any
    /// [default: what `failover.max_data_loss` says]
    #[arg(long, value_name = "BYTES", value_parser = crate::config::max_loss)]
    pub accept_loss: Option<MaxLoss>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only show what it would do
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Call off the change of primary that is under way, if it still can be
    #[arg(long, conflicts_with_all = ["to", "accept_loss", "yes", "dry_run"])]
    pub abort: bool,
}

/// `pgsteer switchover ...`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "clap reads flags so; they become a `Way`")]
pub struct SwitchoverArgs {
    /// The server to hand over to [default: the best]
    #[arg(long, value_name = "SERVER")]
    pub to: Option<String>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only show what it would do
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

/// What is ordered.
#[derive(Debug)]
pub(in crate::cli) struct Order {
    /// `failover`, `switchover`.
    pub path: &'static str,
    /// The server that is wanted.
    pub to: Option<String>,
    /// What may be lost.
    pub accept_loss: Option<MaxLoss>,
}

/// How far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is only shown.
    Show,
    /// It is shown and asked about.
    Ask,
    /// It is done at once.
    Do,
}

/// `pgsteer failover`
pub fn failover(args: &FailoverArgs, globals: &Globals) -> Result<Exit, Exit> {
    let office = Office::find(globals)?;
    if args.abort {
        let number = office.order("/abort", &json!({}))?;
        return told(&follow(&office, &number, globals.output)?, globals);
    }
    let (to, accept_loss) = (args.to.clone(), args.accept_loss);
    let order = Order { path: "failover", to, accept_loss };
    run(&office, &order, Way::of(args.dry_run, args.yes), globals)
}

/// `pgsteer switchover`
pub fn switchover(args: &SwitchoverArgs, globals: &Globals) -> Result<Exit, Exit> {
    let office = Office::find(globals)?;
    let order = Order { path: "switchover", to: args.to.clone(), accept_loss: None };
    run(&office, &order, Way::of(args.dry_run, args.yes), globals)
}

fn run(office: &Office, order: &Order, way: Way, globals: &Globals) -> Result<Exit, Exit> {
    let preview: PreviewReport = office.get(&order.preview_path())?;
    match (globals.output, way) {
        (Output::Table, _) => say::data(&preview::text(&preview))?,
        (Output::Json, Way::Show) => say::data(&format!("{}\n", json!(preview)))?,
        // Standard output is for the account alone.
        (Output::Json, Way::Ask | Way::Do) => say::talk(&preview::text(&preview)),
    }
    if let Some(objection) = objection(&preview) {
        say::talk(&format!("refused: {objection}"));
        return Err(Exit::Refused);
    }
    match way {
        Way::Show => return Ok(Exit::Done),
        Way::Ask => by_name(preview.to.as_deref().unwrap_or("yes"))?,
        Way::Do => {}
    }
    told(&carry_out(office, order, globals.output)?, globals)
}

/// Gives an order that was agreed to, and follows it to its end.
pub(in crate::cli) fn carry_out(
    office: &Office,
    order: &Order,
    output: Output,
) -> Result<AccountReport, Exit> {
    let number = office.order(&format!("/{}", order.path), &order.body())?;
    follow(office, &number, output)
}

/// What else can be done about an order that has begun.
const CALLS_OFF: &str = "`pgsteer failover --abort` calls it off, if it still can be";

/// Tells how it ended.
fn told(account: &AccountReport, globals: &Globals) -> Result<Exit, Exit> {
    if globals.output == Output::Json {
        say::data(&format!("{}\n", json!(account)))?;
    }
    match account.state {
        OrderState::Done => {
            if globals.output == Output::Table {
                say::data(&format!("{}\n", preview::done(account)))?;
            }
            Ok(Exit::Done)
        }
        OrderState::Refused => {
            let why = account.refusal.as_deref().unwrap_or("no reason was given");
            say::talk(&format!("refused: {why}"));
            Err(Exit::Refused)
        }
        OrderState::Waiting => {
            let what = account.refusal.as_deref().unwrap_or("it is begun, and waits");
            say::talk(&format!("{what}; {CALLS_OFF}"));
            Err(Exit::TimedOut)
        }
        OrderState::Lost => {
            say::talk("error: pgsteer does not know what became of it: see `pgsteer status`");
            Err(Exit::Failed)
        }
        OrderState::Underway => {
            say::talk(&format!("error: it is still under way: see `pgsteer status`; {CALLS_OFF}"));
            Err(Exit::TimedOut)
        }
    }
}

impl Way {
    #[expect(clippy::fn_params_excessive_bools, reason = "two flags become one word here")]
    const fn of(dry_run: bool, yes: bool) -> Self {
        match (dry_run, yes) {
            (true, _) => Self::Show,
            (false, true) => Self::Do,
            (false, false) => Self::Ask,
        }
    }
}

impl Order {
    /// Where its preview is asked for.
    pub(in crate::cli) fn preview_path(&self) -> String {
        let to = self.to.iter().map(|to| format!("to={}", ask::escaped(to)));
        let loss = self.accept_loss.iter().map(|loss| format!("accept_loss={}", word(*loss)));
        let query: Vec<String> = to.chain(loss).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/{}{mark}{}", self.path, query.join("&"))
    }

    /// What is sent.
    pub(in crate::cli) fn body(&self) -> serde_json::Value {
        let mut body = serde_json::Map::new();
        if let Some(to) = &self.to {
            body.insert("to".to_owned(), json!(to));
        }
        let accept = self.accept_loss.map(|accept| match accept {
            MaxLoss::Bytes(bytes) => json!(bytes),
            MaxLoss::Any => json!("any"),
        });
        if let Some(accept) = accept {
            body.insert("accept_loss".to_owned(), accept);
        }
        body.into()
    }
}

fn word(loss: MaxLoss) -> String {
    match loss {
        MaxLoss::Bytes(bytes) => bytes.to_string(),
        MaxLoss::Any => "any".to_owned(),
    }
}
