//! The words of every closed choice.

use crate::auth;
use crate::backend::ChannelBinding;
use crate::backend::SslMode;
use crate::backend::SslNegotiation;
use crate::config::setting::Choice;
use crate::config::types::Cores;
use crate::config::types::LogFormat;
use crate::config::types::LogLevel;
use crate::config::types::Scheduling;
use crate::failover::Demotion;
use crate::failover::Mode;
use crate::failover::Profile;
use crate::failover::Rejoin;
use crate::pool;
use crate::route::Balance;
use crate::route::Consistency;
use crate::route::OnAllStale;
use crate::route::Reads;

/// `tls.mode` as it is written; checked, it is [`crate::config::ClientTls`] or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    Disable,
    Prefer,
    Require,
}

impl Choice for TlsMode {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Disable, "disable"), (Self::Prefer, "prefer"), (Self::Require, "require")];
}

impl Choice for SslMode {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Disable, "disable"),
        (Self::Allow, "allow"),
        (Self::Prefer, "prefer"),
        (Self::Require, "require"),
        (Self::VerifyCa, "verify-ca"),
        (Self::VerifyFull, "verify-full"),
    ];
}

impl Choice for ChannelBinding {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Disable, "disable"), (Self::Prefer, "prefer"), (Self::Require, "require")];
}

impl Choice for SslNegotiation {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Postgres, "postgres"), (Self::Direct, "direct")];
}

impl Choice for auth::Method {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Trust, "trust"), (Self::ScramSha256, "scram-sha-256")];
}

impl Choice for pool::Mode {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Transaction, "transaction"), (Self::Session, "session")];
}

impl Choice for pool::Reset {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Tracked, "tracked"), (Self::Close, "close"), (Self::Off, "off")];
}

impl Choice for pool::UnnamedStatements {
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Pass, "pass"), (Self::Reuse, "reuse")];
}

impl Choice for Reads {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Standby, "standby"), (Self::Any, "any"), (Self::Primary, "primary")];
}

impl Choice for Consistency {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Eventual, "eventual"), (Self::Session, "session"), (Self::Primary, "primary")];
}

impl Choice for OnAllStale {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Primary, "primary"), (Self::Wait, "wait"), (Self::Error, "error")];
}

impl Choice for Balance {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::LeastActive, "least-active"), (Self::Weighted, "weighted")];
}

impl Choice for Mode {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Off, "off"), (Self::Manual, "manual"), (Self::Auto, "auto")];
}

impl Choice for Profile {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Calm, "calm"), (Self::Aggressive, "aggressive")];
}

impl Choice for Demotion {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Fence, "fence"), (Self::CrashRestart, "crash_restart")];
}

impl Choice for Rejoin {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Restart, "restart"), (Self::Fence, "fence")];
}

impl Choice for Scheduling {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Batch, "batch"), (Self::Normal, "normal")];
}

impl Choice for LogFormat {
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Text, "text"), (Self::Json, "json")];
}

impl Choice for Cores {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Never, "never"), (Self::Allowed, "allowed")];
}

impl Choice for LogLevel {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];
}
