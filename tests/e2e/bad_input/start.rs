//! The real binary with a wrong configuration, or on a port that is taken.

use crate::support::command;
use pgsteer::sandbox::Port;
use pgsteer::sandbox::Scratch;
use std::net::TcpListener;
use std::process::Output;

fn run(toml: &str, flags: &[&str]) -> Output {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("pgsteer.toml");
    std::fs::write(&file, toml).unwrap();
    command().current_dir(scratch.path()).args(["-c", "pgsteer.toml"]).args(flags).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_configuration_ends_with_78_and_says_where_and_what() {
    let wrong = [
        (
            "[servers]\nhosts = [\"db1\"]\n[routing]\nmax_leg = \"1s\"\n",
            &["pgsteer.toml:4:1", "max_leg", "max_lag"][..],
        ),
        (
            "[servers]\nhosts = [\"db1\"]\n[pool]\nsize = \"many\"\n",
            &["pgsteer.toml:4:8", "size = \"many\""],
        ),
        (
            "[servers]\nhosts = [\"db1\"]\n[routing]\nhold_max = 50\n",
            &["pgsteer.toml:4:12", "unit"],
        ),
        ("[servers\n", &["pgsteer.toml:1"]),
        (
            "listen = [\"0.0.0.0:6432\"]\n[servers]\nhosts = [\"db1\"]\n",
            &["pgsteer.toml:1:", "scram-sha-256"],
        ),
        ("[servers]\nhosts = [\"db1\"]\n[auth]\nfile = \"/no/such/file\"\n", &["/no/such/file"]),
    ];
    for (toml, words) in wrong {
        let output = run(toml, &[]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{toml}: {said}");
        for word in words {
            assert!(said.contains(word), "{toml}: {word} is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (port, other) = (Port::free().unwrap(), Port::free().unwrap());
    let free = format!("127.0.0.1:{}", port.number());
    let taken = format!("127.0.0.1:{}", other.number());
    let _listener = TcpListener::bind(&taken).unwrap();
    for (listen, http) in [(&taken, &free), (&free, &taken)] {
        let flags = ["--server", "127.0.0.1:1", "--listen", listen, "--http", http];
        let scratch = Scratch::new().unwrap();
        let output = command().current_dir(scratch.path()).args(flags).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&taken), "{said}");
    }
}
