#!/usr/bin/env bash
# Runs the README's commands, those in ```sh blocks, in order, as a newcomer would paste them: against
# a server of their own, on other ports than those that are written there.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/instances.sh

# Free ports in place of those that the README names.
read -r p8080 p8081 p8082 p8083 p8084 p6379 p7001 p7002 < <(/usr/bin/env python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
print(*[s.getsockname()[1] for s in held])')
elsewhere() {
  sed "s/8080/$p8080/g; s/8081/$p8081/g; s/8082/$p8082/g; s/8083/$p8083/g; s/8084/$p8084/g
    s/6379/$p6379/g; s/7001/$p7001/g; s/7002/$p7002/g"
}

mkdir "$folder/bin"
ln -s "$hubbub" "$folder/bin/hubbub"
export PATH="$folder/bin:$PATH"
export HUBBUB_URL="http://127.0.0.1:$p8080"

wait_for_port() {
  for _ in $(seq 400); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    sleep 0.05
  done
  fail "nothing listens on port $1"
}

hubbub --listen "127.0.0.1:$p8080" >"$folder/server.out" 2>"$folder/server.err" &
processes+=($!)
wait_for_port "$p8080"

# curl is to fail where the server says no, or a wrong command would pass.
curl() {
  command curl --silent --show-error --fail "$@"
}

page=$PWD/README.md
cd "$folder"
count=0
while IFS= read -r line; do
  [ -n "$line" ] || continue
  command=$(elsewhere <<<"$line")
  echo "readme_test: $line"
  if [[ $command == *' &' ]]; then
    # What needs it comes next, and nothing here waits for it: the README has to.
    eval "$command" >>"$folder/background.out" 2>&1
    processes+=($!)
  elif [[ $command == export\ * ]]; then
    eval "$command"
  else
    # What wants a person at a terminal gets the end of its input at once.
    eval "$command" </dev/null >"$folder/command.out" 2>"$folder/command.err" || fail "$line"
    [[ $command == export\ * || $command == *' join alice' || -s $folder/command.out || $command == *' say '* || $command == *' ready '* || $command == echo\ * ]] ||
      [[ $command == hubbub\ *port\ * && -s $folder/command.err ]] ||
      fail "nothing was printed: $line"
  fi
  count=$((count + 1))
done < <(awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$page")
[ "$count" -ge 15 ] || fail "only $count commands were found"
echo "readme_test: $count commands passed"
