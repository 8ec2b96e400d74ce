//! One PostgreSQL with a `pg_hba.conf` and certificates of our own making.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const BIN: &str = "/usr/lib/postgresql/15/bin";
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running server; stopped and removed with this value.
pub struct Postgres {
    pub dir: PathBuf,
    pub port: u16,
}

impl Postgres {
    /// Starts one. `configure` may put files into the data directory; it gives the lines of
    /// `pg_hba.conf` and of `postgresql.conf`.
    pub fn start(configure: impl FnOnce(&Path) -> (String, String)) -> Self {
        let dir = scratch("auth");
        let data = dir.join("data");
        let port = free_port();
        run(&["initdb", "-D", path(&data), "-U", "postgres", "-A", "trust", "--no-sync"]);
        let (hba, settings) = configure(&data);
        std::fs::write(data.join("pg_hba.conf"), format!("local all all trust\n{hba}")).unwrap();
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             fsync = off\nshared_buffers = 16MB\nmax_connections = 20\n{settings}\n",
            dir.display()
        );
        let file = data.join("postgresql.conf");
        let with = std::fs::read_to_string(&file).unwrap() + &settings;
        std::fs::write(&file, with).unwrap();
        let owned = Command::new("chown").args(["-R", "postgres"]).arg(&dir).status().unwrap();
        assert!(owned.success());
        let log = dir.join("log");
        run(&["pg_ctl", "-D", path(&data), "-l", path(&log), "-w", "start"]);
        Self { dir, port }
    }

    /// Runs SQL as the superuser through the unix socket.
    pub fn sql(&self, sql: &str) -> String {
        self.psql(path(&self.dir), "postgres", &["-c", sql]).unwrap()
    }

    /// Runs psql, with the password `secret` for whoever asks.
    pub fn psql(&self, host: &str, user: &str, args: &[&str]) -> Result<String, String> {
        psql(host, self.port, user, args)
    }
}

/// Runs psql against whatever listens there, with the password `secret`.
pub fn psql(host: &str, port: u16, user: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(format!("{BIN}/psql"))
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

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.dir.join("data");
        run(&["pg_ctl", "-D", path(&data), "-m", "immediate", "-w", "stop"]);
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// A fresh directory that everybody may enter.
pub fn scratch(what: &str) -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("pgsteer-{what}-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let owned = Command::new("chown").arg("postgres").arg(&dir).status().unwrap();
    assert!(owned.success());
    dir
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

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(args: &[&str]) {
    let output = Command::new("runuser")
        .args(["-u", "postgres", "--", &format!("{BIN}/{}", args[0])])
        .args(&args[1..])
        .current_dir("/")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
