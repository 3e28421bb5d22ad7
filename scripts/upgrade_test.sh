#!/usr/bin/env bash
# An upgrade from an older version: its instance and one of this version share a Redis, and chat as one while the old one
# is replaced; and this version takes over the old one's folder of messages. BEFORE names the old binary, HUBBUB the new
# one (default target/debug/hubbub).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/instances.sh
before=$(realpath "${BEFORE:?names the older binary}")

# Posts a message under a ref, and prints its id and whether it was there before.
post() {
  curl -sf -H "Idempotency-Key: $2" -d "$2" "$1/api/rooms/lobby/messages?user=ci" |
    sed -nE 's/.*"id":"([0-9-]+)".*"duplicate":(true|false).*/\1 \2/p'
}
# Listens with a binary at servers, and waits until it is in the room.
listen() {
  local name=$1 binary=$2 servers=$3
  "$binary" tail --as "$name" --url "$servers" --count 6 --timeout 60 >"$folder/$name" 2>"$folder/$name.err" &
  listeners+=($!)
  processes+=($!)
  wait_for "$folder/$name.err" 'listening to lobby'
}
members() {
  curl -sf "$1/api/rooms/lobby/members" | grep -o '"members":\[[^]]*\]'
}

start_redis
server=$before start_instance one && one=$url one_pid=$pid
start_instance two && two=$url

listeners=()
listen mover "$hubbub" "$one,$two"
listen old-client "$before" "$two"
listen new-client "$hubbub" "$two"
for instance in "$one" "$two"; do
  [ "$(members "$instance")" = '"members":["mover","new-client","old-client"]' ] ||
    fail "who is in the room is not known on $instance: $(members "$instance")"
done
"$hubbub" say alice 'to the old instance' --url "$one"
"$hubbub" say bob 'to the new instance' --url "$two"
"$before" say carol 'with the old client' --url "$two"
id=$(post "$one" retried)
[[ $id == *' false' ]] || fail "the old instance answers '$id'"
[ "$(post "$two" retried)" = "${id/false/true}" ] || fail "the new instance takes a retry for a message of its own"

# The listener there goes to the other, and misses nothing.
wait_for "$folder/mover" retried
kill -TERM "$one_pid"
wait "$one_pid" || fail 'the old instance did not end well'
"$hubbub" say dave 'while it is away' --url "$two"
start_instance one "${one#http://}"
"$hubbub" say erin 'to the new one in its place' --url "$one"
[ "$(post "$one" retried)" = "${id/false/true}" ] || fail 'a retry after the upgrade is a message of its own'
for listener in "${listeners[@]}"; do
  wait "$listener" || fail 'a listener missed something'
done
cat >"$folder/expected" <<'END'
alice: to the old instance
bob: to the new instance
carol: with the old client
ci: retried
dave: while it is away
erin: to the new one in its place
END
for listener in mover old-client new-client; do
  diff "$folder/expected" "$folder/$listener" >&2 || fail "$listener heard otherwise"
done
echo 'upgrade_test: an old and a new instance chat as one, and the old one is replaced'

serve() {
  exec "${server:-$hubbub}" --listen "$1" --data "$folder/data"
}
server=$before start_instance alone
id=$(post "$url" kept)
kill -TERM "$pid"
wait "$pid" || fail 'the old server did not end well'
start_instance alone
[ "$(post "$url" kept)" = "${id/false/true}" ] || fail 'a retry at the upgraded server is a message of its own'
[ "$("$hubbub" tail --url "$url" --history 5 --count 1 --timeout 20)" = 'ci: kept' ] || fail 'what was said before is gone'
echo 'upgrade_test: passed, also with a folder of messages'
