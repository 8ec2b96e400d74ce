//! Two pgsteer with a record each would be two deciders: while both may decide, neither does.

use super::{await_armed, epoch, new_primary, primaries, quorum};
use crate::support::House;
use crate::support::await_that;
use crate::support::proxy_at;
use pgsteer::sandbox::Proxy;
use std::time::Duration;

/// Much longer than one would take to replace a primary.
const LONG: Duration = Duration::from_secs(4);

/// One more pgsteer at the same servers, with state of its own.
fn second(house: &House, mode: &str) -> Proxy {
    let servers = house.cluster.servers().iter();
    let proxy = proxy_at(&house.cluster, "second", "")
        .args(servers.flat_map(|server| ["--server".to_owned(), server.address()]))
        .args(["--set", &format!("failover.mode={mode}")])
        .args(["--set", "failover.demote=crash_restart"]);
    proxy.start().unwrap();
    proxy.await_ready().unwrap();
    proxy
}

fn failover(proxy: &Proxy) -> serde_json::Value {
    let status = proxy.get("/status").unwrap().body;
    serde_json::from_str::<serde_json::Value>(&status).unwrap()["failover"].clone()
}

/// Whether it is disarmed because it is not alone.
fn sees_the_other(proxy: &Proxy) -> bool {
    let failover = failover(proxy);
    failover["armed"] == false && failover.to_string().contains("other pgsteer processes")
}

#[test]
fn of_two_that_may_act_by_themselves_neither_does() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let other = second(&house, "auto");
    let both = [&house.proxy, &other];
    await_that("each sees the other", || both.iter().all(|proxy| sees_the_other(proxy)));
    let before = epoch(&house);

    house.server("primary").kill9().unwrap();
    let began = pgsteer::clock::now();
    while pgsteer::clock::now().since(began) < LONG {
        assert_eq!(primaries(&house), [""; 0], "{}\n{}", failover(&house.proxy), failover(&other));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(epoch(&house), before);
}

/// The opposite arm: one that may not act is in nobody's way.
#[test]
fn of_two_of_which_one_may_act_that_one_does() {
    let house = quorum().build();
    let other = second(&house, "off");
    await_armed(&house, "quorum");
    assert_eq!(failover(&other)["armed"], false);
    house.server("primary").kill9().unwrap();
    assert_ne!(new_primary(&house).name(), "primary");
    house.wire().run("CREATE TABLE after_it ()");
}
