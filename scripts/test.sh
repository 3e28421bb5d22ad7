#!/usr/bin/env bash
# The one command that passes the tests on a fresh machine: installs what they need, then runs the
# checks, the unit, documentation and integration tests, the shell tests, the page in a browser, the
# conformance suite, and a minute of the soak on each form of Redis.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/install.sh

if ! command -v redis-server >/dev/null; then
  # Debian starts one at once, which the tests do not need; they start their own.
  install redis-server || exit 1
fi
command -v curl >/dev/null || install curl || exit 1
# For the certificates of the tests that speak TLS.
command -v openssl >/dev/null || install openssl || exit 1
# The terminal that the tests of the prompt look at.
command -v tmux >/dev/null || install tmux || exit 1
# The clock that jumps in the tests of the clock.
command -v faketime >/dev/null || install faketime || exit 1
# Another WebSocket client than our own, for the shell test; without it, that part is left out.
if ! /usr/bin/python3 -c 'import websockets' 2>/dev/null; then
  install python3-websockets || true
fi

scripts/check.sh
# The plain build first, so that the scripts find the other one, which is what releases are.
cargo test --locked --lib
cargo test --locked --features tls
cargo build --locked --features tls --example lesson
HUBBUB=target/debug/hubbub scripts/chat_test.sh
LESSON=target/debug/examples/lesson scripts/chat_test.sh
HUBBUB=target/debug/hubbub scripts/browser_test.sh
HUBBUB=target/debug/hubbub scripts/readme_test.sh
HUBBUB=target/debug/hubbub scripts/restart_test.sh
HUBBUB=target/debug/hubbub scripts/deploy_test.sh
scripts/conformance.sh
for mode in one three sentinel cluster; do
  scripts/soak.sh 60 "$(date +%s)" "$mode"
done
echo 'test: all passed'
