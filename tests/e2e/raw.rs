//! A client that says exactly what a test tells it to, and shows every message that comes back.
//!
//! Drivers hide what matters here: where one write ends, which messages share it, and what
//! arrives that nobody asked for.

use crate::support::House;
use pgsteer::net::{Plain, Stream};
use pgsteer::sandbox::SUPERUSER;
use pgsteer::wire::frame;
use pgsteer::wire::message;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest silence before a test gives up: far beyond anything that a healthy run needs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The longest segment of a narrow connection, in bytes: what its sender's kernel keeps for it
/// grows with that.
const NARROW: u32 = 536;

/// A client of whatever speaks PostgreSQL there.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: Stream,
    received: Vec<u8>,
    taken: usize,
    /// What it was told at its login and since.
    pub(crate) params: BTreeMap<String, String>,
    /// How it is cancelled.
    pub(crate) pid: i32,
    pub(crate) secret: Vec<u8>,
    /// What it was told of the protocol.
    pub(crate) negotiated: Option<Message>,
    address: SocketAddr,
}

/// One message, header included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message(pub(crate) Vec<u8>);

/// Messages up to a `ReadyForQuery`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer(pub(crate) Vec<Message>);

impl Message {
    pub(crate) fn tag(&self) -> char {
        char::from(self.0[0])
    }

    pub(crate) fn columns(&self) -> Vec<Option<String>> {
        let text = |column: &[u8]| String::from_utf8_lossy(column).into_owned();
        let columns = message::read_data_row(&self.0).unwrap();
        columns.into_iter().map(|column| column.map(text)).collect()
    }

    pub(crate) fn code(&self) -> Option<String> {
        (self.tag() == 'E').then(|| message::read_error(&self.0).unwrap().code.to_string())
    }

    /// The field of an error or a notice, such as `H`, its hint.
    pub(crate) fn field(&self, field: u8) -> Option<String> {
        let mut fields = self.0[frame::HEADER..].split(|byte| *byte == 0);
        let found = fields.find(|text| text.first() == Some(&field))?;
        Some(String::from_utf8_lossy(&found[1..]).into_owned())
    }
}

impl Answer {
    /// The messages' tags: `12TDCZ`.
    pub(crate) fn tags(&self) -> String {
        self.0.iter().map(Message::tag).collect()
    }

    pub(crate) fn rows(&self) -> Vec<Vec<Option<String>>> {
        self.0.iter().filter(|message| message.tag() == 'D').map(Message::columns).collect()
    }

    /// The first column of the first row; NULL and nothing are empty.
    pub(crate) fn value(&self) -> String {
        assert_eq!(self.code(), None, "{self:?}");
        self.rows().first().and_then(|row| row[0].clone()).unwrap_or_default()
    }

    /// The SQLSTATE of the first error.
    pub(crate) fn code(&self) -> Option<String> {
        self.0.iter().find_map(Message::code)
    }

    pub(crate) fn error(&self) -> Option<&Message> {
        self.0.iter().find(|message| message.tag() == 'E')
    }

    /// What the last `ReadyForQuery` says: `I`, `T` or `E`.
    pub(crate) fn status(&self) -> char {
        char::from(self.0.last().unwrap().0[frame::HEADER])
    }
}

impl Raw {
    /// The superuser, through the house's proxy.
    pub(crate) async fn enter(house: &House) -> Self {
        Self::connect(house.proxy.address(), &[("user", SUPERUSER), ("database", "postgres")])
            .await
            .unwrap()
    }

    /// A user, through the house's proxy.
    pub(crate) async fn enter_as(house: &House, user: &str) -> Self {
        let login = [("user", user), ("database", "postgres")];
        Self::connect(house.proxy.address(), &login).await.unwrap()
    }

    /// Logs in where nobody asks for a proof; the error that came instead.
    pub(crate) async fn connect(
        address: SocketAddr,
        login: &[(&str, &str)],
    ) -> Result<Self, Message> {
        Self::connect_by(address, 0, login).await
    }

    /// The same by protocol 3.`minor`.
    pub(crate) async fn connect_by(
        address: SocketAddr,
        minor: u16,
        login: &[(&str, &str)],
    ) -> Result<Self, Message> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::log_in(Stream::from(stream), (address, minor), login).await
    }

    /// A user, through the house's proxy, by a connection that takes little at a time, as one from
    /// far away does; over TLS if there is something to connect it with.
    pub(crate) async fn enter_narrow(
        house: &House,
        user: &str,
        tls: Option<&TlsConnector>,
    ) -> Self {
        let address = house.proxy.address();
        let socket = TcpSocket::new_v4().unwrap();
        SockRef::from(&socket).set_tcp_mss(NARROW).unwrap();
        let tcp = socket.connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut tcp = Plain::Runtime(tcp);
        let stream = match tls {
            None => Stream::from(tcp),
            Some(connector) => {
                tcp.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
                assert_eq!(tcp.read_u8().await.unwrap(), b'S');
                let name = ServerName::try_from("localhost").unwrap();
                Stream::TlsClient(Box::new(connector.connect(name, tcp).await.unwrap()))
            }
        };
        let login = [("user", user), ("database", "postgres")];
        Self::log_in(stream, (address, 0), &login).await.unwrap()
    }

    async fn log_in(
        stream: Stream,
        (address, minor): (SocketAddr, u16),
        login: &[(&str, &str)],
    ) -> Result<Self, Message> {
        let mut raw = Self {
            stream,
            received: Vec::new(),
            taken: 0,
            params: BTreeMap::new(),
            pid: 0,
            secret: Vec::new(),
            negotiated: None,
            address,
        };
        let mut startup = Vec::new();
        message::write_startup(&mut startup, login).unwrap();
        startup[6..8].copy_from_slice(&minor.to_be_bytes());
        raw.send(&startup).await;
        loop {
            let message = raw.message().await.expect("the login ended without a word");
            match message.tag() {
                'E' => return Err(message),
                'v' => raw.negotiated = Some(message),
                'K' => {
                    raw.pid = i32::from_be_bytes(message.0[5..9].try_into().unwrap());
                    raw.secret = message.0[9..].to_vec();
                }
                'Z' => return Ok(raw),
                _ => {}
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // A server that closed is noticed by the next read.
        drop(pgsteer::timer::timeout(PATIENCE, sending).await.expect("stuck"));
    }

    /// Takes so many bytes off the connection, whatever they are.
    pub(crate) async fn sip(&mut self, bytes: usize) {
        let mut taken = vec![0; bytes];
        let read = pgsteer::timer::timeout(PATIENCE, self.stream.read_exact(&mut taken)).await;
        assert_eq!(read.expect("too little came in time").unwrap(), bytes);
    }

    /// The next message; `None` at the end of the connection.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        loop {
            let rest = &self.received[self.taken..];
            if let Some(header) = frame::peek(rest).unwrap()
                && rest.len() >= header.total
            {
                let message = Message(rest[..header.total].to_vec());
                self.taken += header.total;
                self.note(&message);
                return Some(message);
            }
            self.received.drain(..self.taken);
            self.taken = 0;
            let read = self.stream.read_buf(&mut self.received);
            let read = pgsteer::timer::timeout(PATIENCE, read).await;
            match read.expect("no answer came in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn note(&mut self, message: &Message) {
        if message.tag() == 'S' {
            let (name, value) = message::read_parameter_status(&message.0).unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.params.insert(text(name), text(value));
        }
    }

    /// Everything up to the next message with this tag.
    pub(crate) async fn until(&mut self, tag: char) -> Answer {
        let mut messages = Vec::new();
        loop {
            let Some(message) = self.message().await else {
                panic!("the connection ended before {tag:?}: {messages:?}")
            };
            let last = message.tag() == tag;
            messages.push(message);
            if last {
                return Answer(messages);
            }
        }
    }

    /// Everything up to the next `ReadyForQuery`.
    pub(crate) async fn ready(&mut self) -> Answer {
        self.until('Z').await
    }

    /// A `Query`, and its answer.
    pub(crate) async fn query(&mut self, sql: &str) -> Answer {
        self.send(&query(sql)).await;
        self.ready().await
    }

    /// A `Query` that must succeed; the first value of its first row.
    pub(crate) async fn value(&mut self, sql: &str) -> String {
        let answer = self.query(sql).await;
        assert_eq!(answer.code(), None, "{sql}: {answer:?}");
        answer.value()
    }

    /// Messages of the extended protocol, and the answer to the `Sync` behind them.
    pub(crate) async fn batch(&mut self, messages: &[Vec<u8>]) -> Answer {
        let mut bytes = messages.concat();
        bytes.extend(sync());
        self.send(&bytes).await;
        self.ready().await
    }

    /// Asks, on a connection of its own, that its statement be cancelled, and waits until that
    /// connection is closed.
    pub(crate) async fn cancel(&self) {
        cancel(self.address, self.pid, &self.secret).await;
    }

    /// Breaks the connection off, as if its machine had crashed and come back.
    pub(crate) fn reset(self) {
        let Stream::Tcp(tcp) = self.stream else { panic!("only TCP can be reset") };
        let linger = SockRef::from(&tcp.socket()).set_linger(Some(Duration::ZERO));
        linger.unwrap();
    }

    /// The end of the connection, and what came before it.
    pub(crate) async fn end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        messages
    }

    /// Says goodbye.
    pub(crate) async fn leave(mut self) {
        self.send(&goodbye()).await;
        self.end().await;
    }
}

/// Asks that somebody's statement be cancelled, and waits for the end of it.
pub(crate) async fn cancel(address: SocketAddr, pid: i32, secret: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = Vec::new();
    message::write_cancel_request(&mut bytes, pid, secret);
    stream.write_all(&bytes).await.unwrap();
    let mut rest = Vec::new();
    let ended = pgsteer::timer::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // Closed is closed, also with a reset.
    drop(ended.expect("a cancel must come to an end"));
}

pub(crate) fn message_of(tag: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, tag, body);
    out
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message_of(b'Q', |out| frame::write_text(out, sql.as_bytes()))
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message_of(b'P', |out| {
        frame::write_text(out, name.as_bytes());
        frame::write_text(out, sql.as_bytes());
        out.extend([0, 0]);
    })
}

/// `Bind` of the unnamed portal; parameters and results are text.
pub(crate) fn bind(name: &str, parameters: &[&[u8]]) -> Vec<u8> {
    bind_portal("", name, parameters)
}

pub(crate) fn bind_portal(portal: &str, name: &str, parameters: &[&[u8]]) -> Vec<u8> {
    message_of(b'B', |out| {
        frame::write_text(out, portal.as_bytes());
        frame::write_text(out, name.as_bytes());
        out.extend([0, 0]);
        out.extend(u16::try_from(parameters.len()).unwrap().to_be_bytes());
        for parameter in parameters {
            out.extend(u32::try_from(parameter.len()).unwrap().to_be_bytes());
            out.extend_from_slice(parameter);
        }
        out.extend([0, 0]);
    })
}

pub(crate) fn describe(name: &str) -> Vec<u8> {
    message_of(b'D', |out| {
        out.push(b'S');
        frame::write_text(out, name.as_bytes());
    })
}

pub(crate) fn execute() -> Vec<u8> {
    execute_portal("", 0)
}

pub(crate) fn execute_portal(portal: &str, rows: u32) -> Vec<u8> {
    message_of(b'E', |out| {
        frame::write_text(out, portal.as_bytes());
        out.extend(rows.to_be_bytes());
    })
}

pub(crate) fn close(name: &str) -> Vec<u8> {
    message_of(b'C', |out| {
        out.push(b'S');
        frame::write_text(out, name.as_bytes());
    })
}

pub(crate) fn sync() -> Vec<u8> {
    frame::SYNC.to_vec()
}

pub(crate) fn goodbye() -> Vec<u8> {
    message_of(b'X', |_| ())
}

pub(crate) fn flush() -> Vec<u8> {
    message_of(b'H', |_| ())
}

pub(crate) fn copy_data(data: &[u8]) -> Vec<u8> {
    message_of(b'd', |out| out.extend_from_slice(data))
}

pub(crate) fn copy_done() -> Vec<u8> {
    message_of(b'c', |_| ())
}

pub(crate) fn copy_fail(why: &str) -> Vec<u8> {
    message_of(b'f', |out| frame::write_text(out, why.as_bytes()))
}
