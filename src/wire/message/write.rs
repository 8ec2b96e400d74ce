//! Messages that we write.

use crate::wire::frame;
use crate::wire::frame::TxStatus;
use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::startup::Startup;

/// `SSLRequest`, whole.
///
/// Source: PostgreSQL manual, 55.7 "Message Formats".
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// The code that stands where a `StartupMessage` has its version, in a `CancelRequest`.
const CANCEL_CODE: u32 = 80_877_102;

/// The type `text`.
const TEXT_OID: u32 = 25;

/// Appends a `ReadyForQuery`.
pub fn write_ready(out: &mut Vec<u8>, status: TxStatus) {
    frame::write(out, b'Z', |out| out.push(status.byte()));
}

/// Appends a `ParameterStatus`.
pub fn write_parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame::write(out, b'S', |out| {
        text(out, name);
        text(out, value);
    });
}

/// Appends a `BackendKeyData`.
pub fn write_key_data(out: &mut Vec<u8>, pid: i32, key: &[u8]) {
    frame::write(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Appends a `CommandComplete`.
pub fn write_command_complete(out: &mut Vec<u8>, tag: &str) {
    frame::write(out, b'C', |out| text(out, tag.as_bytes()));
}

/// Appends an `EmptyQueryResponse`.
pub fn write_empty_query_response(out: &mut Vec<u8>) {
    frame::write(out, b'I', |_| ());
}

/// Appends a `ParseComplete`.
pub fn write_parse_complete(out: &mut Vec<u8>) {
    out.extend_from_slice(frame::PARSE_COMPLETE);
}

/// Appends a `RowDescription` of columns that are all of type `text`, in text format.
pub fn write_row_description(out: &mut Vec<u8>, names: &[&str]) {
    write_row_description_in(out, names, 0);
}

/// Appends a `RowDescription` of columns that are all of type `text`, in the format of this code.
pub fn write_row_description_in(out: &mut Vec<u8>, names: &[&str], format: u16) {
    frame::write(out, b'T', |out| {
        out.extend_from_slice(&count(names.len()));
        for name in names {
            text(out, name.as_bytes());
            out.extend_from_slice(&0_u32.to_be_bytes()); // of no table
            out.extend_from_slice(&0_u16.to_be_bytes()); // and no column of one
            out.extend_from_slice(&TEXT_OID.to_be_bytes());
            out.extend_from_slice(&(-1_i16).to_be_bytes()); // of variable length
            out.extend_from_slice(&(-1_i32).to_be_bytes()); // without modifier
            out.extend_from_slice(&format.to_be_bytes());
        }
    });
}

/// Appends a `DataRow`; `None` is NULL.
pub fn write_data_row(out: &mut Vec<u8>, columns: &[Option<&[u8]>]) {
    frame::write(out, b'D', |out| {
        out.extend_from_slice(&count(columns.len()));
        for column in columns {
            value(out, *column);
        }
    });
}

/// Appends a simple `Query`.
pub fn write_query(out: &mut Vec<u8>, sql: &str) {
    frame::write(out, b'Q', |out| text(out, sql.as_bytes()));
}

/// Appends a `Parse` that leaves all types to the server.
pub fn write_parse(out: &mut Vec<u8>, name: &[u8], sql: &[u8]) {
    frame::write(out, b'P', |out| {
        text(out, name);
        text(out, sql);
        out.extend_from_slice(&0_u16.to_be_bytes());
    });
}

/// Appends a `Bind` of the unnamed statement to the unnamed portal, all in text format.
pub fn write_bind_text(out: &mut Vec<u8>, parameters: &[&str]) {
    frame::write(out, b'B', |out| {
        out.extend_from_slice(&[0, 0]); // both names empty
        out.extend_from_slice(&0_u16.to_be_bytes());
        out.extend_from_slice(&count(parameters.len()));
        for parameter in parameters {
            value(out, Some(parameter.as_bytes()));
        }
        out.extend_from_slice(&0_u16.to_be_bytes());
    });
}

/// Appends an `Execute` of the unnamed portal, all of its rows.
pub fn write_execute(out: &mut Vec<u8>) {
    frame::write(out, b'E', |out| {
        out.push(0);
        out.extend_from_slice(&0_u32.to_be_bytes());
    });
}

/// Appends a `Sync`.
pub fn write_sync(out: &mut Vec<u8>) {
    out.extend_from_slice(frame::SYNC);
}

/// Appends a `Terminate`.
pub fn write_terminate(out: &mut Vec<u8>) {
    frame::write(out, b'X', |_| ());
}

/// Appends a `CancelRequest`.
pub fn write_cancel_request(out: &mut Vec<u8>, pid: i32, key: &[u8]) {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX).saturating_add(12);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&CANCEL_CODE.to_be_bytes());
    out.extend_from_slice(&pid.to_be_bytes());
    out.extend_from_slice(key);
}

/// Appends a `StartupMessage` of protocol 3.0.
///
/// # Errors
/// [`TooLong`] if the parameters exceed what a server takes.
pub fn write_startup(out: &mut Vec<u8>, params: &[(&str, &str)]) -> Result<(), TooLong> {
    let mut startup = Startup::new();
    for (name, value) in params {
        startup.parameters.insert(without_zero(name), without_zero(value));
    }
    put(out, &startup)
}

/// A message that the other side would not take for its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message is too long to be sent")]
pub struct TooLong;

/// Encodes with `pgwire`, which refuses only what is too long.
pub(super) fn put(out: &mut Vec<u8>, message: &impl Message) -> Result<(), TooLong> {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).map_err(|_| TooLong)?;
    out.extend_from_slice(&buffer);
    Ok(())
}

/// Appends a text and the zero that ends it, without the zeros within it.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8]) {
    if text.contains(&0) {
        let clean: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
        frame::write_text(out, &clean);
    } else {
        frame::write_text(out, text);
    }
}

/// A value with its length before it; `None` is NULL.
fn value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

fn without_zero(text: &str) -> String {
    text.replace('\0', "")
}

/// A number of columns; a row of ours never comes near the limit of 65 535.
fn count(columns: usize) -> [u8; 2] {
    u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes()
}
