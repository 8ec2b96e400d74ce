//! Statements that are for pgsteer and for no server: `SET`, `RESET` and `SHOW` of `pgsteer.*`.
//!
//! Asked by themselves they are answered here, in either protocol, without any server. In a batch
//! with others their answers are put in where they belong. A text of several statements goes to a
//! server as a whole, for which `pgsteer.*` are custom settings without a meaning, and takes
//! effect here as well.
//!
//! What is wished for counts for the whole of its batch, and is not taken back by a `ROLLBACK`;
//! `SET LOCAL` counts until the transaction ends.

use crate::frontend::attached::{Attached, Segment};
use crate::frontend::client::Client;
use crate::frontend::lost::LostTransaction;
use crate::frontend::plan;
use crate::frontend::plan::Wishes;
use crate::frontend::report::No;
use crate::frontend::state::{HasOwn, Session};
use crate::pg::SqlState;
use crate::route::{Consistency, RoleWish};
use crate::session::{
    Builder, Concluded, End, Executes, Extent, Group, Held, Known, Own, OwnAnswer, OwnRow,
    PreparedBySql, Reading, Replies, Strays, Tally, UnnamedThere, survey,
};
use crate::sql::{Effects, Facts, Scope, Transaction, Wish};
use crate::wire::frame::TxStatus;
use crate::wire::message;
use crate::wire::message::ErrorReport;
use std::rc::Rc;
use std::sync::Arc;

/// What became of a group.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was answered here.
    Here,
    /// A server is to answer it, or some of it.
    Elsewhere,
    /// It asks for what there is not.
    No(Box<No>),
}

/// Answers the group if it is for pgsteer alone, and hears what it wishes for.
pub(super) fn answer(
    client: &mut Client,
    session: &mut Session,
    group: &Group,
    attached: Option<&mut Attached>,
) -> Answer {
    let status = attached.as_ref().map_or(TxStatus::Idle, |attached| attached.status);
    forget(session, group);
    let mut mentioned = session.mentioned.iter().flatten();
    let concerned = mentioned.any(|facts| !facts.wishes().is_empty() || is_own(facts));
    session.own =
        if concerned || !session.own_portals.is_empty() { HasOwn::Yes } else { HasOwn::No };
    if session.own == HasOwn::No {
        return Answer::Elsewhere;
    }
    // In a failed transaction nothing counts, and of a lost one the client is to be told first.
    if status == TxStatus::Failed || session.lost_transaction != LostTransaction::No {
        return Answer::Elsewhere;
    }
    match group.end {
        End::Query => answer_query(client, session, group, attached.as_deref()),
        End::Sync | End::Flush => answer_batch(client, session, group, attached),
        End::Cut { .. } => Answer::Elsewhere,
    }
}

/// Whether the statement is for pgsteer and for no server.
pub(super) fn is_own(facts: &Facts) -> bool {
    facts.is_only_wishes() || shown(facts).is_some_and(|name| VALUES.contains(&name))
}

/// What pgsteer says to a statement of its own.
pub(super) fn say(wishes: Wishes, facts: &Facts) -> Option<OwnAnswer> {
    if facts.is_only_wishes() {
        return Some(OwnAnswer { tag: tag(facts), row: None });
    }
    let name = shown(facts)?;
    let row = OwnRow { title: format!("pgsteer.{name}"), value: value_of(wishes, name)? };
    Some(OwnAnswer { tag: "SHOW", row: Some(row) })
}

/// The transaction is over, and with it what was wished for it alone.
pub(super) fn end_transaction(session: &mut Session) {
    if let Some(wishes) = session.wishes_after.take() {
        session.wishes = wishes;
    }
}

/// `RESET ALL` and `DISCARD ALL` take the wishes back, too.
fn forget(session: &mut Session, group: &Group) {
    let all = Effects::RESET_ALL | Effects::DISCARD_ALL;
    let resets = |facts: &Arc<Facts>| facts.effects().any(all);
    if group.executes == Executes::Something && session.mentioned.iter().flatten().any(resets) {
        session.wishes = session.first_wishes;
        session.wishes_after = None;
    }
}

fn answer_query(
    client: &mut Client,
    session: &mut Session,
    group: &Group,
    attached: Option<&Attached>,
) -> Answer {
    let [Some(facts)] = session.mentioned.as_slice() else { return Answer::Elsewhere };
    let facts = Arc::clone(facts);
    let status = attached.map_or(TxStatus::Idle, |attached| attached.status);
    if let Err(no) = hear_all(client, session, std::slice::from_ref(&facts), status) {
        return Answer::No(Box::new(no));
    }
    let Some(answer) = say(session.wishes, &facts) else { return Answer::Elsewhere };
    if has_begun(attached) {
        session.mentioned.clear();
        return Answer::Elsewhere;
    }
    answer.write(client.out());
    message::write_ready(client.out(), status);
    client.take(group.bytes);
    Answer::Here
}

/// A batch of the extended protocol. What is only prepared or described is not heard.
fn answer_batch(
    client: &mut Client,
    session: &mut Session,
    group: &Group,
    attached: Option<&mut Attached>,
) -> Answer {
    let shard = Rc::clone(&client.shard);
    let dialect = client.reported.dialect();
    let mut examine = |sql: &[u8]| shard.facts.borrow_mut().examine(sql, dialect);
    let bytes = client.inbox().get(..group.bytes).unwrap_or(&[]);
    let mut known = Known {
        names: &session.names,
        unnamed: session.unnamed.as_ref().map(|unnamed| &unnamed.facts),
        portals: &session.own_portals,
        examine: &mut examine,
        is_own: &is_own,
    };
    // What is no message after all is found again, and told, where a server is to have it.
    let Ok(found) = survey(bytes, &mut known) else { return Answer::Elsewhere };
    let begins = |facts: &Arc<Facts>| matches!(facts.transaction(), Transaction::Begin { .. });
    let status = match attached.as_ref().map_or(TxStatus::Idle, |attached| attached.status) {
        TxStatus::Idle if session.mentioned.iter().flatten().any(begins) => TxStatus::Open,
        status @ (TxStatus::Idle | TxStatus::Open | TxStatus::Failed) => status,
    };
    if let Err(no) = hear_all(client, session, &found.executed, status) {
        return Answer::No(Box::new(no));
    }
    if found.extent != Extent::All || has_begun(attached.as_deref()) {
        session.mentioned.retain(|facts| !facts.as_ref().is_some_and(|facts| is_own(facts)));
        return Answer::Elsewhere;
    }
    let mut unnamed_there = UnnamedThere::No;
    let there =
        attached.map_or(&mut unnamed_there, |attached| &mut attached.checkout.unnamed_there);
    compose(client, session, group, (there, status), &mut examine)
}

/// Whether a server has seen the beginning of the batch: then it must see its end.
fn has_begun(attached: Option<&Attached>) -> bool {
    attached.is_some_and(|attached| attached.segment == Segment::Open)
}

/// Composes the answers to a batch that is for pgsteer alone.
fn compose(
    client: &mut Client,
    session: &mut Session,
    group: &Group,
    (unnamed_there, status): (&mut UnnamedThere, TxStatus),
    examine: &mut dyn FnMut(&[u8]) -> Arc<Facts>,
) -> Answer {
    let wishes = session.wishes;
    let shard = Rc::clone(&client.shard);
    let (mut replies, mut to_server) = (Replies::default(), Vec::new());
    let built = Builder {
        names: &mut session.names,
        unnamed: &mut session.unnamed,
        unnamed_there,
        held: &mut Held::default(),
        library: &shard.shared.library,
        reading: Reading::By(&session.settings),
        // Nobody prepares on a server what is for pgsteer.
        shape: &|| None,
        recall: None,
        replies: &mut replies,
        strays: &mut Strays::default(),
        by_sql: PreparedBySql::Nothing,
        renamed: &mut Vec::new(),
        own: Some(Own { answer: &|facts| say(wishes, facts), portals: &mut session.own_portals }),
        tally: Tally::default(),
    }
    .build(client.inbox().get(..group.bytes).unwrap_or(&[]), examine, &mut to_server);
    let answers = replies.put_in();
    let concluded = replies.conclude();
    debug_assert!(concluded.is_some(), "a server was needed after all: {to_server:?}");
    let (Ok(()), Some(concluded)) = (built, concluded) else {
        return Answer::No(Box::new(No::Protocol("a batch could not be answered".to_owned())));
    };
    client.out().extend_from_slice(&answers);
    match concluded {
        Concluded::Silently => {}
        Concluded::Ready => message::write_ready(client.out(), status),
    }
    client.take(group.bytes);
    Answer::Here
}

/// Heeds a wish from a startup message's options.
pub(super) fn hear_first(session: &mut Session, name: &str, value: &str) -> Result<(), No> {
    hear(session, &Wish { name: name.into(), value: Some(value.into()), scope: Scope::Session })
}

/// These wishes with what a startup message's options say.
pub(super) fn with_option(wishes: Wishes, name: &str, value: &str) -> Result<Wishes, No> {
    let wish = Wish { name: name.into(), value: Some(value.into()), scope: Scope::Session };
    with(wishes, wishes, &wish)
}

/// Heeds what these statements wish for. A wrong one is refused, and none of them counts.
fn hear_all(
    client: &mut Client,
    session: &mut Session,
    statements: &[Arc<Facts>],
    status: TxStatus,
) -> Result<(), No> {
    let before = (session.wishes, session.wishes_after);
    for wish in statements.iter().flat_map(|facts| facts.wishes()) {
        let heard = match (wish.scope, status) {
            (Scope::Session, _) => hear(session, wish),
            (Scope::Transaction, TxStatus::Idle) => {
                message::write_notice(client.out(), &only_in_transactions());
                check(session, wish).map(|_| ())
            }
            (Scope::Transaction, TxStatus::Open | TxStatus::Failed) => {
                session.wishes_after.get_or_insert(session.wishes);
                check(session, wish).map(|wishes| session.wishes = wishes)
            }
        };
        if let Err(no) = heard {
            (session.wishes, session.wishes_after) = before;
            return Err(no);
        }
    }
    Ok(())
}

/// Heeds a wish for as long as the session.
fn hear(session: &mut Session, wish: &Wish) -> Result<(), No> {
    session.wishes = check(session, wish)?;
    if let Some(after) = session.wishes_after {
        session.wishes_after = Some(with(after, session.first_wishes, wish)?);
    }
    Ok(())
}

fn check(session: &Session, wish: &Wish) -> Result<Wishes, No> {
    with(session.wishes, session.first_wishes, wish)
}

/// These wishes with one more; `first` is what `RESET` goes back to.
fn with(wishes: Wishes, first: Wishes, wish: &Wish) -> Result<Wishes, No> {
    let bad = |value: &str, takes| No::BadWish {
        name: wish.name.to_string(),
        value: value.to_owned(),
        takes,
    };
    Ok(match (&*wish.name, wish.value.as_deref()) {
        ("role", None) => Wishes { role: first.role, ..wishes },
        ("consistency", None) => Wishes { consistency: first.consistency, ..wishes },
        ("role", Some(value)) => {
            let role = plan::role(value).ok_or_else(|| bad(value, "auto, primary, standby"))?;
            Wishes { role, ..wishes }
        }
        ("consistency", Some(value)) => {
            let consistency =
                plan::consistency(value).ok_or_else(|| bad(value, "eventual, session, primary"))?;
            Wishes { consistency, ..wishes }
        }
        (name, _) => return Err(No::UnknownWish { name: name.to_owned() }),
    })
}

/// As PostgreSQL has it.
fn only_in_transactions() -> ErrorReport {
    ErrorReport::warning(
        SqlState::NO_ACTIVE_TRANSACTION,
        "SET LOCAL can only be used in transaction blocks",
    )
}

fn tag(facts: &Facts) -> &'static str {
    match facts.wishes() {
        [Wish { value: None, .. }] => "RESET",
        _ => "SET",
    }
}

/// What stands behind `pgsteer.` in a `SHOW`.
fn shown(facts: &Facts) -> Option<&str> {
    facts.shown().and_then(|name| name.strip_prefix("pgsteer."))
}

/// What can be shown.
const VALUES: [&str; 2] = ["role", "consistency"];

fn value_of(wishes: Wishes, name: &str) -> Option<&'static str> {
    Some(match name {
        "role" => match wishes.role {
            RoleWish::Auto => "auto",
            RoleWish::Primary => "primary",
            RoleWish::Standby => "standby",
        },
        "consistency" => match wishes.consistency {
            Consistency::Eventual => "eventual",
            Consistency::Session => "session",
            Consistency::Primary => "primary",
        },
        _ => return None,
    })
}
