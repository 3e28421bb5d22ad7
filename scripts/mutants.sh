#!/usr/bin/env bash
# Changes the product's code in one place after another, as cargo-mutants lists them, and runs the tests that reach the
# place: a change that no test notices is a mutant that survives. Prints the survivors, and fails if there are any but
# those that scripts/mutants/explained.txt explains. All mutants are in one build, so two thousand take about an hour.
#
#     scripts/mutants.sh [FILE...]       by default what the promise stands on: the backplane, the hub, session, token
#
# MUTANTS_TESTS=unit runs the unit tests only, which takes some ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh

command -v redis-server >/dev/null || install redis-server
version=27.1.0
tools=${CARGO_TARGET_DIR:-target}/cargo-mutants-$version
[ -x "$tools/bin/cargo-mutants" ] ||
  cargo install --locked --quiet --root "$tools" "cargo-mutants@$version"
PATH=$PWD/$tools/bin:$PATH
[ $# -gt 0 ] || set -- 'src/backplane/**' 'src/hub/**' 'src/server/session/**' 'src/server/token/**'
exec python3 scripts/mutants/run.py "$@"
