#!/usr/bin/env bash
# Fuzzes each target for so many seconds, or those that are named: scripts/fuzz.sh 60 framer sql.
# Finds are kept in fuzz/artifacts; what led further, in fuzz/corpus. A find becomes a test.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=(framer startup sql scram config backend)
rustup toolchain list 2>/dev/null | grep -q '^nightly' ||
    { echo "fuzzing needs Rust's nightly toolchain: rustup toolchain install nightly"; exit 1; }
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked || exit 1
# The sources of libFuzzer bring their own sanitizer; that of addresses costs twice the time and
# room, and guards the one dependency that is written in C: SANITIZER=address.
sanitizer=${SANITIZER:-none}
cd fuzz
cargo +nightly run --quiet --release --bin seeds corpus || exit 1
failed=0
results=()
for target in "${targets[@]}"; do
    # A case may take 5 s, and 1 GiB.
    if cargo +nightly fuzz run --sanitizer "$sanitizer" "$target" -- \
        -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1
    then
        results+=("$target: ok")
    else
        results+=("$target: FAILED")
        failed=1
    fi
done
printf '%s\n' "${results[@]}"
exit "$failed"
