"""Draws the errors of the built-in presets: python tools/draw_presets.py [--out FILE].

Exact errors of the stored weights, at the knots and between them; no model is run.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exact_error import vertices
from functions import FUNCTIONS

import keras_sawtooth as ks

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "presets.png"
# The smallest power of ten below all curves, in which the axes are labelled.
UNIT = 1e-5


def draw(axis, name):
    function, known = FUNCTIONS[name], ks.presets[f"sawtooth_{name}"]
    low, high = function.interval
    knots, values = vertices(ks.from_preset(f"sawtooth_{name}"), low, high)
    # Between two knots the error is one arc; three points inside show its height.
    x = np.unique([knots[:-1] + t * np.diff(knots) for t in (0, 0.25, 0.5, 0.75, 1)])
    errors = np.interp(x, knots, values) - function.function(x)
    largest = known["max_error"]
    axis.axhline(0, color="0.8", linewidth=0.8)
    for bound in (-largest, largest):
        axis.axhline(bound / UNIT, color="C1", linewidth=0.9, linestyle="--")
    axis.plot(x, errors / UNIT, color="C0", linewidth=0.6)
    axis.set_title(
        f"{function.formula}, largest {largest:.1e}", fontsize="medium", loc="left"
    )
    axis.set_xlim(low, high)
    axis.set_ylim(-1.25 * largest / UNIT, 1.25 * largest / UNIT)


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
    legend.plot([], [], color="C0", label="error on the interval")
    legend.plot([], [], color="C1", linestyle="--", label="largest error, as stated")
    legend.legend(loc="center", frameon=False)
    figure.savefig(arguments.out, dpi=130)
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
