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
    }
}
