//! Servers, and the proxy in front of them inside this process.

use crate::template::cluster;
use pgsteer::config::Flag;
use pgsteer::config::Request;
use pgsteer::proxy;
use pgsteer::sandbox::Cluster;
use pgsteer::sandbox::Plan;
use pgsteer::sandbox::Port;
use pgsteer::sandbox::SUPERUSER;
use pgsteer::sandbox::eventually;
use pgsteer::wire::frame;
use pgsteer::wire::message;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Backends of a pool: more than most tests have clients.
pub const BACKENDS: u32 = 8;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A primary, two standbys and a proxy that ends with the process.
#[derive(Debug)]
pub struct Inside {
    pub cluster: Cluster,
    address: SocketAddr,
    _port: Port,
    /// How clients shake hands; `None`: there is no openssl here to make a certificate with.
    tls: Option<Arc<ClientConfig>>,
}

/// A client that makes as little of an answer as can be: whether it came, and ended well.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Inside {
    /// Starts them; the table `notes` is there, and reads of it go to standbys.
    pub fn start() -> Self {
        let cluster = cluster(&Plan::new());
        let port = Port::free().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let create =
            "CREATE TABLE notes AS SELECT id, id AS value FROM generate_series(1, 1000) id";
        cluster.primary().rows(create).unwrap();
        cluster.primary().rows("CREATE INDEX ON notes (id)").unwrap();
        cluster.await_replay().unwrap();
        let state = cluster.workshop("state").unwrap().to_string_lossy().into_owned();
        let env = [("PGUSER", SUPERUSER), ("STATE_DIRECTORY", &state)];
        let flag = |name: &str, key: &str, value: &str| Flag {
            name: name.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let mut flags = vec![
            flag("--listen", "listen", &address.to_string()),
            flag("--http", "http", "off"),
            flag("--set", "pool.size", &BACKENDS.to_string()),
            // They come now and then, and not by a statement.
            flag("--set", "pool.audit_every", "0"),
            // A standby that is silent on a crowded machine would send its reads elsewhere.
            flag("--set", "servers.check_timeout", "1m"),
            flag("--set", "routing.observation_age_max", "10m"),
        ];
        let servers = cluster.servers().iter();
        flags.extend(servers.map(|server| flag("--server", "servers.hosts", &server.address())));
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let tls = certificate(Path::new(&state));
        if let Some((_, files)) = &tls {
            let [certificate, key] = files.each_ref().map(|file| file.to_string_lossy());
            flags.push(flag("--set", "tls.cert", &certificate));
            flags.push(flag("--set", "tls.key", &key));
        }
        let request = Request { file: None, env: BTreeMap::from(env), flags };
        let loaded = request.load().unwrap_or_else(|report| panic!("{report}"));
        // It ends with the process.
        drop(std::thread::spawn(move || proxy::run(loaded.config, &request)));
        let tls = tls.map(|(config, _)| config);
        let inside = Self { cluster, address, _port: port, tls };
        inside.await_reads();
        inside
    }

    /// A client that has logged in.
    pub fn client(&self) -> Client {
        self.try_client().expect("the proxy does not answer")
    }

    /// The same, over TLS; `None` if there is none.
    pub fn tls_client(&self) -> Option<Client> {
        let config = Arc::clone(self.tls.as_ref()?);
        let mut stream = self.dial()?;
        stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).ok()?;
        assert_eq!(answer, *b"S", "no TLS");
        let name = ServerName::IpAddress(self.address.ip().into());
        let session = ClientConnection::new(config, name).unwrap();
        let stream = Stream::Tls(Box::new(StreamOwned::new(session, stream)));
        log_in(Client { stream, buffer: Vec::new() })
    }

    fn dial(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(stream)
    }

    fn try_client(&self) -> Option<Client> {
        log_in(Client { stream: Stream::Plain(self.dial()?), buffer: Vec::new() })
    }

    /// Waits until reads go to standbys.
    fn await_reads(&self) {
        let mut query = Vec::new();
        message::write_query(&mut query, "SELECT pg_is_in_recovery() FROM notes LIMIT 1");
        let goes = eventually(PATIENCE, || {
            let mut client = self.try_client()?;
            client.try_ask(&query).then_some(())?;
            client.has_shown(b"\0\0\0\x01t").then_some(())
        });
        goes.expect("reads do not go to standbys");
    }
}

fn log_in(mut client: Client) -> Option<Client> {
    let mut startup = Vec::new();
    let params = [("user", SUPERUSER), ("database", "postgres")];
    message::write_startup(&mut startup, &params).unwrap();
    client.try_ask(&startup).then_some(client)
}

/// A certificate for 127.0.0.1 that signs itself, its file and its key's, and how to trust it.
fn certificate(dir: &Path) -> Option<(Arc<ClientConfig>, [PathBuf; 2])> {
    let files = ["tls.crt", "tls.key"].map(|name| dir.join(name));
    let done = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", "30", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&files[0])
        .arg("-keyout")
        .arg(&files[1])
        .output();
    if !done.ok()?.status.success() {
        return None;
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files[0]).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Some((Arc::new(config.with_root_certificates(roots).with_no_client_auth()), files))
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Client {
    /// Sends, and reads the answer to its end, which must be a good one.
    pub fn ask(&mut self, bytes: &[u8]) {
        let good = self.try_ask(bytes);
        assert!(good, "refused: {}", String::from_utf8_lossy(&self.buffer));
    }

    /// Whether the last answer held these bytes.
    pub fn has_shown(&self, bytes: &[u8]) -> bool {
        self.buffer.windows(bytes.len()).any(|window| window == bytes)
    }

    /// The same; whether it went well.
    fn try_ask(&mut self, bytes: &[u8]) -> bool {
        if self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_err() {
            return false;
        }
        self.buffer.clear();
        let (mut chunk, mut at) = ([0; 8 * 1024], 0);
        loop {
            while let Ok(Some(header)) = frame::peek(&self.buffer[at..])
                && at + header.total <= self.buffer.len()
            {
                match header.tag {
                    b'E' => return false,
                    b'Z' => return true,
                    _ => at += header.total,
                }
            }
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return false,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
    }
}
