#!/usr/bin/env bash
# Runs the simulation and the tests on real servers over and over, each time with other seeds, and
# stops at the first failure; the seeds stand in its output.
set -uo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-60}
rounds=0
while [ "$SECONDS" -lt $((minutes * 60)) ]; do
    rounds=$((rounds + 1))
    echo "== round $rounds, after $((SECONDS / 60)) of $minutes min"
    # Behind those of `make test`, and others in each round.
    FROM=$((3000 + (rounds - 1) * 50000)) SEEDS=50000 \
        cargo test --locked --test it -- simulation || { echo "round $rounds FAILED"; exit 1; }
    HOSTILE=20000 PGSTEER_LEAKS=60 cargo test --locked --test e2e || { echo "round $rounds FAILED"; exit 1; }
    left=$(find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'pgsteer-sandbox-*' -user "$(id -u)" -mmin +60)
    [ -z "$left" ] || { echo "FAILED: a sandbox stayed behind: $left"; exit 1; }
done
echo "$rounds rounds in $minutes min: ok"
