//! The control plane: observe, build the topology, publish it.

mod adopt;
mod bell;
pub mod catalog;
mod desk;
mod evidence;
mod finding;
mod fitness;
mod fold;
mod lag;
mod look;
mod policy;
mod snapshot;

pub use bell::Bell;
pub use policy::Policy;
