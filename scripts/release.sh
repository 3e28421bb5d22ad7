#!/usr/bin/env bash
# Makes a release from the last commit into target/release-VERSION/: for each architecture a static binary in a tarball
# and a Debian package, then a software bill of materials and checksums. All of it is built twice, in two folders, and the
# bytes must be the same; then each part is tested (release_test.sh), and an upgrade from the version before
# (upgrade_test.sh). The builds are from scratch, so this takes a while.
#
#     scripts/release.sh VERSION
#
# UPGRADE_FROM names the commit to upgrade from: by default the last tag v…, or without one the commit before.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
# Modes of files and orders of names must not depend on who builds.
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

# Packs a folder of the current one, with nothing in it that depends on when and by whom.
pack() {
  tar --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX -c "$1" |
    gzip -n -9
}

# Lays out the Debian package in a folder, and builds it. `dpkg-deb` alone makes the same bytes twice, and needs no
# crates to be compiled, as `cargo-deb` would.
debian() {
  local tree=$1 architecture=$2 out=$3 page
  install_file() { command install -D -m "$1" "$2" "$tree/$3"; }
  install_file 755 "$binary" usr/bin/hubbub
  install_file 600 scripts/deploy/hubbub.env etc/hubbub.env
  mkdir -p "$tree/usr/lib/systemd/system"
  # Without its beginning, which says how to install it by hand.
  sed '/^\[Unit\]/,$!d; s|/usr/local/bin/|/usr/bin/|' scripts/deploy/hubbub.service \
    >"$tree/usr/lib/systemd/system/hubbub.service"
  for page in "$manual"/*.1; do
    install_file 644 "$page" "usr/share/man/man1/$(basename "$page")"
  done
  install_file 644 "$manual/hubbub.bash" usr/share/bash-completion/completions/hubbub
  install_file 644 "$manual/_hubbub" usr/share/zsh/vendor-completions/_hubbub
  install_file 644 "$manual/hubbub.fish" usr/share/fish/vendor_completions.d/hubbub.fish
  install_file 644 LICENSE usr/share/doc/hubbub/copyright
  install_file 644 scripts/release/CHANGELOG.md usr/share/doc/hubbub/CHANGELOG.md
  for page in 99-hubbub.conf limits.conf nginx.conf haproxy.cfg Caddyfile; do
    install_file 644 "scripts/deploy/$page" "usr/share/doc/hubbub/examples/$page"
  done
  gzip -n -9 "$tree"/usr/share/man/man1/*.1
  for page in postinst prerm postrm; do
    install_file 755 "scripts/release/debian/$page" "DEBIAN/$page"
  done
  echo /etc/hubbub.env >"$tree/DEBIAN/conffiles"
  # To Debian `-` begins a revision, and only `~` is before the end: 1.0.0~rc.1 is older than 1.0.0.
  sed "s/@VERSION@/${version/-/\~}/; s/@ARCHITECTURE@/$architecture/
    s/@SIZE@/$(($(stat -c %s "$binary") / 1024))/" scripts/release/debian/control >"$tree/DEBIAN/control"
  find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$tree" "$out" >/dev/null
}

# Builds everything from the source in a folder, into another.
build() {
  local from=$1 out=$2 target name binary manual=$1/manual
  mkdir -p "$out"
  cd "$from"
  for target in "${targets[@]}"; do
    cargo_here "$from" build --locked --release --features tls --bin hubbub --target "$target"
  done
  # In a run of its own, so that no feature that only it needs gets into the binary.
  cargo_here "$from" run --locked --release --features tls --example manual --target "${targets[0]}" -- "$manual"
  for target in "${targets[@]}"; do
    binary=$from/target/$target/release/hubbub
    name=hubbub-$version-${target%%-*}-linux
    mkdir -p "$from/pack/$name"
    cp "$binary" LICENSE README.md scripts/release/CHANGELOG.md "$from/pack/$name"
    cp -r "$manual" "$from/pack/$name/manual"
    cp -r scripts/deploy "$from/pack/$name/deploy"
    (cd "$from/pack" && pack "$name") >"$out/$name.tar.gz"
    case $target in
      x86_64-*) architecture=amd64 ;;
      aarch64-*) architecture=arm64 ;;
    esac
    (debian "$from/debian-$architecture" "$architecture" "$out/hubbub_${version/-/\~}_$architecture.deb")
    cargo metadata --locked --format-version 1 --filter-platform "$target" --features tls |
      python3 scripts/release/sbom.py "$target" tls >"$out/$name.cdx.json"
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

rm -rf "target/release-$version"
mkdir -p target
mv "$folder/first" "target/release-$version"
echo "release: target/release-$version is done; now: git tag v$version && git push --tags"
