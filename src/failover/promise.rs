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

/// The same beside what was recorded of it; `None`: that can't be told yet, and it may be as
/// recorded.
#[must_use]
pub fn promise_beside(recorded: &Promise, primary: &str, servers: &[Known<'_>]) -> Option<Promise> {
    match promise(primary, servers) {
        Promise::Asynchronous(WeakPromise::NotSeen) if may_be(recorded, primary, servers) => None,
        seen @ (Promise::Quorum { .. } | Promise::Asynchronous(_)) => Some(seen),
    }
}

/// Whether nothing speaks against what was recorded: as many as then must confirm, and each name
/// that nobody is known to have may be that of one of the quorum, or the primary's own. One that
/// another has, or that only another can have, makes it other.
fn may_be(recorded: &Promise, primary: &str, servers: &[Known<'_>]) -> bool {
    let Promise::Quorum { w, cohort } = recorded else { return true };
    let survey = servers.iter().find(|(name, _)| &***name == primary);
    let Some(survey) = survey.and_then(|(_, survey)| *survey) else { return true };
    let Ok(listed) = &survey.settings.synchronous_names else { return true };
    if !survey.is_primary() || survey.settings.is_fenced() {
        return true;
    }
    let SyncNames::Listed { count, .. } = listed else { return true };
    let may_own = |(name, _): &&Known<'_>| &***name == primary || cohort.contains(*name);
    if !listed.names().iter().flat_map(|name| owners(name, servers)).all(|it| may_own(&it)) {
        return false;
    }
    let is_own = |name: &&Arc<str>| owners(name, servers).any(|(server, _)| &***server == primary);
    let others = listed.names().iter().filter(|name| !is_own(name));
    // One that is listed twice is one.
    let distinct = |name: &Arc<str>| name.to_ascii_lowercase();
    if others.map(distinct).collect::<BTreeSet<_>>().len().min(usize::from(*count))
        < usize::from(*w)
    {
        return false;
    }
    let unowned = listed.names().iter().filter(|name| owners(name, servers).next().is_none());
    let unowned: BTreeSet<_> = unowned.map(distinct).collect();
    unowned.len() <= nameless(servers).filter(may_own).count()
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
    let mut unseen = None;
    for name in listed.names() {
        match member(name, servers, (primary, survey, receivers)) {
            Ok(server) => cohort.extend(server.map(Arc::clone)),
            // What is known of another name counts more.
            Err(why @ WeakPromise::NotSeen) => unseen = Some(why),
            Err(why) => return Err(why),
        }
    }
    if let Some(why) = unseen {
        return Err(why);
    }
    if cohort.is_empty() {
        return Err(WeakPromise::NoNames);
    }
    // With more demanded than there are, nothing is ever acknowledged.
    let w = (*count).min(u16::try_from(cohort.len()).unwrap_or(u16::MAX));
    Ok(Promise::Quorum { w, cohort })
}

/// The standby of ours that has this name alone; `None`: the primary has.
fn member<'a>(
    name: &Arc<str>,
    servers: &[Known<'a>],
    (primary, survey, receivers): (&str, &Survey, &[ReceiverRow]),
) -> Result<Option<&'a Arc<str>>, WeakPromise> {
    let server = owner(name, servers).or_else(|| owner_by_settings(name, servers));
    let server = server.ok_or_else(|| unowned(name, servers, (primary, survey, receivers)))??;
    if &**server.0 == primary {
        // One list for all servers names the primary, too. It is none of its own standbys:
        // whoever receives under its name is another.
        carried_by_none(name, receivers)?;
        return Ok(None);
    }
    carried_by_one(name, server, survey, receivers)?;
    Ok(Some(server.0))
}

/// Whether a commit under this setting waits until standbys have flushed it.
fn confirms(synchronous_commit: &str) -> bool {
    matches!(synchronous_commit, "on" | "remote_apply")
}

/// Those that call themselves so.
fn owners<'a, 'b>(
    name: &'b Arc<str>,
    servers: &'b [Known<'a>],
) -> impl Iterator<Item = &'b Known<'a>> {
    servers.iter().filter(move |(_, survey)| {
        let own = survey.and_then(Survey::application_name);
        own.is_some_and(|own| same_name(&own, name))
    })
}

/// The one server that calls itself so; `None`: nobody.
fn owner<'a>(name: &Arc<str>, servers: &[Known<'a>]) -> Option<Result<Known<'a>, WeakPromise>> {
    let mut owners = owners(name, servers);
    match (owners.next()?, owners.next()) {
        (owner, None) => Some(Ok(*owner)),
        (_, Some(_)) => Some(Err(WeakPromise::SharedName(Arc::clone(name)))),
    }
}

/// The one server that has no name but that of its settings, where nobody else is called so, or may
/// be.
fn owner_by_settings<'a>(
    name: &Arc<str>,
    servers: &[Known<'a>],
) -> Option<Result<Known<'a>, WeakPromise>> {
    let mut owner = None;
    for server in nameless(servers) {
        let own = server.1.and_then(Survey::name_by_settings)?;
        if same_name(&own, name) && owner.replace(Ok(*server)).is_some() {
            return None;
        }
    }
    owner
}

/// Those that were never seen, or never under their names.
fn nameless<'a, 'b>(servers: &'b [Known<'a>]) -> impl Iterator<Item = &'b Known<'a>> {
    servers.iter().filter(|(_, survey)| survey.is_none_or(Survey::has_lost_its_name))
}

/// What comes of a name that nobody is known to have.
fn unowned(
    name: &Arc<str>,
    servers: &[Known<'_>],
    (primary, survey, receivers): (&str, &Survey, &[ReceiverRow]),
) -> WeakPromise {
    let mut nameless = nameless(servers).peekable();
    if nameless.peek().is_some() {
        // Any of them may be the one, unless somebody else receives under that name.
        let rows: Vec<_> =
            receivers.iter().filter(|row| same_name(&row.application, name)).collect();
        let is_none_of_these = |(server, own): &Known<'_>| {
            let another = |own| rows.iter().any(|row| is_another(row, own, survey));
            &***server == primary || own.is_some_and(another)
        };
        if rows.is_empty() || !nameless.all(is_none_of_these) {
            return WeakPromise::NotSeen;
        }
    }
    if names_are_hidden(servers) {
        return WeakPromise::Hidden;
    }
    WeakPromise::UnknownName(Arc::clone(name))
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
    if is_another(row, own, primary) { Err(shared()) } else { Ok(()) }
}

/// Whether who receives is not this server: it does since before this one said that it receives
/// from nobody, and has replied since then.
fn is_another(row: &ReceiverRow, own: &Survey, primary: &Survey) -> bool {
    let began = primary.answered - row.connected;
    let replied = row.replied.map(|age| primary.asked - age);
    let receives_not = match own.role {
        SurveyedRole::Standby { receiving, .. } => receiving == Some(false),
        // A primary receives from nobody.
        SurveyedRole::Primary { .. } => true,
    };
    receives_not && began < own.asked && replied.is_some_and(|replied| replied > own.answered)
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

        fn beside(&self, recorded: &Promise) -> Option<Promise> {
            let known: Vec<_> = self.0.iter().map(|(name, s)| (name, s.as_ref())).collect();
            promise_beside(recorded, P, &known)
        }

        /// This standby is fed by an archive alone, and never had another name than that of its
        /// settings, as far as is known.
        fn archive_only(&mut self, at: usize) {
            cut_off(self.survey(at), Before::Nothing);
            let role = SurveyedRole::Standby { paused: false, receiving: Some(false) };
            self.survey(at).role = role;
        }

        /// The primary is surveyed so many seconds after the others.
        fn later(&mut self, seconds: u64) {
            let at = self.survey(1).answered + Duration::from_secs(seconds);
            self.survey(0).asked = at;
            self.survey(0).answered = at;
        }

        /// Somebody has received under this name for a minute.
        fn receives(&mut self, name: &str) {
            let row = self.rows()[0].clone();
            self.rows().push(ReceiverRow { application: name.into(), ..row });
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

    /// It confirms commits by itself, whatever one is called that receives nothing.
    #[test]
    fn a_stranger_that_receives_is_not_taken_for_a_standby_that_does_not() {
        let mut set = Set::new("ANY 1 (s1, x)");
        set.archive_only(2);
        set.later(5);
        assert_eq!(weak(set.promise()), WeakPromise::NotSeen, "it may be called so one day");
        set.receives("x");
        assert_eq!(weak(set.promise()), WeakPromise::UnknownName("x".into()));

        set.rows()[2].connected = Duration::from_secs(2);
        assert_eq!(weak(set.promise()), WeakPromise::NotSeen, "it may have begun to receive");
        set.rows()[2].connected = Duration::from_mins(1);
        set.survey(2).role = SurveyedRole::Standby { paused: false, receiving: None };
        assert_eq!(weak(set.promise()), WeakPromise::NotSeen, "whether it receives is hidden");
        set.0[2].1 = None;
        assert_eq!(weak(set.promise()), WeakPromise::NotSeen, "never seen: it may be the one");
    }

    /// Nobody took another name from it.
    #[test]
    fn a_standby_that_never_received_is_called_by_its_settings_if_nobody_else_is() {
        let mut set = Set::new("ANY 1 (s1, s2)");
        set.archive_only(2);
        set.rows().truncate(1);
        assert_eq!(set.promise(), quorum(1, &["db1", "db2"]));
        set.survey(2).settings.cluster_name = "s1".into();
        assert_eq!(weak(set.promise()), WeakPromise::NotSeen, "s2 may be any name that it gets");
        let names = SyncNames::parse("s1").map_err(|_| "s1".into());
        set.survey(0).settings.synchronous_names = names;
        assert_eq!(set.promise(), quorum(1, &["db1"]), "and that name has an owner");

        let mut other = Set::new("ANY 1 (s2)");
        other.archive_only(2);
        other.0[1].1 = None;
        assert_eq!(weak(other.promise()), WeakPromise::NotSeen, "s2 may be that one");

        let mut twins = Set::new("ANY 1 (s2)");
        for at in [1, 2] {
            twins.archive_only(at);
            twins.survey(at).settings.cluster_name = "s2".into();
        }
        twins.rows().clear();
        assert_eq!(weak(twins.promise()), WeakPromise::NotSeen, "which of them can't be told");
    }

    /// As long as it may be that which was recorded, that is kept.
    #[test]
    fn what_can_not_be_what_was_recorded_is_not_counted_on() {
        let (first, both) = (&["db1"][..], &["db1", "db2"][..]);
        let cases = [
            ("it was not seen yet", "ANY 1 (s1, s2)", &[2][..], (1, both), true),
            ("nor any of them", "ANY 1 (s1, s2)", &[1, 2][..], (1, both), true),
            ("nor the primary's own name", "ANY 1 (p, s1, s2)", &[0, 2][..], (1, both), true),
            ("it is none of the quorum", "ANY 1 (s1, x)", &[2][..], (1, first), false),
            ("but who is may be called so", "ANY 1 (s1, x)", &[1, 2][..], (1, first), false),
            ("who is may be called so", "ANY 1 (x)", &[1, 2][..], (1, first), true),
            ("one name too many", "ANY 1 (s1, s2, x)", &[2][..], (1, both), false),
            ("as many as there are", "ANY 1 (p, s1, s2, S2)", &[0, 2][..], (1, both), true),
            ("a name too many", "ANY 1 (p, s1, s2, x)", &[0, 2][..], (1, both), false),
            ("as many as then", "ANY 2 (s1, s2)", &[2][..], (2, both), true),
            ("more than then", "ANY 2 (s1, s2)", &[2][..], (1, both), true),
            ("less than then", "ANY 1 (s1, s2)", &[2][..], (2, both), false),
            ("too few for that", "ANY 2 (s2)", &[2][..], (2, both), false),
            ("too few beside itself", "ANY 2 (s0, s2)", &[2][..], (2, both), false),
            ("the other may confirm as well", "ANY 1 (s1, s2)", &[1][..], (1, first), false),
        ];
        let unseen = || Promise::Asynchronous(WeakPromise::NotSeen);
        for (case, names, nameless, (w, cohort), kept) in cases {
            let mut set = Set::new(names);
            for at in nameless {
                cut_off(set.survey(*at), Before::Unread);
            }
            assert_eq!(weak(set.promise()), WeakPromise::NotSeen, "{case}");
            let beside = set.beside(&quorum(w, cohort));
            assert_eq!(beside, (!kept).then(unseen), "{case}");
            assert_eq!(set.beside(&unseen()), None, "{case}: nothing was counted on");
        }
    }

    /// One name that nobody is seen under hides nothing of another.
    #[test]
    fn what_is_known_of_one_name_counts_where_another_is_not_seen() {
        let mut set = Set::new("ANY 1 (s2, s1)");
        set.0[2].1 = None;
        let twin = set.rows()[0].clone();
        set.rows().push(ReceiverRow { application: "S1".into(), ..twin });
        assert_eq!(weak(set.promise()), WeakPromise::SharedName("s1".into()));
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
