//! PostgreSQL's own grammar, by way of `pg_raw_parse`: the only place that names the parser.
//!
//! Whatever replaces it has to offer [`read`]: feed a [`Collector`], or say why not.
//!
//! Invariants:
//! - **Closed world.** A statement or a piece of one that isn't named here needs the primary.
//! - **No recursion.** The crate's own walk recurses in C, and 12 kB of `1+1+...` overflow a
//!   thread's stack; so trees are taken apart one level at a time, with a stack of our own.
//!
//! The parser keeps state per thread, and the process can have about a thousand threads that
//! ever parsed: call it from the shards and the control thread only.

#[cfg(test)]
pub(crate) mod bare;
mod statement;
mod tree;

use super::NeedsPrimary;
use super::collect::Collector;
use super::facts::Name;
use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::RangeVar;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

/// Reads a text into the collector.
pub(super) fn read(text: &str, into: &mut Collector) -> Result<(), NeedsPrimary> {
    // The crate checks its own assumptions by panicking (text that isn't UTF-8 behind an
    // escape, a node it doesn't know). None is known to be reachable; if one is, it is a
    // statement that we don't understand, not the end of a shard.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let parsed = pg_raw_parse::parse(text).map_err(|_| NeedsPrimary::Unparsed)?;
        for statement in parsed.stmts() {
            into.statement();
            statement::read(statement, into);
        }
        Ok(())
    }));
    outcome.unwrap_or(Err(NeedsPrimary::Unparsed))
}

/// A list of `String` nodes as a name.
fn name_of(parts: &NodeList) -> Option<Name> {
    name(parts.iter().map(Node::as_str))
}

/// The last part is the name, the one before it the schema.
fn name<'a>(parts: impl DoubleEndedIterator<Item = Option<&'a str>>) -> Option<Name> {
    let mut parts = parts.rev();
    let name = parts.next()??;
    let schema = parts.next().flatten().map(Into::into);
    Some(Name { schema, name: name.into() })
}

/// A relation's name.
fn relation_of(relation: &RangeVar) -> Name {
    Name {
        schema: relation.schemaname().map(Into::into),
        name: relation.relname().unwrap_or_default().into(),
    }
}

/// Whether a relation is, or would be, in the session's temporary schema.
fn is_temporary(relation: &RangeVar) -> bool {
    // RELPERSISTENCE_TEMP in `catalog/pg_class.h`.
    const TEMPORARY: u8 = b't';
    let marked = u8::try_from(relation.relpersistence).is_ok_and(|kind| kind == TEMPORARY);
    marked || relation.schemaname().is_some_and(is_temporary_schema)
}

/// `pg_temp`, or another session's `pg_temp_3`.
fn is_temporary_schema(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_")
}
