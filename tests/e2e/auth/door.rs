//! The least proxy that there can be, for tests of logins.

use super::postgres::{Postgres, psql};
use pgsteer::auth::rules::Rules;
use pgsteer::auth::{Access, Keyring, Method, Userlist};
use pgsteer::backend::{Backend, Login, SslMode, Target, TlsPolicy, connect};
use pgsteer::frontend::Introduction;
use pgsteer::frontend::login::{Entered, Gate, LoggedIn, Plaintext, enter};
use pgsteer::net::{Listener, ServerFiles, ServerTls, SocketFile, Stream};
use pgsteer::tasks;
use pgsteer::topology::ServerId;
use pgsteer::wire::frame::TxStatus;
use pgsteer::wire::message::{
    ErrorReport, Severity, write_error, write_key_data, write_parameter_status, write_ready,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};

/// Far more than anything takes.
pub const WITHIN: Duration = Duration::from_secs(10);

/// A login, a backend for it, and a pipe in between.
pub struct Door {
    pub port: u16,
    pub keyring: Arc<Keyring>,
}

/// A place to accept at without a shard.
pub enum Ear {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Ear {
    pub fn new(listener: Listener) -> Self {
        match listener {
            Listener::Tcp(tcp) => Self::Tcp(TcpListener::from_std(tcp).unwrap()),
            Listener::Unix(unix, file) => Self::Unix(UnixListener::from_std(unix).unwrap(), file),
        }
    }

    pub async fn accept(&self) -> Stream {
        match self {
            Self::Tcp(listener) => listener.accept().await.unwrap().0.into(),
            Self::Unix(listener, _) => listener.accept().await.unwrap().0.into(),
        }
    }
}

impl Door {
    pub fn open(gate: Gate, target: Option<Target>) -> Self {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        Self::at(listener, gate, target)
    }

    pub fn at(listener: Listener, gate: Gate, target: Option<Target>) -> Self {
        let port = listener.local_addr().map_or(0, |address| address.port());
        let keyring = Arc::clone(&gate.keyring);
        let gate = Arc::new(gate);
        let ear = Ear::new(listener);
        tasks::spawn("door", async move {
            loop {
                let stream = ear.accept().await;
                let (gate, target) = (Arc::clone(&gate), target.clone());
                tasks::spawn("client", async move {
                    match enter(stream, &gate).await {
                        Entered::Session(client) => serve(client, target, &gate.keyring).await,
                        Entered::Cancel(..) | Entered::Nobody(_) => (),
                    }
                });
            }
        });
        Self { port, keyring }
    }

    pub async fn psql(
        &self,
        user: &'static str,
        args: &'static [&'static str],
    ) -> Result<String, String> {
        let port = self.port;
        tokio::task::spawn_blocking(move || psql("127.0.0.1", port, user, args)).await.unwrap()
    }
}

async fn serve(mut client: LoggedIn, target: Option<Target>, keyring: &Keyring) {
    let Introduction { user, database, settings, .. } = &*client.introduction;
    assert_eq!(client.authenticated.user(), user);
    client.stream.write_all(&client.unsent).await.unwrap();
    let Some(target) = target else { return };
    let login =
        Login { params: settings.clone(), ..Login::new(user, database, keyring.secret_for(user)) };
    let mut out = Vec::new();
    match connect(&target, &login, WITHIN).await {
        Ok(Backend { mut stream, params, pid, key, .. }) => {
            for (name, value) in &params {
                write_parameter_status(&mut out, name, value);
            }
            write_key_data(&mut out, pid, &key);
            write_ready(&mut out, TxStatus::Idle);
            client.stream.write_all(&out).await.unwrap();
            let _ended = tokio::io::copy_bidirectional(&mut client.stream, &mut stream).await;
        }
        Err(error) => {
            let report = ErrorReport { severity: Severity::Fatal, ..error.report("db1") };
            write_error(&mut out, &report);
            client.stream.write_all(&out).await.unwrap();
        }
    }
}

pub fn gate(method: Method, file: &str) -> Gate {
    gate_by(Access::Everybody(method), file)
}

/// A gate with these rules.
pub fn by_rules(lines: &str, file: &str) -> Gate {
    gate_by(Access::ByRules(Arc::new(Rules::parse(lines).unwrap())), file)
}

fn gate_by(access: Access, file: &str) -> Gate {
    let keyring = Keyring::new(Userlist::parse(file).unwrap(), [9; 32]);
    Gate {
        access,
        keyring: Arc::new(keyring),
        lookup: None,
        lookup_age_max: Duration::ZERO,
        tls: None,
        plaintext: Plaintext::Allowed,
        timeout: WITHIN,
        failures: Arc::default(),
        // Most tests are of something else.
        failure_delay: Duration::ZERO,
    }
}

pub fn target(port: u16) -> Target {
    let policy = TlsPolicy { mode: SslMode::Disable, ..TlsPolicy::default() };
    Target::alone(ServerId(0), "db1", "127.0.0.1", port, &policy).unwrap()
}

pub fn server() -> Postgres {
    let server = Postgres::start(|_| {
        (
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256".into(),
            String::new(),
        )
    });
    server.sql("CREATE ROLE alice LOGIN PASSWORD 'secret'");
    server.sql("CREATE ROLE bob LOGIN PASSWORD 'other'");
    server.sql("CREATE ROLE nopass LOGIN");
    server
}

/// Our files with this name in this directory.
pub fn files(dir: &Path, name: &str) -> ServerFiles {
    let file = |end: &str| dir.join(format!("{name}.{end}"));
    ServerFiles { certificate: file("crt"), key: file("key"), client_ca: None }
}

/// The certificate of this name.
pub fn tls(dir: &Path, name: &str) -> Arc<ServerTls> {
    Arc::new(ServerTls::load(files(dir, name)).unwrap())
}
