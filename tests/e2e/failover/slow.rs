//! A link between two standbys is slow, and alive: what comes over it is waited for, also where a
//! segment of the log is sent anew from its start, which adds nothing to what is held for long.

use super::catching::{build_from, held, one_that_may_not_lead_holds_more};
use super::{asynchronous, new_primary};
use crate::support::Relay;
use pgsteer::clock;
use pgsteer::sandbox::eventually;
use std::time::Duration;

/// What a standby holds of the last segment, and is sent again, in bytes; and how fast, in bytes a
/// second. It takes longer than one from which nothing comes is waited for (10 s).
const HELD: usize = 4 << 20;
const PACE: u32 = 250_000;

#[test]
fn one_that_takes_over_slowly_is_not_given_up() {
    let relay = Relay::open();
    let blueprint = asynchronous().set("failover.max_data_loss", "any");
    let blueprint = blueprint.reached_at("standby2", &relay.address().to_string());
    let house = build_from(blueprint, "asynchronous");
    relay.lead_to(house.server("standby2").address().parse().unwrap());
    let primary = house.server("primary");
    primary.rows("SELECT pg_switch_wal()").unwrap();
    let filling = format!("SELECT pg_logical_emit_message(false, 'filling', repeat('x', {HELD}))");
    primary.rows(&filling).unwrap();
    house.cluster.await_replay().unwrap();
    relay.slow_down(PACE);

    let ledger = one_that_may_not_lead_holds_more(&house);
    let (less, more) = (held(&house, "standby1"), held(&house, "standby2"));
    assert!(less < more, "nothing was at stake: {less}, {more}");
    // Whoever stands still for a second, on a crowded machine, does not break the stream off.
    house.server("standby2").set("wal_sender_timeout", "1min").unwrap();
    let slow = Duration::from_secs(10);
    let began = clock::now();
    let gives_up = || house.proxy.log().contains("can't take over");
    let status = || house.status()["primary"].as_str() == Some(&house.server("standby1").address());
    let patience = Duration::from_mins(3);
    eventually(patience, || (gives_up() || status()).then_some(())).expect("it does not end");
    assert!(
        clock::now().since(began) > slow,
        "the link was not slow: {:?}",
        clock::now().since(began)
    );
    assert_eq!(new_primary(&house).name(), "standby1");

    assert!(!gives_up(), "{}", house.proxy.log());
    let kept = held(&house, "standby1");
    assert!(kept >= more, "given up: {kept} of {more}");
    drop(ledger.close());
}
