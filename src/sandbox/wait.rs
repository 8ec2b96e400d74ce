//! The one loop that waits.

use crate::clock;
use std::time::Duration;

/// Pause between two looks: short beside what is waited for, long beside a look.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` finds something, or `limit` has passed; it looks at least once.
pub fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = clock::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if clock::now() >= end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}
