//! What a client sees when pgsteer itself has to say no: one table, so that drivers can rely on
//! the codes and people find the remedy in the hint.

use crate::backend::ServerError;
use crate::frontend::lost::Loss;
use crate::frontend::memory::Kept;
use crate::frontend::overdue::{Allowed, Overdue};
use crate::limits::Exceeded;
use crate::pg::SqlState;
use crate::pool::CheckoutError;
use crate::route::Refusal;
use crate::session::{NAMES_BYTES_MAX, NAMES_MAX, Pins};
use crate::sql::NeedsPrimary;
use crate::topology::NoPrimary;
use crate::wire::message::{ErrorReport, Severity};
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
    /// The connection by which a client's parameters were asked for broke.
    LoginBroken,
    /// Nobody knows whether a statement was executed, or will stay so.
    InDoubt(Doubt),
    /// An open transaction lost its server: it was rolled back.
    TransactionLost(Loss),
    /// The same, and the client was told before.
    TransactionFailed,
    /// State that can't be moved was lost with its backend, and so was an open transaction.
    StateLost(Pins),
    /// A statement that a standby would get wrong, in a transaction that runs on one.
    NotOnStandby(NeedsPrimary),
    /// The statement was cancelled while it was held.
    Cancelled,
    /// The session's settings could not be brought to another backend.
    Settings(ServerError),
    /// No server takes any more what the session has set.
    SettingRefused {
        /// The setting.
        name: String,
        /// The server's words.
        error: ServerError,
    },
    /// Its login's values could not be given again behind a `RESET` within a transaction.
    NotReset(ServerError),
    /// What it gave at its login is refused by the server.
    Startup(ServerError),
    /// A value that `pgsteer.*` does not take.
    BadWish {
        /// The setting.
        name: String,
        /// The value.
        value: String,
        /// What it takes.
        takes: &'static str,
    },
    /// There is no such setting of pgsteer.
    UnknownWish {
        /// The setting.
        name: String,
    },
    /// The server sent what it must not.
    OutOfStep,
    /// The client broke the protocol.
    Protocol(String),
    /// pgsteer is shutting down.
    ShuttingDown,
    /// The session has ended its own backend.
    Terminated,
    /// The primary to which a replication connection led was replaced.
    Replaced,
    /// As much memory is taken by statements that wait as may be.
    TooMuchHeld,
    /// As much is kept of the session as may be.
    TooMuchKept(Kept),
    /// As many clients are connected as may be.
    TooManyClients(u32),
    /// As many of its kind are connected as may be.
    TooManyOfThem(Exceeded),
    /// The session, or its transaction, has lasted too long.
    Overdue(Overdue),
    /// A statement of SQL names one that is prepared, by a name of pgsteer's own.
    NameOfOurs(String),
    /// It would set more custom settings than are followed.
    TooManyCustom,
    /// A message is longer than its session may send.
    OverLimit(String),
}

impl No {
    /// What the client is told.
    pub fn report(&self) -> ErrorReport {
        match self {
            Self::Refused(refusal, held) => refused(*refusal, *held),
            Self::Checkout(error) => checkout(error),
            Self::ReadBroken => ErrorReport::error(
                SqlState::SERIALIZATION_FAILURE,
                "the server was lost while it answered",
            )
            .with_detail("The statement was a read: nothing was changed.")
            .with_hint("Run it again."),
            Self::LoginBroken => login_broken(),
            Self::InDoubt(doubt) => in_doubt(*doubt),
            Self::TransactionLost(loss) => transaction_lost(*loss),
            Self::TransactionFailed => ErrorReport::error(
                SqlState::IN_FAILED_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .with_detail("It was rolled back when its server was lost.")
            .with_hint("End it with ROLLBACK, and run it again."),
            Self::StateLost(what) => state_lost(*what),
            Self::NotOnStandby(why) => not_on_standby(*why),
            Self::Cancelled => ErrorReport::error(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            )
            .with_detail("It was held, and is sent to no server any more.")
            .with_hint("Run it again, if it is wanted after all."),
            Self::Startup(error) => ErrorReport { severity: Severity::Fatal, ..error.report() },
            Self::Settings(error) => not_brought(error),
            Self::NotReset(error) => not_reset(error),
            Self::SettingRefused { name, error } => setting_refused(name, error),
            Self::BadWish { name, value, takes } => bad_wish(name, value, takes),
            Self::UnknownWish { name } => ErrorReport::error(
                SqlState::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"pgsteer.{name}\""),
            )
            .with_detail("Names that begin with pgsteer are pgsteer's own: no server was asked.")
            .with_hint("There are pgsteer.role and pgsteer.consistency."),
            Self::OutOfStep => ErrorReport::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "the server sent a message that nothing asked for; the connection was closed",
            )
            .with_detail("What was sent last may have been executed; its answer is not known.")
            .with_hint("Connect again, and look for its effects; the log names the message."),
            Self::Protocol(what) => left_the_protocol(what),
            Self::ShuttingDown => ErrorReport::fatal(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection: pgsteer is shutting down",
            )
            .with_detail("An operator has stopped it, or restarts it.")
            .with_hint("Connect again."),
            Self::Terminated => terminated(),
            Self::Replaced => replaced(),
            Self::TooMuchHeld => too_much_held(),
            Self::TooMuchKept(kept) => too_much_kept(*kept),
            Self::TooManyClients(limit) => too_many(
                format!("{limit} clients are connected, as many as pool.max_clients allows"),
                "Close connections, or raise pool.max_clients.",
            ),
            Self::TooManyOfThem(exceeded) => too_many(
                exceeded.to_string(),
                "Close connections, or change the rule in limits.rules.",
            ),
            Self::Overdue(overdue) => lasted(*overdue),
            Self::NameOfOurs(name) => name_of_ours(name),
            Self::TooManyCustom => too_many_custom(),
            Self::OverLimit(what) => over_limit(what),
        }
    }
}

fn bad_wish(name: &str, value: &str, takes: &str) -> ErrorReport {
    ErrorReport::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"pgsteer.{name}\": \"{value}\""),
    )
    .with_detail("The setting is pgsteer's own, and has the value that it had.")
    .with_hint(format!("Available values: {takes}."))
}

fn login_broken() -> ErrorReport {
    let what = "the connection to the server broke during the login";
    ErrorReport::error(SqlState::CONNECTION_FAILURE, what)
        .with_detail("Nothing of the client's was executed.")
        .with_hint("Connect again.")
}

/// Why nobody knows what became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Its server was lost before it had answered.
    Lost(Loss),
    /// It was committed, and the wait for synchronous standbys was cut short.
    Unconfirmed,
}

fn in_doubt(doubt: Doubt) -> ErrorReport {
    let message = match doubt {
        Doubt::Lost(Loss::Broken(_)) => {
            "the connection to the server broke; the statement may have been executed"
        }
        Doubt::Lost(Loss::Replaced) => {
            "the primary was replaced meanwhile; the statement may have been executed"
        }
        Doubt::Lost(Loss::Unwatched) => {
            "pgsteer stood still, and the primary may have been replaced meanwhile; the statement \
             may have been executed"
        }
        Doubt::Unconfirmed => return unconfirmed(),
    };
    ErrorReport::error(SqlState::RESOLUTION_UNKNOWN, message)
        .with_detail("It was sent and no answer counts. It was not sent again.")
        .with_hint("Check whether its effects are there before you run it again.")
}

fn unconfirmed() -> ErrorReport {
    ErrorReport::error(
        SqlState::RESOLUTION_UNKNOWN,
        "the commit was not confirmed by a standby: the wait for it was cancelled",
    )
    .with_detail(
        "The transaction was committed locally, not confirmed by a standby: a failover may lose it.",
    )
    .with_hint("Check whether its effects are there, now and after a failover.")
}

fn transaction_lost(loss: Loss) -> ErrorReport {
    let message = match loss {
        Loss::Broken(_) => "the transaction was rolled back: the connection to its server broke",
        Loss::Replaced => "the transaction was rolled back: the primary was replaced",
        Loss::Unwatched => {
            "the transaction was rolled back: pgsteer stood still, and the primary may have been \
             replaced meanwhile"
        }
    };
    ErrorReport::error(SqlState::SERIALIZATION_FAILURE, message)
        .with_detail("Nothing that was sent could have committed it.")
        .with_hint("Run the whole transaction again.")
}

/// In the server's own words.
fn setting_refused(name: &str, error: &ServerError) -> ErrorReport {
    ErrorReport::error(error.code, error.message.clone())
        .with_detail(format!(
            "A new connection to the server was refused the setting \"{name}\" of this session. The \
             statement was not sent."
        ))
        .with_hint("RESET it, or set it to something else: until then nothing else is run.")
}

fn too_many(message: String, remedy: &str) -> ErrorReport {
    ErrorReport::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
        .with_detail("No server was asked: the limit is pgsteer's.")
        .with_hint(remedy)
}

fn over_limit(what: &str) -> ErrorReport {
    ErrorReport::fatal(SqlState::LIMIT_EXCEEDED, what)
        .with_detail("It was not sent.")
        .with_hint("Send less at a time, or change the rule in limits.rules.")
}

/// In PostgreSQL's own words, which drivers know.
fn name_of_ours(name: &str) -> ErrorReport {
    let words = format!("prepared statement \"{name}\" does not exist");
    ErrorReport::error(SqlState::UNDEFINED_PREPARED_STATEMENT, words)
        .with_detail(
            "By such names pgsteer prepares statements on the servers; in SQL there is none of \
             them. The statement was not sent.",
        )
        .with_hint("Give the statement a name that does not begin with pgsteer_ and a number.")
}

fn too_much_held() -> ErrorReport {
    ErrorReport::error(
        SqlState::CONFIGURATION_LIMIT,
        "the statements that wait take as much memory as routing.hold_memory allows",
    )
    .with_detail("The statement was not sent.")
    .with_hint("Run it again later; or raise routing.hold_memory.")
}

fn replaced() -> ErrorReport {
    ErrorReport::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating replication connection: the primary was replaced",
    )
    .with_detail("It led to the server that was the primary, and follows no other by itself.")
    .with_hint("Connect again, and begin where you stopped.")
}

/// The server's own words.
fn terminated() -> ErrorReport {
    let words = "terminating connection due to administrator command";
    ErrorReport::fatal(SqlState::ADMIN_SHUTDOWN, words)
        .with_detail("The session has ended its own backend.")
        .with_hint("Connect again.")
}

fn left_the_protocol(what: &str) -> ErrorReport {
    ErrorReport::fatal(SqlState::PROTOCOL_VIOLATION, what)
        .with_detail("What came does not follow the protocol, or can't be answered by it.")
        .with_hint(
            "Most likely a defect of the driver, or of pgsteer: report it with this message.",
        )
}

fn not_brought(error: &ServerError) -> ErrorReport {
    ErrorReport::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("the session's settings were refused by another server: {}", error.message),
    )
    .with_detail("The statement was not sent.")
    .with_hint("RESET the setting; all servers must accept the same settings.")
}

fn not_reset(error: &ServerError) -> ErrorReport {
    ErrorReport::error(error.code, error.message.clone())
        .with_detail(
            "This befell what brings back the values that were given at the login, behind the \
             RESET before this statement, which was not run.",
        )
        .with_hint("End the transaction with ROLLBACK, and run it again.")
}

fn too_much_kept(kept: Kept) -> ErrorReport {
    let (what, key) = match kept {
        Kept::Statements(limit) => {
            (format!("{limit} statements are prepared, as many as max_prepared"), "max_prepared")
        }
        Kept::Memory(limit) => {
            (format!("it would take more than the {limit} bytes that max_memory"), "max_memory")
        }
    };
    let message = format!("{what} allows (limits.rules)");
    ErrorReport::error(SqlState::CONFIGURATION_LIMIT, message)
        .with_detail("Named statements and settings are kept; this one was not sent.")
        .with_hint(format!("Close statements that are not needed; or raise {key} in limits.rules."))
}

fn too_many_custom() -> ErrorReport {
    let kilobytes = NAMES_BYTES_MAX / 1024;
    ErrorReport::error(
        SqlState::CONFIGURATION_LIMIT,
        format!(
            "more custom settings than pgsteer follows in a session: {NAMES_MAX}, whose names take \
             {kilobytes} kB"
        ),
    )
    .with_detail("The statement was not sent.")
    .with_hint("RESET what is not needed, or end the transaction; or use fewer names.")
}

fn state_lost(what: Pins) -> ErrorReport {
    ErrorReport::error(
        SqlState::ADMIN_SHUTDOWN,
        "the server connection that held this session's state was lost",
    )
    .with_detail(format!(
        "Lost: {}. The statement was not executed; an open transaction was rolled back.",
        what.told()
    ))
    .with_hint("Set it up again, or connect again; the session goes on without it.")
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

/// In PostgreSQL's own words, which drivers know.
fn lasted(overdue: Overdue) -> ErrorReport {
    let (code, what, limit, key) = match overdue {
        Overdue::Idle(limit) => {
            (SqlState::IDLE_SESSION_TIMEOUT, "idle-session", limit, "idle_timeout")
        }
        Overdue::IdleInTransaction(limit) => (
            SqlState::IDLE_IN_TRANSACTION_TIMEOUT,
            "idle-in-transaction",
            limit,
            "idle_in_transaction_timeout",
        ),
        Overdue::Statement(Allowed { limit, key: key @ "query_timeout" }) => {
            (SqlState::QUERY_CANCELED, "query", limit, key)
        }
        Overdue::Transaction(limit) | Overdue::Statement(Allowed { limit, .. }) => {
            (SqlState::TRANSACTION_TIMEOUT, "transaction", limit, "transaction_timeout")
        }
    };
    ErrorReport::fatal(code, format!("terminating connection due to {what} timeout"))
        .with_detail(format!(
            "A rule of limits.rules allows {limit:?}; what was open was rolled back."
        ))
        .with_hint(format!("Connect again; or change {key} in limits.rules."))
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
                | NoPrimary::Settling
                | NoPrimary::Unrecorded
                | NoPrimary::Failover
                | NoPrimary::Switchover
                | NoPrimary::Unwatched => {
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
                .with_detail("It was chosen, and the pools don't know it; nothing was sent.")
                .with_hint("This is a defect of pgsteer: please report it.")
        }
    }
}

#[cfg(test)]
mod tests;
