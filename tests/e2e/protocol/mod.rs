//! Every message of the protocol is answered as a server alone answers it.

mod alike;
mod calls;
mod encodings;
mod hosts;
mod identities;
mod names;
mod orders;
mod replication;
mod states;

use crate::raw::Raw;

/// The servers' release, as a client is told it.
fn release(client: &Raw) -> u32 {
    let version = &client.params["server_version"];
    version.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// A client is told whether its session is on a standby, as servers do from release 14 on.
fn tells(client: &Raw, in_hot_standby: &str) {
    let told = client.params.get("in_hot_standby").map(String::as_str);
    assert_eq!(told, (release(client) >= 14).then_some(in_hot_standby));
}
