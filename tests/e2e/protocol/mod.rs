//! Every message of the protocol is answered as a server alone answers it.

mod alike;
mod calls;
mod encodings;
mod hosts;
mod replication;
