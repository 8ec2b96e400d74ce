//! Settings that a probe can't find: they stay with their session, and end with it.

use crate::raw::{Raw, bind, execute, message_of, parse};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::SUPERUSER;

/// A primary alone with so many backends for everybody.
fn house(size: &str) -> House {
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0));
    blueprint.set("pool.size", size).set("limits.shards", "1").build()
}

/// The messages of a group.
type Group = Vec<Vec<u8>>;

/// How many sessions keep a backend.
fn pinned(house: &House) -> usize {
    house.status()["pinned"]["oldest"].as_array().unwrap().len()
}

/// Sets something under a name that only the server sees.
const SET: &str =
    "SELECT set_config('app.' || word, 'mine', false) FROM (VALUES ('hidden')) v (word)";
/// Shows it.
const SHOWN: &str = "SELECT current_setting('app.' || 'hid' || 'den', true)";

/// `RESET ALL` takes away what was set before it, where it is run, succeeds and is not rolled back;
/// and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_computed_setting_is_gone_when_it_was_reset_and_not_before() {
    let house = house("2");
    let prepared = "SELECT set_config($1, $2, false)";
    let computed = [parse("", prepared), bind("", &[b"app.hidden", b"mine"]), execute()];
    let reset = [parse("", "RESET ALL"), bind("", &[]), execute()];
    let fails = [parse("", "SELECT 1/0"), bind("", &[]), execute()];
    let queries = |texts: &[&str]| texts.iter().map(|sql| vec![crate::raw::query(sql)]).collect();
    let ways: [(&str, Vec<Group>, &str); 13] = [
        ("ahead of it, in one text", queries(&[&format!("RESET ALL; {SET}")]), "mine"),
        ("ahead of it, in one batch", vec![[&reset[..], &computed].concat()], "mine"),
        ("ahead of it, in one transaction", queries(&["BEGIN; RESET ALL", SET, "COMMIT"]), "mine"),
        ("ahead of it, one by one", queries(&["RESET ALL", SET]), "mine"),
        ("rolled back", queries(&[SET, "BEGIN", "RESET ALL", "ROLLBACK"]), "mine"),
        ("rolled back in one text", queries(&[SET, "BEGIN; RESET ALL; ROLLBACK"]), "mine"),
        (
            "rolled back in part",
            queries(&[SET, "BEGIN", "SAVEPOINT a", "RESET ALL", "ROLLBACK TO a", "COMMIT"]),
            "mine",
        ),
        ("failed", queries(&[SET, "RESET ALL; SELECT 1/0"]), "mine"),
        ("failed in a batch", vec![computed.to_vec(), [&reset[..], &fails].concat()], "mine"),
        ("only prepared", vec![computed.to_vec(), vec![parse("", "RESET ALL")]], "mine"),
        ("RESET ALL", queries(&[SET, "RESET ALL"]), ""),
        ("RESET ALL, prepared", vec![computed.to_vec(), reset.to_vec()], ""),
        ("DISCARD ALL", queries(&[SET, "DISCARD ALL"]), ""),
    ];
    for (what, groups, expected) in ways {
        let (mut one, mut two) = (Raw::enter(&house).await, Raw::enter(&house).await);
        for group in groups {
            if group[0][0] == b'Q' {
                one.send(&group[0]).await;
                one.ready().await;
            } else {
                one.batch(&group).await;
            }
        }
        assert_eq!(pinned(&house), usize::from(!expected.is_empty()), "{what}");
        for _ in 0..3 {
            assert_eq!(two.value(SHOWN).await, "", "{what}");
            assert_eq!(one.value(SHOWN).await, expected, "{what}");
        }
        one.leave().await;
        two.leave().await;
    }
}

/// A text in letters other than UTF-8 is read without them, so a name that has some is not known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_whose_name_is_in_other_letters_stays_with_its_session() {
    let house = house("2");
    let ask = |sql: &[u8]| {
        message_of(b'Q', |out| {
            out.extend_from_slice(sql);
            out.push(0);
        })
    };
    for set in [
        &b"SET app.gr\xf6\xdfe = 'mine'"[..],
        b"SET SESSION \"app\".\"gr\xf6\xdfe\" TO mine",
        b"SELECT set_config('app.gr\xf6\xdfe', 'mine', false)",
    ] {
        let login = [("user", SUPERUSER), ("database", "postgres"), ("client_encoding", "LATIN1")];
        let address = house.proxy.address();
        let mut one = Raw::connect(address, &login).await.unwrap();
        let mut two = Raw::connect(address, &login).await.unwrap();
        one.send(&ask(set)).await;
        let answer = one.ready().await;
        assert_eq!(answer.code(), None, "{answer:?}");
        let shown = ask(b"SELECT current_setting('app.gr\xf6\xdfe', true)");
        for _ in 0..3 {
            two.send(&shown).await;
            assert_eq!(two.ready().await.value(), "", "{set:?}");
            one.send(&shown).await;
            assert_eq!(one.ready().await.value(), "mine", "{set:?}");
        }
        one.leave().await;
        for _ in 0..3 {
            two.send(&shown).await;
            assert_eq!(two.ready().await.value(), "", "{set:?}");
        }
        two.leave().await;
    }
}

/// Who is not a superuser is not shown all settings, so neither is a session that has taken such a
/// one's role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_the_role_taken_is_not_shown_stays_with_its_session() {
    let house = house("2");
    house.server("primary").rows("CREATE ROLE plain").unwrap();
    let shown = "RESET ROLE; SHOW dynamic_library_path";
    for set in [
        "SET dynamic_library_path = '/x'; SET ROLE plain",
        "SET Dynamic_Library_Path TO '/x'; SET LOCAL work_mem = '5MB'; SET ROLE plain",
        "SELECT set_config('dynamic_library_path', '/x', false); SET ROLE plain",
        "BEGIN; SET dynamic_library_path = '/x'; SET ROLE plain; COMMIT",
    ] {
        let (mut one, mut two) = (Raw::enter(&house).await, Raw::enter(&house).await);
        let answer = one.query(set).await;
        assert_eq!(answer.code(), None, "{set}: {answer:?}");
        for _ in 0..3 {
            assert_eq!(two.value(shown).await, "$libdir", "{set}");
            assert_eq!(one.value("SELECT current_user").await, "plain", "{set}");
        }
        assert_eq!(one.value(shown).await, "/x", "{set}");
        one.leave().await;
        for _ in 0..3 {
            assert_eq!(two.value(shown).await, "$libdir", "{set}");
        }
        two.leave().await;
    }
}

/// The same, given at login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_of_a_login_that_the_role_taken_is_not_shown_is_nobody_elses() {
    let house = house("1");
    house.server("primary").rows("CREATE ROLE plain").unwrap();
    let login =
        [("user", SUPERUSER), ("database", "postgres"), ("options", "-c dynamic_library_path=/x")];
    let mut one = Raw::connect(house.proxy.address(), &login).await.unwrap();
    let mut two = Raw::enter(&house).await;
    for _ in 0..3 {
        assert_eq!(one.value("SHOW dynamic_library_path").await, "/x");
        assert_eq!(one.query("SET ROLE plain").await.code(), None);
        assert_eq!(two.value("SHOW dynamic_library_path").await, "$libdir");
        assert_eq!(one.value("SELECT current_user").await, "plain");
        assert_eq!(one.query("RESET ROLE").await.code(), None);
    }
}
