#!/usr/bin/env bash
# Packs a binary into a folder, from the source that it was built from: a tarball, a Debian package, and a software bill of
# materials. The same binary, manual and SOURCE_DATE_EPOCH give the same bytes.
#
#     scripts/release/package.sh TARGET BINARY MANUAL OUT
#
# MANUAL is a folder that the example `manual` wrote.
set -euo pipefail
target=$1 binary=$(realpath "$2") manual=$(realpath "$3") out=$(realpath "$4")
cd "$(dirname "$0")/../.."
# Modes of files and orders of names must not depend on who packs.
umask 022
export LC_ALL=C
: "${SOURCE_DATE_EPOCH:?is the time of all files, in seconds since 1970}"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
name=hubbub-$version-${target%%-*}-linux
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# --- The bill of materials, and the licences of what is in it

cargo metadata --locked --format-version 1 --filter-platform "$target" --features tls >"$folder/metadata"
python3 scripts/release/sbom.py "$target" tls <"$folder/metadata" >"$out/$name.cdx.json"
python3 scripts/release/notices.py "$out/$name.cdx.json" <"$folder/metadata" >"$folder/NOTICES"

# --- The tarball

tree=$folder/$name
install -D -m 755 "$binary" "$tree/hubbub"
cp LICENSE "$folder/NOTICES" README.md scripts/release/CHANGELOG.md "$tree"
cp -r "$manual" "$tree/manual"
cp -r scripts/deploy "$tree/deploy"
# They build an image from the source, which is not there.
rm "$tree"/deploy/{Dockerfile*,compose*}
tar --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
  --mode=u=rwX,go=rX -C "$folder" -c "$name" | gzip -n -9 >"$out/$name.tar.gz"

# --- The Debian package. `dpkg-deb` alone makes the same bytes twice, and needs no crates to be compiled, as `cargo-deb`
# would.

case $target in
  x86_64-*) architecture=amd64 ;;
  aarch64-*) architecture=arm64 ;;
  *) echo "package: what does Debian call $target?" >&2 && exit 1 ;;
esac
# To Debian `-` begins a revision, and only `~` is before the end: 1.0.0~rc.1 is older than 1.0.0.
debian_version=${version/-/\~}
tree=$folder/debian
put() { install -D -m "$1" "$2" "$tree/$3"; }
put 755 "$binary" usr/bin/hubbub
put 600 scripts/deploy/hubbub.env etc/hubbub.env
mkdir -p "$tree"/{DEBIAN,usr/lib/systemd/system}
# Without its beginning, which says how to install it by hand.
sed '/^\[Unit\]/,$!d; s|/usr/local/bin/|/usr/bin/|' scripts/deploy/hubbub.service \
  >"$tree/usr/lib/systemd/system/hubbub.service"
for page in "$manual"/*.1; do
  put 644 "$page" "usr/share/man/man1/$(basename "$page")"
done
put 644 "$manual/hubbub.bash" usr/share/bash-completion/completions/hubbub
put 644 "$manual/_hubbub" usr/share/zsh/vendor-completions/_hubbub
put 644 "$manual/hubbub.fish" usr/share/fish/vendor_completions.d/hubbub.fish
put 644 LICENSE usr/share/doc/hubbub/copyright
put 644 "$folder/NOTICES" usr/share/doc/hubbub/NOTICES
put 644 README.md usr/share/doc/hubbub/README.md
put 644 scripts/release/CHANGELOG.md usr/share/doc/hubbub/CHANGELOG.md
for page in 99-hubbub.conf limits.conf nginx.conf haproxy.cfg Caddyfile; do
  put 644 "scripts/deploy/$page" "usr/share/doc/hubbub/examples/$page"
done
put 644 scripts/release/debian/lintian-overrides usr/share/lintian/overrides/hubbub
# What Debian's tools read as one.
cat >"$tree/usr/share/doc/hubbub/changelog" <<END
hubbub ($debian_version) unstable; urgency=medium

  * See /usr/share/doc/hubbub/CHANGELOG.md.

 -- $(sed -n 's/^Maintainer: //p' scripts/release/debian/control)  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
gzip -n -9 "$tree"/usr/share/man/man1/*.1 "$tree/usr/share/doc/hubbub/changelog"
for page in postinst prerm postrm; do
  put 755 "scripts/release/debian/$page" "DEBIAN/$page"
done
echo /etc/hubbub.env >"$tree/DEBIAN/conffiles"
# For `dpkg --verify`.
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
sed "s/@VERSION@/$debian_version/; s/@ARCHITECTURE@/$architecture/
  s/@SIZE@/$(($(stat -c %s "$binary") / 1024))/" scripts/release/debian/control >"$tree/DEBIAN/control"
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$tree" "$out/hubbub_${debian_version}_$architecture.deb" >/dev/null
