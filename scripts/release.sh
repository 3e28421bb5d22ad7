#!/usr/bin/env bash
# Makes a release from the last commit into target/release-VERSION/: for each architecture a static binary in a tarball
# and a Debian package, then a software bill of materials and checksums. All of it is built twice, in two folders, and the
# bytes must be the same; then each part is tested (release_test.sh), and an upgrade from the version before
# (upgrade_test.sh, debian_test.sh). The builds are from scratch, so this takes a while.
#
#     scripts/release.sh VERSION
#
# UPGRADE_FROM names the commit to upgrade from: by default the last tag v…, or without one the commit before. SIGN_WITH
# names an SSH key that signs the checksums. PLACEHOLDERS=1 is for a trial: it lets the package have no real maintainer.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
umask 022
export LC_ALL=C

fail() {
  echo "release: $1" >&2
  exit 1
}
[ $# -eq 1 ] || fail 'usage: scripts/release.sh VERSION'
version=$1
commit=$(git rev-parse HEAD)
grep -qxF "version = \"$version\"" Cargo.toml || fail "Cargo.toml has another version than $version: change it there"
grep -qxF "## $version" scripts/release/CHANGELOG.md ||
  fail "scripts/release/CHANGELOG.md has no entry \"## $version\": write one"
[ "${PLACEHOLDERS:-0}" = 1 ] || ! grep -F .invalid scripts/release/debian/control ||
  fail 'scripts/release/debian/control names nobody real: write there who keeps the package, and where'
[ -z "$(git status --porcelain)" ] || fail 'there are changes that are not committed: a release is made of a commit'
if tagged=$(git rev-parse -q --verify "v$version^{commit}"); then
  [ "$tagged" = "$commit" ] ||
    fail "the tag v$version is on another commit: check that out, or take a new version"
fi

# --- What is needed

[ "$(uname -m)" = x86_64 ] || fail 'it is made on x86-64, where the other binaries are cross-built'
command -v musl-gcc >/dev/null || install musl-tools || exit 1
targets=(x86_64-unknown-linux-musl)
if command -v aarch64-linux-gnu-gcc >/dev/null || install gcc-aarch64-linux-gnu; then
  targets+=(aarch64-unknown-linux-musl)
else
  echo 'release: no compiler for aarch64 here; there will be no binary for it'
fi
for target in "${targets[@]}"; do
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target" ||
    fail "Rust's library for $target is needed"
done
# Only C for `ring` is compiled with it, and that calls nothing of a C library but what musl has as well.
export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH

# A key that does not sign is better known now than at the end.
: >"$folder/SHA256SUMS"
[ -z "${SIGN_WITH:-}" ] || scripts/release/sign.sh "$folder" "$SIGN_WITH"

# --- How it is built

# Exports a commit into a folder.
export_to() {
  mkdir -p "$2"
  git archive "$1" | tar -x -C "$2"
}

# Runs cargo in the current folder. The paths that are left in a binary, those of panics, are the same everywhere.
cargo_here() {
  local from=$1 crates=${CARGO_HOME:-$HOME/.cargo} separator=$'\x1f'
  shift
  CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$crates=/cargo$separator--remap-path-prefix=$from=/hubbub" \
    CFLAGS="-ffile-prefix-map=$crates=/cargo -ffile-prefix-map=$from=/hubbub" \
    CARGO_TARGET_DIR="$from/target" CARGO_INCREMENTAL=0 cargo "$@"
}

# Builds everything from the source in a folder, into another.
build() {
  local from=$1 out=$2 target
  export HUBBUB_VERSION="$version (${commit:0:10})"
  mkdir -p "$out"
  cd "$from"
  for target in "${targets[@]}"; do
    cargo_here "$from" build --locked --release --features tls --bin hubbub --target "$target"
  done
  # Once: it is text, and compiling what only it needs takes as long as a binary. In a run of its own, so that no feature
  # of that gets into the binary.
  [ -d "$folder/manual" ] ||
    cargo_here "$from" run --locked --release --features tls --example manual --target "${targets[0]}" -- "$folder/manual"
  for target in "${targets[@]}"; do
    scripts/release/package.sh "$target" "$from/target/$target/release/hubbub" "$folder/manual" "$out"
  done
  cd "$out"
  sha256sum -- * >SHA256SUMS
}

# --- Twice, and compared

export_to "$commit" "$folder/one"
(build "$folder/one" "$folder/first")
# Another depth and length, since paths are what differs most easily.
again=$folder/another/and-longer
export_to "$commit" "$again"
(build "$again" "$folder/second")
diff -r "$folder/first" "$folder/second" || fail 'a second build has other bytes'
for target in "${targets[@]}"; do
  ! grep -qF -e "$folder" -e "$HOME/" "$again/target/$target/release/hubbub" ||
    fail "the binary for $target names a folder of this machine"
done
echo 'release: two builds in two folders have the same bytes'

# --- Tested

scripts/release_test.sh "$folder/first"
before=${UPGRADE_FROM:-$(git describe --tags --abbrev=0 --match 'v*' "$commit^" 2>/dev/null || git rev-parse --short "$commit^")}
export_to "$before" "$folder/before"
# With the target folder and the flags of the second build, whose dependencies need not be compiled again.
(cd "$folder/before" && cargo_here "$again" build --locked --release --features tls --bin hubbub --target "${targets[0]}")
mv "$again/target/${targets[0]}/release/hubbub" "$folder/hubbub-before"
tar -xzf "$folder/first/hubbub-$version-x86_64-linux.tar.gz" -C "$folder"
echo "release: an upgrade from $before"
export HUBBUB=$folder/hubbub-$version-x86_64-linux/hubbub BEFORE=$folder/hubbub-before
scripts/upgrade_test.sh
scripts/restart_test.sh
scripts/release/debian_test.sh "$folder/first/hubbub_${version/-/\~}_amd64.deb" "$BEFORE"

[ -z "${SIGN_WITH:-}" ] || scripts/release/sign.sh "$folder/first" "$SIGN_WITH"
rm -rf "target/release-$version"
mkdir -p target
mv "$folder/first" "target/release-$version"
echo "release: target/release-$version is done; now: git tag v$version && git push --tags"
