#!/usr/bin/env python3
"""Prints the software bill of materials of one binary, as CycloneDX 1.5 in JSON (https://cyclonedx.org/docs/1.5/json/).

    sbom.py TARGET FEATURES < the output of `cargo metadata --filter-platform TARGET --features FEATURES`

It has the crates that are linked into the binary or that are macros it was compiled with, and Rust's own library. What
tests and build scripts use is left out. It runs in the folder of Cargo.toml; SOURCE_DATE_EPOCH is the time.
"""

import datetime
import json
import os
import subprocess
import sys
import tomllib
import uuid

target, features = sys.argv[1:]
metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
root = metadata["resolve"]["root"]
# `cargo metadata` also has what the tests need, and the features that they ask for; `cargo tree` leaves those out.
tree = subprocess.check_output(
    ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"]
    + ["--target", target, "--features", features],
    text=True,
)
linked = {tuple(line.split()[:2]) for line in tree.splitlines()}
used = {id for id, package in packages.items() if (package["name"], "v" + package["version"]) in linked}
with open("Cargo.lock", "rb") as lock:
    locked = tomllib.load(lock)["package"]
checksums = {(p["name"], p["version"]): p.get("checksum") for p in locked}
rust = subprocess.check_output(["rustc", "--version"], text=True).split()[1]


def needs(crate):
    """The crates that a crate uses in the binary; a null kind is neither `dev` nor `build`."""
    return sorted(
        dep["pkg"]
        for dep in nodes[crate]["deps"]
        if dep["pkg"] in used and any(kind["kind"] is None for kind in dep["dep_kinds"])
    )


def purl(crate):
    return f"pkg:cargo/{packages[crate]['name']}@{packages[crate]['version']}"


def component(crate):
    package = packages[crate]
    name, version = package["name"], package["version"]
    # Old crates write a slash for OR.
    licences = package["license"].replace("/", " OR ")
    entry = {
        "type": "application" if crate == root else "library",
        "bom-ref": purl(crate),
        "name": name,
        "version": version,
        "licenses": [{"expression": licences}],
        "purl": purl(crate),
    }
    checksum = checksums[(name, version)]
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


others = sorted(used - {root}, key=purl)
std = {
    "type": "library",
    "bom-ref": "rust-std",
    "name": "rust-std",
    "version": rust,
    "description": f"Rust's library for {target}, with the musl that it brings",
}
moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
# The same materials have the same number.
number = uuid.uuid5(uuid.NAMESPACE_URL, " ".join([target, features, rust, *map(purl, [root, *others])]))
print(
    json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": f"urn:uuid:{number}",
            "version": 1,
            "metadata": {
                "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "component": component(root),
                "properties": [
                    {"name": "cargo:target", "value": target},
                    {"name": "cargo:features", "value": features},
                ],
            },
            "components": [std, *map(component, others)],
            "dependencies": [
                {"ref": purl(crate), "dependsOn": [purl(need) for need in needs(crate)]}
                for crate in [root, *others]
            ],
        },
        indent=1,
        sort_keys=True,
    )
)
