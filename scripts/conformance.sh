#!/usr/bin/env bash
# Holds the connection code to RFC 6455: starts an echo server made of it and drives the Autobahn
# test cases against it, all but those for compression, which is not spoken here: in the clear, and
# through TLS. Leaves a page for each case in target/conformance/report and report-tls.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh

# The suite that drives Autobahn's own cases (https://github.com/curioswitch/kosoku), and how many
# this version has without groups 12 and 13, the compression.
version=0.1.0
cases=301

home=${CARGO_TARGET_DIR:-target}/conformance
venv=$home/kosoku-$version
mkdir -p "$home"

fail() {
  echo "conformance: FAILED: $1" >&2
  exit 1
}

server=''
clean_up() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
  fi
}
trap clean_up EXIT

if [ ! -x "$venv/bin/kosoku" ]; then
  new_venv "$venv"
  # Only as a wheel: from its source it would need a Rust toolchain of its own choosing.
  "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    "kosoku==$version"
fi

binary=$(cargo build --locked --release --features tls --bench echo --message-format json-render-diagnostics |
  "$venv/bin/python" -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["target"]["name"] == "echo":
        print(message["executable"])
')

# An authority, and the certificate that it signed.
certificates=$home/certificates
mkdir -p "$certificates"
new_key() {
  openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout "$certificates/$1.key" -out "$certificates/$1.pem" -subj "/CN=$1" "${@:2}" 2>/dev/null
}
new_key ca
new_key server -CA "$certificates/ca.pem" -CAkey "$certificates/ca.key" \
  -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE

# Each case has two verdicts: on what was said, and on how the connection was closed.
judge() {
  "$venv/bin/python" - "$1" "$cases" <<'END'
import collections
import json
import sys

index, expected = sys.argv[1], int(sys.argv[2])
with open(index) as file:
    cases = [case for agent in json.load(file).values() for case in agent.items()]
fine = {"OK", "NON-STRICT", "INFORMATIONAL"}
for verdict, said in [("behavior", "said"), ("behaviorClose", "closed")]:
    totals = collections.Counter(case[verdict] for _, case in cases)
    print(f"conformance: {said}:", ", ".join(f"{n} {name}" for name, n in totals.most_common()))
wrong = [
    f"case {name}: {case['behavior']}, closed {case['behaviorClose']}"
    for name, case in cases
    if not {case["behavior"], case["behaviorClose"]} <= fine
]
if len(cases) != expected:
    wrong.append(f"{len(cases)} cases ran instead of {expected}")
for line in wrong:
    print("conformance:", line, file=sys.stderr)
sys.exit(1 if wrong else 0)
END
}

# Runs all cases; the report goes to this folder, and the other arguments to the server.
hold() {
  local report=$1 line suite=0
  # The server ends when its standard input does: with this script, however that ends.
  coproc server_io { exec "$binary" "${@:2}"; }
  server=$!
  read -r -t 10 line <&"${server_io[0]}" || fail 'the echo server did not start'

  # A report from an earlier run must not pass for this one's.
  rm -rf "$report"
  timeout 240 "$venv/bin/kosoku" --exclude '12.*' --exclude '13.*' --outdir "$report" \
    "${line#listening on ws://}" >"$home/kosoku.log" 2>&1 || suite=$?
  if [ ! -f "$report/index.json" ]; then
    tail -n 20 "$home/kosoku.log" >&2
    fail "the suite ended with $suite and without a report"
  fi
  judge "$report/index.json" || fail "see $report/index.html"
  # What the suite itself holds against us counts as well.
  [ "$suite" -eq 0 ] || fail "the suite ended with $suite; see $home/kosoku.log"
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=''
}

hold "$home/report"
echo "conformance: all $cases cases passed in the clear"
hold "$home/report-tls" "$certificates"
echo "conformance: all $cases cases passed through TLS"
