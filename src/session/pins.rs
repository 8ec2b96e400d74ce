//! Why a session can't leave its backend: what it has there can't be moved.

/// Why a session can't leave its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pins(u16);

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// It holds a session-level advisory lock.
    Advisory,
    /// It has temporary objects.
    Temporary,
    /// It listens.
    Listen,
    /// It has a cursor that outlives its transaction.
    Cursor,
    /// It prepared statements by SQL.
    Prepared,
    /// It acts under another session user.
    SessionUser,
    /// It set something that no probe shows, or shows to us.
    Hidden,
    /// It may have left something, and nobody could ask any more.
    Unknown,
    /// It left something that no reset takes back, and that goes with the backend only.
    Lasting,
}

impl Pin {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Advisory,
        Self::Temporary,
        Self::Listen,
        Self::Cursor,
        Self::Prepared,
        Self::SessionUser,
        Self::Hidden,
        Self::Unknown,
        Self::Lasting,
    ];

    /// The word for it: in a probe's answer, in `status`, in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Advisory => "advisory",
            Self::Temporary => "temporary",
            Self::Listen => "listen",
            Self::Cursor => "cursor",
            Self::Prepared => "prepared",
            Self::SessionUser => "session_user",
            Self::Hidden => "hidden",
            Self::Unknown => "unknown",
            Self::Lasting => "lasting",
        }
    }

    /// What a client calls it.
    const fn told(self) -> &'static str {
        match self {
            Self::Advisory => "advisory locks",
            Self::Temporary => "temporary objects",
            Self::Listen => "LISTEN",
            Self::Cursor => "cursors WITH HOLD",
            Self::Prepared => "statements of PREPARE",
            Self::SessionUser => "SET SESSION AUTHORIZATION",
            Self::Hidden => "settings under a computed name, or in letters that are not UTF-8",
            Self::Unknown => "what the last statements may have set",
            Self::Lasting => "what no reset takes back (setseed, LOAD, a backup and their like)",
        }
    }

    const fn bit(self) -> u16 {
        match self {
            Self::Advisory => 1,
            Self::Temporary => 2,
            Self::Listen => 4,
            Self::Cursor => 8,
            Self::Prepared => 16,
            Self::SessionUser => 32,
            Self::Hidden => 64,
            Self::Unknown => 128,
            Self::Lasting => 256,
        }
    }
}

impl Pins {
    /// Adds a reason.
    pub const fn add(&mut self, pin: Pin) {
        self.0 |= pin.bit();
    }

    /// Takes a reason away.
    pub const fn remove(&mut self, pin: Pin) {
        self.0 &= !pin.bit();
    }

    /// One reason.
    pub const fn of(pin: Pin) -> Self {
        Self(pin.bit())
    }

    /// Adds others' reasons.
    pub const fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Each of them.
    pub fn each(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.0 & pin.bit() != 0)
    }

    /// What a client calls them.
    pub fn told(self) -> String {
        self.each().map(Pin::told).collect::<Vec<_>>().join(", ")
    }

    /// Whether this is one of them.
    pub const fn has(self, pin: Pin) -> bool {
        self.0 & pin.bit() != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
