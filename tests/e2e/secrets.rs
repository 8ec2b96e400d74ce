//! Secrets are shown nowhere: not in the log at its most talkative, not to clients, not to those
//! who ask how pgsteer is, not where a value is printed for a programmer; and a crash leaves no
//! core in which they could be found.

use crate::auth::postgres::certificates;
use crate::raw::{Raw, cancel};
use crate::support::{Blueprint, House, Wire, await_that, command, copy_program, remembers};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgsteer::auth::{Secret, Stored, Userlist};
use pgsteer::config::Request;
use pgsteer::sandbox::{Account, Auth, SUPERUSER_PASSWORD, Scratch};
use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command};

/// Occur nowhere else.
const STORED: &str = "carols-word-in-the-file-4711";
const TYPED: &str = "daves-word-that-he-typed-4712";
const WRONG: &str = "a-wrong-word-that-was-typed-4713";
const SPOKEN: &str = "a-word-within-a-statement-4716";
/// No secret: it is put where it is shown, to see that the search finds it.
const PLANTED: &str = "planted4715";

struct Site {
    house: House,
    files: Scratch,
    /// Everything that must not be seen.
    secrets: Vec<Vec<u8>>,
}

/// The forms in which a program may print some bytes.
fn forms(bytes: &[u8]) -> Vec<(&'static str, String)> {
    let each = |show: fn(&u8) -> String, between: &str| {
        bytes.iter().map(show).collect::<Vec<_>>().join(between)
    };
    let mut forms = vec![
        ("hex", each(|byte| format!("{byte:02x}"), "")),
        ("HEX", each(|byte| format!("{byte:02X}"), "")),
        ("decimal", each(u8::to_string, ", ")),
    ];
    forms.extend(std::str::from_utf8(bytes).ok().map(|text| ("plain", text.to_owned())));
    // As a part of something longer it can begin at each of three places.
    forms.extend((0..3).map(|before| {
        let text = STANDARD.encode([&[0; 2][..before], bytes].concat());
        let (from, to) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
        ("base64", text[from..to].to_owned())
    }));
    forms
}

/// In which form, if in any, these bytes are shown.
fn shown_in(said: &str, secret: &[u8]) -> Option<&'static str> {
    forms(secret).into_iter().find(|(_, form)| said.contains(form)).map(|(name, _)| name)
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
    let mut secrets: Vec<Vec<u8>> =
        of_verifier.chain([key]).map(|text| STANDARD.decode(text).unwrap()).collect();
    assert_eq!(secrets.len(), 4, "salt, two keys and a line of another: {verifier}");
    let words = [STORED, TYPED, WRONG, SPOKEN, SUPERUSER_PASSWORD];
    secrets.extend(words.map(|word| word.as_bytes().to_vec()));
    Site { house, files, secrets }
}

impl Site {
    /// What psql says, all of it.
    fn psql(&self, user: &str, password: &str, options: &str) -> String {
        let port = self.house.proxy.address().port();
        let root = self.files.path().join("ca.crt");
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user='{user}' dbname=postgres \
             sslmode=verify-full sslrootcert={} {options}",
            root.display()
        );
        let output = Command::new("psql")
            .args(["-X", "-At", "-v", "VERBOSITY=verbose", "-d", &target])
            .args(["-c", "CREATE TEMP TABLE kept ()", "-c", "SHOW ALL", "-c", "SELECT 1/0"])
            .args(["-c", &format!("ALTER ROLE nobody PASSWORD '{SPOKEN}'")])
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
            let own = what == "startup" && *secret == STORED.as_bytes();
            let shown = shown_in(said, secret);
            let text = String::from_utf8_lossy(secret);
            assert!(own || shown.is_none(), "{what} shows {text}: {shown:?}\n{said}");
        }
    }
    site.assert_that_the_search_finds_what_is_shown(&seen);
}

impl Site {
    /// The opposite: the same search, over the same outputs, for what is shown on purpose.
    fn assert_that_the_search_finds_what_is_shown(&self, seen: &[(String, String)]) {
        let said = |what: &str| &seen.iter().find(|(name, _)| name == what).unwrap().1;
        // Who puts a word where names are shown, in whichever form, has it shown.
        for (form, text) in forms(PLANTED.as_bytes()) {
            let options = format!("application_name='{text}'");
            let shown = self.psql("carol", STORED, &options);
            assert_eq!(shown_in(&shown, PLANTED.as_bytes()), Some(form), "in {shown}");
        }
        assert_eq!(shown_in(said("log"), PLANTED.as_bytes()), None, "it comes in only now");
        for (form, text) in forms(PLANTED.as_bytes()) {
            let before = self.house.proxy.log().len();
            self.psql(&text, WRONG, "");
            let log = &self.house.proxy.log()[before..];
            assert_eq!(shown_in(log, PLANTED.as_bytes()), Some(form), "in {log}");
        }
        let server = self.house.server("primary").address();
        let http = self.house.proxy.http_address();
        for what in ["/status", "/metrics", "/route?sql=SELECT%201"] {
            assert!(shown_in(said(what), server.as_bytes()).is_some(), "{what}: {}", said(what));
        }
        for options in ["", "-o json "] {
            let status = said(&format!("--http {http} {options}status"));
            assert!(shown_in(status, server.as_bytes()).is_some(), "{status}");
        }
    }
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

/// The passwords of `auth.file` are in memory for as long as they may be needed, and no longer;
/// those of everybody else never are.
#[test]
fn a_password_that_left_the_file_leaves_the_memory() {
    let site = site();
    let pid = site.house.proxy.pid().unwrap();
    for (user, password) in [("carol", STORED), ("dave", TYPED)] {
        let said = site.psql(user, password, "");
        assert!(said.contains("division by zero"), "{user} was let in: {said}");
    }
    // Their ends: what is freed may have its beginning overwritten by the allocator.
    let (stored, typed) = (&STORED[12..], &TYPED[12..]);
    assert!(remembers(pid, stored), "the search finds nothing at all");
    assert!(!remembers(pid, typed), "a password that was only proved is in memory");

    let users = site.files.path().join("users");
    let without = std::fs::read_to_string(&users).unwrap();
    let without = without.lines().filter(|line| !line.contains("carol")).collect::<String>();
    std::fs::write(&users, without).unwrap();
    let config = std::fs::read_to_string(site.house.proxy.file()).unwrap();
    site.house.reload(&config);
    // The servers know her verifier: she goes on, and it is not needed for that.
    let said = site.psql("carol", STORED, "");
    assert!(said.contains("division by zero"), "by pass-through: {said}");
    await_that("the password is wiped", || !remembers(pid, stored));
}

/// A pgsteer of a user that is not root, and that may leave a core as far as the limits go.
struct Mortal {
    files: Scratch,
    account: Account,
    child: Child,
}

impl Mortal {
    fn start(core_dumps: &str) -> Self {
        let files = Scratch::new().unwrap();
        let account = Account::of_this_process().unwrap();
        let at = |name: &str| files.path().join(name);
        let toml = format!(
            "listen = [\"127.0.0.1:0\"]\nhttp = \"\"\n[servers]\nhosts = [\"127.0.0.1:1\"]\n\
             [observability]\ncore_dumps = {core_dumps:?}\n"
        );
        std::fs::write(at("pgsteer.toml"), toml).unwrap();
        copy_program(&at("pgsteer"));
        let log = File::create(at("log")).unwrap();
        if let Account::Other { uid, gid } = account {
            chown(files.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -c unlimited; exec ./pgsteer -c pgsteer.toml"]);
        for (name, value) in command().get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.env("PGPASSWORD", PLANTED).current_dir(files.path()).stderr(log);
        let child = as_account(account, &mut shell).spawn().unwrap();
        let mortal = Self { files, account, child };
        await_that("it runs", || mortal.log().contains("ready"));
        mortal
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.files.path().join("log")).unwrap()
    }

    /// Whether a program of the same user sees what was given to it.
    fn can_be_looked_into(&self) -> bool {
        let environment = format!("/proc/{}/environ", self.child.id());
        let mut reader = Command::new("cat");
        let output = as_account(self.account, reader.arg(environment)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(PLANTED)
    }

    /// Ends it as a crash does; whether the kernel wrote a core.
    fn leaves_a_core(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
        self.child.wait().unwrap().core_dumped()
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // It may have ended.
        drop((self.child.kill(), self.child.wait()));
    }
}

fn as_account(account: Account, command: &mut Command) -> &mut Command {
    match account {
        Account::Own => command,
        Account::Other { uid, gid } => command.uid(uid).gid(gid),
    }
}

/// Clients are small and many: a page of two megabytes for a few of each size would be most of it.
#[test]
fn memory_is_in_small_pages() {
    let mortal = Mortal::start("allowed");
    let about = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", mortal.child.id())).unwrap()
    };
    let status = about("status");
    // Kernels before 5.0 do not say.
    let said = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert!(said.is_none_or(|said| said.trim() == "0"), "{status}");
    let smaps = about("smaps_rollup");
    let huge = smaps.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    if std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|kernel| kernel.contains("[madvise]"))
    {
        assert_eq!(huge.split_whitespace().next(), Some("0"), "{smaps}");
    }
}

#[test]
fn a_crash_leaves_no_core_and_nobody_looks_in() {
    let guarded = Mortal::start("never");
    assert!(!guarded.can_be_looked_into(), "a program of the same user sees its password");
    assert!(!guarded.leaves_a_core(), "there is a core");

    // The opposite: where it is allowed there is one, and they do.
    let open = Mortal::start("allowed");
    assert!(open.can_be_looked_into(), "not even where it is allowed: {}", open.log());
    let directory = open.files.path().to_owned();
    let leaves_a_core = open.leaves_a_core();
    if !leaves_a_core && !can_dump(&directory) {
        eprintln!("NOT RUN: nothing leaves a core on this machine, so none is no proof");
        return;
    }
    assert!(leaves_a_core, "not even where it is allowed");
}

/// Whether anything can leave a core here.
fn can_dump(directory: &Path) -> bool {
    let mut shell = Command::new("sh");
    let crash = shell.args(["-c", "ulimit -c unlimited; kill -ABRT $$"]).current_dir(directory);
    crash.status().unwrap().core_dumped()
}
