#!/usr/bin/env bash
# To be sourced: `install` for the scripts that need what a fresh machine may not have.
set -euo pipefail

# Installs Debian packages, as root or with sudo; elsewhere says what is needed.
install() {
  local sudo=''
  if [ "$(id -u)" -ne 0 ]; then
    sudo='sudo'
  fi
  if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! command -v sudo >/dev/null; }; then
    echo "install: please install: $*" >&2
    return 1
  fi
  $sudo apt-get update -qq || echo 'install: the package lists are as old as they are' >&2
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Makes a Python of its own in a folder; Debian has what that takes in a package apart.
new_venv() {
  python3 -m venv "$1" >/dev/null 2>&1 && return
  install python3 python3-venv
  # By its path: another Python may come first, and it has just shown that it cannot do this.
  /usr/bin/python3 -m venv --clear "$1"
}

# Puts the code of tests/browser into a folder, beside its packages, which have no place in the tree.
install_browser_tests() {
  command -v node >/dev/null || install nodejs
  command -v npm >/dev/null || install npm
  mkdir -p "$1"
  rm -f "$1"/*.[jt]s
  cp tests/browser/*.[jt]s tests/browser/package.json "$1"
  if ! cmp -s tests/browser/package-lock.json "$1/node_modules/installed-lock.json"; then
    cp tests/browser/package-lock.json "$1"
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    cp "$1/package-lock.json" "$1/node_modules/installed-lock.json"
  fi
}
