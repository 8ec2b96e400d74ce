#!/usr/bin/env bash
# Installs what a make target needs and this machine lacks; says what it does before it does it.
#
#   scripts/setup.sh build     a C compiler, libclang (for PostgreSQL's grammar), Rust
#   scripts/setup.sh demo      ... and PostgreSQL
#   scripts/setup.sh release   ... and the toolchain's llvm-profdata
#   scripts/setup.sh test      ... and psql, openssl, strace, systemd-analyze, Prometheus, Python,
#                              Kubernetes' schemas
#   scripts/setup.sh bench     ... and PgBouncer, HAProxy, openssl, strace, valgrind
#   scripts/setup.sh all       ... and Node.js, bzip2, and drivers: JDBC, Perl's, Ruby's, PHP's
#
# On Debian and Ubuntu it installs, as root or with sudo; elsewhere it prints the line to run. It
# neither stops nor configures the PostgreSQL service that a package may start by itself.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}
export PATH="$HOME/.cargo/bin:$PATH"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
any() { compgen -G "$1" >/dev/null; }

# bindgen loads libclang while it builds, and reads clang's own headers (stddef.h).
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    { any '/usr/lib/llvm-*/lib/libclang*.so*' || any '/usr/lib/*-linux-gnu/libclang*.so*' ||
        any '/usr/lib64/libclang.so*' || any '/usr/lib/libclang.so*'; } &&
        { any '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' ||
            any '/usr/lib*/clang/*/include/stddef.h'; }
}

has_postgres() {
    [ -n "${PGSTEER_PG_BIN:-}" ] && return 0
    any '/usr/lib/postgresql/*/bin/initdb' || any '/usr/pgsql-*/bin/initdb' || has initdb
}

# As a service it would listen on our own port: it is left as the package leaves it.
has_pgbouncer() {
    [ -n "${PGSTEER_BENCH_PGBOUNCER:-}" ] || [ -x /usr/sbin/pgbouncer ] || has pgbouncer
}

has_venv() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Says what is missing: one word a thing, the same for every system.
missing() {
    { has cc && printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1; } || echo cc
    has_libclang || echo libclang
    if [ "$what" != build ]; then has_postgres || echo postgresql; fi
    case $what in
    test | all)
        has psql || echo psql
        has openssl || echo openssl
        has strace || echo strace
        has systemd-analyze || echo systemd
        has_venv || echo python
        ;;
    bench)
        has_pgbouncer || echo pgbouncer
        for word in haproxy openssl strace valgrind; do has "$word" || echo "$word"; done
        ;;
    esac
    if [ "$what" = all ]; then
        has npm || echo node
        has bzip2 || echo bzip2
        { has java && [ -e "${PGSTEER_JDBC:-/usr/share/java/postgresql.jar}" ]; } || echo jdbc
        { has perl && perl -MDBD::Pg -e1 2>/dev/null; } || echo perl
        { has ruby && ruby -e 'require "pg"' 2>/dev/null; } || echo ruby
        { has php && php -m | grep -qx pdo_pgsql; } || echo php
    fi
}

# The packages of one system for the words of `missing`.
packages() {
    local system=$1 word
    shift
    for word in "$@"; do
        case $system-$word in
        apt-cc) echo gcc libc6-dev ;;
        apt-libclang) echo libclang-dev ;;
        apt-postgresql) echo postgresql ;;
        apt-psql) echo postgresql-client ;;
        apt-openssl) echo openssl ;;
        apt-pgbouncer | dnf-pgbouncer | pacman-pgbouncer) echo pgbouncer ;;
        *-strace | *-systemd | *-valgrind | *-haproxy) echo "$word" ;;
        apt-python) echo python3 python3-venv ;;
        apt-node) echo nodejs npm ;;
        apt-bzip2 | dnf-bzip2 | pacman-bzip2) echo bzip2 ;;
        apt-jdbc) echo default-jdk-headless libpostgresql-jdbc-java ;;
        apt-perl) echo libdbd-pg-perl ;;
        apt-ruby) echo ruby ruby-pg ;;
        apt-php) echo php-cli php-pgsql ;;
        dnf-jdbc) echo java-latest-openjdk-devel postgresql-jdbc ;;
        dnf-perl) echo perl-DBD-Pg ;;
        dnf-ruby) echo ruby rubygem-pg ;;
        dnf-php) echo php-cli php-pgsql ;;
        dnf-cc) echo gcc ;;
        dnf-libclang) echo clang-devel ;;
        dnf-postgresql) echo postgresql-server ;;
        dnf-psql) echo postgresql ;;
        dnf-openssl) echo openssl ;;
        dnf-python) echo python3 ;;
        dnf-node) echo nodejs-npm ;;
        pacman-cc) echo gcc ;;
        pacman-libclang) echo clang ;;
        pacman-postgresql | pacman-psql) echo postgresql ;;
        pacman-openssl) echo openssl ;;
        pacman-python) echo python ;;
        pacman-node) echo nodejs npm ;;
        pacman-jdbc) echo jdk-openjdk ;;
        pacman-perl) echo perl-dbd-pg ;;
        pacman-ruby) echo ruby ruby-pg ;;
        pacman-php) echo php php-pgsql ;;
        esac
    done | tr ' ' '\n' | sort -u | tr '\n' ' '
}

install_missing() {
    local words=("$@") list as_root=()
    if ! has apt-get; then
        say "missing here: ${words[*]}. Install it, then run make again:"
        if has dnf; then
            die "  sudo dnf install $(packages dnf "${words[@]}")"
        elif has pacman; then
            die "  sudo pacman -S --needed $(packages pacman "${words[@]}")"
        fi
        die "  Fedora: sudo dnf install $(packages dnf "${words[@]}")
  Arch:   sudo pacman -S --needed $(packages pacman "${words[@]}")"
    fi
    list=$(packages apt "${words[@]}")
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
        if ! has sudo || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            die "missing: ${words[*]}. As root, run: apt-get install -y --no-install-recommends $list"
        fi
        if [ -t 0 ]; then
            read -r -p "setup: missing: ${words[*]}. Install with sudo apt-get: $list? [Y/n] " answer
            case $answer in [nN]*) die "nothing was installed" ;; esac
        fi
    fi
    say "installing with apt-get: $list"
    mkdir -p target
    # shellcheck disable=SC2086 # the packages are words
    if ! { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $list; } >target/setup.log 2>&1; then
        tail -n 20 target/setup.log >&2
        die "the installation failed; all that apt-get said is in target/setup.log"
    fi
}

# Rust as Cargo.toml asks for it; Debian's own is too old.
check_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
    if ! has cargo; then
        die "Rust $wanted or later is missing. Install it, then run make again:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    fi
    if ! found=$(cargo --version | cut -d' ' -f2); then
        die "cargo does not run. With rustup: rustup default stable"
    fi
    if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        die "Rust $found is too old; $wanted or later is needed. Run: rustup update stable
  (without rustup: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y)"
    fi
    case $what in
    test | all)
        if has rustup && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
            say "adding rustfmt and clippy to the Rust toolchain"
            rustup component add rustfmt clippy >&2
        fi
        ;;
    release)
        # Of the compiler's own version, so it is the toolchain's.
        if [ -z "$(find "$(rustc --print sysroot)/lib/rustlib" -name llvm-profdata)" ]; then
            has rustup || die "llvm-profdata of $(rustc --version) is missing, and so is rustup"
            say "adding llvm-tools to the Rust toolchain"
            rustup component add llvm-tools >&2
        fi
        ;;
    esac
}

# Prometheus scrapes us, and promtool checks our metrics and alerts. Debian's package would start a
# service; so it is only unpacked, into target/tools.
fetch_prometheus() {
    if has prometheus && has promtool; then return 0; fi
    if [ -x target/tools/prometheus ] && [ -x target/tools/promtool ]; then return 0; fi
    has apt-get || die "missing: prometheus and promtool. Put them on the PATH."
    say "unpacking Debian's package of Prometheus into target/tools"
    local dir
    dir=$(mktemp -d)
    # apt-get downloads into the working directory, as another user when we are root.
    chmod 777 "$dir"
    (cd "$dir" && { apt-get download -qq prometheus || { as_root apt-get update -qq && apt-get download -qq prometheus; }; } &&
        dpkg -x prometheus_*.deb unpacked) >&2
    mkdir -p target/tools
    cp "$dir/unpacked/usr/bin/prometheus" "$dir/unpacked/usr/bin/promtool" target/tools/
    rm -rf "$dir"
}

# Kubernetes' own schemas, and a program that holds manifests against them.
fetch_kubernetes() {
    local kubernetes=target/tools/kubernetes
    if cmp -s scripts/kubernetes.txt "$kubernetes/installed.txt" &&
        "$kubernetes/bin/kubernetes-validate" --version >/dev/null 2>&1; then return 0; fi
    say "fetching Kubernetes' schemas from PyPI (kubernetes-validate, 22 MB) into $kubernetes"
    rm -rf "$kubernetes"
    mkdir -p target/tools
    python3 -m venv "$kubernetes" &&
        "$kubernetes/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-virtualenv --no-deps -r scripts/kubernetes.txt >&2 ||
        die "the schemas of Kubernetes could not be fetched"
    cp scripts/kubernetes.txt "$kubernetes/installed.txt"
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

mapfile -t words < <(missing)
if [ "${#words[@]}" -gt 0 ]; then
    install_missing "${words[@]}"
    mapfile -t words < <(missing)
    [ "${#words[@]}" -eq 0 ] || die "still missing after the installation: ${words[*]}"
fi
check_rust
case $what in
test | all)
    fetch_prometheus
    fetch_kubernetes
    ;;
esac
