//! What is lacking on three servers of which one lacks something, and what is said of it.

use super::*;
use crate::auth::Secret;
use crate::failover::Profile;
use crate::failover::survey::sample::{before, cut_off, primary, standby};
use crate::failover::survey::{Before, Rights, Slot};
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
    let restarts = Policy { demotion: Demotion::CrashRestart, ..Policy::of(Profile::Aggressive) };
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
        Weight::Blocks,
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

/// db0 was a standby until a freeze emptied its link, and was promoted.
#[test]
fn who_was_promoted_keeps_its_name() {
    let one = [QUORUM; 3];
    let others = ["ANY 1 (s1, s2)", "ANY 1 (s0, s2)", "ANY 1 (s0, s1)"];
    let of = |lists: [&str; 3], was: &Before| {
        let mut set = Set3::new().but(0, |s| cut_off(s, was.clone()));
        for (at, list) in lists.into_iter().enumerate() {
            set = set.but(at, |s| {
                s.settings.cluster_name = "15/main".into();
                s.settings.synchronous_names = Ok(SyncNames::parse(list).unwrap());
            });
        }
        set
    };
    for lists in [one, others] {
        assert_eq!(of(lists, &before("s0")).gaps(), []);
        assert_ne!(of(lists, &Before::Nothing).gaps(), [], "the names are at stake");
    }
    let nameless = of(others, &Before::Nothing).but(0, |s| s.settings.cluster_name = "".into());
    let told = format!("{:?}", nameless.gaps());
    assert!(told.contains("give every server a name first"), "{told}");
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
    let roles = |count| (0..count).map(|role| Arc::from(format!("role r{role}"))).collect();
    lacks(
        &Set3::new().but(0, |s| s.settings.weak_commits = roles(7)),
        Weight::Warns,
        "db0: synchronous_commit is less than on for role r0, role r1, role r2, role r3, role r4 \
         and 2 more",
        "RESET synchronous_commit",
    );
    lacks(
        &Set3::new().but(0, |s| s.settings.hidden_warnings = roles(1)),
        Weight::Warns,
        "db0: client_min_messages hides warnings from role r0",
        "RESET client_min_messages",
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
    lacks(
        &used().but(1, |s| {
            s.slots = slot(SlotState::Fresh);
            s.settings.max_slots = 0;
        }),
        Weight::Blocks,
        "db1: max_replication_slots is 0; 1 are needed",
        "ALTER SYSTEM SET max_replication_slots = '1'",
    );
    // Nobody receives from itself.
    let own = used().but(1, |s| s.slots = slot(SlotState::Fresh));
    assert_eq!(own.but(2, |s| s.settings.max_slots = 0).gaps(), []);
    let through_before = Set3::new().but(0, through).but(1, |s| s.slots = slot(SlotState::Waiting));
    lacks(
        &through_before,
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
