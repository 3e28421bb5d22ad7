#!/usr/bin/env bash
# Signs the checksums of a release with an SSH key, and verifies that as a downloader does. The release may be made on
# another machine than the one that has the key.
#
#     scripts/release/sign.sh FOLDER KEY [SIGNERS]
#
# SIGNERS has the public key (default scripts/release/signers).
set -euo pipefail
sums=$1/SHA256SUMS
signers=${3:-$(dirname "$0")/signers}
rm -f "$sums.sig"
ssh-keygen -q -Y sign -f "$2" -n hubbub "$sums"
ssh-keygen -q -Y verify -f "$signers" -I release -n hubbub -s "$sums.sig" <"$sums" || {
  rm "$sums.sig"
  echo "sign: $signers does not have that key: add a line 'release namespaces=\"hubbub\" ssh-…'" >&2
  exit 1
}
