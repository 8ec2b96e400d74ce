#!/usr/bin/env bash
# Runs PostgreSQL's own test suites straight at a server and through pgsteer, and compares:
#
#   regress     src/test/regress, the SQL of the whole server
#   isolation   src/test/isolation, sessions that wait for each other
#   pipeline    libpq's pipeline mode, with the trace of its messages
#
# each in these modes:
#
#   fresh        session mode, and no backend serves a second session (pool.reset = "close")
#   session      session mode
#   transaction  transaction mode, with reads on the standby
#   alone        the same with one backend and test after test, so that nothing hangs on chance;
#                regress only
#   primary      transaction mode, with reads on the primary, so that locks and what others have
#                committed are seen as straight at the server; isolation only
#
#   scripts/test-suites.sh                                     all of it, some ten minutes
#   MODES="session alone" scripts/test-suites.sh regress       only these
#   ACCEPT=1 scripts/test-suites.sh isolation                  writes down what is seen
#
# What may differ is listed in tests/suites/MAJOR/SUITE-MODE, hunk by hunk, each with its reason;
# tests/suites/compare.py holds the rule, and checks of each run that passed that it would have
# noticed. Every run has a primary and a standby of its own, made from one template, so that each
# begins with the same. Results stay in target/suites/results.
set -uo pipefail
cd "$(dirname "$0")/.."
suites=("$@")
[ "$#" -gt 0 ] || suites=(pipeline isolation regress)
read -r -a modes <<<"${MODES:-fresh session transaction alone primary}"
# The names that the expected results have.
declare -A databases=([regress]=regression [isolation]=isolation_regression [pipeline]=pipeline)
# Longest that one suite may take in one mode, in seconds: several times what it does.
limit=1500
# Longest that a step of an isolation test may take, in seconds: the slowest takes ten.
step_max=60
# Longest wait for a server or pgsteer to answer, in tenths of a second.
answer_max=300

say() { printf 'suites: %s\n' "$*" >&2; }
die() { say "FAILED: $*"; exit 1; }

# Other PostgreSQLs than Debian's bring neither psql nor pg_regress along.
bin=$(find /usr/lib/postgresql/*/bin -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || die "no PostgreSQL of Debian's in /usr/lib/postgresql; the suites were NOT RUN"
major=$("$bin/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
lists=tests/suites/$major
[ -d "$lists" ] || [ -n "${ACCEPT:-}" ] ||
    die "there is no $lists; the suites of PostgreSQL $major were NOT RUN (ACCEPT=1 makes a list)"
place=$(scripts/fetch-suites.sh "$major") || exit 1
src=$place/src/src/test
programs=${bin%/bin}/lib/pgxs/src/test
results=$PWD/target/suites/results
cargo build --locked || exit 1

# PostgreSQL does not run as root, and the suites read and write files on its side.
account=()
work=$(mktemp -d "${TMPDIR:-/tmp}/pgsteer-suites-XXXXXX")
if [ "$(id -u)" -eq 0 ]; then
    for name in postgres nobody; do
        id "$name" >/dev/null 2>&1 || continue
        account=(setpriv "--reuid=$(id -u "$name")" "--regid=$(id -g "$name")" --clear-groups)
        chown "$(id -u "$name"):$(id -g "$name")" "$work"
        break
    done
fi
as() { "${account[@]}" env -i PATH="$bin:/usr/bin:/bin" LC_ALL=C HOME="$work" "$@"; }

proxy=
stop_all() {
    if [ -n "$proxy" ]; then
        kill -TERM "$proxy" 2>/dev/null
        wait "$proxy" 2>/dev/null
        proxy=
    fi
    local server
    for server in standby primary; do
        if [ -e "$work/$server/postmaster.pid" ]; then
            as "$bin/pg_ctl" -D "$work/$server" -m immediate -s stop >/dev/null 2>&1
        fi
        rm -rf "${work:?}/$server"
    done
}
clean_up() {
    stop_all
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

mapfile -t ports < <(python3 - <<'PYTHON'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
for one in held:
    print(one.getsockname()[1])
PYTHON
)
primary_port=${ports[0]} standby_port=${ports[1]} proxy_port=${ports[2]}

sql() { as "$bin/psql" -X -q -At -h 127.0.0.1 -p "$1" -U postgres -d "$2" -c "$3"; }
await() {
    local tries
    for ((tries = 0; tries < answer_max; tries++)); do
        [ "$(sql "$1" postgres "$2" 2>/dev/null)" = "$3" ] && return 0
        sleep 0.1
    done
    return 1
}
start_server() {
    as "$bin/pg_ctl" -D "$work/$1" -l "$work/$1.log" -s -w \
        -o "-p $2 -k '' -h 127.0.0.1" start || { tail -n 20 "$work/$1.log" >&2; die "$1 did not start"; }
}

make_template() {
    as "$bin/initdb" -D "$work/template" -U postgres -A trust -E UTF8 --locale=C.UTF-8 \
        --lc-messages=C --no-sync >"$work/initdb.log" || die "initdb: $(tail -n 5 "$work/initdb.log")"
    # Where the suites leave nothing to the settings; the rest is as installed.
    printf '%s\n' "fsync = off" "max_prepared_transactions = 2" "max_connections = 200" \
        "unix_socket_directories = ''" >>"$work/template/postgresql.conf"
}

# start MODE DATABASE: fresh servers, and pgsteer before them unless the mode is direct.
start() {
    stop_all
    as cp -a "$work/template" "$work/primary"
    start_server primary "$primary_port"
    as "$bin/pg_basebackup" -D "$work/standby" -h 127.0.0.1 -p "$primary_port" -U postgres -R \
        -c fast --no-sync || die "no standby"
    start_server standby "$standby_port"
    await "$primary_port" "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'" 1 ||
        die "the standby does not stream"
    # As pg_regress makes it, which is asked to use what exists.
    sql "$primary_port" postgres "CREATE DATABASE $2 TEMPLATE template0" || die "no database"
    local setting
    for setting in "lc_messages TO 'C'" "lc_monetary TO 'C'" "lc_numeric TO 'C'" "lc_time TO 'C'" \
        "bytea_output TO 'hex'" "timezone_abbreviations TO 'Default'"; do
        sql "$primary_port" postgres "ALTER DATABASE $2 SET $setting" || die "no database"
    done
    port=$primary_port
    [ "$1" = direct ] && return 0
    local how=()
    case $1 in
    fresh) how=(--set pool.mode=session --set pool.reset=close) ;;
    session) how=(--set pool.mode=session) ;;
    transaction) how=(--set pool.mode=transaction) ;;
    alone) how=(--set pool.mode=transaction --set pool.size=1 --set routing.reads=primary) ;;
    primary) how=(--set pool.mode=transaction --set routing.reads=primary) ;;
    *) die "there is no mode $1" ;;
    esac
    rm -rf "$work/state"
    mkdir "$work/state"
    target/debug/pgsteer -s "127.0.0.1:$primary_port" -s "127.0.0.1:$standby_port" \
        -l "127.0.0.1:$proxy_port" --http off --set servers.user=postgres \
        --set "failover.state_dir=$work/state" "${how[@]}" \
        >"$results/pgsteer.log" 2>&1 &
    proxy=$!
    port=$proxy_port
    await "$port" "SELECT 1" 1 || { tail -n 20 "$results/pgsteer.log" >&2; die "pgsteer does not answer"; }
}

# drive SUITE OUT TEST-OR-SCHEDULE...: by the programs that Debian ships.
drive() {
    local suite=$1 out=$2 program=regress/pg_regress input=$work/src/$1 variables=()
    shift 2
    if [ "$suite" = isolation ]; then
        program=isolation/pg_isolation_regress
        variables=("PGISOLATIONTIMEOUT=$step_max")
        # Why is in tests/suites/isolation.c.
        case $mode in transaction | primary) variables+=("LD_PRELOAD=$work/src/isolation.so") ;; esac
    fi
    (cd "$input" && as env "${variables[@]}" timeout "$limit" "$programs/$program" --use-existing \
        --dbname="${databases[$suite]}" --host=127.0.0.1 --port="$port" --user=postgres \
        --inputdir="$input" --outputdir="$out" --bindir="$bin" --dlpath="$work/src/regress" \
        --max-concurrent-tests=20 "$@" >>"$out/log" 2>&1)
    # 1: there were differences, which we judge by our own rule.
    [ $? -le 1 ] || { tail -n 5 "$out/log" >&2; return 1; }
}

run_regress() {
    local schedule=$work/src/regress/parallel_schedule at_once=()
    [ "$2" = alone ] && at_once=(--max-connections=1)
    drive regress "$1" test_setup || return 1
    # Whether its VACUUM found a row to be visible to all, which some plans hang on, is chance when
    # anybody looks at the database meanwhile, as pgsteer does at its catalog: so once more.
    grep '^VACUUM ANALYZE' "$work/src/regress/sql/test_setup.sql" |
        as "$bin/psql" -X -q -h 127.0.0.1 -p "$primary_port" -U postgres regression || return 1
    sed -i '/^test: test_setup$/d' "$schedule"
    drive regress "$1" --schedule="$schedule" "${at_once[@]}"
}

# libpq's program, test by test: what it says, and the trace of its messages.
run_pipeline() {
    local out=$1 program=$work/src/modules/libpq_pipeline/libpq_pipeline name trace
    as mkdir -p "$out/results"
    for name in $(as "$program" tests); do
        # Of the others the order of messages depends on time, and PostgreSQL keeps no trace.
        trace=()
        [ -e "${program%/*}/traces/$name.trace" ] && trace=(-t "$out/results/$name.trace")
        as timeout 120 "$program" -r 700 "${trace[@]}" "$name" \
            "host=127.0.0.1 port=$port user=postgres dbname=${databases[pipeline]}" \
            >"$out/results/$name.out" 2>&1
        echo "exit status $?" >>"$out/results/$name.out"
    done
}

run() {
    local suite=$1 mode=$2 out=$work/out began=$SECONDS status=0
    start "$mode" "${databases[$suite]}"
    rm -rf "$out"
    as mkdir -p "$out"
    case $suite in
    pipeline) run_pipeline "$out" || status=1 ;;
    isolation)
        drive isolation "$out" --schedule="$work/src/isolation/isolation_schedule" || status=1
        ;;
    regress) run_regress "$out" "$mode" || status=1 ;;
    esac
    rm -rf "${results:?}/$suite/$mode"
    mkdir -p "$results/$suite/$mode"
    cp -r "$out/." "$results/$suite/$mode/"
    cp "$work/primary.log" "$results/$suite/$mode/primary.log"
    if [ -n "$proxy" ]; then
        kill -0 "$proxy" 2>/dev/null || { say "pgsteer has ended"; status=1; }
        cp "$results/pgsteer.log" "$results/$suite/$mode/pgsteer.log"
    fi
    stop_all
    say "$suite, $mode: $((SECONDS - began)) s"
    return "$status"
}

mkdir -p "$results"
make_template
as mkdir "$work/src"
cp -r "$src/." "$work/src/"
cc -O1 -Wall -fPIC -shared -Wl,-z,lazy -o "$work/src/isolation.so" tests/suites/isolation.c || exit 1
chmod -R a+rX "$work/src"
act=judge
[ -z "${ACCEPT:-}" ] || act=accept
failed=0
summary=()
for suite in "${suites[@]}"; do
    run "$suite" direct || { say "$suite, direct: FAILED"; failed=1; continue; }
    for mode in "${modes[@]}"; do
        case $suite-$mode in
        isolation-alone | pipeline-alone | regress-primary | pipeline-primary) continue ;;
        esac
        if ! run "$suite" "$mode"; then
            summary+=("$suite, $mode: FAILED to run")
            failed=1
            continue
        fi
        told=$(python3 tests/suites/compare.py "$act" "$lists/$suite-$mode" \
            "$results/$suite/direct/results" "$results/$suite/$mode/results") || failed=1
        printf '%s\n' "$told"
        summary+=("$suite, $mode: $(tail -n 1 <<<"$told")")
    done
done
printf '%s\n' "${summary[@]}"
exit "$failed"
