//! Statements that are for pgsteer and for no server: `SET`, `RESET` and `SHOW` of `pgsteer.*`.
//!
//! Asked as a `Query`, they are answered here. In the extended protocol they go to a server, for
//! which `pgsteer.*` are custom settings without a meaning, and take effect here as well.

use crate::frontend::client::Client;
use crate::frontend::plan;
use crate::frontend::report::No;
use crate::frontend::state::Session;
use crate::route::{Consistency, RoleWish};
use crate::session::{End, Executes, Group};
use crate::sql::{Facts, Wish};
use crate::wire::frame::TxStatus;
use crate::wire::message;
use std::sync::Arc;

/// What became of a group.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was answered here.
    Here,
    /// A server is to answer it.
    Elsewhere,
    /// It asks for what there is not.
    No(No),
}

/// Answers the group if it is for pgsteer alone, and hears what it wishes for.
pub(super) fn answer(
    client: &mut Client,
    session: &mut Session,
    group: &Group,
    status: TxStatus,
) -> Answer {
    let only = match session.mentioned.as_slice() {
        [Some(facts)] => Arc::clone(facts),
        _ => return Answer::Elsewhere,
    };
    // In a failed transaction nothing counts, and what is only prepared does not count yet.
    if status == TxStatus::Failed || group.executes == Executes::Nothing {
        return Answer::Elsewhere;
    }
    if let Err(no) = only.wishes().iter().try_for_each(|wish| hear(session, wish)) {
        return Answer::No(no);
    }
    if group.end != End::Query {
        return Answer::Elsewhere;
    }
    if only.is_only_wishes() {
        message::write_command_complete(client.out(), tag(&only));
    } else if let Some(name) = only.shown().and_then(|name| name.strip_prefix("pgsteer."))
        && let Some(value) = value_of(session, name)
    {
        let title = format!("pgsteer.{name}");
        message::write_row_description(client.out(), &[&title]);
        message::write_data_row(client.out(), &[Some(value.as_bytes())]);
        message::write_command_complete(client.out(), "SHOW");
    } else {
        return Answer::Elsewhere;
    }
    message::write_ready(client.out(), status);
    client.take(group.bytes);
    Answer::Here
}

/// Heeds a wish from a startup message's options.
pub(super) fn hear_first(session: &mut Session, name: &str, value: &str) -> Result<(), No> {
    let wish =
        Wish { name: name.into(), value: Some(value.into()), scope: crate::sql::Scope::Session };
    hear(session, &wish)
}

fn tag(facts: &Facts) -> &'static str {
    match facts.wishes() {
        [Wish { value: None, .. }] => "RESET",
        _ => "SET",
    }
}

fn hear(session: &mut Session, wish: &Wish) -> Result<(), No> {
    let bad = |value: &str, takes| No::BadWish {
        name: wish.name.to_string(),
        value: value.to_owned(),
        takes,
    };
    match (&*wish.name, wish.value.as_deref()) {
        ("role", None) => session.wishes.role = session.first_wishes.role,
        ("consistency", None) => session.wishes.consistency = session.first_wishes.consistency,
        ("role", Some(value)) => {
            session.wishes.role =
                plan::role(value).ok_or_else(|| bad(value, "auto, primary, standby"))?;
        }
        ("consistency", Some(value)) => {
            session.wishes.consistency =
                plan::consistency(value).ok_or_else(|| bad(value, "eventual, session, primary"))?;
        }
        (_, value) => return Err(bad(value.unwrap_or(""), "pgsteer.role, pgsteer.consistency")),
    }
    Ok(())
}

fn value_of(session: &Session, name: &str) -> Option<&'static str> {
    Some(match name {
        "role" => match session.wishes.role {
            RoleWish::Auto => "auto",
            RoleWish::Primary => "primary",
            RoleWish::Standby => "standby",
        },
        "consistency" => match session.wishes.consistency {
            Consistency::Eventual => "eventual",
            Consistency::Session => "session",
            Consistency::Primary => "primary",
        },
        _ => return None,
    })
}
