//! The keyword `options`: settings of the session at the other end.
//!
//! Source: `pg_split_opts` in `utils/init/postinit.c` and `process_postgres_switches` in
//! `tcop/postgres.c` of PostgreSQL.

use super::Conninfo;

impl Conninfo {
    /// What `options` sets this setting to.
    pub fn option(&self, setting: &str) -> Option<String> {
        let mut words = words(self.get("options")?).into_iter();
        let mut found = None;
        while let Some(word) = words.next() {
            let assignment = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
                Some("") if word == "-c" => words.next()?,
                Some(assignment) => assignment.to_owned(),
                None => continue,
            };
            if let Some((name, value)) = assignment.split_once('=')
                && name.replace('-', "_").eq_ignore_ascii_case(setting)
            {
                found = Some(value.to_owned());
            }
        }
        found
    }

    /// The same, and `options` sets this as well: of two, the last one counts.
    #[must_use]
    pub fn with_option(self, setting: &str, value: &str) -> Self {
        let escaped: String = value
            .chars()
            .flat_map(|sign| {
                let escape = (sign.is_ascii_whitespace() || sign == '\\').then_some('\\');
                escape.into_iter().chain([sign])
            })
            .collect();
        let added = format!("-c {setting}={escaped}");
        let options = match self.get("options").map(str::trim).filter(|old| !old.is_empty()) {
            Some(old) => format!("{old} {added}"),
            None => added,
        };
        self.with("options", &options)
    }
}

/// The words of the text: between spaces that are not escaped by a backslash.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut escaped = false;
    for sign in text.chars() {
        if sign.is_ascii_whitespace() && !escaped {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_default();
        if sign == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            current.push(sign);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(options: &str) -> Option<String> {
        Conninfo::default().with("options", options).option("wal_sender_timeout")
    }

    #[test]
    fn a_setting_is_found_however_it_is_written() {
        let cases = [
            ("-c wal_sender_timeout=1s", Some("1s")),
            ("-cwal_sender_timeout=1s", Some("1s")),
            ("--wal-sender-timeout=1s", Some("1s")),
            ("-c work_mem=1MB  -c WAL_SENDER_TIMEOUT=400ms", Some("400ms")),
            ("-c wal_sender_timeout=1s -c wal_sender_timeout=2s", Some("2s")),
            (r"-c wal_sender_timeout=1\ s", Some("1 s")),
            ("-c", None),
            ("-c work_mem=1MB", None),
            ("", None),
        ];
        for (options, expected) in cases {
            assert_eq!(option(options).as_deref(), expected, "{options}");
        }
    }

    #[test]
    fn a_setting_that_is_added_counts() {
        for before in ["", "-c wal_sender_timeout=60s", "-c work_mem=1MB"] {
            let conninfo = Conninfo::default().with("options", before);
            let after = conninfo.with_option("wal_sender_timeout", r"a b\c");
            assert_eq!(after.option("wal_sender_timeout").as_deref(), Some(r"a b\c"), "{before}");
        }
    }
}
