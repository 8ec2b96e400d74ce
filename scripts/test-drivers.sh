#!/usr/bin/env bash
# Runs every driver, tool and mapper of tests/drivers, and those of Rust, through pgsteer: over TLS
# and SCRAM, in transaction mode, with standbys that lag. The end shows a table of them.
#
# `tests/drivers/run.sh` runs them against a pgsteer or a server that is there already.
set -uo pipefail
cd "$(dirname "$0")/.."
PGSTEER_DRIVERS=all exec cargo test --locked --test e2e -- --nocapture --test-threads 1 drivers
