//! Names and values as SQL text, when we are the ones who write the statement.

/// Where names are looked for on the control user's connections: nobody but a superuser can put
/// anything there. Without it a user's function, or an operator whose types fit ours better than
/// any of PostgreSQL's own, would run as the control user. Temporary relations and types come
/// first unless they are named, functions and operators never.
///
/// Source: PostgreSQL manual, 10.2 "Operators", and 20.11.1 `search_path`.
pub const SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// `name` as a quoted identifier: always quoted, so that no word can be a keyword.
///
/// Source: PostgreSQL manual, 4.1.1 "Identifiers and Key Words".
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `value` as a string literal that reads the same whatever `standard_conforming_strings` is.
///
/// Source: PostgreSQL manual, 4.1.2.2 "String Constants with C-Style Escapes".
pub fn quote_literal(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_stay_inside() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
    }
}
