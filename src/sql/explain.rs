//! Facts and a judgement in words, for `pgsteer route`.

use super::Catalog;
use super::facts::Class;
use super::facts::Count;
use super::facts::Facts;
use super::facts::Name;
use super::judge::Judgement;
use super::judge::NeedsPrimary;

/// What the text is, where it may run and why, a fact a line.
pub fn explain(facts: &Facts, judgement: Judgement, catalog: Option<&Catalog>) -> Vec<String> {
    let mut lines = vec![match judgement.fit {
        Ok(()) => "fit for a standby: a pure read".to_owned(),
        Err(why) => match facts.culprit(catalog).filter(|culprit| !culprit.is_empty()) {
            Some(culprit) => format!("needs the primary: {} ({culprit})", in_words(why)),
            None => format!("needs the primary: {}", in_words(why)),
        },
    }];
    let statements = match facts.count {
        Count::Empty => "no statement",
        Count::One => "one statement",
        Count::Many => "several statements",
    };
    lines.push(match facts.class {
        Class::Unknown => "not understood, so it may be anything".to_owned(),
        Class::Read | Class::Session | Class::Transaction | Class::Write | Class::Utility => {
            format!("{statements}, {}", class_in_words(facts.class))
        }
    });
    lines.extend(names("functions", &facts.functions));
    lines.extend(names("relations", &facts.relations));
    let effects: Vec<_> = facts.effects.names().collect();
    if !effects.is_empty() {
        lines.push(format!("effects: {}", effects.join(", ")));
    }
    if judgement.taints() {
        lines.push("the backend is probed before another session gets it".to_owned());
    }
    if judgement.replayable() {
        lines.push("may be run again if nothing of its answer was shown".to_owned());
    }
    if let Some(hints) = facts.hints() {
        for (name, value) in &hints.wishes {
            lines.push(format!("hint: {name}={value}"));
        }
        if let Some(text) = &hints.malformed {
            lines.push(format!("hint not understood: {text}"));
        }
    }
    lines
}

fn names(what: &str, names: &[Name]) -> Option<String> {
    let listed: Vec<_> = names.iter().map(Name::to_string).collect();
    (!listed.is_empty()).then(|| format!("{what}: {}", listed.join(", ")))
}

const fn class_in_words(class: Class) -> &'static str {
    match class {
        Class::Read => "a read by its grammar",
        Class::Session => "about the session",
        Class::Transaction => "transaction control",
        Class::Write => "a write",
        Class::Utility => "a utility statement",
        Class::Unknown => "not understood",
    }
}

const fn in_words(why: NeedsPrimary) -> &'static str {
    match why {
        NeedsPrimary::Write => "it writes",
        NeedsPrimary::RowLock => "it locks rows",
        NeedsPrimary::TableLock => "it locks a table",
        NeedsPrimary::TransactionControl => "it begins, ends or alters a transaction",
        NeedsPrimary::SessionState => "it is about sessions: its own, or a server's",
        NeedsPrimary::Cursor => "it uses a cursor of the session",
        NeedsPrimary::PreparedSql => "it uses a statement prepared by SQL",
        NeedsPrimary::Procedural => "it runs a procedure or a block of code",
        NeedsPrimary::Utility => "it is no read that we know",
        NeedsPrimary::ServerFile => "it uses a file or a program of the server",
        NeedsPrimary::Temporary => "it uses the session's temporary schema",
        NeedsPrimary::Unparsed => "PostgreSQL's grammar does not accept it",
        NeedsPrimary::TooLong => "it is longer than 64 kB, so it is not parsed",
        NeedsPrimary::TooDeep => {
            "its comments are nested too deep, or its operators too long, to be parsed"
        }
        NeedsPrimary::Dialect => {
            "client_encoding or standard_conforming_strings make it unsafe to parse"
        }
        NeedsPrimary::Advisory => "an advisory lock taken on a standby excludes nobody",
        NeedsPrimary::FunctionDenied => "the function answers rightly on the primary only",
        NeedsPrimary::FunctionVolatile => "the function is volatile, so it may write",
        NeedsPrimary::FunctionUnknown => "the function is not known in this database",
        NeedsPrimary::FunctionListed => "routing.write_functions names the function",
        NeedsPrimary::OperatorVolatile => "the operator's function is volatile, so it may write",
        NeedsPrimary::HiddenVolatile => {
            "a cast, comparison, domain or type of this database runs a volatile function"
        }
        NeedsPrimary::RelationImpure => {
            "the view's query or a row security policy needs the primary"
        }
        NeedsPrimary::RelationForeign => "it is, or contains, a foreign table",
        NeedsPrimary::RelationUnknown => "the relation is not known in this database",
        NeedsPrimary::RelationOfPrimary => "a standby does not have its rows",
        NeedsPrimary::CatalogUnknown => "this database's functions and views are not known yet",
    }
}
