//! What is told of a change: pure, so that every line of it can be pinned.

use crate::admin::{PastStepReport, StepsReport};
use crate::cli::crowd::{Judgement, Ledger, Tally};
use crate::cli::demo::change::Event;
use crate::clock::Moment;
use serde_json::{Value, json};
use std::time::Duration;

/// What is told of a change.
#[derive(Debug)]
pub(super) struct Story {
    pub event: Event,
    pub terms: Terms,
    pub steps: Vec<Step>,
    /// Who took the first write after it, and when.
    pub first: (String, Duration),
    pub before: Tally,
    /// From the event on.
    pub seen: Tally,
    pub ledger: Ledger,
    pub judgement: Judgement,
}

/// What pgsteer promised, and told of the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    /// `quorum`, `asynchronous`.
    pub promise: String,
    /// In words.
    pub loss: String,
}

/// One step of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// After the event.
    pub after: Duration,
    pub phase: String,
    pub reason: Option<String>,
    pub why: Option<String>,
}

/// How the old primary came back.
#[derive(Debug)]
pub(super) struct Whole {
    pub server: String,
    pub how: &'static str,
    /// `None`: it did not.
    pub took: Option<Duration>,
}

/// The steps from the event up to the end of the change.
pub(super) fn steps_since(report: &StepsReport, asked: Moment, event: Moment) -> Vec<Step> {
    let at = |step: &PastStepReport| {
        asked - Duration::try_from_secs_f64(step.ago_ms / 1000.0).unwrap_or_default()
    };
    let own = report.steps.iter().filter(|step| at(step) >= event).map(|step| Step {
        after: at(step).since(event),
        phase: step.phase.clone(),
        reason: step.reason.clone(),
        why: step.why.clone(),
    });
    let mut steps: Vec<Step> = Vec::new();
    for step in own {
        let is_over = step.phase == STABLE && steps.iter().any(|earlier| earlier.phase != STABLE);
        steps.push(step);
        if is_over {
            break;
        }
    }
    steps
}

/// The phase in which nothing is under way.
const STABLE: &str = "stable";

impl Story {
    /// The change step by step, and what clients saw of it.
    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for Step { after, phase, why, .. } in &self.steps {
            let why = why.as_deref().unwrap_or("");
            lines.push(format!("  {:>6} ms  {phase:<10} {why}", ms(*after)).trim_end().to_owned());
        }
        let (server, after) = &self.first;
        lines.push(format!("  {:>6} ms  the first write is accepted by {server}", ms(*after)));
        lines.push(String::new());
        lines.push(format!("  {}", self.seen.line()));
        lines.push(String::new());
        let figures = self.figures();
        for (name, value) in &figures {
            lines.push(format!("  {name:<22}{value:>8}"));
        }
        lines.join("\n")
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let at = |time: Option<Duration>| {
            time.map_or_else(|| "?".to_owned(), |time| format!("{} ms", ms(time)))
        };
        let Judgement { lost, twice, doubts_kept } = self.judgement;
        let doubts = self.ledger.in_doubt.len();
        let begun = match self.event {
            Event::Killed => "detected",
            Event::HandsOver => "begun",
        };
        vec![
            (begun, at(self.detected())),
            ("promoted", at(self.promoted())),
            ("first write accepted", at(Some(self.first.1))),
            ("longest wait", at(Some(self.seen.writes.longest.max(self.seen.reads.longest)))),
            ("writes acknowledged", self.ledger.acknowledged.len().to_string()),
            ("of them lost", lost.to_string()),
            ("done twice", twice.to_string()),
            ("in doubt (08007)", doubts.to_string()),
            ("of them done", doubts_kept.to_string()),
        ]
    }

    /// When the change was begun.
    fn detected(&self) -> Option<Duration> {
        let began = self.steps.iter().find(|step| step.phase != STABLE);
        began.map(|step| step.after)
    }

    /// When the new primary was one: what comes after its promotion began.
    fn promoted(&self) -> Option<Duration> {
        let done = |step: &&Step| {
            matches!(step.reason.as_deref(), Some("proving" | "admitting"))
                || (step.phase == STABLE && self.detected().is_some_and(|began| step.after > began))
        };
        self.steps.iter().find(done).map(|step| step.after)
    }

    /// What must be true, and whether it is.
    pub(super) fn checks(&self, whole: &Whole) -> Vec<(String, bool)> {
        let Self { seen, judgement, .. } = self;
        let mut checks = vec![
            self.of_loss(),
            ("no write was done twice".to_owned(), judgement.twice == 0),
            ("no client was disconnected".to_owned(), seen.disconnected == 0),
            ("no statement failed".to_owned(), seen.failed == 0),
            ("reads were served before and after".to_owned(), self.reads_went_on()),
        ];
        if self.event == Event::HandsOver {
            checks.push(("no statement was in doubt".to_owned(), seen.in_doubt == 0));
        }
        let Whole { server, how, took } = whole;
        let after = match (self.event, took) {
            (Event::Killed, Some(took)) => format!(", after {:.1} s", took.as_secs_f64()),
            // It did so at once, while the load went on.
            (Event::HandsOver, Some(_)) | (_, None) => String::new(),
        };
        checks.push((format!("{server} follows the new primary, by {how}{after}"), took.is_some()));
        checks
    }

    /// With a quorum nothing may be lost; without one, nothing that was not told.
    fn of_loss(&self) -> (String, bool) {
        let (lost, acknowledged) = (self.judgement.lost, self.ledger.acknowledged.len());
        let at_stake = acknowledged > 0;
        if lost == 0 || self.terms.promise == "quorum" {
            let text = format!("none of {acknowledged} acknowledged writes was lost");
            return (text, lost == 0 && at_stake);
        }
        let told = &self.terms.loss;
        let text =
            format!("{lost} of {acknowledged} acknowledged writes were lost, and told: {told}");
        (text, told != "none")
    }

    fn reads_went_on(&self) -> bool {
        self.before.reads.done > 0 && self.seen.reads.done > 0
    }

    /// For machines.
    pub(super) fn as_json(&self, whole: &Whole) -> Value {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let steps = self.steps.iter().map(|step| {
            json!({
                "after_ms": millis(step.after),
                "phase": step.phase,
                "reason": step.reason,
                "why": step.why,
            })
        });
        let checks = self.checks(whole);
        let checks = checks.iter().map(|(what, ok)| json!({"check": what, "ok": ok}));
        json!({
            "scene": match self.event {
                Event::Killed => "failover",
                Event::HandsOver => "switchover",
            },
            "steps": steps.collect::<Vec<_>>(),
            "detected_ms": self.detected().map(millis),
            "promoted_ms": self.promoted().map(millis),
            "first_write_ms": millis(self.first.1),
            "longest_write_ms": millis(self.seen.writes.longest),
            "longest_read_ms": millis(self.seen.reads.longest),
            "promise": self.terms.promise,
            "loss": self.terms.loss,
            "acknowledged": self.ledger.acknowledged.len(),
            "lost": self.judgement.lost,
            "twice": self.judgement.twice,
            "in_doubt": self.ledger.in_doubt.len(),
            "clients": self.seen.as_json(),
            "rejoined_ms": whole.took.map(millis),
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

fn ms(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(after: u64, phase: &str, reason: &str) -> Step {
        let reason = Some(reason).filter(|reason| !reason.is_empty()).map(str::to_owned);
        let why = reason.as_ref().map(|reason| format!("it is {reason}"));
        Step { after: Duration::from_millis(after), phase: phase.to_owned(), reason, why }
    }

    fn story() -> Story {
        let mut seen = Tally::default();
        seen.writes.longest = Duration::from_millis(171);
        seen.reads.done = 9;
        Story {
            event: Event::Killed,
            terms: Terms { promise: "quorum".to_owned(), loss: "none".to_owned() },
            steps: vec![
                step(20, "stable", "evidence"),
                step(38, "revoking", "claiming"),
                step(90, "promoting", "chosen"),
                step(130, "promoting", "proving"),
                step(148, "stable", ""),
            ],
            first: ("b:1".to_owned(), Duration::from_millis(152)),
            before: seen.clone(),
            seen,
            ledger: Ledger { acknowledged: vec![1, 2], in_doubt: vec![3] },
            judgement: Judgement { lost: 0, twice: 0, doubts_kept: 1 },
        }
    }

    fn whole() -> Whole {
        let took = Some(Duration::from_millis(2100));
        Whole { server: "a:1".to_owned(), how: "pg_rewind", took }
    }

    #[test]
    fn a_story_tells_when_and_what() {
        let expected = "      20 ms  stable     it is evidence
      38 ms  revoking   it is claiming
      90 ms  promoting  it is chosen
     130 ms  promoting  it is proving
     148 ms  stable
     152 ms  the first write is accepted by b:1

       0 writes, longest   171 ms;      9 reads, longest     0 ms; 0 failed, 0 in doubt, 0 disconnected

  detected                 38 ms
  promoted                130 ms
  first write accepted    152 ms
  longest wait            171 ms
  writes acknowledged          2
  of them lost                 0
  done twice                   0
  in doubt (08007)             1
  of them done                 1";
        assert_eq!(story().text(), expected);
        let checks = story().checks(&whole());
        assert!(checks.iter().all(|(_, ok)| *ok), "{checks:?}");
        assert_eq!(story().as_json(&whole())["promoted_ms"], 130.0);
    }

    /// The opposite arm: whatever clients should not have seen fails a check.
    #[test]
    fn whatever_is_amiss_fails_a_check() {
        let failing = |change: &dyn Fn(&mut Story)| {
            let mut story = story();
            change(&mut story);
            let checks = story.checks(&whole());
            checks.into_iter().filter(|(_, ok)| !ok).map(|(what, _)| what).collect::<Vec<_>>()
        };
        assert_eq!(failing(&|story| story.judgement.lost = 1).len(), 1);
        let told = |story: &mut Story, loss: &str| {
            story.judgement.lost = 1;
            story.terms = Terms { promise: "asynchronous".to_owned(), loss: loss.to_owned() };
        };
        assert_eq!(failing(&|story| told(story, "none")).len(), 1, "a loss that was not told");
        assert_eq!(failing(&|story| told(story, "unknown")).len(), 0);
        assert_eq!(failing(&|story| story.judgement.twice = 1).len(), 1);
        assert_eq!(failing(&|story| story.seen.disconnected = 1).len(), 1);
        assert_eq!(failing(&|story| story.seen.failed = 1).len(), 1);
        assert_eq!(failing(&|story| story.seen.reads.done = 0).len(), 1);
        assert_eq!(failing(&|story| story.ledger.acknowledged.clear()).len(), 1);
        let doubtful = |story: &mut Story| {
            story.event = Event::HandsOver;
            story.seen.in_doubt = 1;
        };
        assert_eq!(failing(&doubtful), ["no statement was in doubt"]);
        let gone = Whole { took: None, ..whole() };
        assert!(story().checks(&gone).iter().any(|(_, ok)| !ok));
    }

    /// Steps of before the event, and of after the change, are no part of it.
    #[test]
    fn the_steps_of_a_change_are_told_and_no_others() {
        let past = |ago_ms: f64, phase: &str| PastStepReport {
            ago_ms,
            phase: phase.to_owned(),
            reason: None,
            why: None,
        };
        let report = StepsReport {
            steps: vec![
                past(900.0, "stable"),
                past(400.0, "stable"),
                past(300.0, "revoking"),
                past(200.0, "stable"),
                past(100.0, "stable"),
            ],
        };
        let asked = Moment::from_nanos(10_000_000_000);
        let steps = steps_since(&report, asked, asked - Duration::from_millis(500));

        let phases: Vec<_> = steps.iter().map(|step| step.phase.as_str()).collect();
        assert_eq!(phases, ["stable", "revoking", "stable"]);
        assert_eq!(steps[1].after, Duration::from_millis(200));
    }
}
