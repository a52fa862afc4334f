"""The recipe of paper_1d.py on functions of your own, at the rates of its tables.

Networks of width 4 and depth 5 on [0, 1], with five ways to begin, as there. Nothing is
chosen here, so functions that are in no list of paper_1d.py show what the recipe is
worth. They are written with the names of NumPy, without `np.`, of an `x` from 0 to 1:

    python benchmarks/own_functions.py "exp(-3 * x)" "1 / (0.1 + x)" [--quick]

A function that begins with a minus needs `--` in front: `own_functions.py -- "-x**2"`.

Prints, for every function, the mean squared errors on 500 points beside those of the
best function of 32 pieces, and between 10 points beside those of straight lines, unless
these are exact. Writes benchmarks/results/own_functions.json.
"""

import sys

import numpy as np
import paper_1d
import paper_1d_report
from files import read_results
from runs import RESULTS
from runs import Runs
from runs import parse_arguments
from tables import markdown

SEEDS = 10
# Errors are squared in float32, and summed over points and networks.
LARGEST = 1e16


def parse(expression):
    """`"exp(-3 * x)"` as a function of an array; ends the program if it is none."""

    def function(x):
        # What overflows or is invalid may be in a branch that `where` does not take.
        with np.errstate(all="ignore"):
            # Typed by who runs the program, in whose name it may do what it likes.
            y = np.asarray(eval(expression, vars(np) | {"x": x}))
        if y.shape != x.shape:
            raise ValueError(f"its shape is {y.shape} where that of x is {x.shape}")
        if np.iscomplexobj(y):
            raise ValueError("it is complex")
        y = y.astype("float64")
        wrong = ~(np.abs(y) < LARGEST)
        if wrong.any():
            raise ValueError(
                f"at x = {x[wrong][0]:.6g} it is {y[wrong][0]:.6g}, and must be finite "
                f"and below {LARGEST:g}"
            )
        return y

    for x in (*paper_1d.points("dense"), *paper_1d.points("sparse")):
        try:
            function(x)
        except Exception as error:
            sys.exit(
                f"Not a function of x on [0, 1] in the names of NumPy: "
                f"{expression!r} ({error})"
            )
    return function


def beyond_rounding(error, function):
    """A mean squared `error`, zero if it is below the rounding of float32."""
    y = paper_1d.KNOWN_FUNCTIONS[function](paper_1d.points("dense")[0])
    rounding = np.finfo("float32").eps ** 2 * np.mean(y**2)
    return error if error > rounding else 0


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
                cells[-1] += [f"{min(errors):.2e}", f"{mean:.2e}"]
                cells[-1] += [f"{mean / best:.3g}" if best else ""]
    return markdown(header, cells)


def main():
    def add_arguments(parser):
        parser.add_argument(
            "functions", nargs="+", help="of x from 0 to 1, such as 'exp(-3 * x)'"
        )

    arguments = parse_arguments(__doc__, "own_functions.json", add_arguments)
    functions = tuple(dict.fromkeys(arguments.functions))
    paper_1d.KNOWN_FUNCTIONS |= {name: parse(name) for name in functions}
    runs = Runs(arguments.output, arguments.quick, sawtooth=paper_1d.SAWTOOTH)
    # Before hours of training, as they can fail.
    floors, lines = {}, {}
    for name in functions:
        floor = runs(paper_1d.floor, function=name, pieces=2**paper_1d.DEPTH)["error"]
        floors[name] = beyond_rounding(floor, name)
        lines[name] = beyond_rounding(paper_1d.interpolation(name), name)
    rows, seeds, steps = paper_1d.ROWS, SEEDS, paper_1d.STEPS
    if arguments.quick:
        rows, seeds, steps = ("RAAI", "tied scales"), 2, 400
    tables = read_results(RESULTS / "paper_1d.json", "runs")["runs"]
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
    print(f"\n{table(functions, rows, results, floors, lines)}")


if __name__ == "__main__":
    main()
