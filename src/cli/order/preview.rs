//! What an order would do, and what came of it, in words.

use crate::admin::{AccountReport, PreviewReport};

/// The whole preview.
pub(super) fn text(preview: &PreviewReport) -> String {
    let PreviewReport { kind, primary, verdict, to, loss, busy_sessions, .. } = preview;
    let to = to.as_deref().unwrap_or("nobody");
    let against = objection(preview).unwrap_or_else(|| "nothing".to_owned());
    let sessions = match busy_sessions {
        0 => format!("none works on {primary}"),
        1 => format!("1 works on {primary}"),
        many => format!("{many} work on {primary}"),
    };
    format!(
        "{kind}: the primary {primary} {verdict}\n  \
         primary     {primary} -> {to}\n  \
         loss        {}\n  \
         sessions    {sessions}\n  \
         against it  {against}\n",
        loss.text
    )
}

/// What speaks against it, if anything does.
pub(in crate::cli) fn objection(preview: &PreviewReport) -> Option<String> {
    if let Some(refusal) = &preview.refusal {
        return Some(refusal.clone());
    }
    if preview.loss_accepted {
        return None;
    }
    let accept = match preview.loss.at_most_bytes {
        Some(bytes) => bytes.to_string(),
        None => "any".to_owned(),
    };
    let loss = &preview.loss.text;
    Some(format!(
        "acknowledged writes would be lost ({loss}): take that with --accept-loss {accept}"
    ))
}

/// What came of it.
pub(super) fn done(account: &AccountReport) -> String {
    let ms = account.seconds * 1000.0;
    match &account.change {
        Some(change) => format!(
            "done: {} is the primary after {ms:.0} ms, on timeline {}; loss: {}",
            change.to, change.timeline, change.loss.text
        ),
        None => format!("done after {ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::LossReport;

    fn preview() -> PreviewReport {
        PreviewReport {
            kind: "failover".to_owned(),
            primary: "a:1".to_owned(),
            verdict: "is dead".to_owned(),
            to: Some("b:1".to_owned()),
            loss: LossReport {
                text: "at most 4096 bytes of log".to_owned(),
                at_most_bytes: Some(4096),
                at_least_bytes: 0,
            },
            loss_accepted: true,
            busy_sessions: 3,
            refusal: None,
        }
    }

    #[test]
    fn a_preview_says_who_at_what_loss_and_what_speaks_against_it() {
        let expected = "\
failover: the primary a:1 is dead
  primary     a:1 -> b:1
  loss        at most 4096 bytes of log
  sessions    3 work on a:1
  against it  nothing
";
        assert_eq!(text(&preview()), expected);
    }

    /// A loss that was not accepted stops it, and the flag that would accept it is named; one
    /// that is not known takes `any`.
    #[test]
    fn a_loss_that_was_not_accepted_is_an_objection() {
        let known = PreviewReport { loss_accepted: false, ..preview() };
        let unknown = LossReport { at_most_bytes: None, ..preview().loss };
        let unknown = PreviewReport { loss: unknown, ..known.clone() };
        let refused = PreviewReport { refusal: Some("it is busy".to_owned()), ..known.clone() };

        assert_eq!(objection(&preview()), None);
        assert!(objection(&known).unwrap().ends_with("--accept-loss 4096"));
        assert!(objection(&unknown).unwrap().ends_with("--accept-loss any"));
        assert_eq!(objection(&refused).unwrap(), "it is busy");
    }
}
