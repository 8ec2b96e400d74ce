//! Slots that keep the log for nobody.
//!
//! A slot keeps whatever its standby has not confirmed, and stays behind when that standby is made
//! to follow another server: on the primary of before, which is a standby itself by then. There it
//! would keep the log until the disk is full.

use crate::failover::promise::Known;
use crate::failover::survey::{SlotState, Survey, SurveyedRole};
use std::sync::Arc;
use std::time::Duration;

/// What was seen of another server longer ago than this says nothing of whom it follows now.
const FRESH: Duration = Duration::from_secs(10);

/// The slots of a standby, `here`, that keep the log for servers of ours which are known not to
/// want it from there: each receives from elsewhere, or is the primary. One that is away may come
/// back, and lack just this. `address` is where it is for other servers.
#[must_use]
pub fn idle_slots(here: &str, address: (&str, u16), servers: &[Known<'_>]) -> Vec<Arc<str>> {
    let survey = servers.iter().find(|(name, _)| &***name == here);
    let Some(own) = survey.and_then(|(_, survey)| *survey).filter(|own| !own.is_primary()) else {
        return Vec::new();
    };
    let others = || servers.iter().filter(|(name, _)| &***name != here);
    let is_idle = |slot: &str| {
        let owners =
            || others().filter_map(|(_, survey)| *survey).filter(|o| &*o.upstream.slot == slot);
        owners().next().is_some() && owners().all(|owner| is_elsewhere(owner, own, address))
    };
    let waiting = own.slots.iter().flatten().filter(|slot| slot.state == SlotState::Waiting);
    waiting.filter(|slot| is_idle(&slot.name)).map(|slot| Arc::clone(&slot.name)).collect()
}

/// Whether this server is known not to receive from the one at that address, which was surveyed as
/// `there`.
fn is_elsewhere(owner: &Survey, there: &Survey, (host, port): (&str, u16)) -> bool {
    let fresh = there.asked.since(owner.answered) <= FRESH;
    let away = match owner.role {
        SurveyedRole::Primary { .. } => true,
        SurveyedRole::Standby { receiving, .. } => {
            let link = owner.upstream.read();
            receiving == Some(true) && link.is_some_and(|link| !link.leads_to(host, port))
        }
    };
    fresh && away
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::survey::sample::{primary, standby};
    use crate::failover::{Slot, Survey};

    /// db0 was the primary before db1, and db2 followed it; it has a slot of each of them.
    struct Set([(Arc<str>, Option<Survey>); 3]);

    impl Set {
        fn new() -> Self {
            let mut here = standby("s0");
            let waits = |name: &str| Slot { name: name.into(), state: SlotState::Waiting };
            here.slots = Some(vec![waits("one"), waits("two"), waits("third")]);
            let (mut leads, mut follows) = (primary("", &[]), standby("s2"));
            leads.upstream.slot = "one".into();
            follows.upstream.slot = "two".into();
            Self(
                [("db0", here), ("db1", leads), ("db2", follows)].map(|(n, s)| (n.into(), Some(s))),
            )
        }

        fn but(mut self, at: usize, change: impl FnOnce(&mut Survey)) -> Self {
            change(self.0[at].1.as_mut().unwrap());
            self
        }

        fn idle(&self, host: &str) -> Vec<Arc<str>> {
            let known: Vec<_> = self.0.iter().map(|(name, s)| (name, s.as_ref())).collect();
            idle_slots("db0", (host, 5432), &known)
        }
    }

    #[test]
    fn what_is_left_behind_by_those_who_receive_elsewhere_is_idle() {
        let idle =
            |set: Set| set.idle("former").iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(idle(Set::new()), ["one", "two"], "the third is nobody's whom we know");
        let used = |state| Set::new().but(0, move |s| s.slots.as_mut().unwrap()[1].state = state);
        for state in [SlotState::Active, SlotState::Fresh] {
            assert_eq!(idle(used(state)), ["one"], "{state:?}");
        }
        let leads = Set::new().but(0, |s| s.role = SurveyedRole::Primary { receivers: None });
        assert!(idle(leads).is_empty(), "a primary keeps the log for whoever is away");
    }

    /// Each may want the log from there, or it is not known that it does not.
    #[test]
    fn what_one_may_come_back_for_is_kept() {
        let receives = |receiving| {
            move |s: &mut Survey| s.role = SurveyedRole::Standby { paused: false, receiving }
        };
        // All of them are told to follow db0.
        let kept = |set: Set| set.idle("former") == [Arc::from("one")];
        assert!(kept(Set::new().but(2, receives(Some(false)))), "it receives nothing");
        assert!(kept(Set::new().but(2, receives(None))), "that can't be seen");
        assert!(kept(Set::new().but(2, |s| s.upstream.conninfo = None)), "whom it follows neither");
        let late = Set::new().but(0, |s| s.asked = s.asked + FRESH + FRESH);
        assert!(late.idle("former").is_empty(), "it was seen long ago");
        assert_eq!(Set::new().idle("db0"), [Arc::from("one")], "it is told to receive from there");
        let shared = Set::new().but(1, |s| s.upstream.slot = "two".into());
        assert!(shared.but(2, receives(Some(false))).idle("former").is_empty(), "of the two one");
    }
}
