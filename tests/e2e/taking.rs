//! What one user takes of the servers and of pgsteer by logging in as ever somebody else, or to
//! ever another place: no more than by logging in as himself.

use crate::raw::Raw;
use crate::support::{Blueprint, House, await_that};
use pgsteer::sandbox::StatementLog;
use pgsteer::tasks;
use std::collections::BTreeSet;

/// A primary alone, whose role `app` is nobody but the pool's, and may be any of `r0` to `r29`.
fn house(settings: &[(&str, &str)]) -> House {
    let mut blueprint = Blueprint::new().servers(|plan| plan.standbys(0).log(StatementLog::Off));
    for (key, value) in settings {
        blueprint = blueprint.set(key, value);
    }
    let house = blueprint.build();
    let roles = "CREATE ROLE app LOGIN; \
                 DO $$ BEGIN FOR i IN 0..29 LOOP \
                     EXECUTE format('CREATE ROLE r%s; GRANT r%s TO app', i, i); \
                 END LOOP; END $$";
    house.server("primary").rows(roles).unwrap();
    house
}

/// How many backends there are, in the server's own words.
const COUNT: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";

async fn enter(house: &House, options: &str) -> Raw {
    let login = [("user", "app"), ("database", "postgres"), ("options", options)];
    Raw::connect(house.proxy.address(), &login).await.unwrap_or_else(|no| panic!("{no:?}"))
}

/// A server is sent one value of each name, so what was given before it makes nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_the_same_in_other_words_has_the_same_backends() {
    let house = house(&[]);
    for number in 0..30 {
        let client = enter(&house, &format!("-c role=x{number} -c role=none")).await;
        client.leave().await;
    }
    let left: usize = house.server("primary").value(COUNT).unwrap().parse().unwrap();
    assert!(left <= 3, "{left} backends of 30 logins, one behind the other");
}

/// What rests gives way, here or on another shard. One that was closed may take a moment to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_in_many_roles_has_no_more_backends_than_may_be() {
    for shards in ["1", "3"] {
        let house = house(&[("pool.size", "3"), ("limits.shards", shards)]);
        let few = || {
            let sql = format!("SELECT ({COUNT}) <= 3");
            house.server("primary").await_value(&sql, "t", "left with three backends").unwrap();
        };
        let mut clients = Vec::new();
        for number in 0..30 {
            let mut client = enter(&house, &format!("-c role=r{number}")).await;
            assert_eq!(client.value("SELECT current_user").await, format!("r{number}"));
            clients.push(client);
            few();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.value("SELECT current_user").await, format!("r{number}"));
        }
        few();
        assert_eq!(house.server("primary").value(COUNT).unwrap(), "3", "they may be used");
        let address = house.server("primary").address();
        let closed = "pgsteer_server_disconnects_total";
        let series = format!("{closed}{{reason=\"room\",server=\"{address}\"}}");
        assert!(house.metric(&series).unwrap() >= 27.0, "on {shards} shards");
    }
}

/// Where all are in use, who waits is served by the next that comes free, whoever had it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_are_served_whichever_role_comes_free() {
    let settings = [("pool.size", "1"), ("limits.shards", "3"), ("pool.wait_timeout", "1m")];
    let house = house(&settings);
    let mut clients = Vec::new();
    for number in [0, 1, 2, 1, 0] {
        let mut client = enter(&house, &format!("-c role=r{number}")).await;
        client.value("SELECT 1").await;
        clients.push((number, client));
    }
    let mut asking = Vec::new();
    for (number, mut client) in clients {
        asking.push(tasks::spawn("client", async move {
            for _ in 0..20 {
                assert_eq!(client.query("BEGIN").await.status(), 'T');
                let who = client.value("SELECT current_user || ' ' || current_setting('role')");
                assert_eq!(who.await, format!("r{number} r{number}"));
                assert_eq!(client.query("COMMIT").await.status(), 'I');
            }
        }));
    }
    for client in asking {
        client.await.unwrap();
    }
    house.server("primary").await_value(COUNT, "1", "left with one backend").unwrap();
}

/// A backend is everybody's who logs in alike, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_share_a_limit_share_no_backend() {
    let settings = [("pool.size", "6"), ("limits.shards", "2"), ("pool.max_lifetime", "1h")];
    let house = house(&settings);
    let mut by_role = Vec::new();
    for options in ["", "-c role=r0", "-c role=r1", "-c role=r0 -c work_mem=5MB"] {
        let (mut one, mut other) = (enter(&house, options).await, enter(&house, options).await);
        let mut pids = BTreeSet::new();
        for _ in 0..5 {
            pids.insert(one.value("SELECT pg_backend_pid()").await);
            pids.insert(other.value("SELECT pg_backend_pid()").await);
        }
        by_role.push(pids);
    }
    let [itself, r0, r1, again] = &by_role[..] else { panic!("{by_role:?}") };
    assert!(itself.is_disjoint(r0) && itself.is_disjoint(r1) && r0.is_disjoint(r1), "{by_role:?}");
    assert!(!again.is_disjoint(r0), "settings make nobody else: {by_role:?}");
}

/// A pool is there before a server says that there is no such database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_that_are_not_there_are_forgotten() {
    let house = house(&[("pool.size", "20")]);
    let address = house.server("primary").address();
    let series = format!("pgsteer_pool_limit_connections{{server=\"{address}\"}}");
    let may_be = || house.metric(&series).unwrap();
    let mut client = enter(&house, "").await;
    client.value("SELECT 1").await;
    assert!(may_be() >= 20.0, "the figure shows each pool");
    for number in 0..100 {
        let database = format!("x{number}");
        let login = [("user", "app"), ("database", &*database)];
        let refused = Raw::connect(house.proxy.address(), &login).await.unwrap_err();
        assert_eq!(refused.code().as_deref(), Some("3D000"));
    }
    await_that("only the pool of the one that is there is left", || may_be() <= 20.0);
    assert_eq!(client.value("SELECT 1").await, "1");
    assert!((may_be() - 20.0).abs() < 1.0, "{} may be", may_be());
}
