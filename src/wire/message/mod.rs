//! Whole messages: those that we raise ourselves, and the few that we read to the end.
//!
//! Nothing here is on the relay path; what is relayed is only framed ([`crate::wire::frame`]).
//! Authentication and startup are encoded with the `pgwire` crate, and server authentication
//! requests are decoded with it: their text is ASCII by definition, so its `String`s lose
//! nothing. It is given one complete framed message in a buffer of its own, must consume all of
//! it, and a panic in it counts as a malformed message. Everything else is read and written by
//! the small cursors here, because `pgwire` turns text that is not UTF-8 into replacement
//! characters, and an error in LATIN1 or a row of a `SQL_ASCII` database must survive us. The
//! tests hold both against each other.
//!
//! Invariants:
//! - Reading never panics and never allocates more than the message that it was given.
//! - What is written is one whole message, whatever the texts hold: a zero byte within a text
//!   would end it early and is left out.
//!
//! Deliberately absent: reading off a socket, and any opinion on when a message may be sent.

mod authentication;
mod read;
mod report;
mod write;

#[cfg(test)]
mod tests;

pub use authentication::{
    AuthRequest, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, SaslInitial, read_auth_request, read_password,
    read_sasl_initial, read_sasl_response, write_auth_request, write_password, write_sasl_initial,
    write_sasl_response,
};
pub use read::{
    ErrorFields, KeyData, Notification, read_columns, read_command_complete, read_data_row,
    read_error, read_key_data, read_notification, read_parameter_status, read_ready,
};
pub use report::{ErrorReport, Severity, write_error, write_notice};
pub use write::{
    SSL_REQUEST, TooLong, write_bind_text, write_cancel_request, write_command_complete,
    write_data_row, write_empty_query_response, write_execute, write_key_data,
    write_parameter_status, write_parse, write_parse_complete, write_query, write_ready,
    write_row_description, write_row_description_in, write_startup, write_sync, write_terminate,
};

/// A message whose inside is not laid out as the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {tag:?} is not laid out as the protocol says")]
pub struct Malformed {
    /// The message's tag.
    pub tag: char,
}

impl Malformed {
    pub(super) fn new(tag: u8) -> Self {
        Self { tag: char::from(tag) }
    }
}
