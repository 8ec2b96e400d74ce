//! Connection strings as libpq reads them: `primary_conninfo` in both of its forms.
//!
//! A standby's connection string is the operator's: when it is to follow another server, host
//! and port change and nothing else. So it is read in full, by libpq's own rules, and written
//! with everything that was in it. It may hold a password: nothing here shows a value unasked.
//!
//! Deliberately absent: which keywords exist. A server's libpq may be newer than we are; what it
//! takes, we pass on.
//!
//! Source: `conninfo_parse`, `conninfo_uri_parse_options` and `conninfo_uri_parse_params` in
//! `interfaces/libpq/fe-connect.c` of PostgreSQL.

mod options;
mod read;

use std::fmt;

/// A connection string, read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Conninfo {
    /// Each keyword once, in the order of its last mention, which is the one that counts.
    pairs: Vec<(String, String)>,
}

/// The text is no connection string. What is wrong is told without a value of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConninfo {
    /// A word without `=` where a keyword was expected.
    #[error("missing \"=\" after a keyword")]
    NoValue,
    /// A quoted value that does not end.
    #[error("unterminated quoted value")]
    Unterminated,
    /// A keyword with signs that none has.
    #[error("invalid keyword")]
    Keyword,
    /// A URI's address in brackets is empty, does not end, or is followed by something else.
    #[error("invalid address in brackets")]
    Brackets,
    /// A `%` that is not followed by two hexadecimal digits, or stands for a zero byte or for
    /// what is no UTF-8.
    #[error("invalid percent-encoding")]
    Percent,
}

impl Conninfo {
    /// The value of a keyword.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == keyword).map(|(_, value)| value.as_str())
    }

    /// Every keyword that it has, in order.
    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(keyword, _)| keyword.as_str())
    }

    /// The same with this value.
    #[must_use]
    pub fn with(mut self, keyword: &str, value: &str) -> Self {
        match self.pairs.iter_mut().find(|(known, _)| known == keyword) {
            Some((_, old)) => value.clone_into(old),
            None => self.pairs.push((keyword.to_owned(), value.to_owned())),
        }
        self
    }

    /// The same without this keyword.
    #[must_use]
    pub fn without(mut self, keyword: &str) -> Self {
        self.pairs.retain(|(known, _)| known != keyword);
        self
    }

    /// The same, to another server: `hostaddr`, which would go before `host`, falls away.
    #[must_use]
    pub fn to_server(self, host: &str, port: u16) -> Self {
        self.without("hostaddr").with("host", host).with("port", &port.to_string())
    }

    /// Whether it leads to this server and to no other.
    pub fn leads_to(&self, host: &str, port: u16) -> bool {
        self.get("hostaddr").is_none_or(|address| address == host)
            && self.get("host").is_none_or(|name| name == host || self.get("hostaddr").is_some())
            && (self.get("host").is_some() || self.get("hostaddr").is_some())
            && self.get("port").unwrap_or(DEFAULT_PORT) == port.to_string()
    }

    /// The connection string, as keywords and values.
    pub fn text(&self) -> String {
        let pairs = self.pairs.iter().map(|(keyword, value)| {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            format!("{keyword}='{value}'")
        });
        pairs.collect::<Vec<_>>().join(" ")
    }
}

/// Where libpq connects without a port.
const DEFAULT_PORT: &str = "5432";

impl fmt::Debug for Conninfo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.keywords()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, InvalidConninfo> {
        Conninfo::parse(text).map(|read| read.pairs)
    }

    fn expect(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    /// Each was compared with libpq's own `PQconninfoParse`.
    #[test]
    fn keywords_and_values_are_read_as_libpq_reads_them() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("host=a port=1", &[("host", "a"), ("port", "1")]),
            (" host = a\tport\n=\n1 ", &[("host", "a"), ("port", "1")]),
            ("host='a b' user=''", &[("host", "a b"), ("user", "")]),
            (r"password='it\'s \\ me'", &[("password", r"it's \ me")]),
            (r"password=it\'s\ me", &[("password", "it's me")]),
            ("password=a'b", &[("password", "a'b")]),
            ("host='a'port=1", &[("host", "a"), ("port", "1")]),
            ("host= port=1", &[("host", "port=1")]),
            ("host=", &[("host", "")]),
            ("host=a host=b", &[("host", "b")]),
            (r"password=a\", &[("password", "a")]),
            ("options='-c wal_sender_timeout=1s'", &[("options", "-c wal_sender_timeout=1s")]),
        ];
        for (text, expected) in cases {
            assert_eq!(pairs(text), Ok(expect(expected)), "{text:?}");
        }
        for text in ["host", "host a", "host='a", "=a", r"host='a\'", "ho'st=a"] {
            assert!(pairs(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn uris_are_read_as_libpq_reads_them() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("postgresql://", &[]),
            ("postgres://a", &[("host", "a")]),
            (
                "postgresql://u@a:1/d",
                &[("user", "u"), ("host", "a"), ("port", "1"), ("dbname", "d")],
            ),
            (
                "postgresql://u%20x:p%3Aq%40@a",
                &[("user", "u x"), ("password", "p:q@"), ("host", "a")],
            ),
            ("postgresql://[::1]:5/", &[("host", "::1"), ("port", "5")]),
            ("postgresql://a:1,b:2", &[("host", "a,b"), ("port", "1,2")]),
            ("postgresql://a,b:2", &[("host", "a,b"), ("port", ",2")]),
            ("postgresql://%2Ftmp", &[("host", "/tmp")]),
            (
                "postgresql://a?application_name=x&sslmode=require",
                &[("host", "a"), ("application_name", "x"), ("sslmode", "require")],
            ),
            ("postgresql:///d?host=/tmp", &[("dbname", "d"), ("host", "/tmp")]),
            ("postgresql://a?ssl=true", &[("host", "a"), ("sslmode", "require")]),
            ("postgresql://:p@a", &[("password", "p"), ("host", "a")]),
            ("postgresql://a?options=-c%20x%3D1", &[("host", "a"), ("options", "-c x=1")]),
            ("postgresql://a?user=x+y", &[("host", "a"), ("user", "x+y")]),
            ("postgresql://a?user=x&", &[("host", "a"), ("user", "x")]),
            ("postgresql://a/d/e?", &[("host", "a"), ("dbname", "d/e")]),
            ("postgresql://@a:%31", &[("host", "a"), ("port", "1")]),
            ("postgresql://[::1],b", &[("host", "::1,b"), ("port", ",")]),
        ];
        for (text, expected) in cases {
            assert_eq!(pairs(text), Ok(expect(expected)), "{text:?}");
        }
        let wrong = [
            "postgresql://[::1",
            "postgresql://[]",
            "postgresql://[::1]x",
            "postgresql://a?b",
            "postgresql://a?b=c=d",
            "postgresql://a?&b=c",
            "postgresql://a%zz",
            "postgresql://a%00",
            "postgresql://a?x%20y=1",
        ];
        for text in wrong {
            assert!(pairs(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn another_server_changes_host_and_port_alone() {
        let before = "host=old hostaddr=10.0.0.1 port=5433 user=r password='a b' dbname=app \
                      options='-c wal_sender_timeout=1s' sslmode=verify-full application_name=s1";
        let after = Conninfo::parse(before).unwrap().to_server("new", 5434);
        assert_eq!(
            after.text(),
            "host='new' port='5434' user='r' password='a b' dbname='app' \
             options='-c wal_sender_timeout=1s' sslmode='verify-full' application_name='s1'"
        );
        let uri = Conninfo::parse("postgresql://u:secret@a:1,b:2/d?sslmode=require").unwrap();
        let moved = uri.to_server("/run/pg", 5);
        assert!(moved.leads_to("/run/pg", 5));
        assert_eq!((moved.get("password"), moved.get("dbname")), (Some("secret"), Some("d")));
    }

    #[test]
    fn whom_it_leads_to_is_told_strictly() {
        let leads = |text: &str| Conninfo::parse(text).unwrap().leads_to("a", 5432);
        for text in ["host=a", "host=a port=5432", "hostaddr=a", "host=b hostaddr=a"] {
            assert!(leads(text), "{text}");
        }
        for text in ["", "host=b", "host=a port=5433", "host=a,b", "host=a hostaddr=b", "user=a"] {
            assert!(!leads(text), "{text}");
        }
    }

    #[test]
    fn no_value_is_shown_unasked() {
        let read = Conninfo::parse("host=a password=very-secret").unwrap();
        assert_eq!(format!("{read:?}"), r#"{"host", "password"}"#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            values in proptest::collection::btree_map("[a-z_]{1,8}", r"[ -~\t\né'\\]{0,12}", 0..6),
        ) {
            let conninfo = Conninfo { pairs: values.into_iter().collect() };
            prop_assert_eq!(Conninfo::parse(&conninfo.text()), Ok(conninfo));
        }

        #[test]
        fn a_uri_says_the_same_as_its_keywords(
            values in proptest::collection::btree_map("[a-z]{4,8}", ".{1,12}", 1..6),
        ) {
            let encode = |text: &str| {
                let codes: Vec<_> = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
                codes.concat()
            };
            let values: Vec<_> =
                values.into_iter().filter(|(_, value)| !value.contains('\0')).collect();
            let query: Vec<_> = values.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
            let uri = Conninfo::parse(&format!("postgresql://?{}", query.join("&"))).unwrap();
            prop_assert_eq!(&uri.pairs, &values);
            prop_assert_eq!(Conninfo::parse(&uri.text()), Ok(uri));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(postgres://)?.{0,40}") {
            let _read = Conninfo::parse(&text);
        }
    }
}
