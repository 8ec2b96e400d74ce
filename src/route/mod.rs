//! Where a statement goes, and why.

mod decide;
mod policy;

pub use decide::{Ask, Need, Patience, PrimaryReason, Proof, Refusal, Request, Route, Why, decide};
pub use policy::{Balance, Consistency, LagLimit, OnAllStale, Policy, Reads, RoleWish};
