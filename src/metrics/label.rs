//! The values that labels can have: closed enums and configured names, nothing else.
//!
//! So the number of series is bounded by the types. Never a user, an address, a statement.

/// A label whose values are known beforehand.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;

    /// The value as it is exposed.
    fn text(self) -> &'static str;
}

macro_rules! labels {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[doc = $value_doc:literal])* $value:ident = $text:literal,)* }
    )*) => {
        /// The closed lists, for the reference: each value, and what it means.
        pub const LISTS: &[&[(&str, &str)]] =
            &[$(&[$(($text, concat!($($value_doc),*)),)*],)*];

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $name { $($(#[doc = $value_doc])* $value,)* }

            impl Label for $name {
                const ALL: &'static [Self] = &[$(Self::$value,)*];

                #[expect(clippy::as_conversions, reason = "a value's number, as declared")]
                fn index(self) -> usize {
                    self as usize
                }

                fn text(self) -> &'static str {
                    match self { $(Self::$value => $text,)* }
                }
            }
        )*
    };
}

labels! {
    /// What a client does now.
    ClientState {
        /// Between two transactions.
        Idle = "idle",
        /// Its statement runs.
        Active = "active",
        /// Its statement waits for a backend, a primary or a position.
        Waiting = "waiting",
        /// In an open transaction, between two statements.
        InTransaction = "in_transaction",
    }
    /// How a client's connection began.
    Admission {
        /// It is served.
        Accepted = "accepted",
        /// It did not prove who it is.
        AuthFailed = "auth_failed",
        /// There were too many.
        Limit = "limit",
        /// TLS failed, or it came without where TLS is demanded.
        TlsError = "tls_error",
        /// It did not speak the protocol, or asked for what there is not.
        ProtocolError = "protocol_error",
        /// It left, or was too slow, before it was logged in.
        Abandoned = "abandoned",
        /// It proved who it is, and no server took its session: another database, no right to
        /// connect.
        Refused = "refused",
        /// No server could be reached that would vouch for it or take its session.
        Unavailable = "unavailable",
        /// It asked for somebody's statement to be cancelled.
        Cancel = "cancel",
    }
    /// What a backend does now.
    BackendState {
        /// It rests in the pool.
        Idle = "idle",
        /// A client has it.
        Active = "active",
        /// It is being opened.
        Login = "login",
    }
    /// How opening a backend ended.
    ConnectResult {
        /// It is open.
        Ok = "ok",
        /// Nobody listens there.
        Refused = "refused",
        /// No answer in time.
        Timeout = "timeout",
        /// The login was refused.
        Auth = "auth",
        /// TLS failed.
        Tls = "tls",
        /// The server has no connection left.
        TooMany = "too_many",
        /// Anything else.
        Error = "error",
    }
    /// Why a backend was closed.
    DisconnectReason {
        /// It rested too long.
        Idle = "idle",
        /// It lived too long.
        Lifetime = "lifetime",
        /// There are as many as there may be, and its place was needed for another one.
        Room = "room",
        /// It broke, or could not be made clean.
        Error = "error",
        /// An audit found what a session had left there.
        Leak = "leak",
        /// Its server is no longer what it was.
        Failover = "failover",
        /// The configuration changed.
        Reload = "reload",
        /// pgsteer shuts down, or an operator asked for it.
        Admin = "admin",
    }
    /// What an audit found.
    AuditResult {
        /// Nothing: it was as it was believed to be.
        Clean = "clean",
        /// What a session had left unseen.
        Leak = "leak",
        /// The server did not answer.
        Unanswered = "unanswered",
    }
    /// How a hold ended.
    HoldOutcome {
        /// There is a primary.
        Went = "went",
        /// It lasted too long.
        Refused = "refused",
        /// The client cancelled the statement, or left.
        GivenUp = "given_up",
    }
    /// What became of a session's work on a server that was lost.
    LostWork {
        /// It was run again elsewhere, unseen by the client.
        RunAgain = "run_again",
        /// The transaction had only begun, and went on elsewhere.
        Reopened = "reopened",
        /// The transaction, or the COPY, was rolled back.
        RolledBack = "rolled_back",
        /// A read broke off.
        BrokenOff = "broken_off",
        /// Nobody knows whether it was executed.
        InDoubt = "in_doubt",
        /// What lived in one backend was lost.
        State = "state",
    }
    /// What a statement is.
    QueryKind {
        /// A pure read.
        Read = "read",
        /// Anything that is not known to be a pure read.
        Write = "write",
        /// Neither reads nor writes data.
        Other = "other",
    }
    /// How a transaction ended.
    TransactionOutcome {
        /// Committed, or a single statement that succeeded.
        Commit = "commit",
        /// Its client rolled it back.
        Rollback = "rollback",
        /// An error ended it.
        Aborted = "aborted",
    }
    /// What became of a statement that a client prepared or used.
    CacheResult {
        /// The backend held it already.
        Hit = "hit",
        /// It had to be sent to the backend.
        Miss = "miss",
        /// The backend held too many, and gave up the oldest.
        Evicted = "evicted",
    }
    /// On which side prepared statements are held.
    StatementSide {
        /// By clients, under their own names.
        Client = "client",
        /// By backends.
        Server = "server",
    }
    /// How much an event in the log matters.
    LineLevel {
        /// Something that must not happen did.
        Error = "error",
        /// An operator should know.
        Warn = "warn",
        /// What happened.
        Info = "info",
        /// For those who look for a fault.
        Debug = "debug",
        /// For those who change pgsteer.
        Trace = "trace",
    }
    /// What a server was when it ran a statement.
    ServedBy {
        /// The primary.
        Primary = "primary",
        /// A standby.
        Standby = "standby",
    }
    /// Who raised an error.
    ErrorOrigin {
        /// A server.
        Server = "server",
        /// pgsteer.
        Proxy = "proxy",
    }
    /// How a wait for a replay position ended.
    WaitOutcome {
        /// A standby got there.
        Reached = "reached",
        /// The primary answered instead.
        Fallback = "fallback",
        /// The read failed.
        Timeout = "timeout",
    }
    /// How the guard between a standby and the primary ended.
    GuardOutcome {
        /// The primary showed everything.
        Passed = "passed",
        /// It did not in time.
        Timeout = "timeout",
    }
    /// What a server is seen to be.
    SeenRole {
        /// A primary, by its own word.
        Primary = "primary",
        /// A standby.
        Standby = "standby",
        /// It does not answer.
        Unknown = "unknown",
    }
    /// What a server is good for.
    Use {
        /// Reads.
        Reads = "reads",
        /// Writes.
        Writes = "writes",
    }
    /// Which place in the log.
    WalPoint {
        /// Flushed to the primary's disk.
        Flush = "flush",
        /// Received by a standby.
        Receive = "receive",
        /// Replayed by a standby.
        Replay = "replay",
    }
    /// Who may begin a failover.
    FailoverMode {
        /// Nobody: others promote.
        Off = "off",
        /// An operator.
        Manual = "manual",
        /// pgsteer, by the evidence.
        Auto = "auto",
    }
    /// What the primary promises of a write that it acknowledged.
    PromiseKind {
        /// Standbys hold it.
        Quorum = "quorum",
        /// It alone holds it.
        Asynchronous = "asynchronous",
        /// No primary was recorded yet.
        Unknown = "unknown",
    }
    /// How far a change of primary has come.
    FailoverPhase {
        /// None is under way.
        Stable = "stable",
        /// Transactions may end.
        Draining = "draining",
        /// Standbys are frozen.
        Revoking = "revoking",
        /// One was chosen.
        Promoting = "promoting",
    }
    /// What keeps a lost primary from being replaced.
    Blocked {
        /// An operator must say so.
        Manual = "manual",
        /// Another tool is waited for.
        Off = "off",
        /// `auto` lacks something.
        Disarmed = "disarmed",
        /// It is not proved to be lost.
        Evidence = "evidence",
        /// It restarts, and gets its time.
        Grace = "grace",
        /// The last automatic failover was a moment ago.
        TooSoon = "too_soon",
        /// Another tool promoted a server: it is followed, not rivalled.
        PromotedElsewhere = "promoted_elsewhere",
        /// Too few standbys are frozen.
        NotRevoked = "not_revoked",
        /// Nobody may be promoted.
        NoCandidate = "no_candidate",
        /// More would be lost than may be.
        TooMuchLoss = "too_much_loss",
        /// It does not get what another one holds more.
        CannotCatchUp = "cannot_catch_up",
        /// The chosen server does not answer.
        ChosenLost = "chosen_lost",
    }
    /// What a change of primary is.
    ChangeKind {
        /// The primary was lost.
        Failover = "failover",
        /// It handed over.
        Switchover = "switchover",
    }
    /// Who wanted a change of primary.
    ChangeBy {
        /// pgsteer, by the evidence.
        Evidence = "evidence",
        /// An operator.
        Operator = "operator",
        /// Somebody else promoted a server.
        Outside = "outside",
    }
    /// What became of a swap.
    SwapResult {
        /// The record is there, durably.
        Ok = "ok",
        /// Another was there.
        Raced = "raced",
        /// It could not be written, or it is not known whether it was.
        Failed = "failed",
    }
    /// How a look at a server ended.
    CheckResult {
        /// It answered.
        Ok = "ok",
        /// No answer in time.
        Timeout = "timeout",
        /// Anything else.
        Error = "error",
    }
}

impl Label for crate::route::Why {
    const ALL: &'static [Self] = &Self::ALL;

    #[expect(clippy::as_conversions, reason = "a value's number, as declared")]
    fn index(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        self.as_str()
    }
}

impl Label for crate::session::Pin {
    const ALL: &'static [Self] = &Self::ALL;

    #[expect(clippy::as_conversions, reason = "a value's number, as declared")]
    fn index(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        self.as_str()
    }
}

/// The family of an SQLSTATE: its first two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlStateClass(&'static str);

/// The classes of appendix A of the PostgreSQL manual, in order, and one for all others: a server
/// can send any five characters, and they must not become series.
const CLASSES: &[SqlStateClass] = &[
    SqlStateClass("00"),
    SqlStateClass("01"),
    SqlStateClass("02"),
    SqlStateClass("03"),
    SqlStateClass("08"),
    SqlStateClass("09"),
    SqlStateClass("0A"),
    SqlStateClass("0B"),
    SqlStateClass("0F"),
    SqlStateClass("0L"),
    SqlStateClass("0P"),
    SqlStateClass("0Z"),
    SqlStateClass("10"),
    SqlStateClass("20"),
    SqlStateClass("21"),
    SqlStateClass("22"),
    SqlStateClass("23"),
    SqlStateClass("24"),
    SqlStateClass("25"),
    SqlStateClass("26"),
    SqlStateClass("27"),
    SqlStateClass("28"),
    SqlStateClass("2B"),
    SqlStateClass("2D"),
    SqlStateClass("2F"),
    SqlStateClass("34"),
    SqlStateClass("38"),
    SqlStateClass("39"),
    SqlStateClass("3B"),
    SqlStateClass("3D"),
    SqlStateClass("3F"),
    SqlStateClass("40"),
    SqlStateClass("42"),
    SqlStateClass("44"),
    SqlStateClass("53"),
    SqlStateClass("54"),
    SqlStateClass("55"),
    SqlStateClass("57"),
    SqlStateClass("58"),
    SqlStateClass("72"),
    SqlStateClass("F0"),
    SqlStateClass("HV"),
    SqlStateClass("P0"),
    SqlStateClass("XX"),
    SqlStateClass("other"),
];

impl SqlStateClass {
    /// The class of a code.
    pub fn of(code: crate::pg::SqlState) -> Self {
        let known = CLASSES.iter().find(|class| class.0 == code.class());
        known.copied().unwrap_or(Self("other"))
    }
}

impl Label for SqlStateClass {
    const ALL: &'static [Self] = CLASSES;

    fn index(self) -> usize {
        let at = CLASSES.iter().position(|class| *class == self);
        at.unwrap_or(CLASSES.len() - 1)
    }

    fn text(self) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::SqlState;

    #[test]
    fn a_servers_own_code_is_no_new_series() {
        assert_eq!(SqlStateClass::of(SqlState::SERIALIZATION_FAILURE).text(), "40");
        assert_eq!(SqlStateClass::of(SqlState(*b"ZZ123")).text(), "other");
        assert_eq!(SqlStateClass::of(SqlState([0xFF; 5])).text(), "other");
    }

    #[test]
    fn every_value_knows_its_place() {
        fn check<L: Label + PartialEq + std::fmt::Debug>() {
            for (at, value) in L::ALL.iter().enumerate() {
                assert_eq!(value.index(), at, "{value:?}");
            }
        }
        check::<ClientState>();
        check::<ConnectResult>();
        check::<crate::route::Why>();
        check::<crate::session::Pin>();
        check::<SqlStateClass>();
    }
}
