//! The messages of a login, from our startup message to the server's `ReadyForQuery`.

use super::connect::Reported;
use super::error::{ConnectError, ServerError, Stage};
use super::io::{ReadError, message, random};
use super::policy::ChannelBinding;

use super::target::{CancelKey, Login};
use crate::auth::LoginSecret;
use crate::auth::scram::{
    Binding, ClientFinal, ClientFirst, ClientSecret, EndPoint, Nonce, ScramError,
};
use crate::auth::{md5_hash_response, md5_response};
use crate::net::Stream;
use crate::reactor;
use crate::wire::message::{
    AuthRequest, Malformed, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, read_auth_request, read_error,
    read_key_data, read_parameter_status, write_password, write_sasl_initial, write_sasl_response,
    write_startup,
};
use crate::wire::startup::Replication;
use bytes::BytesMut;
use std::io;
use tokio::io::AsyncWriteExt;
use zeroize::Zeroizing;

/// The longest message of a login, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;
/// Most messages of a login; PostgreSQL sends about twenty.
const MESSAGES_MAX: usize = 1000;
/// How much of a stranger's answer is shown, in bytes.
const ANSWER_SHOWN: usize = 24;

/// What a server tells about itself while it lets us in.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    pub(super) pid: i32,
    pub(super) key: CancelKey,
    pub(super) params: Vec<Reported>,
}

/// What the connection is to a proof.
struct Channel {
    wish: ChannelBinding,
    /// Whether it is a TLS connection.
    is_tls: bool,
    /// The server's end of it; `None` if nobody knows how to digest its certificate.
    end_point: Option<EndPoint>,
}

/// How far the proof of who we are has come.
enum Proof {
    /// Nothing was asked yet.
    Unasked,
    /// SCRAM: we said hello.
    First(ClientFirst),
    /// SCRAM: we have proved ourselves, the server has not.
    Final(ClientFinal),
    /// Nothing more is owed by either side.
    Given,
}

/// Logs in. Not cancel-safe: dropped, the connection is of no more use.
pub(super) async fn log_in(
    stream: &mut Stream,
    login: &Login,
    wish: ChannelBinding,
) -> Result<Welcome, ConnectError> {
    let mut buffer = BytesMut::new();
    let end_point = stream.end_point().map(EndPoint);
    let channel = Channel { wish, is_tls: stream.is_tls(), end_point };
    channel.is_possible()?;
    send(stream, &startup(login)?).await?;
    let mut proof = Proof::Unasked;
    let mut welcome = Welcome::default();
    let mut next = first_message(stream, &mut buffer).await?;
    for _ in 0..MESSAGES_MAX {
        match next.first().copied().unwrap_or_default() {
            b'R' => {
                let request = read_auth_request(&next).map_err(malformed)?;
                let (answer, state) = answer((login, &channel), proof, request)?;
                proof = state;
                if !answer.is_empty() {
                    send(stream, &answer).await?;
                }
            }
            b'Z' if matches!(proof, Proof::Given) => {
                settle(stream, &mut buffer, &mut welcome).await?;
                return Ok(welcome);
            }
            _ => welcome.take(&next)?,
        }
        let read = message(stream, &mut buffer, MESSAGE_MAX).await;
        next = read.map_err(ReadError::while_logging_in)?;
    }
    Err(ConnectError::Protocol { what: "its login does not end".to_owned() })
}

/// The first message decides whether this is PostgreSQL at all.
async fn first_message(
    stream: &mut Stream,
    buffer: &mut BytesMut,
) -> Result<BytesMut, ConnectError> {
    let read = message(stream, buffer, MESSAGE_MAX).await;
    let known = |tag: &u8| matches!(tag, b'R' | b'E' | b'N' | b'v');
    let stranger = |said: &[u8]| {
        let shown = said.get(..ANSWER_SHOWN.min(said.len())).unwrap_or_default();
        ConnectError::NotPostgres { answer: String::from_utf8_lossy(shown).into_owned() }
    };
    match read {
        Ok(first) if first.first().is_some_and(known) => Ok(first),
        Ok(first) => Err(stranger(&first)),
        Err(ReadError::Frame(_) | ReadError::TooLong { .. }) => Err(stranger(buffer)),
        Err(ReadError::Closed) if !buffer.is_empty() => Err(stranger(buffer)),
        Err(other) => Err(other.while_logging_in()),
    }
}

/// Reads on until nothing is left in `buffer`: a server may send a parameter, or end the
/// connection, right behind its `ReadyForQuery`.
async fn settle(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    welcome: &mut Welcome,
) -> Result<(), ConnectError> {
    while !buffer.is_empty() {
        let read = message(stream, buffer, MESSAGE_MAX).await;
        welcome.take(&read.map_err(ReadError::while_logging_in)?)?;
    }
    Ok(())
}

impl Welcome {
    /// Takes a message that asks nothing of us.
    fn take(&mut self, message: &[u8]) -> Result<(), ConnectError> {
        match message.first().copied().unwrap_or_default() {
            b'S' => {
                let (name, value) = read_parameter_status(message).map_err(malformed)?;
                self.params.push((name.into(), value.into()));
            }
            b'K' => {
                let data = read_key_data(message).map_err(malformed)?;
                self.pid = data.pid;
                self.key = CancelKey::new(data.key);
            }
            b'E' => {
                let fields = read_error(message).map_err(malformed)?;
                return Err(ConnectError::server(ServerError::new(&fields)));
            }
            // A notice; or the server's highest protocol, where it can't be below the 3.0 that
            // we asked for.
            b'N' | b'v' => (),
            other => {
                let what = format!("unexpected message {:?} during the login", char::from(other));
                return Err(ConnectError::Protocol { what });
            }
        }
        Ok(())
    }
}

fn startup(login: &Login) -> Result<Vec<u8>, ConnectError> {
    let mut params = vec![("user", &*login.user), ("database", &*login.database)];
    match login.replication {
        Replication::None => (),
        Replication::Physical => params.push(("replication", "true")),
        Replication::Database => params.push(("replication", "database")),
    }
    params.extend(login.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut out = Vec::new();
    let written = write_startup(&mut out, &params);
    written.map_err(|error| ConnectError::Protocol { what: error.to_string() })?;
    Ok(out)
}

/// What is answered to a server's request, and how far the proof has come then.
fn answer(
    (login, channel): (&Login, &Channel),
    proof: Proof,
    request: AuthRequest,
) -> Result<(Zeroizing<Vec<u8>>, Proof), ConnectError> {
    let mut out = Zeroizing::new(Vec::new());
    let too_long = |_| ConnectError::Protocol { what: "an answer is too long".to_owned() };
    let proof = match (request, proof) {
        (AuthRequest::Ok, Proof::Given) => Proof::Given,
        (AuthRequest::Ok, Proof::Unasked) => {
            channel.may_do_without()?;
            Proof::Given
        }
        (AuthRequest::CleartextPassword, Proof::Unasked) => {
            channel.may_do_without()?;
            write_password(&mut out, cleartext(login)?.as_bytes());
            Proof::Given
        }
        (AuthRequest::Md5Password(salt), Proof::Unasked) => {
            channel.may_do_without()?;
            write_password(&mut out, md5(login, salt)?.as_bytes());
            Proof::Given
        }
        (AuthRequest::Sasl(mechanisms), Proof::Unasked) => {
            let binding = channel.binding(&mechanisms)?;
            let mechanism = binding.mechanism();
            let (hello, next) = ClientFirst::new(scram_secret(login)?, binding, nonce()?);
            write_sasl_initial(&mut out, mechanism, hello.as_bytes()).map_err(too_long)?;
            Proof::First(next)
        }
        (AuthRequest::SaslContinue(data), Proof::First(state)) => {
            // The keys of a password are computed here, for milliseconds.
            reactor::send_now();
            let (proof, next) = state.next(&data)?;
            write_sasl_response(&mut out, proof.as_bytes()).map_err(too_long)?;
            Proof::Final(next)
        }
        (AuthRequest::SaslFinal(data), Proof::Final(state)) => {
            state.finish(&data)?;
            Proof::Given
        }
        (AuthRequest::Other(code), Proof::Unasked) => {
            return Err(ConnectError::Method { method: method(code) });
        }
        // Among them a server that says Ok before it has proved itself.
        (_, Proof::Unasked | Proof::First(_) | Proof::Final(_) | Proof::Given) => {
            let what = "it left out a step of the authentication".to_owned();
            return Err(ConnectError::Protocol { what });
        }
    };
    Ok((out, proof))
}

impl Channel {
    /// Whether the server can be given what is demanded of it at all.
    fn is_possible(&self) -> Result<(), ConnectError> {
        match (self.wish, self.is_tls, &self.end_point) {
            (ChannelBinding::Require, false, _) => {
                Err(ScramError::NotBound("there is no TLS to this server").into())
            }
            (ChannelBinding::Require, true, None) => {
                let what = "the server's certificate has no digest to bind to";
                Err(ScramError::NotBound(what).into())
            }
            (ChannelBinding::Require, true, Some(_))
            | (ChannelBinding::Disable | ChannelBinding::Prefer, _, _) => Ok(()),
        }
    }

    /// A server that asks for no proof, or for one that binds nothing.
    fn may_do_without(&self) -> Result<(), ConnectError> {
        match self.wish {
            ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
            ChannelBinding::Require => {
                let what = "the server asks for another proof than SCRAM";
                Err(ScramError::NotBound(what).into())
            }
        }
    }

    /// What is bound to, of what the server offers.
    ///
    /// Source: `pg_SASL_init` in `interfaces/libpq/fe-auth.c`.
    fn binding(&self, offered: &[String]) -> Result<Binding, ConnectError> {
        let has = |name: &str| offered.iter().any(|mechanism| mechanism == name);
        let plus = has(SCRAM_SHA_256_PLUS);
        if plus && !self.is_tls {
            let what = "it offers SCRAM-SHA-256-PLUS on a connection without TLS".to_owned();
            return Err(ConnectError::Protocol { what });
        }
        match (self.wish, &self.end_point) {
            (ChannelBinding::Prefer | ChannelBinding::Require, Some(end_point)) if plus => {
                Ok(Binding::Bound(end_point.clone()))
            }
            (ChannelBinding::Require, _) => {
                Err(ScramError::NotBound("the server does not offer it").into())
            }
            _ if !has(SCRAM_SHA_256) => Err(ConnectError::Method { method: offered.join(", ") }),
            (ChannelBinding::Prefer, Some(_)) => Ok(Binding::NotOffered),
            (ChannelBinding::Prefer, None) | (ChannelBinding::Disable, _) => {
                Ok(Binding::Unsupported)
            }
        }
    }
}

fn cleartext(login: &Login) -> Result<&str, ConnectError> {
    match &login.secret {
        LoginSecret::Password(password) => Ok(password.reveal()),
        LoginSecret::None | LoginSecret::Keys(_) | LoginSecret::Md5(_) => {
            Err(no_secret(login, "a password"))
        }
    }
}

fn md5(login: &Login, salt: [u8; 4]) -> Result<String, ConnectError> {
    match &login.secret {
        LoginSecret::Password(password) => Ok(md5_response(password.reveal(), &login.user, salt)),
        LoginSecret::Md5(hash) => {
            Ok(md5_hash_response(hash.reveal().trim_start_matches("md5"), salt))
        }
        LoginSecret::None | LoginSecret::Keys(_) => Err(no_secret(login, "an md5 password")),
    }
}

fn scram_secret(login: &Login) -> Result<ClientSecret, ConnectError> {
    match &login.secret {
        LoginSecret::Password(password) => Ok(ClientSecret::Password(password.clone())),
        LoginSecret::Keys(keys) => Ok(ClientSecret::Keys(keys.clone())),
        LoginSecret::None | LoginSecret::Md5(_) => Err(no_secret(login, "a SCRAM password")),
    }
}

fn no_secret(login: &Login, wanted: &'static str) -> ConnectError {
    ConnectError::NoSecret { user: login.user.to_string(), wanted }
}

/// Source: PostgreSQL manual, 55.7 "Message Formats".
fn method(code: i32) -> String {
    match code {
        2 => "Kerberos V5".to_owned(),
        7 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        other => format!("number {other}"),
    }
}

fn nonce() -> Result<Nonce, ConnectError> {
    random().map(Nonce::new).map_err(broken)
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), ConnectError> {
    stream.write_all(bytes).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

fn broken(source: io::Error) -> ConnectError {
    ConnectError::Broken { stage: Stage::LoggingIn, source }
}

fn malformed(error: Malformed) -> ConnectError {
    ConnectError::Protocol { what: error.to_string() }
}
