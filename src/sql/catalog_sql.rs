//! The SQL whose rows a [`super::Catalog`] is built from. Texts only; `control::catalog` runs
//! them.
//!
//! They read nothing but system catalogs, need no privilege, and work from PostgreSQL 13 on, on a
//! primary and on a standby.
//!
//! They count on [`crate::pg::SEARCH_PATH`]: most operators are named without a schema, and for
//! some of the types here PostgreSQL has none that fits exactly, so that a user's would be taken.

/// The number of rows, and the sum of their hashes: `[letter] [oid] [version] FROM ...`.
macro_rules! digest {
    ($letter:literal, $oid:literal, $version:literal, $from:literal) => {
        concat!(
            "SELECT '",
            $letter,
            "' || count(*) || ':' ||
       coalesce(sum(pg_catalog.hashint8extended(",
            $oid,
            "::bigint, ",
            $version,
            "::text::bigint)), 0) AS part
  ",
            $from
        )
    };
}

/// One row: whether another session has locked this very database, as it does before it waits for
/// all others to leave it.
///
/// Source: `dropdb`, `RenameDatabase`, `movedb` and `createdb` in `commands/dbcommands.c`; what
/// only connects, or comments on it, takes weaker locks.
pub const SOMEBODY_WAITS: &str = "
SELECT EXISTS (
SELECT FROM pg_catalog.pg_locks AS l
  JOIN pg_catalog.pg_database AS d ON d.oid = l.objid
 WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
   AND d.datname = pg_catalog.current_database()
   AND l.mode IN ('ShareLock', 'AccessExclusiveLock')
   AND l.pid <> pg_catalog.pg_backend_pid())";

/// A row for each role that has settings of its own in this database, or in all (`''`: all roles):
/// its name, and a text that differs once they do.
pub const DEFAULTS_OF_ROLES: &str = "
SELECT coalesce(r.rolname, '')::pg_catalog.text,
       pg_catalog.md5(pg_catalog.string_agg(
         pg_catalog.concat(s.setdatabase, pg_catalog.array_to_string(s.setconfig, ' ')), ' '
         ORDER BY s.setdatabase))
  FROM pg_catalog.pg_db_role_setting AS s
  LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
 WHERE s.setdatabase = 0
    OR s.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database AS d
                         WHERE d.datname = pg_catalog.current_database())
 GROUP BY 1";

/// One row: a text that differs once others may connect to this database than before. Costs a tenth
/// of a microsecond a role.
pub const ADMISSION: &str = "
SELECT pg_catalog.concat_ws(' ', d.oid, d.xmin, d.datallowconn, r.digest, m.digest)
  FROM pg_catalog.pg_database AS d,
       (SELECT sum(pg_catalog.hashtextextended(rolname::text, oid::bigint * 8
                 + rolcanlogin::int + 2 * rolsuper::int + 4 * rolinherit::int)) AS digest
          FROM pg_catalog.pg_roles) AS r,
       (SELECT sum(pg_catalog.hashint8extended(
                 (roleid::bigint << 32) + member::bigint, xmin::text::bigint)) AS digest
          FROM pg_catalog.pg_auth_members) AS m
 WHERE d.datname = pg_catalog.current_database()";

/// A row for each role that may connect to this database: its name, and who it is.
pub const ADMITTED: &str = "
SELECT r.rolname::text, r.oid::bigint
  FROM pg_catalog.pg_roles AS r, pg_catalog.pg_database AS d
 WHERE d.datname = pg_catalog.current_database() AND d.datallowconn AND r.rolcanlogin
   AND pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT')";

/// One row: a text that differs once a function, an operator, a cast, a type, a relation, a
/// trigger, a rule, a policy or a constraint was created, altered or dropped by anybody.
///
/// Each such change writes a row of a system catalog with a new `xmin`. PostgreSQL's own objects
/// and temporary relations are left out. Of `pg_class` the columns that count are compared
/// instead, since `TRUNCATE` and `GRANT` write it, too. Costs a scan of these catalogs: about a
/// millisecond for a thousand objects.
pub const FINGERPRINT: &str = concat!(
    "
SELECT pg_catalog.md5(pg_catalog.string_agg(x.part, ',' ORDER BY x.part)) AS fingerprint
  FROM (
SELECT 'relation' || count(*) || ':' ||
       coalesce(sum(pg_catalog.hashtextextended(
         pg_catalog.concat(relname, relkind, relpersistence, relrowsecurity), oid::bigint)), 0)
       AS part
  FROM pg_catalog.pg_class
 WHERE oid >= 16384 AND relpersistence <> 't' AND relkind IN ('r', 'v', 'm', 'p', 'f')
UNION ALL
",
    digest!("function", "oid", "xmin", "FROM pg_catalog.pg_proc WHERE oid >= 16384"),
    "\nUNION ALL\n",
    digest!("operator", "oid", "xmin", "FROM pg_catalog.pg_operator WHERE oid >= 16384"),
    "\nUNION ALL\n",
    digest!("cast", "oid", "xmin", "FROM pg_catalog.pg_cast WHERE oid >= 16384"),
    "\nUNION ALL\n",
    digest!("support", "oid", "xmin", "FROM pg_catalog.pg_amproc WHERE oid >= 16384"),
    "\nUNION ALL\n",
    digest!("policy", "oid", "xmin", "FROM pg_catalog.pg_policy"),
    "\nUNION ALL\n",
    digest!(
        "aggregate",
        "aggfnoid::oid",
        "xmin",
        "FROM pg_catalog.pg_aggregate WHERE aggfnoid::oid >= 16384"
    ),
    "\nUNION ALL\n",
    digest!(
        "trigger",
        "oid",
        "xmin",
        "FROM pg_catalog.pg_trigger WHERE NOT tgisinternal OR tgparentid <> 0"
    ),
    "\nUNION ALL\n",
    digest!(
        "rule",
        "w.oid",
        "w.xmin",
        "FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
 WHERE w.oid >= 16384 AND c.relpersistence <> 't'"
    ),
    "\nUNION ALL\n",
    digest!(
        "type",
        "t.oid",
        "t.xmin",
        "FROM pg_catalog.pg_type t
 WHERE t.oid >= 16384 AND t.typtype IN ('b', 'd')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)"
    ),
    "\nUNION ALL\n",
    digest!(
        "constraint",
        "k.oid",
        "k.xmin",
        "FROM pg_catalog.pg_constraint k LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
 WHERE k.oid >= 16384 AND c.relpersistence IS DISTINCT FROM 't'"
    ),
    "\nUNION ALL\n",
    digest!(
        "default",
        "d.oid",
        "d.xmin",
        "FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
 WHERE c.relpersistence <> 't'"
    ),
    "\nUNION ALL\n",
    digest!(
        "index",
        "i.indexrelid",
        "i.indrelid",
        "FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
 WHERE c.relpersistence <> 't' AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)"
    ),
    "\nUNION ALL\n",
    digest!(
        "child",
        "n.inhrelid",
        "n.inhparent",
        "FROM pg_catalog.pg_inherits n JOIN pg_catalog.pg_class c ON c.oid = n.inhrelid
 WHERE c.relpersistence <> 't'"
    ),
    "
) x"
);

/// Labels of a function `p` in the language `l`.
macro_rules! origin {
    () => {
        "CASE WHEN p.oid < 16384 THEN 'builtin'
              WHEN l.lanname IN ('c', 'internal') THEN 'native'
              ELSE 'written' END"
    };
}

/// Labels of what runs the function `p` though nobody names it: what users put before one of
/// PostgreSQL's own that may do anything is theirs.
macro_rules! unnamed_origin {
    () => {
        "CASE WHEN p.oid < 16384 AND p.provolatile <> 'v' THEN 'builtin'
              WHEN p.oid >= 16384 AND l.lanname IN ('c', 'internal') THEN 'native'
              ELSE 'written' END"
    };
}

/// How the function in this alias can be called behind a dot: by its one argument, if at all.
macro_rules! argument {
    ($function:literal) => {
        concat!(
            "CASE WHEN ",
            $function,
            ".pronargs < 1 OR ",
            $function,
            ".pronargs - ",
            $function,
            ".pronargdefaults > 1
                 THEN 'other' WHEN t.typtype IN ('c', 'p') THEN 'row' ELSE 'one' END"
        )
    };
}

/// Every function: `name`, `place` (core, other), `origin` (builtin, native, written),
/// `volatility` (i, s, v), `argument` (row, one, other). A user's aggregate has a row for itself
/// and one for each of its parts, since it is always labelled immutable itself.
pub const FUNCTIONS: &str = concat!(
    "
SELECT DISTINCT p.proname::text AS name,
       CASE n.nspname WHEN 'pg_catalog' THEN 'core' ELSE 'other' END AS place,
       ",
    origin!(),
    " AS origin,
       p.provolatile::text AS volatility,
       ",
    argument!("p"),
    " AS argument
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
UNION
SELECT whole.proname::text, 'other', ",
    unnamed_origin!(),
    ", p.provolatile::text, ",
    argument!("whole"),
    "
  FROM pg_catalog.pg_aggregate a
  JOIN pg_catalog.pg_proc whole ON whole.oid = a.aggfnoid
 CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
       a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[])
       AS part (oid)
  JOIN pg_catalog.pg_proc p ON p.oid = part.oid
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_catalog.pg_type t ON t.oid = whole.proargtypes[0]
 WHERE whole.oid >= 16384"
);

/// The defaults of users' functions' arguments, which a call that leaves them out evaluates:
/// `name`, `expressions`.
pub const DEFAULTS: &str = "
SELECT p.proname::text AS name, pg_catalog.pg_get_expr(p.proargdefaults, 0) AS expressions
  FROM pg_catalog.pg_proc p
 WHERE p.proargdefaults IS NOT NULL AND p.oid >= 16384";

/// Users' operators, whoever made their functions: `operator`, and the columns of [`FUNCTIONS`].
pub const OPERATORS: &str = concat!(
    "
SELECT DISTINCT o.oprname::text AS operator, p.proname::text AS name, 'other' AS place, ",
    unnamed_origin!(),
    " AS origin, p.provolatile::text AS volatility, 'other' AS argument
  FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE o.oid >= 16384"
);

/// The functions that run without being named because of what users have made: those of casts, of
/// types, of index support and of comparisons, which sorting, grouping and joining use. The
/// columns of [`FUNCTIONS`].
pub const HIDDEN: &str = concat!(
    "
SELECT DISTINCT p.proname::text AS name, 'other' AS place, ",
    unnamed_origin!(),
    " AS origin, p.provolatile::text AS volatility, 'other' AS argument
  FROM (
    SELECT castfunc AS oid FROM pg_catalog.pg_cast WHERE oid >= 16384
    UNION SELECT amproc FROM pg_catalog.pg_amproc WHERE oid >= 16384
    UNION SELECT oprcode FROM pg_catalog.pg_operator
           WHERE oprname IN ('=', '<>', '<', '<=', '>', '>=') AND oid >= 16384
    UNION SELECT rngcanonical FROM pg_catalog.pg_range WHERE rngtypid >= 16384
    UNION SELECT rngsubdiff FROM pg_catalog.pg_range WHERE rngtypid >= 16384
    UNION SELECT f.oid FROM pg_catalog.pg_type t
           CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[t.typinput, t.typoutput, t.typreceive,
                 t.typsend, t.typmodin, t.typmodout]::oid[]) AS f (oid)
           WHERE t.oid >= 16384
  ) used
  JOIN pg_catalog.pg_proc p ON p.oid = used.oid
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang"
);

/// The check expressions of users' domains: `expression`.
pub const DOMAINS: &str = "
SELECT DISTINCT pg_catalog.pg_get_expr(conbin, 0) AS expression
  FROM pg_catalog.pg_constraint
 WHERE contypid <> 0 AND conbin IS NOT NULL AND oid >= 16384";

/// Everything that can be read: `name`, `kind` (r, p, m, v; f: foreign, or with a foreign
/// descendant; u: the same with unlogged), `origin`, `definition` of users' views.
/// In the order of their creation, so that views mostly come after what they read.
pub const RELATIONS: &str = "
WITH RECURSIVE kin (oid, kind) AS (
  SELECT oid, CASE relkind WHEN 'f' THEN 'f' ELSE 'u' END
    FROM pg_catalog.pg_class
   WHERE relkind = 'f' OR (relpersistence = 'u' AND relkind IN ('r', 'p', 'm'))
  UNION
  SELECT i.inhparent, k.kind FROM kin k JOIN pg_catalog.pg_inherits i ON i.inhrelid = k.oid
)
SELECT c.relname::text AS name,
       coalesce((SELECT pg_catalog.min(k.kind) FROM kin k WHERE k.oid = c.oid),
                c.relkind::text) AS kind,
       CASE WHEN c.oid < 16384 THEN 'builtin' ELSE 'written' END AS origin,
       CASE WHEN c.relkind = 'v' AND c.oid >= 16384 THEN pg_catalog.pg_get_viewdef(c.oid) END
       AS definition
  FROM pg_catalog.pg_class c
 WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relpersistence <> 't'
 ORDER BY c.oid";

/// The expressions of row security policies: `relation`, `expression`.
pub const POLICIES: &str = "
SELECT c.relname::text AS relation, e.expression
  FROM pg_catalog.pg_policy p
  JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
 CROSS JOIN LATERAL (VALUES (pg_catalog.pg_get_expr(p.polqual, p.polrelid)),
       (pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))) AS e (expression)
 WHERE e.expression IS NOT NULL";

/// What changing a table's rows runs besides: `relation`, and the columns of [`FUNCTIONS`] for
/// each function of a trigger, a default, a constraint, an index or a partition key; a rule is a
/// volatile function of its name. Of PostgreSQL's own functions `currval` (1575) and `lastval`
/// (2559) in a default count as somebody's code: they tell of the session.
pub const WRITES: &str = concat!(
    "
WITH called (relid, oid) AS (
  SELECT tgrelid, tgfoid FROM pg_catalog.pg_trigger
   WHERE (NOT tgisinternal OR tgparentid <> 0) AND tgfoid >= 16384
  UNION
  SELECT owner.relid, used.oid
    FROM (
      SELECT oid, oid AS via, 'pg_catalog.pg_proc'::pg_catalog.regclass AS class
        FROM pg_catalog.pg_proc WHERE oid >= 16384
      UNION ALL
      SELECT oprcode, oid, 'pg_catalog.pg_operator'::pg_catalog.regclass
        FROM pg_catalog.pg_operator WHERE oid >= 16384
    ) used
    JOIN pg_catalog.pg_depend d ON d.refclassid = used.class AND d.refobjid = used.via
   CROSS JOIN LATERAL (
      SELECT adrelid AS relid FROM pg_catalog.pg_attrdef
       WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND oid = d.objid
      UNION ALL
      SELECT conrelid FROM pg_catalog.pg_constraint
       WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND oid = d.objid
      UNION ALL
      SELECT indrelid FROM pg_catalog.pg_index
       WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND indexrelid = d.objid
      UNION ALL
      SELECT partrelid FROM pg_catalog.pg_partitioned_table
       WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND partrelid = d.objid
   ) owner
)
SELECT DISTINCT c.relname::text AS relation, p.proname::text AS name, 'other' AS place, ",
    unnamed_origin!(),
    " AS origin, p.provolatile::text AS volatility, 'other' AS argument
  FROM called
  JOIN pg_catalog.pg_class c ON c.oid = called.relid AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_proc p ON p.oid = called.oid
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 OR p.provolatile = 'v'
UNION
SELECT c.relname::text, r.rulename::text, 'other', 'written', 'v', 'other'
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relpersistence <> 't'
 WHERE r.ev_type <> '1' AND r.oid >= 16384
UNION
SELECT c.relname::text, 'currval', 'other', 'written', 'v', 'other'
  FROM pg_catalog.pg_attrdef d
  JOIN pg_catalog.pg_class c ON c.oid = d.adrelid AND c.relpersistence <> 't'
 WHERE d.adbin::text ~ ':funcid (1575|2559) '"
);

/// Whose rows change along with a table's: `relation`, `follower` (its partitions and children,
/// and what a foreign key's `CASCADE` or `SET` reaches).
pub const FOLLOWERS: &str = "
SELECT DISTINCT p.relname::text AS relation, f.relname::text AS follower
  FROM (
    SELECT inhparent AS relid, inhrelid AS follower FROM pg_catalog.pg_inherits
    UNION
    SELECT confrelid, conrelid FROM pg_catalog.pg_constraint
     WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
  ) pair
  JOIN pg_catalog.pg_class p ON p.oid = pair.relid AND p.relkind IN ('r', 'p', 'f')
  JOIN pg_catalog.pg_class f ON f.oid = pair.follower AND f.relpersistence <> 't'";
