//! One server of a cluster: started, asked, hurt and stopped at will.

use crate::pg::Version;
use crate::pg::quote_identifier;
use crate::pg::quote_literal;
use crate::sandbox::Found;
use crate::sandbox::Plan;
use crate::sandbox::Port;
use crate::sandbox::Postgres;
use crate::sandbox::Row;
use crate::sandbox::SUPERUSER;
use crate::sandbox::SandboxError;
use crate::sandbox::Sql;
use crate::sandbox::SqlError;
use crate::sandbox::copy::write_file;
use crate::sandbox::eventually;
use crate::sandbox::process;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Longest wait for a server to start, stop, or change its state: far more than the tenths of a
/// second that it takes on a quiet machine, so that a crowded one does not fail.
const STATE_MAX: Duration = Duration::from_mins(1);
/// Longest wait for a process that was killed to be gone.
const REAP_MAX: Duration = Duration::from_secs(1);
/// Bytes of a log that an error quotes, from its end.
const QUOTED: usize = 2000;

/// One server: a postmaster, its data directory, its port.
#[derive(Debug)]
pub struct Server {
    name: String,
    /// Holds `data/` and `log`; the unix socket as well.
    dir: PathBuf,
    port: Port,
    postgres: Postgres,
    /// The postmaster, while it was not seen to end.
    postmaster: Mutex<Option<Child>>,
}

/// How a server is told to stop.
///
/// Source: PostgreSQL manual, 19.5 "Shutting Down the Server".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends its sessions, and waits until its standbys have everything.
    Fast,
    /// At once; it will recover when it is started again.
    Immediate,
}

impl Server {
    /// A server that is not running yet, in a directory that holds its `data`.
    pub(super) const fn new(name: String, dir: PathBuf, port: Port, postgres: Postgres) -> Self {
        Self { name, dir, port, postgres, postmaster: Mutex::new(None) }
    }

    /// Starts it, if it isn't running, and waits until it answers.
    ///
    /// # Errors
    /// [`SandboxError::Start`] if it ends at once, [`SandboxError::Late`] if it does not answer.
    pub fn start(&self) -> Result<(), SandboxError> {
        self.launch()?;
        self.await_answer()
    }

    /// Starts it without waiting.
    pub(super) fn launch(&self) -> Result<(), SandboxError> {
        let mut postmaster = self.postmaster.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = postmaster.as_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        let log_path = self.dir.join("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path);
        let log = log.map_err(SandboxError::file("open", &log_path))?;
        let same_log = log.try_clone().map_err(SandboxError::file("open", &log_path))?;
        let mut command = self.postgres.command("postgres", &self.data());
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.dir);
        command.args(["-p", &self.port().to_string()]);
        // A Ctrl-C at the terminal is for us; we tell the servers.
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(same_log);
        let child = command.spawn().map_err(SandboxError::file("run", command.get_program()))?;
        *postmaster = Some(child);
        Ok(())
    }

    /// Gives it another port, while it isn't running.
    pub(super) fn move_to(&mut self, port: Port) -> Result<(), SandboxError> {
        self.port = port;
        let log = self.dir.join("log");
        fs::remove_file(&log).map_err(SandboxError::file("remove", log))
    }

    /// Makes it a standby of the primary on this port, as of its next start.
    pub(super) fn follow(&self, primary: u16, plan: &Plan) -> Result<(), SandboxError> {
        let rest = plan.link(&self.name).replace('\'', "''");
        let line = format!("primary_conninfo = 'host=127.0.0.1 port={primary} {rest}'\n");
        let account = self.postgres.account();
        // Where `pg_basebackup -R` writes it, so that ALTER SYSTEM replaces it.
        write_file(&self.data().join("postgresql.auto.conf"), &line, account)?;
        write_file(&self.data().join("standby.signal"), "", account)
    }

    /// Waits until it answers.
    fn await_answer(&self) -> Result<(), SandboxError> {
        let answered = eventually(STATE_MAX, || {
            if !self.is_running() {
                return Some(Err(SandboxError::Start {
                    server: self.name.clone(),
                    log: self.log_end(),
                }));
            }
            let mut sql = Sql::connect(&self.dir, self.port(), "postgres").ok()?;
            sql.value("SELECT 1").ok().map(|_| Ok(()))
        });
        answered.unwrap_or_else(|| Err(self.late("answering")))
    }

    /// Stops it and waits until it has ended. One that is not running needs nothing.
    ///
    /// # Errors
    /// [`SandboxError::Late`] if it does not end.
    pub fn stop(&self, how: Shutdown) -> Result<(), SandboxError> {
        let signal = match how {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        if let Some(pid) = self.pid() {
            process::signal(pid, signal);
        }
        self.await_end()
    }

    /// `kill -9` for the postmaster and all its children, as if the machine had lost power.
    ///
    /// # Errors
    /// [`SandboxError::Late`] if a process survives.
    pub fn kill9(&self) -> Result<(), SandboxError> {
        if let Some(pid) = self.pid() {
            process::signal(pid, Signal::KILL);
        }
        self.signal_all(Signal::KILL);
        self.await_end()
    }

    /// Stops it fast and starts it again.
    ///
    /// # Errors
    /// As [`Server::stop`] and [`Server::start`].
    pub fn restart(&self) -> Result<(), SandboxError> {
        self.stop(Shutdown::Fast)?;
        self.start()
    }

    /// Freezes every process of it: it neither answers nor closes a connection.
    pub fn sigstop(&self) {
        // First the one that makes the others; and what it has made before that took effect is
        // seen by the next look.
        if let Some(pid) = self.pid() {
            process::signal(pid, Signal::STOP);
        }
        let mut stopped = BTreeSet::new();
        loop {
            let mut fresh = self.processes();
            fresh.retain(|found| stopped.insert(found.pid));
            if fresh.is_empty() {
                return;
            }
            for found in fresh {
                process::signal(found.pid, Signal::STOP);
            }
        }
    }

    /// Lets every process of it go on.
    pub fn sigcont(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Freezes those of its processes whose title contains `title`, such as `walreceiver`;
    /// [`Server::sigcont`] lets them go on.
    pub fn sigstop_process(&self, title: &str) {
        for found in self.processes().iter().filter(|found| found.title.contains(title)) {
            process::signal(found.pid, Signal::STOP);
        }
    }

    /// Promotes it and waits until it has left recovery.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if it is no standby.
    pub fn promote(&self) -> Result<(), SandboxError> {
        self.rows("SELECT pg_promote(true, 60)")?;
        self.await_value("SELECT pg_is_in_recovery()", "f", "promoted")
    }

    /// Stops the replay of what it receives, and waits until it has stopped.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if it is no standby.
    pub fn pause_replay(&self) -> Result<(), SandboxError> {
        self.rows("SELECT pg_wal_replay_pause()")?;
        // `pg_get_wal_replay_pause_state` is there since PostgreSQL 14.
        if self.postgres.version().major() < 14 {
            return self.await_value("SELECT pg_is_wal_replay_paused()", "t", "paused");
        }
        self.await_value("SELECT pg_get_wal_replay_pause_state()", "paused", "paused")
    }

    /// Lets the replay go on.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if it is no standby.
    pub fn resume_replay(&self) -> Result<(), SandboxError> {
        self.rows("SELECT pg_wal_replay_resume()").map(drop)
    }

    /// Changes a setting for good and reloads it. It takes effect within milliseconds, but not
    /// at once, and some settings only at a restart.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if the server refuses the name or the value.
    pub fn set(&self, name: &str, value: &str) -> Result<(), SandboxError> {
        let (name, value) = (quote_identifier(name), quote_literal(value));
        self.rows(&format!("ALTER SYSTEM SET {name} = {value}"))?;
        self.rows("SELECT pg_reload_conf()").map(drop)
    }

    /// Runs SQL as the superuser in the database `postgres`.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if the server refuses it or can't be reached.
    pub fn rows(&self, sql: &str) -> Result<Vec<Row>, SandboxError> {
        self.connect("postgres")?.rows(sql).map_err(|source| self.sql(source))
    }

    /// Runs SQL as the superuser in the database `postgres`; the first value of the first row.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if there is none.
    pub fn value(&self, sql: &str) -> Result<String, SandboxError> {
        self.connect("postgres")?.value(sql).map_err(|source| self.sql(source))
    }

    /// A connection as the superuser that stays, past any proxy.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if the server can't be reached.
    pub fn connect(&self, database: &str) -> Result<Sql, SandboxError> {
        Sql::connect(&self.dir, self.port(), database).map_err(|source| self.sql(source))
    }

    /// Waits until this query's value is `expected`.
    ///
    /// # Errors
    /// [`SandboxError::Late`] if it does not become so.
    pub fn await_value(
        &self,
        sql: &str,
        expected: &str,
        state: &'static str,
    ) -> Result<(), SandboxError> {
        let found = || self.value(sql).is_ok_and(|value| value == expected).then_some(());
        eventually(STATE_MAX, found).ok_or_else(|| self.late(state))
    }

    /// Its name in the cluster: `primary`, `standby1`; a promotion does not change it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its TCP port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Where a client reaches it past any proxy.
    pub fn uri(&self) -> String {
        format!("postgresql://{SUPERUSER}@{}/postgres", self.address())
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The programs that it is made of.
    pub(super) const fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The directory of its unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// Its version.
    pub const fn version(&self) -> Version {
        self.postgres.version()
    }

    /// The pid of its postmaster, if that runs.
    pub fn pid(&self) -> Option<u32> {
        let mut postmaster = self.postmaster.lock().unwrap_or_else(PoisonError::into_inner);
        let child = postmaster.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Whether its postmaster runs, frozen or not.
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<Found> {
        process::working_in(&self.data())
    }

    /// Whether it is a standby now.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] if it can't be asked.
    pub fn is_standby(&self) -> Result<bool, SandboxError> {
        Ok(self.value("SELECT pg_is_in_recovery()")? == "t")
    }

    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        let raw = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&raw).into_owned()
    }

    /// How many lines of its log contain `marker`: with [`super::StatementLog::All`], how often a
    /// statement that holds the marker was executed here.
    pub fn logged(&self, marker: &str) -> usize {
        self.log().lines().filter(|line| line.contains(marker)).count()
    }

    /// The end of its log, for an error.
    fn log_end(&self) -> String {
        let log = self.log();
        let from = log.len().saturating_sub(QUOTED);
        let from = (from..log.len()).find(|index| log.is_char_boundary(*index)).unwrap_or(0);
        log.get(from..).unwrap_or("").trim_end().to_owned()
    }

    fn await_end(&self) -> Result<(), SandboxError> {
        let ended = || (!self.is_running() && self.processes().is_empty()).then_some(());
        eventually(STATE_MAX, ended).ok_or_else(|| self.late("ended"))
    }

    fn signal_all(&self, signal: Signal) {
        for found in self.processes() {
            process::signal(found.pid, signal);
        }
    }

    fn late(&self, state: &'static str) -> SandboxError {
        let (server, log) = (self.name.clone(), self.log_end());
        SandboxError::Late { server, state, waited: STATE_MAX, log }
    }

    fn sql(&self, source: SqlError) -> SandboxError {
        SandboxError::Sql { server: self.name.clone(), source }
    }
}

impl Drop for Server {
    /// Reaps the postmaster, which the cluster's directory has ended by now.
    fn drop(&mut self) {
        let postmaster = self.postmaster.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = postmaster.as_mut() {
            eventually(REAP_MAX, || child.try_wait().ok().flatten());
        }
    }
}
