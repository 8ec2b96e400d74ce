//! Under which name a server receives, while it is told nothing of how.

use super::*;
use pgsteer::failover::Promise;
use pgsteer::sandbox::Naming;

/// Each server waits for any one of all; who one is stands in its link alone.
fn named_by_links() -> Plan {
    let names = "ANY 1 (primary, standby1, standby2)";
    Plan::new().naming(Naming::Links).setting("synchronous_standby_names", names)
}

fn quorum(cohort: [&str; 2]) -> Promise {
    Promise::Quorum { w: 1, cohort: cohort.map(Arc::from).into() }
}

fn name(grip: &Grip, id: ServerId) -> Option<Arc<str>> {
    grip.survey(id).application_name()
}

/// What is on record meanwhile.
fn recorded() -> Promise {
    quorum(["standby1", "standby2"])
}

#[test]
fn a_frozen_standby_counts_under_its_name() {
    let grip = Grip::on(&named_by_links());
    let promise = Some(quorum(["standby1", "standby2"]));
    assert_eq!(grip.hands.promise("primary", &recorded()), promise);
    grip.done(|| grip.hands.freeze(FIRST));
    assert_eq!(name(&grip, FIRST).as_deref(), Some("standby1"));
    assert_eq!(grip.hands.promise("primary", &recorded()), promise);

    // A process that was started since knows it from the store.
    let heir = hands(&grip.cluster, SUPERUSER, Instance(2), &grip.store);
    grip.wait(heir.survey_all());
    assert_eq!(heir.promise("primary", &recorded()), promise);

    // One that has no store knows nothing, and says nothing weaker.
    let nowhere = Store::Memory(MemoryStore::default());
    let stranger = hands(&grip.cluster, SUPERUSER, Instance(3), &nowhere);
    grip.wait(stranger.survey_all());
    assert_eq!(stranger.promise("primary", &recorded()), None);
}

#[test]
fn a_promoted_one_keeps_its_name_and_gets_its_link_back() {
    let grip = Grip::on(&named_by_links());
    let before = conninfo(grip.server(FIRST));
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    grip.server(PRIMARY).kill9().unwrap();
    grip.done(|| grip.hands.promote(FIRST));

    assert_eq!(name(&grip, FIRST).as_deref(), Some("standby1"));
    assert_eq!(grip.hands.promise("standby1", &recorded()), Some(quorum(["primary", "standby2"])));
    await_that("it has its own back", || conninfo(grip.server(FIRST)) == before);
    assert_eq!(name(&grip, FIRST).as_deref(), Some("standby1"));
    assert_eq!(conninfo(grip.server(SECOND)), "", "one that waits for what is decided keeps on");

    // What an operator took away is not ours to give back.
    grip.server(FIRST).set("primary_conninfo", "").unwrap();
    await_that("it is taken", || conninfo(grip.server(FIRST)).is_empty());
    grip.survey(FIRST);
    grip.survey(FIRST);
    assert_eq!(conninfo(grip.server(FIRST)), "");
}

#[test]
fn a_fence_changes_nothing_that_was_promised() {
    let grip = Grip::on(&named_by_links());
    grip.done(|| grip.hands.fence(PRIMARY, &[]));
    assert!(grip.survey(PRIMARY).settings.is_fenced());
    assert_eq!(grip.hands.promise("primary", &recorded()), None, "that can't be told now");
    grip.done(|| grip.hands.unfence(PRIMARY));
    grip.survey(PRIMARY);
    assert_eq!(grip.hands.promise("primary", &recorded()), Some(quorum(["standby1", "standby2"])));
}
