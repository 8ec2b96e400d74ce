//! The control plane: observe, build the topology, publish it.

mod policy;

pub use policy::Policy;
