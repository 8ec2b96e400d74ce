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

/// Makes the role on this primary, with all of this that its release knows, and one of a client's.
pub(crate) fn grant_everything(primary: &Server) {
    let all = primary.version().grants_settings();
    primary.rows(ROLE).unwrap();
    primary.rows("CREATE ROLE app LOGIN").unwrap();
    let newer = |grant: &str| grant.starts_with("ALTER SYSTEM") || grant == "pg_checkpoint";
    for (grant, _) in GRANTS.iter().filter(|(grant, _)| all || !newer(grant)) {
        primary.rows(&format!("GRANT {grant} TO pgsteer")).unwrap();
    }
}

/// A cluster with a role that has all of this which its release knows.
fn granted() -> Cluster {
    let plan = Plan::new().setting("synchronous_standby_names", QUORUM);
    let cluster = cluster(&plan);
    let version = cluster.primary().version();
    grant_everything(cluster.primary());
    if version.grants_settings() {
        for server in cluster.servers() {
            server.set("restore_command", "false").unwrap();
            server.await_value("SHOW restore_command", "false", "restoring").unwrap();
        }
    }
    cluster.primary().rows("SELECT pg_create_physical_replication_slot('two')").unwrap();
    cluster.await_replay().unwrap();
    cluster.server("standby2").unwrap().set("primary_slot_name", "two").unwrap();
    cluster
}

#[test]
fn the_grants_are_enough_for_everything_but_a_demotion() {
    let grip = Grip::over(granted(), "pgsteer");
    let granted = grip.server(PRIMARY).version().grants_settings();
    if !granted {
        // Before PostgreSQL 15 no grants are enough (`each_grant_is_needed`); this is.
        grip.server(PRIMARY).rows("ALTER ROLE pgsteer SUPERUSER").unwrap();
        grip.cluster.await_replay().unwrap();
    }

    grip.prove(PRIMARY);
    grip.done(|| grip.hands.checkpoint(PRIMARY));
    let frozen = grip.done(|| grip.hands.freeze(FIRST));
    assert!(frozen.at.is_valid());
    grip.done(|| grip.hands.unfreeze(FIRST));
    // A superuser's sessions stay unless we are one, and are told of.
    let superuser = Writer::of(grip.server(PRIMARY));
    let fenced = grip.done(|| grip.hands.fence(PRIMARY, &[]));
    assert_eq!(fenced.foreign, usize::from(granted));
    drop(superuser);
    grip.done(|| grip.hands.unfence(PRIMARY));
    if granted {
        let demoted = grip.wait(grip.hands.demote(PRIMARY, FIRST));
        assert!(matches!(demoted, Err(HandError::Unfit(_))), "{demoted:?}");
        assert!(!grip.server(PRIMARY).data().join("standby.signal").exists());
    }

    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    grip.server(FIRST).pause_replay().unwrap();
    grip.done(|| grip.hands.promote(FIRST));
    grip.lead(SECOND, FIRST);
    assert!(streams(grip.server(SECOND)));
}

/// None of them is there for nothing.
#[test]
fn each_grant_is_needed() {
    let grip = Grip::over(granted(), "pgsteer");
    let standby = grip.server(FIRST);
    if !standby.version().grants_settings() {
        return no_grants_are_enough(&grip);
    }
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

/// What holds instead before PostgreSQL 15: it is said beforehand, and nothing is done by halves.
fn no_grants_are_enough(grip: &Grip) {
    let (primary, standby) = (grip.server(PRIMARY), grip.server(FIRST));
    let before = conninfo(standby);
    let lacking = grip.hands.lacking(&Policy::default());
    assert!(lacking.iter().any(|gap| gap.contains("is no superuser, on this release")));

    let refused = [
        grip.wait(grip.hands.freeze(FIRST)).map(drop),
        grip.wait(grip.hands.fence(PRIMARY, &[])).map(drop),
        grip.wait(grip.hands.checkpoint(PRIMARY)),
    ];

    for outcome in refused {
        let Err(HandError::Refused(error)) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(error.code.to_string(), "42501", "{error}");
    }
    assert_eq!((streams(standby), conninfo(standby)), (true, before));
    assert_eq!(primary.value("SHOW synchronous_standby_names").unwrap(), QUORUM);
    assert_eq!(primary.value("SHOW default_transaction_read_only").unwrap(), "off");
}
