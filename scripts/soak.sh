#!/usr/bin/env bash
# The soak: two instances, one Redis and a crowd of clients under a schedule of faults, and then a
# look at what everyone saw. Prints the figures and `soak: passed`, or what is wrong.
#
#   scripts/soak.sh [seconds] [seed]      60 seconds and a random seed unless given
#
# The same seed gives the same schedule. Ends by itself within the seconds and 90 more.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
seed=${2:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}

command -v redis-server >/dev/null || {
  echo 'soak: redis-server is missing; install it with: apt-get install redis-server' >&2
  exit 1
}
cargo bench --locked --quiet --bench soak --no-run

# `timeout` has a process group of its own, and what it is told it tells the whole group; so nothing
# is left behind when the soak is stuck or this script is interrupted.
timeout --kill-after 2 "$((seconds + 88))" \
  cargo bench --locked --quiet --bench soak -- "$seconds" "$seed" &
soak=$!
trap 'kill "$soak" 2>/dev/null || true' EXIT
status=0
wait "$soak" || status=$?
trap - EXIT
exit "$status"
