//! What a failover needs and does not have, found while all is well.
//!
//! `auto` arms only when nothing here blocks. The last survey of a server counts however old it
//! is: a primary that died would disarm its own failover otherwise.

use crate::failover::gap::{Gap, Lack, Remedy, Statement, Weight};
use crate::failover::promise::Known;
use crate::failover::survey::{Settings, SlotState, Survey, SurveyedRole, Switch};
use crate::failover::sync_names::same_name;
use crate::failover::{
    Demotion, Instance, Mode, Policy, Promise, Right, SyncMethod, SyncNames, WeakPromise, links,
    promise,
};
use crate::pg::{quote_identifier, quote_literal};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// From where the servers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onlooker {
    /// The proxy that would act: it must be alone, and hold the locks.
    Proxy,
    /// A command beside it: one proxy is as it should be.
    Command,
}

/// A standby sleeps for at most so long after an attempt to reach its primary that failed.
const RETRY_MOST: Duration = Duration::from_secs(1);

/// What is recommended.
const RETRY: &str = "100ms";

/// Connections of ours that take a walsender: to look, and to act.
const OUR_SENDERS: u32 = 2;

/// Everything that is lacking, on the servers in their order. `user` is the control user.
#[must_use]
pub fn prerequisites(
    servers: &[Known<'_>],
    policy: &Policy,
    (user, onlooker): (&str, Onlooker),
) -> Vec<Gap> {
    if policy.mode == Mode::Off {
        return Vec::new();
    }
    let set = Set { servers, policy, user };
    let mut gaps = set.of_all();
    gaps.extend(set.of_others(onlooker));
    for (name, survey) in servers {
        match survey {
            Some(survey) => {
                gaps.extend(set.of_any(name, survey));
                match &survey.role {
                    SurveyedRole::Primary { .. } if set.is_current(name) => {
                        gaps.extend(set.of_primary(name, survey));
                    }
                    // What became of it since then is not known.
                    SurveyedRole::Primary { .. } => {}
                    SurveyedRole::Standby { paused, .. } => {
                        gaps.extend(set.of_standby(name, survey));
                        if *paused {
                            let resume = "SELECT pg_wal_replay_resume()".to_owned();
                            gaps.push(warns(name, Lack::Paused, Remedy::Advice(resume)));
                        }
                    }
                }
            }
            // It must not disarm what works without it.
            None => gaps.push(warns(name, Lack::NeverSeen, advice("see `pgsteer status`"))),
        }
    }
    gaps
}

struct Set<'a> {
    servers: &'a [Known<'a>],
    policy: &'a Policy,
    user: &'a str,
}

impl<'a> Set<'a> {
    fn surveys(&self) -> impl Iterator<Item = (&'a Arc<str>, &'a Survey)> + use<'a> {
        let servers: &'a [Known<'a>] = self.servers;
        servers.iter().filter_map(|(name, survey)| survey.map(|survey| (*name, survey)))
    }

    /// The last that was seen to be the primary: one that died may have been one when it was
    /// surveyed last.
    fn primary(&self) -> Option<(&'a Arc<str>, &'a Survey)> {
        let primaries = self.surveys().filter(|(_, survey)| survey.is_primary());
        primaries.max_by_key(|(_, survey)| survey.answered)
    }

    fn is_current(&self, name: &str) -> bool {
        self.primary().is_some_and(|(primary, _)| **primary == *name)
    }

    fn standbys(&self) -> impl Iterator<Item = (&'a Arc<str>, &'a Survey)> + use<'a> {
        self.surveys().filter(|(_, survey)| !survey.is_primary())
    }

    /// What the primary promises now.
    fn promise(&self) -> Promise {
        let unseen = || Promise::Asynchronous(WeakPromise::NotSeen);
        self.primary().map_or_else(unseen, |(name, _)| promise(name, self.servers))
    }

    /// What no single server lacks.
    fn of_all(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let first =
            self.servers.first().map_or_else(|| Arc::from("servers"), |(name, _)| Arc::clone(name));
        let somewhere = self.primary().map_or(&first, |(name, _)| name);
        if self.primary().is_none() {
            gaps.push(blocks(somewhere, Lack::NoPrimary, advice("see `pgsteer status`")));
        }
        if self.standbys().next().is_none() {
            let add = advice("add a standby, and name it in servers.hosts");
            gaps.push(blocks(somewhere, Lack::NoStandby, add));
        } else if self.standbys().all(|(_, survey)| !survey.settings.apply_delay.is_zero()) {
            let add = advice("add a standby that does not delay its replay");
            gaps.push(blocks(somewhere, Lack::NoCandidate, add));
        }
        // Rights are in the log: what the primary grants, every standby does.
        if let Some((name, survey)) = self.primary().or_else(|| self.surveys().next()) {
            gaps.extend(self.of_rights(name, survey));
        }
        gaps
    }

    fn of_rights(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        if !survey.version.grants_settings() && !survey.rights.have(Right::Superuser) {
            let user = quote_identifier(self.user);
            let remedy = Remedy::Advice(format!("ALTER ROLE {user} SUPERUSER, or PostgreSQL 15"));
            return vec![blocks(name, Lack::Ungrantable, remedy)];
        }
        let restarts = self.policy.demotion == Demotion::CrashRestart;
        let unfit = (restarts && !survey.rights.have(Right::Superuser)).then(|| {
            let choose = format!(
                "ALTER ROLE {} SUPERUSER, or failover.demote = \"fence\"",
                quote_identifier(self.user)
            );
            warns(name, Lack::NotDemotable, Remedy::Advice(choose))
        });
        let mut seen = BTreeSet::new();
        let missing = NEEDED.iter().filter(|(right, _)| !survey.rights.have(*right));
        let grants = missing.filter_map(|(right, weight)| {
            let grant = right.grant(self.user)?;
            // Two rights may come with one grant.
            seen.insert(grant.clone()).then(|| Gap {
                server: Arc::clone(name),
                lack: Lack::Right(*right),
                weight: *weight,
                remedy: Remedy::Sql(vec![Statement::plain(grant)]),
            })
        });
        grants.chain(unfit).collect()
    }

    /// Other processes of our kind, and the locks by which one of them may act.
    fn of_others(&self, onlooker: Onlooker) -> Vec<Gap> {
        let all: BTreeSet<Instance> =
            self.surveys().flat_map(|(_, survey)| survey.others.iter().copied()).collect();
        let mut gaps = Vec::new();
        for (name, survey) in self.surveys() {
            let crowd = match onlooker {
                Onlooker::Proxy => !survey.others.is_empty(),
                Onlooker::Command => all.len() > 1 && !survey.others.is_empty(),
            };
            if crowd {
                let stop = advice("stop all but one, or set failover.mode = \"off\" in the others");
                gaps.push(blocks(name, Lack::Others(survey.others.clone()), stop));
            } else if onlooker == Onlooker::Proxy && !survey.locked {
                let wait = advice("stop whoever holds it; a session that is gone ends by itself");
                gaps.push(blocks(name, Lack::Unlocked, wait));
            }
        }
        gaps
    }

    /// What every server needs, for each may be the primary or a standby.
    fn of_any(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        let settings = &survey.settings;
        let on = |switch| settings.on.contains(&switch);
        let mut gaps = Vec::new();
        if !on(Switch::Alterable) {
            let set = advice("set allow_alter_system = on in postgresql.conf, and reload");
            gaps.push(blocks(name, Lack::Unalterable, set));
        }
        let archive = !survey.upstream.restore_command.reveal().is_empty();
        if archive && !survey.version.reloads_restore_command() {
            let choose =
                advice("take it out and restart it, with slots or wal_keep_size in its place");
            gaps.push(blocks(name, Lack::FixedArchive, choose));
        }
        if !on(Switch::HotStandby) {
            gaps.push(blocks(name, Lack::NotHot, restart(&[set("hot_standby", "on")])));
        }
        if !on(Switch::Checksums) && !on(Switch::HintsLogged) {
            let set = restart(&[set("wal_log_hints", "on")]);
            gaps.push(warns(name, Lack::NotRewindable, set));
        }
        let peers = u32::try_from(self.servers.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let (has, needs) = (settings.max_senders, peers.saturating_add(OUR_SENDERS));
        if has < needs {
            let set = restart(&[set("max_wal_senders", &(needs + peers).to_string())]);
            gaps.push(blocks(name, Lack::FewSenders { has, needs }, set));
        }
        let others = self.surveys().filter(|(other, _)| *other != name);
        let slots = others.filter(|(_, other)| !other.upstream.slot.is_empty()).count();
        let (has, needs) = (settings.max_slots, u32::try_from(slots).unwrap_or(u32::MAX));
        if has < needs {
            let set = restart(&[set("max_replication_slots", &needs.to_string())]);
            gaps.push(blocks(name, Lack::FewSlots { has, needs }, set));
        }
        if settings.retry_interval > RETRY_MOST {
            let set = sql([set("wal_retrieve_retry_interval", RETRY), reload()]);
            gaps.push(blocks(name, Lack::SlowRetry(settings.retry_interval), set));
        }
        if &*settings.target_timeline != "latest" {
            let target = Arc::clone(&settings.target_timeline);
            let set = restart(&[set("recovery_target_timeline", "latest")]);
            gaps.push(blocks(name, Lack::FixedTimeline(target), set));
        }
        gaps.extend(self.of_slots(name, survey));
        gaps
    }

    /// The slots that standbys would receive through if this were the primary; and those through
    /// which others received when it was.
    fn of_slots(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        let Some(slots) = &survey.slots else { return Vec::new() };
        let mut gaps = Vec::new();
        let others = self.surveys().filter(|(other, _)| *other != name);
        for (_, other) in others.filter(|(_, other)| !other.upstream.slot.is_empty()) {
            let wanted = &other.upstream.slot;
            let quoted = quote_literal(wanted);
            match slots.iter().find(|slot| slot.name == *wanted).map(|slot| slot.state) {
                // It keeps nothing until it is used, and a change of primary makes it first.
                None if !other.is_primary() => gaps.push(warns(
                    name,
                    Lack::NoSlot(Arc::clone(wanted)),
                    sql([Statement::plain(format!(
                        "SELECT pg_create_physical_replication_slot({quoted}, false)"
                    ))]),
                )),
                Some(SlotState::Waiting) if !survey.is_primary() => gaps.push(warns(
                    name,
                    Lack::IdleSlot(Arc::clone(wanted)),
                    Remedy::Advice(format!("SELECT pg_drop_replication_slot({quoted})")),
                )),
                None | Some(SlotState::Fresh | SlotState::Active | SlotState::Waiting) => {}
            }
        }
        // Several may name the same.
        gaps.dedup();
        gaps
    }

    fn of_primary(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if survey.settings.is_fenced() {
            let undo = "set synchronous_standby_names and default_transaction_read_only to what \
                        SET.secrets in the directory of state notes of this server, and reload it; \
                        ALTER SYSTEM RESET only what it does not note";
            gaps.push(warns(name, Lack::Fenced, advice(undo)));
        } else if let Promise::Asynchronous(why) = self.promise() {
            let choose = match self.quorum_of_all(1) {
                Some(names) if self.standbys().count() > 1 => format!(
                    "if none may be lost: ALTER SYSTEM SET synchronous_standby_names = {}",
                    quote_literal(&names.to_string())
                ),
                Some(_) | None => "if none may be lost: synchronous replication, with two \
                                   standbys or more"
                    .to_owned(),
            };
            gaps.push(warns(name, Lack::Asynchronous(why), Remedy::Advice(choose)));
        } else {
            gaps.extend(exempt(name, survey));
        }
        let slotless = self.standbys().any(|(_, standby)| standby.upstream.slot.is_empty());
        if survey.settings.keep_size == 0 && slotless {
            let choose = advice("ALTER SYSTEM SET wal_keep_size = '1GB', or a slot each");
            gaps.push(warns(name, Lack::NothingKept, choose));
        }
        gaps
    }

    fn of_standby(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        let mut gaps = self.of_link(name, survey);
        let promise = self.promise();
        if !survey.settings.apply_delay.is_zero() {
            gaps.push(if promise.counts(name) {
                let choose = advice("take it out of synchronous_standby_names");
                blocks(name, Lack::DelayedInQuorum, choose)
            } else {
                let none = advice("none is needed if that is what it is for");
                warns(name, Lack::Delayed, none)
            });
        }
        if let Promise::Quorum { w, .. } = promise
            && !self.keeps_the_quorum(name, survey)
        {
            let remedy = match self.quorum_of_all(w) {
                Some(names) => {
                    sql([set("synchronous_standby_names", &names.to_string()), reload()])
                }
                None => advice("give every server a name first"),
            };
            gaps.push(blocks(name, Lack::WeakerNames, remedy));
        }
        gaps
    }

    /// How a standby is connected: under which name, and whether its silence means something.
    fn of_link(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        let upstream = &survey.upstream;
        let Some(text) = upstream.conninfo.as_ref().filter(|text| !text.reveal().is_empty()) else {
            // Hidden: a right is missing, which is told already. Empty: it is frozen, or nobody's.
            return Vec::new();
        };
        let Some(link) = upstream.read() else {
            let set = advice("set primary_conninfo as libpq reads it");
            return vec![blocks(name, Lack::BrokenLink, set)];
        };
        let own = survey.application_name();
        let named = link.get("application_name").is_some_and(|name| !name.is_empty())
            || !survey.settings.cluster_name.is_empty();
        let twin = |other: &Survey| match (&own, other.application_name()) {
            (Some(own), Some(other)) => same_name(own, &other),
            (Some(_) | None, _) => false,
        };
        let mut lacks = Vec::new();
        let mut wanted = link;
        if !named {
            lacks.push(Lack::NoName);
        } else if self.surveys().any(|(other, survey)| other != name && twin(survey)) {
            lacks.push(Lack::SharedName(own.clone().unwrap_or_else(|| Arc::from(""))));
        }
        if !lacks.is_empty() {
            wanted = wanted.with("application_name", &links::name_for(name));
        }
        let primary = self.primary().map(|(_, survey)| &survey.settings);
        let most = self.policy.witness_fresh / 2;
        let may = survey.keepalive(primary);
        if may.is_none_or(|may| may > most) {
            let timeout = links::sender_timeout(self.policy.witness_fresh);
            wanted = wanted.with_option("wal_sender_timeout", &timeout);
            lacks.push(Lack::Silent { may, most });
        }
        // One change cures them all: each of two would undo the other.
        let change = links::change(text.reveal(), &wanted);
        let gap = |lack| blocks(name, lack, sql([change.clone(), reload()]));
        lacks.into_iter().map(gap).collect()
    }

    /// Whether this standby, as the primary, would wait for a quorum of our servers.
    fn keeps_the_quorum(&self, name: &Arc<str>, survey: &Survey) -> bool {
        let as_primary = Survey {
            role: SurveyedRole::Primary { receivers: Some(Vec::new()) },
            ..survey.clone()
        };
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(
                |(other, known)| {
                    if *other == name { (*other, Some(&as_primary)) } else { (*other, *known) }
                },
            )
            .collect();
        matches!(promise(name, &servers), Promise::Quorum { .. })
    }

    /// A list of all servers, the same for each of them.
    fn quorum_of_all(&self, count: u16) -> Option<SyncNames> {
        let names =
            self.servers.iter().map(|(_, survey)| survey.and_then(Survey::application_name));
        let names = names.collect::<Option<Vec<_>>>()?;
        Some(SyncNames::Listed { method: SyncMethod::Any, count, names })
    }
}

/// What our user needs, and how badly.
const NEEDED: [(Right, Weight); 12] = [
    (Right::Replication, Weight::Blocks),
    (Right::SeeStatistics, Weight::Blocks),
    (Right::SeeSettings, Weight::Blocks),
    (Right::EndSessions, Weight::Blocks),
    (Right::SetConninfo, Weight::Blocks),
    (Right::SetRestoreCommand, Weight::Blocks),
    (Right::SetSynchronousNames, Weight::Blocks),
    (Right::SetReadOnly, Weight::Blocks),
    (Right::Reload, Weight::Blocks),
    (Right::Promote, Weight::Blocks),
    (Right::ResumeReplay, Weight::Blocks),
    (Right::Checkpoint, Weight::Warns),
];

fn blocks(server: &Arc<str>, lack: Lack, remedy: Remedy) -> Gap {
    Gap { server: Arc::clone(server), lack, weight: Weight::Blocks, remedy }
}

/// Whose commits are outside of what the primary promises.
fn exempt(name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
    let Settings { weak_commits, hidden_warnings, .. } = &survey.settings;
    let lacks = [
        (weak_commits, Lack::WeakCommits(weak_commits.clone()), "synchronous_commit"),
        (hidden_warnings, Lack::HiddenWarnings(hidden_warnings.clone()), "client_min_messages"),
    ];
    let some = lacks.into_iter().filter(|(who, _, _)| !who.is_empty());
    some.map(|(_, lack, setting)| {
        let look = format!(
            "SELECT * FROM pg_db_role_setting; ALTER ROLE ... RESET {setting}, or DATABASE"
        );
        warns(name, lack, Remedy::Advice(look))
    })
    .collect()
}

fn warns(server: &Arc<str>, lack: Lack, remedy: Remedy) -> Gap {
    Gap { server: Arc::clone(server), lack, weight: Weight::Warns, remedy }
}

fn advice(text: &str) -> Remedy {
    Remedy::Advice(text.to_owned())
}

fn sql<const N: usize>(statements: [Statement; N]) -> Remedy {
    Remedy::Sql(statements.into())
}

fn restart(statements: &[Statement]) -> Remedy {
    Remedy::SqlAndRestart(statements.to_vec())
}

fn set(name: &str, value: &str) -> Statement {
    Statement::plain(format!("ALTER SYSTEM SET {name} = {}", quote_literal(value).trim()))
}

fn reload() -> Statement {
    Statement::plain("SELECT pg_reload_conf()".to_owned())
}

#[cfg(test)]
mod tests;
