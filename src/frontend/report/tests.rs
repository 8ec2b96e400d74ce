//! Whoever is refused something is told enough: one table of all refusals.

use super::*;
use crate::auth;
use crate::auth::scram::ScramError;
use crate::backend::{ConnectError, Stage};
use crate::frontend::login::Failure;
use crate::wire::startup::StartupError;
use std::io;
use std::sync::Arc;

/// One of each kind; a kind that is missing here does not compile.
macro_rules! every {
    ($of:ty { $($kind:pat => $one:expr),+ $(,)? }) => {{
        fn _all(of: &$of) {
            match of {
                $($kind => ()),+
            }
        }
        vec![$($one),+]
    }};
}

fn text(word: &str) -> String {
    word.to_owned()
}

fn io_error() -> io::Error {
    io::Error::other("no route to host")
}

fn nos() -> Vec<No> {
    let second = Duration::from_secs(1);
    every!(No {
        No::Refused(..) => No::Refused(Refusal::NoStandby, second),
        No::Checkout(_) => No::Checkout(CheckoutError::NoSuchServer),
        No::ReadBroken => No::ReadBroken,
        No::LoginBroken => No::LoginBroken,
        No::InDoubt(_) => No::InDoubt(Doubt::Unconfirmed),
        No::TransactionLost(_) => No::TransactionLost(Loss::Replaced),
        No::TransactionFailed => No::TransactionFailed,
        No::StateLost(_) => No::StateLost(Pins::default()),
        No::NotOnStandby(_) => No::NotOnStandby(NeedsPrimary::ALL[0]),
        No::Cancelled => No::Cancelled,
        No::Settings(_) => No::Settings(said()),
        No::SettingRefused { .. } => {
            No::SettingRefused { name: text("role"), error: said() }
        },
        No::NotReset(_) => No::NotReset(said()),
        No::Startup(_) => No::Startup(said()),
        No::BadWish { .. } => {
            No::BadWish { name: text("role"), value: text("x"), takes: "auto, primary" }
        },
        No::UnknownWish { .. } => No::UnknownWish { name: text("x") },
        No::OutOfStep => No::OutOfStep,
        No::Protocol(_) => No::Protocol(text("no")),
        No::ShuttingDown => No::ShuttingDown,
        No::Terminated => No::Terminated,
        No::Replaced => No::Replaced,
        No::TooMuchHeld => No::TooMuchHeld,
        No::TooMuchKept(_) => No::TooMuchKept(Kept::Statements(1)),
        No::TooManyClients(_) => No::TooManyClients(1),
        No::TooManyOfThem(_) => No::TooManyOfThem(Exceeded { limit: 1, whose: text("of user \"app\"") }),
        No::Overdue(_) => No::Overdue(Overdue::Idle(second)),
        No::NameOfOurs(_) => No::NameOfOurs(text("pgsteer_1")),
        No::TooManyCustom => No::TooManyCustom,
        No::OverLimit(_) => No::OverLimit(text("no")),
    })
}

fn checkouts() -> Vec<CheckoutError> {
    let (server, waited) = (Arc::from("db1"), Duration::from_secs(1));
    every!(CheckoutError {
        CheckoutError::Exhausted { .. } => {
            CheckoutError::Exhausted { server: Arc::clone(&server), limit: 1, waited }
        },
        CheckoutError::Connect { .. } => {
            CheckoutError::Connect { server, error: ConnectError::NoTls }
        },
        CheckoutError::NoSuchServer => CheckoutError::NoSuchServer,
    })
}

fn said() -> ServerError {
    ServerError {
        code: SqlState::INVALID_PARAMETER_VALUE,
        message: text("no"),
        detail: None,
        hint: Some(text("perhaps")),
        ends_connection: true,
    }
}

/// All but what a server says, which goes on as it is.
fn connects() -> Vec<ConnectError> {
    let within = Duration::from_secs(1);
    let mut all = every!(ConnectError {
        ConnectError::LoginRefused(_) => ConnectError::LoginRefused(said()),
        ConnectError::Server(_) => ConnectError::Server(said()),
        ConnectError::Refused { .. } => ConnectError::Refused { address: text("[::1]:1") },
        ConnectError::Unreachable { .. } => {
            ConnectError::Unreachable { address: text("[::1]:1"), source: io_error() }
        },
        ConnectError::Unresolved { .. } => {
            ConnectError::Unresolved { host: text("db"), source: io_error() }
        },
        ConnectError::Timeout { .. } => {
            ConnectError::Timeout { stage: Stage::Connecting, within }
        },
        ConnectError::NotPostgres { .. } => ConnectError::NotPostgres { answer: text("SSH") },
        ConnectError::NoTls => ConnectError::NoTls,
        ConnectError::Tls { .. } => ConnectError::Tls { source: io_error() },
        ConnectError::DirectTls { .. } => ConnectError::DirectTls { source: io_error() },
        ConnectError::NoSecret { .. } => {
            ConnectError::NoSecret { user: text("alice"), wanted: "a password" }
        },
        ConnectError::Method { .. } => ConnectError::Method { method: text("GSSAPI") },
        ConnectError::Scram(_) => ConnectError::Scram(ScramError::WrongServer),
        ConnectError::Protocol { .. } => ConnectError::Protocol { what: text("no") },
        ConnectError::Broken { .. } => {
            ConnectError::Broken { stage: Stage::LoggingIn, source: io_error() }
        },
    });
    all.extend(scrams().into_iter().map(ConnectError::Scram));
    all.drain(2..).collect()
}

fn scrams() -> Vec<ScramError> {
    every!(ScramError {
        ScramError::Malformed(_) => ScramError::Malformed("it is not UTF-8"),
        ScramError::Downgraded => ScramError::Downgraded,
        ScramError::BindingType(_) => ScramError::BindingType(text("tls-unique")),
        ScramError::BoundElsewhere => ScramError::BoundElsewhere,
        ScramError::Unsupported(_) => ScramError::Unsupported("an extension"),
        ScramError::WrongProof => ScramError::WrongProof,
        ScramError::WrongServer => ScramError::WrongServer,
        ScramError::NotBound(_) => ScramError::NotBound("there is no TLS"),
        ScramError::TooManyIterations(_) => ScramError::TooManyIterations(2_000_000),
        ScramError::Refused(_) => ScramError::Refused(text("other-error")),
    })
}

fn refusals() -> Vec<auth::Refusal> {
    use auth::Refusal as Why;
    let (peer, user) = (|| text("192.0.2.1:5"), || text("alice"));
    let mut all = every!(Why {
        Why::TrustElsewhere { .. } => Why::TrustElsewhere { peer: peer() },
        Why::WithoutTls { .. } => Why::WithoutTls { peer: peer() },
        Why::Rejected { .. } => Why::Rejected { visit: peer() },
        Why::NoRule { .. } => Why::NoRule { visit: peer() },
        Why::NoCertificate => Why::NoCertificate,
        Why::Certificate { .. } => Why::Certificate { user: user() },
        Why::Peer { .. } => Why::Peer { user: user() },
        Why::Password { .. } => Why::Password { user: user() },
        Why::Exchange(_) => Why::Exchange(ScramError::Malformed("it is not UTF-8")),
    });
    all.extend(scrams().into_iter().map(Why::Exchange));
    all
}

fn startups() -> Vec<StartupError> {
    every!(StartupError {
        StartupError::Length => StartupError::Length,
        StartupError::DirectTls => StartupError::DirectTls,
        StartupError::Version { .. } => StartupError::Version { major: 2, minor: 0 },
        StartupError::Layout => StartupError::Layout,
        StartupError::NoUser => StartupError::NoUser,
        StartupError::Encoding { .. } => StartupError::Encoding { name: text("user") },
        StartupError::ReplicationValue { .. } => {
            StartupError::ReplicationValue { value: text("perhaps") }
        },
        StartupError::Options { .. } => StartupError::Options { argument: text("-x") },
    })
}

/// Of a login; three of them are told nothing, since nobody hears it.
fn failures() -> Vec<Failure> {
    every!(Failure {
        Failure::Left => Failure::Left,
        Failure::Broken(_) => Failure::Broken(io_error()),
        Failure::Tls(_) => Failure::Tls(io_error()),
        Failure::Timeout(_) => Failure::Timeout(Duration::from_secs(1)),
        Failure::Startup(_) => Failure::Startup(StartupError::Length),
        Failure::Protocol(_) => Failure::Protocol(text("no")),
        Failure::Refused { .. } => {
            Failure::Refused { refusal: auth::Refusal::NoCertificate, why: "" }
        },
        Failure::Lookup { .. } => Failure::Lookup {
            user: Arc::from("alice"),
            source: Arc::new(crate::backend::LookupError::NoServer),
        },
    })
}

/// Whoever is refused something learns which error it is, the cause, and the remedy.
#[test]
fn every_refusal_has_a_code_a_cause_and_a_remedy() {
    // That is told in the server's own words, below.
    let nos = nos().into_iter().filter(|no| !matches!(no, No::Startup(_)));
    let reports = nos
        .map(|no| no.report())
        .chain(checkouts().into_iter().map(|error| No::Checkout(error).report()))
        .chain(connects().into_iter().map(|error| error.report("db1")))
        .chain(refusals().into_iter().map(|refusal| refusal.report()))
        .chain(startups().into_iter().map(|error| error.report()))
        .chain(failures().into_iter().filter_map(|failure| failure.report()));
    let lacking = |report: &ErrorReport| {
        let good = |text: &Option<String>| {
            text.as_ref().is_some_and(|text| text.ends_with(['.', '?']) && text.len() > 8)
        };
        report.message.is_empty() || !good(&report.detail) || !good(&report.hint)
    };
    let lacking: Vec<_> = reports.filter(lacking).collect();
    assert!(lacking.is_empty(), "{} lack something: {lacking:#?}", lacking.len());
}

/// What a server refuses of what a client gives at its login is told in the server's words, and in
/// no other.
#[test]
fn what_a_server_refuses_of_a_login_is_told_in_its_own_words() {
    let told = No::Startup(said()).report();
    let report = ErrorReport { severity: Severity::Fatal, ..said().report() };
    assert_eq!(told, report);
    assert_eq!((told.detail, told.hint.as_deref()), (None, Some("perhaps")));
}

/// A user who does not exist and a wrong password are one refusal: nothing in its words can
/// tell them apart, nor tell how a password is stored.
#[test]
fn a_refused_password_tells_nothing_but_that() {
    let report = auth::Refusal::Password { user: text("alice") }.report();
    let told = format!("{report:?}");
    for word in ["md5", "SCRAM", "expired", "auth.file", "auth.query"] {
        assert!(!told.contains(word), "{word}: {told}");
    }
}

/// Whoever is told by our own words that his work was lost, or was not done, is told as well
/// what was sent, and what he is to do.
#[test]
fn what_a_failover_costs_is_told_with_what_was_sent_and_what_helps() {
    let losses = [Loss::Broken(None), Loss::Replaced, Loss::Unwatched];
    let reasons = [
        NoPrimary::NeverSeen,
        NoPrimary::Unseen,
        NoPrimary::Demoted,
        NoPrimary::Disputed,
        NoPrimary::Settling,
        NoPrimary::Unrecorded,
        NoPrimary::Failover,
        NoPrimary::Switchover,
        NoPrimary::Unwatched,
    ];
    let others = [Refusal::NoStandby, Refusal::NoServer, Refusal::NotVisible];
    let refusals = reasons.map(Refusal::NoPrimary).into_iter().chain(others);
    let all = losses
        .into_iter()
        .flat_map(|loss| [No::TransactionLost(loss), No::InDoubt(Doubt::Lost(loss))])
        .chain(refusals.map(|refusal| No::Refused(refusal, Duration::from_secs(10))))
        .chain([No::InDoubt(Doubt::Unconfirmed), No::ReadBroken, No::TooMuchHeld]);
    for no in all {
        let report = no.report();
        assert!(report.detail.is_some() && report.hint.is_some(), "{report:?}");
        assert_eq!(report.severity, Severity::Error, "{report:?}");
    }
}
