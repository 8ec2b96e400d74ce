//! Statements that are for pgsteer and for no server: `SET`, `RESET` and `SHOW` of `pgsteer.*`.
//!
//! Asked as a `Query`, they are answered here. In the extended protocol they go to a server, for
//! which `pgsteer.*` are custom settings without a meaning, and take effect here as well.

use crate::frontend::client::Client;
use crate::frontend::plan;
use crate::frontend::report::No;
use crate::frontend::state::Session;
use crate::route::{Consistency, RoleWish};
use crate::session::{End, Group};
use crate::sql::{Facts, Wish};
use crate::wire::frame::TxStatus;
use crate::wire::message;
use std::sync::Arc;

/// Answers the group if it is for pgsteer alone; whether it was.
pub(super) fn answer(
    client: &mut Client,
    session: &mut Session,
    group: &Group,
    status: TxStatus,
) -> bool {
    let only = match session.mentioned.as_slice() {
        [Some(facts)] => Arc::clone(facts),
        _ => return false,
    };
    if group.end != End::Query || status == TxStatus::Failed {
        // A server answers, and the wish is heard.
        for wish in only.wishes() {
            if let Err(no) = hear(session, wish) {
                tracing::debug!(?no, "a wish in the extended protocol was not understood");
            }
        }
        return false;
    }
    if only.is_only_wishes() {
        let heard = only.wishes().iter().try_for_each(|wish| hear(session, wish));
        match heard {
            Ok(()) => message::write_command_complete(client.out(), tag(&only)),
            Err(no) => client.report(&no.report()),
        }
    } else if let Some(name) = only.shown().and_then(|name| name.strip_prefix("pgsteer."))
        && let Some(value) = value_of(session, name)
    {
        let title = format!("pgsteer.{name}");
        message::write_row_description(client.out(), &[&title]);
        message::write_data_row(client.out(), &[Some(value.as_bytes())]);
        message::write_command_complete(client.out(), "SHOW");
    } else {
        return false;
    }
    message::write_ready(client.out(), status);
    client.take(group.bytes);
    true
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
