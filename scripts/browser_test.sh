#!/usr/bin/env bash
# Drives the chat page in a real Chromium: two people, two instances, one Redis, and what befalls
# them. Installs what it needs. HUBBUB names the binary (default: it builds target/debug/hubbub).
#
#   scripts/browser_test.sh              the tests (tests/browser/*.test.js), within four minutes
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
command -v node >/dev/null || install nodejs
command -v npm >/dev/null || install npm

if [ -z "${HUBBUB:-}" ]; then
  cargo build --locked --quiet
  HUBBUB=${CARGO_TARGET_DIR:-target}/debug/hubbub
fi
HUBBUB=$(realpath "$HUBBUB")
export HUBBUB

# Beside its packages, which have no place in the tree.
home=${CARGO_TARGET_DIR:-target}/browser
mkdir -p "$home"
rm -f "$home"/*.js
cp tests/browser/*.js tests/browser/package.json "$home"
if ! cmp -s tests/browser/package-lock.json "$home/node_modules/installed-lock.json"; then
  cp tests/browser/package-lock.json "$home"
  npm ci --prefix "$home" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
  cp "$home/package-lock.json" "$home/node_modules/installed-lock.json"
fi

case $what in
tests)
  tests=(tests/browser/*.test.js)
  command=(node --test --test-reporter=spec --test-concurrency=2 "${tests[@]##*/}")
  ;;
pictures) command=(node pictures.js pictures) ;;
*)
  echo "browser_test: what is '$what'?" >&2
  exit 2
  ;;
esac

# `timeout` has a process group of its own, and what it is told it tells the whole group; what the
# tests start they end themselves when they are ended.
(cd "$home" && exec timeout --kill-after 5 240 "${command[@]}") &
running=$!
trap 'kill "$running" 2>/dev/null || true' EXIT
status=0
wait "$running" || status=$?
trap - EXIT
if [ "$what" = pictures ] && [ "$status" -eq 0 ]; then
  cp "$home/pictures/busy-1280-light.png" src/server/page/screenshot.png
fi
exit "$status"
