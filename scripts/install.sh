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
