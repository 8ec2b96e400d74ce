//! What a server tells of its sessions is of use at that server alone: a process that is found in
//! `pg_stat_activity` is ended by `pg_terminate_backend`, which is the primary's.

use crate::support::Blueprint;
use crate::support::await_that;

const WHERE: &str = "SELECT pg_is_in_recovery() FROM pg_class LIMIT 1";
const FIND: &str = "SELECT pid FROM pg_stat_activity WHERE application_name = 'stuck'";

#[test]
fn a_session_that_is_found_is_the_one_that_is_ended() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    house.server("primary").rows("CREATE TABLE held (i int)").unwrap();
    house.await_catalog();
    let mut stuck = house.wire();
    stuck.run("SET application_name = 'stuck'");
    stuck.run("BEGIN");
    stuck.run("LOCK TABLE held");

    let mut operator = house.wire();
    assert_eq!(operator.value(WHERE), "t", "its reads go to a standby");
    let pid = operator.value(FIND);
    let locks = "SELECT pid FROM pg_locks WHERE relation = 'held'::regclass";
    assert_eq!(operator.value(locks), pid);
    assert_eq!(operator.value(&format!("SELECT pg_terminate_backend({pid})")), "t");

    let left = "SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass";
    await_that("the lock is gone", || house.server("primary").value(left).unwrap() == "0");
    assert!(!stuck.query("SELECT 1").is_good());
}

/// Who asks for a standby hears of its sessions.
#[test]
fn a_standby_tells_of_its_own_sessions_if_it_is_asked() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    house.await_catalog();
    // On a standby there is a startup process, on a primary a checkpointer alone.
    let startup = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup'";
    let mut wire = house.wire();
    assert_eq!(wire.value(startup), "0");
    assert_eq!(wire.value(&format!("/* pgsteer: role=standby */ {startup}")), "1");
    // A transaction that has begun to read on a standby goes on there.
    let mut reader = house.wire();
    reader.run("BEGIN READ ONLY");
    assert_eq!(reader.value(WHERE), "t");
    assert_eq!(reader.value(startup), "1");
    reader.run("COMMIT");
}
