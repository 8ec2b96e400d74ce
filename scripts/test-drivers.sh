#!/usr/bin/env bash
# Runs real drivers of other languages through pgsteer: psycopg 3, asyncpg, node-postgres.
#
#   scripts/test-drivers.sh          starts a demo of its own
#   scripts/test-drivers.sh URI      uses what is there; works without pgsteer in front as well
#
# The drivers come from PyPI and npm, in the versions that tests/drivers/ names, into target/.
set -uo pipefail
cd "$(dirname "$0")/.."
uri=${1:-}
here=tests/drivers

set_up() {
    local stamp
    stamp=$(cat "$here/requirements.txt" "$here/package.json" | cksum)
    [ "$(cat target/drivers.stamp 2>/dev/null)" = "$stamp" ] && return 0
    echo "fetching the drivers from PyPI and npm into target/" >&2
    mkdir -p target/node &&
        python3 -m venv target/venv &&
        target/venv/bin/pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" &&
        cp "$here/package.json" target/node/ &&
        (cd target/node && npm install --silent --no-audit --no-fund --no-package-lock) &&
        echo "$stamp" >target/drivers.stamp
}

set_up || { echo "FAILED: the drivers could not be fetched" >&2; exit 1; }

if [ -z "$uri" ]; then
    cargo build --locked || exit 1
    # Ports that nothing else listens on are found by the demo itself.
    coproc DEMO { exec target/debug/pgsteer demo -o json; }
    # shellcheck disable=SC2153 # set by coproc
    demo=$DEMO_PID
    trap 'kill -TERM "$demo" 2>/dev/null; wait "$demo" 2>/dev/null' EXIT
    read -r -t 60 line <&"${DEMO[0]}" || { echo "FAILED: the demo did not start" >&2; exit 1; }
    uri=$(printf '%s' "$line" | target/venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["uri"])')
fi

failed=0
run() { echo "== $1" && shift && timeout 300 "$@" || failed=1; }
run "psycopg 3" target/venv/bin/python "$here/psycopg3.py" "$uri"
run asyncpg target/venv/bin/python "$here/asyncpg_.py" "$uri"
run node-postgres env NODE_PATH="$PWD/target/node/node_modules" node "$here/node_pg.js" "$uri"
[ "$failed" -eq 0 ] && echo "all drivers: ok" || echo "drivers: FAILED"
exit "$failed"
