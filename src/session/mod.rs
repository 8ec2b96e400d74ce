//! One client's conversation, as far as it can be told without a socket: what its reads must
//! see, which settings it changed, which statements it prepared, and which replies are owed.
//!
//! Invariants:
//! - Nothing here owns a backend or sends anything; the frontend acts on what this says.
//! - A name that a client chose for a prepared statement never stays on a pooled backend.

mod batch;
mod build;
mod custom;
mod floor;
mod group;
mod lend;
mod own;
mod pins;
mod replies;
mod runs;
mod settings;
mod shape;
mod statements;
mod stray;

pub use build::{Builder, PreparedBySql, Renamed, Tally, Unnamed, UnnamedThere};
pub use custom::{CustomNames, NAMES_BYTES_MAX, NAMES_MAX, TooManyNames, is_custom};
pub use floor::{Anchor, Demand, Floor, Mark};
pub use group::{
    Cut, End, Executes, GROUP_MAX, Group, MessageLimits, Parses, Reader, Scan, Violation, scan,
};
pub use own::{Extent, Known, Own, OwnAnswer, OwnPortals, OwnRow, Survey, survey};
pub use pins::{Pin, Pins};
pub use replies::{
    Account, Concluded, CopyIn, Disposition, Expect, OutOfStep, Replies, Room, Success, Undo, Walk,
    status_of,
};
pub use runs::{Before, Run, runs};
pub use settings::{
    FirstRole, ISOLATION, Identity, Isolates, Settings, SharedSettings, is_ours, same,
};
pub use shape::{Shape, Shapes};
pub use statements::{
    Held, KeepLimits, Library, Names, Prepared, Reading, Recall, find_ours, is_ours_on_servers,
};
pub use stray::{Stray, Strays};
