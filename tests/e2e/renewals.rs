//! A change of the settings that sessions begin with has idle backends renewed: of those whom it
//! concerns, and only where somebody has really made it.

use crate::raw::{Raw, bind, bind_portal, execute, execute_portal, parse};
use crate::support::{Blueprint, House};

/// Where a session is served, by the primary.
const WHERE: &str = "SELECT pg_backend_pid() FROM pg_notify('x', '')";
/// What a superuser may do only.
const OF_ALL: &str = "ALTER ROLE ALL SET work_mem = '5MB'";

/// A primary alone with one backend for each user.
fn house() -> House {
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0));
    let house = blueprint.set("pool.size", "1").set("limits.shards", "1").build();
    let roles = "CREATE ROLE low LOGIN; CREATE ROLE tenant LOGIN";
    house.server("primary").rows(roles).unwrap();
    house
}

/// A server asks for the right to it when it is run, so whoever only prepares it, or binds it,
/// could have everybody's backends closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_run_renews_no_backend() {
    let house = house();
    let mut owner = Raw::enter(&house).await;
    let before = owner.value(WHERE).await;
    let own = "ALTER ROLE low SET work_mem = '6MB'";
    for (what, batch) in [
        ("prepared", vec![parse("s", OF_ALL)]),
        ("without a name", vec![parse("", OF_ALL)]),
        (
            "beside what is run",
            vec![parse("s", OF_ALL), parse("t", "SELECT 1"), bind("t", &[]), execute()],
        ),
        (
            "beside a change of its own",
            vec![parse("s", OF_ALL), parse("t", own), bind("t", &[]), execute()],
        ),
        (
            "bound",
            vec![
                parse("s", OF_ALL),
                bind_portal("p", "s", &[]),
                parse("t", own),
                bind_portal("q", "t", &[]),
                execute_portal("q", 0),
            ],
        ),
        (
            "bound, and the portal another's",
            vec![parse("s", OF_ALL), bind("s", &[]), parse("t", own), bind("t", &[]), execute()],
        ),
    ] {
        let mut low = Raw::enter_as(&house, "low").await;
        let answer = low.batch(&batch).await;
        assert_eq!(answer.code(), None, "{what}: {answer:?}");
        low.value("SELECT 1").await;
        assert_eq!(owner.value(WHERE).await, before, "{what}");
        low.leave().await;
    }
    for batch in [
        vec![parse("", OF_ALL), bind("", &[]), execute()],
        vec![parse("s", OF_ALL), bind_portal("p", "s", &[]), execute_portal("p", 0)],
        vec![bind("s", &[]), execute()],
    ] {
        let before = owner.value(WHERE).await;
        assert_eq!(owner.batch(&batch).await.code(), None);
        assert_ne!(owner.value(WHERE).await, before, "the opposite: it was run");
    }
}

/// Everybody may change his own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_ones_own_defaults_renews_ones_own_backends_only() {
    let house = house();
    let mut owner = Raw::enter(&house).await;
    let mut low = Raw::enter_as(&house, "low").await;
    let before = owner.value(WHERE).await;
    for who in ["CURRENT_USER", "SESSION_USER", "low"] {
        let own = low.value(WHERE).await;
        let change = format!("ALTER ROLE {who} SET application_name = 'of {who}'");
        assert_eq!(low.query(&change).await.code(), None, "{change}");
        assert_ne!(low.value(WHERE).await, own, "{change}");
        let shown = low.value("SHOW application_name").await;
        assert_eq!(shown, format!("of {who}"), "{change}");
        assert_eq!(owner.value(WHERE).await, before, "{change}");
    }
}

/// Who has taken another role changes that one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_current_user_is_the_role_that_was_taken() {
    let house = house();
    let mut tenant = Raw::enter_as(&house, "tenant").await;
    let mut low = Raw::enter_as(&house, "low").await;
    let mut owner = Raw::enter(&house).await;
    for (number, take) in ["SET ROLE tenant", "SET SESSION AUTHORIZATION tenant"].iter().enumerate()
    {
        let (before, others) = (tenant.value(WHERE).await, low.value(WHERE).await);
        assert_eq!(owner.query(take).await.code(), None, "{take}");
        let change = format!("ALTER ROLE CURRENT_USER SET work_mem = '{}MB'", 5 + number);
        assert_eq!(owner.query(&change).await.code(), None, "{take}");
        assert_ne!(tenant.value(WHERE).await, before, "{take}");
        assert_eq!(tenant.value("SHOW work_mem").await, format!("{}MB", 5 + number), "{take}");
        if *take == "SET ROLE tenant" {
            assert_eq!(low.value(WHERE).await, others, "{take}");
        }
        owner.query("RESET ROLE; RESET SESSION AUTHORIZATION").await;
    }
}
