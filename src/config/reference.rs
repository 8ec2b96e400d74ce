//! The reference file and the manual's page, made from the table of keys.
//!
//! `config/pgsteer.toml` and `docs/configuration.md` are what this module prints; a test in
//! `tests/it` keeps them so.

use crate::config::key::AnyKey;
use crate::config::key::Counts;
use crate::config::key::split;
use crate::config::keys;
use std::fmt::Write as _;

/// The widest line of the reference file.
const WIDTH: usize = 98;

/// Each section and what it is about, in the order of the table of keys.
const SECTIONS: &[(&str, &str)] = &[
    ("", "Where pgsteer listens."),
    ("tls", "TLS towards clients."),
    ("servers", "The PostgreSQL servers, and how they are reached and watched."),
    ("auth", "How clients prove who they are."),
    ("pool", "How connections to the servers are shared."),
    ("routing", "Which server runs what."),
    ("failover", "What happens when the primary is lost, or is to be changed."),
    ("cancel", "Cancel requests that reach another pgsteer."),
    ("limits", "Bounds."),
    ("observability", "What operators see."),
];

const TOML_HEAD: &str = "\
# pgsteer.toml: every key with its default, commented out. Only servers.hosts is required.
# Made by `pgsteer config reference`; check a file of your own with `pgsteer check-config -c FILE`.
#
# Durations have a unit: us, ms, s, m, h, d (\"500ms\"). So have sizes: B, kB, MB, GB, TB (\"16MB\"),
# where 1kB is 1024B as in PostgreSQL. Each key can also be set by a flag, as in
# --set routing.hold_max=5s, and by a variable, PGSTEER_ROUTING__HOLD_MAX=5s: a flag goes before
# a variable, a variable before this file. A key marked [restart] counts after a restart, all
# others after a reload (SIGHUP).
";

const MARKDOWN_HEAD: &str = "\
# Configuration

<!-- Made by `pgsteer config reference --markdown`: change src/config/keys.rs instead. -->

None is needed: `pgsteer --server db1 --server db2` finds out which server is the primary and
listens on 127.0.0.1:6432. The shortest useful file:

```toml
[servers]
hosts = [\"db1\", \"db2\"]
```

`pgsteer -c FILE` reads a file; without `-c` it is `$PGSTEER_CONFIG`, `./pgsteer.toml` or
`/etc/pgsteer/pgsteer.toml`, the first that exists. `pgsteer check-config` reports every mistake
in it, with line and column, and exits with 78. [`config/pgsteer.toml`](../config/pgsteer.toml)
shows every key.

**Layers.** A flag goes before a variable of the environment, that before the file, that before
the default. Every key has a variable, `PGSTEER_SECTION__KEY` with two underscores at each dot
(`PGSTEER_ROUTING__MAX_LAG__TIME=5s`; `PGSTEER_LISTEN` and `PGSTEER_HTTP` have no section), and
can be given as `--set routing.max_lag.time=5s`. Lists are separated by commas there.

**Units.** A number alone never means a time or a size. Durations: `us`, `ms`, `s`, `m` (or
`min`), `h`, `d`, as in `\"500ms\"`. Sizes: `B`, `kB`, `MB`, `GB`, `TB`, as in `\"16MB\"`; as in
PostgreSQL, 1kB is 1024B (`KiB`, `MiB`, `GiB`, `TiB` mean the same).

**Servers** are written `HOST`, `HOST:PORT`, `[::1]:5432`, `/socket/dir`, or as a `postgresql://`
URI, whose user, password, database and `sslmode` count where `[servers]` says nothing.

**Secrets.** `password` is text, `{ file = \"PATH\" }` (the last line break does not count) or
`{ env = \"NAME\" }`. It is in no log, no error message and no list of settings. A file that others
can read (beyond mode 0640) is used with a warning.

**Reload.** On SIGHUP everything is read again. A file with a mistake changes nothing. Keys
marked *restart* keep their old value until then; the log names them.
";

/// The reference file: TOML that passes `check-config`.
pub fn toml() -> String {
    let mut out = TOML_HEAD.to_owned();
    for (section, about) in SECTIONS {
        out.push('\n');
        if section.is_empty() {
            writeln_all(&mut out, &[format!("# {about}")]);
        } else {
            writeln_all(&mut out, &[format!("# {about}"), format!("[{section}]")]);
        }
        for key in keys_of(section) {
            out.push('\n');
            writeln_all(&mut out, &key_as_toml(key));
        }
    }
    out
}

/// What it does above the key; what it takes behind it, where that fits.
fn key_as_toml(key: &dyn AnyKey) -> Vec<String> {
    let takes = match key.counts() {
        Counts::OnReload => key.form(),
        Counts::OnRestart => format!("{} [restart]", key.form()),
    };
    let (_, name) = split(key.name());
    let mark = if key.name() == keys::HOSTS.name { "" } else { "#" };
    let setting = format!("{mark}{name} = {}", value_shown(key));
    let with_comment = format!("{setting:<38}  # {takes}");
    let fits = with_comment.chars().count() <= WIDTH;
    let about = if fits {
        key.doc().trim().to_owned()
    } else {
        format!("{} Takes: {takes}.", key.doc().trim())
    };
    let mut lines: Vec<String> = wrapped(&about).iter().map(|line| format!("# {line}")).collect();
    lines.push(if fits { with_comment } else { setting });
    lines
}

/// The default; the example where the default is nothing.
fn value_shown(key: &dyn AnyKey) -> String {
    let default = key.default_text();
    if ["\"\"", "[]", "{}"].contains(&default.as_str()) && !key.example().is_empty() {
        key.example().to_owned()
    } else {
        default
    }
}

/// The manual's page.
pub fn markdown() -> String {
    let mut out = MARKDOWN_HEAD.to_owned();
    for (section, about) in SECTIONS {
        let title =
            if section.is_empty() { "Top level".to_owned() } else { format!("`[{section}]`") };
        let head = [
            "",
            &format!("## {title}"),
            "",
            about,
            "",
            "| key | takes | default | what it does |",
            "|---|---|---|---|",
        ];
        writeln_all(&mut out, &head.map(str::to_owned));
        for key in keys_of(section) {
            let (_, name) = split(key.name());
            let default = match key.default_text().as_str() {
                "\"\"" | "[]" | "{}" => "-".to_owned(),
                default => format!("`{default}`"),
            };
            let restart = match key.counts() {
                Counts::OnReload => "",
                Counts::OnRestart => " *restart*",
            };
            let example = match key.example() {
                "" => String::new(),
                example => format!(" Example: `{name} = {example}`."),
            };
            let cells = [
                format!("`{name}`"),
                format!("`{}`", key.form()),
                default,
                format!("{}{example}{restart}", key.doc().trim()),
            ];
            writeln_all(
                &mut out,
                &[format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))],
            );
        }
    }
    out
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static dyn AnyKey> {
    keys::ALL.iter().copied().filter(move |key| split(key.name()).0 == section)
}

fn writeln_all(out: &mut String, lines: &[String]) {
    for line in lines {
        // Writing to a string cannot fail.
        let _written: Result<(), std::fmt::Error> = writeln!(out, "{line}");
    }
}

/// A text in lines, broken at spaces.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH - 2 => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_a_section_that_is_printed() {
        let printed: usize = SECTIONS.iter().map(|(section, _)| keys_of(section).count()).sum();
        assert_eq!(printed, keys::ALL.len());
    }

    /// The last five have theirs in docs/decisions: `limits.scheduling` in 0022, `cancel.sslmode`
    /// and `cancel.sslrootcert` in 0024, `pool.unnamed_statements` in 0025,
    /// `observability.core_dumps` in 0026.
    #[test]
    fn there_are_at_most_sixty_eight_keys() {
        assert!(keys::ALL.len() <= 68, "{} keys: a new one needs a reason", keys::ALL.len());
    }
}
