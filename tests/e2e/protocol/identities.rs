//! Who a session is, if its login gives a role: to a server that is what `RESET ROLE` goes back to,
//! and what another session user takes away and gives back. Another user that a login gives is
//! checked, and is nobody. Every order of what changes it is played to a server and to pgsteer.

use super::alike::{Script, Step};
use super::states::{differences, house, looked_at};
use crate::raw::Raw;
use std::net::SocketAddr;

/// Everything that changes who a session is.
const CHANGES: [&str; 8] = [
    "SET ROLE r2",
    "SET LOCAL ROLE r2",
    "SET ROLE NONE",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION r1",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ALL",
    "DISCARD ALL",
];

/// How two of them are told, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Outside,
    InOneText,
    Committed,
    RolledBack,
    ToASavepoint,
}

fn steps(told: Told, first: &str, second: &str) -> Vec<Step> {
    let both = format!("{first}; {second}");
    match told {
        Told::Outside => looked_at(&[first, second]),
        Told::InOneText => looked_at(&[&both]),
        Told::Committed => looked_at(&["BEGIN", first, second, "COMMIT"]),
        Told::RolledBack => looked_at(&["BEGIN", first, second, "ROLLBACK"]),
        Told::ToASavepoint => {
            looked_at(&["BEGIN", first, "SAVEPOINT a", second, "ROLLBACK TO a", "COMMIT"])
        }
    }
}

/// One conversation for each way, in which each pair begins where the one before has led.
fn scripts() -> Vec<Script> {
    let ways = [
        ("outside of a transaction", Told::Outside),
        ("in one text", Told::InOneText),
        ("in a transaction", Told::Committed),
        ("in a transaction that is rolled back", Told::RolledBack),
        ("in one that is rolled back to a savepoint", Told::ToASavepoint),
    ];
    let pairs = || CHANGES.iter().flat_map(|a| CHANGES.iter().map(move |b| (a, b)));
    let of = |told| pairs().flat_map(|(a, b)| steps(told, a, b)).collect();
    ways.map(|(what, told)| (what, of(told))).to_vec()
}

fn play(mode: &str) {
    let (user, database) = (("user", "postgres"), ("database", "postgres"));
    let house = house(mode);
    let role_of_user = ("user", "with_a_role");
    let sql = "CREATE ROLE with_a_role SUPERUSER LOGIN; ALTER ROLE with_a_role SET role = r1";
    house.server("primary").rows(sql).unwrap();
    let logins = [
        vec![user, database],
        vec![user, database, ("options", "-c role=r1")],
        vec![user, database, ("ROLE", "r2"), ("options", "-c log_statement=none")],
        vec![role_of_user, database],
        vec![role_of_user, database, ("role", "none")],
        vec![user, database, ("options", "-c session_authorization=r1")],
        vec![user, database, ("Session_Authorization", "r1"), ("role", "r2")],
    ];
    let found: Vec<_> =
        logins.iter().flat_map(|login| differences(&house, login, &scripts())).collect();
    let some: Vec<_> = found.iter().take(20).map(String::as_str).collect();
    assert!(found.is_empty(), "{mode}: {} differences:\n{}", found.len(), some.join("\n"));
}

#[test]
fn a_role_given_at_login_is_what_a_server_makes_of_it() {
    play("transaction");
}

#[test]
fn a_role_given_at_login_is_what_a_server_makes_of_it_in_session_mode() {
    play("session");
}

/// What a login is told of who it is, or why it is refused.
async fn greeted(address: SocketAddr, login: &[(&str, &str)]) -> String {
    match Raw::connect(address, login).await {
        Ok(raw) => {
            let names = ["is_superuser", "session_authorization"];
            let told = names.map(|name| raw.params[name].clone());
            raw.leave().await;
            format!("{told:?}")
        }
        Err(no) => [b'S', b'C', b'M'].map(|field| no.field(field).unwrap()).join(" "),
    }
}

#[test]
fn a_login_with_a_role_is_told_whether_it_is_a_superuser() {
    for mode in ["transaction", "session"] {
        let house = house(mode);
        let sql = "CREATE ROLE plain LOGIN; CREATE ROLE boss SUPERUSER; GRANT boss, r1 TO plain; \
                   CREATE ROLE lowered SUPERUSER LOGIN; ALTER ROLE lowered SET role = r1";
        house.server("primary").rows(sql).unwrap();
        let direct: SocketAddr = house.server("primary").address().parse().unwrap();
        let of = |user, role| [("user", user), ("database", "postgres"), ("options", role)];
        let logins = [
            (of("postgres", ""), r#"["on", "postgres"]"#),
            (of("postgres", "-c role=r1"), r#"["off", "postgres"]"#),
            (of("postgres", "-c role=boss"), r#"["on", "postgres"]"#),
            (of("postgres", "-c role=none"), r#"["on", "postgres"]"#),
            (of("plain", "--role=r1"), r#"["off", "plain"]"#),
            (of("plain", "-c role=boss"), r#"["on", "plain"]"#),
            (of("lowered", ""), r#"["off", "lowered"]"#),
            (of("lowered", "-c role=none"), r#"["on", "lowered"]"#),
            (of("plain", "-c role=r2"), "FATAL 42501 permission denied to set role \"r2\""),
            (of("plain", "-c role=nobody"), "FATAL 22023 role \"nobody\" does not exist"),
            (of("postgres", "-c session_authorization=plain"), r#"["on", "postgres"]"#),
            (of("plain", "-c session_authorization=plain"), r#"["off", "plain"]"#),
            (
                of("plain", "-c session_authorization=boss"),
                "FATAL 42501 permission denied to set session authorization \"boss\"",
            ),
            (
                of("postgres", "-c session_authorization=nobody"),
                "FATAL 22023 role \"nobody\" does not exist",
            ),
        ];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            for (login, expected) in logins {
                let alone = greeted(direct, &login).await;
                assert_eq!(alone, expected, "{login:?}");
                // The second one is told what the first one was.
                for _ in 0..2 {
                    assert_eq!(greeted(house.proxy.address(), &login).await, alone, "{login:?}");
                }
            }
        });
    }
}
