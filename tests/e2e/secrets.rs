//! Secrets are shown nowhere: not in the log at its most talkative, not to clients, not to those
//! who ask how pgsteer is, and not where a value is printed for a programmer.

use crate::auth::postgres::certificates;
use crate::raw::{Raw, cancel};
use crate::support::{Blueprint, House, Wire, command};
use pgsteer::auth::{Secret, Stored, Userlist};
use pgsteer::config::Request;
use pgsteer::sandbox::{Auth, SUPERUSER_PASSWORD, Scratch};
use std::process::Command;

/// Occur nowhere else.
const STORED: &str = "carols-word-in-the-file-4711";
const TYPED: &str = "daves-word-that-he-typed-4712";
const WRONG: &str = "a-wrong-word-that-was-typed-4713";

struct Site {
    house: House,
    files: Scratch,
    /// Everything that must not be seen.
    secrets: Vec<String>,
}

fn site() -> Site {
    let files = Scratch::new().unwrap();
    certificates(files.path());
    let at = |name: &str| files.path().join(name).display().to_string();
    let mut verifier = String::new();
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).auth(Auth::Password))
        .toml(&format!(
            "[tls]\ncert = {:?}\nkey = {:?}\n[auth]\nmethod = \"scram-sha-256\"\nfile = {:?}",
            at("server.crt"),
            at("server.key"),
            at("users"),
        ))
        .set("observability.log_level", "trace")
        .set("limits.login_failure_delay", "0s")
        .build_after(|cluster| {
            let server = cluster.primary();
            for (user, password) in [("carol", STORED), ("dave", TYPED)] {
                server.rows(&format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'")).unwrap();
            }
            let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'dave'";
            verifier = server.value(sql).unwrap();
            let users = format!("\"carol\" \"{STORED}\"\n\"dave\" \"{verifier}\"\n");
            std::fs::write(at("users"), users).unwrap();
        });
    let key = std::fs::read_to_string(at("server.key")).unwrap();
    let key = key.lines().find(|line| !line.starts_with('-')).unwrap();
    let of_verifier = verifier.split(['$', ':']).filter(|part| part.len() > 20);
    let mut secrets: Vec<String> = of_verifier.map(str::to_owned).collect();
    assert_eq!(secrets.len(), 3, "salt and two keys: {verifier}");
    secrets.extend([STORED, TYPED, WRONG, SUPERUSER_PASSWORD, key].map(str::to_owned));
    Site { house, files, secrets }
}

impl Site {
    /// What psql says, all of it.
    fn psql(&self, user: &str, password: &str, options: &str) -> String {
        let port = self.house.proxy.address().port();
        let root = self.files.path().join("ca.crt");
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user={user} dbname=postgres \
             sslmode=verify-full sslrootcert={} {options}",
            root.display()
        );
        let output = Command::new("psql")
            .args(["-X", "-At", "-v", "VERBOSITY=verbose", "-d", &target])
            .args(["-c", "CREATE TEMP TABLE kept ()", "-c", "SHOW ALL", "-c", "SELECT 1/0"])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        [output.stdout, output.stderr]
            .map(|said| String::from_utf8_lossy(&said).into_owned())
            .concat()
    }

    /// What those are told who ask how it is.
    fn told(&self) -> Vec<(String, String)> {
        let pages = ["/", "/metrics", "/livez", "/readyz", "/status", "/route?sql=SELECT%201"];
        let pages = pages.map(|page| (page.to_owned(), self.house.http(page).body));
        let http = self.house.proxy.http_address().to_string();
        let file = self.house.proxy.file().display().to_string();
        let said = |args: &[&str]| {
            let output = command().args(args).env("PGPASSWORD", SUPERUSER_PASSWORD).output();
            let output = output.unwrap();
            let said = [output.stdout, output.stderr];
            (args.join(" "), said.map(|said| String::from_utf8_lossy(&said).into_owned()).concat())
        };
        let commands = [
            said(&["--http", &http, "status"]),
            said(&["--http", &http, "-o", "json", "status"]),
            said(&["-c", &file, "check-config"]),
            said(&["-c", &file, "-o", "json", "check-config"]),
        ];
        pages.into_iter().chain(commands).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shown_a_secret() {
    let site = site();
    let address = site.house.proxy.address();
    let mut seen = Vec::new();
    for (user, password, options) in [
        ("carol", STORED, "application_name=seen-4714"),
        ("dave", TYPED, ""),
        ("carol", WRONG, ""),
        ("dave", WRONG, ""),
        ("nobody", WRONG, ""),
        ("carol", STORED, "options='-c nothing.such=1 -c work_mem=no'"),
    ] {
        seen.push((format!("psql of {user}, {options}"), site.psql(user, password, options)));
    }
    assert!(seen[0].1.contains("division by zero"), "it was let in: {}", seen[0].1);
    assert!(seen[1].1.contains("division by zero"), "it was let in: {}", seen[1].1);
    assert!(seen[2].1.contains("authentication failed"), "{}", seen[2].1);
    // Somebody who says what he should not where he should not, and a stranger's key.
    let login = [("user", "carol"), ("database", STORED), ("password", WRONG)];
    let refused = Raw::connect(address, &login).await;
    seen.push(("startup".to_owned(), format!("{:?}", refused.err())));
    cancel(address, 4711, WRONG.as_bytes()).await;
    drop(Wire::connect(address));
    seen.extend(site.told());
    seen.push(("log".to_owned(), site.house.proxy.log()));
    for (what, said) in &seen {
        for secret in &site.secrets {
            let own = what == "startup" && secret == STORED;
            assert!(own || !said.contains(secret.as_str()), "{what} shows {secret}:\n{said}");
        }
    }
    // The opposite: what is no secret is found where it is shown.
    let shows = |what: &str, text: &str| {
        let said = &seen.iter().find(|(name, _)| name == what).unwrap().1;
        assert!(said.contains(text), "{what} does not show {text}:\n{said}");
    };
    shows("log", "carol");
    shows("/status", "primary");
    shows("/metrics", "pgsteer_");
    shows("psql of carol, application_name=seen-4714", "seen-4714");
}

/// A value that is printed by `{:?}`, by whoever is looking for something else.
#[test]
fn no_secret_is_printed_for_a_programmer() {
    let verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2E=$3ZdEmyyqIpZHJUCFMtn5gvYFqMw4PVPY1W\
                    LfOlTYbDc=:7Aew6AsZdbuKtJ9yYOJQBmf1ZrYDxNx5kOMOtUvMHZg=";
    let md5 = "md55f4dcc3b5aa765d61d8327deb882cf99";
    let text = format!("\"carol\" \"{STORED}\"\n\"dave\" \"{verifier}\"\n\"eve\" \"{md5}\"\n");
    let users = Userlist::parse(&text).unwrap();
    let stored: Vec<&Stored> =
        ["carol", "dave", "eve"].into_iter().filter_map(|user| users.get(user)).collect();
    let files = Scratch::new().unwrap();
    let file = files.path().join("pgsteer.toml");
    let toml = format!("[servers]\nhosts = [\"postgresql://u:{TYPED}@db1\"]\n");
    std::fs::write(&file, toml).unwrap();
    let config = Request { file: Some(file), ..Request::default() }.load().unwrap();
    let printed =
        format!("{users:?} {stored:?} {:?} {:?}", Secret::new(WRONG.to_owned()), config.config);
    let digests = ["3ZdEmyyq", "7Aew6AsZ", "5f4dcc3b"];
    for secret in [STORED, TYPED, WRONG].into_iter().chain(digests) {
        assert!(!printed.contains(secret), "{secret} is in {printed}");
    }
    assert!(printed.contains("carol") && printed.contains("***"), "{printed}");
}
