#!/usr/bin/env bash
# What `make test` and CI run: format, lints, the code's documentation, every test. All are run even
# if one fails, and the end says how each went.
set -uo pipefail
cd "$(dirname "$0")/.."
# Longest that all of it may take, in seconds, a first build included. On two cores that are free it is a
# third of this.
limit=2280
log=target/test.log
mkdir -p target

results=()
failed=0
step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name: $*"
    # In the foreground, so that a Ctrl-C reaches it.
    timeout --foreground "$((limit > SECONDS ? limit - SECONDS : 1))" "$@"
    local status=$?
    local word=ok
    if [ "$status" -ne 0 ]; then
        word=FAILED
        failed=1
        [ "$status" -eq 124 ] && word="FAILED (stopped: all of it may take $((limit / 60)) min)"
    fi
    results+=("$(printf '%-8s %s, %d s' "$name" "$word" $((SECONDS - start)))")
}

everything() { cargo test --locked --no-fail-fast 2>&1 | tee "$log"; }
export -f everything
export log

step format cargo fmt --all --check
step lints cargo clippy --locked --all-targets --all-features -- -D warnings
step docs env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
step tests bash -o pipefail -c everything

echo
grep -E '^test result:' "$log"
# A test that is passed over in silence is no test.
if grep -E '^test .* \.\.\. ignored' "$log"; then
    results+=("ignored  FAILED: no test may be ignored")
    failed=1
fi
printf '%s\n' "${results[@]}"
exit "$failed"
