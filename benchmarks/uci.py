"""Is it a better hidden layer? UCI regression on fixed splits, six layers side by side.

Takes every folder in DIR that has a `data.csv` (header, target last) and a
`test_rows.txt` (one line a split: the row numbers of its test part):

    python benchmarks/uci.py --data-dir DIR [--sets energy concrete] [--quick]

One and two hidden layers of 50 units, batches of 64, AdamW with a cosine to zero.
AdamW's beta_2, learning rate, weight decay and number of steps are chosen for every
model alike, one after the other and in the end rate and steps once more together, by
the RMSE on a fifth of the training parts of the first three splits. What was chosen is
then trained on all training parts, and judged once on the test parts; if the training
of a split has failed, as its error on the training part shows, all are trained again
at the next smaller rate. Sawtooth layers have default arguments, but for the depth,
which is chosen as well; so is, of "released" ones, the share of the epochs after which
they are released.

Prints mean and standard error of the RMSE over the splits in the target's unit, and
the mean difference to `Dense(relu)` split by split. Writes
benchmarks/results/uci/SET.json and docs/images/uci.png; with --output DIR/NAME,
DIR/NAME/SET.json and DIR/NAME.png. Without --output or --pictures, other sets than the
four of the documentation get no picture. `keras-efficient-kan` takes part where it is
installed.
"""

import importlib.util
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import tabular
from runs import least
from runs import select
from tables import markdown
from tables import mean_and_error
from tables import with_error

MODELS = ("relu", "gelu", "prelu", "kan", "sawtooth constrained", "sawtooth released")
LAYERS = (1, 2)
# Chosen in this order; the first value of each stands until then.
GRID = {
    "beta_2": (0.999, 0.99, 0.95),
    "rate": (1e-2, 1e-3, 3e-3, 3e-2, 1e-1),
    "weight_decay": (0.0, 0.1, 1.0, 3.0),
    "depth": (3, 2, 5),
    "steps": (4000, 1000, 12000),
    "release": (0.5, 0.1),
}
# What not all models have.
ONLY_OF = {"depth": "sawtooth", "release": "sawtooth released"}
QUICK_GRID = {
    "beta_2": (0.999,),
    "rate": (1e-2,),
    "weight_decay": (0.0,),
    "steps": (4,),
}
# A training has failed if its error on the training part is so many times the median's,
# and above that of rows that were not trained on. Trainings that went well have up to
# 1.8 times, but for those that leave no error at all.
FAILED = 3
# And a split that has so many times the median's error on its test part is named.
OUTLIER = 3


def choose(grid, error):
    """The settings with the least `error(**settings)`, one name after the other.

    A smaller rate may pay only with more steps: in the end all numbers of steps are
    tried with the chosen rate and the two next to it.
    """
    chosen = {name: values[0] for name, values in grid.items()}

    def best(candidates):
        return least(candidates, lambda candidate: error(**chosen | candidate))

    for name, values in grid.items():
        chosen |= best([{name: value} for value in values])
    rates = sorted(grid["rate"])
    i = rates.index(chosen["rate"])
    near = rates[max(i - 1, 0) : i + 2]
    return chosen | best([{"rate": r, "steps": s} for r in near for s in grid["steps"]])


def run_set(runs, table, models, layer_counts, grid):
    """Search and final training of all models on one set."""
    validation = tabular.validation_parts(table, tabular.VALIDATION_SEEDS)
    test = tabular.parts(table, range(len(table.test_rows)), False)

    def trainer(parts):
        return lambda part, **settings: tabular.train(*parts, **settings)

    for layers in layer_counts:
        for model in models:
            names = {"model": model, "layers": layers}

            def error(names=names, **settings):
                result = runs(
                    trainer(validation), part="validation", **names, **settings
                )
                return np.mean(result["rmse"])

            searched = {
                name: values
                for name, values in grid.items()
                if model.startswith(ONLY_OF.get(name, ""))
            }
            chosen = choose(searched, error)
            for _, result in select(runs.results["runs"], part="test", **names):
                # Of another grid.
                result.pop("validation", None)
            final = runs(trainer(test), part="test", **names, **chosen)
            slower = sorted(rate for rate in grid["rate"] if rate < chosen["rate"])
            while slower and failures(final, error(**chosen)):
                chosen["rate"] = slower.pop()
                final = runs(trainer(test), part="test", **names, **chosen)
            final.update(chosen, validation=float(f"{error(**chosen):.6g}"))
            runs.write()


def failures(result, validation_error):
    """Number of members whose training has failed."""
    errors = np.array(result["training_rmse"])
    most = max(FAILED * np.nanmedian(errors), validation_error)
    return int(np.sum(~(errors <= most)))


def finals(results):
    """The results on the test parts, by model and layers."""
    found = {}
    for settings, result in select(results["runs"], part="test"):
        # The last rate that was tried, if trainings failed.
        if "validation" in result:
            found[settings["model"], int(settings["layers"])] = result
    order = [(model, layers) for layers in LAYERS for model in MODELS]
    return {name: found[name] for name in order if name in found}


def report(name, results):
    """Table of one set."""
    found = finals(results)
    rows = []
    for (model, layers), result in found.items():
        relu = found["relu", layers]["rmse"]
        difference = np.subtract(result["rmse"], relu)
        against = ""
        if model != "relu":
            against = with_error(difference, "+.2g")
        rows.append(
            [
                f"{layers} of {model}",
                f"{result['beta_2']:g}",
                f"{result['rate']:g}",
                f"{result['weight_decay']:g}",
                f"{result.get('depth', '')}",
                # Of whole epochs, and at least two: more than asked for on large sets.
                f"{result.get('trained_steps', result['steps'])}",
                f"{result.get('release', '')}",
                f"{result['parameters']}",
                f"{result['seconds']:.0f}",
                f"{result['validation']:.4g}",
                with_error(result["rmse"], ".4g"),
                against,
            ]
        )
    header = ["layers", "beta_2", "rate", "decay", "depth", "steps", "release"]
    header += ["parameters", "seconds", "validation", "test RMSE", "less relu"]
    return f"## {name}\n\n{markdown(header, rows)}\n{outliers(found)}"


def outliers(found):
    """A line for every row of the table whose mean is that of one split, or NaN."""
    lines = []
    for (model, layers), result in found.items():
        name, errors = f"{layers} of {model}", np.array(result["rmse"])
        finite = np.isfinite(errors)
        if not finite.all():
            splits = ", ".join(map(str, np.flatnonzero(~finite)))
            lines.append(f"\n{name}: no finite error on split {splits}.\n")
            # The finite ones keep their numbers.
            errors = np.where(finite, errors, -np.inf)
        split = int(np.argmax(errors))
        if finite.any() and errors[split] > OUTLIER * np.median(errors[finite]):
            lines.append(
                f"\n{name}: split {split} has {errors[split]:.4g}, the median of the "
                f"splits is {np.median(errors[finite]):.4g}.\n"
            )
    return "".join(lines)


def draw(sets, path):
    """Test RMSE of every model and set, with standard errors."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(sets), figsize=(3 * len(sets) + 1, 3.6), sharey=True, squeeze=False
    )
    for axis, (name, results) in zip(axes[0], sets.items(), strict=True):
        found = finals(results)
        models = list(dict.fromkeys(model for model, _ in found))
        for layers, marker in zip(LAYERS, ("o", "s"), strict=True):
            moments = [mean_and_error(found[model, layers]["rmse"]) for model in models]
            mean, error = np.transpose(moments)
            axis.errorbar(
                mean,
                np.arange(len(models)) + 0.15 * (2 * layers - 3),
                xerr=error,
                fmt=marker,
                label=f"{layers} hidden",
            )
        axis.set_yticks(range(len(models)), models)
        axis.set_title(name)
        axis.set_xlabel("test RMSE")
        axis.grid(alpha=0.3)
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main():
    arguments = tabular.parse_arguments(__doc__, "uci")
    models, layer_counts, grid = MODELS, LAYERS, GRID
    if importlib.util.find_spec("keras_efficient_kan") is None:
        models = [model for model in models if model != "kan"]
    if arguments.quick:
        layer_counts, grid = LAYERS[:1], QUICK_GRID
        models = [model for model in models if model in ("relu", "sawtooth released")]
    opened = tabular.open_sets(
        arguments,
        batch_size=tabular.BATCH_SIZE,
        validation={
            "splits": tabular.VALIDATION_SPLITS,
            "seeds": tabular.VALIDATION_SEEDS,
        },
    )
    for name, (table, runs) in opened.items():
        print(f"{name}:")
        run_set(runs, table, models, layer_counts, grid)
    print()
    sets = {name: runs.results for name, (_, runs) in opened.items()}
    for name, results in sets.items():
        print(report(name, results))
    if arguments.pictures and not arguments.quick:
        draw(sets, arguments.pictures / f"{arguments.output.name}.png")


if __name__ == "__main__":
    main()
