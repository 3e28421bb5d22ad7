#!/usr/bin/env bash
# The one command that passes the tests on a fresh machine: installs what they need, then runs the
# checks, the unit, documentation and integration tests, the threads under permuted schedules, the shell
# tests, the page in a browser, the conformance suite, and a minute of the soak on each form of Redis.
# Takes less than 15 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh

# All at once, and before anything runs beside anything else: only one may install at a time.
packages=()
needs() {
  command -v "$1" >/dev/null || packages+=("${2:-$1}")
}
# Debian starts one at once, which the tests do not need; they start their own.
needs redis-server
needs curl
# For the certificates of the tests that speak TLS.
needs openssl
# The terminal that the tests of the prompt look at.
needs tmux
# The clock that jumps in the tests of the clock.
needs faketime
# For the checks.
needs shellcheck
needs node nodejs
needs npm
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3 python3-venv)
[ ${#packages[@]} -eq 0 ] || install "${packages[@]}" || exit 1
# Another WebSocket client than our own, for the shell test; without it, that part is left out.
if ! /usr/bin/python3 -c 'import websockets' 2>/dev/null; then
  install python3-websockets || true
fi

# The output of what runs beside something else, which is shown when that is over.
output=$(mktemp -d)
beside=''
declare -A soaks=()
clean_up() {
  kill -- ${beside:+"-$beside"} "${soaks[@]}" 2>/dev/null || true
  rm -rf "$output"
}
trap clean_up EXIT

# Runs a stage, and says which of how many it is, and how long it took.
stages=13
stage=0
stage() {
  local begun=$SECONDS
  stage=$((stage + 1))
  local which="test: stage $stage of $stages, $1"
  shift
  # When the compilers fail, nothing else is begun.
  [ -z "$beside" ] || kill -0 "$beside" 2>/dev/null || show_beside
  echo "$which"
  "$@"
  echo "$which, took $((SECONDS - begun)) s"
}

# Most tests wait more than they compute.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
# Linking four programs as one crate each takes as long as compiling all crates.
export CARGO_PROFILE_RELEASE_LTO=off

# So two stages that compile get what the others leave of the processors. As a process group, which can be ended.
set -m
{
  stage checks scripts/check.sh
  stage 'build of the conformance suite and the soak' \
    nice -n 19 cargo bench --locked --features tls --bench echo --bench soak --no-run
} >"$output/beside" 2>&1 &
beside=$!
set +m
stage=2
echo "test: stages 1 and 2 of $stages run beside the others"
# Waits until they are over, and shows what they said.
show_beside() {
  local status=0
  wait "$beside" || status=$?
  beside=''
  cat "$output/beside"
  return "$status"
}

# The model of the chain knows nothing of TLS, and runs once.
stage 'unit tests without TLS' cargo test --locked --lib -- --skip redis::model
stage 'unit and integration tests' cargo test --locked --features tls
# More schedules find more; these take 15 s.
stage 'threads, permuted' cargo run --locked --quiet --features tls --example permuted -- "${PERMUTED_SCHEDULES:-3000}"
# What is built with TLS, as releases are.
built=${CARGO_TARGET_DIR:-target}/debug
export HUBBUB=$built/hubbub
stage 'shell tests' scripts/chat_test.sh
LESSON=$built/examples/lesson stage 'shell tests of the lesson' scripts/chat_test.sh
stage 'the README' scripts/readme_test.sh
stage 'restarts' scripts/restart_test.sh
stage 'deployment' scripts/deploy_test.sh
[ -z "$beside" ] || show_beside
stage 'the page in a browser' scripts/browser_test.sh
unset HUBBUB
# On all forms of Redis at once, and beside the conformance suite: all of them wait more than they compute.
soak() {
  local mode failed=0
  for mode in one three sentinel cluster; do
    scripts/soak.sh 60 "$(date +%s)" "$mode" >"$output/$mode" 2>&1 &
    soaks[$mode]=$!
  done
  stage conformance scripts/conformance.sh
  for mode in "${!soaks[@]}"; do
    wait "${soaks[$mode]}" || failed=1
    cat "$output/$mode"
  done
  return "$failed"
}
stage soak soak
echo "test: all passed in $SECONDS s"
