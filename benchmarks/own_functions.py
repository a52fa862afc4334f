"""The recipe of paper_1d.py on functions of your own, at the rates of its tables.

Networks of width 4 and depth 5 on [0, 1], with five ways to begin, as there. Nothing is
chosen here, so functions that are in no list of paper_1d.py show what the recipe is
worth. They are written with the names of NumPy, without `np.`, of an `x` from 0 to 1:

    python benchmarks/own_functions.py "exp(-3 * x)" "1 / (0.1 + x)" [--quick]

Prints, for every function, the mean squared errors on 500 points beside those of the
best function of 32 pieces, and between 10 points beside those of straight lines. Writes
benchmarks/results/own_functions.json.
"""

import json
import sys

import numpy as np
import paper_1d
import paper_1d_report
from runs import RESULTS
from runs import Runs
from runs import parse_arguments
from tables import markdown

SEEDS = 10


def parse(expression):
    """`"exp(-3 * x)"` as a function of an array; ends the program if it is none."""

    def function(x):
        # Typed by who runs the program, in whose name it may do what it likes.
        return eval(expression, vars(np) | {"x": x})

    for task in ("dense", "sparse"):
        for x in paper_1d.points(task):
            try:
                with np.errstate(all="raise"):
                    y = np.asarray(function(x), "float64")
                if y.shape != x.shape or not np.isfinite(y).all():
                    raise ValueError("it must have a finite value for every x")
            except Exception as error:
                sys.exit(
                    f"Not a function of x on [0, 1] in the names of NumPy: "
                    f"{expression!r} ({error})"
                )
    return function


def table(functions, rows, results, floors, lines):
    """Errors of all functions and rows; `results` by task and row."""
    header = ["function", "network", "500 points: min", "mean", "mean / floor"]
    header += ["10 points: min", "mean", "mean / lines"]
    cells = []
    for k, name in enumerate(functions):
        for row in rows:
            cells.append([f"`{name}`", row])
            dense = results["dense", row]["train"][k]
            sparse = results["sparse", row]["test"][k]
            for errors, best in ((dense, floors[name]), (sparse, lines[name])):
                mean = np.mean(errors)
                cells[-1] += [f"{min(errors):.2e}", f"{mean:.2e}", f"{mean / best:.3g}"]
    return markdown(header, cells)


def main():
    def add_arguments(parser):
        parser.add_argument("functions", nargs="+", help="such as 'exp(-3 * x)'")

    arguments = parse_arguments(__doc__, "own_functions.json", add_arguments)
    functions = tuple(dict.fromkeys(arguments.functions))
    paper_1d.KNOWN_FUNCTIONS |= {name: parse(name) for name in functions}
    runs = Runs(arguments.output, arguments.quick, sawtooth=paper_1d.SAWTOOTH)
    rows, seeds, steps = paper_1d.ROWS, SEEDS, paper_1d.STEPS
    if arguments.quick:
        rows, seeds, steps = ("RAAI", "tied scales"), 2, 400
    tables = json.loads((RESULTS / "paper_1d.json").read_text())["runs"]
    results = {}
    for task, chosen_by in (("dense", "dense"), ("sparse", "other")):
        for row in rows:
            results[task, row] = runs(
                lambda functions, **settings: paper_1d.train(
                    functions=functions.split("; "), depth=paper_1d.DEPTH, **settings
                ),
                functions="; ".join(functions),
                task=task,
                row=row,
                rate=paper_1d_report.chosen(tables, chosen_by, row)[0],
                seeds=seeds,
                steps=steps,
            )
    pieces = 2**paper_1d.DEPTH
    floors = {
        name: runs(paper_1d.floor, function=name, pieces=pieces)["error"]
        for name in functions
    }
    lines = {name: paper_1d.interpolation(name) for name in functions}
    print(f"\n{table(functions, rows, results, floors, lines)}")


if __name__ == "__main__":
    main()
