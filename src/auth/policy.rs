//! What the operator chose about authentication.

use super::rules::Rules;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `[auth]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How clients prove who they are.
    pub access: Access,
    /// A file of users and their verifiers or passwords, in PgBouncer's format.
    pub file: Option<PathBuf>,
    /// The query that finds a user's verifier on a server; one parameter, the name; two columns,
    /// name and verifier. `None`: only the file counts.
    pub query: Option<String>,
    /// How long its answer counts for logins from where the user has proved himself; zero: not at
    /// all.
    pub query_cache: Duration,
}

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// All in the same way.
    Everybody(Method),
    /// As the first rule says that fits: `auth.hba_file`.
    ByRules(Arc<Rules>),
}

/// How clients prove who they are: `auth.method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all: on loopback and unix sockets only.
    Trust,
    /// SCRAM-SHA-256 against the verifier from the file or the query.
    ScramSha256,
}

/// Reads the verifier where the server keeps it, unless it has expired (`VALID UNTIL`); needs a
/// superuser as the control user.
pub(crate) const DEFAULT_QUERY: &str = "SELECT rolname::text, \
    CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
    FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";

impl Default for Policy {
    fn default() -> Self {
        Self {
            access: Access::Everybody(Method::Trust),
            file: None,
            query: Some(DEFAULT_QUERY.to_owned()),
            query_cache: Duration::from_secs(10),
        }
    }
}
