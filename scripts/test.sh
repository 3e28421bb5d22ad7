#!/usr/bin/env bash
# The one command that passes the tests on a fresh machine: installs what they need, then runs the
# checks, the unit, documentation and integration tests, the threads under permuted schedules, the shell
# tests, the page in a browser, the conformance suite, and a minute of the soak on each form of Redis.
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

# Runs a stage, and says which of how many it is, and how long it took.
stages=12
stage=0
stage() {
  local name=$1 begun=$SECONDS
  shift
  stage=$((stage + 1))
  echo "test: stage $stage of $stages, $name"
  "$@"
  echo "test: stage $stage of $stages, $name, took $((SECONDS - begun)) s"
}

# Most tests wait more than they compute.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

stage checks scripts/check.sh
# The plain build first, so that the scripts find the other one, which is what releases are. The model of the chain
# knows nothing of TLS, and runs once.
stage 'unit tests without TLS' cargo test --locked --lib -- --skip redis::model
stage 'unit and integration tests' cargo test --locked --features tls
# More schedules find more; these take 15 s.
stage 'threads, permuted' cargo run --locked --quiet --features tls --example permuted -- "${PERMUTED_SCHEDULES:-3000}"
export HUBBUB=target/debug/hubbub
stage 'shell tests' scripts/chat_test.sh
cargo build --locked --features tls --example lesson
LESSON=target/debug/examples/lesson stage 'shell tests of the lesson' scripts/chat_test.sh
stage 'the page in a browser' scripts/browser_test.sh
stage 'the README' scripts/readme_test.sh
stage 'restarts' scripts/restart_test.sh
stage 'deployment' scripts/deploy_test.sh
unset HUBBUB
# Both stages build for release; linking four programs as one crate each takes as long as compiling all crates.
export CARGO_PROFILE_RELEASE_LTO=off
stage conformance scripts/conformance.sh
soak() {
  for mode in one three sentinel cluster; do
    scripts/soak.sh 60 "$(date +%s)" "$mode"
  done
}
stage soak soak
echo "test: all passed in $SECONDS s"
