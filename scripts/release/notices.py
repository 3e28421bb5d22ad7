#!/usr/bin/env python3
"""Prints the licences of the crates in a bill of materials, from the files that come with them: whoever passes a binary on
must pass these on as well.

    notices.py BILL < the output of `cargo metadata`
"""

import collections
import json
import pathlib
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    bill = json.load(file)
folders = {(p["name"], p["version"]): pathlib.Path(p["manifest_path"]).parent for p in json.load(sys.stdin)["packages"]}
# The crates under each text: many have the same.
crates = collections.defaultdict(list)
for component in bill["components"]:
    if component["bom-ref"] == "rust-std":
        continue
    crate = component["name"] + " " + component["version"]
    files = [
        file
        for file in sorted(folders[component["name"], component["version"]].iterdir())
        if file.name.upper().startswith(("COPYING", "COPYRIGHT", "LICENCE", "LICENSE", "NOTICE", "UNLICENSE"))
    ]
    # Where there is a choice, it is MIT, which is the shortest.
    terms = component["licenses"][0]["expression"]
    if "MIT" in terms and " OR " in terms and " AND " not in terms:
        files = [file for file in files if "MIT" in file.name.upper()] or files
    if not files:
        sys.exit(f"notices: {crate} has no file with its licence")
    for file in files:
        crates[file.read_text(encoding="utf-8").strip()].append(crate)

print("The binary has code of others. Rust's library is Copyright (c) The Rust Project Contributors, and the musl that it")
print("brings Copyright (c) 2005-2020 Rich Felker, et al.; both are under the terms of LICENSE. The crates are under these:")
for text, names in crates.items():
    print("\n" + "=" * 78 + "\n" + "\n".join(names) + "\n\n" + text)
