//! Audits: a share of the backends that came free, and that were believed to be clean, is probed
//! all the same, behind the client's back.
//!
//! Whether a statement can leave something on its backend is told by its text and the database's
//! catalog, and either may be wrong: a built-in function that a superuser has replaced, a table
//! that got a trigger a moment ago, a hole in pgsteer. Nobody would notice but the next client. An
//! audit does, names the application that had the backend last, and the backend is closed.
//!
//! Invariants:
//! - No client waits for an audit of what it ran itself: it has its answer by then.
//! - A backend that is audited is nobody's, and rests in no pool.
//!
//! Deliberately absent: values. A setting may hold a secret; its name is enough to find who it was.

use crate::clock;
use crate::frontend::attached::{Attached, Standing};
use crate::frontend::client::Client;
use crate::frontend::own;
use crate::frontend::params::Reported;
use crate::frontend::probe;
use crate::frontend::probe::{Found, Letters};
use crate::frontend::settle::{letters, probed};
use crate::frontend::shard::Shard;
use crate::frontend::state::Session;
use crate::metrics::{AuditResult, DisconnectReason};
use crate::pg::quote_literal;
use crate::pool::{Checkout, Next, Trust};
use crate::session::{CustomNames, FirstRole, Settings};
use crate::tasks;
use crate::topology::Epoch;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use tracing::warn;

/// A backend that is audited, and who had it last.
struct Suspect {
    checkout: Checkout,
    application: Box<str>,
    user: Arc<str>,
    first_role: FirstRole,
    database: Arc<str>,
    letters: Letters,
    /// Under which primary it was taken, if from that.
    epoch: Option<Epoch>,
}

/// Custom settings, and the transaction's own, which a probe does not list.
const UNLISTED: [&str; 3] =
    ["transaction_isolation", "transaction_read_only", "transaction_deferrable"];

/// Takes a backend away from a session that is done with it, and has it audited.
pub(super) fn begin(client: &Client, session: &Session, attached: Attached) {
    let suspect = Suspect {
        application: client.reported.get("application_name").unwrap_or("").into(),
        user: Arc::clone(&session.user),
        first_role: session.first_role.clone(),
        database: Arc::clone(&session.database),
        letters: letters(&client.reported),
        epoch: (attached.standing == Standing::Primary).then_some(attached.epoch),
        checkout: attached.checkout,
    };
    // It ends with the answer, or with the time that any statement of ours has.
    tasks::spawn_local("audit", suspect.audit(Rc::clone(&client.shard)));
}

impl Suspect {
    /// Asks the server, and gives the backend back if it is clean.
    ///
    /// Not cancel-safe: dropped, the backend is closed.
    async fn audit(mut self, shard: Rc<Shard>) {
        let audits = &shard.shared.metrics.backends;
        let Ok(left) = self.look().await else {
            audits.audited(AuditResult::Unanswered);
            return;
        };
        if !left.is_empty() {
            warn!(
                event = "leak",
                application = %self.application,
                user = %self.user,
                database = %self.database,
                server = %self.checkout.running.target.name,
                left = %left,
                suspects = self.checkout.trust.holders,
                "a session has left something on a server connection, unseen; it is closed. Of \
                 {} sessions that have had it, this was the last",
                self.checkout.trust.holders,
            );
            audits.audited(AuditResult::Leak);
            self.checkout.close(DisconnectReason::Leak);
            return;
        }
        audits.audited(AuditResult::Clean);
        if self.epoch.is_some_and(|epoch| shard.has_lost(epoch)) {
            self.checkout.close(DisconnectReason::Failover);
            return;
        }
        self.checkout.trust = Trust { holders: 0, next: Next::Audited };
        self.checkout.release(clock::now());
    }

    /// What is there that is not known to be; nothing: `""`.
    async fn look(&mut self) -> Result<String, own::Unanswered> {
        let carried = Arc::clone(&self.checkout.carried);
        let custom: CustomNames = carried.iter().map(|(name, _)| name).collect();
        let sql = probe::sql((&self.user, &self.first_role), &custom);
        let found = self.probe(&sql).await?;
        let mut strange = differing(&carried, &found.settings, &self.first_role);
        // What a client gave at its start is carried as it was written: is it only that?
        let spelt = spelling(&carried, &strange);
        if !spelt.is_empty() {
            let mut reported = Reported::default();
            let answer = own::run_unhurried(&mut self.checkout, &spelt, &mut reported).await?;
            if answer.error.is_some() {
                return Err(own::Unanswered);
            }
            let again = self.probe(&sql).await?;
            strange.retain(|name| {
                carried.get(name).is_none() || again.settings.get(name) != found.settings.get(name)
            });
        }
        let mut left: Vec<String> = strange.into_iter().map(String::from).collect();
        if !found.pins.is_empty() {
            left.push(found.pins.told());
        }
        if found.prepared != Some(self.checkout.held.len()) {
            left.push("other prepared statements".to_owned());
        }
        Ok(left.join(", "))
    }

    async fn probe(&mut self, sql: &str) -> Result<Found, own::Unanswered> {
        let mut reported = Reported::default();
        let (_, found) = probed(&mut self.checkout, sql, &mut reported, self.letters).await?;
        Ok(found)
    }
}

/// The settings that are not as they are known to be.
fn differing(carried: &Settings, found: &Settings, first: &FirstRole) -> BTreeSet<Box<str>> {
    let none = |name: &str, value: &str| match name {
        "role" => value == first.shown(),
        name => value.is_empty() && name.contains('.'),
    };
    let there = found.iter().filter(|(name, value)| carried.get(name) != Some(value));
    let missing =
        carried.iter().filter(|(name, value)| found.get(name).is_none() && !none(name, value));
    let names = there.chain(missing).map(|(name, _)| name);
    names.filter(|name| !UNLISTED.contains(name)).map(Into::into).collect()
}

/// What gives those of these settings that are carried the value that they should have; `""` if
/// none is.
fn spelling(carried: &Settings, names: &BTreeSet<Box<str>>) -> String {
    let mut sql = String::new();
    for (name, value) in names.iter().filter_map(|name| Some((name, carried.get(name)?))) {
        sql.push_str("SELECT pg_catalog.set_config(");
        sql.push_str(&quote_literal(name));
        sql.push(',');
        sql.push_str(&quote_literal(value));
        sql.push_str(",false);");
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.set(name, value);
        }
        settings
    }

    #[test]
    fn what_is_not_as_it_is_known_to_be_is_found() {
        let carried = settings(&[
            ("work_mem", "4MB"),
            ("timezone", "UTC"),
            ("role", "none"),
            ("app.empty", ""),
            ("app.gone", "1"),
            ("transaction_isolation", "serializable"),
        ]);
        let found = settings(&[("work_mem", "4096"), ("timezone", "UTC"), ("search_path", "a")]);
        let names: Vec<_> =
            differing(&carried, &found, &FirstRole::default()).into_iter().collect();
        assert_eq!(
            names.iter().map(|name| &**name).collect::<Vec<_>>(),
            ["app.gone", "search_path", "work_mem"]
        );
        assert!(differing(&found, &found, &FirstRole::default()).is_empty());
        let other = differing(&carried, &found, &FirstRole::new("a"));
        assert!(other.contains("role"), "{other:?}");
    }

    #[test]
    fn only_what_is_carried_is_spelt_anew() {
        let names = ["search_path", "work_mem"].map(Into::into).into_iter().collect();
        assert_eq!(
            spelling(&settings(&[("work_mem", "4MB")]), &names),
            "SELECT pg_catalog.set_config('work_mem','4MB',false);"
        );
        assert_eq!(spelling(&Settings::default(), &names), "");
    }
}
