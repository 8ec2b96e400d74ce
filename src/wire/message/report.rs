//! Errors and notices that we raise.

use crate::pg::SqlState;
use crate::wire::frame;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Something that the user should know of.
    Warning,
    /// Something that the user may like to know.
    Notice,
}

impl Severity {
    /// The word on the wire; never translated.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// What a client is told of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReport {
    /// How bad it is.
    pub severity: Severity,
    /// Which error it is, to a program.
    pub code: SqlState,
    /// Which error it is, to a person: one line.
    pub message: String,
    /// More about this case.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ErrorReport {
    /// A statement failed.
    pub fn error(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    /// The connection ends.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, code, message.into())
    }

    /// Something that the user should know of.
    pub fn warning(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    /// The same with more about this case.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    const fn new(severity: Severity, code: SqlState, message: String) -> Self {
        Self { severity, code, message, detail: None, hint: None }
    }
}

/// Appends an `ErrorResponse`.
pub fn write_error(out: &mut Vec<u8>, report: &ErrorReport) {
    frame::write(out, b'E', |out| fields(out, report));
}

/// Appends a `NoticeResponse`.
pub fn write_notice(out: &mut Vec<u8>, report: &ErrorReport) {
    frame::write(out, b'N', |out| fields(out, report));
}

/// Source: PostgreSQL manual, 55.8 "Error and Notice Message Fields".
fn fields(out: &mut Vec<u8>, report: &ErrorReport) {
    let severity = report.severity.as_str();
    let fields = [
        (b'S', Some(severity)),
        (b'V', Some(severity)),
        (b'C', Some(report.code.as_str())),
        (b'M', Some(report.message.as_str())),
        (b'D', report.detail.as_deref()),
        (b'H', report.hint.as_deref()),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            out.push(field);
            super::write::text(out, value.as_bytes());
        }
    }
    out.push(0);
}
