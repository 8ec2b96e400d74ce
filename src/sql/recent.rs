//! The texts that were asked for last, each with its whole numbers left open.
//!
//! A shard is asked for the same few statements over and over, with other numbers. To hold a text
//! against one that was marked before takes a comparison of what lies between the numbers; to mark
//! it, and to look the result up, takes a pass over every byte and a hash. Only what `blind` would
//! have marked in the same way fits, so the facts are the same.

use super::Dialect;
use super::Facts;
use super::blind::MARK;
use super::cache::Numbers;
use std::sync::Arc;

/// How many are kept.
const PLACES: usize = 32;
/// How much of a text says where it is kept, in bytes.
const BEGINNING: usize = 32;

/// The last texts; one for each place that their beginnings lead to.
#[derive(Default)]
pub(super) struct Recent {
    places: [Place; PLACES],
}

#[derive(Default)]
struct Place {
    /// The text, with a mark for each number that is left open.
    text: Vec<u8>,
    /// Where the marks are.
    marks: Vec<usize>,
    facts: Option<(Dialect, Arc<Facts>)>,
}

impl Recent {
    /// The facts of a text, if it is one of these.
    pub(super) fn facts(&self, sql: &[u8], dialect: Dialect) -> Option<&Arc<Facts>> {
        let place = self.places.get(place_of(sql))?;
        let (known, facts) = place.facts.as_ref()?;
        (*known == dialect && place.fits(sql)).then_some(facts)
    }

    /// Keeps what was found out of `sql`, which is `marked` where its numbers are left open.
    pub(super) fn keep(
        &mut self,
        (sql, marked): (&[u8], &[u8]),
        dialect: Dialect,
        (facts, numbers): (&Arc<Facts>, Numbers),
    ) {
        let Some(place) = self.places.get_mut(place_of(sql)) else { return };
        place.text.clear();
        place.marks.clear();
        match numbers {
            Numbers::Kept => place.text.extend_from_slice(sql),
            Numbers::Marked => {
                place.text.extend_from_slice(marked);
                place.marks.extend(memchr::memchr_iter(MARK, marked));
            }
        }
        place.facts = Some((dialect, Arc::clone(facts)));
    }
}

impl Place {
    /// Whether `sql` is this text with a whole number in the place of each mark.
    ///
    /// Behind a number stands a byte that can't go on with a word, or the end: else it would not
    /// have been marked. So the digits here end where those there did.
    fn fits(&self, sql: &[u8]) -> bool {
        let (mut rest, mut from) = (sql, 0);
        for mark in &self.marks {
            let before = self.text.get(from..*mark).unwrap_or_default();
            let Some(number) = rest.strip_prefix(before) else { return false };
            let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            rest = number.get(digits..).unwrap_or_default();
            from = mark + 1;
        }
        self.text.get(from..) == Some(rest)
    }
}

/// Where a text is kept, by its first words.
fn place_of(sql: &[u8]) -> usize {
    let (words, _) = sql.get(..BEGINNING.min(sql.len())).unwrap_or_default().as_chunks::<8>();
    let all = words.iter().fold(0, |all: u64, word| {
        (all.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    let [high, ..] = all.to_be_bytes();
    usize::from(high) % PLACES
}
