#!/usr/bin/env bash
# Measures what a delivery costs: a floor and Hubbub in turn, with and without Redis, from 10 to 4,000
# members, at 10 to 1,000 messages a second and as fast as it goes; three rounds, medians. Prints the
# targets and the tables, and writes them and a chart to tests/bench/results.*. Takes about 20
# minutes, and wants the machine for itself.
#
# A part of it, which is only printed:
#   scripts/bench.sh --quick                                  a glance, in about two minutes
#   scripts/bench.sh --members 1000 --rates 10,100,0 --systems floor,redis --rounds 1 --seconds 3
# and with --into FOLDER written there. A rate of 0 is as fast as it goes.
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
