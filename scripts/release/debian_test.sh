#!/usr/bin/env bash
# Tests the Debian package of a release as an operator has it: in a fresh Debian that has booted systemd. A package with an
# older program is installed, serves, is replaced by this one while a client listens, and goes again.
#
#     scripts/release/debian_test.sh PACKAGE BEFORE
#
# BEFORE is the older program. It takes root, and a machine that lets containers boot; elsewhere nothing is tested.
set -euo pipefail
package=$(realpath "$1") before=$(realpath "$2")
cd "$(dirname "$0")/../.."
source scripts/install.sh
if [ "$(id -u)" -ne 0 ]; then
  echo 'debian_test: it takes root, so the package is not tried under systemd'
  exit 0
fi
command -v debootstrap >/dev/null || install debootstrap || exit 1
command -v systemd-nspawn >/dev/null || install systemd-container || exit 1

folder=$(mktemp -d)
root=$folder/root
container=''
clean_up() {
  [ -z "$container" ] || kill "$container" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT
fail() {
  echo "debian_test: FAILED: $1" >&2
  inside journalctl --no-pager -u hubbub.service 2>/dev/null | tail -n 20 >&2 || true
  tail -n 20 "$folder"/*.{out,err} 2>/dev/null >&2 || true
  exit 1
}

# --- A Debian that runs

debootstrap --variant=minbase --include=bash-completion,dbus,man-db,systemd-sysv bookworm "$root" >"$folder/debootstrap.out" ||
  fail 'no Debian can be made'
if ! systemd-nspawn --quiet --register=no --keep-unit --directory="$root" true >"$folder/nspawn.out" 2>&1; then
  echo "debian_test: no container runs here, so the package is not tried under systemd"
  exit 0
fi
systemd-nspawn --quiet --register=no --keep-unit --private-network --directory="$root" --boot \
  >"$folder/boot.out" 2>&1 </dev/null &
container=$!
# The first process in there is the container's only child.
inside() {
  nsenter --target "$(pgrep -P "$container")" --mount --uts --ipc --net --pid --root --wd -- "$@"
}
# Waits until a command succeeds in there.
until_inside() {
  for _ in $(seq 600); do
    ! inside "$@" >/dev/null 2>&1 || return 0
    sleep 0.1
  done
  fail "waited in vain for: $*"
}
until_inside systemctl is-active multi-user.target

# --- The older one. Maintainer scripts and files are this version's.

dpkg-deb --raw-extract "$package" "$folder/older"
cp "$before" "$folder/older/usr/bin/hubbub"
sed -i 's/^Version: .*/&~before/' "$folder/older/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$folder/older" "$root/root/older.deb" >/dev/null
cp "$package" "$root/root/this.deb"

inside dpkg --install /root/older.deb >"$folder/install.out" 2>&1 || fail 'it cannot be installed'
! inside systemctl is-active --quiet hubbub || fail 'an installation starts it'
! inside systemctl is-enabled --quiet hubbub || fail 'an installation enables it'
echo 'HUBBUB_DATA=/var/lib/hubbub' >>"$root/etc/hubbub.env"
inside systemctl enable --now hubbub 2>"$folder/enable.err" || fail 'it does not start'
inside hubbub ready || fail 'it is not ready'
main_pid() { inside systemctl show --value -p MainPID hubbub; }
old=$(main_pid)
user=$(inside stat -c %u "/proc/$old")
[ "$user" -ne 0 ] || fail 'it serves as root'
! inside grep -q ":$user:" /etc/passwd || fail "it serves as somebody else's user"
inside hubbub say alice 'to the older one' >/dev/null

# --- This one in its place

inside hubbub tail --as bob --count 1 --timeout 60 >"$folder/bob.out" 2>"$folder/bob.err" &
bob=$!
for _ in $(seq 100); do
  ! grep -q 'listening to lobby' "$folder/bob.err" || break
  sleep 0.1
done
inside dpkg --install /root/this.deb >"$folder/upgrade.out" 2>&1 || fail 'there is no upgrade'
inside hubbub ready || fail 'it is not ready after the upgrade'
[ "$(main_pid)" != "$old" ] || fail 'the older one still serves'
inside hubbub say carol 'to this one' >/dev/null || fail 'it takes nothing'
wait "$bob" || fail 'a listener did not get over the upgrade'
grep -qx 'carol: to this one' "$folder/bob.out" || fail 'a listener heard otherwise'
[ "$(inside hubbub tail --history 2 --count 2 --timeout 20 2>/dev/null | head -n 1)" = 'alice: to the older one' ] ||
  fail 'what was said before the upgrade is gone'
grep -q '^HUBBUB_DATA' "$root/etc/hubbub.env" || fail 'an upgrade changes the configuration'
inside dpkg --verify hubbub >"$folder/verify.out" || true
! grep -v ' /etc/hubbub.env$' "$folder/verify.out" || fail 'a file is not what the package has'
inside man --pager=cat hubbub-serve 2>/dev/null | grep -q -- --drain || fail 'man does not find the manual'
inside bash -c 'source /usr/share/bash-completion/bash_completion; _completion_loader hubbub; complete -p hubbub' \
  >/dev/null || fail 'bash does not find the completions'

# --- Gone

inside dpkg --remove hubbub >"$folder/remove.out" 2>&1 || fail 'it cannot be removed'
! inside systemctl is-active --quiet hubbub || fail 'a removal leaves it running'
inside dpkg --purge hubbub >"$folder/purge.out" 2>&1 || fail 'it cannot be purged'
[ ! -e "$root/etc/hubbub.env" ] || fail 'a purge leaves the secrets'
[ -z "$(find "$root/etc/systemd" -name '*hubbub*')" ] || fail 'a purge leaves the service enabled'
[ -n "$(ls "$root/var/lib/private/hubbub")" ] || fail 'a purge takes the messages'
echo 'debian_test: passed: it installs, serves as its own user, is upgraded under a client, and goes'
