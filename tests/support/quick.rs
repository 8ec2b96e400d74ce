//! What is promised to be quick, on machines that are not always free to be.

use std::time::Duration;

/// How often it is measured before it counts as slow: other tests start dozens of servers on the
/// same few cores, and starve each other for seconds.
const ATTEMPTS: u32 = 5;

/// Fails if this is never done within `limit`; tries it again if it was late. For what does not
/// depend on chance: what is slow by its nature is slow each time.
pub fn quickly(what: &str, limit: Duration, attempt: impl FnMut() -> Duration) {
    let mut attempt = attempt;
    quickly_enough(what, || {
        let took = attempt();
        if took < limit { Ok(()) } else { Err(format!("{took:?}, not within {limit:?}")) }
    });
}

/// The same for any measure.
pub fn quickly_enough(what: &str, attempt: impl FnMut() -> Result<(), String>) {
    let mut attempt = attempt;
    let mut misses = Vec::new();
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(()) => return,
            Err(miss) => {
                eprintln!("{what}: {miss}");
                misses.push(miss);
            }
        }
    }
    panic!("{what}: {misses:?}");
}
