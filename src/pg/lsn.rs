//! A place in the write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A place in the write-ahead log: bytes since the log began.
///
/// Ordered, because within one timeline the order is that of the writes. Across timelines it
/// means nothing: use [`crate::pg::Position`] there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// The text is not a `pg_lsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an LSN: expected two hexadecimal halves, like 16/B374D848")]
pub struct InvalidLsn;

/// The sizes that decide where page headers lie in the log, as a server reports them.
///
/// Source: PostgreSQL manual, 20.16 "Preset Options" (`wal_block_size`, `wal_segment_size`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalLayout {
    /// Bytes in a page of the log; 8192 unless the server was built otherwise.
    pub block_size: u64,
    /// Bytes in a segment of the log; 16 MiB unless `initdb --wal-segsize` said otherwise.
    pub segment_size: u64,
}

impl Default for WalLayout {
    fn default() -> Self {
        Self { block_size: 8192, segment_size: 16 * 1024 * 1024 }
    }
}

/// `SizeOfXLogShortPHD`: the header of every page but a segment's first, in bytes.
const SHORT_PAGE_HEADER: u64 = 24;
/// `SizeOfXLogLongPHD`: the header of a segment's first page, in bytes.
const LONG_PAGE_HEADER: u64 = 40;

impl Lsn {
    /// Whether this names a place: `0/0` is how PostgreSQL says "none".
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Bytes from `earlier` to `self`; 0 where `earlier` lies ahead.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This position with a page header that holds no record taken off again.
    ///
    /// At a page boundary the insert position stands behind the header of a page on which
    /// nothing was written yet, while flush and replay positions stand before it. A reader that
    /// waits for the raw value waits until the next write, for ever on an idle primary.
    ///
    /// Source: `XLogBytePosToRecPtr` and `XLogBytePosToEndRecPtr` in
    /// `access/transam/xlog.c` of PostgreSQL.
    #[must_use]
    pub const fn normalised(self, layout: WalLayout) -> Self {
        if layout.block_size == 0 || layout.segment_size == 0 {
            return self;
        }
        let in_page = self.0 % layout.block_size;
        let in_segment = self.0 % layout.segment_size;
        if in_segment == LONG_PAGE_HEADER {
            Self(self.0 - LONG_PAGE_HEADER)
        } else if in_page == SHORT_PAGE_HEADER && in_segment != SHORT_PAGE_HEADER {
            Self(self.0 - SHORT_PAGE_HEADER)
        } else {
            self
        }
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    /// Reads `high/low`: two hexadecimal halves of 32 bits, as PostgreSQL prints a `pg_lsn`.
    ///
    /// Unit: bytes. `0/0` reads as a number but names no place; see [`Lsn::is_valid`].
    ///
    /// # Errors
    /// [`InvalidLsn`] if the slash is missing, or a half is empty, longer than 8 digits, or
    /// holds anything but hexadecimal digits; so signs and spaces, too, are refused.
    ///
    /// Source: PostgreSQL 17 manual, 8.20 "`pg_lsn` type"; `pg_lsn_in` in `utils/adt/pg_lsn.c`.
    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// One half of an LSN's text.
fn half(digits: &str) -> Result<u64, InvalidLsn> {
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain {
        return Err(InvalidLsn);
    }
    u64::from_str_radix(digits, 16).map_err(|_| InvalidLsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_agree_both_ways() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/1"] {
            assert_eq!(text.parse::<Lsn>().map(|lsn| lsn.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_postgresql_would_refuse_is_refused() {
        for text in ["", "0", "/", "1/", "/1", "+1/2", "1/ 2", "123456789/0", "g/0", "1/2/3"] {
            assert_eq!(text.parse::<Lsn>(), Err(InvalidLsn), "{text:?}");
        }
    }

    /// The cases seen on PostgreSQL 15: behind a switch of segments, and at a page's end.
    #[test]
    fn an_empty_page_header_is_taken_off() {
        let layout = WalLayout::default();
        let cases = [
            ("0/5000028", "0/5000000"),   // long header, a segment's first page
            ("0/2658E018", "0/2658E000"), // short header
            ("0/5000018", "0/5000018"),   // no header is 24 bytes long there
            ("0/5000029", "0/5000029"),
            ("0/5002000", "0/5002000"),
            ("0/2658F018", "0/2658F018"), // the middle of a page
        ];
        for (raw, expected) in cases {
            let raw: Lsn = raw.parse().unwrap();
            assert_eq!(raw.normalised(layout).to_string(), expected, "{raw}");
        }
        // Servers that were built or initialised otherwise.
        let other = WalLayout { block_size: 4096, segment_size: 1024 * 1024 };
        let cases = [("0/2658F018", "0/2658F000"), ("0/100028", "0/100000")];
        for (raw, expected) in cases {
            let raw: Lsn = raw.parse().unwrap();
            assert_eq!(raw.normalised(other).to_string(), expected, "{raw}");
        }
    }
}
