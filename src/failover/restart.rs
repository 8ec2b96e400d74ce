//! Whether a primary could be made to restart as a standby, by what is known of it beforehand.
//!
//! The act itself finds out the same, but only while clients wait. What is not known beforehand,
//! such as a disk that is full, is not asked for here.

use crate::failover::{Right, Survey, Switch};
use crate::pg::quote_identifier;

/// What keeps a server from it, and what helps; `None`: nothing that is known.
pub fn no_restart(survey: Option<&Survey>, user: &str) -> Option<String> {
    let Some(survey) = survey else {
        return Some("it was not reached yet: see `pgsteer status`".to_owned());
    };
    if !survey.rights.have(Right::Superuser) {
        let name = quote_identifier(user);
        return Some(format!(
            "the control user {user} is no superuser, and nobody else can make it restart as a \
             standby: ALTER ROLE {name} SUPERUSER, or name a superuser in servers.user"
        ));
    }
    let comes_back = survey.settings.on.contains(&Switch::RestartsAfterCrash);
    (!comes_back).then(|| {
        "restart_after_crash is off, so that it would not come back: ALTER SYSTEM SET \
         restart_after_crash = on, and SELECT pg_reload_conf()"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::survey::sample;
    use crate::failover::{Rights, SurveyedRole};

    #[test]
    fn what_is_missing_is_told_with_what_helps() {
        let fit = sample::server("db0", SurveyedRole::Primary { receivers: None });
        let mut plain = fit.clone();
        plain.rights = Rights::new([Right::Replication]);
        let mut gone = fit.clone();
        gone.settings.on.remove(&Switch::RestartsAfterCrash);
        let told = |survey| no_restart(survey, "joe").unwrap_or_default();

        assert!(told(Some(&plain)).contains("ALTER ROLE \"joe\" SUPERUSER"));
        assert!(told(Some(&gone)).contains("restart_after_crash = on"));
        assert!(told(None).contains("not reached"));
        let mut can = fit;
        can.settings.on.insert(Switch::RestartsAfterCrash);
        assert_eq!(no_restart(Some(&can), "joe"), None);
    }
}
