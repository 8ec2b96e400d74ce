//! By which rule a client is let in, and by what proof.

use crate::auth;
use crate::auth::rules::{Certificate, Rule, RuleMethod, Rules, Secured, Through, Visit, Wants};
use crate::auth::{Access, Authenticated, Method, Origin, Refusal};
use crate::frontend::login;
use crate::frontend::login::{Failure, Gate, Visitor};
use crate::frontend::prove;
use crate::frontend::prove::{Claim, OldHash};
use crate::net;
use crate::net::Peer;
use crate::wire::startup::Replication;
use std::sync::Arc;
use tracing::debug;

/// Who wants in, and to what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) user: &'a Arc<str>,
    pub(super) database: &'a str,
    pub(super) replication: Replication,
}

/// Finds out whether a client is who it says, as the operator chose. Not cancel-safe: dropped, the
/// connection is of no more use.
pub(super) async fn authenticate(
    visitor: &mut Visitor,
    gate: &Gate,
    wish: Wish<'_>,
) -> Result<Authenticated, Failure> {
    match &gate.access {
        Access::Everybody(Method::Trust) => {
            let peer = visitor.peer;
            let origin = if peer.is_local() { Origin::SameMachine } else { Origin::Elsewhere };
            auth::trust(wish.user, origin, peer).map_err(refused)
        }
        Access::Everybody(Method::ScramSha256) => {
            by_password(visitor, gate, wish, OldHash::Refused).await
        }
        Access::ByRules(rules) => {
            let rule = find(visitor, rules, wish)?;
            debug!(peer = %visitor.peer, user = ?wish.user, line = rule.line, "a rule fits");
            by_rule(visitor, gate, (rule, wish)).await
        }
    }
}

/// The rule that decides.
fn find<'r>(visitor: &mut Visitor, rules: &'r Rules, wish: Wish<'_>) -> Result<&'r Rule, Failure> {
    let is_tls = visitor.line()?.stream.is_tls();
    let from = match visitor.peer {
        Peer::Unix => Through::Socket,
        Peer::Ip(address) => {
            let secured = if is_tls { Secured::Yes } else { Secured::No };
            Through::Network { address: address.ip().to_canonical(), secured }
        }
        Peer::Unknown => return Err(Failure::Left),
    };
    // A connection to a database is one, whatever else it takes.
    let wants = match wish.replication {
        Replication::Physical => Wants::Replication,
        Replication::None | Replication::Database => Wants::Database(wish.database),
    };
    let visit = Visit { from, user: wish.user, wants };
    let described = || {
        let encryption = if is_tls { "SSL encryption" } else { "no encryption" };
        let host = match visitor.peer {
            Peer::Ip(address) => format!("host \"{}\"", address.ip().to_canonical()),
            Peer::Unix | Peer::Unknown => "host \"[local]\"".to_owned(),
        };
        let Wish { user, database, replication } = wish;
        match replication {
            Replication::Physical => {
                format!("replication connection from {host}, user \"{user}\", {encryption}")
            }
            Replication::None | Replication::Database => {
                format!("{host}, user \"{user}\", database \"{database}\", {encryption}")
            }
        }
    };
    match rules.find(visit, net::is_ours) {
        None => Err(refused(Refusal::NoRule { visit: described() })),
        Some(rule) if rule.method == RuleMethod::Reject => {
            Err(refused(Refusal::Rejected { visit: described() }))
        }
        Some(rule) => Ok(rule),
    }
}

/// A certificate is demanded before anything else, and its name is looked at last.
///
/// Source: `ClientAuthentication` in `libpq/auth.c`.
async fn by_rule(
    visitor: &mut Visitor,
    gate: &Gate,
    (rule, wish): (&Rule, Wish<'_>),
) -> Result<Authenticated, Failure> {
    let demanded = rule.certificate != Certificate::NotNeeded || rule.method == RuleMethod::Cert;
    if demanded && visitor.certificate.is_none() {
        return Err(refused(Refusal::NoCertificate));
    }
    let named = |visitor: &Visitor| {
        let certificate = visitor.certificate.as_ref();
        let name = certificate.and_then(|certificate| certificate.common_name.as_deref());
        auth::by_certificate(wish.user, name).map_err(refused)
    };
    let authenticated = match rule.method {
        RuleMethod::Trust => auth::trust_by_rule(wish.user, rule),
        RuleMethod::ScramSha256 => by_password(visitor, gate, wish, OldHash::Refused).await?,
        RuleMethod::Md5 => by_password(visitor, gate, wish, OldHash::Allowed).await?,
        RuleMethod::Cert => named(visitor)?,
        RuleMethod::Peer => {
            let name = visitor.line()?.stream.peer_user();
            auth::by_peer(wish.user, name.as_deref()).map_err(refused)?
        }
        RuleMethod::Reject => return Err(Failure::Left), // it was refused where it was found
    };
    match rule.certificate {
        Certificate::OfTheUser => named(visitor),
        Certificate::NotNeeded | Certificate::Verified => Ok(authenticated),
    }
}

async fn by_password(
    visitor: &mut Visitor,
    gate: &Gate,
    wish: Wish<'_>,
    old_hash: OldHash,
) -> Result<Authenticated, Failure> {
    let bound_to = visitor.end_point.clone();
    let claim = Claim { user: wish.user, from: login::source(&visitor.peer) };
    let mut unsent = Vec::new();
    let there = (visitor.line()?, &mut unsent);
    let proved = prove::by_password(there, bound_to.as_ref(), (gate, claim), old_hash).await;
    visitor.unsent = unsent;
    proved
}

fn refused(refusal: Refusal) -> Failure {
    Failure::Refused { refusal, why: "" }
}
