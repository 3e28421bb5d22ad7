#!/usr/bin/env python3
"""Runs the mutants of cargo-mutants against the tests that reach them; see scripts/mutants.sh.

cargo-mutants compiles each mutant by itself, which takes a day for two thousand of them. Here all are in one build: the
body of a function becomes a `match` on the number of the mutant that is active, with one arm for each of its mutants
and a last one for the code as it is. MUTANT names the active one, for the test and for the servers that it starts; with
MUTANT_TRACE a program notes which functions it reaches.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
FOLDER = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")).absolute() / "mutants"
TREE = FOLDER / "tree"
CARGO = ["cargo", "--quiet", "--locked"]
FEATURES = ["--features", "tls"]
# Most tests wait more than they compute, and a mutant that makes them wait for ever the most.
WORKERS = 4 * os.cpu_count()
# A test is given this long, and so many times what it takes without a mutant.
GRACE_SECONDS, SLOWER = 25, 6
# The integration tests that one mutant is tried on end after about this long.
SECONDS_PER_MUTANT = 120


class Mutant:
    """One change of one function; `number` is its place in the list, from 1."""

    def __init__(self, number, listed):
        self.number = number
        self.name = listed["name"]
        self.file = listed["file"]
        self.span = listed["span"]
        self.function = listed["function"]
        self.text = listed["replacement"]
        self.genre = listed["genre"]
        # Without line and column, which change with every edit above.
        self.title = re.sub(r":\d+:\d+: ", ": ", self.name, count=1)

    def home(self):
        """What the mutants of one function have in common."""
        start = self.function["span"]["start"]
        return (start["line"], start["column"])


class Text:
    """A source file, addressed by line and column from 1."""

    def __init__(self, path):
        self.text = path.read_text()
        self.lines = [0]
        for line in self.text.split("\n"):
            self.lines.append(self.lines[-1] + len(line) + 1)

    def at(self, place):
        return self.lines[place["line"] - 1] + place["column"] - 1

    def body(self, span):
        """Where the body of a function begins and ends, with its braces."""
        at, end, depth = self.at(span["start"]), self.at(span["end"]), 0
        at = self.text.index("fn ", at)
        while depth or self.text[at] != "{":
            if self.text.startswith("//", at):
                at = self.text.index("\n", at)
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(self.text[at], 0)
            at += 1
        return at, end


def changed(source, body, mutant):
    """The body of a function with a mutant in it."""
    if mutant.genre == "FnValue":
        return "{ " + mutant.text + " }"
    begin, end = source.at(mutant.span["start"]), source.at(mutant.span["end"])
    rest = source.text[end : body[1]]
    if mutant.genre in ("MatchArm", "StructField"):
        rest = re.sub(r"^\s*,", "", rest)
    return source.text[body[0] : begin] + f" {mutant.text} " + rest


def weave(mutants):
    """Writes the files with all mutants in them. Returns, for each file, the mutant of each line that is one's."""
    owners = {}
    for file, theirs in grouped(mutants, lambda mutant: mutant.file).items():
        source = Text(pathlib.Path(file))
        parts, at, line, owner = [], 0, 1, {}

        def add(text, mutant=None):
            nonlocal line
            parts.append(text)
            first, line = line, line + text.count("\n")
            for each in range(first, line + 1) if mutant else ():
                owner[each] = mutant

        for home, of_function in sorted(grouped(theirs, Mutant.home).items()):
            body = source.body(of_function[0].function["span"])
            if body[0] < at:
                # A function in another one, whose mutants are in that one's arms.
                continue
            numbers = [mutant.number for mutant in of_function]
            add(source.text[at : body[0]] + f"{{ match crate::mutant::active({min(numbers)}, &{numbers}) {{\n")
            for mutant in of_function:
                add(f"{mutant.number} => " + changed(source, body, mutant) + "\n", mutant)
                add("\n")
            add("_ => " + source.text[slice(*body)] + "\n", home)
            add("} }")
            at = body[1]
        add(source.text[at:])
        write(TREE / file, "".join(parts))
        owners[file] = owner
    return owners


def compiles(owners):
    """The mutants, and the places of functions, that the compiler refuses."""
    check = CARGO + ["check", "--lib", "--tests", "--message-format", "json"] + FEATURES
    out = subprocess.run(check, cwd=TREE, capture_output=True, text=True)
    refused = set()
    for line in out.stdout.splitlines():
        message = json.loads(line).get("message") or {}
        if message.get("level") == "error":
            for span in message["spans"]:
                owner = owners.get(span["file_name"], {}).get(span["line_start"])
                if span["is_primary"] and owner:
                    refused.add(owner if isinstance(owner, Mutant) else (span["file_name"], owner))
    if out.returncode and not refused:
        sys.exit("mutants: the code does not compile, and it is no mutant's fault:\n" + out.stderr)
    return refused


def one_build(mutants):
    """Brings all mutants that compile into one build. Returns them, and the programs of the two kinds of tests."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = subprocess.check_output(["git", "ls-files"], text=True).splitlines()
    for name in names:
        write(TREE / name, pathlib.Path(name).read_bytes())
    write(TREE / "src/mutant.rs", (HERE / "mutant.rs").read_bytes())
    library = pathlib.Path("src/lib.rs").read_text()
    # Behind the module's comment.
    begin = re.search(r"^(?!//!)", library, re.MULTILINE).start()
    allow = "#![allow(warnings, arithmetic_overflow, unconditional_panic)]\npub mod mutant;\n"
    write(TREE / "src/lib.rs", library[:begin] + allow + library[begin:])
    while True:
        refused = compiles(weave(mutants))
        if not refused:
            break
        mutants = [m for m in mutants if m not in refused and (m.file, m.home()) not in refused]
    build = CARGO + ["test", "--no-run", "--lib", "--test", "it", "--message-format", "json"] + FEATURES
    out = subprocess.run(build, cwd=TREE, stdout=subprocess.PIPE, text=True, check=True)
    programs = {}
    for line in map(json.loads, out.stdout.splitlines()):
        if line.get("executable") and line["profile"]["test"]:
            programs[line["target"]["name"]] = line["executable"]
    return mutants, [programs["hubbub"], programs["it"]]


class Test:
    """One test: how long it takes, and which functions it reaches, each by its least mutant."""

    def __init__(self, program, name):
        self.program = program
        self.name = name
        trace = FOLDER / f"trace-{os.getpid()}-{name.replace('::', '-')}"
        begun = time.monotonic()
        self.passes = self.run({"MUTANT_TRACE": str(trace)}, 300) == "passed"
        self.seconds = time.monotonic() - begun
        self.reaches = set(map(int, trace.read_text().split())) if trace.exists() else set()
        trace.unlink(missing_ok=True)

    def run(self, environment, limit):
        """`passed`, `failed`, or `late` after so many seconds; what it started ends with it."""
        test = subprocess.Popen(
            [self.program, "--exact", self.name],
            cwd=TREE,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return "failed" if test.wait(limit) else "passed"
        except subprocess.TimeoutExpired:
            return "late"
        finally:
            try:
                os.killpg(test.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            test.wait()

    def notices(self, mutant):
        """Whether it does not pass with the mutant. A failure is seen twice: one may be by chance."""
        once = ({"MUTANT": str(mutant.number)}, GRACE_SECONDS + SLOWER * self.seconds)
        outcome = self.run(*once)
        return outcome == "late" or outcome == "failed" and self.run(*once) != "passed"


def tests_of(program):
    out = subprocess.check_output([program, "--list"], cwd=TREE, text=True)
    names = [line.removesuffix(": test") for line in out.splitlines() if line.endswith(": test")]
    # `tidy` reads the source, which is not the product's here.
    names = [name for name in names if not name.startswith("tidy::")]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as workers:
        tests = list(workers.map(lambda name: Test(program, name), names))
    for test in tests:
        if not test.passes:
            print(f"mutants: without one, {test.name} fails; it is left out", flush=True)
    return [test for test in tests if test.passes]


def fate(mutant, number_of, tests):
    """`unreached`, the name of the test that notices it, or `missed`."""
    reaching = [test for test in tests if number_of[mutant.number] in test.reaches]
    if not reaching:
        return "unreached"
    end = time.monotonic() + SECONDS_PER_MUTANT
    for test in sorted(reaching, key=lambda test: test.seconds):
        if test.notices(mutant):
            return test.name
        if time.monotonic() > end:
            break
    return "missed"


def grouped(items, key):
    groups = collections.defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def write(path, content):
    """Writes a file, unless that is what it has: cargo goes by its time."""
    content = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main(files):
    patterns = [each for file in files for each in ("--file", file)]
    listed = subprocess.check_output(["cargo", "mutants", "--list", "--json"] + FEATURES + patterns, text=True)
    every = [Mutant(number, each) for number, each in enumerate(json.loads(listed), 1)]
    # A constant's has no function, and is no arm.
    mutants, programs = one_build([mutant for mutant in every if mutant.function])
    print(f"mutants: {len(every)} in the list, {len(mutants)} in the build; the others do not compile", flush=True)
    number_of = {}
    for of_function in grouped(mutants, lambda mutant: (mutant.file, mutant.home())).values():
        for mutant in of_function:
            number_of[mutant.number] = min(each.number for each in of_function)
    left = mutants
    for program in programs[: 1 if os.environ.get("MUTANTS_TESTS") == "unit" else 2]:
        tests = tests_of(program)
        fates = []
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as workers:
            for end in workers.map(lambda mutant: fate(mutant, number_of, tests), left):
                fates.append(end)
                if len(fates) % 100 == 0:
                    print(f"mutants: {len(fates)} of {len(left)}", flush=True)
        left = [mutant for mutant, end in zip(left, fates) if end in ("missed", "unreached")]
        print(f"mutants: {len(left)} survive {len(tests)} tests of {pathlib.Path(program).name}", flush=True)
    explained = {line.split("  # ")[0] for line in (HERE / "explained.txt").read_text().splitlines()}
    survivors = [mutant for mutant in left if mutant.title not in explained]
    print(*[mutant.name for mutant in survivors], sep="\n")
    print(f"mutants: {len(mutants)} run, {len(left)} survive, {len(left) - len(survivors)} of them explained")
    return 1 if survivors else 0


sys.exit(main(sys.argv[1:]))
