//! Replication connections end with the reign of their primary, and come back to the next one.

use super::*;
use crate::support::Ended;

#[test]
fn a_stream_from_a_hung_primary_is_ended_and_the_next_one_is_the_new_primarys() {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let login = [("user", "postgres"), ("database", "postgres"), ("replication", "database")];
    let enter = || Wire::log_in_with(house.proxy.address(), &login).unwrap();
    let (mut streams, mut idles) = (enter(), enter());
    let position = streams.value("SELECT pg_current_wal_flush_lsn()");
    streams.send(&query(&format!("START_REPLICATION PHYSICAL {position}"))).unwrap();
    assert_eq!(streams.message().unwrap()[0], b'W', "it streams");
    scene.lose(Loss::Hung);
    let changed = scene.take_over();
    for wire in [&mut streams, &mut idles] {
        let reply = wire.reply();
        assert_eq!((reply.code(), reply.ended), ("57P01", Ended::Closed), "{reply:?}");
        assert!(reply.error().message.contains("the primary was replaced"), "{reply:?}");
    }
    let late = clock::now().since(changed);
    assert!(late < SOON, "{late:?}");
    let mut again = enter();
    let timeline = again.query("IDENTIFY_SYSTEM").rows[0][1].clone();
    assert_eq!(timeline.as_deref(), Some("2"));
    house.server("primary").sigcont();
}
