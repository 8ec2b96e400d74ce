//! What one user takes of the servers and of pgsteer by logging in as ever somebody else, or to
//! ever another place: no more than by logging in as himself.

use crate::raw::Raw;
use crate::support::{Blueprint, House};
use pgsteer::sandbox::StatementLog;

/// A primary alone, whose role `app` is nobody but the pool's.
fn house() -> House {
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0).log(StatementLog::Off));
    let house = blueprint.build();
    house.server("primary").rows("CREATE ROLE app LOGIN").unwrap();
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
    let house = house();
    for number in 0..30 {
        let client = enter(&house, &format!("-c role=x{number} -c role=none")).await;
        client.leave().await;
    }
    let left: usize = house.server("primary").value(COUNT).unwrap().parse().unwrap();
    assert!(left <= 3, "{left} backends of 30 logins, one behind the other");
}
