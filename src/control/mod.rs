//! The control plane: observe, build the topology, publish it.
//!
//! One task a server looks at it over a standing connection (`watch`, `link`, `look`); every
//! answer and every failure goes to one desk (`desk`), which folds it into what is remembered
//! (`fold`), decides who is the primary (`adopt`, `evidence`, `finding`), what it stands on after
//! a restart (`footing`), until when that may be written by (`right`) and who is fit to serve reads
//! (`fitness`, `lag`), and publishes a new topology. Wishes of the data plane come as
//! [`crate::topology::Signals`]: positions and samples are taken by the server's own task,
//! visibility by `guard`, catalogs by `loader`. What operators ask goes through `steward`.
//!
//! Invariants:
//! - Deciding is pure: `adopt`, `evidence`, `fitness`, `fold`, `footing`, `lag`, `look`, `right`
//!   and `snapshot` take the moment as an argument and open nothing.
//! - A server that stalls delays no look at another.
//! - Every question has a deadline; a connection whose question timed out is dropped.
//!
//! Acts on servers are done by `hands` alone, but for making a primary flush its log.

mod adopt;
mod bell;
mod conductor;
pub mod catalog;
mod config;
mod desk;
mod evidence;
mod finding;
mod fitness;
mod fold;
mod footing;
mod guard;
pub mod hands;
mod lag;
mod link;
mod loader;
mod look;
mod policy;
mod right;
mod rogues;
mod snapshot;
mod start;
mod steward;
mod tell;
mod watch;

pub use bell::Bell;
pub use config::{ControlConfig, LiveControl, WatchedServer};
pub use policy::Policy;
pub use start::{Control, Links, StartError};
pub use steward::{
    Account, Ask, Bulletin, OrderId, Outcome, Progress, Step, Steward, StewardError,
};
