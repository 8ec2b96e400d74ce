//! TLS towards the servers: `[servers]`, else the servers' URIs, else libpq's variables.

use crate::backend::SslMode;
use crate::backend::SslNegotiation;
use crate::backend::TlsPolicy;
use crate::config::build::Builder;
use crate::config::hosts::Hosts;
use crate::config::hosts::UriLogin;
use crate::config::keys;
use crate::config::layers::Got;
use crate::config::login;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::setting::Choice;
use crate::config::setting::Setting as _;
use crate::net::Identity;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

impl Builder<'_> {
    pub(super) fn server_tls(&mut self, hosts: &Hosts) -> TlsPolicy {
        // A contradiction among the URIs is noted where the login is made.
        let uri = login::of_uris(&hosts.0, &mut Notes::default()).unwrap_or_default();
        let UriLogin { sslmode, channel_binding, sslnegotiation, .. } = uri;
        let mode = self.get(&keys::SSLMODE);
        let mode = self.choice(&mode, sslmode, "PGSSLMODE");
        let root = self.get(&keys::SSLROOTCERT);
        let (root_cert, place) = self.file(&root, "PGSSLROOTCERT");
        let root_cert = root_cert.filter(|path| path != Path::new("system"));
        if let Some(path) = &root_cert {
            self.readable(path, &place);
        }
        let identity = self.identity();
        let binding = self.get(&keys::CHANNEL_BINDING);
        let channel_binding = self.choice(&binding, channel_binding, "PGCHANNELBINDING");
        let said = self.get(&keys::SSLNEGOTIATION);
        let negotiation = self.choice(&said, sslnegotiation, "PGSSLNEGOTIATION");
        if negotiation == SslNegotiation::Direct {
            self.strong_enough(mode, &said.place);
        }
        TlsPolicy { mode, root_cert, identity, channel_binding, negotiation }
    }

    /// Without a request nobody can do without TLS: libpq refuses the same.
    fn strong_enough(&mut self, mode: SslMode, place: &Place) {
        match mode {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => {
                let message = format!(
                    "`servers.sslnegotiation` can't be `direct` with the weak sslmode {}",
                    mode.write()
                );
                let help = "set servers.sslmode to require, verify-ca or verify-full";
                self.notes().error(place, message, help);
            }
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (),
        }
    }

    /// What servers are shown.
    fn identity(&mut self) -> Option<Identity> {
        let cert = self.get(&keys::SSLCERT);
        let (certificate, cert_place) = self.file(&cert, "PGSSLCERT");
        let key = self.get(&keys::SSLKEY);
        let (key, key_place) = self.file(&key, "PGSSLKEY");
        let (place, message) = match (&certificate, &key) {
            (Some(certificate), Some(key)) => {
                self.readable(certificate, &cert_place);
                if let Some(about) = self.readable(key, &key_place) {
                    self.private(key, about, &key_place);
                }
                let (certificate, key) = (certificate.clone(), key.clone());
                return Some(Identity { certificate, key });
            }
            (None, None) => return None,
            (Some(_), None) => (&cert_place, "`servers.sslcert` is set, `servers.sslkey` is not"),
            (None, Some(_)) => (&key_place, "`servers.sslkey` is set, `servers.sslcert` is not"),
        };
        self.notes().error(place, message.to_owned(), "set both, or neither");
        None
    }

    /// A choice of `[servers]`, else of the URIs, else of a variable of libpq's.
    fn choice<T: Choice>(&mut self, said: &Got<T>, uri: Option<T>, variable: &str) -> T {
        if !said.is_default() {
            return said.value;
        }
        uri.or_else(|| self.choice_of_env(variable)).unwrap_or(said.value)
    }

    fn choice_of_env<T: Choice>(&mut self, variable: &str) -> Option<T> {
        let word = self.env.get(variable).filter(|word| !word.is_empty())?;
        let known = T::WORDS.iter().find(|(_, known)| known == word);
        if known.is_none() {
            let place = Place::Env(Arc::from(variable));
            let message = format!("`{word}` is not one of: {}", T::form().replace(" |", ","));
            self.notes().error(&place, message, "");
        }
        known.map(|(mode, _)| *mode)
    }

    /// A file of `[servers]`, else of a variable of libpq's.
    fn file(&self, said: &Got<Option<PathBuf>>, variable: &str) -> (Option<PathBuf>, Place) {
        match self.env.get(variable).filter(|path| !path.is_empty()) {
            Some(path) if said.is_default() => {
                (Some(PathBuf::from(path)), Place::Env(Arc::from(variable)))
            }
            Some(_) | None => (said.value.clone(), said.place.clone()),
        }
    }
}
