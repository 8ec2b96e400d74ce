//! What we write, `pgwire` reads; what it writes, we read; and no bytes break us.

use super::*;
use crate::pg::SqlState;
use crate::wire::frame::TxStatus;
use bytes::{Bytes, BytesMut};
use pgwire::messages::data::{DataRow, RowDescription};
use pgwire::messages::response::{
    CommandComplete, ErrorResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::{BackendKeyData, ParameterStatus, PasswordMessageFamily, Startup};
use pgwire::messages::{DecodeContext, Message, ProtocolVersion};
use proptest::prelude::*;

fn oracle<M: Message>(bytes: &[u8]) -> M {
    let mut buffer = BytesMut::from(bytes);
    let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    let message = M::decode(&mut buffer, &context).unwrap().unwrap();
    assert!(buffer.is_empty(), "something is left");
    message
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Whatever comes out, nothing broke.
fn tried<T>(_outcome: T) {}

#[test]
fn an_error_arrives_as_it_was_reported() {
    let report = ErrorReport::fatal(SqlState::INVALID_PASSWORD, "no\0 entry")
        .with_detail("because")
        .with_hint("try again");
    let bytes = written(|out| write_error(out, &report));
    let fields: ErrorResponse = oracle(&bytes);
    let expected = [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', "28P01"),
        (b'M', "no entry"),
        (b'D', "because"),
        (b'H', "try again"),
    ];
    assert_eq!(fields.fields, expected.map(|(field, text)| (field, text.to_owned())));

    let read = read_error(&bytes).unwrap();
    assert_eq!(read.code, SqlState::INVALID_PASSWORD);
    assert_eq!(read.detail, Some(&b"because"[..]));
    assert!(read.is_fatal());
}

#[test]
fn an_error_in_latin1_keeps_its_bytes() {
    let bytes = b"E\0\0\0\x19SERROR\0C42P01\0Mgr\xFC\xDF\0\0";
    let read = read_error(bytes).unwrap();
    assert_eq!((read.severity, read.message), (&b"ERROR"[..], &b"gr\xFC\xDF"[..]));
}

#[test]
fn simple_messages_are_what_pgwire_reads() {
    let bytes = written(|out| write_ready(out, TxStatus::Failed));
    assert_eq!(oracle::<ReadyForQuery>(&bytes).status, TransactionStatus::Error);
    assert_eq!(read_ready(&bytes), Ok(TxStatus::Failed));

    let bytes = written(|out| write_parameter_status(out, b"TimeZone", b"UTC"));
    assert_eq!(oracle::<ParameterStatus>(&bytes).value, "UTC");
    assert_eq!(read_parameter_status(&bytes), Ok((&b"TimeZone"[..], &b"UTC"[..])));

    let bytes = written(|out| write_key_data(out, 7, &[0, 0, 1, 0]));
    assert_eq!(oracle::<BackendKeyData>(&bytes).secret_key.as_i32(), Some(256));
    assert_eq!(read_key_data(&bytes), Ok(KeyData { pid: 7, key: &[0, 0, 1, 0] }));

    let bytes = written(|out| write_command_complete(out, "SELECT 1"));
    assert_eq!(oracle::<CommandComplete>(&bytes).tag, "SELECT 1");
    assert_eq!(read_command_complete(&bytes), Ok(&b"SELECT 1"[..]));

    let bytes = written(|out| write_query(out, "SELECT 1"));
    assert_eq!(oracle::<Query>(&bytes).query, "SELECT 1");
}

#[test]
fn rows_are_what_pgwire_reads() {
    let bytes = written(|out| write_row_description(out, &["one", "two"]));
    let description: RowDescription = oracle(&bytes);
    assert_eq!(description.fields[1].name, "two");
    assert_eq!(description.fields[1].type_id, 25);
    assert_eq!(read_columns(&bytes), Ok(vec![&b"one"[..], &b"two"[..]]));

    let row = [Some(&b"a\0b"[..]), None, Some(&b""[..])];
    let bytes = written(|out| write_data_row(out, &row));
    assert_eq!(oracle::<DataRow>(&bytes).field_count, 3);
    assert_eq!(read_data_row(&bytes), Ok(row.to_vec()));
}

#[test]
fn a_startup_message_is_what_pgwire_reads() {
    let bytes = written(|out| write_startup(out, &[("user", "al\0ice")]).unwrap());
    let startup: Startup = oracle(&bytes);
    assert_eq!(startup.parameters.get("user").map(String::as_str), Some("alice"));

    let long = "x".repeat(10_000);
    assert!(write_startup(&mut Vec::new(), &[("user", &long)]).is_err());
}

#[test]
fn the_messages_of_a_login_go_both_ways() {
    let requests = [
        AuthRequest::Ok,
        AuthRequest::CleartextPassword,
        AuthRequest::Md5Password([1, 2, 3, 4]),
        AuthRequest::Sasl(vec![SCRAM_SHA_256.to_owned()]),
        AuthRequest::SaslContinue(Bytes::from_static(b"r=1")),
        AuthRequest::SaslFinal(Bytes::from_static(b"v=1")),
        AuthRequest::Other(9),
    ];
    for request in requests {
        let bytes = written(|out| write_auth_request(out, &request).unwrap());
        assert_eq!(read_auth_request(&bytes), Ok(request));
    }

    let bytes = written(|out| write_sasl_initial(out, SCRAM_SHA_256, b"n,,").unwrap());
    let initial = oracle::<PasswordMessageFamily>(&bytes).into_sasl_initial_response().unwrap();
    assert_eq!(initial.auth_method, SCRAM_SHA_256);
    let read = SaslInitial { mechanism: SCRAM_SHA_256.as_bytes(), data: Some(b"n,,") };
    assert_eq!(read_sasl_initial(&bytes), Ok(read));

    let bytes = written(|out| write_sasl_response(out, b"c=biws").unwrap());
    assert_eq!(read_sasl_response(&bytes), Ok(&b"c=biws"[..]));

    let bytes = written(|out| write_password(out, b"secret"));
    assert_eq!(read_password(&bytes), Ok(&b"secret"[..]));
}

#[test]
fn a_message_that_lies_about_itself_is_refused() {
    assert!(read_auth_request(b"R\0\0\0\x08\0\0\0\0x").is_err(), "longer than it says");
    assert!(read_auth_request(b"R\0\0\0\x0a\0\0\0\x05ab").is_err(), "half a salt");
    assert!(read_auth_request(b"R\0\0\0\x06\0\0").is_err(), "half a code");
    assert!(
        read_data_row(b"D\0\0\0\x0a\0\x01\x7f\xff\xff\xff").is_err(),
        "a column beyond the end"
    );
    assert!(read_key_data(b"K\0\0\0\x08\0\0\0\x01").is_err(), "no key");
    assert!(read_ready(b"Z\0\0\0\x06II").is_err(), "two states");
}

proptest! {
    /// Any bytes, and any bytes behind a right tag and length.
    #[test]
    fn no_bytes_make_reading_panic(
        tag in prop::sample::select(b"RESKZCTDNp".to_vec()),
        code in prop::option::of(0_i32..14),
        body in prop::collection::vec(any::<u8>(), 0..64),
        raw in prop::bool::ANY,
    ) {
        let mut message = body.clone();
        if !raw {
            message.clear();
            crate::wire::frame::write(&mut message, tag, |out| {
                out.extend(code.map(i32::to_be_bytes).into_iter().flatten());
                out.extend_from_slice(&body);
            });
        }
        tried(read_auth_request(&message));
        tried(read_error(&message));
        tried(read_parameter_status(&message));
        tried(read_key_data(&message));
        tried(read_ready(&message));
        tried(read_command_complete(&message));
        tried(read_columns(&message));
        tried(read_data_row(&message));
        tried(read_sasl_initial(&message));
        tried(read_sasl_response(&message));
        tried(read_password(&message));
    }

    #[test]
    fn any_row_survives_the_round_trip(
        row in prop::collection::vec(
            prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 0..12,
        ),
    ) {
        let columns: Vec<Option<&[u8]>> = row.iter().map(Option::as_deref).collect();
        let bytes = written(|out| write_data_row(out, &columns));
        prop_assert_eq!(read_data_row(&bytes), Ok(columns));
    }
}
