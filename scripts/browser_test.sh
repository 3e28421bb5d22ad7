#!/usr/bin/env bash
# Drives the chat page in real browsers: two people, two instances, one Redis, and what befalls
# them. Installs what it needs. HUBBUB names the binary (default: it builds target/debug/hubbub).
#
#   scripts/browser_test.sh              the tests (tests/browser/*.test.js) and the pictures in Chromium, within
#                                        four minutes, and then the heart of them in Firefox, within three
#   scripts/browser_test.sh firefox      all tests in Firefox, where a long token is typed key by key: the test of one
#                                        that expires may be too slow
#   scripts/browser_test.sh pictures     pictures of the page, into target/browser/pictures; one of
#                                        them becomes the README's, src/server/page/screenshot.png
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
what=${1:-tests}

command -v redis-server >/dev/null || install redis-server
# The fonts, so that the pictures have all their characters.
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
[ -x "$CHROMIUM" ] || install chromium fonts-dejavu-core fonts-noto-color-emoji
export FIREFOX=${FIREFOX:-/usr/bin/firefox-esr}
[ "$what" = pictures ] || [ -x "$FIREFOX" ] || install firefox-esr

if [ -z "${HUBBUB:-}" ]; then
  cargo build --locked --quiet
  HUBBUB=${CARGO_TARGET_DIR:-target}/debug/hubbub
fi
HUBBUB=$(realpath "$HUBBUB")
export HUBBUB

home=${CARGO_TARGET_DIR:-target}/browser
install_browser_tests "$home"

# Runs a command there for so many seconds. `timeout` has a process group of its own, and what it is told it
# tells the whole group; what the tests start they end themselves when they are ended.
run() {
  (cd "$home" && exec timeout --kill-after 5 "$@") &
  running=$!
  trap 'kill "$running" 2>/dev/null || true' EXIT
  wait "$running"
  trap - EXIT
}

tests=(tests/browser/*.test.js)
tests=("${tests[@]##*/}")
test=(node --test --test-reporter=spec --test-concurrency=2)
# The most frequent acts: to come in, speak and hear, change rooms, come back, and use only the keyboard.
heart='^(two people|a name in use|the keyboard|a reload|unread|two tabs|on a phone|a server that is killed|a line on its way|a drain|a token that is wanted)'

case $what in
tests)
  run 240 "${test[@]}" "${tests[@]}" pictures.js
  export BROWSER=firefox
  run 180 "${test[@]}" --test-name-pattern="/$heart/" chat.test.js faults.test.js
  ;;
firefox)
  export BROWSER=firefox
  run 600 "${test[@]}" "${tests[@]}"
  ;;
pictures)
  run 240 node pictures.js pictures
  cp "$home/pictures/busy-1280-light.png" src/server/page/screenshot.png
  ;;
*)
  echo "browser_test: what is '$what'?" >&2
  exit 2
  ;;
esac
