//! What the operator chose about failover.

use crate::failover::MaxLoss;
use std::time::Duration;

/// `[failover]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Who may begin a failover.
    pub mode: Mode,
    /// What an automatic failover may lose.
    pub max_data_loss: MaxLoss,
    /// A primary without a sign of life for so long is hung, if every witness agrees.
    pub silent_after: Duration,
    /// A standby that heard from the primary within this time is a witness that it lives.
    pub witness_fresh: Duration,
    /// A primary that restarts after the crash of one of its backends gets so long to come back.
    pub restart_grace: Duration,
    /// A primary that we can't reach while a standby still streams from it is replaced after so
    /// long; only where that loses nothing.
    pub isolated_after: Duration,
    /// The shortest time between two automatic failovers.
    pub gap: Duration,
    /// How long a standby that answers is waited for before one of the others is chosen.
    pub freeze_patience: Duration,
    /// One that takes over what another holds more is waited for as long as it gets on; where it
    /// has received nothing for so long, that has failed.
    pub catch_up_patience: Duration,
    /// As long as servers are worked on, whoever ordered a failover waits so long before he is told
    /// what it waits for.
    pub answer_patience: Duration,
    /// Longest wait for the new primary's standbys to confirm a commit.
    pub prove_patience: Duration,
    /// In a switchover, transactions get so long to end; then it is called off.
    pub drain_timeout: Duration,
    /// What becomes of the old primary of a switchover.
    pub demotion: Demotion,
    /// What becomes of a former primary that comes back and holds nothing more than the new one.
    pub rejoin: Rejoin,
}

/// Who may begin a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody: others promote, pgsteer follows.
    Off,
    /// An operator.
    Manual,
    /// pgsteer, by the evidence.
    Auto,
}

/// How much evidence a silent primary is given time for. A dead one needs no time in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Rather a second late than once in vain.
    Calm,
    /// For servers and networks that are never silent for half a second.
    Aggressive,
}

/// What becomes of the old primary of a switchover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Demotion {
    /// It is fenced by settings; it must be rewound and started as a standby by its operator.
    Fence,
    /// It is made to restart as a standby, by SQL alone; needs a superuser.
    CrashRestart,
}

/// What becomes of a former primary that comes back as one, holding nothing more than the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejoin {
    /// It is made to restart as a standby, by SQL alone. Where that can't be done it is fenced.
    Restart,
    /// It is fenced by settings, and waits for its operator.
    Fence,
}

impl Policy {
    /// The limits of a profile; the rest as usual.
    pub const fn of(profile: Profile) -> Self {
        let (silent, fresh, idle) = match profile {
            Profile::Calm => (3000, 2000, 10),
            Profile::Aggressive => (1000, 600, 5),
        };
        Self {
            mode: Mode::Manual,
            max_data_loss: MaxLoss::Bytes(0),
            silent_after: Duration::from_millis(silent),
            witness_fresh: Duration::from_millis(fresh),
            restart_grace: Duration::from_secs(5),
            isolated_after: Duration::from_secs(5),
            gap: Duration::from_secs(30),
            freeze_patience: Duration::from_millis(500),
            catch_up_patience: Duration::from_secs(idle),
            answer_patience: Duration::from_secs(3),
            prove_patience: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(5),
            demotion: Demotion::Fence,
            rejoin: Rejoin::Restart,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(Profile::Calm)
    }
}

impl Mode {
    /// The word for the configuration, `status` and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Manual => "manual",
            Self::Auto => "auto",
        }
    }
}
