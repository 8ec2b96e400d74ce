//! Functions, operators and types that bear the names of PostgreSQL's own, made by a user who may
//! create something: no statement of pgsteer's own is led astray by them, neither the control
//! user's nor those that it sends in a client's session.
//!
//! Each lookalike does what the one does that it is taken for, and says so in the server's log.

use crate::support::{Blueprint, House, await_that, connect};
use pgsteer::sandbox::{Auth, Server, StatementLog};
use std::time::Duration;
use tokio_postgres::Client;

/// What a lookalike is made by: it names everything of its own in full, so that it is alone in the
/// log.
const MAKER: &str = "
CREATE ROLE mallory;
GRANT CREATE ON SCHEMA public TO mallory;
CREATE ROLE app LOGIN PASSWORD 'app';
CREATE FUNCTION public.make(place text, name text, takes text, gives text, call text)
RETURNS void LANGUAGE plpgsql AS $make$
BEGIN
  EXECUTE pg_catalog.format($text$
    CREATE FUNCTION %I.%I(%s) RETURNS %s IMMUTABLE LANGUAGE plpgsql COST 0.0001
    SET search_path = pg_catalog AS
    $f$BEGIN RAISE LOG 'lookalike %% run as %%: %%', %L, current_user, translate(current_query(), E'\\n', ' ');
    RETURN %s; END$f$$text$, place, name, takes, gives, name, call);
END $make$;";

/// Operators on types for which there is none: PostgreSQL looks for such a one along the whole
/// path before it converts anything.
///
/// Source: `binary_oper_exact` and `oper` in `parser/parse_oper.c`.
const EXACT: &str = "
DO $do$
DECLARE
  kinds text[] := '{text,name,oid,int2,int4,int8,bool,\"char\",xid,regclass,regproc}';
  l text; r text; o text; number int := 0;
BEGIN
  FOREACH l IN ARRAY kinds LOOP
    FOREACH r IN ARRAY kinds LOOP
      FOREACH o IN ARRAY '{=,<>,<,<=,>,>=}'::text[] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_operator WHERE oprname = o
          AND oprleft = l::regtype AND oprright = r::regtype);
        number := number + 1;
        PERFORM public.make('PLACE', 'exact' || number, l || ',' || r, 'bool',
                            '$1 OPERATOR(pg_catalog.' || o || ') $2');
        EXECUTE format('CREATE OPERATOR %I.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %I.%I)',
                       'PLACE', o, l, r, 'PLACE', 'exact' || number);
      END LOOP;
    END LOOP;
  END LOOP;
END $do$;";

/// A lookalike of all that PostgreSQL has.
const EVERYTHING: &str = "
GRANT USAGE ON SCHEMA evil TO PUBLIC;
DO $do$
DECLARE
  f record;
BEGIN
  FOR f IN SELECT oprname, oprleft::regtype::text AS l, oprright::regtype::text AS r,
                  oprresult::regtype::text AS gives, 'op' || pg_operator.oid AS name
             FROM pg_operator JOIN pg_type a ON a.oid = oprleft AND a.typtype <> 'p'
             JOIN pg_type b ON b.oid = oprright AND b.typtype <> 'p'
            WHERE oprkind = 'b' AND oprresult <> 0 LOOP
    PERFORM public.make('evil', f.name, f.l || ',' || f.r, f.gives,
                        '$1 OPERATOR(pg_catalog.' || f.oprname || ') $2');
    EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%I)',
                   f.oprname, f.l, f.r, f.name);
  END LOOP;
  FOR f IN SELECT proname, pg_get_function_identity_arguments(p.oid) AS takes,
                  prorettype::regtype::text AS gives,
                  (SELECT coalesce(string_agg('$' || n, ','), '')
                     FROM generate_series(1, pronargs) AS n) AS given
             FROM pg_proc p
            WHERE prokind = 'f' AND NOT proretset AND pronargs <= 3 AND provariadic = 0
              AND pronamespace = 'pg_catalog'::regnamespace AND proallargtypes IS NULL
              AND NOT EXISTS (SELECT FROM pg_type t WHERE t.typtype = 'p'
                               AND t.oid = ANY (proargtypes::oid[] || prorettype)) LOOP
    PERFORM public.make('evil', f.proname, f.takes, f.gives,
                        format('pg_catalog.%I(%s)', f.proname, f.given));
  END LOOP;
  PERFORM public.make('evil', 'counted', 'int8', 'int8', '$1');
  CREATE AGGREGATE evil.count(*) (
    SFUNC = pg_catalog.int8inc, STYPE = int8, INITCOND = '0', FINALFUNC = evil.counted);
  PERFORM public.make('evil', 'summed', 'numeric, int8', 'numeric', '$1 + $2');
  CREATE AGGREGATE evil.sum(int8) (SFUNC = evil.summed, STYPE = numeric, INITCOND = '0');
  CREATE AGGREGATE evil.max(text) (SFUNC = evil.text_larger, STYPE = text);
  PERFORM public.make('evil', 'seen', 'bool', 'bool', 'true');
  FOR f IN SELECT unnest('{text,name,oid,regclass,xid8,int8,int4,pg_lsn}'::text[]) AS name LOOP
    EXECUTE format('CREATE DOMAIN evil.%I AS pg_catalog.%I CHECK (evil.seen(VALUE IS NULL))',
                   f.name, f.name);
  END LOOP;
END $do$;";

/// In one database whoever logs in is given the lookalikes first; in the other they are where
/// anybody may create something, as it is up to PostgreSQL 14.
fn set_traps(primary: &Server) {
    let run = |database: &str, sql: &str| {
        primary.connect(database).unwrap().rows(sql).unwrap_or_else(|error| panic!("{error}"));
    };
    let set = |database: &str, sql: &str| run(database, &format!("SET ROLE mallory; {sql}"));
    run("postgres", MAKER);
    run("postgres", "CREATE SCHEMA evil AUTHORIZATION mallory");
    set("postgres", EVERYTHING);
    set("postgres", &EXACT.replace("PLACE", "evil"));
    run("postgres", "CREATE TABLE public.things (i pg_catalog.int4)");
    run("postgres", "GRANT ALL ON public.things TO app");
    run("postgres", "ALTER DATABASE postgres SET search_path = evil, pg_catalog, public");
    run("postgres", "CREATE DATABASE shop");
    run("shop", "GRANT CREATE ON SCHEMA public TO mallory");
    run("shop", MAKER.split_once("'app';").unwrap().1);
    set("shop", &EXACT.replace("PLACE", "public"));
}

/// What lookalikes have said at this server, without what the sandbox itself has run: nothing of
/// the clients' here uses any of them.
fn taken(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("lookalike "));
    lines.filter(|line| !line.contains("/pgsteer sandbox ")).map(str::to_owned).collect()
}

fn house() -> House {
    Blueprint::new()
        .servers(|plan| plan.standbys(1).auth(Auth::Password).log(StatementLog::Off))
        .unhurried()
        .any_lag()
        .set("auth.method", "scram-sha-256")
        .set("auth.query_cache", "0s")
        .set("pool.size", "1")
        .set("pool.audit_every", "1")
        .build_after(|cluster| {
            set_traps(cluster.primary());
            cluster.await_replay().unwrap();
        })
}

/// A client of this database that prefers standbys or not.
async fn enter(house: &House, database: &str, role: &str) -> Client {
    let address = house.proxy.address();
    let options = format!("application_name=app&options=-c%20pgsteer.role%3D{role}");
    connect(&format!("postgresql://app:app@{address}/{database}?{options}")).await
}

/// How many audits have found nothing.
fn audits(house: &House) -> f64 {
    house.metric("pgsteer_pool_audits_total{result=\"clean\"}").unwrap()
}

/// What has a session looked at, and its backend.
async fn act(house: &House, database: &str) {
    let before = audits(house);
    let client = enter(house, database, "primary").await;
    let run = async |sql: &str| client.simple_query(sql).await;
    run("SET work_mem = '5MB'; SET my.setting = 'x'").await.unwrap();
    run("LISTEN here").await.unwrap();
    run("UNLISTEN here; DISCARD TEMP").await.unwrap();
    // It evaluates nothing, so that it is believed to leave nothing.
    for _ in 0..600 {
        run("SHOW work_mem").await.unwrap();
        if audits(house) > before {
            break;
        }
        pgsteer::timer::sleep(Duration::from_millis(100)).await;
    }
    assert!(audits(house) > before, "none was audited");
    // A write that is refused in a transaction of a standby fails it there.
    let reader = enter(house, database, "standby").await;
    reader.simple_query("BEGIN READ ONLY; SELECT 1").await.unwrap();
    reader.simple_query("CREATE TABLE public.t ()").await.unwrap_err();
    let error = reader.simple_query("SELECT 1").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25P02", "{error}");
    reader.simple_query("ROLLBACK").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_pgsteers_own_takes_a_lookalike_for_what_it_means() {
    let house = house();
    let primary = house.server("primary");
    // Whoever names things as one does is led astray.
    for (database, sql) in [
        ("postgres", "SELECT count(*) FROM pg_class WHERE relname = 'x'::text"),
        ("shop", "SELECT FROM pg_class WHERE oid >= 16384"),
    ] {
        let before = primary.logged("lookalike ");
        primary.connect(database).unwrap().rows(sql).unwrap();
        assert!(primary.logged("lookalike ") > before, "{sql}");
    }

    for database in ["postgres", "shop"] {
        act(&house, database).await;
        let read = format!("database={database} ");
        await_that("its catalog is read", || {
            let log = house.proxy.log();
            log.lines().any(|line| line.contains("catalog read") && line.contains(&read))
        });
    }
    // Read, and compared since.
    let change = "CREATE TABLE public.another ()";
    let readings = || house.proxy.log().matches("catalog read").count();
    let before = readings();
    primary.connect("postgres").unwrap().rows(change).unwrap();
    await_that("the catalog is compared", || readings() > before);

    for server in house.cluster.servers() {
        let taken = taken(server);
        assert!(taken.is_empty(), "{} at {}: {taken:#?}", taken.len(), server.name());
    }
}
