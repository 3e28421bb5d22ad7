#!/usr/bin/env bash
# The soak: two instances, Redis and a crowd of clients under a schedule of faults, and then a look at
# what everyone saw. Prints the figures and `soak: passed`, or what is wrong. Before that a fault is
# planted for each thing that is looked at, and must be found.
#
#   scripts/soak.sh [seconds] [seed] [mode] [faults]
#                        60 seconds, a random seed, mode `one` and all faults of the mode unless given
#
#   scripts/soak.sh 60 7 three                         three Redis that each have some of the rooms
#   scripts/soak.sh 60 7 sentinel                      a master, a replica and three sentinels
#   scripts/soak.sh 60 7 cluster                       three masters with a replica each
#   scripts/soak.sh 30 7 one RedisFull,ClientsCut      these alone; a wrong name is answered with all names
#
# REDIS_SERVER names another server program, such as valkey-server.
#
# The same seed gives the same schedule. A minute has every fault once. Ends by itself within the
# seconds and 120 more.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
seed=${2:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
mode=${3:-one}
faults=${4:-}

server=${REDIS_SERVER:-redis-server}
command -v "$server" >/dev/null || {
  echo "soak: $server is missing; install it with: apt-get install redis-server" >&2
  exit 1
}
cargo bench --locked --quiet --features tls --bench soak --no-run

# `timeout` has a process group of its own, and what it is told it tells the whole group; so nothing
# is left behind when the soak is stuck or this script is interrupted.
timeout --kill-after 2 "$((seconds + 118))" \
  cargo bench --locked --quiet --features tls --bench soak -- "$seconds" "$seed" "$mode" ${faults:+"$faults"} &
soak=$!
trap 'kill "$soak" 2>/dev/null || true' EXIT
status=0
wait "$soak" || status=$?
trap - EXIT
exit "$status"
