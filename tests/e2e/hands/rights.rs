//! What a role needs that is no superuser: exactly what `docs/privileges.md` says.

use super::*;

/// As in `docs/privileges.md`: what is granted, and an act that fails without it.
const ROLE: &str = "CREATE ROLE pgsteer LOGIN REPLICATION";
const GRANTS: &[(&str, Try)] = &[
    ("pg_monitor", Try::Freeze),
    ("pg_signal_backend", Try::Fence),
    ("pg_checkpoint", Try::Checkpoint),
    ("ALTER SYSTEM ON PARAMETER primary_conninfo", Try::Freeze),
    ("ALTER SYSTEM ON PARAMETER restore_command", Try::Freeze),
    ("ALTER SYSTEM ON PARAMETER synchronous_standby_names", Try::Fence),
    ("ALTER SYSTEM ON PARAMETER default_transaction_read_only", Try::Fence),
    ("EXECUTE ON FUNCTION pg_reload_conf()", Try::Freeze),
    ("EXECUTE ON FUNCTION pg_promote(boolean, integer)", Try::Promote),
    ("EXECUTE ON FUNCTION pg_wal_replay_resume()", Try::Promote),
];

#[derive(Debug, Clone, Copy)]
enum Try {
    Freeze,
    Fence,
    Checkpoint,
    Promote,
}

/// A cluster with a role that has all of this.
fn granted() -> Cluster {
    let plan = Plan::new()
        .setting("synchronous_standby_names", QUORUM)
        .setting("restore_command", "false");
    let cluster = cluster(&plan);
    cluster.primary().rows(ROLE).unwrap();
    cluster.primary().rows("CREATE ROLE app LOGIN").unwrap();
    for (grant, _) in GRANTS {
        cluster.primary().rows(&format!("GRANT {grant} TO pgsteer")).unwrap();
    }
    cluster.primary().rows("SELECT pg_create_physical_replication_slot('two')").unwrap();
    cluster.await_replay().unwrap();
    cluster.server("standby2").unwrap().set("primary_slot_name", "two").unwrap();
    cluster
}

#[test]
fn the_grants_are_enough_for_everything_but_a_demotion() {
    let grip = Grip::over(granted(), "pgsteer");

    grip.wait(grip.hands.prove(PRIMARY)).unwrap();
    grip.wait(grip.hands.checkpoint(PRIMARY)).unwrap();
    let frozen = grip.wait(grip.hands.freeze(FIRST)).unwrap();
    assert!(frozen.at.is_valid());
    grip.wait(grip.hands.unfreeze(FIRST)).unwrap();
    // The superuser's own sessions stay, and are told of.
    let superuser = Writer::of(grip.server(PRIMARY));
    let fenced = grip.wait(grip.hands.fence(PRIMARY, &[])).unwrap();
    assert_eq!(fenced.foreign, 1);
    drop(superuser);
    grip.wait(grip.hands.unfence(PRIMARY)).unwrap();
    let demoted = grip.wait(grip.hands.demote(PRIMARY, FIRST));
    assert!(matches!(demoted, Err(HandError::Unfit(_))), "{demoted:?}");
    assert!(!grip.server(PRIMARY).data().join("standby.signal").exists());

    for standby in [FIRST, SECOND] {
        grip.wait(grip.hands.freeze(standby)).unwrap();
    }
    grip.server(FIRST).pause_replay().unwrap();
    grip.wait(grip.hands.promote(FIRST)).unwrap();
    grip.wait(grip.hands.repoint(SECOND, FIRST)).unwrap();
    assert!(streams(grip.server(SECOND)));
}

/// None of them is there for nothing.
#[test]
fn each_grant_is_needed() {
    let grip = Grip::over(granted(), "pgsteer");
    let standby = grip.server(FIRST);
    for (grant, act) in GRANTS {
        grip.server(PRIMARY).rows(&format!("REVOKE {grant} FROM pgsteer")).unwrap();
        grip.cluster.await_replay().unwrap();
        let session = Writer::named(grip.server(PRIMARY), "app");
        let outcome = match act {
            Try::Freeze => grip.wait(grip.hands.freeze(FIRST)).map(|_| true),
            Try::Fence => grip.wait(grip.hands.fence(PRIMARY, &[])).map(|f| f.foreign == 0),
            Try::Checkpoint => grip.wait(grip.hands.checkpoint(PRIMARY)).map(|()| true),
            Try::Promote => {
                standby.pause_replay().unwrap();
                let promoted = grip.wait(grip.hands.promote(FIRST)).map(|_| true);
                standby.resume_replay().unwrap();
                promoted
            }
        };
        drop(session);
        assert!(!outcome.unwrap_or(false), "not needed: {grant}");
        grip.server(PRIMARY).set("default_transaction_read_only", "off").unwrap();
        grip.server(PRIMARY).set("synchronous_standby_names", QUORUM).unwrap();
        grip.server(PRIMARY).rows(&format!("GRANT {grant} TO pgsteer")).unwrap();
        // What was done by halves is undone, with the right that was missing.
        await_that("the standby has the grant", || grip.wait(grip.hands.unfreeze(FIRST)).is_ok());
        grip.cluster.await_replay().unwrap();
    }
    assert!(standby.is_standby().unwrap());
}
