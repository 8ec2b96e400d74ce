//! A `READ ONLY` transaction that went to a standby and then needs the primary: as long as it has
//! said no more than how it is to be, it begins anew there, and its client sees nothing of it.
//!
//! What it has said is kept word for word. Once it has asked for anything else it stays where it
//! is: it may have read, and what it read must not change under it.

use crate::clock;
use crate::frontend::attached::{Attached, Segment, Standing};
use crate::frontend::own;
use crate::frontend::plan::{Plan, Taint};
use crate::frontend::report::No;
use crate::frontend::seat::CutOff;
use crate::frontend::serve::Stop;
use crate::frontend::state::{Resets, Serving, Session};
use crate::route::{Need, PrimaryReason};
use crate::session::{Executes, Group};
use crate::sql::{Class, Count, Effects, Facts, Transaction};
use crate::wire::frame;
use crate::wire::frame::{Cursor, TxStatus};

/// Whether a transaction can begin anew on another server.
#[derive(Debug, Default)]
pub enum Opening {
    /// It can't: none is open, or it has done more than to begin.
    #[default]
    Closed,
    /// It has said only this.
    Said(Vec<String>),
}

/// Most statements that are said again.
const SAID_MAX: usize = 64;
/// Most bytes of one of them.
const TEXT_MAX: usize = 16 * 1024;

impl Opening {
    /// Takes note of a group that is about to be sent to a standby.
    pub(super) fn note(
        &mut self,
        status: TxStatus,
        group: &Group,
        session: &Session,
        bytes: &[u8],
    ) {
        let said = match (status, std::mem::take(self)) {
            (TxStatus::Idle, _) => Vec::new(),
            (TxStatus::Open, Self::Said(said)) => said,
            (TxStatus::Open, Self::Closed) | (TxStatus::Failed, _) => return,
        };
        if group.executes == Executes::Nothing && status == TxStatus::Open {
            *self = Self::Said(said);
            return;
        }
        let [Some(facts)] = session.mentioned.as_slice() else { return };
        *self = match part(status, facts) {
            Part::Silent => Self::Said(said),
            Part::Said => said_again(said, text(bytes, session)),
            Part::Other => Self::Closed,
        };
    }
}

/// What a statement is to the beginning of a transaction.
enum Part {
    /// Nothing: it leaves everything as it was.
    Silent,
    /// It is to be said again.
    Said,
    /// The beginning is over.
    Other,
}

fn part(status: TxStatus, facts: &Facts) -> Part {
    let begins = matches!(facts.transaction(), Transaction::Begin { .. });
    match (status, facts.count()) {
        (TxStatus::Idle, Count::One) if begins => Part::Said,
        (TxStatus::Open, Count::Empty) => Part::Silent,
        // What tells which server answers is as good as a read.
        (TxStatus::Open, Count::One) if facts.shown().is_some() && facts.fixed().is_none() => {
            Part::Silent
        }
        (TxStatus::Open, Count::One) => {
            let (class, effects) = (facts.class(), facts.effects());
            let settings = !effects.is_empty() && effects.is_within(Effects::SETTINGS);
            let sets = class == Class::Session && settings;
            let alters = matches!(facts.transaction(), Transaction::Set { .. });
            if sets || alters { Part::Said } else { Part::Other }
        }
        (TxStatus::Idle | TxStatus::Open | TxStatus::Failed, _) => Part::Other,
    }
}

fn said_again(mut said: Vec<String>, text: Option<String>) -> Opening {
    match text {
        Some(text) if text.len() <= TEXT_MAX && said.len() < SAID_MAX => {
            said.push(text);
            Opening::Said(said)
        }
        Some(_) | None => Opening::Closed,
    }
}

/// The text of the one statement that a group executes.
fn text(group: &[u8], session: &Session) -> Option<String> {
    let mut rest = group;
    while let Some(header) = frame::peek(rest).ok()? {
        let message = rest.get(..header.total)?;
        rest = rest.get(header.total..)?;
        let mut body = Cursor::new(message);
        let text = match header.tag {
            b'Q' => body.text().ok()?,
            b'P' => {
                body.text().ok()?;
                body.text().ok()?
            }
            b'B' => {
                body.text().ok()?;
                known_text(body.text().ok()?, session)?
            }
            _ => continue,
        };
        return String::from_utf8(text.to_vec()).ok();
    }
    None
}

/// The text of a statement that was parsed before.
fn known_text<'s>(name: &[u8], session: &'s Session) -> Option<&'s [u8]> {
    let body = if name.is_empty() {
        &session.unnamed.as_ref()?.body
    } else {
        session.names.get(name)?.body()
    };
    body.split(|byte| *byte == 0).next()
}

/// What came of saying it again.
enum Said {
    All,
    /// The server refused one of them, with this message.
    Refused(String),
    /// The backend broke.
    Broken,
}

/// How often a primary may be lost while it is told.
const TRIES_MAX: u32 = 3;

impl Serving {
    /// Whether the transaction must go on at the primary, and can.
    pub(super) fn must_begin_anew(&self, plan: &Plan) -> bool {
        let wanted = plan.forbidden.is_some() || plan.need == Need::Primary(PrimaryReason::Wish);
        let can = |attached: &Attached| {
            attached.standing == Standing::Standby
                && attached.status == TxStatus::Open
                && attached.segment == Segment::Closed
                && attached.exchange.replies.is_settled()
                && attached.pins.is_empty()
                && matches!(attached.opening, Opening::Said(_))
        };
        wanted && plan.need != Need::Standby && self.attached.as_deref().is_some_and(can)
    }

    /// Ends the transaction on its standby, where nothing came of it, and says again at the
    /// primary what it has said; if that fails, no transaction is open any more, and this is why.
    ///
    /// Not cancel-safe: dropped, its backend must be closed.
    pub(super) async fn begin_anew(&mut self, plan: &Plan) -> Result<Result<(), No>, Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(Ok(())) };
        let Opening::Said(said) = std::mem::take(&mut attached.opening) else { return Ok(Ok(())) };
        let left = (attached.taint, attached.left, std::mem::take(&mut attached.resets));
        self.roll_back().await?;
        let plan =
            Plan { need: Need::Primary(PrimaryReason::Statement), since: clock::now(), ..*plan };
        for _ in 0..TRIES_MAX {
            if let Err(no) = self.attach_or_no(&plan).await? {
                return Ok(Err(no));
            }
            let thread = self.session.seat.thread();
            match thread.unless_cut(self.say_again(&said)).await {
                Ok(Said::All) => {
                    if let Some(attached) = self.attached.as_deref_mut() {
                        attached.status = TxStatus::Open;
                        attached.follow(left);
                    }
                    return Ok(Ok(()));
                }
                Ok(Said::Refused(message)) => {
                    self.drop_backend();
                    return Ok(Err(No::Settings(message)));
                }
                // The primary was lost, or replaced; nothing has happened there.
                Ok(Said::Broken) | Err(CutOff) => self.drop_backend(),
            }
        }
        Ok(Err(No::TransactionLost))
    }

    async fn say_again(&mut self, said: &[String]) -> Said {
        let Some(attached) = self.attached.as_deref_mut() else { return Said::Broken };
        for text in said {
            let reported = &mut attached.exchange.reported;
            match own::run(&mut attached.checkout, text, reported).await {
                Ok(own::Answer { error: None, for_client, .. }) => {
                    self.client.out().extend_from_slice(&for_client);
                }
                Ok(own::Answer { error: Some(message), .. }) => return Said::Refused(message),
                Err(own::Unanswered) => return Said::Broken,
            }
        }
        Said::All
    }

    /// The client does not hear of it: what its settings seem to be is what they will be again.
    async fn roll_back(&mut self) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        let mut unheard = attached.exchange.reported.clone();
        let answer = own::run(&mut attached.checkout, "ROLLBACK", &mut unheard).await;
        if !answer.is_ok_and(|answer| answer.error.is_none()) {
            self.drop_backend();
            return Ok(());
        }
        attached.status = TxStatus::Idle;
        attached.follow((Taint::None, Taint::None, Resets::default()));
        self.settle().await
    }
}
