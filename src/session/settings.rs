//! A session's settings, and the statements that bring them to a backend.
//!
//! A session's settings are what `pg_settings` called `source = 'session'` when a backend that
//! the session had used was last probed: the server's own account, so that errors, rollbacks,
//! functions and `RESET` need no model of ours. A backend remembers which settings it carries;
//! at check-out the difference is asked of it in a round trip of its own, before anything of the
//! session: a statement must not run under the settings of another.

use crate::pg::quote_identifier;
use crate::pg::quote_literal;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Settings by name, as text, in the server's own base units; and what one of them says of where
/// the session's transactions can run, for each statement asks that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Settings(BTreeMap<Box<str>, Box<str>>, Isolates);

/// By which a session says how its transactions are isolated.
pub const ISOLATION: &str = "default_transaction_isolation";

/// Where a session's transactions can run by their isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Isolates {
    /// On any server.
    #[default]
    Anywhere,
    /// A standby refuses them: they are `SERIALIZABLE`.
    OnPrimary,
}

impl Isolates {
    /// With this default.
    pub fn by_default(isolation: &str) -> Self {
        if isolation.eq_ignore_ascii_case("serializable") {
            Self::OnPrimary
        } else {
            Self::Anywhere
        }
    }
}

/// The pseudo-setting that holds `SET ROLE`: it must go first when it is left and last when it
/// is taken, for a role may lack the right to the others.
const ROLE: &str = "role";

/// The one that holds `SET SESSION AUTHORIZATION`. A login that gives it is refused unless its user
/// may become that one, and begins as its user all the same.
///
/// Source: `InitializeSessionUserId` in `utils/init/miscinit.c`: who has logged in counts more than
/// what the client gives (`PGC_S_OVERRIDE`).
const SESSION_USER: &str = "session_authorization";

/// Parameters of the startup message that are no settings that could be brought to a backend. A
/// seed does nothing there (`check_random_seed` in `commands/variable.c`).
const NO_SETTINGS: [&str; 7] =
    ["user", "database", "replication", "options", "seed", ROLE, SESSION_USER];

/// The role that a session has before it sets one, and to which `RESET ROLE` leads: of its login,
/// or of its user or database (`ALTER ROLE ... SET role`).
///
/// No statement can give a backend another one, so who gives a role at login is served by
/// backends that were opened with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstRole(Option<Arc<str>>);

impl FirstRole {
    /// By what `SHOW role` tells.
    pub fn new(shown: &str) -> Self {
        Self((shown != NO_ROLE).then(|| shown.into()))
    }

    /// What `SHOW role` tells.
    pub fn shown(&self) -> &str {
        self.0.as_deref().unwrap_or(NO_ROLE)
    }

    /// Whether there is none: the session acts as its user.
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

/// What the pseudo-setting shows while there is no role.
const NO_ROLE: &str = "none";

/// What a client gave in its startup message of who it is to be: only a login can give a backend
/// that, so that backends are opened with it. Of each name the last, in the order of the names, for
/// that is what a server is sent: who says the same in other words must not be somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Box<[(Box<str>, Box<str>)]>);

impl Identity {
    /// By the startup message's parameters; `None`: its user, and nothing else.
    pub fn from_startup(params: &[(String, String)]) -> Option<Arc<Self>> {
        let given = params.iter().map(|(name, value)| (canonical(name), value.as_str()));
        let given = given.filter(|(name, _)| [ROLE, SESSION_USER].contains(&&**name));
        let last: BTreeMap<_, _> = given.collect();
        let pairs = last.into_iter().map(|(name, value)| (name.into(), value.into()));
        let pairs: Box<[(Box<str>, Box<str>)]> = pairs.collect();
        (!pairs.is_empty()).then(|| Arc::new(Self(pairs)))
    }

    /// The parameters of a login as just that.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The role that it begins with.
    pub fn role(&self) -> Option<&str> {
        self.params().find(|(name, _)| *name == ROLE).map(|(_, role)| role)
    }
}

impl Settings {
    /// The settings that a client gave in its startup message.
    pub fn from_startup(params: &[(String, String)]) -> Self {
        let given = params.iter().filter(|(name, _)| {
            !NO_SETTINGS.contains(&&*canonical(name))
                && !name.starts_with("_pq_.")
                && !is_ours(name)
        });
        let mut settings = Self::default();
        for (name, value) in given {
            settings.set(name, value);
        }
        settings
    }

    /// Adds or replaces one.
    pub fn set(&mut self, name: &str, value: &str) {
        let name = canonical(name);
        if name == ISOLATION {
            self.1 = Isolates::by_default(value);
        }
        self.0.insert(name.into(), value.into());
    }

    /// Takes one away.
    pub fn remove(&mut self, name: &str) {
        let name = canonical(name);
        if name == ISOLATION {
            self.1 = Isolates::default();
        }
        self.0.remove(&*name);
    }

    /// Where the session's transactions can run, as far as these say.
    pub const fn isolates(&self) -> Isolates {
        self.1
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&*canonical(name)).map(|value| &**value)
    }

    /// Every name and value, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The same in the order in which they are given one by one: a role may lack the right to the
    /// others, and all are told in the letters of before.
    pub fn in_order(&self) -> impl Iterator<Item = (&str, &str)> {
        let last = [ROLE, "client_encoding"];
        let others = self.iter().filter(move |(name, _)| !last.contains(name));
        others.chain(last.into_iter().filter_map(|name| Some((name, self.get(name)?))))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// What `SET` takes to give one of them this value, to the letter; `None` where it can't: it
    /// would have to be read in UTF-8, or by what it sets itself.
    ///
    /// Where `SET` takes names, a text is one of them.
    ///
    /// Source: `flatten_set_variable_args` in `utils/misc/guc.c` (`guc_funcs.c` since 16), and the
    /// settings with `GUC_LIST_QUOTE` in `guc_tables.c`.
    pub fn assignment(name: &str, value: &str) -> Option<String> {
        const NAMES: [&str; 2] = ["search_path", "temp_tablespaces"];
        const LEFT_OUT: [&str; 4] = [
            "client_encoding",
            "local_preload_libraries",
            "session_preload_libraries",
            "standard_conforming_strings",
        ];
        if !name.is_ascii() || !value.is_ascii() || LEFT_OUT.contains(&name) {
            return None;
        }
        let value = if NAMES.contains(&name) && !value.trim().is_empty() {
            names_in(value)?
                .iter()
                .map(|name| quote_identifier(name))
                .collect::<Vec<_>>()
                .join(", ")
        } else {
            quote_literal(value)
        };
        Some(format!("{} TO {value}", qualified(name)))
    }

    /// The statements that turn a backend with `carried` settings into one with these; `None` if
    /// nothing differs. It began with the role `first`.
    ///
    /// `set_config` takes the value as it is shown, also where `SET` would take a list.
    ///
    /// Source: PostgreSQL manual, 9.28.1 "Configuration Settings Functions".
    pub fn difference_from(&self, carried: &Self, first: &FirstRole) -> Option<String> {
        if self == carried {
            return None;
        }
        let mut sql = String::new();
        if !first.is_none() {
            sql.push_str("SET ROLE NONE;");
        } else if carried.0.contains_key(ROLE) {
            sql.push_str("RESET ROLE;");
        }
        for name in carried.0.keys().filter(|name| &***name != ROLE) {
            if !self.0.contains_key(name) {
                sql.push_str("RESET ");
                sql.push_str(&qualified(name));
                sql.push(';');
            }
        }
        let changed = self
            .0
            .iter()
            .filter(|(name, value)| &***name != ROLE && carried.0.get(*name) != Some(value));
        for (name, value) in changed.chain(self.0.get_key_value(ROLE)) {
            sql.push_str("SELECT pg_catalog.set_config(");
            sql.push_str(&quote_literal(name));
            sql.push(',');
            sql.push_str(&quote_literal(value));
            sql.push_str(",false);");
        }
        if !first.is_none() && !self.0.contains_key(ROLE) {
            sql.push_str("RESET ROLE;");
        }
        Some(sql)
    }
}

/// Settings by which a server reads a statement's text, or folds what is constant in it, when the
/// statement is prepared.
const READING: [&str; 16] = [
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "role",
    "search_path",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

impl Settings {
    /// What tells how a text is read under these settings: two sessions with the same reading may
    /// share what was prepared of it. It holds no byte that UTF-8 has not.
    pub fn reading(&self) -> String {
        let mut reading = String::new();
        for name in READING {
            if let Some(value) = self.0.get(name) {
                reading.push_str(name);
                reading.push('\0');
                reading.push_str(value);
                reading.push('\0');
            }
        }
        reading
    }
}

/// Settings that many sessions share, so that a comparison is mostly one of pointers.
pub type SharedSettings = Arc<Settings>;

/// Whether `carried` needs no change to become `wanted`.
pub fn same(wanted: &SharedSettings, carried: &SharedSettings) -> bool {
    Arc::ptr_eq(wanted, carried) || wanted == carried
}

/// Whether a setting is for pgsteer and not for the server.
pub fn is_ours(name: &str) -> bool {
    name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("pgsteer."))
}

/// The name as the server keeps it: setting names don't differ by case.
fn canonical(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// A setting's name as SQL; a custom one has two parts.
fn qualified(name: &str) -> String {
    name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".")
}

/// The names of a list, as the server reads them.
///
/// Source: `SplitIdentifierString` in `utils/adt/varlena.c`.
fn names_in(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = list.trim_matches(is_space);
    loop {
        let (name, behind) = if let Some(quoted) = rest.strip_prefix('"') {
            in_quotes(quoted)?
        } else {
            let end = rest.find(|sign| sign == ',' || is_space(sign)).unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            (name.to_ascii_lowercase(), behind)
        };
        if name.is_empty() {
            return None;
        }
        names.push(name);
        let behind = behind.trim_start_matches(is_space);
        if behind.is_empty() {
            return Some(names);
        }
        rest = behind.strip_prefix(',')?.trim_start_matches(is_space);
    }
}

/// Up to the quote that ends it, and what is behind that.
fn in_quotes(quoted: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(doubled) => {
                name.push('"');
                rest = doubled;
            }
            None => return Some((name, behind)),
        }
    }
}

/// Source: `scanner_isspace` in `parser/scansup.c`.
const fn is_space(sign: char) -> bool {
    matches!(sign, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.set(name, value);
        }
        settings
    }

    #[test]
    fn where_transactions_can_run_is_as_the_setting_says_now() {
        let mut settings = Settings::default();
        for (name, value, isolates) in [
            ("work_mem", "serializable", Isolates::Anywhere),
            ("Default_Transaction_Isolation", "SERIALIZABLE", Isolates::OnPrimary),
            (ISOLATION, "repeatable read", Isolates::Anywhere),
            (ISOLATION, "serializable", Isolates::OnPrimary),
        ] {
            settings.set(name, value);
            assert_eq!(settings.isolates(), isolates, "{name} = {value}");
        }
        settings.remove(ISOLATION);
        assert_eq!(settings.isolates(), Isolates::Anywhere);
        let given = [(ISOLATION.to_owned(), "Serializable".to_owned())];
        assert_eq!(Settings::from_startup(&given).isolates(), Isolates::OnPrimary);
    }

    #[test]
    fn only_the_difference_is_sent() {
        let carried = settings(&[("work_mem", "4096"), ("app.tenant", "7"), ("datestyle", "ISO")]);
        let wanted = settings(&[("DateStyle", "ISO"), ("search_path", "a, b"), ("work_mem", "64")]);
        assert_eq!(
            wanted.difference_from(&carried, &FirstRole::default()).as_deref(),
            Some(
                "RESET \"app\".\"tenant\";\
                 SELECT pg_catalog.set_config('search_path','a, b',false);\
                 SELECT pg_catalog.set_config('work_mem','64',false);"
            )
        );
        assert_eq!(wanted.difference_from(&wanted, &FirstRole::default()), None);
    }

    #[test]
    fn a_value_is_assigned_as_it_was_given() {
        let cases = [
            ("work_mem", "7MB", Some("\"work_mem\" TO '7MB'")),
            ("app.tenant", "it's", Some("\"app\".\"tenant\" TO 'it''s'")),
            ("datestyle", "ISO, DMY", Some("\"datestyle\" TO 'ISO, DMY'")),
            (
                "search_path",
                "Some , \"$user\",\"B\"\"c\"",
                Some("\"search_path\" TO \"some\", \"$user\", \"B\"\"c\""),
            ),
            ("search_path", "", Some("\"search_path\" TO ''")),
            ("search_path", "a,", None),
            ("search_path", "a b", None),
            ("search_path", "\"a", None),
            ("search_path", "\"\"", None),
            ("app.name", "\u{e9}", None),
            ("client_encoding", "LATIN1", None),
        ];
        for (name, value, expected) in cases {
            assert_eq!(Settings::assignment(name, value).as_deref(), expected, "{name} = {value}");
        }
    }

    #[test]
    fn a_role_is_left_first_and_taken_last() {
        let carried = settings(&[("role", "a"), ("zone", "1")]);
        let wanted = settings(&[("role", "b"), ("zone", "2")]);
        let sql = wanted.difference_from(&carried, &FirstRole::default()).unwrap();
        assert!(sql.starts_with("RESET ROLE;"), "{sql}");
        assert!(sql.ends_with("set_config('role','b',false);"), "{sql}");
    }

    #[test]
    fn a_first_role_is_left_for_what_is_brought_and_is_there_behind_it() {
        let first = FirstRole::new("a");
        let (carried, wanted) = (settings(&[("role", "none")]), settings(&[("zone", "2")]));
        let sql = wanted.difference_from(&carried, &first).unwrap();
        assert_eq!(sql, "SET ROLE NONE;SELECT pg_catalog.set_config('zone','2',false);RESET ROLE;");
        let sql = carried.difference_from(&wanted, &first).unwrap();
        assert!(sql.starts_with("SET ROLE NONE;RESET \"zone\";"), "{sql}");
        assert!(sql.ends_with("set_config('role','none',false);"), "{sql}");
        assert_eq!(FirstRole::new("none"), FirstRole::default());
    }

    #[test]
    fn startup_parameters_that_are_no_settings_are_left_out() {
        let params = [
            ("user", "u"),
            ("database", "d"),
            ("pgsteer.role", "primary"),
            ("_pq_.x", "1"),
            ("role", "a"),
            ("session_authorization", "c"),
            ("Seed", "0.5"),
            ("ROLE", "b"),
            ("Session_Authorization", "d"),
            ("TimeZone", "UTC"),
        ];
        let params: Vec<_> =
            params.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let expected = settings(&[("timezone", "UTC")]);
        assert_eq!(Settings::from_startup(&params), expected);
        let identity = Identity::from_startup(&params).unwrap();
        assert_eq!(identity.role(), Some("b"));
        let given: Vec<_> = identity.params().collect();
        assert_eq!(given, [("role", "b"), ("session_authorization", "d")]);
        let reworded = Identity::from_startup(&[params[8].clone(), params[7].clone()]);
        assert_eq!(reworded.as_ref(), Some(&identity), "it is the same to a server");
        assert_eq!(Identity::from_startup(&params[..2]), None);
    }
}
