//! One PostgreSQL with a `pg_hba.conf` and certificates of our own making.

use crate::support::cluster;
use pgsteer::sandbox::{Auth, Cluster, Plan, Scratch, Shutdown};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running server; stopped and removed with this value.
pub struct Postgres {
    /// Of its unix socket.
    pub dir: PathBuf,
    pub port: u16,
    cluster: Cluster,
    /// What `configure` made.
    _files: Scratch,
}

impl Postgres {
    /// Starts one. `configure` may put files into a directory, which are then in the data
    /// directory as well; it gives the lines of `pg_hba.conf` and of `postgresql.conf`.
    pub fn start(configure: impl FnOnce(&Path) -> (String, String)) -> Self {
        let files = Scratch::new().unwrap();
        let (hba, settings) = configure(files.path());
        let plan = Plan::new().standbys(0).auth(Auth::Listed).hba("local all all trust");
        let mut plan = plan.setting("max_connections", "20");
        for line in hba.lines() {
            plan = plan.hba(line);
        }
        for line in settings.lines() {
            let (name, value) = line.split_once(" = ").unwrap();
            plan = plan.setting(name, value.trim_matches('\''));
        }
        for file in std::fs::read_dir(files.path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            plan = plan.file(name, &std::fs::read_to_string(&path).unwrap());
        }
        let cluster = cluster(&plan);
        let (dir, port) = (cluster.primary().socket_dir().to_owned(), cluster.primary().port());
        Self { dir, port, cluster, _files: files }
    }

    /// Stops it; its port stays its own, so that no other test's server answers there.
    pub fn stop(&self) {
        self.cluster.primary().stop(Shutdown::Immediate).unwrap();
    }

    /// Stops every process of it where it stands; its connections stay open and are silent.
    pub fn freeze(&self) {
        self.cluster.primary().sigstop();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.cluster.primary().sigcont();
    }

    /// Runs SQL as the superuser through the unix socket; the first value, if there is one.
    pub fn sql(&self, sql: &str) -> String {
        let rows = self.cluster.primary().rows(sql).unwrap();
        let first = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        first.unwrap_or_default()
    }
}

/// Runs psql against whatever listens there, with the password `secret`.
pub fn psql(host: &str, port: u16, user: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-d", "postgres", "-h", host, "-p", &port.to_string(), "-U", user])
        .args(args)
        .env("PGPASSWORD", "secret")
        .env("PGSSLMODE", "prefer")
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// An authority `ca`, and from it a certificate `server` for `localhost` only; besides,
/// `other-ca`, which signed nothing, and `self`, which is authority and server in one.
pub fn certificates(dir: &Path) {
    let openssl = |args: &[&str]| {
        let made = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    for name in ["ca", "other-ca", "self"] {
        let (key, crt) = (format!("{name}.key"), format!("{name}.crt"));
        let subject = format!("/CN={name}");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &subject,
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &key,
            "-out",
            &crt,
        ]);
    }
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=server",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ]);
    std::fs::write(dir.join("server.ext"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "30",
        "-extfile",
        "server.ext",
        "-out",
        "server.crt",
    ]);
    for name in ["server", "self"] {
        let key = dir.join(format!("{name}.key"));
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
