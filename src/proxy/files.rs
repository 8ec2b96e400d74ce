//! The files that the configuration names: whether what they hold can be used.
//!
//! The same code reads them at the start, at a reload and for `check-config`, so that none of the
//! three takes what another refuses. Nothing is opened to the network here.

use crate::auth::Userlist;
use crate::backend::Security;
use crate::config::Config;
use crate::net::{ServerFiles, ServerTls};
use crate::proxy::build::RunError;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Every file that can't be used, and why: `auth.file`, and the certificates and keys of `tls`,
/// `servers` and `peers`.
pub fn unusable_files(config: &Config) -> Vec<RunError> {
    let peers = config.peers.as_ref().map(|peers| Security::load(peers.tls.clone()));
    let all = [
        userlist(config).err(),
        client_tls(config).err(),
        Security::load(config.server_tls.clone()).err().map(RunError::from),
        peers.and_then(Result::err).map(RunError::from),
    ];
    all.into_iter().flatten().collect()
}

/// The users of `auth.file`.
pub(super) fn userlist(config: &Config) -> Result<Userlist, RunError> {
    let Some(path) = &config.auth.file else { return Ok(Userlist::default()) };
    let unreadable = |source| RunError::UserlistRead { path: path.clone(), source };
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    Userlist::parse(&text).map_err(|source| RunError::Userlist { path: path.clone(), source })
}

/// What clients are shown.
pub(super) fn client_tls(config: &Config) -> Result<Option<Arc<ServerTls>>, RunError> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let files = ServerFiles {
        certificate: tls.cert.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
    };
    Ok(Some(Arc::new(ServerTls::load(files)?)))
}
