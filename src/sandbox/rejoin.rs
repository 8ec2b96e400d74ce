//! A server that was the primary becomes a standby of the one that replaced it: what an operator
//! does by hand after a failover.

use crate::pg::quote_literal;
use crate::sandbox::Cluster;
use crate::sandbox::SUPERUSER;
use crate::sandbox::SandboxError;
use crate::sandbox::Server;
use crate::sandbox::Shutdown;
use crate::sandbox::copy::copy_live_tree;
use crate::sandbox::copy::write_file;
use std::fs;
use std::path::Path;

/// How a server was made a standby again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejoined {
    /// What it had and the new primary has not was taken back (`pg_rewind`).
    Rewound,
    /// It was copied anew.
    Copied,
}

impl Cluster {
    /// Makes a server, stopped first if it runs, a standby of `primary`, and starts it.
    ///
    /// # Errors
    /// What kept it from being copied or started.
    pub fn rejoin(&self, server: &Server, primary: &Server) -> Result<Rejoined, SandboxError> {
        server.stop(Shutdown::Immediate)?;
        // What was promoted a moment ago says so on its disk only after a checkpoint.
        primary.rows("CHECKPOINT")?;
        let rejoined = if rewind(server, primary) {
            Rejoined::Rewound
        } else {
            copy(server, primary)?;
            Rejoined::Copied
        };
        // Both ways bring the other's settings along.
        self.configure(server)?;
        server.follow(primary.port(), self.plan())?;
        server.start()?;
        Ok(rejoined)
    }
}

/// Whether it could be rewound: for that the program must be there, and the log as well.
fn rewind(server: &Server, primary: &Server) -> bool {
    let postgres = server.postgres();
    if !postgres.bin().join("pg_rewind").is_file() {
        return false;
    }
    let source = format!(
        "host={} port={} user={SUPERUSER} dbname=postgres",
        primary.socket_dir().display(),
        primary.port()
    );
    let mut command = postgres.command("pg_rewind", &server.data());
    command.arg("--target-pgdata").arg(server.data()).args(["--source-server", &source]);
    command.output().is_ok_and(|said| said.status.success())
}

/// Copies a running primary, as the manual has it (26.3.3 "Making a Base Backup Using the Low
/// Level API"); the log from the beginning of the copy comes from the primary itself.
fn copy(server: &Server, primary: &Server) -> Result<(), SandboxError> {
    let account = server.postgres().account();
    let name = quote_literal(server.name());
    // Renamed, and without the exclusive mode, since PostgreSQL 15.
    let (start, stop) = if server.version().major() >= 15 {
        (format!("SELECT pg_backup_start({name}, true)"), "SELECT labelfile FROM pg_backup_stop()")
    } else {
        (
            format!("SELECT pg_start_backup({name}, true, false)"),
            "SELECT labelfile FROM pg_stop_backup(false)",
        )
    };
    let failed = |source| SandboxError::Sql { server: primary.name().to_owned(), source };
    // The backup ends with its session.
    let mut session = primary.connect("postgres")?;
    session.rows(&start).map_err(failed)?;
    let data = server.data();
    fs::remove_dir_all(&data).map_err(SandboxError::file("remove", &data))?;
    copy_live_tree(&primary.data(), &data, account, &|path| belongs_to_one_server(path))?;
    let label = session.value(stop).map_err(failed)?;
    write_file(&data.join("backup_label"), &label, account)
}

/// What a copy leaves out, by its path in the data directory.
///
/// Source: PostgreSQL manual, 26.3.3.3 "Backing Up the Data Directory".
fn belongs_to_one_server(path: &Path) -> bool {
    const FILES: [&str; 4] =
        ["postmaster.pid", "postmaster.opts", "standby.signal", "backup_label"];
    const EMPTIED: [&str; 8] = [
        "pg_wal",
        "pg_replslot",
        "pg_dynshmem",
        "pg_notify",
        "pg_serial",
        "pg_snapshots",
        "pg_stat_tmp",
        "pg_subtrans",
    ];
    let mut parts = path.iter().map(|part| part.to_string_lossy());
    match (parts.next(), parts.next()) {
        (Some(file), None) => FILES.contains(&&*file),
        // The directories themselves must be there, and one within.
        (Some(dir), Some(within)) => EMPTIED.contains(&&*dir) && within != "archive_status",
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_leaves_out_what_belongs_to_one_server() {
        let left_out = |path: &str| belongs_to_one_server(Path::new(path));
        assert!(left_out("postmaster.pid") && left_out("pg_wal/000000010000000000000001"));
        assert!(!left_out("pg_wal") && !left_out("pg_wal/archive_status"));
        assert!(!left_out("base/1/1259") && !left_out("PG_VERSION"));
    }
}
