"""Tables and pictures of `paper_2d.py`, from its results alone."""

import numpy as np
from runs import least
from runs import select
from runs import typical
from tables import markdown

# Points along an axis at which the functions are stored.
GRID = 81


def chosen(runs, problem, row):
    """The run at the rate with the least geometric mean of the training losses."""
    found = select(runs, problem=problem, row=row)
    candidates = {settings["rate"]: run for settings, run in found}
    rate = least(candidates, lambda rate: typical(candidates[rate]["train"]))
    return rate, candidates[rate]


def report(runs, problems, rows):
    header = ["problem", "network", "parameters", "rate"]
    header += ["test loss: min", "mean", "accuracy: best", "mean"]
    lines = []
    for problem in problems:
        for row in rows:
            rate, run = chosen(runs, problem, row)
            line = [problem, row, f"{run['parameters']}", rate]
            line += [f"{min(run['test']):.2e}", f"{np.mean(run['test']):.2e}"]
            accuracy = run.get("accuracy")
            line += (
                [f"{statistic(accuracy):.4f}" for statistic in (max, np.mean)]
                if accuracy
                else ["", ""]
            )
            lines.append(line)
    return markdown(header, lines) + "\n"


def draw(runs, folder, rows):
    """The best seed of every row: x^3 - x, and both functions of two variables."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    axis = np.linspace(-1, 1, GRID)
    figure, axes = plt.subplots(1, len(rows), figsize=(11, 2.8), sharey=True)
    for panel, row in zip(axes, rows, strict=True):
        error = np.array(chosen(runs, "cubic", row)[1]["function"]) - axis**3 + axis
        panel.plot(axis, error)
        panel.set(title=row, xlabel="x")
    axes[0].set_ylabel("error of x^3 - x")
    figure.tight_layout()
    figure.savefig(folder / "paper_2d_cubic.png", dpi=90)

    figure, axes = plt.subplots(2, len(rows), figsize=(11, 5.6))
    square = {"origin": "lower", "extent": (-1, 1, -1, 1)}
    for column, row in enumerate(rows):
        z = np.reshape(chosen(runs, "surface", row)[1]["function"], (GRID, GRID))
        # Between the boundaries of linear regions a function is not curved.
        curvature = np.abs(
            z[:-2, 1:-1] + z[2:, 1:-1] + z[1:-1, :-2] + z[1:-1, 2:] - 4 * z[1:-1, 1:-1]
        )
        axes[0, column].imshow(curvature, vmax=0.01, cmap="magma", **square)
        axes[0, column].set_title(row)
        z = np.reshape(chosen(runs, "spirals", row)[1]["function"], (GRID, GRID))
        axes[1, column].imshow(np.tanh(z / 4), cmap="coolwarm", **square)
    axes[0, 0].set_ylabel("r^3: |Laplacian|")
    axes[1, 0].set_ylabel("spirals: logit")
    figure.tight_layout()
    figure.savefig(folder / "paper_2d_surfaces.png", dpi=90)
