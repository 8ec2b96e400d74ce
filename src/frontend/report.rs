//! What a client sees when pgsteer itself has to say no: one table, so that drivers can rely on
//! the codes and people find the remedy in the hint.

use crate::pg::SqlState;
use crate::pool::CheckoutError;
use crate::route::Refusal;
use crate::sql::NeedsPrimary;
use crate::topology::NoPrimary;
use crate::wire::message::ErrorReport;
use std::time::Duration;

/// Everything that pgsteer says no with.
#[derive(Debug)]
pub enum No {
    /// A statement was held until its time was up, or could go nowhere.
    Refused(Refusal, Duration),
    /// No backend came free, or none could be opened.
    Checkout(CheckoutError),
    /// A read broke off after the client had seen some of it.
    ReadBroken,
    /// A statement that may have been executed lost its server.
    InDoubt,
    /// An open transaction lost its server: it was rolled back.
    TransactionLost,
    /// The session's own backend, which held state that can't be moved, is gone.
    StateLost,
    /// A statement that a standby would get wrong, in a transaction that runs on one.
    NotOnStandby(NeedsPrimary),
    /// The statement was cancelled while it was held.
    Cancelled,
    /// The session's settings could not be brought to another backend.
    Settings(String),
    /// A value that `pgsteer.*` does not take.
    BadWish {
        /// The setting.
        name: String,
        /// The value.
        value: String,
        /// What it takes.
        takes: &'static str,
    },
    /// The server sent what it must not.
    OutOfStep,
    /// The client broke the protocol.
    Protocol(String),
    /// pgsteer is shutting down.
    ShuttingDown,
    /// As many clients are connected as may be.
    TooManyClients(u32),
}

impl No {
    /// What the client is told.
    pub fn report(&self) -> ErrorReport {
        match self {
            Self::Refused(refusal, held) => refused(*refusal, *held),
            Self::Checkout(error) => checkout(error),
            Self::ReadBroken => ErrorReport::error(
                SqlState::CONNECTION_FAILURE,
                "the connection to the server broke while it answered",
            )
            .with_hint("The statement was a read; run it again."),
            Self::InDoubt => ErrorReport::error(
                SqlState::RESOLUTION_UNKNOWN,
                "the connection to the server broke; the statement may have been executed",
            )
            .with_detail("It was sent and no answer arrived. It was not sent again.")
            .with_hint("Check whether its effects are there before you run it again."),
            Self::TransactionLost => ErrorReport::error(
                SqlState::SERIALIZATION_FAILURE,
                "the transaction was rolled back: the connection to its server broke",
            )
            .with_detail("Nothing that was sent could have committed it.")
            .with_hint("Run the whole transaction again."),
            Self::StateLost => ErrorReport::fatal(
                SqlState::ADMIN_SHUTDOWN,
                "the server connection that held this session's state was lost",
            )
            .with_detail(
                "Temporary tables, LISTEN, advisory locks, held cursors or prepared SQL statements \
                 live in one server connection.",
            )
            .with_hint("Connect again."),
            Self::NotOnStandby(why) => not_on_standby(*why),
            Self::Cancelled => ErrorReport::error(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            )
            .with_detail("It was held and had not been sent to a server."),
            Self::Settings(message) => ErrorReport::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("the session's settings were refused by another server: {message}"),
            )
            .with_hint("RESET the setting; all servers must accept the same settings."),
            Self::BadWish { name, value, takes } => ErrorReport::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"pgsteer.{name}\": \"{value}\""),
            )
            .with_hint(format!("Available values: {takes}.")),
            Self::OutOfStep => ErrorReport::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "the server sent a message that nothing asked for; the connection was closed",
            ),
            Self::Protocol(what) => ErrorReport::fatal(SqlState::PROTOCOL_VIOLATION, what.clone()),
            Self::ShuttingDown => ErrorReport::fatal(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection: pgsteer is shutting down",
            )
            .with_hint("Connect again."),
            Self::TooManyClients(limit) => ErrorReport::fatal(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("{limit} clients are connected, as many as pool.max_clients allows"),
            )
            .with_hint("Close connections, or raise pool.max_clients."),
        }
    }
}

fn not_on_standby(why: NeedsPrimary) -> ErrorReport {
    let message = format!(
        "this statement needs the primary ({}), and its transaction runs on a standby",
        why.as_str()
    );
    ErrorReport::error(SqlState::READ_ONLY_TRANSACTION, message)
        .with_detail(
            "The transaction was declared READ ONLY and has read already; it can't change servers \
             any more. The statement was not sent.",
        )
        .with_hint(
            "Let the transaction begin with this statement, begin it without READ ONLY, or SET \
             pgsteer.role = 'primary' before it begins.",
        )
}

fn refused(refusal: Refusal, held: Duration) -> ErrorReport {
    let held = format!("The statement was held for {:.1} s and was not sent.", held.as_secs_f64());
    match refusal {
        Refusal::NoPrimary(why) => {
            let report = ErrorReport::error(
                SqlState::CANNOT_CONNECT_NOW,
                format!("there is no primary: {}", why.as_str()),
            )
            .with_detail(held);
            report.with_hint(match why {
                NoPrimary::Disputed => {
                    "Stop the server that is not the rightful primary, or make it a standby."
                }
                NoPrimary::NeverSeen
                | NoPrimary::Unseen
                | NoPrimary::Demoted
                | NoPrimary::Failover
                | NoPrimary::Switchover => {
                    "Run it again later; routing.hold_max is how long statements are held."
                }
            })
        }
        Refusal::NoStandby => {
            ErrorReport::error(SqlState::CANNOT_CONNECT_NOW, "no standby qualifies for this read")
                .with_detail(held)
                .with_hint(
                    "See `pgsteer status`; routing.max_lag and routing.on_all_stale decide this.",
                )
        }
        Refusal::NoServer => {
            ErrorReport::error(SqlState::CANNOT_CONNECT_NOW, "no server can be reached")
                .with_detail(held)
                .with_hint("Run it again later; see `pgsteer status`.")
        }
        Refusal::NotVisible => ErrorReport::error(
            SqlState::SERIALIZATION_FAILURE,
            "the primary does not show yet what this session has read on a standby",
        )
        .with_detail(
            "A commit that the standby shows waits on the primary, for its synchronous standbys.",
        )
        .with_hint("Run the transaction again."),
    }
}

fn checkout(error: &CheckoutError) -> ErrorReport {
    match error {
        CheckoutError::Exhausted { .. } => {
            ErrorReport::error(SqlState::TOO_MANY_CONNECTIONS, error.to_string())
                .with_detail("The statement was not sent.")
                .with_hint("Raise pool.size or pool.wait_timeout, or keep transactions short.")
        }
        CheckoutError::Connect { server, error } => error.report(server),
        CheckoutError::NoSuchServer => {
            ErrorReport::error(SqlState::INTERNAL_ERROR, error.to_string())
        }
    }
}
