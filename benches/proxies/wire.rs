//! A client that says what it wants and counts what comes: for thousands of idle ones, for bulk,
//! and for what pgbench can't do.

use crate::peer::Channel;
use crate::site::Site;
use pgsteer::wire::message;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Longest silence before a run fails.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// What is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// A client that has logged in.
pub(crate) struct Client {
    stream: Stream,
    /// What came behind the answer that was read last.
    behind: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How clients connect: made once for all of them.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    address: SocketAddr,
    /// Where they come from; `None`: wherever the system takes them from.
    from: Option<Ipv4Addr>,
    tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    /// Clients that connect there without TLS.
    pub(crate) const fn plain(address: SocketAddr) -> Self {
        Self { address, from: None, tls: None }
    }

    /// Clients that connect there like this.
    pub(crate) fn new(site: &Site, address: SocketAddr, channel: Channel) -> Result<Self, String> {
        let tls = match channel {
            Channel::Plain => None,
            Channel::Tls => Some(Arc::new(config(site)?)),
        };
        Ok(Self { address, from: None, tls })
    }

    /// The same, from this address of the machine.
    pub(crate) const fn coming_from(mut self, address: Ipv4Addr) -> Self {
        self.from = Some(address);
        self
    }

    /// One more client.
    pub(crate) fn client(&self) -> Result<Client, String> {
        self.client_as("postgres").map_err(|error| error.to_string())
    }

    /// One that logs in as this user.
    pub(crate) fn client_as(&self, user: &str) -> io::Result<Client> {
        let mut socket = match self.from {
            None => TcpStream::connect(self.address)?,
            Some(from) => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
                socket.bind(&SocketAddr::from((from, 0)).into())?;
                socket.connect(&self.address.into())?;
                socket.into()
            }
        };
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        let stream = match &self.tls {
            None => Stream::Plain(socket),
            Some(config) => {
                socket.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f")?;
                let mut answer = [0];
                socket.read_exact(&mut answer)?;
                if answer != *b"S" {
                    return Err(io::Error::other("no TLS"));
                }
                let name = ServerName::IpAddress(self.address.ip().into());
                let session = ClientConnection::new(Arc::clone(config), name);
                let session = session.map_err(io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        };
        let mut client = Client { stream, behind: Vec::new() };
        let mut startup = Vec::new();
        let params = [("user", user), ("database", "postgres")];
        message::write_startup(&mut startup, &params).map_err(io::Error::other)?;
        client.ask(&startup)?;
        Ok(client)
    }
}

impl Client {
    /// One `Query`; how many bytes came in answer to it.
    pub(crate) fn query(&mut self, sql: &str) -> io::Result<u64> {
        let mut bytes = Vec::new();
        message::write_query(&mut bytes, sql);
        self.ask(&bytes)
    }

    /// Sends only.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends the same again and again, until the other side takes no more; reads nothing.
    pub(crate) fn send_what_goes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Stream::Plain(socket) = &self.stream {
            socket.set_write_timeout(Some(Duration::from_millis(200)))?;
        }
        while length_sent(self.stream.write(bytes))? > 0 {}
        Ok(())
    }

    /// Sends, and reads up to `ReadyForQuery`; how many bytes came.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.send(bytes)?;
        self.await_ready(1)
    }

    /// Reads at most so many bytes of whatever comes; how many.
    pub(crate) fn take(&mut self, most: usize) -> io::Result<usize> {
        self.stream.read(&mut vec![0; most])
    }

    /// Reads up to so many `ReadyForQuery`; how many bytes came.
    pub(crate) fn await_ready(&mut self, times: usize) -> io::Result<u64> {
        let mut left = times;
        let mut chunk = vec![0; CHUNK];
        let mut count = 0;
        // A message's header, as far as it came, and how much of its body is to be passed over.
        let (mut header, mut skip) = (Vec::with_capacity(5), 0_u64);
        loop {
            let before = std::mem::take(&mut self.behind);
            let read = if before.is_empty() { self.stream.read(&mut chunk)? } else { before.len() };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let came = if before.is_empty() { &chunk } else { &before };
            let mut rest = came.get(..read).unwrap_or(&[]);
            count += length(read);
            while !rest.is_empty() {
                let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(rest.len());
                skip -= length(passed);
                rest = rest.get(passed..).unwrap_or(&[]);
                while header.len() < 5
                    && let Some((first, behind)) = rest.split_first()
                {
                    header.push(*first);
                    rest = behind;
                }
                let [tag, a, b, c, d] = *header.as_slice() else { break };
                match tag {
                    b'Z' if rest.is_empty() => break,
                    b'Z' if left <= 1 => {
                        self.behind = rest.get(1..).unwrap_or(&[]).to_vec();
                        return Ok(count);
                    }
                    b'E' => return Err(io::Error::other(String::from_utf8_lossy(rest))),
                    tag => {
                        left -= usize::from(tag == b'Z');
                        skip = u64::from(u32::from_be_bytes([a, b, c, d])) - 4;
                    }
                }
                header.clear();
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(session) => session.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(session) => session.flush(),
        }
    }
}

/// Trusts the site's own certificate, which signs itself.
fn config(site: &Site) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_file(site.certificate());
    let certificate = certificate.map_err(|error| format!("no certificate: {error}"))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| error.to_string())?;
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// 0 if nothing went within the time.
fn length_sent(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
