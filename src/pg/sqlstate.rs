//! The five characters on which drivers hang their retry logic.

use std::fmt;

/// An SQLSTATE: which error this is, to a program.
///
/// Source: PostgreSQL manual, appendix A "PostgreSQL Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState {
            $($(#[$doc])* pub const $name: Self = Self(*$code);)*
        }
    };
}

codes! {
    /// `warning`
    WARNING = b"01000";
    /// `sqlclient_unable_to_establish_sqlconnection`
    UNABLE_TO_CONNECT = b"08001";
    /// `connection_failure`
    CONNECTION_FAILURE = b"08006";
    /// `transaction_resolution_unknown`: the statement may have been executed.
    RESOLUTION_UNKNOWN = b"08007";
    /// `protocol_violation`
    PROTOCOL_VIOLATION = b"08P01";
    /// `feature_not_supported`
    FEATURE_NOT_SUPPORTED = b"0A000";
    /// `invalid_parameter_value`
    INVALID_PARAMETER_VALUE = b"22023";
    /// `no_active_sql_transaction`
    NO_ACTIVE_TRANSACTION = b"25P01";
    /// `read_only_sql_transaction`
    READ_ONLY_TRANSACTION = b"25006";
    /// `in_failed_sql_transaction`
    IN_FAILED_TRANSACTION = b"25P02";
    /// `idle_in_transaction_session_timeout`
    IDLE_IN_TRANSACTION_TIMEOUT = b"25P03";
    /// `transaction_timeout`
    TRANSACTION_TIMEOUT = b"25P04";
    /// `invalid_authorization_specification`
    INVALID_AUTHORIZATION = b"28000";
    /// `invalid_password`
    INVALID_PASSWORD = b"28P01";
    /// `invalid_catalog_name`: no such database.
    INVALID_CATALOG_NAME = b"3D000";
    /// `serialization_failure`: rolled back, run it again.
    SERIALIZATION_FAILURE = b"40001";
    /// `deadlock_detected`; on a standby also with its replay.
    DEADLOCK_DETECTED = b"40P01";
    /// `statement_completion_unknown`
    COMPLETION_UNKNOWN = b"40003";
    /// `insufficient_privilege`
    INSUFFICIENT_PRIVILEGE = b"42501";
    /// `invalid_name`: of a setting, among others.
    INVALID_NAME = b"42602";
    /// `undefined_object`: no such setting.
    UNDEFINED_OBJECT = b"42704";
    /// `duplicate_prepared_statement`
    DUPLICATE_PREPARED_STATEMENT = b"42P05";
    /// `too_many_connections`
    TOO_MANY_CONNECTIONS = b"53300";
    /// `configuration_limit_exceeded`
    CONFIGURATION_LIMIT = b"53400";
    /// `program_limit_exceeded`
    LIMIT_EXCEEDED = b"54000";
    /// `object_not_in_prerequisite_state`
    NOT_IN_PREREQUISITE_STATE = b"55000";
    /// `lock_not_available`: `lock_timeout`, or `NOWAIT`.
    LOCK_NOT_AVAILABLE = b"55P03";
    /// `query_canceled`
    QUERY_CANCELED = b"57014";
    /// `admin_shutdown`
    ADMIN_SHUTDOWN = b"57P01";
    /// `crash_shutdown`
    CRASH_SHUTDOWN = b"57P02";
    /// `cannot_connect_now`
    CANNOT_CONNECT_NOW = b"57P03";
    /// `idle_session_timeout`
    IDLE_SESSION_TIMEOUT = b"57P05";
    /// `system_error`
    SYSTEM_ERROR = b"58000";
    /// `internal_error`
    INTERNAL_ERROR = b"XX000";
    /// `undefined_pstatement`
    UNDEFINED_PREPARED_STATEMENT = b"26000";
    /// `configuration_file_error`
    CONFIGURATION_ERROR = b"F0000";
}

impl SqlState {
    /// The code in a server's message, if it has the right length.
    pub fn from_bytes(code: &[u8]) -> Option<Self> {
        code.try_into().ok().map(Self)
    }

    /// The code as text. Codes off the wire are ASCII; whatever else arrived reads as `?????`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }

    /// The first two characters, which name the family.
    pub fn class(&self) -> &str {
        self.as_str().get(..2).unwrap_or("??")
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SqlState({})", self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}
