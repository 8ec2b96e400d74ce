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
use std::collections::BTreeMap;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A primary, two standbys and a proxy that ends with the process.
#[derive(Debug)]
pub struct Inside {
    pub cluster: Cluster,
    address: SocketAddr,
    _port: Port,
}

/// A client that makes as little of an answer as can be: whether it came, and ended well.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
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
            // A standby that is silent on a crowded machine would send its reads elsewhere.
            flag("--set", "servers.check_timeout", "1m"),
            flag("--set", "routing.observation_age_max", "10m"),
        ];
        let servers = cluster.servers().iter();
        flags.extend(servers.map(|server| flag("--server", "servers.hosts", &server.address())));
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = Request { file: None, env: BTreeMap::from(env), flags };
        let loaded = request.load().unwrap_or_else(|report| panic!("{report}"));
        // It ends with the process.
        drop(std::thread::spawn(move || proxy::run(loaded.config, &request)));
        let inside = Self { cluster, address, _port: port };
        inside.await_reads();
        inside
    }

    /// A client that has logged in.
    pub fn client(&self) -> Client {
        self.try_client().expect("the proxy does not answer")
    }

    fn try_client(&self) -> Option<Client> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client { stream, buffer: Vec::new() };
        let mut startup = Vec::new();
        let params = [("user", SUPERUSER), ("database", "postgres")];
        message::write_startup(&mut startup, &params).unwrap();
        client.try_ask(&startup).then_some(client)
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
        if self.stream.write_all(bytes).is_err() {
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
