//! What a failover needs and does not have, found while all is well.
//!
//! `auto` arms only when nothing here blocks. The last survey of a server counts however old it
//! is: a primary that died would disarm its own failover otherwise.

use crate::failover::gap::{Gap, Lack, Remedy, Statement, Weight};
use crate::failover::promise::Known;
use crate::failover::survey::{SlotState, Survey, SurveyedRole, Switch};
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
            gaps.push(warns(name, Lack::FewSenders { has, needs }, set));
        }
        let slots = self.surveys().filter(|(_, survey)| !survey.upstream.slot.is_empty()).count();
        let (has, needs) = (settings.max_slots, u32::try_from(slots).unwrap_or(u32::MAX));
        if has < needs {
            let set = restart(&[set("max_replication_slots", &needs.to_string())]);
            gaps.push(warns(name, Lack::FewSlots { has, needs }, set));
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

    /// The slots that standbys would receive through if this were the primary.
    fn of_slots(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        let Some(slots) = &survey.slots else { return Vec::new() };
        let mut gaps = Vec::new();
        let others = self.standbys().filter(|(other, _)| *other != name);
        for (_, other) in others.filter(|(_, other)| !other.upstream.slot.is_empty()) {
            let wanted = &other.upstream.slot;
            let quoted = quote_literal(wanted);
            match slots.iter().find(|slot| slot.name == *wanted).map(|slot| slot.state) {
                // It keeps nothing until it is used.
                None => gaps.push(warns(
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
                Some(SlotState::Fresh | SlotState::Active | SlotState::Waiting) => {}
            }
        }
        gaps
    }

    fn of_primary(&self, name: &Arc<str>, survey: &Survey) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if survey.settings.is_fenced() {
            let reset = "ALTER SYSTEM RESET synchronous_standby_names; \
                         ALTER SYSTEM RESET default_transaction_read_only; \
                         SELECT pg_reload_conf()";
            gaps.push(warns(name, Lack::Fenced, advice(reset)));
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
        } else if survey.settings.weak_commits > 0 {
            let lack = Lack::WeakCommits(survey.settings.weak_commits);
            let look = "SELECT * FROM pg_db_role_setting; ALTER ROLE ... RESET synchronous_commit";
            gaps.push(warns(name, lack, advice(look)));
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
mod tests {
    use super::*;
    use crate::auth::Secret;
    use crate::failover::Profile;
    use crate::failover::survey::sample::{primary, standby};
    use crate::failover::survey::{Rights, Slot};
    use crate::pg::Version;

    const QUORUM: &str = "ANY 1 (s0, s1, s2)";

    /// db0 is the primary, db1 and db2 stream from it; nothing is lacking.
    struct Set3(Vec<(Arc<str>, Option<Survey>)>);

    impl Set3 {
        fn new() -> Self {
            let mut servers = vec![
                ("db0".into(), Some(primary(QUORUM, &["s1", "s2"]))),
                ("db1".into(), Some(standby("s1"))),
                ("db2".into(), Some(standby("s2"))),
            ];
            for (_, survey) in &mut servers {
                let survey: &mut Survey = survey.as_mut().unwrap();
                survey.settings.synchronous_names = Ok(SyncNames::parse(QUORUM).unwrap());
            }
            Self(servers)
        }

        /// The same, but for this on one server.
        fn but(mut self, at: usize, change: impl FnOnce(&mut Survey)) -> Self {
            change(self.0[at].1.as_mut().unwrap());
            self
        }

        fn gaps_for(&self, policy: &Policy, onlooker: Onlooker) -> Vec<Gap> {
            let known: Vec<_> = self.0.iter().map(|(name, s)| (name, s.as_ref())).collect();
            prerequisites(&known, policy, ("pgsteer", onlooker))
        }

        fn gaps(&self) -> Vec<Gap> {
            self.gaps_for(&Policy::of(Profile::Aggressive), Onlooker::Proxy)
        }

        fn lacks(&self, lack: &Lack) -> bool {
            self.gaps().iter().any(|gap| gap.lack == *lack)
        }

        /// The one gap that it has: weight, what, and the remedy as it is shown.
        fn gap(&self) -> (Weight, String, String) {
            let gaps = self.gaps();
            let [gap] = gaps.as_slice() else { panic!("{gaps:#?}") };
            let shown = match &gap.remedy {
                Remedy::Advice(text) => text.clone(),
                Remedy::Sql(all) | Remedy::SqlAndRestart(all) => {
                    all.iter().map(|one| one.shown.clone()).collect::<Vec<_>>().join("; ")
                }
            };
            (gap.weight, gap.what(), shown)
        }
    }

    #[track_caller]
    fn lacks(set: &Set3, weight: Weight, what: &str, remedy: &str) {
        let (found_weight, found, shown) = set.gap();
        assert_eq!(found, what);
        assert_eq!(found_weight, weight, "{what}");
        assert!(shown.contains(remedy), "{what}: {shown}");
    }

    fn receives(survey: &mut Survey, link: &str) {
        survey.upstream.conninfo = Some(Secret::new(link.to_owned()));
    }

    #[test]
    fn a_set_that_has_everything_lacks_nothing() {
        assert_eq!(Set3::new().gaps(), []);
        let off = Policy { mode: Mode::Off, ..Policy::default() };
        let empty = Set3::new().but(1, |s| s.rights = Rights::default());
        assert_eq!(empty.gaps_for(&off, Onlooker::Proxy), [], "nothing is done, nothing is needed");
    }

    #[test]
    fn each_right_that_is_missing_is_named_with_its_grant() {
        let all: Vec<Right> = NEEDED.iter().map(|(right, _)| *right).collect();
        for (missing, weight) in NEEDED {
            let rest = all.iter().copied().filter(|right| *right != missing);
            let set = Set3::new().but(0, |s| s.rights = Rights::new(rest));
            let what = format!("db0: {}", Lack::Right(missing));
            assert_eq!(set.gap(), (weight, what, missing.grant("pgsteer").unwrap()));
        }
        let none = Set3::new().but(0, |s| s.rights = Rights::default());
        assert_eq!(none.gaps().len(), NEEDED.len() - 1, "pg_monitor is granted once");
        let granted = Set3::new().but(0, |s| s.rights = Rights::new(all.iter().copied()));
        assert_eq!(granted.gaps(), []);
        let restarts =
            Policy { demotion: Demotion::CrashRestart, ..Policy::of(Profile::Aggressive) };
        let gaps = granted.gaps_for(&restarts, Onlooker::Proxy);
        assert_eq!(gaps.iter().map(|gap| &gap.lack).collect::<Vec<_>>(), [&Lack::NotDemotable]);
        assert_eq!(Set3::new().gaps_for(&restarts, Onlooker::Proxy), [], "a superuser can");
        lacks(
            &none.but(0, |s| s.version = Version(140_010)),
            Weight::Blocks,
            "db0: the control user is no superuser, on this release",
            "SUPERUSER",
        );
    }

    /// What is changed, how bad that is, what is said, and what helps.
    type Case = (fn(&mut Survey), Weight, &'static str, &'static str);

    const OF_A_STANDBY: [Case; 10] = [
        (
            |s| s.settings.retry_interval = Duration::from_secs(5),
            Weight::Blocks,
            "db1: wal_retrieve_retry_interval is 5s",
            "ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms'; SELECT pg_reload_conf()",
        ),
        (
            |s| s.settings.target_timeline = "current".into(),
            Weight::Blocks,
            "db1: recovery_target_timeline is \"current\"",
            "ALTER SYSTEM SET recovery_target_timeline = 'latest'",
        ),
        (
            |s| s.role = SurveyedRole::Standby { paused: true, receiving: Some(true) },
            Weight::Warns,
            "db1: its replay is paused",
            "SELECT pg_wal_replay_resume()",
        ),
        (
            |s| s.settings.apply_delay = Duration::from_hours(1),
            Weight::Blocks,
            "db1: it replays with a delay, and is waited for",
            "synchronous_standby_names",
        ),
        (
            |s| s.settings.synchronous_names = Ok(SyncNames::None),
            Weight::Blocks,
            "db1: its synchronous_standby_names name no quorum of the servers",
            r#"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ("s0", "s1", "s2")'"#,
        ),
        (
            |s| s.settings.on.retain(|switch| *switch != Switch::Checksums),
            Weight::Warns,
            "db1: neither data checksums nor wal_log_hints are on",
            "ALTER SYSTEM SET wal_log_hints = 'on'",
        ),
        (
            |s| s.settings.max_senders = 3,
            Weight::Warns,
            "db1: max_wal_senders is 3; 4 are needed",
            "ALTER SYSTEM SET max_wal_senders = '6'",
        ),
        (
            |s| s.settings.on.retain(|switch| *switch != Switch::HotStandby),
            Weight::Blocks,
            "db1: hot_standby is off",
            "ALTER SYSTEM SET hot_standby = 'on'",
        ),
        (
            |s| s.settings.on.retain(|switch| *switch != Switch::Alterable),
            Weight::Blocks,
            "db1: allow_alter_system is off",
            "allow_alter_system = on",
        ),
        (
            |s| archived(s, Version(130_023)),
            Weight::Blocks,
            "db1: it has a restore_command, which before PostgreSQL 14 needs a restart to change",
            "take it out and restart it",
        ),
    ];

    fn archived(survey: &mut Survey, version: Version) {
        survey.version = version;
        survey.upstream.restore_command = Secret::new("cp /archive/%f %p".to_owned());
    }

    #[test]
    fn what_a_standby_lacks_is_named() {
        for (change, weight, what, remedy) in OF_A_STANDBY {
            lacks(&Set3::new().but(1, change), weight, what, remedy);
        }
        lacks(
            &Set3::new().but(1, |s| receives(s, "application_name=s1")),
            Weight::Blocks,
            "db1: its link may be silent for 30s; at most 300ms is allowed",
            "|| ' options=''-c wal_sender_timeout=400ms''') \\gexec",
        );
        let newer = Set3::new().but(1, |s| archived(s, Version(140_000)));
        assert_eq!(newer.gaps(), [], "it is taken away while it runs");
        let broken = Set3::new().but(1, |s| receives(s, "host"));
        assert!(broken.lacks(&Lack::BrokenLink));
    }

    /// Debian gives every server of a release the same `cluster_name`.
    #[test]
    fn a_name_must_be_its_own() {
        let unnamed = "options='-c wal_sender_timeout=400ms'";
        let mut twins = Set3::new();
        for at in 1..3 {
            twins = twins.but(at, |s| {
                s.settings.cluster_name = "15/main".into();
                receives(s, unnamed);
            });
        }
        let shared = Lack::SharedName("15/main".into());
        let gaps = twins.gaps();
        let of = |server: &str| gaps.iter().find(|g| &*g.server == server && g.lack == shared);
        assert!(of("db1").is_some() && of("db2").is_some(), "{gaps:#?}");
        let remedy = of("db1").unwrap().remedy.statements()[0].run.reveal();
        assert!(remedy.contains("application_name=''db1''"), "{remedy}");

        let nameless = Set3::new().but(1, |s| {
            s.settings.cluster_name = "".into();
            receives(s, unnamed);
        });
        assert!(nameless.lacks(&Lack::NoName));
    }

    fn asynchronous() -> Set3 {
        let none = |s: &mut Survey| s.settings.synchronous_names = Ok(SyncNames::None);
        Set3::new().but(0, none).but(1, none).but(2, none)
    }

    #[test]
    fn what_the_set_lacks_is_named() {
        lacks(
            &asynchronous(),
            Weight::Warns,
            "db0: it is asynchronous: synchronous_standby_names is empty",
            r#"'ANY 1 ("s0", "s1", "s2")'"#,
        );
        let delays = |s: &mut Survey| s.settings.apply_delay = Duration::from_secs(1);
        assert!(asynchronous().but(1, delays).but(2, delays).lacks(&Lack::NoCandidate));
        lacks(
            &Set3::new().but(0, |s| s.settings.weak_commits = 2),
            Weight::Warns,
            "db0: synchronous_commit is less than on for 2 roles or databases",
            "pg_db_role_setting",
        );
        let mut unseen = Set3::new();
        unseen.0[2].1 = None;
        assert!(unseen.lacks(&Lack::NeverSeen));
        let mut alone = Set3::new();
        alone.0.truncate(1);
        assert!(alone.lacks(&Lack::NoStandby));
        let fence = SyncNames::parse(crate::failover::FENCE).unwrap();
        let fenced = Set3::new().but(0, |s| s.settings.synchronous_names = Ok(fence));
        lacks(&fenced, Weight::Warns, "db0: it is fenced by an earlier change of primary", "RESET");
        let role = SurveyedRole::Standby { paused: false, receiving: Some(false) };
        assert!(Set3::new().but(0, |s| s.role = role).lacks(&Lack::NoPrimary));
    }

    #[test]
    fn a_slot_is_needed_wherever_its_standby_may_go_and_harms_where_it_lies_idle() {
        let through = |s: &mut Survey| s.upstream.slot = "two".into();
        let slot = |state| Some(vec![Slot { name: "two".into(), state }]);
        let used = || Set3::new().but(2, through).but(0, |s| s.slots = slot(SlotState::Active));
        lacks(
            &used(),
            Weight::Warns,
            "db1: it has no slot \"two\"",
            "SELECT pg_create_physical_replication_slot('two', false)",
        );
        lacks(
            &used().but(1, |s| s.slots = slot(SlotState::Waiting)),
            Weight::Warns,
            "db1: slot \"two\" keeps log for nobody",
            "SELECT pg_drop_replication_slot('two')",
        );
    }

    /// Two private stores must never mean two deciders.
    #[test]
    fn a_second_process_blocks() {
        let other = Instance(7);
        lacks(
            &Set3::new().but(1, |s| s.others = [other].into()),
            Weight::Blocks,
            "db1: other pgsteer processes are connected: 00000007",
            "stop all but one",
        );
        lacks(
            &Set3::new().but(1, |s| s.locked = false),
            Weight::Blocks,
            "db1: its control lock is held by somebody else",
            "stop",
        );

        // A command beside the one proxy finds it where it should be.
        let policy = Policy::of(Profile::Aggressive);
        let mut set = Set3::new();
        for at in 0..3 {
            set = set.but(at, |s| {
                s.others = [other].into();
                s.locked = false;
            });
        }
        assert_eq!(set.gaps_for(&policy, Onlooker::Command), []);
        let crowd = set.but(2, |s| s.others = [other, Instance(8)].into());
        assert!(!crowd.gaps_for(&policy, Onlooker::Command).is_empty());
    }
}
