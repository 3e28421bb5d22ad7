#!/usr/bin/env bash
# A rolling restart under load: two instances over one Redis are restarted in turn while four
# speakers talk and three listeners count. Passes when every listener heard every line once, and all
# in one order. HUBBUB names the binary (default target/debug/hubbub); takes about half a minute. BEFORE
# names that of an older version, which the instances run until they are restarted.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/instances.sh
export HUBBUB_SEND_RATE=0
lines=1500 # of each speaker

start_redis
server=${BEFORE:-$hubbub}
start_instance one 127.0.0.1:0 && one=$url one_pid=$pid
start_instance two 127.0.0.1:0 && two=$url two_pid=$pid
server=$hubbub

listeners=()
for listener in 1 2 3; do
  servers=$one,$two
  [ $((listener % 2)) -eq 0 ] && servers=$two,$one
  "$hubbub" tail --url "$servers" --as "listener-$listener" --count $((4 * lines)) --timeout 120 \
    >"$folder/listener-$listener" 2>"$folder/listener-$listener.err" &
  listeners+=($!)
  processes+=($!)
  wait_for "$folder/listener-$listener.err" 'listening to lobby'
done
speakers=()
for speaker in 1 2 3 4; do
  servers=$one,$two
  [ $((speaker % 2)) -eq 0 ] && servers=$two,$one
  # The pace is what makes it last through both restarts.
  for line in $(seq "$lines"); do
    echo "line $line of speaker $speaker"
    sleep 0.005
  done | "$hubbub" join "speaker-$speaker" --url "$servers" \
    >/dev/null 2>"$folder/speaker-$speaker.err" &
  speakers+=($!)
  processes+=($!)
done

# Each restart begins in the midst of the talk, and the second only after the first is over.
restart() {
  local name=$1 address=${2#http://} old=$3
  kill -TERM "$old"
  wait "$old" || fail "instance $name did not end well"
  start_instance "$name" "$address"
}
wait_for "$folder/listener-1" 'of speaker' 400
restart one "$one" "$one_pid"
echo "restart_test: instance one is back, $(wc -l <"$folder/listener-1") lines were heard"
heard=$(wc -l <"$folder/listener-1")
wait_for "$folder/listener-1" 'of speaker' $((heard + 400))
restart two "$two" "$two_pid"
echo "restart_test: instance two is back, $(wc -l <"$folder/listener-1") lines were heard"
[ "$(wc -l <"$folder/listener-1")" -lt $((4 * lines)) ] || fail 'the talk was over before the restarts'

for speaker in "${speakers[@]}"; do
  wait "$speaker" || fail 'a speaker was not answered'
done
for listener in "${listeners[@]}"; do
  wait "$listener" || fail 'a listener missed something'
done
for speaker in 1 2 3 4; do
  diff <(grep "of speaker $speaker\$" "$folder/listener-1") \
    <(for line in $(seq "$lines"); do echo "speaker-$speaker: line $line of speaker $speaker"; done) \
    >/dev/null || fail "speaker $speaker's lines were not heard once each, in order"
done
for listener in 2 3; do
  cmp -s "$folder/listener-1" "$folder/listener-$listener" || fail "listener $listener heard otherwise"
done
echo "restart_test: passed, $((4 * lines)) lines heard once each by three listeners, in one order"
