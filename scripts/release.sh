#!/usr/bin/env bash
# Builds target/tuned/pgsteer: a release build whose compiler knows which code is hot, because it was
# shown statements first (docs/decisions/0027). It takes two builds and half a minute of statements
# through a demo, so it needs PostgreSQL and pgbench (`scripts/setup.sh release` installs them).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
dir=$PWD/target/tuned
given=${RUSTFLAGS:-}

die() { printf 'release: %s\n' "$*" >&2; exit 1; }

programs() {
    if [ -n "${PGSTEER_PG_BIN:-}" ]; then echo "$PGSTEER_PG_BIN"; return; fi
    local newest
    newest=$(compgen -G '/usr/lib/postgresql/*/bin/pgbench' | sort -V | tail -n 1) ||
        newest=$(command -v pgbench) || die "pgbench is not found; name its directory in PGSTEER_PG_BIN"
    dirname "$newest"
}

merge=$(find "$(rustc --print sysroot)/lib/rustlib" -name llvm-profdata -type f | head -n 1)
[ -n "$merge" ] || die "llvm-profdata is missing: scripts/setup.sh release"
bin=$(programs)
rm -rf "$dir/raw" "$dir/demo.log"
mkdir -p "$dir/raw"

build() {
    local flags=$1
    shift
    RUSTFLAGS="$given $flags" CARGO_TARGET_DIR=$dir/build "$@" \
        cargo build --locked --release --bin pgsteer
}

# What PostgreSQL's grammar never calls is left out at link time, which counters would prevent.
build "-Cprofile-generate=$dir/raw -Clink-arg=-Wl,--gc-sections -Clink-arg=-Wl,-z,nostart-stop-gc" \
    env CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
cp "$dir/build/release/pgsteer" "$dir/counting"

demo=
trap '[ -z "$demo" ] || { kill "$demo" 2>/dev/null || true; wait "$demo" || true; }' EXIT
PGSTEER_PG_BIN=$bin "$dir/counting" demo --listen 127.0.0.1:0 --http 127.0.0.1:0 \
    >"$dir/demo.log" 2>&1 &
demo=$!
for _ in $(seq 600); do
    port=$(sed -n 's/^  connect .* -p \([0-9]*\) .*/\1/p' "$dir/demo.log")
    [ -z "$port" ] || break
    kill -0 "$demo" || { cat "$dir/demo.log" >&2; die "the demo ended"; }
    sleep 0.2
done
[ -n "$port" ] || die "the demo does not say where it listens: $dir/demo.log"

ask() { "$bin/pgbench" -h 127.0.0.1 -p "$port" -U postgres "$@" postgres >>"$dir/asked.log" 2>&1; }
all() { "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qAtc "$1" postgres >/dev/null; }
: >"$dir/asked.log"
ask -i -s 5 -q || { tail -n 5 "$dir/asked.log" >&2; die "pgbench failed: $dir/asked.log"; }
for protocol in simple extended prepared; do
    for clients in 1 16 64; do ask -n -S -M "$protocol" -c "$clients" -T 2; done
    ask -n -M "$protocol" -c 8 -T 1
done
ask -n -S -C -c 4 -T 1
all 'SELECT * FROM pgbench_accounts LIMIT 100000'
all 'COPY (SELECT * FROM pgbench_accounts LIMIT 100000) TO STDOUT'

# It writes its counts when it ends.
kill -INT "$demo"
wait "$demo" || true
demo=
compgen -G "$dir/raw/*.profraw" >/dev/null || die "the demo left no counts in $dir/raw"
# Cargo builds again what is told another file, not what is told another content.
"$merge" merge -o "$dir/counts" "$dir"/raw/*.profraw
profile=$dir/$(sha256sum "$dir/counts" | cut -c1-16).profdata
rm -f "$dir"/*.profdata
mv "$dir/counts" "$profile"

build "-Cprofile-use=$profile" env
cp "$dir/build/release/pgsteer" "$dir/pgsteer"
rm -rf "$dir/raw" "$dir/counting"
printf 'release: %s\n' "$dir/pgsteer"
