//! A pgsteer process in front of a cluster: the real binary, with flags and a file.

use crate::sandbox::Answer;
use crate::sandbox::Port;
use crate::sandbox::SUPERUSER;
use crate::sandbox::SandboxError;
use crate::sandbox::eventually;
use crate::sandbox::http;
use crate::sandbox::process;
use rustix::process::Signal;
use std::fs::File;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

/// Longest wait for the proxy to start: seconds more than it takes on a crowded machine.
const READY_MAX: Duration = Duration::from_secs(30);
/// Longest wait for it to end; its own drain may take 30 s.
const END_MAX: Duration = Duration::from_mins(1);
/// Longest until it stands still once it was told to.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Where no directory can be made, by anybody.
const NO_STATE: &str = "/dev/null/state";

/// A pgsteer process, or one that will be. It works in a directory of its cluster, so that it
/// ends with the cluster at the latest.
#[derive(Debug)]
pub struct Proxy {
    program: PathBuf,
    dir: PathBuf,
    listen: Place,
    http: Place,
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
}

/// An address, and what keeps others of this process from it.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    _port: Option<Port>,
}

impl Proxy {
    /// A proxy that is not running yet, on free ports, with no servers: `program` is the binary,
    /// and `dir` the directory that it works in, see [`super::Cluster::workshop`].
    ///
    /// # Errors
    /// [`SandboxError::NoPort`]
    pub fn new(program: PathBuf, dir: PathBuf) -> Result<Self, SandboxError> {
        let (listen, http) = (Place::free()?, Place::free()?);
        // The state of a throw-away set is thrown away with it.
        let state = dir.join("state").to_string_lossy().into_owned();
        let env = vec![
            ("PGUSER".to_owned(), SUPERUSER.to_owned()),
            ("STATE_DIRECTORY".to_owned(), state),
            // Nothing in it is secret, and whoever clears up must see where it works.
            ("PGSTEER_OBSERVABILITY__CORE_DUMPS".to_owned(), "allowed".to_owned()),
        ];
        Ok(Self { program, dir, listen, http, args: Vec::new(), env, child: Mutex::new(None) })
    }

    /// Lets clients connect there.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Place { address, _port: None };
        self
    }

    /// Serves its metrics there.
    #[must_use]
    pub fn http(mut self, address: SocketAddr) -> Self {
        self.http = Place { address, _port: None };
        self
    }

    /// With a configuration file of this text.
    ///
    /// # Errors
    /// [`SandboxError::File`]
    pub fn toml(self, text: &str) -> Result<Self, SandboxError> {
        let file = self.file();
        std::fs::write(&file, text).map_err(SandboxError::file("write", &file))?;
        Ok(self.args(["-c", &file.to_string_lossy()]))
    }

    /// More flags.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command line without the addresses, with nothing of our own environment that it would
    /// take for configuration.
    pub fn command(program: &Path) -> Command {
        let mut command = Command::new(program);
        let names = std::env::vars_os().map(|(name, _)| name);
        let is_config = |name: &str| name.starts_with("PG") || name == "RUST_LOG";
        for name in names.filter(|name| is_config(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        // Nor does it touch what lies in our home.
        command.env("STATE_DIRECTORY", NO_STATE);
        command
    }

    /// Starts it; whether it stays is another question.
    ///
    /// # Errors
    /// [`SandboxError::File`] if it can't be run.
    pub fn start(&self) -> Result<(), SandboxError> {
        let log_path = self.dir.join("log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(SandboxError::file("open", &log_path))?;
        let same_log = log.try_clone().map_err(SandboxError::file("open", &log_path))?;
        let mut command = Self::command(&self.program);
        command.args(["--listen", &self.listen.address.to_string()]);
        command.args(["--http", &self.http.address.to_string()]).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        // A Ctrl-C at the terminal is for us; we tell the proxy.
        command.current_dir(&self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log).stderr(same_log);
        let child = command.spawn().map_err(SandboxError::file("run", &self.program))?;
        *self.child() = Some(child);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// [`SandboxError::Start`] if it ends, [`SandboxError::Late`] if it does not say so.
    pub fn await_ready(&self) -> Result<(), SandboxError> {
        let server = || "pgsteer".to_owned();
        let ready = eventually(READY_MAX, || {
            if !self.is_running() {
                return Some(Err(SandboxError::Start { server: server(), log: self.log() }));
            }
            let answer = self.get("/readyz").ok()?;
            (answer.status == 200).then_some(Ok(()))
        });
        ready.unwrap_or_else(|| {
            let (waited, log) = (READY_MAX, self.log());
            Err(SandboxError::Late { server: server(), state: "ready", waited, log })
        })
    }

    /// Sends it a signal. Behind `STOP` it stands still.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = self.child().as_ref().map(Child::id) else { return };
        process::signal(pid, signal);
        if signal == Signal::STOP {
            eventually(STOP_MAX, || process::is_stopped(pid).then_some(()));
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`SandboxError::Late`] if it goes on.
    pub fn await_end(&self) -> Result<ExitStatus, SandboxError> {
        let ended = eventually(END_MAX, || self.child().as_mut()?.try_wait().ok()?);
        ended.ok_or_else(|| SandboxError::Late {
            server: "pgsteer".to_owned(),
            state: "ended",
            waited: END_MAX,
            log: self.log(),
        })
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its pid, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.listen.address
    }

    /// Where its metrics are.
    pub const fn http_address(&self) -> SocketAddr {
        self.http.address
    }

    /// What its HTTP port says.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        http::get(self.http.address, path)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        let raw = std::fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&raw).into_owned()
    }

    /// Where [`Proxy::toml`] writes its configuration, for a change before a reload.
    pub fn file(&self) -> PathBuf {
        self.dir.join("pgsteer.toml")
    }

    /// The directory that it works in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = child.as_mut() {
            child.kill().unwrap_or(());
            // After SIGKILL this ends.
            drop(child.wait());
        }
    }
}

impl Place {
    fn free() -> Result<Self, SandboxError> {
        let port = Port::free()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        Ok(Self { address, _port: Some(port) })
    }
}
