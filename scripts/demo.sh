#!/usr/bin/env bash
# Shows the main job: starts a Redis and two instances, lets alice and bob talk across them, shows
# what each saw, and cleans up. Takes a few seconds, after the first build.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v redis-server >/dev/null || {
  echo 'demo: redis-server is missing; install it with: apt-get install redis-server' >&2
  exit 1
}
hubbub=${HUBBUB:-target/release/hubbub}
[ -n "${HUBBUB:-}" ] || cargo build --release --locked --quiet --bin hubbub

folder=$(mktemp -d)
processes=()
clean_up() {
  exec 3>&- 4>&- 2>/dev/null || true
  kill "${processes[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT

# Waits until a file has a line that matches.
wait_for() {
  for _ in $(seq 200); do
    grep -q -- "$2" "$1" 2>/dev/null && return
    sleep 0.05
  done
  echo "demo: waited in vain for '$2' in $1:" >&2
  cat "$1" >&2
  exit 1
}

# Starts an instance on a free port; sets `url` to where it listens.
start_instance() {
  "$hubbub" --listen 127.0.0.1:0 --redis "redis+unix://$folder/redis.sock" \
    >"$folder/$1.out" 2>"$folder/$1.log" &
  processes+=($!)
  wait_for "$folder/$1.out" 'listening on'
  url=$(grep -o 'http://[^ ]*' "$folder/$1.out" | head -n 1)
  echo "instance $1: $(cat "$folder/$1.out")"
}

redis-server --port 0 --unixsocket "$folder/redis.sock" --save '' >"$folder/redis.log" &
processes+=($!)
wait_for "$folder/redis.log" 'Ready to accept connections\|ready to accept connections'
start_instance one && one=$url
start_instance two && two=$url

# Two people, each with a pipe for what they type.
mkfifo "$folder/alice.types" "$folder/bob.types"
"$hubbub" join alice --url "$one" <"$folder/alice.types" >"$folder/alice.sees" &
processes+=($!)
exec 3>"$folder/alice.types"
wait_for "$folder/alice.sees" 'online: alice'
"$hubbub" join bob --url "$two" <"$folder/bob.types" >"$folder/bob.sees" &
processes+=($!)
exec 4>"$folder/bob.types"
wait_for "$folder/alice.sees" 'bob joined'

echo 'hello bob, which instance are you on?' >&3
wait_for "$folder/bob.sees" 'which instance'
echo 'the other one, and yet I hear you' >&4
wait_for "$folder/alice.sees" 'the other one'
echo '/who' >&3
wait_for "$folder/alice.sees" 'online: alice, bob'
exec 4>&-
wait_for "$folder/alice.sees" 'bob left'
exec 3>&-

echo
echo 'alice, on instance one, saw:'
sed 's/^/    /' "$folder/alice.sees"
echo 'bob, on instance two, saw:'
sed 's/^/    /' "$folder/bob.sees"
