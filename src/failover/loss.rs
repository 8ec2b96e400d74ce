//! What a failover loses: known exactly to be nothing, bounded, or not known.

use crate::pg::Lsn;
use std::fmt;

/// What the primary is known to have acknowledged, by its last position on its own timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// Nothing was asked of it in this epoch.
    Unknown,
    /// Every write that was acknowledged through this proxy lies at or below this position.
    UpTo(Lsn),
    /// It had written up to here, and more was acknowledged later.
    Beyond(Lsn),
}

/// Acknowledged writes that the promoted server does not hold, in bytes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// None: it is proved that it holds them all.
    None,
    /// No more than this; what others wrote past pgsteer is not counted.
    AtMost(u64),
    /// Not known; at least this much of the log is missing.
    Unknown {
        /// Bytes that are known to be missing.
        at_least: u64,
    },
}

/// What may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaxLoss {
    /// Up to so many bytes of the log; a loss that is not known is more.
    Bytes(u64),
    /// Whatever it is.
    Any,
}

impl Loss {
    /// What is lost with a server that holds the log up to `held`, if not proved otherwise.
    pub const fn of(acknowledged: Acknowledged, held: Lsn) -> Self {
        match acknowledged {
            Acknowledged::Unknown => Self::Unknown { at_least: 0 },
            Acknowledged::UpTo(position) => match position.bytes_since(held) {
                0 => Self::None,
                bytes => Self::AtMost(bytes),
            },
            Acknowledged::Beyond(position) => {
                Self::Unknown { at_least: position.bytes_since(held) }
            }
        }
    }
}

impl Loss {
    /// The same, with so many bytes more.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        match self {
            Self::None if bytes == 0 => Self::None,
            Self::None => Self::AtMost(bytes),
            Self::AtMost(known) => Self::AtMost(known.saturating_add(bytes)),
            Self::Unknown { at_least } => {
                Self::Unknown { at_least: at_least.saturating_add(bytes) }
            }
        }
    }
}

impl MaxLoss {
    /// Whether this loss may be taken.
    pub const fn allows(self, loss: Loss) -> bool {
        match (self, loss) {
            (Self::Any, _) | (Self::Bytes(_), Loss::None) => true,
            (Self::Bytes(most), Loss::AtMost(bytes)) => bytes <= most,
            (Self::Bytes(_), Loss::Unknown { .. }) => false,
        }
    }

    /// The more permissive of the two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => Self::Any,
            (Self::Bytes(one), Self::Bytes(two)) => Self::Bytes(one.max(two)),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("none"),
            Self::AtMost(bytes) => write!(out, "at most {bytes} bytes of log"),
            Self::Unknown { at_least: 0 } => out.write_str("unknown"),
            Self::Unknown { at_least } => write!(out, "unknown, at least {at_least} bytes of log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_loss_is_more_than_any_number() {
        let held = Lsn(100);
        let cases = [
            (Acknowledged::UpTo(Lsn(90)), Loss::None),
            (Acknowledged::UpTo(Lsn(100)), Loss::None),
            (Acknowledged::UpTo(Lsn(130)), Loss::AtMost(30)),
            (Acknowledged::Beyond(Lsn(90)), Loss::Unknown { at_least: 0 }),
            (Acknowledged::Beyond(Lsn(130)), Loss::Unknown { at_least: 30 }),
            (Acknowledged::Unknown, Loss::Unknown { at_least: 0 }),
        ];
        for (acknowledged, expected) in cases {
            assert_eq!(Loss::of(acknowledged, held), expected, "{acknowledged:?}");
        }
        assert!(MaxLoss::Bytes(0).allows(Loss::None));
        assert!(!MaxLoss::Bytes(29).allows(Loss::AtMost(30)));
        assert!(MaxLoss::Bytes(30).allows(Loss::AtMost(30)));
        assert!(!MaxLoss::Bytes(u64::MAX).allows(Loss::Unknown { at_least: 0 }));
        assert!(MaxLoss::Any.allows(Loss::Unknown { at_least: 30 }));
    }
}
