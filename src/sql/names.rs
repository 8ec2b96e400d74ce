//! Names that may be calls: `row.name` calls the function `name` if `row` has no such column.

/// A set of names behind dots, kept as bits: a name that is in it is always found, another one
/// rarely. Most statements have dozens of such names, and most databases no function that could
/// be meant, so the names themselves aren't kept.
///
/// Source: PostgreSQL manual, 8.16.5 "Using Composite Types in Queries" (functional notation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct AttributeFilter([u64; 4]);

impl AttributeFilter {
    /// Adds a name.
    pub(super) fn add(&mut self, name: &str) {
        let (word, bit) = place(name);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Whether the name may be in the set.
    pub(super) fn may_hold(&self, name: &str) -> bool {
        let (word, bit) = place(name);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// The word and the bit of a name, by its FNV-1a hash: the same in every process.
fn place(name: &str) -> (usize, u64) {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let word = usize::from(hash.to_be_bytes()[0] & 3);
    (word, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_added_is_found() {
        let mut filter = AttributeFilter::default();
        assert!(!filter.may_hold("full_name"));
        filter.add("full_name");
        filter.add("x");
        assert!(filter.may_hold("full_name") && filter.may_hold("x"));
    }
}
