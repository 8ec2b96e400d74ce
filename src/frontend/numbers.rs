//! Numbers that nobody can guess, for the keys of cancel requests.
//!
//! To ask the system at each login is one of the dozen calls that a login takes, so a shard asks
//! for some at a time. Each is given out once, and is wiped here then.

use std::cell::RefCell;

/// So many are drawn at a time.
const AT_ONCE: usize = 64;

/// What one shard has drawn.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    left: RefCell<Left>,
}

struct Left {
    drawn: [[u8; 4]; AT_ONCE],
    count: usize,
}

impl Default for Left {
    fn default() -> Self {
        Self { drawn: [[0; 4]; AT_ONCE], count: 0 }
    }
}

/// They are secrets.
impl std::fmt::Debug for Left {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Left").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Numbers {
    /// The next one.
    pub(super) fn draw(&self) -> i32 {
        let mut left = self.left.borrow_mut();
        if left.count == 0 {
            fill(left.drawn.as_flattened_mut());
            left.count = AT_ONCE;
        }
        left.count -= 1;
        let last = left.count;
        i32::from_be_bytes(left.drawn.get_mut(last).map(std::mem::take).unwrap_or_default())
    }
}

fn fill(bytes: &mut [u8]) {
    let source = ring::rand::SystemRandom::new();
    if ring::rand::SecureRandom::fill(&source, bytes).is_err() {
        // The kernel's generator does not fail once it is seeded; a key of zeros would be
        // guessable, so the process does not go on without it.
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn none_comes_twice_and_none_is_left_behind() {
        let numbers = Numbers::default();
        let drawn: BTreeSet<_> = (0..3 * AT_ONCE).map(|_| numbers.draw()).collect();
        // Of so few among four billion two are alike once in two hundred thousand runs.
        assert!(drawn.len() >= 3 * AT_ONCE - 1, "{drawn:?}");
        let left = numbers.left.borrow();
        assert_eq!((left.count, left.drawn), (0, [[0; 4]; AT_ONCE]));
        assert_eq!(format!("{left:?}"), "Left { count: 0, .. }");
    }
}
