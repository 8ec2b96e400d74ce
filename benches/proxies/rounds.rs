//! Every target once a round, in an order that is turned around each time.

use crate::Args;
use crate::peer::{Running, Target};
use crate::report::Table;

/// Runs the rounds; what `one` comes to goes into the table.
pub(crate) fn rounds(
    table: &mut Table,
    args: &Args,
    targets: &[Target],
    one: impl Fn(&Running) -> Result<Vec<f64>, String>,
) {
    for round in 0..args.rounds {
        let mut order: Vec<_> = targets.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for target in order {
            let came = target.state.as_ref().map_err(Clone::clone).and_then(&one);
            table.take(&target.name, came);
        }
    }
    table.sort_as(targets.iter().map(|target| target.name.as_str()));
}
