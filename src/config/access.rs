//! How clients prove who they are: `[auth]`, held against what it needs of the other sections.

use crate::auth;
use crate::auth::Access;
use crate::auth::rules::RuleMethod;
use crate::auth::rules::Rules;
use crate::config::build::Builder;
use crate::config::keys;
use crate::config::layers::Got;
use crate::config::listen::At;
use crate::config::listen::Listeners;
use crate::config::problem::NAME_A_FILE;
use crate::config::problem::Place;
use crate::config::types::ClientTls;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// The longest file of rules that is read.
const LONGEST: u64 = 1024 * 1024;

impl Builder<'_> {
    pub(super) fn auth(
        &mut self,
        listeners: &Got<Listeners>,
        tls: Option<&ClientTls>,
    ) -> auth::Policy {
        let method = self.get(&keys::AUTH_METHOD);
        let hba_file = self.get(&keys::AUTH_HBA_FILE);
        let file = self.get(&keys::AUTH_FILE);
        let query = self.get(&keys::AUTH_QUERY);
        if let Some(path) = &file.value
            && let Some(mode) = self.readable(path, &file.place)
        {
            self.private(path, mode, &file.place);
        }
        let nobody = file.value.is_none() && query.value.is_none();
        let access = if let Some(path) = &hba_file.value {
            if !method.is_default() {
                let message = "auth.method does not count where there are rules";
                let help = "leave it out, or auth.hba_file";
                self.notes().error(&method.place, message.to_owned(), help);
            }
            let rules = self.rules(path, &hba_file.place);
            self.rules_can_be_kept((path, &rules), &hba_file.place, (nobody, tls));
            Access::ByRules(Arc::new(rules))
        } else {
            match method.value {
                auth::Method::Trust if method.broken => {}
                auth::Method::Trust => self.trust_stays_home(&method, listeners),
                auth::Method::ScramSha256 if nobody => self.nobody_can_log_in(&query.place),
                auth::Method::ScramSha256 => {}
            }
            Access::Everybody(method.value)
        };
        let query_cache = self.get(&keys::AUTH_QUERY_CACHE).value;
        auth::Policy { access, file: file.value, query: query.value, query_cache }
    }

    fn nobody_can_log_in(&mut self, place: &Place) {
        let message = "nobody can log in: there is neither a file nor a query of verifiers";
        self.notes().error(place, message.to_owned(), "set auth.file or auth.query");
    }

    fn rules(&mut self, path: &Path, place: &Place) -> Rules {
        let shown = path.display();
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => {
                self.notes().error(place, format!("cannot read {shown}: {error}"), NAME_A_FILE);
                return Rules::default();
            }
        };
        Rules::parse(&text).unwrap_or_else(|errors| {
            for error in errors {
                self.notes().error(place, format!("{shown}:{error}"), error.remedy.clone());
            }
            Rules::default()
        })
    }

    /// What rules need of the rest, so that none can never be kept.
    fn rules_can_be_kept(
        &mut self,
        (path, rules): (&Path, &Rules),
        place: &Place,
        (nobody, tls): (bool, Option<&ClientTls>),
    ) {
        let at = |line: usize| format!("{}:{line}", path.display());
        if rules.is_empty() && !self.notes().has_errors() {
            let message = format!("{} has no rules: nobody can log in", path.display());
            self.notes().warning(place, message, "");
        }
        let proofs = [RuleMethod::ScramSha256, RuleMethod::Md5];
        if let Some(rule) = rules.first_with(&proofs).filter(|_| nobody) {
            let message =
                format!("{}: there is nothing to prove a password against", at(rule.line));
            self.notes().error(place, message, "set auth.file or auth.query");
        }
        if let Some(rule) = rules.first_with_certificate()
            && tls.is_none_or(|tls| tls.client_ca.is_none())
        {
            let message = format!("{}: clients are not asked for certificates", at(rule.line));
            self.notes().error(place, message, "set tls.cert, tls.key and tls.client_ca");
        } else if let Some(rule) = rules.first_with_tls().filter(|_| tls.is_none()) {
            let message = format!("{}: there is no TLS, so the line never fits", at(rule.line));
            self.notes().warning(place, message, "set tls.cert and tls.key");
        }
    }

    fn trust_stays_home(&mut self, method: &Got<auth::Method>, listeners: &Got<Listeners>) {
        for listener in &listeners.value.0 {
            let At::Tcp(address) = listener.at else { continue };
            if address.ip().to_canonical().is_loopback() {
                continue;
            }
            let by_default = if method.is_default() { ", the default," } else { "" };
            let message = format!(
                "with auth.method = \"trust\"{by_default} anybody who reaches {address} could log \
                 in as anybody"
            );
            let help = "set auth.method = \"scram-sha-256\", or listen on 127.0.0.1, [::1] or \
                        unix:/DIR only";
            self.notes().error(&listener.place, message, help);
        }
    }
}

/// A text of bounded length.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(LONGEST.saturating_add(1)).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LONGEST) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}
