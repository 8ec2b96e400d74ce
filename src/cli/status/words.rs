//! Amounts as people read them.

/// Bytes, in steps of 1024.
pub(super) fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    const STEP: u64 = 1024;
    if amount < STEP {
        return format!("{amount} B");
    }
    let mut whole = amount;
    let mut rest = 0;
    let mut unit = "";
    for next in UNITS {
        if whole < STEP {
            break;
        }
        rest = whole % STEP;
        whole /= STEP;
        unit = next;
    }
    // One digit behind the point, cut off rather than rounded up to the next unit.
    format!("{whole}.{} {unit}", rest * 10 / STEP)
}

/// A time: milliseconds below a second, then one digit, then two units.
pub(super) fn seconds(amount: f64) -> String {
    let amount = amount.max(0.0);
    if amount < 0.9995 {
        return format!("{:.0}ms", amount * 1000.0);
    }
    if amount < 60.0 {
        let text = format!("{amount:.1}");
        return format!("{}s", text.strip_suffix(".0").unwrap_or(&text));
    }
    let parts = [(86_400.0, "d", 3600.0, "h"), (3600.0, "h", 60.0, "m"), (60.0, "m", 1.0, "s")];
    for (large, large_name, small, small_name) in parts {
        if amount >= large {
            let whole = (amount / large).floor();
            let rest = ((amount - whole * large) / small).floor();
            return format!("{whole:.0}{large_name} {rest:.0}{small_name}");
        }
    }
    format!("{amount:.0}s")
}

/// A moment of the calendar, in UTC, from seconds since 1970.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub(in crate::cli) fn moment(unix: u64) -> String {
    const DAY: u64 = 86_400;
    let (days, second) = (unix / DAY, unix % DAY);
    // Days since 0000-03-01: years begin in March, so that the leap day is the last.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era.saturating_mul(400) + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A share of a whole in percent; `None` of nothing.
pub(super) fn percent(part: u64, whole: u64) -> Option<u64> {
    part.checked_mul(100)?.checked_div(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        let shown: Vec<_> =
            [0, 1023, 1024, 1536, 35_861_299, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 kB", "1.5 kB", "34.1 MB", "16383.9 PB"]);
        let shown: Vec<_> =
            [0.0, 0.0042, 0.9999, 1.0, 2.64, 61.0, 3660.0, 273_600.0].map(seconds).into();
        assert_eq!(shown, ["0ms", "4ms", "1s", "1s", "2.6s", "1m 1s", "1h 1m", "3d 4h"]);
        assert_eq!((percent(86, 100), percent(1, 0)), (Some(86), None));
        let moments = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_239_370, "2026-11-21 05:36:10 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (unix, expected) in moments {
            assert_eq!(moment(unix), expected);
        }
    }
}
