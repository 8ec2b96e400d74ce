//! What a statement is: facts and class, from PostgreSQL's grammar.
//!
//! [`examine`] reads a text once and says what it is, whatever database it is for: [`Facts`].
//! [`Facts::judge`] adds what a database's functions and views do ([`Catalog`]) and says whether
//! a standby may answer. [`FactsCache`] remembers facts by exact bytes.
//!
//! Invariants:
//! - **Closed world.** What is not known to be a pure read needs the primary: a statement, a
//!   piece of one, a function, a relation, an operator.
//! - **No bytes panic, overflow a stack or stall a shard.** Length and nesting are bounded before
//!   the parser sees a text; trees are walked without recursion.
//! - **Labels are followed to the end**: through views, row security, casts, operators, domains.
//!
//! Deliberately absent: any try-and-see. Some writes succeed silently on a standby (advisory
//! locks, `dblink`), so a wrong guess can't be taken back. And any opinion on lag, wishes or the
//! transaction around a statement: that is `route`.

mod blind;
mod cache;
mod catalog;
mod catalog_rows;
pub mod catalog_sql;
mod collect;
mod dialect;
mod effects;
mod explain;
mod facts;
mod functions;
mod grammar;
mod guard;
mod hint;
mod judge;
mod lexer;
mod lists;
mod names;
mod recent;

pub use cache::FactsCache;
pub use catalog::Catalog;
pub use catalog_rows::{
    Argument, FunctionRow, Origin, Place, PolicyRow, RelationKind, RelationRow, Rows, Volatility,
};
pub use collect::is_shown_to_few;
pub use dialect::{Dialect, Encoding, Strings};
pub use effects::{Defaults, Effects, Whose};
pub use explain::explain;
pub use facts::{
    Access, Chain, Change, Class, Commits, Count, Facts, Hints, Isolation, Name, Scope, SetsOnly,
    Setting, Snapshot, Touches, Transaction, Wish, examine,
};
#[cfg(test)]
pub(crate) use grammar::bare::bare_names;
pub use judge::{Judgement, NeedsPrimary};
pub use lexer::first_statement;
pub use lists::FunctionLists;
