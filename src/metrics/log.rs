//! How much is logged: counted where the lines are written, before there are any metrics.

use crate::metrics::label::{Label, LineLevel};
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines by their level; of the process, for so is its log.
static LINES: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

/// A line of this level was written.
pub fn count_log_line(level: LineLevel) {
    if let Some(lines) = LINES.get(level.index()) {
        lines.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many lines of this level were written since the start.
pub(super) fn log_lines(level: LineLevel) -> u64 {
    LINES.get(level.index()).map_or(0, |lines| lines.load(Ordering::Relaxed))
}
