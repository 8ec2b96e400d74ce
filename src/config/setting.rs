//! How each type of value is read, written and explained: units, choices, lists, secrets.
//!
//! A number alone never means a time or a size, for nobody remembers of what; the message says
//! what to write.

use crate::config::node::Kind;
use crate::config::node::Node;
use crate::config::problem::Notes;
use crate::failover::MaxLoss;
use std::path::PathBuf;
use std::time::Duration;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// What to write, for the reference: `duration`, `standby | any | primary`.
    fn form() -> String;

    /// Reads a value; what is wrong goes to `notes`.
    fn read(node: &Node, notes: &mut Notes) -> Option<Self>;

    /// The value as TOML; a secret's stars instead of a secret.
    fn write(&self) -> String;
}

/// Text of either origin.
pub(super) fn text<'n>(node: &'n Node, notes: &mut Notes) -> Option<&'n str> {
    match &node.kind {
        Kind::Text(text) | Kind::Word(text) => Some(text),
        Kind::Integer(number) | Kind::Float(number) => {
            let help = format!("put it in quotes: \"{number}\"");
            notes.error(&node.place, "expected text in quotes, found a number".to_owned(), help);
            None
        }
        Kind::Bool(_) | Kind::DateTime | Kind::List(_) | Kind::Table(_) => {
            let message = format!("expected text in quotes, found {}", node.describe());
            notes.error(&node.place, message, "");
            None
        }
    }
}

/// TOML's basic string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Setting for Option<String> {
    fn form() -> String {
        "text".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        text(node, notes).map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    fn write(&self) -> String {
        quoted(self.as_deref().unwrap_or(""))
    }
}

impl Setting for Option<PathBuf> {
    fn form() -> String {
        "path".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        text(node, notes).map(|text| Some(PathBuf::from(text)).filter(|_| !text.is_empty()))
    }

    fn write(&self) -> String {
        quoted(&self.as_deref().map_or_else(String::new, |path| path.display().to_string()))
    }
}

/// Names of functions: lower case, as PostgreSQL folds them.
impl Setting for Vec<String> {
    fn form() -> String {
        "list of names".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let names = items(node, notes)?;
        let count = names.len();
        let names: Vec<String> =
            names.iter().filter_map(|name| function_name(name, notes)).collect();
        (names.len() == count).then_some(names)
    }

    fn write(&self) -> String {
        let names: Vec<String> = self.iter().map(|name| quoted(name)).collect();
        format!("[{}]", names.join(", "))
    }
}

fn function_name(node: &Node, notes: &mut Notes) -> Option<String> {
    let name = text(node, notes)?.trim();
    if name.is_empty() || name.contains(['(', ')', ' ', ',']) {
        let help = "write the bare name, without arguments: \"my_function\" or \"app.my_function\"";
        notes.error(&node.place, format!("`{name}` is not a function's name"), help);
        return None;
    }
    Some(name.to_lowercase())
}

/// The items of a list; a word of a variable or a flag is split at commas.
pub(super) fn items(node: &Node, notes: &mut Notes) -> Option<Vec<Node>> {
    match &node.kind {
        Kind::List(items) => Some(items.clone()),
        Kind::Word(word) => Some(
            word.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Node { place: node.place.clone(), kind: Kind::Word(item.to_owned()) })
                .collect(),
        ),
        Kind::Text(text) => {
            let help = format!("write it in brackets: [{}]", quoted(text));
            notes.error(&node.place, "expected a list, found text".to_owned(), help);
            None
        }
        Kind::Integer(_) | Kind::Float(_) | Kind::Bool(_) | Kind::DateTime | Kind::Table(_) => {
            notes.error(&node.place, format!("expected a list, found {}", node.describe()), "");
            None
        }
    }
}

/// What helps where a number is expected.
const PLAIN_DIGITS: &str = "write digits alone, without quotes and without a unit";

impl Setting for u32 {
    fn form() -> String {
        "number".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let number = match &node.kind {
            Kind::Integer(number) => number.as_str(),
            Kind::Word(word) => word.trim(),
            Kind::Text(text) if text.parse::<u32>().is_ok() => {
                let help = format!("write it without quotes: {text}");
                notes.error(&node.place, "expected a number, found text".to_owned(), help);
                return None;
            }
            Kind::Text(_)
            | Kind::Float(_)
            | Kind::Bool(_)
            | Kind::DateTime
            | Kind::List(_)
            | Kind::Table(_) => {
                let message = format!("expected a whole number, found {}", node.describe());
                notes.error(&node.place, message, PLAIN_DIGITS);
                return None;
            }
        };
        let parsed = number.replace('_', "").parse().ok();
        if parsed.is_none() {
            let message = format!("`{number}` is not a whole number from 0 to {}", u32::MAX);
            notes.error(&node.place, message, PLAIN_DIGITS);
        }
        parsed
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A closed list of words.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// Every value and its word.
    const WORDS: &'static [(Self, &'static str)];
}

impl<T: Choice> Setting for T {
    fn form() -> String {
        words::<T>().join(" | ")
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        let (Kind::Text(word) | Kind::Word(word)) = &node.kind else {
            let (known, found) = (words::<T>(), node.describe());
            let help =
                known.first().map(|word| format!("put one of them in quotes, as \"{word}\""));
            let message = format!("expected one of: {}; found {found}", known.join(", "));
            notes.error(&node.place, message, help.unwrap_or_default());
            return None;
        };
        if let Some((value, _)) = T::WORDS.iter().find(|(_, known)| *known == word) {
            return Some(*value);
        }
        let known = words::<T>();
        let ours = OUR_WORDS.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours);
        let help = ours
            .filter(|ours| known.contains(ours))
            .or_else(|| nearest(word, &known))
            .map_or_else(String::new, |near| format!("did you mean \"{near}\"?"));
        notes.error(&node.place, format!("`{word}` is not one of: {}", known.join(", ")), help);
        None
    }

    fn write(&self) -> String {
        let word = T::WORDS.iter().find(|(value, _)| value == self).map_or("", |(_, word)| *word);
        quoted(word)
    }
}

/// What others call a server's role.
const OUR_WORDS: &[(&str, &str)] = &[
    ("replica", "standby"),
    ("replicas", "standby"),
    ("secondary", "standby"),
    ("slave", "standby"),
    ("master", "primary"),
    ("leader", "primary"),
];

fn words<T: Choice>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(_, word)| *word).collect()
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word: String = word.chars().take(64).flat_map(char::to_lowercase).collect();
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(&word, known), *known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// Units of time; PostgreSQL's (manual, 20.1.1), and `m` for the minute.
const TIMES: &[(&str, u64)] = &[
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("min", 60_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Units of size. PostgreSQL's are powers of 1024 (manual, 20.1.1): its `kB` is 1024 bytes.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1 << 10),
    ("KiB", 1 << 10),
    ("MB", 1 << 20),
    ("MiB", 1 << 20),
    ("GB", 1 << 30),
    ("GiB", 1 << 30),
    ("TB", 1 << 40),
    ("TiB", 1 << 40),
];

/// One dimension: what its values are called and measured in.
struct Dimension {
    what: &'static str,
    units: &'static [(&'static str, u64)],
    /// Help after a bare number.
    fix: fn(&str) -> String,
    /// Help after anything else.
    like: &'static str,
}

const TIME: Dimension = Dimension {
    what: "duration",
    units: TIMES,
    fix: |number| format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"),
    like: "durations are whole numbers with a unit: us, ms, s, m, h, d, as in \"500ms\"",
};

const SIZE: Dimension = Dimension {
    what: "size",
    units: SIZES,
    fix: |number| match number.parse() {
        Ok(bytes @ 1024_u64..) => format!("write {} if you mean bytes", SIZE.write(bytes)),
        Ok(_) | Err(_) => {
            format!("write \"{number}MB\" or \"{number}kB\"; as in PostgreSQL, 1kB is 1024B")
        }
    },
    like: "sizes are whole numbers with a unit: B, kB, MB, GB, TB (1kB is 1024B), as in \"16MB\"",
};

impl Dimension {
    /// Reads a number with a unit, in the smallest unit.
    fn read(&self, node: &Node, notes: &mut Notes) -> Option<u64> {
        let written = match &node.kind {
            Kind::Text(text) | Kind::Word(text) => text.trim(),
            Kind::Integer(number) | Kind::Float(number) => number,
            Kind::Bool(_) | Kind::DateTime | Kind::List(_) | Kind::Table(_) => {
                let message = format!("expected a {}, found {}", self.what, node.describe());
                notes.error(&node.place, message, self.like);
                return None;
            }
        };
        match self.parse(written) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let (message, help) = self.explain(written, wrong);
                notes.error(&node.place, message, help);
                None
            }
        }
    }

    fn parse(&self, written: &str) -> Result<u64, Wrong> {
        let digits = written.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(written.len());
        let (number, unit) = written.split_at(digits);
        if number.is_empty() || unit.starts_with(['.', ',', '-', '+']) {
            return Err(Wrong::Number);
        }
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Err(Wrong::NoUnit);
        }
        let known = self.units.iter().find(|(name, _)| *name == unit);
        let (_, factor) = known.ok_or(Wrong::Unit)?;
        let number: u64 = number.parse().map_err(|_| Wrong::TooLarge)?;
        number.checked_mul(*factor).ok_or(Wrong::TooLarge)
    }

    fn explain(&self, written: &str, wrong: Wrong) -> (String, String) {
        let Self { what, like, .. } = self;
        match wrong {
            Wrong::NoUnit => (format!("a {what} needs a unit"), (self.fix)(written)),
            Wrong::Number => (format!("`{written}` is not a {what}"), (*like).to_owned()),
            Wrong::TooLarge => (format!("`{written}` is too large a {what}"), String::new()),
            Wrong::Unit => {
                let unit = written.trim_start_matches(|sign: char| sign.is_ascii_digit()).trim();
                let same = |known: &&(&str, u64)| known.0.eq_ignore_ascii_case(unit);
                let help = self.units.iter().find(same).map_or_else(
                    || (*like).to_owned(),
                    |(known, _)| {
                        format!("units are case-sensitive, as in PostgreSQL: write `{known}`")
                    },
                );
                (format!("`{written}` has an unknown unit"), help)
            }
        }
    }

    /// The value in the largest unit that it fills.
    fn write(&self, value: u64) -> String {
        let fits = |(name, factor): &&(&str, u64)| {
            value.is_multiple_of(*factor) && !name.ends_with("iB") && *name != "min"
        };
        let largest = self.units.iter().filter(fits).max_by_key(|(_, factor)| *factor);
        let (unit, factor) = largest.copied().unwrap_or(("", 1));
        quoted(&format!("{}{unit}", value.checked_div(factor).unwrap_or(value)))
    }
}

/// Why a number with a unit was not understood.
#[derive(Clone, Copy)]
enum Wrong {
    NoUnit,
    Number,
    Unit,
    TooLarge,
}

impl Setting for Duration {
    fn form() -> String {
        "duration".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        TIME.read(node, notes).map(Self::from_micros)
    }

    fn write(&self) -> String {
        match u64::try_from(self.as_micros()) {
            Ok(0) => quoted("0s"),
            Ok(micros) => TIME.write(micros),
            Err(_) => quoted("off"),
        }
    }
}

/// Reads a duration as the configuration writes it: for commands that take one.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = TIME.parse(text.trim()).map(Duration::from_micros);
    parsed.map_err(|wrong| {
        let (message, help) = TIME.explain(text.trim(), wrong);
        if help.is_empty() { message } else { format!("{message}: {help}") }
    })
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes(pub(super) u64);

impl Setting for Bytes {
    fn form() -> String {
        "size".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        SIZE.read(node, notes).map(Self)
    }

    fn write(&self) -> String {
        match self.0 {
            0 => quoted("0B"),
            bytes => SIZE.write(bytes),
        }
    }
}

/// A loss of bytes, or any.
impl Setting for MaxLoss {
    fn form() -> String {
        "size or \"any\"".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        match &node.kind {
            Kind::Text(text) | Kind::Word(text) if text == "any" => Some(Self::Any),
            Kind::Text(_)
            | Kind::Word(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Bool(_)
            | Kind::DateTime
            | Kind::List(_)
            | Kind::Table(_) => Bytes::read(node, notes).map(|bytes| Self::Bytes(bytes.0)),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Bytes(bytes) => Bytes(*bytes).write(),
            Self::Any => quoted("any"),
        }
    }
}

/// Reads a size as the configuration writes it, or `any`: for commands that take one.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn max_loss(text: &str) -> Result<MaxLoss, String> {
    if text.trim() == "any" {
        return Ok(MaxLoss::Any);
    }
    // Whoever types a number that a preview told means bytes.
    let parsed = text.trim().parse().or_else(|_| SIZE.parse(text.trim()));
    parsed.map(MaxLoss::Bytes).map_err(|wrong| {
        let (message, help) = SIZE.explain(text.trim(), wrong);
        if help.is_empty() { message } else { format!("{message}: {help}") }
    })
}

/// A limit that can be switched off with the word `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrOff<T> {
    On(T),
    Off,
}

impl<T> OrOff<T> {
    pub(super) fn from(limit: Option<T>) -> Self {
        limit.map_or(Self::Off, Self::On)
    }

    pub(super) fn limit(self) -> Option<T> {
        match self {
            Self::On(limit) => Some(limit),
            Self::Off => None,
        }
    }
}

impl<T: Setting> Setting for OrOff<T> {
    fn form() -> String {
        format!("{} or \"off\"", T::form())
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        match &node.kind {
            Kind::Text(text) | Kind::Word(text) if text == "off" => Some(Self::Off),
            Kind::Bool(false) => {
                notes.error(&node.place, "expected text in quotes".to_owned(), "write \"off\"");
                None
            }
            Kind::Text(_)
            | Kind::Word(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Bool(true)
            | Kind::DateTime
            | Kind::List(_)
            | Kind::Table(_) => T::read(node, notes).map(Self::On),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::On(limit) => limit.write(),
            Self::Off => quoted("off"),
        }
    }
}
