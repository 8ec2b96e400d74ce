//! The SQL whose rows a [`super::Catalog`] is built from. Texts only; `control::catalog` runs
//! them.
//!
//! They read nothing but system catalogs, need no privilege, work from PostgreSQL 13 on, on a
//! primary and on a standby, and name every object by `pg_catalog`, so that nobody's
//! `search_path` can lead them astray.

/// One row: a text that differs once a function, an operator, a cast, a type, a relation, a
/// trigger, a rule, a policy or a constraint was created, altered or dropped by anybody.
///
/// Each such change writes a row of a system catalog with a new `xmin`. PostgreSQL's own objects
/// and temporary relations are left out; what `VACUUM` and `ANALYZE` write in place keeps its
/// `xmin`. Costs a scan of these catalogs: about a millisecond for a thousand objects.
pub const FINGERPRINT: &str = "
SELECT pg_catalog.md5(pg_catalog.string_agg(x.part, ',' ORDER BY x.part)) AS fingerprint
FROM (
  SELECT 'p' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0) AS part
    FROM pg_catalog.pg_proc WHERE oid >= 16384
  UNION ALL
  SELECT 'c' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_class WHERE oid >= 16384 AND relpersistence <> 't' AND relkind IN ('r', 'v', 'm', 'p', 'f')
  UNION ALL
  SELECT 'w' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_rewrite WHERE oid >= 16384
  UNION ALL
  SELECT 't' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_trigger WHERE NOT tgisinternal OR tgparentid <> 0
  UNION ALL
  SELECT 'l' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_policy
  UNION ALL
  SELECT 'o' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_operator WHERE oid >= 16384
  UNION ALL
  SELECT 'a' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_cast WHERE oid >= 16384
  UNION ALL
  SELECT 'm' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_amproc WHERE oid >= 16384
  UNION ALL
  SELECT 'g' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(aggfnoid::oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_aggregate WHERE aggfnoid::oid >= 16384
  UNION ALL
  SELECT 'd' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(oid::bigint, xmin::text::bigint)), 0)
    FROM pg_catalog.pg_type WHERE oid >= 16384 AND typtype IN ('b', 'd')
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = pg_type.oid)
  UNION ALL
  SELECT 'k' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(k.oid::bigint, k.xmin::text::bigint)), 0)
    FROM pg_catalog.pg_constraint k LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
   WHERE k.oid >= 16384 AND c.relpersistence IS DISTINCT FROM 't'
  UNION ALL
  SELECT 'f' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(d.oid::bigint, d.xmin::text::bigint)), 0)
    FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
   WHERE c.relpersistence <> 't'
  UNION ALL
  SELECT 'i' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(i.indexrelid::bigint, 0)), 0)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
   WHERE c.relpersistence <> 't' AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
  UNION ALL
  SELECT 'h' || count(*) || ':' || coalesce(sum(pg_catalog.hashint8extended(n.inhrelid::bigint, n.inhparent::bigint)), 0)
    FROM pg_catalog.pg_inherits n JOIN pg_catalog.pg_class c ON c.oid = n.inhrelid
   WHERE c.relpersistence <> 't'
) x";
