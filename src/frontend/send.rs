//! How a group is sent to the backend in hand: what of it may be run again, what its success tells,
//! and what others have prepared of it.
//!
//! Invariant: what is noted of a group is noted before a byte of it is on its way.

use crate::frontend::attached::{Ahead, Attached, GoesOn, Reads, Relies, Segment, Sent, Standing};
use crate::frontend::block::{Repeats, Said};
use crate::frontend::client::Client;
use crate::frontend::exchange::{Commits, Exchange, OnError, Shown};
use crate::frontend::local;
use crate::frontend::outcome::TRIES_SHOWN;
use crate::frontend::overdue::Doing;
use crate::frontend::plan::{Again, MayCommit, Plan, PureRead, Taint};
use crate::frontend::report::No;
use crate::frontend::runs;
use crate::frontend::sense;
use crate::frontend::sense::{Place, Sharing};
use crate::frontend::serve::Stop;
use crate::frontend::state::{Afresh, HasOwn, Retry, Serving, Session};
use crate::metrics::{CacheResult, ClientState, QueryKind, Statements, TransactionOutcome};
use crate::route::Need;
use crate::session::{Builder, Cut, End, Executes, Group, Own, Pin, PreparedBySql, Reading, Tally};
use crate::sql::{Facts, Transaction};
use crate::wire::frame::TxStatus;
use std::rc::Rc;
use std::sync::Arc;

impl Serving {
    /// Builds what the backend is to be sent.
    pub(super) fn send(&mut self, group: &Group, plan: &Plan) -> Result<(), Stop> {
        self.session.presence.turn(ClientState::Active);
        self.session.seat.turn(Doing::Runs, plan.since);
        let Self { client, session, attached, retry, .. } = self;
        let Some(attached) = attached.as_deref_mut() else { return Ok(()) };
        let before = attached.status;
        let goes_on = attached.goes_on();
        let skipped = attached.exchange.replies.is_skipping();
        let last = retry.is_some_and(|retry| retry.tries >= TRIES_SHOWN);
        let bytes = client.inbox().get(..group.bytes).unwrap_or(&[]);
        let repeats = note_block(session, attached, (group, bytes), plan);
        let again = may_run_again(group, plan, attached);
        let commits = match repeats {
            Repeats::No => commits(attached.standing, before, plan),
            Repeats::Alone | Repeats::InBlock => Commits::Never,
        };
        attached.take_word(&session.cancel);
        attached.exchange.commits = match goes_on {
            GoesOn::Yes => commits.max(attached.exchange.commits),
            GoesOn::No => commits,
        };
        attached.exchange.on_error = if again { OnError::Withdraw } else { OnError::Show };
        let tried_again = !last && (again || repeats != Repeats::No);
        attached.exchange.shown = if tried_again { Shown::NotYet(Vec::new()) } else { Shown::Yes };
        attached.ahead = Ahead::May;
        attached.note(plan, group.executes);
        runs::note(client, session, attached, group);
        sense::note_reshaping(&mut attached.exchange.reshapes, session);
        let sharing = sharing(*retry, &attached.exchange);
        let tally = build(client, session, attached, (group, sharing))?;
        attached.note_letters(&client.reported);
        attached.exchange.relies =
            if attached.exchange.replies.relies_on_held() { Relies::Yes } else { Relies::No };
        attached.segment = match group.end {
            // The server, too, passes over a `Query` that comes before the `Sync` it waits for.
            End::Query | End::Cut { of: Cut::Query, .. } if skipped => Segment::Open,
            End::Flush | End::Cut { of: Cut::Batch, .. } => Segment::Open,
            End::Query | End::Sync | End::Cut { of: Cut::Query, .. } => Segment::Closed,
        };
        if matches!(group.end, End::Flush | End::Cut { .. }) || !tried_again {
            client.take(group.bytes);
        }
        if let End::Cut { rest, .. } = group.end {
            // The start of a message that is passed over is not sent. Nor must its rest be: the
            // server would take its bytes, which may be anybody's data, for messages.
            if skipped {
                client.take(rest);
            } else {
                attached.exchange.client_pass = rest;
            }
        }
        let sent = Sent {
            kept: if tried_again { group.bytes } else { 0 },
            again: plan.again,
            commits: plan.commits,
            since: plan.since,
            end: group.end,
            executes: group.executes,
            before,
            read: pure_read(plan),
            repeats,
            kind: kind(plan),
            at: plan.since.max(attached.at),
            ends: ends(session),
        };
        attached.sent = Some(match attached.sent.take() {
            Some(earlier) if goes_on == GoesOn::Yes => sent.behind(&earlier),
            Some(_) | None => sent,
        });
        attached.exchange.put_in(client);
        let statements = &client.shard.shared.metrics.statements;
        statements.sent(attached.server, kind(plan));
        count_prepared(statements, tally);
        Ok(())
    }
}

/// What of the group may be answered with what others have prepared.
fn sharing(retry: Option<Retry>, exchange: &Exchange) -> Sharing {
    match (retry, &exchange.shown, exchange.on_error) {
        (Some(Retry { afresh: Afresh::Yes, .. }), ..) => Sharing::Nothing,
        (_, Shown::NotYet(_), OnError::Withdraw) => Sharing::All,
        _ => Sharing::Named,
    }
}

fn build(
    client: &Client,
    session: &mut Session,
    attached: &mut Attached,
    (group, sharing): (&Group, Sharing),
) -> Result<Tally, Stop> {
    let shard = Rc::clone(&client.shard);
    let dialect = client.reported.dialect();
    let place = Place::of(attached);
    let (shape, database) = (&session.shape, &session.database);
    let shape = || sense::shape_to_share(&shard, place, (shape, database), sharing);
    let recalls = group.end == End::Sync && sense::recalls(&shard, database, sharing);
    let mut recall = recalls.then(|| shard.recall.borrow_mut());
    let bytes = client.inbox().get(..group.bytes).unwrap_or(&[]);
    let exchange = &mut attached.exchange;
    exchange.make_room(bytes.len());
    attached.renamed.clear();
    let reading = attached.reads;
    let open = attached.status != TxStatus::Idle && attached.taint != Taint::None;
    let by_sql = if open || attached.pins.has(Pin::Prepared) {
        PreparedBySql::Perhaps
    } else {
        PreparedBySql::Nothing
    };
    let conn = &mut *attached.checkout;
    let (wishes, failed) = (session.wishes, attached.status == TxStatus::Failed);
    let own = |facts: &Facts| if failed { None } else { local::say(wishes, facts) };
    let mut builder = Builder {
        names: &mut session.names,
        unnamed: &mut session.unnamed,
        unnamed_there: &mut conn.unnamed_there,
        held: &mut conn.held,
        library: &shard.shared.library,
        reading: match reading {
            Reads::AsCarried => Reading::By(&conn.carried),
            Reads::Otherwise => Reading::Unknown,
        },
        shape: &shape,
        recall: recall.as_deref_mut(),
        replies: &mut exchange.replies,
        strays: &mut attached.strays,
        by_sql,
        renamed: &mut attached.renamed,
        own: (session.own == HasOwn::Yes)
            .then_some(Own { answer: &own, portals: &mut session.own_portals }),
        tally: Tally::default(),
    };
    let mut examine = |sql: &[u8]| -> Arc<Facts> { shard.facts.borrow_mut().examine(sql, dialect) };
    let built = builder.build(bytes, &mut examine, &mut exchange.to_server);
    built.map_err(|error| Stop::from(No::Protocol(error.to_string())))?;
    Ok(builder.tally)
}

/// Counts the named statements that a group used.
fn count_prepared(statements: &Statements, tally: Tally) {
    statements.prepared(CacheResult::Hit, tally.hits);
    statements.prepared(CacheResult::Miss, tally.misses);
    statements.prepared(CacheResult::Evicted, tally.evicted);
}

/// Whether a success of this group tells of a commit.
fn commits(standing: Standing, before: TxStatus, plan: &Plan) -> Commits {
    match (standing, pure_read(plan), plan.commits, before) {
        (Standing::Standby, ..) | (_, PureRead::Yes, ..) => Commits::Never,
        (Standing::Primary, PureRead::No, MayCommit::Maybe, _) => Commits::Maybe,
        (Standing::Primary, PureRead::No, MayCommit::No, TxStatus::Idle) => Commits::AtReady,
        (Standing::Primary, PureRead::No, MayCommit::No, TxStatus::Open | TxStatus::Failed) => {
            Commits::Never
        }
    }
}

/// Takes note of what the group does to the open transaction.
fn note_block(
    session: &Session,
    attached: &mut Attached,
    (group, bytes): (&Group, &[u8]),
    plan: &Plan,
) -> Repeats {
    let replayable = plan.again == Again::May && pure_read(plan) == PureRead::Yes;
    let goes_on = attached.goes_on();
    let repeats = attached.block.note(
        attached.status,
        &Said {
            group,
            bytes,
            mentioned: &session.mentioned,
            read: if replayable { PureRead::Yes } else { PureRead::No },
            need: plan.need,
            names: &session.names,
            unnamed: session.unnamed.as_ref(),
            settings: &session.settings,
            goes_on,
        },
    );
    // What was prepared before it in the same segment could not be repeated with it.
    if attached.segment == Segment::Open { Repeats::No } else { repeats }
}

/// Whether the group is kept to be sent again: it is whole, it only reads or runs nothing at all,
/// no transaction is around it, and nothing is under way that it follows.
fn may_run_again(group: &Group, plan: &Plan, attached: &Attached) -> bool {
    matches!(group.end, End::Query | End::Sync)
        && (group.executes == Executes::Nothing
            || plan.again == Again::May && pure_read(plan) == PureRead::Yes)
        && attached.status == TxStatus::Idle
        && attached.goes_on() == GoesOn::No
        && attached.pins.is_empty()
}

/// How the transaction ends, if it ends with this group and nothing fails.
fn ends(session: &Session) -> TransactionOutcome {
    let mut mentioned = session.mentioned.iter().flatten();
    if mentioned.any(|facts| matches!(facts.transaction(), Transaction::Rollback(_))) {
        TransactionOutcome::Rollback
    } else {
        TransactionOutcome::Commit
    }
}

fn kind(plan: &Plan) -> QueryKind {
    match (pure_read(plan), plan.need) {
        (PureRead::Yes, _) => QueryKind::Read,
        (PureRead::No, Need::Anywhere) => QueryKind::Other,
        (PureRead::No, _) => QueryKind::Write,
    }
}

/// Whether the group does nothing but read.
///
/// That a standby is wished for tells nothing of it: code that runs there may write elsewhere.
pub(super) fn pure_read(plan: &Plan) -> PureRead {
    match plan.need {
        Need::Read => PureRead::Yes,
        Need::Standby | Need::Primary(_) if plan.unfit.is_none() => PureRead::Yes,
        Need::Anywhere | Need::Standby | Need::Primary(_) => plan.read,
    }
}
