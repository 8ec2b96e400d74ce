//! What can go wrong on the way to a server, sorted by the cure.

use crate::auth::scram::ScramError;
use crate::pg::SqlState;
use crate::topology::Unseen;
use crate::wire::message::{ErrorFields, ErrorReport};
use std::io;
use std::time::Duration;

/// How far a connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the host's addresses.
    Resolving,
    /// Waiting for the connection to be accepted.
    Connecting,
    /// Agreeing on TLS.
    Securing,
    /// Exchanging the messages of the login.
    LoggingIn,
}

/// An error that a server reported, as text. What was not UTF-8 in it was replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {code})")]
pub struct ServerError {
    /// Which error it is.
    pub code: SqlState,
    /// The line for people.
    pub message: String,
    /// More about this case.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the server closed the connection with it.
    pub ends_connection: bool,
}

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there.
    #[error("connection refused at {address}")]
    Refused {
        /// Where: the last of the host's addresses.
        address: String,
    },
    /// The network has no way there.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The host's name has no address.
    #[error("host name \"{host}\" not found")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// It took too long.
    #[error("no answer within {within:?}, {}", stage.as_str())]
    Timeout {
        /// What was waited for.
        stage: Stage,
        /// The time that was given.
        within: Duration,
    },
    /// Something else than PostgreSQL listens there.
    #[error("not a PostgreSQL server: it answered {answer:?}")]
    NotPostgres {
        /// The beginning of what it said.
        answer: String,
    },
    /// TLS was demanded, and the server has none.
    #[error("the server does not support TLS, but servers.sslmode demands it")]
    NoTls,
    /// The TLS handshake failed: its certificate was refused, or no version was in common.
    #[error("TLS handshake failed: {source}")]
    Tls {
        /// What rustls said.
        source: io::Error,
    },
    /// The same without a request for TLS: it may also not know of that.
    #[error(
        "TLS handshake failed: {source} (servers.sslnegotiation = \"direct\" needs PostgreSQL 17 \
         or later)"
    )]
    DirectTls {
        /// What rustls, or the system, said.
        source: io::Error,
    },
    /// The server asks for something that we don't have of this user.
    #[error("the server asks user \"{user}\" for {wanted}, and none is known")]
    NoSecret {
        /// Whom.
        user: String,
        /// For what.
        wanted: &'static str,
    },
    /// The server asks for a method that we don't speak.
    #[error("the server asks for authentication method {method}, which is not supported")]
    Method {
        /// Which.
        method: String,
    },
    /// The exchange of proofs failed on our side.
    #[error("authentication failed: {0}")]
    Scram(#[from] ScramError),
    /// The server refused the login: SQLSTATE class 28.
    #[error("the server refused the login: {0}")]
    LoginRefused(#[source] ServerError),
    /// The server refused the connection for another reason.
    #[error("the server refused the connection: {0}")]
    Server(#[source] ServerError),
    /// It breaks the rules of the protocol.
    #[error("the server broke the protocol: {what}")]
    Protocol {
        /// Which rule.
        what: String,
    },
    /// The connection broke.
    #[error("the connection broke, {}: {source}", stage.as_str())]
    Broken {
        /// When.
        stage: Stage,
        /// What the system said.
        source: io::Error,
    },
}

impl Stage {
    /// The stage, in the middle of a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolving => "resolving the host name",
            Self::Connecting => "connecting",
            Self::Securing => "agreeing on TLS",
            Self::LoggingIn => "logging in",
        }
    }
}

impl ServerError {
    pub(crate) fn new(fields: &ErrorFields<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: fields.code,
            message: text(fields.message),
            detail: fields.detail.map(text),
            hint: fields.hint.map(text),
            ends_connection: fields.is_fatal(),
        }
    }

    /// The error as its client sees it: the server's own words.
    pub fn report(&self) -> ErrorReport {
        let report = ErrorReport::error(self.code, self.message.clone());
        ErrorReport { detail: self.detail.clone(), hint: self.hint.clone(), ..report }
    }
}

impl ConnectError {
    /// Whether another try, or another server, would get the same answer: the login itself is
    /// refused, or the database is not there.
    pub fn is_final(&self) -> bool {
        match self {
            Self::LoginRefused(_)
            | Self::NoSecret { .. }
            | Self::Method { .. }
            | Self::Scram(_) => true,
            Self::Server(error) => !matches!(
                error.code,
                SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN
            ),
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Unresolved { .. }
            | Self::Timeout { .. }
            | Self::NotPostgres { .. }
            | Self::NoTls
            | Self::Tls { .. }
            | Self::DirectTls { .. }
            | Self::Protocol { .. }
            | Self::Broken { .. } => false,
        }
    }

    pub(super) fn server(error: ServerError) -> Self {
        if error.code.class() == "28" { Self::LoginRefused(error) } else { Self::Server(error) }
    }

    /// What the topology says of a server to which this happened.
    pub fn unseen(&self) -> Unseen {
        match self {
            Self::Refused { .. } => Unseen::Refused,
            Self::Unreachable { .. } | Self::Timeout { .. } => Unseen::Silent,
            Self::Unresolved { .. } => Unseen::Unresolved,
            Self::NotPostgres { .. } | Self::Protocol { .. } => Unseen::NotPostgres,
            Self::NoTls | Self::Tls { .. } | Self::DirectTls { .. } => Unseen::Tls,
            Self::NoSecret { .. }
            | Self::Method { .. }
            | Self::Scram(_)
            | Self::LoginRefused(_) => Unseen::LoginRefused,
            Self::Broken { .. } => Unseen::Broken,
            Self::Server(error) => match error.code {
                SqlState::CANNOT_CONNECT_NOW
                | SqlState::ADMIN_SHUTDOWN
                | SqlState::CRASH_SHUTDOWN => Unseen::NotReady,
                SqlState::TOO_MANY_CONNECTIONS => Unseen::Full,
                _ => Unseen::LoginRefused,
            },
        }
    }

    /// What a client sees whose statement needed this server, which is called `server`. The
    /// severity is ERROR; whoever closes the session over it makes it FATAL.
    pub fn report(&self, server: &str) -> ErrorReport {
        let detail = format!("Server \"{server}\".");
        if let Self::LoginRefused(error) | Self::Server(error) = self {
            let report = error.report();
            return if report.detail.is_none() { report.with_detail(detail) } else { report };
        }
        let message = format!("cannot connect to server \"{server}\": {self}");
        let report = ErrorReport::error(self.sqlstate(), message)
            .with_detail("There was no connection to it by which anything could be sent.");
        match self.hint() {
            Some(hint) => report.with_hint(hint),
            None => report,
        }
    }

    /// Which error it is, to a program: the server's own code where it gave one.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Unresolved { .. }
            | Self::Timeout { .. }
            | Self::NotPostgres { .. }
            | Self::NoTls
            | Self::Tls { .. }
            | Self::DirectTls { .. } => SqlState::UNABLE_TO_CONNECT,
            Self::NoSecret { .. } => SqlState::INVALID_PASSWORD,
            Self::Method { .. } | Self::Scram(_) => SqlState::INVALID_AUTHORIZATION,
            Self::LoginRefused(error) | Self::Server(error) => error.code,
            Self::Protocol { .. } => SqlState::PROTOCOL_VIOLATION,
            Self::Broken { .. } => SqlState::CONNECTION_FAILURE,
        }
    }

    /// What to do about it; `None` where the server has said what there is to say.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { .. } => Some("Is PostgreSQL running there, and does it listen there?"),
            Self::Unresolved { .. } => Some("Check the server's host name."),
            Self::Unreachable { .. } | Self::Timeout { .. } => {
                Some("Is the server running, and is there a firewall in between?")
            }
            Self::NotPostgres { .. } => Some("Check the server's host and port."),
            Self::NoTls => Some("Turn on ssl at the server, or lower servers.sslmode."),
            Self::Tls { .. } | Self::DirectTls { .. } => Some(
                "Check servers.sslrootcert, and the name that the server's certificate is for.",
            ),
            Self::NoSecret { .. } => Some(
                "Store the password in auth.file, or let the user log in to pgsteer with SCRAM \
                 against the verifier that the servers have.",
            ),
            Self::Method { .. } => Some("Use scram-sha-256 in the server's pg_hba.conf."),
            Self::Scram(error) => Some(remedy(error)),
            Self::Protocol { .. } => Some(
                "Is it PostgreSQL, and nothing else in between? Its log, and pgsteer's, say more.",
            ),
            Self::Broken { .. } => {
                Some("Run it again; if that goes on, the server's log says why it hangs up.")
            }
            Self::LoginRefused(_) | Self::Server(_) => None,
        }
    }
}

/// What to do where the exchange of proofs with a server failed.
const fn remedy(error: &ScramError) -> &'static str {
    match error {
        ScramError::WrongServer => {
            "Somebody may pass for the server: check its address, and set servers.sslmode to \
             \"verify-full\"."
        }
        ScramError::NotBound(_) => {
            "Turn on ssl and scram-sha-256 at the server, or lower servers.channel_binding."
        }
        ScramError::TooManyIterations(_) => {
            "Lower scram_iterations at the server, and set the user's password again."
        }
        ScramError::Downgraded | ScramError::BoundElsewhere => {
            "Somebody stands between pgsteer and the server: a proxy that ends TLS, or worse."
        }
        ScramError::Malformed(_)
        | ScramError::BindingType(_)
        | ScramError::Unsupported(_)
        | ScramError::WrongProof
        | ScramError::Refused(_) => {
            "Is it PostgreSQL 10 or later, and nothing else in between? Its log says more."
        }
    }
}
