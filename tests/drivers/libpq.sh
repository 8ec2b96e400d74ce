#!/usr/bin/env bash
# PostgreSQL's own programs through pgsteer: psql, pg_dump and pg_restore, pgbench, and smaller
# ones. Where to is in PGHOST and its like, which libpq reads by itself. pgbench and pg_dump are
# the newest in /usr/lib/postgresql, or those on the PATH.
set -uo pipefail
bin=$(find /usr/lib/postgresql/*/bin -name pgbench -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
PATH=${bin:+$bin:}$PATH
driver="libpq $(psql --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')"
# A schema of this run's own.
schema=drv_libpq_$$_$RANDOM
table=$schema.notes
large=$((8 * 1024 * 1024))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PGCONNECT_TIMEOUT=30

# Each time another session, which need not see at once on a standby what another one wrote.
ask() { psql -wXAtq -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate "$@"; }
ask_primary() { PGOPTIONS='-c pgsteer.role=primary' ask "$@"; }
die() { echo "$*" >&2; return 1; }
same() { [ "$1" = "$2" ] || die "'${1:0:200}' instead of '${2:0:200}'"; }

statements() {
    ask -c "CREATE SCHEMA $schema" -c "CREATE TABLE $table (id int PRIMARY KEY, note text)" || return
    same "$(ask -c "INSERT INTO $table VALUES (1, 'a') RETURNING id")" 1 || return
    same "$(ask -c 'SELECT 1; SELECT 2' | xargs)" "1 2" || return
    # Describes without running it, and runs what a query says.
    same "$(ask <<<'SELECT 1::int8 AS big \gdesc' | xargs)" "big|bigint" || return
    same "$(ask <<<"SELECT 'SELECT 40', 'SELECT 41' \\gexec" | xargs)" "40 41" || return
    same "$(ask_primary -c "\\d $table" | grep -c 'id|integer\|note|text')" 2 || return
    same "$(ask -v FETCH_COUNT=100 -c 'SELECT generate_series(1, 1000)' | wc -l)" 1000 || return
    # As a service may say it: several hosts, of which the first listens not, and one is wanted
    # that takes writes.
    same "$(ask -d "host=127.0.0.1,$PGHOST hostaddr=127.0.0.1,127.0.0.1 port=9,$PGPORT \
        target_session_attrs=read-write" -c 'SELECT 1')" 1
}

prepared_statements() {
    local run
    run=$(ask -c 'PREPARE plus (int) AS SELECT $1 + 1' -c 'EXECUTE plus (41)' -c 'EXECUTE plus (42)' \
        -c 'DEALLOCATE plus' -c "SELECT count(*) FROM pg_prepared_statements WHERE name = 'plus'")
    same "$(xargs <<<"$run")" "42 43 0"
}

own_writes() {
    local number
    for number in $(seq 50); do
        echo "INSERT INTO drv_own_writes VALUES ('$schema', $number);"
        for _ in 1 2 3; do echo "SELECT count(*) FROM drv_own_writes WHERE run = '$schema';"; done
    done >"$work/own.sql"
    same "$(ask -f "$work/own.sql" | uniq -c | xargs)" "$(for number in $(seq 50); do echo "3 $number"; done | xargs)"
}

transactions() {
    ask <<SQL || return
BEGIN;
INSERT INTO $table VALUES (2, 'kept');
\set ON_ERROR_ROLLBACK on
\set ON_ERROR_STOP off
INSERT INTO $table VALUES (2, 'twice');
COMMIT;
BEGIN;
INSERT INTO $table VALUES (4, 'undone');
ROLLBACK;
SQL
    same "$(ask_primary -c "SELECT id FROM $table WHERE id IN (2, 4)")" 2 || return
    ask -1 -c "INSERT INTO $table VALUES (5, 'undone')" -c 'SELECT 1/0' 2>/dev/null &&
        die "a failed transaction succeeded" && return 1
    same "$(ask_primary -c "SELECT count(*) FROM $table WHERE id = 5")" 0
}

copy() {
    local number
    for number in $(seq 1000 5999); do printf '%d\t%0100d\n' "$number" 0; done >"$work/in"
    ask -c "\\copy $table FROM $work/in" -c "\\copy (SELECT * FROM $table WHERE id >= 1000 \
        ORDER BY id) TO $work/out" || return
    cmp "$work/in" "$work/out" || return
    # Another session, to which a standby may show what was there before.
    ask_primary -c "COPY (SELECT * FROM $table WHERE id >= 1000) TO STDOUT (FORMAT binary)" \
        >"$work/binary" || return
    # Both ways at once, and an error in the middle.
    ask -c "DELETE FROM $table WHERE id >= 1000" -c "COPY $table FROM STDIN (FORMAT binary)" \
        -c "SELECT count(*) FROM $table WHERE id >= 1000" <"$work/binary" >"$work/count" || return
    same "$(cat "$work/count")" 5000 || return
    same "$(printf 'no number\tx\n' | ask -c "COPY $table FROM STDIN" 2>&1)" "ERROR:  22P02"
}

cancel() {
    local pid start=$SECONDS
    # As a terminal's Ctrl-C; a background job of bash would ignore it.
    set -m
    ask -c '\set ON_ERROR_STOP off' -c 'SELECT pg_sleep(30)' -c 'SELECT 1' >"$work/said" 2>&1 &
    pid=$!
    set +m
    sleep 1
    kill -INT -- "-$pid"
    wait "$pid"
    grep -q 57014 "$work/said" || die "$(cat "$work/said")" || return
    [ $((SECONDS - start)) -lt 10 ] || die "it was cancelled late"
}

notifications() {
    local other="\\! psql -wXqc"
    ask >"$work/heard" <<SQL || return
LISTEN $schema;
$other "NOTIFY $schema, 'idle'"; sleep 0.5
SELECT 1;
NOTIFY $schema, 'own';
$other "NOTIFY $schema, 'busy'"
UPDATE $table SET note = note WHERE id = 1;
SELECT count(*) > 0 FROM $table;
$other "NOTIFY $schema, 'end'"; sleep 0.5
SELECT 1;
UNLISTEN $schema;
$other "NOTIFY $schema, 'too late'"; sleep 0.5
SELECT 1;
SQL
    same "$(sed -n 's/.*with payload "\([a-z ]*\)".*/\1/p' "$work/heard" | xargs)" "idle own busy end"
}

errors() {
    local one
    while IFS='|' read -r state sql; do
        one=$(ask -v ON_ERROR_STOP=0 -c "$sql" -c "SELECT 'goes on'" 2>&1 | xargs)
        same "$one" "ERROR: $state goes on" || return
    done <<LIST
22012|SELECT 1/0
42703|SELECT nothing
42601|SELEKT
23505|INSERT INTO $table VALUES (1, 'again')
LIST
}

large_rows() {
    same "$(ask -c "SELECT repeat('x', $large)" | wc -c)" $((large + 1)) || return
    { echo -n "SELECT length('"; head -c "$large" /dev/zero | tr '\0' y; echo "');"; } >"$work/long.sql"
    same "$(ask -f "$work/long.sql")" "$large"
}

# What is dumped and restored is dumped the same. A dump is a session of its own, so it may be of a
# standby that has not replayed yet what others wrote: not here.
dump_and_restore() {
    local PGOPTIONS='-c pgsteer.role=primary' format
    export PGOPTIONS
    ask -c "CREATE TABLE $schema.more (note_id int REFERENCES $table (id), at timestamptz DEFAULT now(),
        data bytea, big bigserial)" -c "INSERT INTO $schema.more (note_id, data)
        SELECT id, decode(md5(id::text), 'hex') FROM $table" \
        -c "CREATE VIEW $schema.seen AS SELECT * FROM $table" \
        -c "CREATE FUNCTION $schema.plus(int) RETURNS int LANGUAGE sql AS 'SELECT \$1 + 1'" \
        -c "COMMENT ON TABLE $table IS 'with a comment'" || return
    pg_dump -n "$schema" >"$work/before.sql" || return
    for format in 'c -Z 1' 'd -j 2'; do
        # shellcheck disable=SC2086 # the format is words
        rm -rf "$work/dump" && pg_dump -n "$schema" -F $format -f "$work/dump" || return
        ask -c "SET client_min_messages = warning; DROP SCHEMA $schema CASCADE" || return
        pg_restore -j 2 -d "$PGDATABASE" --exit-on-error "$work/dump" || return
        pg_dump -n "$schema" >"$work/after.sql" || return
        # Newer ones write a random word into each dump.
        diff <(grep -v '^.restrict\|^.unrestrict' "$work/before.sql") \
            <(grep -v '^.restrict\|^.unrestrict' "$work/after.sql") || return
    done
    ask -c "SET client_min_messages = warning; DROP SCHEMA $schema CASCADE" || return
    ask -1 -f "$work/before.sql" >/dev/null || return
    same "$(ask -c "SELECT count(*) = 5002 FROM $schema.more")" t
}

# By a session that has not written: the standbys have replayed it by now.
a_dump_of_a_standby() {
    sleep 2
    diff <(grep -v '^.restrict\|^.unrestrict' "$work/before.sql") \
        <(pg_dump -n "$schema" | grep -v '^.restrict\|^.unrestrict')
}

# Its sessions share a snapshot: only on one server can they all have it.
a_dump_in_parallel() {
    rm -rf "$work/dump"
    pg_dump -n "$schema" -F d -j 2 -f "$work/dump" && pg_restore -l "$work/dump" >/dev/null
}

# Balances that do not add up were changed by half a transaction, or twice. Each client has a thread
# of its own: pgbench prepares a statement while its whole thread waits, so that clients of one
# thread wait for each other for ever if there are fewer backends than that.
pgbench_of_all_protocols() {
    local PGOPTIONS="-c search_path=$schema" protocol
    export PGOPTIONS
    pgbench -i -q -s 1 >"$work/said" 2>&1 || { cat "$work/said" >&2; return 1; }
    for protocol in simple extended prepared; do
        pgbench -n -M "$protocol" -c 8 -j 8 -t 25 >"$work/said" 2>&1 || { cat "$work/said" >&2; return 1; }
        pgbench -n -S -M "$protocol" -c 8 -j 8 -t 50 >>"$work/said" 2>&1 || { cat "$work/said" >&2; return 1; }
        same "$(grep -c 'processed: \(200/200\|400/400\)' "$work/said")" 2 || return
    done
    balances
}

balances() {
    same "$(ask -c '/* pgsteer: role=primary */ SELECT count(*) % 200, sum(delta) = (SELECT sum(abalance)
        FROM pgbench_accounts), sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches)
        FROM pgbench_history')" "0|t|t"
}

pgbench_pipelines() {
    local PGOPTIONS="-c search_path=$schema" protocol
    export PGOPTIONS
    cat >"$work/pipeline.sql" <<'SQL'
\set aid random(1, 100000)
\set delta random(-5000, 5000)
\startpipeline
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = 1;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, :delta, now());
END;
\endpipeline
\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SELECT count(*) FROM pgbench_branches;
\endpipeline
SQL
    for protocol in extended prepared; do
        pgbench -n -M "$protocol" -c 8 -j 8 -t 25 -f "$work/pipeline.sql" >"$work/said" 2>&1 ||
            { cat "$work/said" >&2; return 1; }
        grep -q 'processed: 200/200' "$work/said" || { cat "$work/said" >&2; return 1; }
    done
    balances
}

smaller_programs() {
    pg_isready -q || return
    vacuumdb -q -z -t "$table" || return
    vacuumdb -q -j 2 -t "$table" -t "$schema.more" || return
    reindexdb -q -t "$table" || return
    clusterdb -q -t "$table" 2>/dev/null
    same "$(psql -XAtlF ' ' | grep -c "^$PGDATABASE $PGUSER")" 1
}

tidying_up() { ask -c "SET client_min_messages = warning; DROP SCHEMA $schema CASCADE"; }

failed=0
for check in statements prepared_statements own_writes transactions copy cancel notifications errors \
    large_rows dump_and_restore a_dump_of_a_standby a_dump_in_parallel pgbench_of_all_protocols \
    pgbench_pipelines smaller_programs tidying_up; do
    if ("$check") >"$work/out" 2>"$work/why"; then
        echo "PASS $driver: ${check//_/ }"
    else
        failed=1
        echo "FAIL $driver: ${check//_/ }: $(tail -n 3 "$work/why" | tr '\n' ' ')"
    fi
done
exit "$failed"
