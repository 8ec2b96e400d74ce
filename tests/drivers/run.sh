#!/usr/bin/env bash
# Runs drivers, tools and mappers, each as its users have it, against what libpq's variables name
# (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE, PGSSLROOTCERT): pgsteer, or a server.
#
#   tests/drivers/run.sh psycopg3 jdbc    these
#   tests/drivers/run.sh                  all of them
#
# Each is one program in this directory. It prints `PASS driver: check` or `FAIL driver: check:
# why` for each check; those that all have are the columns of the table at the end. What comes
# from PyPI and npm is fetched into target/, in the versions that requirements.txt and
# package-lock.json name; the rest are Debian's packages (scripts/setup.sh all). PGSTEER_JDBC names
# another JDBC driver than that of Debian.
set -uo pipefail
cd "$(dirname "$0")/../.."
here=tests/drivers
# Longest that one of them may take, in seconds; some ten times what it does.
limit=180
# What every driver is tried with.
common=(statements "prepared statements" "own writes" transactions copy cancel notifications errors
    "large rows")

declare -A programs=(
    [psycopg3]="target/venv/bin/python $here/psycopg3.py"
    [asyncpg]="target/venv/bin/python $here/asyncpg_.py"
    [node_pg]="node $here/node_pg.js"
    [postgres_js]="node $here/postgres_js.js"
    [libpq]="bash $here/libpq.sh"
    [jdbc]="java -cp ${PGSTEER_JDBC:-/usr/share/java/postgresql.jar} $here/Jdbc.java"
    [dbd_pg]="perl $here/dbd_pg.pl"
    [ruby_pg]="ruby $here/ruby_pg.rb"
    [pdo_pgsql]="php -d memory_limit=256M $here/pdo_pgsql.php"
    [django]="target/venv/bin/python $here/django_.py"
    [sqlalchemy]="target/venv/bin/python $here/sqlalchemy_.py"
    [sequelize]="node $here/sequelize_app.js"
)
order=(libpq psycopg3 asyncpg node_pg postgres_js jdbc dbd_pg ruby_pg pdo_pgsql django sqlalchemy
    sequelize)
[ "$#" -gt 0 ] && order=("$@")

# One at a time: several tests begin at once on a machine that has nothing yet.
fetch() {
    mkdir -p target
    {
        flock 9
        fetch_what_is_missing
    } 9>target/drivers.lock
}

fetch_what_is_missing() {
    local stamp
    stamp=$(cat "$here/requirements.txt" "$here/package.json" "$here/package-lock.json" | cksum)
    [ "$(cat target/drivers.stamp 2>/dev/null)" = "$stamp" ] && return 0
    echo "fetching the drivers from PyPI and npm into target/" >&2
    mkdir -p target/node &&
        python3 -m venv target/venv &&
        target/venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" &&
        cp "$here/package.json" "$here/package-lock.json" target/node/ &&
        (cd target/node && npm ci --silent --no-audit --no-fund) &&
        echo "$stamp" >target/drivers.stamp
}

fetch || { echo "FAILED: the drivers could not be fetched" >&2; exit 1; }
export NODE_PATH=$PWD/target/node/node_modules PYTHONDONTWRITEBYTECODE=1

# What a session wrote it must see, wherever it reads: in a table that is there before, for what is
# new or not known is read from the primary alone. A moment later it is known, and replayed.
sql() { psql -wXq -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' -c "$1"; }
sql 'CREATE TABLE IF NOT EXISTS drv_own_writes (run text, number int)' || exit 1
sleep 3
said=$(mktemp)
trap 'rm -f "$said"; sql "DROP TABLE drv_own_writes"' EXIT
failed=0
for name in "${order[@]}"; do
    program=${programs[$name]:-}
    [ -n "$program" ] || { echo "FAILED: there is no driver $name" >&2; exit 1; }
    echo "== $name" | tee -a "$said"
    # shellcheck disable=SC2086 # the program is words
    timeout "$limit" $program | tee -a "$said" || failed=1
done

# The table, by what was said: a check that is missing was not run.
awk -v "common=$(IFS=,; echo "${common[*]}")" '
    BEGIN { columns = split(common, titles, ",") }
    /^== / { drivers[++count] = $2 }
    /^(PASS|FAIL) / {
        check = substr($0, index($0, ": ") + 2)
        if ($1 == "FAIL") { sub(/: .*/, "", check); bad[count]++ }
        else good[count]++
        result[count, check] = $1 == "PASS" ? "ok" : "FAILED"
    }
    END {
        printf "\n%-14s", "driver"
        for (c = 1; c <= columns; c++) printf " %-*s", width(c), titles[c]
        print " all"
        for (d = 1; d <= count; d++) {
            printf "%-14s", drivers[d]
            for (c = 1; c <= columns; c++) {
                one = result[d, titles[c]]
                printf " %-*s", width(c), one ? one : "-"
            }
            printf " %d passed, %d failed\n", good[d], bad[d]
        }
    }
    function width(c) { return length(titles[c]) > 6 ? length(titles[c]) : 6 }
' "$said"
[ "$failed" -eq 0 ] && echo "all drivers: ok" || echo "drivers: FAILED"
exit "$failed"
