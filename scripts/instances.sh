#!/usr/bin/env bash
# To be sourced by the tests in shell: a `folder` and `processes` that are gone at the end, lines to wait
# for, and instances that share a Redis. HUBBUB names the binary (default target/debug/hubbub), and `server` one for
# instances alone.
set -euo pipefail
hubbub=$(realpath "${HUBBUB:-target/debug/hubbub}")
test=$(basename "$0" .sh)

folder=$(mktemp -d)
processes=()
clean_up() {
  kill "${processes[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT

fail() {
  echo "$test: FAILED: $1" >&2
  tail -n 20 "$folder"/*.out "$folder"/*.err 2>/dev/null >&2 || true
  exit 1
}

# Waits until a file has a line that matches, or so many.
wait_for() {
  local file=$1 pattern=$2 count=${3:-1} found
  for _ in $(seq 1200); do
    found=$(grep -c -- "$pattern" "$file" 2>/dev/null) || true
    [ "${found:-0}" -ge "$count" ] && return
    sleep 0.05
  done
  fail "waited in vain for $count times '$pattern' in $(basename "$file")"
}

start_redis() {
  redis-server --port 0 --unixsocket "$folder/redis.sock" --save '' >"$folder/redis.out" &
  processes+=($!)
  wait_for "$folder/redis.out" 'eady to accept connections'
}

# Runs an instance that listens at an address and shares a Redis.
serve() {
  exec "${server:-$hubbub}" --listen "$1" --redis "$2"
}

# Starts an instance, on a free port or where it is told; sets `url` and `pid`.
start_instance() {
  : >"$folder/$1.out"
  serve "${2:-127.0.0.1:0}" "redis+unix://$folder/redis.sock" \
    >"$folder/$1.out" 2>>"$folder/$1.err" &
  pid=$!
  processes+=("$pid")
  wait_for "$folder/$1.out" 'listening on'
  # shellcheck disable=SC2034 # the script that sources this uses it
  url=$(grep -o 'http://[^ ]*' "$folder/$1.out" | head -n 1)
}
