//! Where a statement goes, and why.

mod policy;

pub use policy::{Balance, Consistency, LagLimit, OnAllStale, Policy, Reads, RoleWish};
