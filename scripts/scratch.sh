#!/usr/bin/env bash
# Prints where tests put their servers: TMPDIR if that is set, else memory where there is enough of it,
# else /tmp. They make and remove files by the million. Some file systems do not use an inode again for
# minutes, and look through all of those for each new file: there each test slows the next ones down.
set -euo pipefail
place=/dev/shm
# In KiB: what the tests of two cores need at once, and what must be left to everything else.
needed=$((6 * 1024 * 1024))
spare=$((6 * 1024 * 1024))

free_there() { df --output=avail -k "$place" | tail -n 1; }
free_memory() { awk '/^MemAvailable:/ { print $2 }' /proc/meminfo; }
is_memory() { [ "$(stat -f -c %T "$place" 2>/dev/null)" = tmpfs ] && [ -w "$place" ]; }

if [ -n "${TMPDIR:-}" ]; then
    echo "$TMPDIR"
elif is_memory && [ "$(free_there)" -ge "$needed" ] && [ "$(free_memory)" -ge $((needed + spare)) ]; then
    echo "$place"
else
    echo /tmp
fi
