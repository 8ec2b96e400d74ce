//! Statements: which class each is, and which queries are inside.

use super::Collector;
use super::NeedsPrimary;
use super::is_temporary;
use super::is_temporary_schema;
use super::name;
use super::name_of;
use super::relation_of;
use super::tree;
use crate::sql::Effects;
use crate::sql::Whose;
use crate::sql::facts::Access;
use crate::sql::facts::Chain;
use crate::sql::facts::Class;
use crate::sql::facts::Isolation;
use crate::sql::facts::Scope;
use crate::sql::facts::Snapshot;
use crate::sql::facts::Touches;
use crate::sql::facts::Transaction;
use crate::sql::functions;
use pg_raw_parse::Node;
use pg_raw_parse::const_val::ConstValue;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes;
use pg_raw_parse::nodes::DiscardMode;
use pg_raw_parse::nodes::DropBehavior;
use pg_raw_parse::nodes::RoleSpecType;
use pg_raw_parse::nodes::TransactionStmtKind as Kind;
use pg_raw_parse::nodes::VariableSetKind;

/// `CURSOR_OPT_HOLD` in `nodes/parsenodes.h`.
const WITH_HOLD: i32 = 0x0020;

/// Reads one statement.
#[expect(clippy::wildcard_enum_match_arm, reason = "closed world: see `other`")]
pub(super) fn read(node: Node<'_>, into: &mut Collector) {
    match node {
        Node::SelectStmt(_)
        | Node::InsertStmt(_)
        | Node::UpdateStmt(_)
        | Node::DeleteStmt(_)
        | Node::MergeStmt(_) => tree::read(node, into),
        Node::ExplainStmt(node) => explain(node, into),
        Node::CopyStmt(node) => copy(node, into),
        Node::DeclareCursorStmt(node) => declare(node, into),
        Node::TransactionStmt(node) => transaction(node, into),
        Node::VariableSetStmt(node) => set(node, into),
        Node::VariableShowStmt(node) => show(node, into),
        Node::TruncateStmt(truncate) => {
            // It also empties what no change of rows would reach, whatever triggers that has.
            let cascades = truncate.behavior == DropBehavior::DROP_CASCADE;
            let class = if cascades { Class::Utility } else { Class::Write };
            into.needs_primary(class, NeedsPrimary::Write);
            for relation in truncate.relations() {
                if let Node::RangeVar(relation) = relation {
                    into.target(relation_of(relation));
                }
            }
        }
        _ => session(node, into),
    }
}

/// Statements about the session's own things; everything else goes on to [`procedural`].
#[expect(clippy::wildcard_enum_match_arm, reason = "closed world: see `other`")]
fn session(node: Node<'_>, into: &mut Collector) {
    use NeedsPrimary as Why;
    let (effect, why) = match node {
        Node::FetchStmt(_) => (Effects::FETCH, Why::Cursor),
        Node::ClosePortalStmt(_) => (Effects::CLOSE, Why::Cursor),
        Node::PrepareStmt(prepare) => {
            into.prepared(Touches::Gives, prepare.name());
            (Effects::PREPARE, Why::PreparedSql)
        }
        Node::DeallocateStmt(deallocate) => {
            into.prepared(Touches::Takes, deallocate.name());
            (Effects::DEALLOCATE, Why::PreparedSql)
        }
        Node::ListenStmt(_) => (Effects::LISTEN, Why::SessionState),
        Node::UnlistenStmt(_) => (Effects::UNLISTEN, Why::SessionState),
        Node::DiscardStmt(discard) if discard.target == DiscardMode::DISCARD_ALL => {
            (Effects::DISCARD_ALL, Why::SessionState)
        }
        Node::DiscardStmt(_) => (Effects::DISCARD, Why::SessionState),
        Node::LoadStmt(_) => (Effects::LASTING, Why::SessionState),
        Node::ConstraintsSetStmt(_) => (Effects::NONE, Why::SessionState),
        _ => return procedural(node, into),
    };
    into.needs_primary(Class::Session, why);
    into.effect(effect);
}

/// Statements that run other code; everything else goes on to [`other`].
#[expect(clippy::wildcard_enum_match_arm, reason = "closed world: see `other`")]
fn procedural(node: Node<'_>, into: &mut Collector) {
    match node {
        Node::DoStmt(_) => {
            into.needs_primary(Class::Utility, NeedsPrimary::Procedural);
            into.effect(Effects::DO);
            into.may_commit();
        }
        Node::CallStmt(call) => {
            into.needs_primary(Class::Utility, NeedsPrimary::Procedural);
            into.effect(Effects::CALL);
            into.may_commit();
            if let Some(call) = call.funccall() {
                tree::read(call.into(), into);
            }
        }
        Node::ExecuteStmt(execute) => {
            into.needs_primary(Class::Utility, NeedsPrimary::PreparedSql);
            into.effect(Effects::EXECUTE);
            into.prepared(Touches::Runs, execute.name());
            into.may_commit();
            for value in execute.params() {
                tree::read(value, into);
            }
        }
        Node::NotifyStmt(_) => {
            into.needs_primary(Class::Utility, NeedsPrimary::Utility);
            into.effect(Effects::NOTIFY);
        }
        Node::LockStmt(_) => into.needs_primary(Class::Write, NeedsPrimary::TableLock),
        Node::CheckPointStmt(_)
        | Node::AlterSystemStmt(_)
        | Node::VacuumStmt(_)
        | Node::ClusterStmt(_)
        | Node::ReindexStmt(_) => {
            into.needs_primary(Class::Utility, NeedsPrimary::Utility);
            into.may_commit();
        }
        _ => other(node, into),
    }
}

/// Everything else is taken to change the system catalogs, be it known to us or not.
#[expect(clippy::wildcard_enum_match_arm, reason = "the closed world's end")]
fn other(node: Node<'_>, into: &mut Collector) {
    into.needs_primary(Class::Utility, NeedsPrimary::Utility);
    into.effect(Effects::DDL);
    // Some of these commit by themselves (CREATE INDEX CONCURRENTLY, CREATE DATABASE); only
    // what surely doesn't is said to be one transaction.
    let (relation, query) = match node {
        Node::CreateStmt(create) => (create.relation(), Node::None),
        Node::CreateSeqStmt(create) => (create.sequence(), Node::None),
        Node::CompositeTypeStmt(create) => (create.typevar(), Node::None),
        Node::ViewStmt(create) => (create.view(), create.query()),
        Node::CreateTableAsStmt(create) => {
            into.effect(Effects::DML);
            (create.into().and_then(nodes::IntoClause::rel), create.query())
        }
        _ => {
            into.may_commit();
            if names_temporary_schema(node) {
                into.effect(Effects::TEMP);
            }
            defaults(node, into);
            return;
        }
    };
    if relation.is_some_and(is_temporary) {
        into.effect(Effects::TEMP);
    }
    if let Node::ExecuteStmt(execute) = query {
        into.effect(Effects::EXECUTE);
        into.prepared(Touches::Runs, execute.name());
    } else if !matches!(query, Node::None) {
        tree::read(query, into);
    }
}

/// With which settings sessions begin.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is something else")]
fn defaults(node: Node<'_>, into: &mut Collector) {
    match node {
        Node::AlterRoleSetStmt(alter) => {
            into.changes_defaults(alter.role().map_or(Whose::Everybodys, whose), alter.database());
        }
        Node::AlterDatabaseSetStmt(alter) => {
            into.changes_defaults(Whose::Everybodys, alter.dbname());
        }
        _ => {}
    }
}

/// Whom a role's place in a statement names.
fn whose(role: &nodes::RoleSpec) -> Whose {
    match role.roletype {
        RoleSpecType::ROLESPEC_CURRENT_ROLE | RoleSpecType::ROLESPEC_CURRENT_USER => {
            Whose::CurrentUsers
        }
        RoleSpecType::ROLESPEC_SESSION_USER => Whose::SessionUsers,
        _ => role.rolename().map_or(Whose::Everybodys, |name| Whose::Roles(name.into())),
    }
}

/// Whether an object that is created by its name alone is named in the temporary schema.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest can't be temporary")]
fn names_temporary_schema(node: Node<'_>) -> bool {
    let name = match node {
        Node::CreateFunctionStmt(create) => name_of(create.funcname()),
        Node::CreateDomainStmt(create) => name(create.domainname().iter().map(|part| part.sval())),
        Node::CreateEnumStmt(create) => name(create.type_name().iter().map(|part| part.sval())),
        Node::CreateRangeStmt(create) => name(create.type_name().iter().map(|part| part.sval())),
        Node::DefineStmt(create) => name(create.defnames().iter().map(|part| part.sval())),
        _ => None,
    };
    name.and_then(|name| name.schema).is_some_and(|schema| is_temporary_schema(&schema))
}

/// `EXPLAIN` plans, with `ANALYZE` it runs: both follow what they explain.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is primary")]
fn explain(explain: &nodes::ExplainStmt, into: &mut Collector) {
    match explain.query() {
        query @ (Node::SelectStmt(_)
        | Node::InsertStmt(_)
        | Node::UpdateStmt(_)
        | Node::DeleteStmt(_)
        | Node::MergeStmt(_)) => tree::read(query, into),
        Node::DeclareCursorStmt(declare) => tree::read(declare.query(), into),
        query @ (Node::ExecuteStmt(_) | Node::CreateTableAsStmt(_)) => procedural(query, into),
        _ => {
            into.needs_primary(Class::Utility, NeedsPrimary::Utility);
            into.effect(Effects::DDL);
        }
    }
}

/// `COPY`: out of a table or query to the client is a read, all else is the primary's.
fn copy(copy: &nodes::CopyStmt, into: &mut Collector) {
    let by_client = copy.filename().is_none() && !copy.is_program;
    into.effect(match (by_client, copy.is_from) {
        (true, true) => Effects::COPY_IN,
        (true, false) => Effects::COPY_OUT,
        (false, _) => Effects::COPY_FILE,
    });
    if !by_client {
        into.needs_primary(Class::Utility, NeedsPrimary::ServerFile);
    }
    if let Some(relation) = copy.relation() {
        if copy.is_from {
            into.needs_primary(Class::Write, NeedsPrimary::Write);
            into.target(relation_of(relation));
        } else {
            tree::read(relation.into(), into);
        }
    }
    for part in [copy.query(), copy.where_clause()] {
        if !matches!(part, Node::None) {
            tree::read(part, into);
        }
    }
}

/// `DECLARE CURSOR` follows its query; one that outlives its transaction ties the session.
fn declare(declare: &nodes::DeclareCursorStmt, into: &mut Collector) {
    into.effect(Effects::CURSOR);
    if declare.options & WITH_HOLD != 0 {
        into.effect(Effects::HOLD);
        into.needs_primary(Class::Session, NeedsPrimary::Cursor);
    }
    tree::read(declare.query(), into);
}

fn transaction(control: &nodes::TransactionStmt, into: &mut Collector) {
    let chain = if control.chain { Chain::Continues } else { Chain::Ends };
    let what = match control.kind {
        Kind::TRANS_STMT_BEGIN | Kind::TRANS_STMT_START => {
            let (access, isolation) = modes(control.options());
            Transaction::Begin { access, isolation }
        }
        Kind::TRANS_STMT_COMMIT => Transaction::Commit(chain),
        Kind::TRANS_STMT_ROLLBACK => Transaction::Rollback(chain),
        Kind::TRANS_STMT_SAVEPOINT | Kind::TRANS_STMT_RELEASE | Kind::TRANS_STMT_ROLLBACK_TO => {
            Transaction::Savepoint
        }
        Kind::TRANS_STMT_PREPARE => Transaction::Prepare,
        Kind::TRANS_STMT_COMMIT_PREPARED | Kind::TRANS_STMT_ROLLBACK_PREPARED => {
            Transaction::FinishPrepared
        }
        _ => Transaction::Mixed,
    };
    into.transaction(what);
}

/// The modes behind `BEGIN` or `SET TRANSACTION`; of several of a kind the last counts.
fn modes(options: &NodeList) -> (Access, Isolation) {
    let (mut access, mut isolation) = (Access::Default, Isolation::Default);
    for option in options {
        let Node::DefElem(option) = option else { continue };
        match (option.defname(), constant(option.arg()).as_deref()) {
            (Some("transaction_read_only"), Some("0" | "false")) => access = Access::ReadWrite,
            (Some("transaction_read_only"), _) => access = Access::ReadOnly,
            (Some("transaction_isolation"), Some(level)) => {
                isolation = match level {
                    "read committed" | "read uncommitted" => Isolation::ReadCommitted,
                    "repeatable read" => Isolation::RepeatableRead,
                    _ => Isolation::Serializable,
                };
            }
            _ => {}
        }
    }
    (access, isolation)
}

fn set(set: &nodes::VariableSetStmt, into: &mut Collector) {
    let scope = if set.is_local { Scope::Transaction } else { Scope::Session };
    let name = set.name().unwrap_or_default();
    match set.kind {
        VariableSetKind::VAR_SET_MULTI if name == "TRANSACTION" => {
            let (access, isolation) = modes(set.args());
            let snapshot = Snapshot::Own;
            return into.transaction(Transaction::Set { access, isolation, snapshot });
        }
        VariableSetKind::VAR_SET_MULTI if name == "TRANSACTION SNAPSHOT" => {
            let (access, isolation) = (Access::Default, Isolation::Default);
            let snapshot = Snapshot::Imported;
            return into.transaction(Transaction::Set { access, isolation, snapshot });
        }
        VariableSetKind::VAR_SET_MULTI => {
            for option in set.args() {
                if let Node::DefElem(option) = option {
                    let setting = format!("default_{}", option.defname().unwrap_or_default());
                    into.setting(&setting, Scope::Session, Some(String::new()));
                }
            }
            into.effect(Effects::SET);
        }
        VariableSetKind::VAR_SET_VALUE => into.setting(name, scope, Some(values(set.args()))),
        VariableSetKind::VAR_SET_DEFAULT | VariableSetKind::VAR_RESET => {
            into.setting(name, scope, None);
        }
        VariableSetKind::VAR_RESET_ALL => into.effect(Effects::RESET_ALL),
        _ => into.effect(Effects::SET | Effects::UNKNOWN),
    }
    into.only_sets();
}

/// `SHOW` is answered by any server, unless the answer tells which one.
fn show(show: &nodes::VariableShowStmt, into: &mut Collector) {
    let name = show.name().unwrap_or_default().to_ascii_lowercase();
    if functions::tells_the_role(&name) {
        into.needs_primary(Class::Session, NeedsPrimary::SessionState);
    }
    into.show(&name);
}

/// The values behind `SET`, as one text.
fn values(args: &NodeList) -> String {
    let mut text = String::new();
    for value in args.iter().filter_map(constant) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&value);
    }
    text
}

/// A constant as a text.
#[expect(clippy::wildcard_enum_match_arm, reason = "bit strings, and kinds yet to come")]
fn constant(node: Node<'_>) -> Option<String> {
    let Node::A_Const(constant) = node else { return None };
    match constant.val()? {
        ConstValue::Integer(number) => Some(number.to_string()),
        ConstValue::Float(text) | ConstValue::String(text) => Some(text.to_owned()),
        ConstValue::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}
