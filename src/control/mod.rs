//! The control plane: observe, build the topology, publish it.

pub mod catalog;
mod policy;

pub use policy::Policy;
