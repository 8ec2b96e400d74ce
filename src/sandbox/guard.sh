# Ends every process that works beneath the directory $1, and removes the directory.
#
# With $2 = wait, first waits until its input ends: the owner of the directory holds the other
# end of that pipe, so the kernel ends it when the owner dies, by whatever signal.
dir=$1
trap '' HUP INT QUIT TERM PIPE
cd /
if [ "$2" = wait ]; then
    while read -r _; do :; done
fi

# The processes that work beneath our directory, which nobody else has reason to do: those in a
# data directory, which are PostgreSQL's, or the others.
inside() {
    ls -l /proc/[0-9]*/cwd 2>/dev/null | while read -r line; do
        case $line in
        *" -> $dir/"*/data) whose=postgres ;;
        *" -> $dir" | *" -> $dir/"*) whose=other ;;
        *) continue ;;
        esac
        pid=${line##* /proc/}
        [ "$whose" = "$1" ] && echo "${pid%%/cwd *}"
    done
}

for pid in $(inside other); do kill -KILL "$pid"; done

# Postmasters by their immediate shutdown: they take their children and their shared memory with
# them. What was stopped must go on to see the signal.
pids=$(inside postgres)
for file in "$dir"/*/data/postmaster.pid; do
    [ -f "$file" ] || continue
    read -r postmaster <"$file"
    for pid in $pids; do
        [ "$pid" = "$postmaster" ] && kill -QUIT "$pid"
    done
done
for pid in $pids; do kill -CONT "$pid"; done

# What is left after two seconds is no postmaster, or does not answer.
round=0
while pids=$(inside postgres) && [ -n "$pids" ] && [ "$round" -lt 100 ]; do
    if [ "$round" -ge 40 ]; then
        for pid in $pids; do kill -KILL "$pid"; done
    fi
    round=$((round + 1))
    sleep 0.05
done

# A postmaster that was killed leaves a few bytes of System V shared memory, which line 7 of its
# pid file names: key, id. Both must agree, and nobody be attached: after a reboot numbers start
# again.
for file in "$dir"/*/data/postmaster.pid; do
    [ -f "$file" ] || continue
    sed -n 7p "$file" | while read -r key id; do
        key=$(printf '0x%08x' "$key")
        ipcs -m | while read -r a_key an_id _ _ _ attached _; do
            [ "$a_key $an_id $attached" = "$key $id 0" ] && ipcrm -m "$id"
        done
    done
done

rm -rf "$dir"
