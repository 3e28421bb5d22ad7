#!/usr/bin/env bash
# Checks what needs no running: format, lints, and the documentation's links. Warnings are errors.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --check
cargo clippy --locked --all-targets --bench echo -- --deny warnings
cargo clippy --locked --all-targets --features tls -- --deny warnings
RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --document-private-items --quiet
for script in scripts/*.sh .ci/run; do
  bash -n "$script"
done
echo 'check: fine'
