//! The binary as a user meets it: help, exit codes, streams.

use crate::config::Directory;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

/// Runs the binary in an empty directory without any of our variables.
fn pgsteer(arguments: &[&str]) -> Output {
    let directory = Directory::new();
    command(&directory, arguments).output().unwrap()
}

fn command(directory: &Directory, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsteer"));
    command.args(arguments).current_dir(directory.path()).env_clear().env("PGUSER", "tester");
    command.stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_is_data_and_fits_a_screen() {
    let output = pgsteer(&["--help"]);

    assert_eq!(output.status.code(), Some(0));
    let help = out(&output);
    assert!(help.lines().count() < 40, "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    assert!(help.contains("Usage: pgsteer [OPTIONS] [COMMAND]"), "{help}");
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for wrong in [&["--bogus"][..], &["bogus"], &["--set", "pool.size"], &["-v", "-q"]] {
        let output = pgsteer(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert_eq!(out(&output), "");
        assert_ne!(err(&output), "");
    }
}

#[test]
fn without_a_server_it_says_what_to_do() {
    let output = pgsteer(&[]);

    assert_eq!(output.status.code(), Some(78));
    let expected = "\
error: no server is named, and no configuration file was found
  = help: try `pgsteer --server HOST`, `pgsteer -c FILE` or `pgsteer demo`; \
looked for ./pgsteer.toml and /etc/pgsteer/pgsteer.toml
";
    assert_eq!(err(&output), expected);
}

#[test]
fn check_config_tells_every_mistake_and_exits_with_78() {
    let directory = Directory::new();
    directory.file("pgsteer.toml", b"[servers]\nhost = [\"a\"]\ncheck_interval = 5\n");

    let output = command(&directory, &["check-config"]).output().unwrap();

    assert_eq!(output.status.code(), Some(78));
    assert_eq!(out(&output), "");
    let expected = "\
error: pgsteer.toml:2:1: unknown key `host` in [servers]
 2 | host = [\"a\"]
   | ^^^^
   = help: did you mean `hosts`?

error: pgsteer.toml:3:18: a duration needs a unit
 3 | check_interval = 5
   |                  ^
   = help: write \"5s\" for seconds or \"5ms\" for milliseconds

error: there are no servers
  = help: name them: --server HOST, or hosts = [\"HOST\"] in [servers]
";
    assert_eq!(err(&output), expected);
}

/// What it takes, `run` takes; and a service manager is told that a restart helps with neither.
#[test]
fn what_its_files_hold_is_checked_as_at_the_start() {
    let directory = Directory::new();
    let config = "listen = [\"127.0.0.1:0\"]\nhttp = \"off\"\n[servers]\nhosts = [\"db1\"]\n[auth]\nmethod = \"scram-sha-256\"\n\
                  file = \"users\"\n[tls]\ncert = \"tls.crt\"\nkey = \"tls.key\"\n";
    directory.file("pgsteer.toml", config.as_bytes());
    directory.file("users", b"\"good\" \"one\"\n\"bad\" one\n");
    directory.file("tls.crt", b"nonsense\n");
    directory.file("tls.key", b"nonsense\n");

    let checked = command(&directory, &["check-config"]).output().unwrap();
    let run = command(&directory, &["run"]).output().unwrap();

    let told = err(&checked);
    for what in ["users:2: expected \"password\" or", "(auth.file)", "tls.crt"] {
        assert!(told.contains(what), "{told}");
    }
    assert_eq!((checked.status.code(), run.status.code()), (Some(78), Some(78)), "{told}");
    assert_eq!(out(&checked), "");

    directory.file("pgsteer.toml", config.split("[tls]").next().unwrap().as_bytes());
    directory.file("users", b"\"good\" \"one\"\n");
    let checked = command(&directory, &["check-config"]).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
}

#[test]
fn check_config_says_what_the_configuration_comes_to() {
    let output = pgsteer(&["check-config", "-s", "db1", "-s", "db2:5433", "--http", "off"]);

    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let expected = "\
configuration: ok
  listen   127.0.0.1:6432
  http     off
  clients  trust, TLS off
  servers  db1:5432, db2:5433 as tester on postgres
  pool     20 backends per server, database and user, transaction mode
  reads    standby, consistency session, max_lag 1s / 16MB
";
    assert_eq!(out(&output), expected);
    assert_eq!(err(&output), "");
}

#[test]
fn check_config_speaks_json() {
    let good = pgsteer(&["check-config", "-s", "db1", "-o", "json"]);
    let bad = pgsteer(&["check-config", "-s", "db1", "--set", "pool.sice=1", "-o", "json"]);

    let good: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(good["ok"], true);
    assert_eq!(good["settings"][0]["key"], "listen");
    assert_eq!(bad.status.code(), Some(78));
    let bad: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(bad["ok"], false);
    assert_eq!(bad["problems"][0]["severity"], "error");
    assert_eq!(bad["problems"][0]["source"], "--set pool.sice");
    assert_eq!(bad["problems"][0]["help"], "did you mean `pool.size`?");
}

#[test]
fn the_printed_reference_passes_check_config() {
    let directory = Directory::new();
    let reference = pgsteer(&["config", "reference"]);
    directory.file("pgsteer.toml", &reference.stdout);

    let output = command(&directory, &["check-config"]).output().unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let directory = Directory::new();
    let mut command = command(&directory, &["config", "reference"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();

    assert_eq!(output.status.code(), Some(141));
    assert_eq!(err(&output), "");
}

#[test]
fn colours_come_when_asked_for_and_only_then() {
    let wrong = ["check-config", "-s", "a b"];
    let plain = err(&pgsteer(&wrong));
    let colored = err(&pgsteer(&[&wrong[..], &["--color", "always"]].concat()));

    assert!(!plain.contains('\u{1b}'), "{plain}");
    assert!(colored.starts_with("\u{1b}[1;31merror\u{1b}[0m: "), "{colored}");
}

/// A port on which nobody listens.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn route_without_a_proxy_judges_the_statement_alone() {
    let read = pgsteer(&["route", "SELECT 1", "--http", &free_address()]);
    let write = pgsteer(&["route", "DELETE FROM notes", "--http", &free_address(), "-o", "json"]);

    assert_eq!(read.status.code(), Some(0), "{}", err(&read));
    assert!(
        err(&read).starts_with("note: no pgsteer answers on http://127.0.0.1:"),
        "{}",
        err(&read)
    );
    assert!(out(&read).starts_with("target  standby\nwhy     fit for a standby"), "{}", out(&read));
    let write: serde_json::Value = serde_json::from_slice(&write.stdout).unwrap();
    assert_eq!(write["target"], "primary");
    assert_eq!(write["why"][0], "needs the primary: it writes");
}

/// A stand-in for the proxy's HTTP side: takes one request, gives one answer.
fn answering(status: &str, body: &str) -> (String, std::thread::JoinHandle<String>) {
    use std::io::Read as _;
    use std::io::Write as _;
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let request = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        while !request.ends_with("SELECT 1") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).unwrap();
            request.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    (address, request)
}

#[test]
fn route_asks_the_running_proxy() {
    let (http, request) = answering("200 OK", r#"{"target":"standby","why":["a","b"]}"#);

    let output = pgsteer(&["route", "SELECT 1", "-d", "my app", "--http", &http]);

    assert!(request.join().unwrap().starts_with("POST /route?database=my%20app HTTP/1.1\r\n"));
    assert_eq!(out(&output), "target  standby\nwhy     a\n        b\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_is_no_proxy_is_told_apart() {
    let (http, request) = answering("404 Not Found", "nope");

    let output = pgsteer(&["route", "SELECT 1", "--http", &http]);

    request.join().unwrap();
    assert_eq!(err(&output), "error: the proxy answered 404: nope\n");
    assert_eq!(output.status.code(), Some(1));
}

/// A command that only asks needs no servers; what it cannot read, it does not guess.
#[test]
fn asking_needs_nothing_but_the_address() {
    let directory = Directory::new();
    directory.file("pgsteer.toml", b"http = 5\n[pool]\nsise = 1\n");

    let output = command(&directory, &["route", "SELECT 1"]).output().unwrap();

    assert_eq!(output.status.code(), Some(78));
    let expected = "\
error: pgsteer.toml:1:8: expected text in quotes, found a number
 1 | http = 5
   |        ^
   = help: put it in quotes: \"5\"
";
    assert_eq!(err(&output), expected);
}
