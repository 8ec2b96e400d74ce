//! From a text to its facts: guard, parse, gather.

use super::Dialect;
use super::Encoding;
use super::NeedsPrimary;
use super::facts::Change;
use super::facts::Class;
use super::facts::Commits;
use super::facts::Constants;
use super::facts::Count;
use super::facts::Facts;
use super::facts::Hints;
use super::facts::Name;
use super::facts::Queries;
use super::facts::Scope;
use super::facts::SetsOnly;
use super::facts::Setting;
use super::facts::Strings;
use super::facts::Touches;
use super::facts::Transaction;
use super::facts::Wish;
use super::functions;
use super::grammar;
use super::guard;
use super::hint;
use super::judge::Memo;
use super::lexer;
use super::names::AttributeFilter;
use super::{Defaults, Effects, Whose};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What a text is.
pub(super) fn examine(sql: &[u8], dialect: Dialect) -> Facts {
    let hints = hint::find(sql, dialect).map(Box::new);
    let mut collector = Collector::default();
    let outcome = readable(sql, dialect).and_then(|text| grammar::read(&text, &mut collector));
    match outcome {
        Ok(()) => {
            let constants = Constants::of(sql, collector.strings);
            let facts = collector.into_facts(hints);
            let prepared =
                facts.prepared.iter().map(|(how, name)| (*how, in_letters(name, dialect)));
            Facts { constants, prepared: prepared.collect(), ..facts }
        }
        Err(why) => Facts { constants: Constants::of(sql, Strings::Unsure), ..unknown(why, hints) },
    }
}

/// The text for the parser, if it may be parsed at all.
fn readable(sql: &[u8], dialect: Dialect) -> Result<Cow<'_, str>, NeedsPrimary> {
    if dialect.strings == super::Strings::Escaping || dialect.encoding == Encoding::Unsafe {
        return Err(NeedsPrimary::Dialect);
    }
    guard::check(sql)?;
    if lexer::may_read_otherwise(sql) {
        return Err(NeedsPrimary::Dialect);
    }
    match dialect.encoding {
        Encoding::Utf8 => {
            std::str::from_utf8(sql).map(Cow::Borrowed).map_err(|_| NeedsPrimary::Unparsed)
        }
        Encoding::AsciiSafe | Encoding::Unsafe => Ok(blanked(sql)),
    }
}

/// Characters that no name in a catalog has, for private use: one for each byte.
const STAND_INS: u32 = 0xF700;

/// Whether a character stands for a byte that the parser was not shown.
fn is_stand_in(letter: char) -> bool {
    (STAND_INS..=STAND_INS + u32::from(u8::MAX)).contains(&u32::from(letter))
}

/// A name as its client wrote it, of a text for the parser.
fn in_letters(name: &[u8], dialect: Dialect) -> Box<[u8]> {
    match (dialect.encoding, std::str::from_utf8(name)) {
        (Encoding::AsciiSafe | Encoding::Unsafe, Ok(text)) => {
            let byte = |letter: char| {
                let byte = u32::from(letter).checked_sub(STAND_INS).unwrap_or(letter.into());
                u8::try_from(byte).unwrap_or(b'?')
            };
            text.chars().map(byte).collect()
        }
        (Encoding::Utf8, _) | (_, Err(_)) => name.into(),
    }
}

/// The text with every byte from 0x80 up replaced by a character that no name in a catalog
/// has: a literal may hold it, a name that holds it is unknown, and so goes to the primary.
fn blanked(sql: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(sql) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        Ok(_) | Err(_) => Cow::Owned(
            sql.iter()
                .map(|byte| {
                    if byte.is_ascii() {
                        char::from(*byte)
                    } else {
                        let stand_in = char::from_u32(STAND_INS + u32::from(*byte));
                        stand_in.unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                })
                .collect(),
        ),
    }
}

/// The facts of a text that wasn't understood: it may do anything.
fn unknown(why: NeedsPrimary, hints: Option<Box<Hints>>) -> Facts {
    Facts {
        count: Count::Many,
        sets_only: SetsOnly::No,
        class: Class::Unknown,
        transaction: Transaction::Mixed,
        commits: Commits::MayRepeat,
        effects: Effects::UNKNOWN,
        fixed: Some(why),
        stops: Some(why),
        functions: Box::default(),
        relations: Box::default(),
        targets: Box::default(),
        operators: Box::default(),
        constructs: Box::default(),
        attributes: AttributeFilter::default(),
        dotted: Box::default(),
        settings: Box::default(),
        wishes: Box::default(),
        hints,
        shown: None,
        prepared: Box::default(),
        defaults: Box::default(),
        constants: Constants::Moments,
        queries: Queries::Some,
        memo: Memo::default(),
    }
}

/// What a change of this setting does besides.
fn besides(setting: &str) -> Effects {
    match setting {
        "role" | "session_authorization" => Effects::ROLE,
        "seed" => Effects::LASTING,
        _ => Effects::NONE,
    }
}

/// What it is to set what a look at the backend may not find: the same as under a computed name.
fn unlisted(setting: &str, scope: Scope, change: Change) -> Effects {
    let stays = scope == Scope::Session && change == Change::Set;
    // A server may have other letters, and makes such a name lower case by its own.
    let unread = |letter: char| is_stand_in(letter) || !letter.is_ascii() && letter.is_uppercase();
    if stays && (setting.chars().any(unread) || is_shown_to_few(setting)) {
        Effects::SET_CONFIG_DYNAMIC
    } else {
        Effects::NONE
    }
}

/// Whether this is a setting that a session can change and that a server shows only to superusers,
/// and to members of `pg_read_all_settings`: not to every role that a session may take.
///
/// Source: `GUC_SUPERUSER_ONLY` in `utils/misc/guc_tables.c`.
pub fn is_shown_to_few(setting: &str) -> bool {
    const SHOWN_TO_FEW: [&str; 3] =
        ["dynamic_library_path", "extension_control_path", "session_preload_libraries"];
    SHOWN_TO_FEW.contains(&setting)
}

/// Whether a text has ended the transaction that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Yes,
}

/// What the grammar has found so far. The only thing that a parser must feed.
#[derive(Debug)]
pub(super) struct Collector {
    statements: usize,
    /// How many of them are `SET` or `RESET`.
    sets: usize,
    class: Class,
    transaction: Transaction,
    commits: Commits,
    effects: Effects,
    fixed: Option<NeedsPrimary>,
    stops: Option<NeedsPrimary>,
    ended: Ended,
    functions: BTreeSet<Name>,
    relations: BTreeSet<Name>,
    targets: BTreeSet<Name>,
    operators: BTreeSet<Box<str>>,
    constructs: BTreeSet<&'static str>,
    attributes: AttributeFilter,
    dotted: BTreeSet<Box<str>>,
    settings: Vec<Setting>,
    wishes: Vec<Wish>,
    shown: Option<Box<str>>,
    prepared: Vec<(Touches, Box<[u8]>)>,
    defaults: Vec<Defaults>,
    strings: Strings,
    queries: Queries,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            statements: 0,
            sets: 0,
            class: Class::Read,
            transaction: Transaction::None,
            commits: Commits::AtMostOnce,
            effects: Effects::NONE,
            fixed: None,
            stops: None,
            ended: Ended::No,
            functions: BTreeSet::new(),
            relations: BTreeSet::new(),
            targets: BTreeSet::new(),
            operators: BTreeSet::new(),
            constructs: BTreeSet::new(),
            attributes: AttributeFilter::default(),
            dotted: BTreeSet::new(),
            settings: Vec::new(),
            wishes: Vec::new(),
            shown: None,
            prepared: Vec::new(),
            defaults: Vec::new(),
            strings: Strings::Lasting,
            queries: Queries::None,
        }
    }
}

impl Collector {
    /// Another statement begins.
    pub(super) fn statement(&mut self) {
        self.statements += 1;
        if self.ended == Ended::Yes {
            // What comes behind it is not in that transaction any more.
            self.stops.get_or_insert(NeedsPrimary::TransactionControl);
        }
    }

    /// The statement is of this class, so it needs the primary for this reason.
    pub(super) fn needs_primary(&mut self, class: Class, why: NeedsPrimary) {
        self.class = self.class.max(class);
        self.fixed.get_or_insert(why);
        if !why.goes_on_at_a_standby() {
            self.stops.get_or_insert(why);
        }
    }

    /// The statement is `SET` or `RESET`, and so it evaluates nothing.
    pub(super) fn only_sets(&mut self) {
        self.sets += 1;
        self.needs_primary(Class::Session, NeedsPrimary::SessionState);
    }

    /// The statement holds something that is evaluated.
    pub(super) fn evaluates(&mut self) {
        self.queries = Queries::Some;
    }

    /// The statement holds this string.
    pub(super) fn string(&mut self, text: &str) {
        if Strings::of(text) == Strings::Unsure {
            self.strings = Strings::Unsure;
        }
    }

    /// The statement does this besides answering.
    pub(super) fn effect(&mut self, effect: Effects) {
        self.effects |= effect;
    }

    /// The statement changes with which settings these begin.
    pub(super) fn changes_defaults(&mut self, whose: Whose, database: Option<&str>) {
        self.defaults.push(Defaults { whose, database: database.map(Into::into) });
    }

    /// The statement may commit by itself.
    pub(super) fn may_commit(&mut self) {
        self.commits = Commits::MayRepeat;
    }

    /// The statement begins, ends or alters a transaction.
    pub(super) fn transaction(&mut self, what: Transaction) {
        self.class = self.class.max(Class::Transaction);
        self.fixed.get_or_insert(NeedsPrimary::TransactionControl);
        if !what.goes_on_at_a_standby() {
            self.stops.get_or_insert(NeedsPrimary::TransactionControl);
        }
        if matches!(what, Transaction::Commit(_) | Transaction::Rollback(_)) {
            self.ended = Ended::Yes;
        }
        self.transaction = match self.transaction {
            Transaction::None => what,
            Transaction::Begin { .. }
            | Transaction::Commit(_)
            | Transaction::Rollback(_)
            | Transaction::Savepoint
            | Transaction::Set { .. }
            | Transaction::Prepare
            | Transaction::FinishPrepared
            | Transaction::Mixed => Transaction::Mixed,
        };
    }

    /// The statement calls a function.
    pub(super) fn function(&mut self, name: Name) {
        self.effects |= functions::effects(&name.name);
        self.functions.insert(name);
    }

    /// The statement reads or writes a relation.
    pub(super) fn relation(&mut self, name: Name) {
        self.relations.insert(name);
    }

    /// The statement changes rows of a relation.
    pub(super) fn target(&mut self, name: Name) {
        self.effects |= Effects::DML;
        self.targets.insert(name);
    }

    /// The statement uses an operator.
    pub(super) fn operator(&mut self, name: &str) {
        // User-defined comparisons are counted for the whole database, since sorting, grouping
        // and joining use them unseen: no need to keep these names.
        if !matches!(name, "=" | "<>" | "<" | "<=" | ">" | ">=" | "!=") {
            self.operators.insert(name.into());
        }
    }

    /// The statement has a construct of this name, which older servers take for a function.
    pub(super) fn construct(&mut self, name: &'static str) {
        self.constructs.insert(name);
    }

    /// The statement has this name behind a dot.
    pub(super) fn attribute(&mut self, name: &str) {
        self.attributes.add(name);
    }

    /// The statement has this name behind a dot, and what is before that may be any value: then it
    /// is a call if there is such a function.
    pub(super) fn dotted(&mut self, name: &str) {
        self.attributes.add(name);
        self.effects |= functions::effects(name);
        if !self.dotted.contains(name) {
            self.dotted.insert(name.into());
        }
    }

    /// The statement changes a setting to `value`, or back to its default.
    pub(super) fn setting(&mut self, name: &str, scope: Scope, value: Option<String>) {
        let name = name.to_ascii_lowercase();
        if let Some(wish) = name.strip_prefix("pgsteer.") {
            let value = value.map(String::into_boxed_str);
            self.wishes.push(Wish { name: wish.into(), value, scope });
            return;
        }
        let change = if value.is_some() { Change::Set } else { Change::Reset };
        self.effects |= match (scope, change) {
            (Scope::Transaction, Change::Set | Change::Reset) => Effects::SET_LOCAL,
            (Scope::Session, Change::Set) => Effects::SET,
            (Scope::Session, Change::Reset) => Effects::RESET,
        };
        self.effects |= besides(&name) | unlisted(&name, scope, change);
        self.settings.push(Setting { name: name.into(), scope, change });
    }

    /// `set_config` changes a setting; `None`: which, or for how long, isn't in the text.
    pub(super) fn set_config(&mut self, setting: Option<(&str, Scope, Change)>) {
        let Some((name, scope, change)) = setting else {
            self.effects |= Effects::SET_CONFIG_DYNAMIC;
            return;
        };
        self.effects |= match scope {
            Scope::Session => Effects::SET_CONFIG,
            Scope::Transaction => Effects::SET_LOCAL,
        };
        let name = name.to_ascii_lowercase();
        self.effects |= besides(&name) | unlisted(&name, scope, change);
        self.settings.push(Setting { name: name.into(), scope, change });
    }

    /// `SHOW name`.
    pub(super) fn show(&mut self, name: &str) {
        self.shown = Some(name.to_ascii_lowercase().into());
    }

    /// The name of a prepared statement.
    pub(super) fn prepared(&mut self, touches: Touches, name: Option<&str>) {
        self.prepared.extend(name.map(|name| (touches, name.as_bytes().into())));
    }

    /// Whether it asks for nothing but whether this is a standby, as drivers do that look for a
    /// primary: to a session that can write it is none.
    fn asks_for_role(&self) -> bool {
        let asks = |name: &Name| &*name.name == "pg_is_in_recovery";
        self.relations.is_empty() && !self.functions.is_empty() && self.functions.iter().all(asks)
    }

    fn into_facts(self, hints: Option<Box<Hints>>) -> Facts {
        let count = match self.statements {
            0 => Count::Empty,
            1 => Count::One,
            _ => Count::Many,
        };
        let several = count == Count::Many;
        let controls = self.transaction != Transaction::None;
        let transaction = if several && controls { Transaction::Mixed } else { self.transaction };
        let commits = if several && controls { Commits::MayRepeat } else { self.commits };
        let lasts = [
            (Effects::SET_CONFIG_DYNAMIC | Effects::LASTING, NeedsPrimary::SessionState),
            (Effects::LISTEN, NeedsPrimary::SessionState),
            (Effects::HOLD, NeedsPrimary::Cursor),
            (Effects::PREPARE | Effects::EXECUTE, NeedsPrimary::PreparedSql),
        ];
        let lasts = lasts.into_iter().find(|(effect, _)| self.effects.any(*effect));
        let fixed = self.fixed.or(self.asks_for_role().then_some(NeedsPrimary::SessionState));
        let sets_only = match self.statements {
            0 => SetsOnly::No,
            all if all == self.sets => SetsOnly::Yes,
            _ => SetsOnly::No,
        };
        Facts {
            count,
            sets_only,
            class: self.class,
            transaction,
            commits,
            effects: self.effects,
            fixed,
            stops: self.stops.or(lasts.map(|(_, why)| why)),
            functions: self.functions.into_iter().collect(),
            relations: self.relations.into_iter().collect(),
            targets: self.targets.into_iter().collect(),
            operators: self.operators.into_iter().collect(),
            constructs: self.constructs.into_iter().collect(),
            attributes: self.attributes,
            dotted: self.dotted.into_iter().collect(),
            settings: self.settings.into(),
            wishes: self.wishes.into(),
            hints,
            shown: self.shown.filter(|_| !several),
            prepared: self.prepared.into(),
            defaults: self.defaults.into(),
            constants: Constants::Moments,
            queries: self.queries,
            memo: Memo::default(),
        }
    }
}
