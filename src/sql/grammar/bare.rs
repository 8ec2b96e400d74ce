//! For tests: what a statement of our own leaves to the `search_path` of the session that it is
//! sent in. In a client's session that is the client's, or somebody's who may set it.

use super::tree::is_known;
use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::walk::Recurse;
use pg_raw_parse::walk::walk_manual;

/// The functions, operators, types and relations that are named without a schema. `IN`, `BETWEEN`,
/// `LIKE`, `IS DISTINCT FROM`, `NULLIF` and `CASE value WHEN` name an operator, too.
pub(crate) fn bare_names(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    let parsed = pg_raw_parse::parse(sql).unwrap();
    // Others than queries (`SET`, `RESET`) name settings, and no walk knows them.
    for statement in parsed.stmts().filter(|statement| is_known(*statement)) {
        let mut pending = vec![statement];
        while let Some(node) = pending.pop() {
            note(node, &mut found);
            walk_manual::<()>(node, |child| {
                if is_known(child) {
                    pending.push(child);
                }
                Recurse::no()
            });
        }
    }
    found
}

#[expect(clippy::wildcard_enum_match_arm, reason = "nodes that name nothing")]
fn note(node: Node<'_>, found: &mut Vec<String>) {
    let mut names = |list: &NodeList| {
        let parts: Vec<_> = list.iter().filter_map(Node::as_str).collect();
        found.extend(alone(&parts));
    };
    match node {
        Node::FuncCall(call) => names(call.funcname()),
        Node::A_Expr(expression) => names(expression.name()),
        Node::SubLink(link) => names(link.oper_name()),
        Node::SortBy(sort) => names(sort.use_op()),
        Node::TypeName(name) => {
            let parts: Vec<_> = name.names().iter().filter_map(|part| part.sval()).collect();
            found.extend(alone(&parts));
        }
        Node::CaseExpr(case) if !matches!(case.arg(), Node::None) => found.push("=".to_owned()),
        Node::RangeVar(relation) if relation.schemaname().is_none() => {
            found.push(relation.relname().unwrap_or_default().to_owned());
        }
        _ => {}
    }
}

/// A name that has no schema before it.
fn alone(parts: &[&str]) -> Option<String> {
    if let [name] = parts { Some((*name).to_owned()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_path_decides_is_found() {
        let cases = [
            ("SELECT pg_catalog.now(), 1 OPERATOR(pg_catalog.+) 2, 'x'::pg_catalog.text", ""),
            ("SELECT 1::int, current_user FROM pg_catalog.pg_class AS c WHERE c.relhasindex", ""),
            ("SELECT now()", "now"),
            ("SELECT count(*) FROM pg_class", "pg_class count"),
            ("SELECT a WHERE a = 1 AND b IN (1) AND c BETWEEN 1 AND 2", "BETWEEN = ="),
            ("SELECT 'x'::text, ARRAY[1]::oid[], 1 OPERATOR(pg_catalog.=) ANY (b)", "oid text"),
            ("SELECT CASE a WHEN 1 THEN 2 END, CASE WHEN a THEN b END", "="),
            ("SELECT a IN (SELECT 1), a > ALL (SELECT 2), NULLIF(a, b)", "= >"),
        ];
        for (sql, expected) in cases {
            assert_eq!(bare_names(sql).join(" "), expected, "{sql}");
        }
    }
}
