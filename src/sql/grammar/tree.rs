//! Queries and expressions: what they call, read, write and lock.

use super::Collector;
use super::NeedsPrimary;
use super::is_temporary;
use super::is_temporary_schema;
use super::name_of;
use super::relation_of;
use crate::sql::Effects;
use crate::sql::facts::Change;
use crate::sql::facts::Class;
use crate::sql::facts::Name;
use crate::sql::facts::Scope;
use pg_raw_parse::Node;
use pg_raw_parse::const_val::ConstValue;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes;
use pg_raw_parse::walk::Recurse;
use pg_raw_parse::walk::walk_manual;

/// Reads everything below `root`.
pub(super) fn read(root: Node<'_>, into: &mut Collector) {
    into.evaluates();
    let pending = vec![(root, NO_SCOPE)];
    let mut walk = Walk {
        pending,
        scopes: Vec::new(),
        steps_left: MAX_SCOPE_STEPS,
        columns: Vec::new(),
        callers: Vec::new(),
        into,
    };
    while let Some((node, scope)) = walk.pending.pop() {
        walk.visit(node, scope);
    }
    walk.settle_columns();
}

/// Where a `WITH` name is visible: an index into `Walk::scopes`, or [`NO_SCOPE`].
type ScopeId = usize;

/// Outside every `WITH`.
const NO_SCOPE: ScopeId = usize::MAX;

/// Most scopes that are looked through in one statement: a fraction of a millisecond.
const MAX_SCOPE_STEPS: u32 = 100_000;

/// Most functions in `FROM` that are told apart by what they are called there.
const MAX_CALLERS: usize = 16;

/// A walk with its own stack: as deep as the text is long, which is bounded.
struct Walk<'a, 'c> {
    pending: Vec<(Node<'a>, ScopeId)>,
    /// A name of a `WITH`, and the scope around it.
    scopes: Vec<(ScopeId, &'a str)>,
    /// How many scopes may still be looked through.
    steps_left: u32,
    /// What stands before and behind the dot of each `alias.name`.
    columns: Vec<(&'a str, &'a str)>,
    /// What the functions in `FROM` are called; `None`: it isn't said.
    callers: Vec<Option<&'a str>>,
    into: &'c mut Collector,
}

impl<'a> Walk<'a, '_> {
    fn visit(&mut self, node: Node<'a>, scope: ScopeId) {
        if !is_known(node) {
            self.into.effect(Effects::UNKNOWN);
            self.into.needs_primary(Class::Unknown, NeedsPrimary::Unparsed);
            return;
        }
        self.note(node, scope);
        let inner = match with_clause(node) {
            Some(with) => self.enter(with, scope),
            None => scope,
        };
        let pending = &mut self.pending;
        walk_manual::<()>(node, |child| {
            if !matches!(child, Node::WithClause(_) | Node::None) {
                pending.push((child, inner));
            }
            Recurse::no()
        });
    }

    /// Takes up the queries of a `WITH`, each in the scope of what it may name, and returns the
    /// scope of the statement behind it.
    ///
    /// Source: PostgreSQL manual, SELECT, "WITH Clause": without RECURSIVE a query sees only its
    /// earlier siblings, with it all of them.
    fn enter(&mut self, with: &'a nodes::WithClause, outer: ScopeId) -> ScopeId {
        let mut scope = outer;
        let first = self.pending.len();
        for query in with.ctes() {
            self.pending.push((query.ctequery(), scope));
            self.scopes.push((scope, query.ctename().unwrap_or_default()));
            scope = self.scopes.len() - 1;
        }
        if with.recursive {
            for (_, visible) in self.pending.iter_mut().skip(first) {
                *visible = scope;
            }
        }
        scope
    }

    /// Whether an unqualified name is that of a `WITH` around it.
    /// A statement of thousands that uses up the steps has its names taken for relations.
    fn is_with_name(&mut self, name: &str, mut scope: ScopeId) -> bool {
        while let Some((outer, visible)) = self.scopes.get(scope) {
            if self.steps_left == 0 {
                return false;
            }
            if *visible == name {
                return true;
            }
            self.steps_left -= 1;
            scope = *outer;
        }
        false
    }

    /// What this one node says.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nodes that say nothing by themselves")]
    fn note(&mut self, node: Node<'a>, scope: ScopeId) {
        match node {
            Node::SelectStmt(select) => {
                if let Some(into) = select.into_clause() {
                    self.creates(into);
                }
            }
            Node::InsertStmt(insert) => self.writes(insert.relation()),
            Node::UpdateStmt(update) => self.writes(update.relation()),
            Node::DeleteStmt(delete) => self.writes(delete.relation()),
            Node::MergeStmt(merge) => self.writes(merge.relation()),
            Node::LockingClause(_) => self.into.needs_primary(Class::Write, NeedsPrimary::RowLock),
            Node::RangeVar(relation) => self.relation(relation, scope),
            Node::FuncCall(call) => self.call(call),
            Node::A_Const(constant) => {
                if let Some(ConstValue::String(text)) = constant.val() {
                    self.into.string(text);
                }
            }
            Node::A_Expr(expression) => self.operator(expression.name()),
            Node::SubLink(link) => self.operator(link.oper_name()),
            Node::SortBy(sort) => self.operator(sort.use_op()),
            Node::RangeTableSample(sample) => {
                if let Some(method) = name_of(sample.method()) {
                    self.into.function(method);
                }
            }
            Node::ColumnRef(column) => self.column(column.fields()),
            Node::A_Indirection(path) => {
                for name in path.indirection().iter().filter_map(Node::as_str) {
                    self.into.dotted(name);
                }
            }
            Node::RangeFunction(function) => {
                self.callers.push(function.alias().and_then(nodes::Alias::aliasname));
            }
            _ => self.construct(node),
        }
    }

    /// SQL/JSON came with PostgreSQL 16 and 17, `merge_action` with 17; before, these were names
    /// that anybody could give to a function.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nodes that say nothing by themselves")]
    fn construct(&mut self, node: Node<'a>) {
        let names: &[&'static str] = match node {
            Node::JsonParseExpr(_) => &["json"],
            Node::JsonScalarExpr(_) => &["json_scalar"],
            Node::JsonSerializeExpr(_) => &["json_serialize"],
            Node::JsonFuncExpr(_) => &["json_exists", "json_query", "json_value"],
            Node::JsonTable(_) => &["json_table"],
            Node::JsonObjectConstructor(_) => &["json_object"],
            Node::JsonArrayConstructor(_) | Node::JsonArrayQueryConstructor(_) => &["json_array"],
            Node::JsonObjectAgg(_) => &["json_objectagg"],
            Node::JsonArrayAgg(_) => &["json_arrayagg"],
            Node::MergeSupportFunc(_) => &["merge_action"],
            _ => &[],
        };
        for name in names {
            self.into.construct(name);
        }
    }

    fn creates(&mut self, into: &nodes::IntoClause) {
        self.into.needs_primary(Class::Utility, NeedsPrimary::Write);
        self.into.effect(Effects::DDL | Effects::DML);
        if into.rel().is_some_and(is_temporary) {
            self.into.effect(Effects::TEMP);
        }
    }

    fn writes(&mut self, target: Option<&nodes::RangeVar>) {
        self.into.needs_primary(Class::Write, NeedsPrimary::Write);
        self.into.effect(Effects::DML);
        if let Some(target) = target {
            self.into.target(relation_of(target));
        }
    }

    fn relation(&mut self, relation: &nodes::RangeVar, scope: ScopeId) {
        let name = relation_of(relation);
        if is_temporary(relation) {
            self.into.needs_primary(Class::Read, NeedsPrimary::Temporary);
        }
        if name.schema.is_some() || !self.is_with_name(&name.name, scope) {
            self.into.relation(name);
        }
    }

    fn call(&mut self, call: &nodes::FuncCall) {
        let Some(name) = name_of(call.funcname()) else {
            self.into.needs_primary(Class::Unknown, NeedsPrimary::Unparsed);
            return;
        };
        if &*name.name == "set_config" {
            self.into.set_config(constant_setting(call.args()));
        }
        if name.schema.as_deref().is_some_and(is_temporary_schema) {
            self.into.needs_primary(Class::Read, NeedsPrimary::Temporary);
        }
        self.into.function(name);
    }

    fn operator(&mut self, name: &NodeList) {
        if let Some(Name { name, .. }) = name_of(name) {
            self.into.operator(&name);
        }
    }

    fn column(&mut self, path: &'a NodeList) {
        for name in path.iter().skip(1).filter_map(Node::as_str) {
            self.into.attribute(name);
        }
        let part = |at| path.get(at).and_then(Node::as_str);
        if let (Some(before), Some(name)) = (part(0), part(1)) {
            self.columns.push((before, name));
        }
    }

    /// A function in `FROM` may give plain values, of which `alias.name` may call any function that
    /// takes one. What else is in `FROM` gives rows.
    ///
    /// Source: `makeWholeRowVar` in `nodes/makefuncs.c`, and `transformColumnRef` in
    /// `parser/parse_expr.c`: a column of that name comes first.
    fn settle_columns(&mut self) {
        if self.callers.is_empty() {
            return;
        }
        let all = self.callers.len() > MAX_CALLERS || self.callers.contains(&None);
        for (before, name) in &self.columns {
            if all || self.callers.contains(&Some(before)) {
                self.into.dotted(name);
            }
        }
    }
}

/// The name and the scope in `set_config('name', ..., false)`, if the text holds both, and whether
/// the value is `NULL`, which is a `RESET`.
fn constant_setting(args: &NodeList) -> Option<(&str, Scope, Change)> {
    let (Node::A_Const(name), Node::A_Const(local)) = (args.get(0)?, args.get(2)?) else {
        return None;
    };
    let (ConstValue::String(name), ConstValue::Boolean(local)) = (name.val()?, local.val()?) else {
        return None;
    };
    let null = matches!(args.get(1)?, Node::A_Const(value) if value.val().is_none());
    let change = if null { Change::Reset } else { Change::Set };
    // Named arguments (`is_local => true`) are nodes of their own, so these are in their places.
    Some((name, if local { Scope::Transaction } else { Scope::Session }, change))
}

/// The `WITH` of a statement.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these five can have one")]
fn with_clause(node: Node<'_>) -> Option<&nodes::WithClause> {
    match node {
        Node::SelectStmt(select) => select.with_clause(),
        Node::InsertStmt(insert) => insert.with_clause(),
        Node::UpdateStmt(update) => update.with_clause(),
        Node::DeleteStmt(delete) => delete.with_clause(),
        Node::MergeStmt(merge) => merge.with_clause(),
        _ => None,
    }
}

/// Whether we, and the crate's walk, know what may be below this node. The list is that of
/// `raw_expression_tree_walker` in PostgreSQL's `nodes/nodeFuncs.c`, which must hold every node
/// of a query.
pub(super) const fn is_known(node: Node<'_>) -> bool {
    is_known_expression(node) || is_known_query(node) || is_known_json(node)
}

/// The part of [`is_known`] that has a value.
const fn is_known_expression(node: Node<'_>) -> bool {
    use pg_raw_parse::Node as N;
    matches!(
        node,
        N::A_ArrayExpr(_)
            | N::A_Const(_)
            | N::A_Expr(_)
            | N::A_Indices(_)
            | N::A_Indirection(_)
            | N::A_Star(_)
            | N::BitString(_)
            | N::BoolExpr(_)
            | N::Boolean(_)
            | N::BooleanTest(_)
            | N::CaseExpr(_)
            | N::CoalesceExpr(_)
            | N::CollateClause(_)
            | N::ColumnRef(_)
            | N::CurrentOfExpr(_)
            | N::Float(_)
            | N::FuncCall(_)
            | N::GroupingFunc(_)
            | N::Integer(_)
            | N::MergeSupportFunc(_)
            | N::MinMaxExpr(_)
            | N::NamedArgExpr(_)
            | N::NodeList(_)
            | N::NullTest(_)
            | N::ParamRef(_)
            | N::RowExpr(_)
            | N::SetToDefault(_)
            | N::SQLValueFunction(_)
            | N::String(_)
            | N::SubLink(_)
            | N::TypeCast(_)
            | N::TypeName(_)
            | N::XmlExpr(_)
            | N::XmlSerialize(_)
    )
}

/// The part of [`is_known`] that has rows, or is a part of what has.
const fn is_known_query(node: Node<'_>) -> bool {
    use pg_raw_parse::Node as N;
    matches!(
        node,
        N::Alias(_)
            | N::ColumnDef(_)
            | N::CommonTableExpr(_)
            | N::DeleteStmt(_)
            | N::GroupingSet(_)
            | N::IndexElem(_)
            | N::InferClause(_)
            | N::InsertStmt(_)
            | N::IntoClause(_)
            | N::JoinExpr(_)
            | N::LockingClause(_)
            | N::MergeStmt(_)
            | N::MergeWhenClause(_)
            | N::MultiAssignRef(_)
            | N::OnConflictClause(_)
            | N::RangeFunction(_)
            | N::RangeSubselect(_)
            | N::RangeTableFunc(_)
            | N::RangeTableFuncCol(_)
            | N::RangeTableSample(_)
            | N::RangeVar(_)
            | N::ResTarget(_)
            | N::ReturningClause(_)
            | N::ReturningOption(_)
            | N::SelectStmt(_)
            | N::SortBy(_)
            | N::UpdateStmt(_)
            | N::WindowDef(_)
            | N::WithClause(_)
    )
}

/// The SQL/JSON part of [`is_known`].
const fn is_known_json(node: Node<'_>) -> bool {
    use pg_raw_parse::Node as N;
    matches!(
        node,
        N::JsonAggConstructor(_)
            | N::JsonArgument(_)
            | N::JsonArrayAgg(_)
            | N::JsonArrayConstructor(_)
            | N::JsonArrayQueryConstructor(_)
            | N::JsonBehavior(_)
            | N::JsonFormat(_)
            | N::JsonFuncExpr(_)
            | N::JsonIsPredicate(_)
            | N::JsonKeyValue(_)
            | N::JsonObjectAgg(_)
            | N::JsonObjectConstructor(_)
            | N::JsonOutput(_)
            | N::JsonParseExpr(_)
            | N::JsonReturning(_)
            | N::JsonScalarExpr(_)
            | N::JsonSerializeExpr(_)
            | N::JsonTable(_)
            | N::JsonTableColumn(_)
            | N::JsonTablePathSpec(_)
            | N::JsonValueExpr(_)
    )
}
