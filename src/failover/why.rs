//! The named reasons of a decision, in words with a remedy.

use crate::failover::{Loss, Situation, Verdict};
use std::fmt;
use std::sync::Arc;

/// Why something is done, or what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The primary is well, and nothing is out of order.
    AllWell,
    /// The settings of the primary promise something else than was recorded.
    PromiseChanged,
    /// Standbys that we froze, or that lost their upstream, follow the primary again.
    Repairing(Vec<Astray>),
    /// A former primary is kept from taking writes.
    Fencing,
    /// Standbys on a branch of their own, with the number of the primary's, are cut off from it.
    CuttingOff(Vec<Arc<str>>),
    /// The primary is lost; who may act is not the one who sees it: an operator must.
    Manual(Verdict),
    /// The primary is lost, and `failover.mode` is `off`: another tool is waited for.
    Off(Verdict),
    /// The primary is lost, and `auto` is not armed.
    Disarmed(Vec<Arc<str>>),
    /// The evidence is not complete.
    Evidence(Verdict),
    /// The primary is in recovery, and a server that is not seen may be the primary now.
    HandedOver,
    /// The primary restarts, and gets its time.
    Grace,
    /// The last automatic failover was a moment ago.
    TooSoon,
    /// The primary is lost, and another tool promoted this one: it is followed, not rivalled.
    PromotedElsewhere(Arc<str>),
    /// The primary is lost: its place is claimed.
    Claiming(Verdict),
    /// Standbys are being frozen.
    Freezing,
    /// Too few of those who can acknowledge for the old primary are frozen: these are missing.
    NotRevoked {
        /// How many are frozen.
        frozen: usize,
        /// How many must be.
        needed: usize,
        /// Who could still be.
        missing: Vec<Loose>,
    },
    /// None of the frozen standbys may become the primary: these could, if they were frozen.
    NoCandidate(Vec<Loose>),
    /// It would lose more than may be lost: an operator must say so.
    TooMuchLoss {
        /// Who would be promoted.
        candidate: Arc<str>,
        /// What is lost.
        loss: Loss,
    },
    /// A standby takes over what another one holds.
    CatchingUp {
        /// Which.
        server: Arc<str>,
        /// From whom.
        from: Arc<str>,
    },
    /// It is to take over what another one holds more, and does not get it.
    CannotCatchUp {
        /// Which.
        server: Arc<str>,
        /// From whom.
        from: Arc<str>,
        /// Whether that one may become the primary itself, if it is named.
        instead: bool,
        /// What is lost if it goes without.
        loss: Loss,
        /// Why it does not, where that is known.
        trouble: Option<Arc<str>>,
    },
    /// This one was chosen.
    Chosen(Arc<str>),
    /// The chosen one is being promoted.
    Promoting(Arc<str>),
    /// The chosen one is not seen: whether it was promoted is not known.
    ChosenLost(Arc<str>),
    /// Another tool has promoted one before the chosen one was, and none is promoted beside it.
    Barred {
        /// Who was chosen.
        chosen: Arc<str>,
        /// Who was promoted by others.
        by: Arc<str>,
    },
    /// The chosen one is lost, and these could follow it on the very timeline that would begin.
    MayFollow {
        /// Who was chosen.
        chosen: Arc<str>,
        /// Who is not seen to follow it not.
        unseen: Vec<Arc<str>>,
    },
    /// The chosen one is lost, and this one, a primary already, goes on if an operator says so.
    NotTaken {
        /// Which.
        candidate: Arc<str>,
        /// What is lost with it.
        loss: Loss,
    },
    /// The chosen one is lost, and of these primaries an operator must name one.
    SeveralPrimaries(Vec<Arc<str>>),
    /// The new primary waits for its standbys.
    Proving(Arc<str>),
    /// The new primary takes writes.
    Admitting(Arc<str>),
    /// A checkpoint is written before anybody is held.
    Checkpointing,
    /// Transactions that run may end.
    Draining {
        /// Sessions that still have one.
        busy: usize,
    },
    /// The old primary is made to take no writes.
    Handing,
    /// The chosen one has not yet received all of it.
    Tail(Arc<str>),
    /// It is undone.
    Aborting(Refusal),
}

/// A standby that is to be frozen, and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    /// Which.
    pub server: Arc<str>,
    /// Why not, where it answers; `None`: it does not, or was not asked yet.
    pub stuck: Option<Arc<str>>,
}

/// A standby that is to follow the primary, and does not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Astray {
    /// Which.
    pub server: Arc<str>,
    /// Why it does not, once that was tried.
    pub trouble: Option<Arc<str>>,
}

/// Why an order is not carried out, or was called off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `failover.mode` is `off`.
    ModeOff,
    /// Something is under way already.
    Busy,
    /// Nothing is under way.
    Idle,
    /// It can't be undone any more.
    TooLate,
    /// The primary is well: that would be a switchover.
    PrimaryLives,
    /// The primary is not well: that would be a failover.
    PrimaryLost,
    /// There is no such server.
    NoSuchServer(Arc<str>),
    /// It is the primary already.
    IsPrimary(Arc<str>),
    /// It does not answer, or is no standby of this primary.
    NotAStandby(Arc<str>),
    /// It may not become the primary (`priority = 0`, or it replays with a delay).
    MayNotLead(Arc<str>),
    /// It is too far behind to hand over to.
    TooFarBehind {
        /// Which.
        server: Arc<str>,
        /// By how many bytes of the log.
        bytes: u64,
    },
    /// There is nobody to hand over to.
    NoCandidate,
    /// One of its acts would be refused, for this reason.
    Obstacle(Arc<str>),
    /// Transactions did not end in time.
    DrainTimedOut {
        /// Sessions that still had one.
        busy: usize,
    },
    /// Others than this proxy write to the primary, and can't be held.
    ForeignWriters(usize),
    /// The primary came back.
    PrimaryBack,
    /// The primary was lost in the middle of a switchover.
    LostInBetween,
    /// An operator called it off.
    CalledOff,
    /// A step did not come to its end in time.
    StepTimedOut,
    /// Another tool promoted this one.
    PromotedElsewhere(Arc<str>),
    /// Too few of those who can acknowledge for the primary could be frozen.
    TooFewStandbys {
        /// How many could be.
        reached: usize,
        /// How many must be.
        needed: usize,
    },
    /// The chosen server was lost before it took over.
    ChosenLost(Arc<str>),
    /// It could not be written down for this reason, and so was not begun.
    NotRecorded(Arc<str>),
    /// It is begun, and its next step could not be written down for this reason.
    NotContinued(Arc<str>),
    /// It is begun, and waits for this: for a server that comes back, or for an order that allows
    /// more.
    Waits(Box<Why>),
}

impl Refusal {
    /// Whether what was ordered is begun all the same, and goes on by itself when it can.
    pub const fn goes_on(&self) -> bool {
        match self {
            Self::NotContinued(_) | Self::Waits(_) => true,
            Self::ModeOff
            | Self::Busy
            | Self::Idle
            | Self::TooLate
            | Self::PrimaryLives
            | Self::PrimaryLost
            | Self::NoSuchServer(_)
            | Self::IsPrimary(_)
            | Self::NotAStandby(_)
            | Self::MayNotLead(_)
            | Self::TooFarBehind { .. }
            | Self::NoCandidate
            | Self::Obstacle(_)
            | Self::DrainTimedOut { .. }
            | Self::ForeignWriters(_)
            | Self::PrimaryBack
            | Self::LostInBetween
            | Self::CalledOff
            | Self::StepTimedOut
            | Self::PromotedElsewhere(_)
            | Self::TooFewStandbys { .. }
            | Self::ChosenLost(_)
            | Self::NotRecorded(_) => false,
        }
    }
}

impl Why {
    /// The word for logs and machines.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::AllWell => "all_well",
            Self::PromiseChanged => "promise_changed",
            Self::Repairing(_) => "repairing",
            Self::Fencing => "fencing",
            Self::CuttingOff(_) => "cutting_off",
            Self::Manual(_) => "manual",
            Self::Off(_) => "off",
            Self::Disarmed(_) => "disarmed",
            Self::Evidence(_) => "evidence",
            Self::HandedOver => "handed_over",
            Self::Grace => "grace",
            Self::TooSoon => "too_soon",
            Self::PromotedElsewhere(_) => "promoted_elsewhere",
            Self::Claiming(_) => "claiming",
            Self::Freezing => "freezing",
            Self::NotRevoked { .. } => "not_revoked",
            Self::NoCandidate(_) => "no_candidate",
            Self::TooMuchLoss { .. } => "too_much_loss",
            Self::CatchingUp { .. } => "catching_up",
            Self::CannotCatchUp { .. } => "cannot_catch_up",
            Self::Chosen(_) => "chosen",
            Self::Promoting(_) => "promoting",
            Self::ChosenLost(_) => "chosen_lost",
            Self::Barred { .. } => "barred",
            Self::MayFollow { .. } => "may_follow",
            Self::NotTaken { .. } => "not_taken",
            Self::SeveralPrimaries(_) => "several_primaries",
            Self::Proving(_) => "proving",
            Self::Admitting(_) => "admitting",
            Self::Checkpointing => "checkpointing",
            Self::Draining { .. } => "draining",
            Self::Handing => "handing",
            Self::Tail(_) => "tail",
            Self::Aborting(_) => "aborting",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModeOff => out.write_str(
                "failover.mode is \"off\": promotions are another tool's; set it to \"manual\"",
            ),
            Self::Busy => out.write_str("a change of primary is under way already"),
            Self::Idle => out.write_str("no change of primary is under way"),
            Self::TooLate => out.write_str("a server was chosen already: it can't be undone"),
            Self::PrimaryLives => {
                out.write_str("the primary is well: use `pgsteer switchover`, which loses nothing")
            }
            Self::PrimaryLost => out.write_str("the primary is not well: use `pgsteer failover`"),
            Self::NoSuchServer(name) => write!(out, "{name} is none of the servers"),
            Self::IsPrimary(name) => write!(out, "{name} is the primary already"),
            Self::NotAStandby(name) => {
                write!(out, "{name} does not answer as a standby of this primary")
            }
            Self::MayNotLead(name) => write!(
                out,
                "{name} may not become the primary (its priority is 0, or it replays with a delay)"
            ),
            Self::TooFarBehind { server, bytes } => {
                write!(out, "{server} is {bytes} bytes of log behind; try again when it caught up")
            }
            Self::NoCandidate => out.write_str("no standby can become the primary"),
            Self::Obstacle(what) => {
                write!(out, "it would not come to its end: {what}; nothing was changed")
            }
            Self::DrainTimedOut { busy } => write!(
                out,
                "{busy} sessions still had a transaction open on the primary when \
                 failover.drain_timeout was over; nothing was changed"
            ),
            Self::ForeignWriters(count) => write!(
                out,
                "{count} sessions on the primary can write, and the control user may not end them; \
                 the primary goes on, and the other sessions there were ended"
            ),
            Self::PrimaryBack => out.write_str("the primary came back before another was chosen"),
            Self::LostInBetween => out.write_str("the primary was lost in the middle of it"),
            Self::CalledOff => out.write_str("an operator called it off"),
            Self::StepTimedOut => out.write_str("a step took too long; the primary goes on"),
            Self::PromotedElsewhere(server) => write!(
                out,
                "another tool promoted {server}: it is followed once the primary is gone for \
                 certain; if it is not wanted, stop it; if the primary went on beside it, only \
                 `pgsteer failover --to {server} --accept-loss any` takes it"
            ),
            Self::TooFewStandbys { reached, needed } => write!(
                out,
                "only {reached} of the {needed} standbys that could hold an acknowledged write \
                 answer; the primary goes on"
            ),
            Self::ChosenLost(server) => write!(out, "{server} was lost before it took over"),
            Self::NotRecorded(problem) => {
                write!(out, "it could not be recorded, and was not begun: {problem}")
            }
            Self::NotContinued(problem) => write!(
                out,
                "it is begun, and its next step could not be recorded: {problem}; once it can be, \
                 it goes on, or is called off if that takes too long: see `pgsteer status`"
            ),
            Self::Waits(why) => write!(out, "it is begun, and waits: {why}"),
        }
    }
}

const CHECKPOINTING: &str = "the primary writes a checkpoint; nobody waits for it but the order";

const HANDED_OVER: &str = "no failover: the primary is in recovery, and a server that is not seen \
                           may be the primary now: if there is none, run `pgsteer failover`";

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllWell => out.write_str("all is well"),
            Self::PromiseChanged => {
                out.write_str("the primary's settings promise something else than was recorded")
            }
            Self::Repairing(astray) => repairing(out, astray),
            Self::Fencing => out.write_str("a former primary is kept from taking writes"),
            Self::CuttingOff(astray) => cutting_off(out, astray),
            Self::Manual(verdict) => write!(
                out,
                "the primary {verdict}; failover.mode is \"manual\": run `pgsteer failover`"
            ),
            Self::Off(verdict) => write!(
                out,
                "the primary {verdict}; failover.mode is \"off\": another tool is to promote"
            ),
            Self::Disarmed(lacking) => {
                out.write_str("the primary is lost, and auto is not armed: ")?;
                list(out, lacking)?;
                out.write_str("; `pgsteer failover` goes on without it")
            }
            Self::Evidence(verdict) => write!(out, "no failover: the primary {verdict}"),
            Self::HandedOver => out.write_str(HANDED_OVER),
            Self::Grace => out.write_str("the primary restarts: it gets a few seconds for that"),
            Self::TooSoon => out.write_str(
                "no second automatic failover within 30 s of the last: run `pgsteer failover`",
            ),
            Self::PromotedElsewhere(server) => {
                write!(out, "no failover: another tool promoted {server}")
            }
            Self::Claiming(verdict) => write!(out, "the primary {verdict}: taking over"),
            Self::Freezing => out.write_str("standbys are being cut off from the old primary"),
            Self::NotRevoked { frozen, needed, missing } => {
                not_revoked(out, (*frozen, *needed), missing)
            }
            Self::NoCandidate(loose) => no_candidate(out, loose),
            Self::TooMuchLoss { candidate, loss } => write!(
                out,
                "{candidate} would be promoted at a loss ({loss}) that failover.max_data_loss \
                 does not allow: run `pgsteer failover --accept-loss`"
            ),
            Self::CatchingUp { server, from } => {
                write!(out, "{server} takes over what {from} holds more")
            }
            Self::CannotCatchUp { .. } => cannot_catch_up(out, self),
            Self::Chosen(server) => write!(out, "{server} was chosen"),
            Self::Promoting(server) => write!(out, "{server} is being promoted"),
            Self::ChosenLost(server) => write!(
                out,
                "{server} was chosen and does not answer: whether it was promoted is not known; if \
                 it does not come back, run `pgsteer failover`"
            ),
            Self::Barred { chosen, by } => barred(out, chosen, by),
            Self::MayFollow { chosen, unseen } => may_follow(out, chosen, unseen),
            Self::NotTaken { candidate, loss } => not_taken(out, candidate, *loss),
            Self::SeveralPrimaries(primaries) => several_primaries(out, primaries),
            Self::Proving(server) => {
                write!(out, "{server} waits for a standby to confirm a commit")
            }
            Self::Admitting(server) => write!(out, "{server} takes writes from now on"),
            Self::Checkpointing => out.write_str(CHECKPOINTING),
            Self::Draining { busy } => {
                let (s, work) = if *busy == 1 { ("", "works") } else { ("s", "work") };
                write!(out, "new transactions wait; {busy} session{s} still {work} on the primary")
            }
            Self::Handing => out.write_str("the old primary hands over"),
            Self::Tail(server) => write!(out, "{server} receives the last of the log"),
            Self::Aborting(refusal) => write!(out, "called off: {refusal}"),
        }
    }
}

fn repairing(out: &mut fmt::Formatter<'_>, astray: &[Astray]) -> fmt::Result {
    if astray.is_empty() {
        return out.write_str("the primary is made to take writes again");
    }
    list(out, astray)?;
    out.write_str(if astray.len() == 1 { " is" } else { " are" })?;
    out.write_str(" made to follow the primary again")?;
    if astray.iter().any(|astray| astray.trouble.is_some()) {
        out.write_str("; once that is mended, it goes on by itself")?;
    }
    Ok(())
}

fn cutting_off(out: &mut fmt::Formatter<'_>, astray: &[Arc<str>]) -> fmt::Result {
    list(out, astray)?;
    out.write_str(": cut off, for its timeline only has the number of the primary's")
}

fn not_revoked(
    out: &mut fmt::Formatter<'_>,
    (frozen, needed): (usize, usize),
    missing: &[Loose],
) -> fmt::Result {
    write!(
        out,
        "{frozen} of the {needed} standbys that could hold an acknowledged write are frozen; \
         waiting for "
    )?;
    list(out, missing)?;
    out.write_str("; `pgsteer failover --accept-loss any` goes on without what only they hold")
}

fn no_candidate(out: &mut fmt::Formatter<'_>, loose: &[Loose]) -> fmt::Result {
    if loose.is_empty() {
        return out.write_str("no standby that answers can become the primary");
    }
    out.write_str("no standby that is frozen can become the primary; waiting for ")?;
    list(out, loose)?;
    out.write_str("; `pgsteer failover --to SERVER` names another")
}

fn cannot_catch_up(out: &mut fmt::Formatter<'_>, why: &Why) -> fmt::Result {
    let Why::CannotCatchUp { server, from, instead, loss, trouble } = why else { return Ok(()) };
    let trouble = trouble.as_deref().unwrap_or("it streams, and receives nothing");
    write!(
        out,
        "{server} can't take over what {from} holds more ({trouble}); what would be lost without: \
         {loss}; "
    )?;
    if *instead {
        write!(out, "`pgsteer failover --to {from}` promotes that one; ")?;
    }
    out.write_str("`pgsteer failover --accept-loss any` goes on without it")
}

fn barred(out: &mut fmt::Formatter<'_>, chosen: &str, by: &str) -> fmt::Result {
    write!(
        out,
        "another tool promoted {by}, and {chosen} is not promoted beside it: stop {by}, and \
         {chosen} takes over, or take {by} at what it lacks: `pgsteer failover --to {by} \
         --accept-loss any`"
    )
}

fn may_follow(out: &mut fmt::Formatter<'_>, chosen: &str, unseen: &[Arc<str>]) -> fmt::Result {
    write!(out, "{chosen} was chosen and is lost, and these may have followed it: ")?;
    list(out, unseen)?;
    out.write_str("; start them as standbys, or take them out of servers.hosts")
}

fn not_taken(out: &mut fmt::Formatter<'_>, candidate: &str, loss: Loss) -> fmt::Result {
    write!(
        out,
        "the server that was chosen is lost, and {candidate} is a primary: if it is to go on"
    )?;
    if loss != Loss::None {
        write!(out, " (loss: {loss})")?;
    }
    write!(out, ", run `pgsteer failover --to {candidate}")?;
    out.write_str(if loss == Loss::None { "`" } else { " --accept-loss any`" })
}

fn several_primaries(out: &mut fmt::Formatter<'_>, primaries: &[Arc<str>]) -> fmt::Result {
    out.write_str("the server that was chosen is lost, and several are primaries: ")?;
    list(out, primaries)?;
    out.write_str("; name the one that is to go on: `pgsteer failover --to SERVER`")
}

impl Loose {
    /// The server of that name, as it is seen now.
    pub(super) fn of(situation: &Situation<'_>, server: &Arc<str>) -> Self {
        let stuck = situation.named(server).and_then(|server| server.stuck.clone());
        Self { server: Arc::clone(server), stuck }
    }
}

impl fmt::Display for Astray {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.server)?;
        match &self.trouble {
            Some(why) => write!(out, " (it can't: {why})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Loose {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.server)?;
        match &self.stuck {
            Some(why) => write!(out, " (it answers, and can't be frozen: {why})"),
            None => Ok(()),
        }
    }
}

fn list(out: &mut fmt::Formatter<'_>, names: &[impl fmt::Display]) -> fmt::Result {
    for (at, name) in names.iter().enumerate() {
        let gap = if at == 0 { "" } else { ", " };
        write!(out, "{gap}{name}")?;
    }
    Ok(())
}
