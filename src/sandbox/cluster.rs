//! A primary and its standbys.

use crate::pg::quote_literal;
use crate::sandbox::Account;
use crate::sandbox::Auth;
use crate::sandbox::Plan;
use crate::sandbox::Port;
use crate::sandbox::Postgres;
use crate::sandbox::SandboxError;
use crate::sandbox::Scratch;
use crate::sandbox::Server;
use crate::sandbox::copy::copy_tree;
use crate::sandbox::copy::make_dir;
use crate::sandbox::copy::write_file;
use crate::sandbox::plan::SUPERUSER;
use crate::sandbox::plan::SUPERUSER_PASSWORD;
use std::path::Path;
use std::path::PathBuf;

/// How often a server is given another port because its own was taken meanwhile.
const PORTS_MAX: usize = 5;

/// A primary and its standbys, which end with this value or with this process.
#[derive(Debug)]
pub struct Cluster {
    /// First, so that it is dropped first: it ends the servers.
    scratch: Scratch,
    servers: Vec<Server>,
    plan: Plan,
}

/// A data directory fresh from `initdb`, to be copied: that takes a tenth of the time.
#[derive(Debug)]
pub struct Template {
    scratch: Scratch,
    postgres: Postgres,
}

impl Template {
    /// Runs `initdb`.
    ///
    /// # Errors
    /// [`SandboxError::Program`] with what it said.
    pub fn new(postgres: Postgres) -> Result<Self, SandboxError> {
        let scratch = Scratch::new()?;
        let dir = scratch.path().join("template");
        make_dir(&dir, postgres.account())?;
        let mut initdb = postgres.command("initdb", &dir);
        initdb.arg("-D").arg(dir.join("data")).args(["-U", SUPERUSER, "-A", "trust"]);
        initdb.args(["--no-sync", "-E", "UTF8", "--locale=C"]);
        let said = initdb.output().map_err(SandboxError::file("run", initdb.get_program()))?;
        if !said.status.success() {
            let program = initdb.get_program().into();
            let said = String::from_utf8_lossy(&said.stderr).trim_end().to_owned();
            return Err(SandboxError::Program { program, said });
        }
        Ok(Self { scratch, postgres })
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("template/data")
    }
}

impl Cluster {
    /// Starts a cluster from a template: the primary answers, and every standby streams from it.
    ///
    /// # Errors
    /// What kept a server from starting, with the end of its log.
    pub fn start(template: &Template, plan: &Plan) -> Result<Self, SandboxError> {
        let scratch = Scratch::new()?;
        let mut cluster = Self { scratch, servers: Vec::new(), plan: plan.clone() };
        for name in plan.names() {
            let server = cluster.place(template, name)?;
            cluster.servers.push(server);
        }
        cluster.start_primary()?;
        cluster.start_standbys()?;
        Ok(cluster)
    }

    /// The server that was the primary at the start.
    pub fn primary(&self) -> &Server {
        #[expect(clippy::indexing_slicing, reason = "a plan always names a primary, first")]
        &self.servers[0]
    }

    /// The servers that were standbys at the start.
    pub fn standbys(&self) -> &[Server] {
        self.servers.get(1..).unwrap_or(&[])
    }

    /// All servers: the one that was the primary at the start, then the others.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server of this name: `primary`, `standby1`, ...
    ///
    /// # Errors
    /// [`SandboxError::NoSuchServer`]
    pub fn server(&self, name: &str) -> Result<&Server, SandboxError> {
        let found = self.servers.iter().find(|server| server.name() == name);
        found.ok_or_else(|| SandboxError::NoSuchServer { server: name.to_owned() })
    }

    /// How clients prove to its servers who they are.
    pub const fn auth(&self) -> Auth {
        self.plan.auth
    }

    /// Waits until every standby that runs has replayed what the primary has written by now.
    ///
    /// # Errors
    /// [`SandboxError::Late`] if one does not, as while its replay is paused.
    pub fn await_replay(&self) -> Result<(), SandboxError> {
        let written = self.primary().value("SELECT pg_current_wal_lsn()")?;
        let replayed =
            format!("SELECT pg_last_wal_replay_lsn() >= {}::pg_lsn", quote_literal(&written));
        let mut running = self.standbys().iter().filter(|server| server.is_running());
        running.try_for_each(|server| server.await_value(&replayed, "t", "level with the primary"))
    }

    /// Makes a directory in the cluster's own. What works in it, or beneath it, ends with the
    /// cluster.
    ///
    /// # Errors
    /// [`SandboxError::File`]
    pub fn workshop(&self, name: &str) -> Result<PathBuf, SandboxError> {
        let path = self.scratch.path().join(name);
        make_dir(&path, Account::Own)?;
        Ok(path)
    }

    /// A server's files, from the template.
    fn place(&self, template: &Template, name: String) -> Result<Server, SandboxError> {
        let account = template.postgres.account();
        let dir = self.scratch.path().join(&name);
        let data = dir.join("data");
        make_dir(&dir, account)?;
        copy_tree(&template.data(), &data, account)?;
        append(&data.join("postgresql.conf"), "include 'sandbox.conf'\n")?;
        let server = Server::new(name, dir, Port::free()?, template.postgres.clone());
        self.configure(&server)?;
        Ok(server)
    }

    /// A server's own settings, as the plan has them.
    pub(super) fn configure(&self, server: &Server) -> Result<(), SandboxError> {
        let (plan, data) = (&self.plan, server.data());
        let account = server.postgres().account();
        write_file(&data.join("sandbox.conf"), &plan.configuration(server.name()), account)?;
        write_file(&data.join("pg_hba.conf"), &plan.hba_file(), account)?;
        let mut files = plan.files.iter();
        files.try_for_each(|(file, text)| write_file(&data.join(file), text, account))
    }

    /// What it is like.
    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Starts the primary, and tells the standbys where it is.
    fn start_primary(&mut self) -> Result<(), SandboxError> {
        if let Some(primary) = self.servers.first_mut() {
            start_somewhere(primary)?;
        }
        if self.plan.auth == Auth::Password {
            let password = quote_literal(SUPERUSER_PASSWORD);
            // No standby is there yet that could confirm it.
            let local = "SET synchronous_commit = local";
            let alter = format!("{local}; ALTER ROLE {SUPERUSER} PASSWORD {password}");
            self.primary().rows(&alter)?;
        }
        let port = self.primary().port();
        self.standbys().iter().try_for_each(|standby| standby.follow(port, &self.plan))
    }

    /// Starts the standbys, side by side, and waits until all of them stream.
    fn start_standbys(&mut self) -> Result<(), SandboxError> {
        self.standbys().iter().try_for_each(Server::launch)?;
        self.servers.iter_mut().skip(1).try_for_each(start_somewhere)?;
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let all = self.standbys().len().to_string();
        self.primary().await_value(streaming, &all, "streaming to all standbys")?;
        match self.plan.auth {
            // What clients must know by heart, every server must.
            Auth::Password => self.await_replay(),
            Auth::Trust | Auth::Listed => Ok(()),
        }
    }
}

/// Starts a server, on another port if its own was taken by somebody else meanwhile.
fn start_somewhere(server: &mut Server) -> Result<(), SandboxError> {
    for _ in 1..PORTS_MAX {
        match server.start() {
            Err(SandboxError::Start { log, .. }) if port_is_taken(&log) => {
                server.move_to(Port::free()?)?;
            }
            done => return done,
        }
    }
    server.start()
}

/// Whether PostgreSQL ended because another process listens on its port.
fn port_is_taken(log: &str) -> bool {
    log.contains("could not bind IPv4 address")
}

fn append(path: &Path, text: &str) -> Result<(), SandboxError> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().append(true).open(path);
    let mut file = file.map_err(SandboxError::file("open", path))?;
    file.write_all(text.as_bytes()).map_err(SandboxError::file("write", path))
}
