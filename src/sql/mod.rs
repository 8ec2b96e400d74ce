//! What a statement is: facts and class, from PostgreSQL's grammar.

/// What a database's functions, views and triggers do.
#[derive(Debug, Default)]
pub struct Catalog {}
