"""Which starting values, and how robust? One thing changed at a time.

Takes sets as `uci.py` does: folders with a `data.csv` (header, target last) and a
`test_rows.txt` (one line a split: the row numbers of its test part). Validation RMSE on
the first three splits, two hidden layers of 50 units, 4,000 steps at a rate of 1e-2
unless that is what is changed; test parts are never looked at. Layers stay constrained
unless the release is what is changed:

    python benchmarks/ablations.py --data-dir DIR [--sets energy kin8nm] [--quick]

Prints a table for every argument, with the mean over the sets of the change against
the default, and the standard error over splits and seeds; and curves over learning
rates, numbers of layers and batch sizes beside relu and gelu. Writes
benchmarks/results/ablations/SET.json and docs/images/ablations.png, or elsewhere, as
`uci.py` does.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import tabular
from runs import select
from tables import markdown
from tables import with_error

import keras_sawtooth as ks

BASE = {
    "model": "sawtooth constrained",
    "layers": 2,
    "rate": 1e-2,
    "weight_decay": 0.0,
    "steps": 4000,
}
RELEASED = {"model": "sawtooth released"}
# Argument: its values, the default first, and what a value means.
ARGUMENTS = {
    "amplitude": (
        (0.25, 0.0625, 0.125, 0.5, 1),
        lambda v: {"amplitude_initializer": ks.RandomSign(v)},
    ),
    "slope": (
        (0.5, 0, 1),
        lambda v: {"slope_initializer": keras.initializers.Constant(v)},
    ),
    "tails": (("free", "line"), lambda v: {"tails": v}),
    "domain": ((1, 0.5, 0.75, 1.5, 2), lambda v: {"domain": (-v, v)}),
    "domain with a line outside": (
        (1, 1.5, 2, 3),
        lambda v: {"domain": (-v, v), "tails": "line"},
    ),
    "second peak": (
        (0.85, 0.5, 0.7, 0.95),
        lambda v: {"peak_initializer": ks.RandomPeaks((0.5, v))},
    ),
    "spread of the logits": (
        (0.3, 0, 0.6, 1.2),
        lambda v: {"peak_initializer": ks.RandomPeaks(stddev=v)},
    ),
    "margin": ((0.01, 1e-4, 0.05, 0.2), lambda v: {"margin": v}),
    "depth": ((3, 1, 2, 4, 5, 6), lambda v: {"depth": v}),
    "scales": (("tied", "free"), lambda v: {"scales": v}),
    "kernel": (
        ("lecun_normal", "he_normal"),
        lambda v: {"kernel_initializer": v},
    ),
    "release": (
        ("never", 0.1, 0.25, 0.5, 0.75),
        lambda v: {} if v == "never" else RELEASED | {"release": v},
    ),
    "relu_rate": ((1 / 8, 1 / 32, 1 / 2, 1), lambda v: RELEASED | {"relu_rate": v}),
}
COMPARED = ("relu", "gelu", "sawtooth constrained")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
CURVES = {
    "rate": (RATES, lambda v: {"rate": v}),
    "rate at beta_2 of 0.99": (RATES, lambda v: {"rate": v, "beta_2": 0.99}),
    "layers": ((1, 2, 4, 8, 12), lambda v: {"layers": v}),
    "batch_size": (
        (32, 64, 256),
        # As many epochs.
        lambda v: {
            "batch_size": v,
            "steps": BASE["steps"] * tabular.BATCH_SIZE // v,
        },
    ),
}


def run_set(runs, parts, base, table, curves):
    def train(**changes):
        return tabular.train(*parts, **{**base, **changes})

    for argument, (values, meaning) in table.items():
        for value in values:
            changes = meaning(value)
            runs(
                lambda changes=changes, **_: train(**changes),
                argument=argument,
                value=value,
            )
    for curve, (values, meaning) in curves.items():
        for value in values:
            for model in COMPARED:
                changes = {"model": model, **meaning(value)}
                runs(
                    lambda changes=changes, **_: train(**changes),
                    curve=curve,
                    value=value,
                    model=model,
                )


def find(results, **settings):
    """The RMSE of all members in the run with these settings."""
    ((_, run),) = select(results["runs"], **settings)
    return np.array(run["rmse"])


def report(sets, table, curves):
    sections = []
    for argument, (values, _) in table.items():
        lines = []
        for value in values:
            line, changes = [f"{value}"], []
            for results in sets.values():
                rmse = find(results, argument=argument, value=value)
                default = find(results, argument=argument, value=values[0])
                changes.append(np.log(rmse / default))
                line.append(f"{rmse.mean():.4f}")
            if value != values[0]:
                # Of as many members as all sets have.
                change = 100 * np.mean(list(zip(*changes, strict=False)), axis=1)
                line.append(f"{with_error(change, '+.1f', '.1f')} %")
            else:
                line.append("")
            lines.append(line)
        header = [argument, *sets, "change"]
        sections.append(markdown(header, lines))
    for curve, (values, _) in curves.items():
        lines, means = [], {}
        for model in COMPARED:
            means[model] = [
                [
                    find(r, curve=curve, value=value, model=model).mean()
                    for value in values
                ]
                for r in sets.values()
            ]
        for i, value in enumerate(values):
            for model in COMPARED:
                line = [f"{rmse[i]:.4f}" for rmse in means[model]]
                lines.append([f"{value:g}", model, *line])
        for model in COMPARED:
            line = [f"{np.exp(np.log(rmse).mean()):.4f}" for rmse in means[model]]
            lines.append(["all, geometric mean", model, *line])
        sections.append(markdown([curve, "model", *sets], lines))
    return "\n\n".join(sections) + "\n"


def draw(sets, path):
    """RMSE against learning rate and number of layers, beside relu and gelu."""
    import matplotlib.pyplot as plt

    curves = [curve for curve in CURVES if curve != "batch_size"]
    figure, axes = plt.subplots(
        len(curves), len(sets), figsize=(3 * len(sets) + 1, 8), squeeze=False
    )
    for row, curve in zip(axes, curves, strict=True):
        for axis, results in zip(row, sets.values(), strict=True):
            values = CURVES[curve][0]
            for model in COMPARED:
                means = [
                    find(results, curve=curve, value=value, model=model).mean()
                    for value in values
                ]
                axis.plot(values, means, "o-", label=model, markersize=3)
            if values is RATES:
                axis.set(xscale="log")
            axis.set(yscale="log", xlabel=curve)
            axis.grid(alpha=0.3, which="both")
    for axis, name in zip(axes[0], sets, strict=True):
        axis.set(title=name)
    axes[0, 0].legend(fontsize="small")
    for row in axes:
        row[0].set_ylabel("validation RMSE")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main():
    arguments = tabular.parse_arguments(__doc__, "ablations")
    base, seeds, table, curves = BASE, tabular.VALIDATION_SEEDS, ARGUMENTS, CURVES
    if arguments.quick:
        base, seeds = BASE | {"steps": 2}, 1
        table = {"kernel": ARGUMENTS["kernel"]}
        curves = {"layers": ((1,), CURVES["layers"][1])}
    opened = tabular.open_sets(
        arguments, base=base, splits=list(range(tabular.VALIDATION_SPLITS)), seeds=seeds
    )
    for name, (data, runs) in opened.items():
        print(f"{name}:")
        run_set(runs, tabular.validation_parts(data, seeds), base, table, curves)
    print()
    sets = {name: runs.results for name, (_, runs) in opened.items()}
    print(report(sets, table, curves))
    if arguments.pictures and not arguments.quick:
        draw(sets, arguments.pictures / f"{arguments.output.name}.png")


if __name__ == "__main__":
    main()
