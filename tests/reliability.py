"""Run the long tests of every workflow on every backend, and print one table.

    python tests/reliability.py RECORDS [--write docs/reliability.md] [pytest arguments]

RECORDS is a folder with one file a backend, in which every `pytest --workflows=FILE`
records what became of its tests. The table counts all of them: with
`tox run -e tensorflow,jax,torch,reliability` these are the short tests of the three
environments and the long ones of this command.

A row is a workflow in a phase; "across" are tests that change the phase or compare
the two. A cell is the number of cases that passed, of those that ran. What a test
skips, because it belongs to another backend, is not counted.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

BACKENDS = ["tensorflow", "jax", "torch"]
TESTS = pathlib.Path(__file__).parent
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def run(backend, path, arguments):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "workflow and long"]
    command += ["--long", f"--workflows={path}", str(TESTS), *arguments]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return subprocess.run(command, env=environment).returncode


def count(path):
    """Pairs [passed, ran] by workflow and phase."""
    counts = {}
    for record in json.loads(path.read_text()).values():
        key = record["workflow"], record["phase"] or "across"
        pair = counts.setdefault(key, [0, 0])
        pair[0] += record["cases"] * record["passed"]
        pair[1] += record["cases"]
    return counts


def table(counts):
    lines = [
        "| workflow | phase | " + " | ".join(counts) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    for key in sorted({key for of_backend in counts.values() for key in of_backend}):
        cells = []
        for of_backend in counts.values():
            passed, ran = of_backend.get(key, (0, 0))
            verdict = f"{passed} passed" if passed == ran else f"**{passed} of {ran}**"
            cells.append(verdict if ran else "-")
        lines.append(f"| {key[0]} | {key[1]} | " + " | ".join(cells) + " |")
    totals = [sum(ran for _, ran in c.values()) for c in counts.values()]
    lines.append("| all | | " + " | ".join(map(str, totals)) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=pathlib.Path, help="folder of the records")
    parser.add_argument("--write", type=pathlib.Path, help="page with the table")
    parser.add_argument("--backends", nargs="*", default=BACKENDS, choices=BACKENDS)
    options, arguments = parser.parse_known_args()
    paths = {backend: options.records / f"{backend}.json" for backend in BACKENDS}
    codes = [run(b, paths[b].absolute(), arguments) for b in options.backends]
    text = table({b: count(path) for b, path in paths.items() if path.exists()})
    print(f"\n{text}")
    if options.write:
        page = options.write.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        options.write.write_text(before + BEGIN + text + END + after)
    sys.exit(max(codes, default=0))


if __name__ == "__main__":
    main()
