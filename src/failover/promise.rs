//! What a primary promises about a write that it acknowledged.
//!
//! The quorum counts names, and anybody may take a name. So a quorum is believed only if every
//! name that counts belongs to one of our servers, and nobody else carries it: else freezing our
//! standbys would not keep the old primary from acknowledging.
//!
//! A standby that is not seen now keeps the name under which it was seen last. It may still
//! acknowledge; a promise that became weaker whenever a standby is out of sight would let the
//! other one be promoted without what only this one holds. So does one that was cut off, for the
//! same reason. And a fence, which keeps a primary from confirming anything, says nothing of what
//! was promised before it and will be behind it.

use crate::failover::survey::{ReceiverRow, Survey, SurveyedRole};
use crate::failover::sync_names::same_name;
use crate::failover::{Promise, SyncNames, WeakPromise};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A configured server, and the last that was known of it, however old.
pub type Known<'a> = (&'a Arc<str>, Option<&'a Survey>);

/// What the server called `primary` promises, as far as is known of it and of all.
/// [`WeakPromise::NotSeen`] says that it can't be told yet: no reason to change what was recorded.
#[must_use]
pub fn promise(primary: &str, servers: &[Known<'_>]) -> Promise {
    quorum(primary, servers).unwrap_or_else(Promise::Asynchronous)
}

fn quorum(primary: &str, servers: &[Known<'_>]) -> Result<Promise, WeakPromise> {
    let survey = servers.iter().find(|(name, _)| &***name == primary);
    let survey = survey.and_then(|(_, survey)| *survey).ok_or(WeakPromise::NotSeen)?;
    let SurveyedRole::Primary { receivers } = &survey.role else {
        return Err(WeakPromise::NotSeen);
    };
    if survey.settings.is_fenced() {
        return Err(WeakPromise::NotSeen);
    }
    let listed = match &survey.settings.synchronous_names {
        Ok(SyncNames::None) => return Err(WeakPromise::NoNames),
        Ok(listed) => listed,
        Err(text) => return Err(WeakPromise::Unreadable(Arc::clone(text))),
    };
    let SyncNames::Listed { count, .. } = listed else { return Err(WeakPromise::NoNames) };
    if listed.takes_anyone() {
        return Err(WeakPromise::Anyone);
    }
    if !confirms(&survey.settings.synchronous_commit) {
        return Err(WeakPromise::WeakCommit(Arc::clone(&survey.settings.synchronous_commit)));
    }
    let receivers = receivers.as_ref().ok_or(WeakPromise::Hidden)?;
    let mut cohort = BTreeSet::new();
    for name in listed.names() {
        let server = owner(name, servers)?;
        if &**server.0 == primary {
            // One list for all servers names the primary, too. It is none of its own standbys:
            // whoever receives under its name is another.
            carried_by_none(name, receivers)?;
        } else {
            cohort.insert(Arc::clone(server.0));
            carried_by_one(name, server, survey, receivers)?;
        }
    }
    if cohort.is_empty() {
        return Err(WeakPromise::NoNames);
    }
    // With more demanded than there are, nothing is ever acknowledged.
    let w = (*count).min(u16::try_from(cohort.len()).unwrap_or(u16::MAX));
    Ok(Promise::Quorum { w, cohort })
}

/// Whether a commit under this setting waits until standbys have flushed it.
fn confirms(synchronous_commit: &str) -> bool {
    matches!(synchronous_commit, "on" | "remote_apply")
}

/// The one server that calls itself so.
fn owner<'a>(name: &Arc<str>, servers: &[Known<'a>]) -> Result<Known<'a>, WeakPromise> {
    let mut owners = servers.iter().filter(|(_, survey)| {
        let own = survey.and_then(Survey::application_name);
        own.is_some_and(|own| same_name(&own, name))
    });
    match (owners.next(), owners.next()) {
        (Some(owner), None) => Ok(*owner),
        (Some(_), Some(_)) => Err(WeakPromise::SharedName(Arc::clone(name))),
        // One that was never seen, or never under its name, may be the one.
        (None, _)
            if servers.iter().any(|(_, survey)| survey.is_none_or(Survey::has_lost_its_name)) =>
        {
            Err(WeakPromise::NotSeen)
        }
        (None, _) if names_are_hidden(servers) => Err(WeakPromise::Hidden),
        (None, _) => Err(WeakPromise::UnknownName(Arc::clone(name))),
    }
}

fn names_are_hidden(servers: &[Known<'_>]) -> bool {
    let surveys = || servers.iter().filter_map(|(_, survey)| *survey);
    surveys().any(|survey| survey.upstream.conninfo.is_none())
}

/// Whether nobody receives under this name.
fn carried_by_none(name: &Arc<str>, receivers: &[ReceiverRow]) -> Result<(), WeakPromise> {
    let carried = receivers.iter().any(|row| same_name(&row.application, name));
    if carried { Err(WeakPromise::SharedName(Arc::clone(name))) } else { Ok(()) }
}

/// Whether nobody but this server receives under its name.
fn carried_by_one(
    name: &Arc<str>,
    (_, own): Known<'_>,
    primary: &Survey,
    receivers: &[ReceiverRow],
) -> Result<(), WeakPromise> {
    let shared = || WeakPromise::SharedName(Arc::clone(name));
    let mut rows = receivers.iter().filter(|row| same_name(&row.application, name));
    let Some(row) = rows.next() else { return Ok(()) };
    if rows.next().is_some() {
        return Err(shared());
    }
    let Some(own) = own else { return Ok(()) };
    // Somebody receives under its name since before this standby said that it receives from
    // nobody, and has replied since then.
    let began = primary.answered - row.connected;
    let replied = row.replied.map(|age| primary.asked - age);
    let receives_not = match own.role {
        SurveyedRole::Standby { receiving, .. } => receiving == Some(false),
        // A primary receives from nobody.
        SurveyedRole::Primary { .. } => true,
    };
    let another = began < own.asked && replied.is_some_and(|replied| replied > own.answered);
    if receives_not && another { Err(shared()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;
    use crate::clock::Moment;
    use crate::failover::survey::sample::{before, cut_off, primary, standby};
    use crate::failover::survey::{Before, FENCE};
    use std::time::Duration;

    const P: &str = "db0";

    /// Three servers: db0 is the primary, db1 and db2 stream from it under the names s1 and s2.
    struct Set([(Arc<str>, Option<Survey>); 3]);

    impl Set {
        fn new(names: &str) -> Self {
            let servers = [
                ("db0".into(), Some(primary(names, &["s1", "s2"]))),
                ("db1".into(), Some(standby("s1"))),
                ("db2".into(), Some(standby("s2"))),
            ];
            Self(servers)
        }

        fn survey(&mut self, at: usize) -> &mut Survey {
            self.0[at].1.as_mut().unwrap()
        }

        fn rows(&mut self) -> &mut Vec<ReceiverRow> {
            match &mut self.survey(0).role {
                SurveyedRole::Primary { receivers: Some(rows) } => rows,
                SurveyedRole::Primary { receivers: None } | SurveyedRole::Standby { .. } => {
                    panic!()
                }
            }
        }

        fn promise(&self) -> Promise {
            let known: Vec<_> = self.0.iter().map(|(name, s)| (name, s.as_ref())).collect();
            promise(P, &known)
        }
    }

    fn quorum(w: u16, cohort: &[&str]) -> Promise {
        Promise::Quorum { w, cohort: cohort.iter().map(|name| Arc::from(*name)).collect() }
    }

    fn weak(promise: Promise) -> WeakPromise {
        match promise {
            Promise::Asynchronous(why) => why,
            Promise::Quorum { .. } => panic!("{promise:?}"),
        }
    }

    #[test]
    fn a_quorum_is_of_our_servers_by_their_names() {
        let cases = [
            ("ANY 1 (s1, s2)", quorum(1, &["db1", "db2"])),
            ("FIRST 1 (s1, s2)", quorum(1, &["db1", "db2"])),
            ("s1", quorum(1, &["db1"])),
            ("ANY 2 (s1, S2)", quorum(2, &["db1", "db2"])),
            ("ANY 3 (s1, s2)", quorum(2, &["db1", "db2"])),
            ("ANY 1 (s0, s1, s2)", quorum(1, &["db1", "db2"])),
            ("", Promise::Asynchronous(WeakPromise::NoNames)),
            ("s0", Promise::Asynchronous(WeakPromise::NoNames)),
            ("*", Promise::Asynchronous(WeakPromise::Anyone)),
            ("ANY 1 (s1, \"*\")", Promise::Asynchronous(WeakPromise::Anyone)),
            ("ANY 1 (s1, x)", Promise::Asynchronous(WeakPromise::UnknownName("x".into()))),
        ];
        for (names, expected) in cases {
            assert_eq!(Set::new(names).promise(), expected, "{names}");
        }
    }

    /// All of them are called the same by their settings.
    fn named_by_links(names: &str) -> Set {
        let mut set = Set::new(names);
        for at in 0..3 {
            set.survey(at).settings.cluster_name = "15/main".into();
        }
        set
    }

    #[test]
    fn who_was_cut_off_counts_under_the_name_that_he_had() {
        for names in ["ANY 1 (s0, s1, s2)", "ANY 1 (s1, s2)"] {
            let mut set = named_by_links(names);
            cut_off(set.survey(1), before("s1"));
            assert_eq!(set.promise(), quorum(1, &["db1", "db2"]), "{names}: a frozen one");
            cut_off(set.survey(0), before("s0"));
            assert_eq!(set.promise(), quorum(1, &["db1", "db2"]), "{names}: a promoted one");
        }
    }

    #[test]
    fn who_was_cut_off_and_had_a_name_that_is_not_known_takes_nothing_away() {
        for unknown in [Before::Nothing, Before::Unread] {
            let mut set = named_by_links("ANY 1 (s0, s1, s2)");
            cut_off(set.survey(1), unknown);
            assert_eq!(weak(set.promise()), WeakPromise::NotSeen);
        }
        let mut set = named_by_links("ANY 1 (s0, s1, s2)");
        cut_off(set.survey(0), Before::Unread);
        assert_eq!(weak(set.promise()), WeakPromise::NotSeen);
        cut_off(set.survey(0), Before::Nothing);
        let unknown = WeakPromise::UnknownName("s0".into());
        assert_eq!(weak(set.promise()), unknown, "one that never was a standby has no other name");
        let mut set = Set::new("ANY 1 (s0, s1, s2)");
        cut_off(set.survey(0), Before::Nothing);
        assert_eq!(set.promise(), quorum(1, &["db1", "db2"]), "but that of its settings");
    }

    #[test]
    fn a_fence_says_nothing_of_what_is_promised_without_it() {
        assert_eq!(weak(Set::new(FENCE).promise()), WeakPromise::NotSeen);
        let beside = Set::new("ANY 1 (s1, pgsteer_fence)").promise();
        assert_eq!(weak(beside), WeakPromise::UnknownName(FENCE.into()), "it is none of ours");
    }

    #[test]
    fn a_commit_that_does_not_wait_for_a_flush_promises_nothing() {
        for (value, kept) in
            [("on", true), ("remote_apply", true), ("remote_write", false), ("local", false)]
        {
            let mut set = Set::new("ANY 1 (s1, s2)");
            set.survey(0).settings.synchronous_commit = value.into();
            assert_eq!(set.promise() == quorum(1, &["db1", "db2"]), kept, "{value}");
        }
    }

    #[test]
    fn a_name_that_two_carry_makes_no_quorum() {
        let shared = || WeakPromise::SharedName("s1".into());

        let mut two_servers = Set::new("ANY 1 (s1, s2)");
        two_servers.survey(2).upstream.conninfo =
            Some(Secret::new("application_name=s1".to_owned()));
        assert_eq!(weak(two_servers.promise()), shared());

        let mut two_receivers = Set::new("ANY 1 (s1, s2)");
        let twin = two_receivers.rows()[0].clone();
        two_receivers.rows().push(ReceiverRow { application: "S1".into(), ..twin });
        assert_eq!(weak(two_receivers.promise()), shared());
    }

    /// A copy of a standby, made with its settings, takes its name while it is away.
    #[test]
    fn a_stranger_under_the_name_of_a_standby_that_receives_nothing_makes_no_quorum() {
        let mut set = Set::new("ANY 1 (s1, s2)");
        let role = SurveyedRole::Standby { paused: false, receiving: Some(false) };
        set.survey(1).role = role;
        let at = set.survey(1).answered;
        set.survey(0).asked = at + Duration::from_secs(5);
        set.survey(0).answered = at + Duration::from_secs(5);
        set.rows()[0].connected = Duration::from_mins(1);

        set.rows()[0].replied = Some(Duration::from_secs(1));
        assert_eq!(weak(set.promise()), WeakPromise::SharedName("s1".into()));

        set.rows()[0].replied = Some(Duration::from_secs(9));
        assert_eq!(set.promise(), quorum(1, &["db1", "db2"]), "what is left of its own connection");

        set.rows()[0].replied = Some(Duration::from_secs(1));
        set.rows()[0].connected = Duration::from_secs(2);
        assert_eq!(set.promise(), quorum(1, &["db1", "db2"]), "it has connected since then");
    }

    /// A copy of the primary, made with its settings, confirms its commits under its name.
    #[test]
    fn a_stranger_under_the_name_of_the_primary_makes_no_quorum() {
        let mut set = Set::new("ANY 1 (s0, s1, s2)");
        assert_eq!(set.promise(), quorum(1, &["db1", "db2"]));
        let copy = set.rows()[0].clone();
        set.rows().push(ReceiverRow { application: "s0".into(), ..copy });
        assert_eq!(weak(set.promise()), WeakPromise::SharedName("s0".into()));
    }

    #[test]
    fn what_is_not_seen_is_not_guessed() {
        let mut set = Set::new("ANY 1 (s1, s2)");
        set.0[1].1 = None;
        assert_eq!(weak(set.promise()), WeakPromise::NotSeen, "never seen: nothing is known");

        let mut set = Set::new("ANY 1 (s1, s2)");
        set.survey(1).upstream.conninfo = None;
        assert_eq!(weak(set.promise()), WeakPromise::Hidden, "its name can't be seen");

        let mut set = Set::new("ANY 1 (s1, s2)");
        set.survey(0).role = SurveyedRole::Primary { receivers: None };
        assert_eq!(weak(set.promise()), WeakPromise::Hidden, "the receivers can't be seen");

        let mut set = Set::new("ANY 1 (s1, s2)");
        set.rows().clear();
        set.survey(1).asked = Moment::ORIGIN;
        assert_eq!(
            set.promise(),
            quorum(1, &["db1", "db2"]),
            "a standby that is away still counts"
        );
    }
}
