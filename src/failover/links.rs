//! Changes to a standby's connection string: shown without its secrets, and run with them.

use crate::auth::Secret;
use crate::failover::gap::Statement;
use crate::pg::{Conninfo, quote_literal};
use std::time::Duration;

/// A name under which a server may receive the log.
pub(super) fn name_for(server: &str) -> String {
    let plain = |sign: char| if sign.is_ascii_alphanumeric() { sign } else { '_' };
    server.chars().map(plain).collect()
}

/// The `wal_sender_timeout` of a link on which silence is to mean something within `fresh`.
pub(super) fn sender_timeout(fresh: Duration) -> String {
    /// Shorter ones are no better where nothing is asked for within a second.
    const MOST: u128 = 1000;
    let millis = (fresh.as_millis() * 2 / 3 / 100 * 100).clamp(100, MOST);
    format!("{millis}ms")
}

/// Sets `primary_conninfo` from what it is to what it is to be.
///
/// What is shown lets the server put the new string together from its own, so that no password
/// is printed; psql's `\gexec` runs what comes out.
pub(super) fn change(before: &str, after: &Conninfo) -> Statement {
    let run = format!("ALTER SYSTEM SET primary_conninfo = {}", quote_literal(&after.text()));
    let known = Conninfo::parse(before).unwrap_or_default();
    let changed: Vec<_> = after
        .keywords()
        .filter(|keyword| known.get(keyword) != after.get(keyword))
        .filter_map(|keyword| Some((keyword, after.get(keyword)?)))
        .collect();
    let uri = before.starts_with("postgres://") || before.starts_with("postgresql://");
    let mut added = String::new();
    for (keyword, value) in changed {
        if uri {
            let sign = if before.contains('?') || added.contains('?') { "&" } else { "?" };
            added.extend([sign, keyword, "=", &encode(value)]);
        } else {
            added.extend([" ", &Conninfo::default().with(keyword, value).text()]);
        }
    }
    // Of two mentions of a keyword the last one counts.
    let shown = format!(
        "SELECT format('ALTER SYSTEM SET primary_conninfo = %L', \
         current_setting('primary_conninfo') || {}) \\gexec",
        quote_literal(&added).trim()
    );
    Statement { shown, run: Secret::new(run) }
}

fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_without_what_is_secret_and_means_the_same() {
        for before in [
            "host=a password=very-secret options='-c work_mem=1MB'",
            "postgresql://u:very-secret@a/?options=-c%20work_mem%3D1MB",
            "postgresql://u:very-secret@a",
        ] {
            let after = Conninfo::parse(before)
                .unwrap()
                .with_option("wal_sender_timeout", "1s")
                .with("application_name", "s 1");
            let change = change(before, &after);

            assert!(!change.shown.contains("very-secret"), "{}", change.shown);
            assert!(change.run.reveal().contains("very-secret"));
            let added = change.shown.split("|| ").nth(1).unwrap();
            let added = added.strip_suffix(") \\gexec").unwrap();
            let added = added.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
            let added = added.replace("''", "'");
            let read = Conninfo::parse(&format!("{before}{added}")).unwrap();
            for keyword in ["options", "application_name", "password", "host"] {
                assert_eq!(read.get(keyword), after.get(keyword), "{keyword} of {before}");
            }
        }
    }

    #[test]
    fn the_keepalive_fits_twice_into_what_counts_as_fresh() {
        for (fresh, expected) in [(2000, "1000ms"), (600, "400ms"), (60, "100ms")] {
            assert_eq!(sender_timeout(Duration::from_millis(fresh)), expected);
        }
    }
}
