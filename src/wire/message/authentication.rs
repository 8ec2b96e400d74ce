//! The messages of a login, both ways.

use super::Malformed;
use super::read::Reader;
use super::write::{TooLong, put};
use crate::wire::frame;
use crate::wire::frame::HEADER;
use bytes::{Bytes, BytesMut};
use pgwire::messages::startup::{Authentication, SASLInitialResponse, SASLResponse};
use pgwire::messages::{DecodeContext, Message};
use std::panic::AssertUnwindSafe;

/// The mechanism that we speak.
///
/// Source: RFC 7677.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The same with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What a server asks of a client during the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthRequest {
    /// Nothing more: the client is in.
    Ok,
    /// The password as it is.
    CleartextPassword,
    /// The password hashed with this salt.
    Md5Password([u8; 4]),
    /// One of these mechanisms.
    Sasl(Vec<String>),
    /// The next step of the mechanism.
    SaslContinue(Bytes),
    /// The last step of the mechanism.
    SaslFinal(Bytes),
    /// Something that we can't do: GSSAPI (7), SSPI (9), Kerberos (2), ...
    Other(i32),
}

/// Reads a server's `Authentication*` message.
pub fn read_auth_request(message: &[u8]) -> Result<AuthRequest, Malformed> {
    let mut reader = Reader::new(message, b'R')?;
    let code = reader.int32()?;
    let fixed = match code {
        0 | 3 => Some(0),
        5 => Some(4),
        10..=12 => None,
        _ => return Ok(AuthRequest::Other(code)),
    };
    if fixed.is_some_and(|length: usize| reader.rest().len() != length) {
        return Err(reader.malformed());
    }
    match decode::<Authentication>(message, b'R')? {
        Authentication::Ok => Ok(AuthRequest::Ok),
        Authentication::CleartextPassword => Ok(AuthRequest::CleartextPassword),
        Authentication::MD5Password(salt) => {
            salt.try_into().map(AuthRequest::Md5Password).map_err(|_| reader.malformed())
        }
        Authentication::SASL(mechanisms) => Ok(AuthRequest::Sasl(mechanisms)),
        Authentication::SASLContinue(data) => Ok(AuthRequest::SaslContinue(data)),
        Authentication::SASLFinal(data) => Ok(AuthRequest::SaslFinal(data)),
        Authentication::KerberosV5 | _ => Ok(AuthRequest::Other(code)),
    }
}

/// Appends a server's `Authentication*` message.
///
/// # Errors
/// [`TooLong`] if a client would not take it.
pub fn write_auth_request(out: &mut Vec<u8>, request: &AuthRequest) -> Result<(), TooLong> {
    let message = match request {
        AuthRequest::Ok => {
            out.extend_from_slice(frame::AUTHENTICATION_OK);
            return Ok(());
        }
        AuthRequest::CleartextPassword => Authentication::CleartextPassword,
        AuthRequest::Md5Password(salt) => Authentication::MD5Password(salt.to_vec()),
        AuthRequest::Sasl(mechanisms) => Authentication::SASL(mechanisms.clone()),
        AuthRequest::SaslContinue(data) => Authentication::SASLContinue(data.clone()),
        AuthRequest::SaslFinal(data) => Authentication::SASLFinal(data.clone()),
        AuthRequest::Other(code) => {
            frame::write(out, b'R', |out| out.extend_from_slice(&code.to_be_bytes()));
            return Ok(());
        }
    };
    put(out, &message)
}

/// A client's choice of mechanism, and its first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslInitial<'a> {
    /// The mechanism's name.
    pub mechanism: &'a [u8],
    /// Its first message, if it came along.
    pub data: Option<&'a [u8]>,
}

/// Reads a client's `SASLInitialResponse`.
pub fn read_sasl_initial(message: &[u8]) -> Result<SaslInitial<'_>, Malformed> {
    let mut reader = Reader::new(message, b'p')?;
    let mechanism = reader.text()?;
    let length = reader.int32()?;
    let data = if length == -1 {
        None
    } else {
        let length = usize::try_from(length).map_err(|_| reader.malformed())?;
        Some(reader.take(length)?)
    };
    reader.end()?;
    Ok(SaslInitial { mechanism, data })
}

/// Reads a client's `SASLResponse`.
pub fn read_sasl_response(message: &[u8]) -> Result<&[u8], Malformed> {
    Ok(Reader::new(message, b'p')?.rest())
}

/// Reads a client's `PasswordMessage`.
pub fn read_password(message: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(message, b'p')?;
    let password = reader.text()?;
    reader.end()?;
    Ok(password)
}

/// Appends a `SASLInitialResponse`.
///
/// # Errors
/// [`TooLong`] if a server would not take it.
pub fn write_sasl_initial(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) -> Result<(), TooLong> {
    let data = Bytes::copy_from_slice(data);
    put(out, &SASLInitialResponse::new(mechanism.to_owned(), Some(data)))
}

/// Appends a `SASLResponse`.
///
/// # Errors
/// [`TooLong`] if a server would not take it.
pub fn write_sasl_response(out: &mut Vec<u8>, data: &[u8]) -> Result<(), TooLong> {
    put(out, &SASLResponse::new(Bytes::copy_from_slice(data)))
}

/// Appends a `PasswordMessage`: a password as it is, or its md5 form.
///
/// In room that it does not outgrow: what is overwritten afterwards is all that there was.
pub fn write_password(out: &mut Vec<u8>, password: &[u8]) {
    out.reserve(HEADER + password.len() + 1);
    frame::write(out, b'p', |out| super::write::text(out, password));
}

/// Decodes one whole framed message with `pgwire`, which does not enforce the boundary itself.
fn decode<M: Message>(message: &[u8], tag: u8) -> Result<M, Malformed> {
    let malformed = Malformed::new(tag);
    match frame::peek(message) {
        Ok(Some(header)) if header.total == message.len() => (),
        Ok(_) | Err(_) => return Err(malformed),
    }
    let mut buffer = BytesMut::from(message);
    // The lengths that it trusts were checked by the caller; this is the second belt.
    let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| {
        M::decode(&mut buffer, &DecodeContext::default())
    }));
    match decoded {
        Ok(Ok(Some(decoded))) if buffer.is_empty() => Ok(decoded),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(malformed),
    }
}
