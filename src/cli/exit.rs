//! How a command ends.

use std::process::ExitCode;

/// How a command ends: the exit code, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// It failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// It answered, but the set is degraded (`status --check`).
    Degraded,
    /// It was refused.
    Refused,
    /// It took too long.
    TimedOut,
    /// The configuration is wrong: `EX_CONFIG` of `sysexits.h`, so that systemd can tell a typo
    /// from a crash (`RestartPreventExitStatus=78`).
    Config,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read our output has left, as in `pgsteer status | head -1`: what a shell reports
    /// of a process that SIGPIPE ended.
    BrokenPipe,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Degraded => 3,
            Self::Refused => 4,
            Self::TimedOut => 5,
            Self::Config => 78,
            Self::Interrupted => 130,
            Self::BrokenPipe => 141,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
