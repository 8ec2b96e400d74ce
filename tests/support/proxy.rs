//! A pgsteer process: the binary that users run, with flags and a file.

use crate::support::Answer;
use crate::support::http;
use pgsteer::sandbox::Port;
use pgsteer::sandbox::eventually;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

/// Longest wait for the proxy to start or to end: seconds more than it takes on a crowded machine.
const STATE_MAX: Duration = Duration::from_secs(30);

/// A pgsteer process, or one that will be. It works in a directory of a cluster, so it ends with
/// the cluster at the latest.
#[derive(Debug)]
pub struct Proxy {
    dir: PathBuf,
    listen: Port,
    http: Port,
    toml: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
}

impl Proxy {
    /// A proxy that is not running yet, on free ports, with no servers.
    pub fn new(dir: PathBuf) -> Self {
        let (listen, http) = (Port::free().unwrap(), Port::free().unwrap());
        let (toml, args, env) = (String::new(), Vec::new(), Vec::new());
        Self { dir, listen, http, toml, args, env, child: Mutex::new(None) }
    }

    /// More text for its configuration file.
    pub fn toml(mut self, text: &str) -> Self {
        self.toml.push_str(text);
        self
    }

    /// More flags.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it; whether it stays is another question.
    pub fn start(&self) {
        let file = self.file();
        std::fs::write(&file, &self.toml).unwrap();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = command();
        command.arg("-c").arg(file).args(&self.args);
        command.args(["--listen", &self.address(), "--http", &self.http_address()]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.dir).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        *self.child.lock().unwrap() = Some(command.spawn().unwrap());
    }

    /// Waits until it says that it is ready.
    pub fn await_ready(&self) {
        let ready = eventually(STATE_MAX, || {
            if let Some(status) = self.ended() {
                panic!("pgsteer ended ({status}) before it was ready:\n{}", self.log());
            }
            self.http("/readyz").ok().filter(|answer| answer.status == 200)
        });
        assert!(ready.is_some(), "pgsteer was not ready within {STATE_MAX:?}:\n{}", self.log());
    }

    /// Sends it a signal, by its name: `TERM`, `HUP`, `KILL`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn await_end(&self) -> ExitStatus {
        let ended = eventually(STATE_MAX, || self.ended());
        ended.unwrap_or_else(|| panic!("pgsteer did not end:\n{}", self.log()))
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().as_mut().expect("not started").try_wait().unwrap()
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().expect("not started").id()
    }

    /// Where clients connect: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listen.number())
    }

    /// Where its metrics are: `127.0.0.1:PORT`.
    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http.number())
    }

    /// What its HTTP port says.
    pub fn http(&self, path: &str) -> io::Result<Answer> {
        http::get(&self.http_address(), path)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its configuration file, to be changed before a reload.
    pub fn file(&self) -> PathBuf {
        self.dir.join("pgsteer.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(child) = self.child.get_mut().unwrap().as_mut() {
            child.kill().unwrap_or(());
            drop(child.wait());
        }
    }
}

/// The binary, with nothing of our environment that it would take for configuration.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsteer"));
    let ours = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with("PG") && name != "PGSTEER_PG_BIN" || name == "RUST_LOG"
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command
}
