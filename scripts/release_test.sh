#!/usr/bin/env bash
# Tests what scripts/release.sh made, in the folder that is given: the checksums, each tarball's binary, the bill of
# materials, the manual and the completions, and the Debian package, which is installed in a root that has only a shell.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
release=$(realpath "$1")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
command -v busybox >/dev/null || install busybox-static || exit 1
command -v curl >/dev/null || install curl || exit 1
command -v man >/dev/null || install man-db || exit 1

folder=$(mktemp -d)
server=''
clean_up() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT
fail() {
  echo "release_test: FAILED: $1" >&2
  tail -n 20 "$folder"/*.{out,err,log} 2>/dev/null >&2 || true
  exit 1
}

# Starts a server with a command, asks it for its version, says something, and ends it.
serves() {
  local url=''
  : >"$folder/server.out"
  "$@" >"$folder/server.out" 2>"$folder/server.err" &
  server=$!
  for _ in $(seq 400); do
    url=$(sed -n 's/^listening on \(http:[^ ]*\) .*/\1/p' "$folder/server.out")
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || fail "it does not start: $*"
    sleep 0.05
  done
  [ -n "$url" ] || fail "it does not say where it listens: $*"
  [ "$(curl -s "$url/livez")" = "alive $version" ] || fail "/livez does not say alive $version"
  curl -s "$url/metrics" | grep -q "^hubbub_build_info{version=\"$version\",features=\"tls\"} 1" ||
    fail "/metrics does not have version $version and tls"
  curl -sf -d hello "$url/api/rooms/lobby/messages?user=alice" | grep -q '"type":"sent"' || fail 'it stores nothing'
  kill "$server"
  wait "$server" || fail 'it does not end well'
  server=''
}

# --- Checksums

(cd "$release" && sha256sum --quiet -c SHA256SUMS) || fail 'a checksum is wrong'
for file in "$release"/*; do
  [[ $file == */SHA256SUMS* ]] || grep -qF "  $(basename "$file")" "$release/SHA256SUMS" ||
    fail "$(basename "$file") has no checksum"
done

# --- A signature, with a key for this once: it counts for these checksums and for that key alone

mkdir "$folder/signed"
cp "$release/SHA256SUMS" "$folder/signed"
for key in ours foreign; do
  ssh-keygen -q -t ed25519 -N '' -C '' -f "$folder/$key"
done
echo "release namespaces=\"hubbub\" $(cat "$folder/ours.pub")" >"$folder/signers"
verifies() {
  ssh-keygen -q -Y verify -f "$folder/signers" -I release -n hubbub -s "$folder/signed/SHA256SUMS.sig" <"$1" 2>/dev/null
}
scripts/release/sign.sh "$folder/signed" "$folder/ours" "$folder/signers" || fail 'the checksums cannot be signed'
verifies "$release/SHA256SUMS" || fail 'the signature does not count'
! verifies <(sed 1d "$release/SHA256SUMS") || fail 'the signature counts for other checksums'
! scripts/release/sign.sh "$folder/signed" "$folder/foreign" "$folder/signers" 2>/dev/null || fail "anybody's key signs"
[ ! -e "$folder/signed/SHA256SUMS.sig" ] || fail 'a signature that does not count was left'

# --- Tarballs

own=$(uname -m)
for tarball in "$release"/*.tar.gz; do
  name=$(basename "$tarball" .tar.gz)
  tar -xzf "$tarball" -C "$folder"
  binary=$folder/$name/hubbub
  readelf -lW "$binary" | grep -q INTERP && fail "$name is not static"
  run=("$binary")
  if [[ $name != *-$own-* ]]; then
    emulator=qemu-${name#hubbub-"$version"-}
    emulator=${emulator%-linux}-static
    command -v "$emulator" >/dev/null || install qemu-user-static || {
      echo "release_test: no $emulator here; $name is not run"
      continue
    }
    run=("$emulator" "$binary")
  fi
  "${run[@]}" --version | grep -qE "^hubbub ${version//./\\.} \([0-9a-f]{10}\)$" || fail "$name --version"
  serves "${run[@]}" serve --listen 127.0.0.1:0
  echo "release_test: $name serves"
done
unpacked=$folder/hubbub-$version-$own-linux

# --- The bill of materials has every crate whose code is in the binary, by the paths that panics name

for bill in "$release"/*.cdx.json; do
  python3 - "$bill" >"$folder/bill" <<'PY'
import json, sys
bill = json.load(open(sys.argv[1]))
assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
refs = [c["bom-ref"] for c in bill["components"]] + [bill["metadata"]["component"]["bom-ref"]]
assert len(set(refs)) == len(refs), "a reference twice"
for dependency in bill["dependencies"]:
    assert {dependency["ref"], *dependency["dependsOn"]} <= set(refs), dependency
for c in bill["components"]:
    if c["bom-ref"] != "rust-std":
        assert len(c["hashes"][0]["content"]) == 64 and c["licenses"], c
        print(c["name"] + "-" + c["version"])
PY
  missing=$(sed 's/-\([0-9]*\.\)/ \1/' "$folder/bill" | grep -vxFf "$folder/$(basename "$bill" .cdx.json)/NOTICES") &&
    fail "NOTICES lacks $missing"
  grep -aoE '/cargo/registry/src/[^/]+/[a-z0-9_-]+-[0-9][0-9.]*' "$folder/$(basename "$bill" .cdx.json)/hubbub" |
    sed 's|.*/||' | sort -u >"$folder/named"
  [ "$(wc -l <"$folder/named")" -ge 10 ] || fail 'the crates in the binary could not be read'
  missing=$(grep -vxFf "$folder/bill" "$folder/named") && fail "$(basename "$bill") lacks $missing"
  ! grep -q '^divan-' "$folder/bill" || fail "$(basename "$bill") has what only tests need"
done
echo "release_test: the bill of materials has $(wc -l <"$folder/bill") crates, and those in the binary"

# --- The manual names every option, and bash completes

commands=$("$unpacked/hubbub" --help | sed -n '/^Commands:/,/^[A-Z].*:$/ s/^  \([a-z]\{1,\}\)$/\1/p' | grep -vx help)
[ "$(wc -w <<<"$commands")" -ge 5 ] || fail 'the commands could not be read'
for command in '' $commands; do
  page=$unpacked/manual/hubbub${command:+-$command}.1
  LC_ALL=C.UTF-8 MANWIDTH=500 man --warnings -l "$page" >"$folder/page" 2>"$folder/man.err" || fail "man $page"
  [ ! -s "$folder/man.err" ] || fail "man warns of $page"
  # Without a word behind `hubbub`, the options of `serve`.
  # shellcheck disable=SC2086
  for option in $("$unpacked/hubbub" $command --help | grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+'); do
    grep -qE -- "(^|[ ,])$option([ =,\[]|\$)" "$folder/page" || fail "$(basename "$page") has no $option"
  done
done
complete_line() {
  bash --norc -c 'source "$0"; COMP_WORDS=(hubbub "$@"); COMP_CWORD=$#; _hubbub hubbub "${@: -1}" hubbub
    printf "%s\n" "${COMPREPLY[@]}"' "$unpacked/manual/hubbub.bash" "$@"
}
complete_line se | grep -qx serve || fail 'bash does not complete a command'
complete_line serve --tls-c | grep -qx -- --tls-cert || fail 'bash does not complete an option'
echo 'release_test: the manual has every option, and bash completes them'

# --- The Debian packages, as Debian's own check sees them

if command -v lintian >/dev/null; then
  lintian --allow-root --fail-on error,warning "$release"/*.deb || fail 'lintian has something to say'
else
  echo 'release_test: no lintian here, so the packages are not looked at'
fi

# --- The Debian package, in a root that has a shell, and a systemctl that notes what it is asked for

[ "$own" = x86_64 ] && architecture=amd64 || architecture=arm64
package=$release/hubbub_${version/-/\~}_$architecture.deb
root=$folder/root
mkdir -p "$root"/{bin,usr/bin,tmp,run/systemd/system,proc,var/lib/dpkg/{info,updates,triggers}}
: >"$root/var/lib/dpkg/status"
cp "$(command -v busybox)" "$root/bin/sh"
printf '#!/bin/sh\necho "$@" >>/tmp/asked\n' >"$root/usr/bin/systemctl"
chmod 755 "$root/usr/bin/systemctl"
# As root of a name space of its own, if not as root.
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(unshare --map-root-user)
# Runs dpkg on that root, which must ask systemctl for this and no more.
dpkg_asks() {
  local asked=$1
  shift
  : >"$root/tmp/asked"
  PATH=$PATH:/usr/sbin:/sbin "${as_root[@]}" dpkg --root="$root" --log="$folder/dpkg.log" "$@" >"$folder/dpkg.out" 2>&1 ||
    fail "dpkg $*"
  [ "$(paste -sd, "$root/tmp/asked")" = "$asked" ] || fail "dpkg $* asked systemctl for $(paste -sd, "$root/tmp/asked")"
}
files() {
  (cd "$root" && find . -path ./var -prune -o -type f -print | sort)
}
: >"$root/tmp/asked"
files >"$folder/files-before"
dpkg_asks daemon-reload --install "$package"
unit=$root/usr/lib/systemd/system/hubbub.service
program=$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' "$unit")
[ -x "$root$program" ] || fail "the unit starts $program, which is not there"
[ "$(stat -c %a "$root$(sed -n 's/^EnvironmentFile=//p' "$unit")")" = 600 ] || fail 'the secrets can be read by all'
[ -z "$(find "$root" -perm /6022 ! -type l -path '*hubbub*')" ] || fail 'a file can be written by all'
# What the unit does: the options come from the file.
echo HUBBUB_LISTEN=127.0.0.1:0 >>"$root/etc/hubbub.env"
serves "${as_root[@]}" chroot "$root" /bin/sh -c "set -a; . /etc/hubbub.env; exec $program serve"
dpkg_asks daemon-reload,'try-restart hubbub.service' --install "$package"
grep -q '^HUBBUB_LISTEN=127.0.0.1:0' "$root/etc/hubbub.env" || fail 'an upgrade changes the configuration'
dpkg_asks 'disable --now hubbub.service',daemon-reload --remove hubbub
[ ! -e "$root$program" ] || fail 'a removal leaves the program'
[ -e "$root/etc/hubbub.env" ] || fail 'a removal takes the configuration'
dpkg_asks '' --purge hubbub
diff "$folder/files-before" <(files) >&2 || fail 'a purge leaves files'
echo 'release_test: the Debian package installs, serves, upgrades, and goes'
echo 'release_test: passed'
