"""Draws the errors of the built-in presets: python tools/draw_presets.py [--out FILE].

Exact errors of the stored weights, at the knots and between them; no model is run.
"""

import argparse
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exact_error import vertices
from functions import FUNCTIONS

import keras_sawtooth as ks

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "presets.png"
UNIT = 1e-5
# Where there is more to see than on the whole interval: the first pieces of 256 that
# are all alike, and sections that shrink towards 0.
DETAIL = {"square": (-1.0, -0.9375)}
GRADED = {"sqrt": 4}


def draw(axis, name):
    function, known = FUNCTIONS[name], ks.presets[f"sawtooth_{name}"]
    low, high = function.interval
    knots, values = vertices(ks.from_preset(f"sawtooth_{name}"), low, high)
    # Between two knots the error is one arc; points inside show its height.
    shares = np.linspace(0, 1, 17 if name in DETAIL else 5)
    x = np.unique([knots[:-1] + share * np.diff(knots) for share in shares])
    errors = np.interp(x, knots, values) - function.function(x)
    largest = known["max_error"] / UNIT
    axis.axhline(0, color="0.8", linewidth=0.8)
    for bound in (-largest, largest):
        axis.axhline(bound, color="C1", linewidth=0.9, linestyle="--")
    axis.plot(x, errors / UNIT, color="C0", linewidth=0.9 if name in DETAIL else 0.6)
    formula = re.sub(r"x\^(\d)", r"$x^\1$", function.formula)
    note = ", first 8 pieces" if name in DETAIL else ""
    axis.set_title(formula + note, fontsize="medium")
    axis.set_ylim(-1.35 * largest, 1.35 * largest)
    axis.annotate(
        f"{known['max_error']:.1e}",
        (0.98, 0.97),
        xycoords="axes fraction",
        horizontalalignment="right",
        verticalalignment="top",
        color="C1",
        fontsize="small",
    )
    axis.set_xlim(*DETAIL.get(name, function.interval))
    if name in GRADED:
        power = GRADED[name]
        axis.set_xscale(
            "function", functions=(lambda x: abs(x) ** (1 / power), lambda t: t**power)
        )
        axis.set_xticks(
            [0, 0.001, 0.01, 0.1, 0.5, 1], ["0", ".001", ".01", ".1", ".5", "1"]
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    figure, axes = plt.subplots(2, 4, figsize=(12, 4.8), layout="constrained")
    for axis, name in zip(axes.flat, FUNCTIONS, strict=False):
        draw(axis, name)
    for axis in axes[:, 0]:
        axis.set_ylabel("model - function, in $10^{-5}$")
    legend = axes.flat[-1]
    legend.axis("off")
    legend.plot([], [], color="C0", label="error, float64")
    legend.plot([], [], color="C1", linestyle="--", label="largest error, as stored")
    legend.legend(loc="center", frameon=False)
    figure.savefig(arguments.out, dpi=130)
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
