#!/usr/bin/env bash
# Fetches PostgreSQL's own test suites for the server on this machine, builds what they load, and
# prints the directory: the source tree, with regress.so, autoinc.so, refint.so and libpq_pipeline.
#
# The source is Debian's source package of exactly the installed version, else of the newest of
# the same major version that can be had; what was taken is said. Headers come from the -dev
# packages, which are only unpacked: nothing is installed. Where there is no apt-get,
# PGSTEER_PG_SOURCE names postgresql-MAJOR.MINOR.tar.bz2, and the headers must be there.
set -euo pipefail
cd "$(dirname "$0")/.."
major=${1:?usage: $0 MAJOR}
bin=/usr/lib/postgresql/$major/bin
here=$PWD/target/suites
say() { printf 'suites: %s\n' "$*" >&2; }
die() { say "FAILED: $*"; exit 1; }

[ -x "$bin/postgres" ] || die "no PostgreSQL $major in $bin; the suites need Debian's packages"
mkdir -p "$here"
installed=$(dpkg-query -W -f '${Version}' "postgresql-$major" 2>/dev/null || "$bin/postgres" --version)
place=$here/${installed//[^0-9A-Za-z.+-]/_}
if [ -e "$place/built" ]; then
    echo "$place"
    exit 0
fi
rm -rf "$place"
mkdir -p "$place/apt"

# A private apt with source packages: the machine's own list stays as it is.
private_apt() {
    local parts=$place/apt/parts list
    mkdir -p "$parts" "$place/apt/state/lists/partial" "$place/apt/cache/archives/partial"
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu,pgdg}*; do
        [ -e "$list" ] || continue
        sed -e 's/^Types:.*/Types: deb deb-src/' -e 's/^deb \(.*\)/deb \1\ndeb-src \1/' \
            "$list" >"$parts/${list##*/}"
    done
    apt=(-qq -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$parts"
        -o "Dir::State::lists=$place/apt/state/lists" -o "Dir::Cache=$place/apt/cache"
        -o "APT::Sandbox::User=root")
    apt-get "${apt[@]}" update >&2
}

fetch_source() {
    if [ -n "${PGSTEER_PG_SOURCE:-}" ]; then
        say "taking $PGSTEER_PG_SOURCE"
        cp "$PGSTEER_PG_SOURCE" "$place/apt/"
        return
    fi
    # Announced versions may not be there any more: the exact one first, then the newest.
    local version
    for version in "$installed" $(apt-cache "${apt[@]}" showsrc "postgresql-$major" |
        sed -n 's/^Version: //p' | sort -rV | uniq); do
        if (cd "$place/apt" && apt-get "${apt[@]}" source --download-only \
            "postgresql-$major=$version" >&2); then
            say "PostgreSQL $installed is installed; the suites are of $version"
            return
        fi
    done
    die "no source package of PostgreSQL $major can be had; name a tarball: PGSTEER_PG_SOURCE"
}

# The headers of the installed server, else those of the machine's own directories.
fetch_headers() {
    local package
    mkdir -p "$place/dev"
    for package in "postgresql-server-dev-$major" libpq-dev; do
        if (cd "$place/apt" && { apt-get "${apt[@]}" download "$package=$installed" ||
            apt-get "${apt[@]}" download "$package"; } >&2); then
            dpkg -x "$place/apt/$package"_*.deb "$place/dev"
        else
            say "$package can't be fetched; using what is installed"
        fi
    done
}

build() {
    local src=$place/src module dev=$place/dev
    local server="-I$dev/usr/include/postgresql/$major/server -I/usr/include/postgresql/$major/server"
    # shellcheck disable=SC2086 # the includes are words
    for module in src/test/regress/regress contrib/spi/autoinc contrib/spi/refint; do
        cc -O1 -fPIC -shared -w -DREFINT_VERBOSE $server -o "$src/src/test/regress/${module##*/}.so" \
            "$src/$module.c"
    done
    local pipeline=$src/src/test/modules/libpq_pipeline
    # shellcheck disable=SC2086 # the includes are words
    cc -O1 -w -DFRONTEND -I"$dev/usr/include/postgresql" -I/usr/include/postgresql $server \
        -o "$pipeline/libpq_pipeline" "$pipeline/libpq_pipeline.c" \
        -L"$dev/usr/lib/postgresql/$major/lib" -L"/usr/lib/postgresql/$major/lib" \
        -lpgcommon -lpgport -l:libpq.so.5
}

if command -v apt-get >/dev/null; then private_apt; fi
fetch_source
if command -v apt-get >/dev/null; then fetch_headers; fi
mkdir -p "$place/src"
tar -xjf "$(find "$place/apt" -maxdepth 1 -name '*.tar.bz2')" -C "$place/src" --strip-components=1 \
    --wildcards '*/src/test/regress' '*/src/test/isolation' '*/contrib/spi' \
    '*/src/test/modules/libpq_pipeline'
build
rm -rf "$place/apt" "$place/dev"
touch "$place/built"
echo "$place"
