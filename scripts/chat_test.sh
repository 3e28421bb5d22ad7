#!/usr/bin/env bash
# The shell integration test: two instances, one Redis, and clients as a shell script would use
# them. Asserts on lines. HUBBUB names the binary (default target/debug/hubbub). LESSON names the
# lesson's instead: then the basic part alone runs, against instances of the lesson.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/instances.sh

passed=0
pass() {
  passed=$((passed + 1))
  echo "chat_test: $1"
}
# The lines of a file, without those that begin with a star, are exactly these.
expect_said() {
  local file=$1
  shift
  diff <(grep -v '^\*' "$file") <(printf '%s\n' "$@") || fail "$(basename "$file") differs"
}

if [ -n "${LESSON:-}" ]; then
  lesson=$(realpath "$LESSON")
  serve() {
    exec "$lesson" "$2" "$1"
  }
fi

start_redis
start_instance one && one=$url
start_instance two && two=$url && two_pid=$pid

# --- the basic part: two users on two instances chat, one leaves, and an instance ends. Each user
# is a socket of the shell's own, with a file for the bytes that come.
declare -A socket
enter() {
  local address=${2#http://} opened
  exec {opened}<>"/dev/tcp/${address%:*}/${address##*:}"
  socket[$1]=$opened
  printf 'GET /chat/%s?room=basic HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' \
    "$1" "$address" >&"$opened"
  printf 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n' >&"$opened"
  cat <&"$opened" >"$folder/$1.heard" &
  processes+=($!)
}
# A text frame of at most 125 bytes, and a close frame, both masked with zeros.
says() {
  printf "\\x81\\x$(printf %02x $((128 + ${#2})))\\0\\0\\0\\0%s" "$2" >&"${socket[$1]}"
}
leaves() {
  printf '\x88\x80\0\0\0\0' >&"${socket[$1]}"
}
hears() {
  wait_for "$folder/$1.heard" "$2"
}

enter alice "$one"
hears alice alice
enter bob "$two"
hears alice 'bob joined'
says bob 'hello over there'
hears alice 'bob: hello over there'
says alice 'hello yourself'
hears bob 'alice: hello yourself'
leaves bob
hears alice 'bob left'
enter carol "$two"
hears alice 'carol joined'
ending=$SECONDS
kill -INT "$two_pid"
LC_ALL=C hears carol $'\x88'
leaves carol
wait "$two_pid" || fail 'an instance did not end well'
[ $((SECONDS - ending)) -le 10 ] || fail 'the teardown took too long'
leaves alice
pass 'two users on two instances'
if [ -n "${LESSON:-}" ]; then
  exit
fi
start_instance two && two=$url

# --- say and tail, across instances
"$hubbub" tail --url "$two" --count 3 --timeout 20 >"$folder/tail.out" 2>"$folder/tail.err" &
tail=$!
wait_for "$folder/tail.err" 'listening to lobby'
"$hubbub" say carol 'one two' --url "$one"
echo 'from a pipe' | "$hubbub" say carol - --url "$two"
"$hubbub" say carol three words unquoted --url "$one"
wait "$tail" || fail 'tail did not end well'
expect_said "$folder/tail.out" 'carol: one two' 'carol: from a pipe' 'carol: three words unquoted'
grep -q 'carol joined' "$folder/tail.out" && fail 'say joined the room'
first=$(timeout 20 "$hubbub" tail --url "$two" --history 1 2>/dev/null | head -1) || fail 'tail outlived its reader'
[ "$first" = 'carol: three words unquoted' ] || fail 'tail | head printed something else'
pass 'say and tail, across instances'

# --- history
"$hubbub" tail --url "$one" --history 2 --count 2 --timeout 20 >"$folder/past.out" 2>/dev/null
expect_said "$folder/past.out" 'carol: from a pipe' 'carol: three words unquoted'
pass 'history'

# --- join in a pipe: every line is said, also one that begins with a slash, and the end of the input is the end
printf '%s\n' 'hello' '/quit' '//slash' | "$hubbub" join dave --url "$one" --room den >"$folder/dave.out"
"$hubbub" tail --url "$two" --room den --history 9 --count 3 --timeout 20 >"$folder/den.out" 2>/dev/null
expect_said "$folder/den.out" 'dave: hello' 'dave: /quit' 'dave: //slash'
pass 'join in a pipe'

# --- the HTTP API, with curl as in the README
curl -sSf -d 'deploy finished' "$one/api/rooms/ops/messages?user=ci" >"$folder/posted.out"
grep -q '"type":"sent"' "$folder/posted.out" || fail 'a post was not acknowledged'
curl -sSf -H 'Idempotency-Key: build-17' --data-binary @- "$one/api/rooms/ops/messages?user=ci" <<<'build 17 is out' >"$folder/first.out"
curl -sSf -H 'Idempotency-Key: build-17' --data-binary @- "$two/api/rooms/ops/messages?user=ci" <<<'build 17 is out' >"$folder/again.out"
grep -q '"duplicate":true' "$folder/again.out" || fail 'a repeated post is not known to be one'
curl -sSf "$two/api/rooms/ops/messages?limit=2" >"$folder/ops.out"
grep -q '"text":"deploy finished".*"text":"build 17 is out"' "$folder/ops.out" || fail 'the API does not show what was posted'
"$hubbub" tail --url "$two" --room ops --history 9 --count 2 --timeout 20 >"$folder/ops.tail" 2>/dev/null
expect_said "$folder/ops.tail" 'ci: deploy finished' 'ci: build 17 is out'
curl -sSf "$one/api/rooms/ops/members" | grep -q '"members":\[' || fail 'the API does not say who is here'
status=$(curl -sS -o "$folder/refused.out" -w '%{http_code}' -d 'x' "$one/api/rooms/ops/messages")
[ "$status" = 400 ] || fail "a post by nobody is answered with $status"
grep -q '"message":"who says it' "$folder/refused.out" || fail 'a post by nobody is not explained'
pass 'the HTTP API'

# --- exit codes
"$hubbub" tail --url "$one" --room empty --count 1 --timeout 1 2>"$folder/late.err" && fail 'tail reached a count that was not there'
grep -q 'count was not reached' "$folder/late.err" || fail 'tail does not say why'
"$hubbub" say eve hi --url http://127.0.0.1:9 --timeout 1 2>"$folder/gone.err" && fail 'say succeeded without a server'
grep -q 'not sent: cannot reach' "$folder/gone.err" || fail 'say does not say why'
status=0
"$hubbub" join 'a/b' --url "$one" </dev/null 2>"$folder/name.err" || status=$?
[ "$status" = 2 ] || fail "a bad name ended with $status"
grep -q 'slash' "$folder/name.err" || fail 'join does not say why'
pass 'exit codes and errors'

# --- a client that is not ours
python=/usr/bin/python3
if "$python" -c 'import websockets' 2>/dev/null; then
  "$hubbub" tail --url "$two" --count 1 --timeout 20 >"$folder/other.out" 2>"$folder/other.err" &
  tail=$!
  wait_for "$folder/other.err" 'listening to lobby'
  "$python" - "${one/http:/ws:}/chat/frank" <<'PY' || fail 'websockets, from Python'
import asyncio, sys, websockets

async def main():
    async with websockets.connect(sys.argv[1]) as ws:
        first = await asyncio.wait_for(ws.recv(), 20)
        assert first == '* online: frank, tail', first
        await ws.ping()
        await ws.send('hello from Python')
        await ws.send('/history 1')
        assert await asyncio.wait_for(ws.recv(), 20) == '* the last message:'
        assert await asyncio.wait_for(ws.recv(), 20) == 'frank: hello from Python'

asyncio.run(main())
PY
  wait "$tail" || fail 'tail did not hear Python'
  expect_said "$folder/other.out" 'frank: hello from Python'
  pass 'a Python client'
else
  echo 'chat_test: no websockets for Python here; that part is left out'
fi

echo "chat_test: $passed passed"
