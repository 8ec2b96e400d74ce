//! What all sections share: a primary with two standbys, filled, and what clients prove
//! themselves with.

use pgsteer::sandbox::{Cluster, Plan, Postgres, Proxy, SUPERUSER, Server, Template};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The servers, and where files lie.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) postgres: Postgres,
    scratch: PathBuf,
    /// The superuser's name and SCRAM keys, as pgsteer and PgBouncer read them.
    pub(crate) userlist: PathBuf,
}

/// Rows of pgbench's tables: a scale at which everything fits into memory.
const SCALE: &str = "10";
/// The password, where one is asked for. The servers themselves trust everybody.
pub(crate) const PASSWORD: &str = "throw-away";

impl Site {
    /// Builds and fills it.
    pub(crate) fn build() -> Self {
        let postgres = Postgres::find(None).unwrap();
        let template = Template::new(postgres.clone()).unwrap();
        let plan = Plan::new()
            .setting("shared_buffers", "128MB")
            .setting("max_wal_size", "2GB")
            .setting("max_connections", "1200");
        let cluster = Cluster::start(&template, &plan).unwrap();
        let scratch = cluster.workshop("bench").unwrap();
        // PgBouncer runs as another user if we are root, and reads its files there.
        open_to_all(&scratch, 0o755);
        let site = Self { userlist: scratch.join("users"), cluster, postgres, scratch };
        site.fill();
        site.make_certificate();
        site
    }

    fn fill(&self) {
        let primary = self.cluster.primary();
        let port = self.primary().port().to_string();
        let mut pgbench = Proxy::command(&self.program("pgbench"));
        pgbench.args(["-h", "127.0.0.1", "-p", &port, "-U", SUPERUSER, "-i", "-q"]);
        let done = pgbench.args(["-s", SCALE, "postgres"]).output();
        let done = done.expect("pgbench is missing: it comes with PostgreSQL's server packages");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = "CREATE TABLE bulk AS SELECT id, repeat('x', 100) AS text \
                    FROM generate_series(1, 200000) id";
        primary.rows(text).unwrap();
        primary.rows("VACUUM ANALYZE bulk").unwrap();
        primary.rows(&format!("ALTER ROLE {SUPERUSER} PASSWORD '{PASSWORD}'")).unwrap();
        let keys = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{SUPERUSER}'");
        let keys = primary.value(&keys).unwrap();
        std::fs::write(&self.userlist, format!("\"{SUPERUSER}\" \"{keys}\"\n")).unwrap();
        open_to_all(&self.userlist, 0o644);
        self.cluster.await_replay().unwrap();
    }

    /// A key and a certificate for 127.0.0.1 that signs itself.
    fn make_certificate(&self) {
        let done = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "30", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "tls.key", "-out", "tls.crt"])
            .current_dir(&self.scratch)
            .output();
        // Without openssl the sections with TLS are not measured.
        if done.is_ok_and(|done| done.status.success()) {
            let key = std::fs::read(self.key()).unwrap();
            let theirs = self.foreign_key();
            std::fs::write(&theirs, key).unwrap();
            open_to_all(&self.certificate(), 0o644);
            open_to_all(&theirs, 0o644);
            open_to_all(&self.key(), 0o600);
        }
    }

    /// The certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.scratch.join("tls.crt")
    }

    /// Its key, as we read it.
    pub(crate) fn key(&self) -> PathBuf {
        self.scratch.join("tls.key")
    }

    /// The same key for programs that run as another user.
    pub(crate) fn foreign_key(&self) -> PathBuf {
        self.scratch.join("foreign.key")
    }

    /// Where the primary listens.
    pub(crate) fn primary(&self) -> SocketAddr {
        self.cluster.primary().address().parse().unwrap()
    }

    /// A program of PostgreSQL.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let own = self.postgres.bin().join(name);
        if own.exists() { own } else { name.into() }
    }

    /// Where runs may leave files.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The processes of all servers.
    pub(crate) fn server_processes(&self) -> Vec<u32> {
        let servers = self.cluster.servers().iter();
        servers.flat_map(Server::processes).map(|found| found.pid).collect()
    }
}

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
