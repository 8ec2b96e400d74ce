//! What would keep a switchover from coming to its end, found before it is begun.
//!
//! A failover is tried with whatever there is, for the primary is lost already. A switchover takes
//! away one that is well: clients would wait for an act that must fail, and once a server was
//! chosen there is no way back. So an operator is told first.
//!
//! Deliberately absent: what a switchover can do without, as a rule. That is `prerequisites`.

use crate::failover::gap::Lack;
use crate::failover::promise::Known;
use crate::failover::restart::no_restart;
use crate::failover::survey::{Survey, Switch};
use crate::failover::{Demotion, Policy, Right};
use std::sync::Arc;

/// Without any of these one of its acts is refused, whatever the servers are set to.
const NEEDED: [Right; 6] = [
    Right::SetSynchronousNames,
    Right::SetReadOnly,
    Right::SetConninfo,
    Right::SeeSettings,
    Right::Reload,
    Right::Promote,
];

/// The first that stands in the way of a switchover from this primary, with what helps; `None`:
/// nothing that is known. What was not surveyed yet is found out by the acts. `user` is the control
/// user.
#[must_use]
pub fn obstacle(
    servers: &[Known<'_>],
    policy: &Policy,
    (primary, user): (&str, &str),
) -> Option<Arc<str>> {
    let surveyed = || servers.iter().filter_map(|(name, survey)| survey.map(|it| (*name, it)));
    let (name, survey) = surveyed().find(|(name, _)| ***name == *primary)?;
    let of_primary = restart(survey, policy, user).or_else(|| right(survey, user));
    let of_primary = of_primary.or_else(|| sessions(survey, user));
    let what = of_primary.map(|what| format!("{name}: {what}"));
    let what = what.or_else(|| {
        surveyed().find_map(|(name, survey)| Some(format!("{name}: {}", setting(survey)?)))
    });
    what.map(Arc::from)
}

/// What keeps the old primary from becoming a standby, if it is to.
fn restart(survey: &Survey, policy: &Policy, user: &str) -> Option<String> {
    match policy.demotion {
        Demotion::Fence => None,
        Demotion::CrashRestart => no_restart(Some(survey), user)
            .map(|why| format!("{why}; or set failover.demote = \"fence\"")),
    }
}

/// What our user may not do. Rights are in the log: what the primary grants, every standby does.
fn right(survey: &Survey, user: &str) -> Option<String> {
    if !survey.version.grants_settings() && !survey.rights.have(Right::Superuser) {
        return Some(Lack::Ungrantable.to_string());
    }
    let missing = NEEDED.into_iter().find(|right| !survey.rights.have(*right))?;
    let grant = missing.grant(user).map_or_else(String::new, |grant| format!(" ({grant})"));
    Some(format!("{}{grant}", Lack::Right(missing)))
}

/// Whose sessions would stay and could write.
fn sessions(survey: &Survey, user: &str) -> Option<String> {
    let count = survey.unendable;
    (count > 0).then(|| {
        format!(
            "{count} sessions of superusers are open, also those of pgsteer's clients, and {user} \
             may not end them: end them, or make it a superuser (ALTER ROLE \"{user}\" SUPERUSER)"
        )
    })
}

/// What a server is set to that keeps it from being fenced, or from being cut off.
fn setting(survey: &Survey) -> Option<Lack> {
    if !survey.settings.on.contains(&Switch::Alterable) {
        return Some(Lack::Unalterable);
    }
    let archive = !survey.upstream.restore_command.reveal().is_empty();
    let fixed = archive && !survey.version.reloads_restore_command() && !survey.is_primary();
    fixed.then_some(Lack::FixedArchive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::Rights;
    use crate::failover::survey::sample::{primary, standby};
    use crate::pg::Version;

    /// What stands in the way with this changed on the primary and on the standby.
    fn found(demotion: Demotion, change: impl FnOnce(&mut Survey, &mut Survey)) -> Option<String> {
        let (first, second) = (Arc::from("db0"), Arc::from("db1"));
        let (mut old, mut new) = (primary("", &[]), standby("s1"));
        old.settings.on.insert(Switch::RestartsAfterCrash);
        change(&mut old, &mut new);
        let servers = [(&first, Some(&old)), (&second, Some(&new))];
        let policy = Policy { demotion, ..Policy::default() };
        obstacle(&servers, &policy, ("db0", "joe")).map(|what| what.to_string())
    }

    #[test]
    fn nothing_is_in_the_way_of_one_that_has_what_it_needs() {
        for demotion in [Demotion::Fence, Demotion::CrashRestart] {
            assert_eq!(found(demotion, |_, _| ()), None);
        }
        let enough = |old: &mut Survey, _: &mut Survey| old.rights = Rights::new(NEEDED);
        assert_eq!(found(Demotion::Fence, enough), None, "no superuser is needed");
    }

    #[test]
    fn each_right_without_which_an_act_is_refused_is_named() {
        for missing in NEEDED {
            let rest = NEEDED.into_iter().filter(|right| *right != missing);
            let told = found(Demotion::Fence, |old, _| old.rights = Rights::new(rest)).unwrap();
            let grant = missing.grant("joe").unwrap();
            assert_eq!(told, format!("db0: {} ({grant})", Lack::Right(missing)));
        }
        let older = |old: &mut Survey, _: &mut Survey| {
            old.rights = Rights::new(NEEDED);
            old.version = Version(140_010);
        };
        assert!(found(Demotion::Fence, older).unwrap().contains("no superuser, on this release"));
    }

    #[test]
    fn sessions_that_could_not_be_ended_are_counted_on_the_old_primary() {
        let told = found(Demotion::Fence, |old, _| old.unendable = 2).unwrap();
        assert!(told.starts_with("db0: 2 sessions of superusers"), "{told}");
        assert_eq!(found(Demotion::Fence, |_, new| new.unendable = 2), None);
    }

    #[test]
    fn an_old_primary_that_is_to_restart_must_be_able_to() {
        let plain = |old: &mut Survey, _: &mut Survey| old.rights = Rights::new(NEEDED);
        let told = found(Demotion::CrashRestart, plain).unwrap();
        assert!(told.contains("ALTER ROLE \"joe\" SUPERUSER"), "{told}");
        assert!(told.contains("failover.demote = \"fence\""), "{told}");
        let stays = |old: &mut Survey, _: &mut Survey| {
            old.settings.on.remove(&Switch::RestartsAfterCrash);
        };
        assert!(found(Demotion::CrashRestart, stays).unwrap().contains("restart_after_crash"));
        assert_eq!(found(Demotion::Fence, stays), None);
    }

    #[test]
    fn no_server_may_refuse_to_be_set() {
        let fixed = |survey: &mut Survey| {
            survey.settings.on.remove(&Switch::Alterable);
        };
        let told = found(Demotion::Fence, |_, new| fixed(new));
        assert_eq!(told.unwrap(), "db1: allow_alter_system is off");
        let told = found(Demotion::Fence, |old, _| fixed(old));
        assert_eq!(told.unwrap(), "db0: allow_alter_system is off");
    }
}
