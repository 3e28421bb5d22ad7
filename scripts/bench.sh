#!/usr/bin/env bash
# Measures what a delivery costs: a floor and Hubbub in turn, with and without Redis, from 10 to 4,000
# members in one room, at 10 to 1,000 messages a second and as fast as it goes; then as fast as it goes
# with one worker, with one for each core, and pinned to one core (if there is `taskset`), also in 100
# and 1,000 rooms of 10; and how fast users connect. Three rounds, medians. Prints the targets and the
# tables, and writes them and a chart to tests/bench/results.*. Takes about 20 minutes, and wants the
# machine for itself.
#
# A part of it, which is only printed:
#   scripts/bench.sh --quick                                  a glance, in less than three minutes
#   scripts/bench.sh --shapes 1000,100x10 --rates 10,100,0 --systems floor,redis --rounds 1 --seconds 3
# and with --into FOLDER written there. `100x10` is 100 rooms of 10. A rate of 0 is as fast as it goes.
# `redis` has a worker for each core, `redis-1` has one, and `redis-pinned` one core as well; likewise
# `embedded` and `floor`.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v redis-server >/dev/null; then
  echo 'bench: please install redis-server' >&2
  exit 1
fi
ulimit -n "$(ulimit -Hn)" || true

built=$(cargo bench --locked --bench fan_out --no-run --message-format json-render-diagnostics |
  grep -o '"executable":"[^"]*/fan_out-[^"]*"')
built=${built#*:\"}

runner=''
clean_up() {
  # It ends what it has started; that is why it is asked, and not killed.
  if [ -n "$runner" ]; then
    kill "$runner" 2>/dev/null || true
    wait "$runner" || true
  fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

timeout 2400 "${built%\"}" "$@" &
runner=$!
wait "$runner"
runner=''
