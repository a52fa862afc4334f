"""Run the tests of every workflow on every backend, and print one table.

    python tests/reliability.py [--write docs/reliability.md] [pytest arguments]

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
import tempfile
import time

BACKENDS = ["tensorflow", "jax", "torch"]
TESTS = pathlib.Path(__file__).parent
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def run(backend, arguments):
    """Counts {"workflow, phase": [passed, ran]} of a backend, and its exit code."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "counts.json")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "workflow", "--long"]
        command += [f"--workflows={path}", str(TESTS), *arguments]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        code = subprocess.run(command, env=environment).returncode
        return json.loads(path.read_text()), code


def table(counts):
    rows = sorted({tuple(key.split(", ")) for c in counts.values() for key in c})
    lines = [
        "| workflow | phase | " + " | ".join(counts) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    for workflow, phase in rows:
        cells = []
        for backend in counts:
            passed, ran = counts[backend].get(f"{workflow}, {phase}", (0, 0))
            verdict = f"{passed} passed" if passed == ran else f"{passed} of {ran}"
            cells.append(verdict if ran else "-")
        lines.append(f"| {workflow} | {phase} | " + " | ".join(cells) + " |")
    totals = [sum(ran for _, ran in counts[backend].values()) for backend in counts]
    lines.append("| all | | " + " | ".join(map(str, totals)) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=pathlib.Path, help="page with the table")
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    options, arguments = parser.parse_known_args()
    counts, codes, start = {}, [], time.time()
    for backend in options.backends:
        counts[backend], code = run(backend, arguments)
        codes.append(code)
    text = table(counts)
    print(f"\n{text}\n{(time.time() - start) / 60:.0f} minutes")
    if options.write:
        page = options.write.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        options.write.write_text(before + BEGIN + text + END + after)
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
