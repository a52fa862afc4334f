"""Tables and pictures of `paper_1d.py`, from its results alone."""

import numpy as np
from runs import least
from runs import select
from runs import typical
from tables import markdown

# Milkert, Hyde and Laine, 2025: mean squared errors, (minimum, mean) over 30 seeds of
# the training points, and the minimum on the test points of the sparse table.
PUBLISHED_DENSE = {
    ("He", "x^3"): (2.11e-5, 7.20e-2),
    ("He", "x^11"): (2.19e-5, 2.82e-2),
    ("RAAI", "x^3"): (2.14e-5, 3.97e-2),
    ("RAAI", "x^11"): (4.40e-5, 4.12e-2),
    ("no constrained phase", "x^3"): (7.63e-7, 3.89e-5),
    ("no constrained phase", "x^11"): (1.86e-5, 3.56e-4),
    ("free scales", "x^3"): (1.64e-7, 1.02e-5),
    ("free scales", "x^11"): (3.20e-6, 3.73e-5),
    ("tied scales", "x^3"): (7.86e-8, 5.27e-7),
    ("tied scales", "x^11"): (8.86e-7, 7.87e-6),
}
PUBLISHED_SPARSE = {
    ("He", "x^3"): 2.41e-4,
    ("He", "x^11"): 2.14e-3,
    ("He", "sin x"): 2.27e-5,
    ("He", "tanh 3x"): 1.60e-4,
    ("tied scales", "x^3"): 5.65e-6,
    ("tied scales", "x^11"): 6.53e-4,
    ("tied scales", "sin x"): 7.92e-7,
    ("tied scales", "tanh 3x"): 5.09e-6,
}


def chosen(runs, task, row):
    """The best rate, and its run: on 500 points by the training error, else by test."""
    judged = "train" if task == "dense" else "test"
    candidates = of_row(runs, task, row)
    rate = least(candidates, lambda rate: typical(candidates[rate][judged]))
    return rate, candidates[rate]


def of_row(runs, task, row):
    """The runs of a row, by their rates."""
    found = select(runs, task=task, row=row)
    return {float(settings["rate"]): run for settings, run in found}


def floors(runs, pieces=32):
    """Errors of the best functions of so many pieces."""
    found = select(runs, pieces=pieces)
    return {settings["function"]: run["error"] for settings, run in found}


def dense_table(runs, functions, rows):
    floor = floors(runs)
    header = ["500 points", "rate"]
    for name in functions:
        header += [f"{name}: min", "published", "mean", "published", "mean / floor"]
    lines = []
    for row in rows:
        rate, run = chosen(runs, "dense", row)
        line = [row, f"{rate:g}"]
        for name, errors in zip(functions, run["train"], strict=True):
            published = PUBLISHED_DENSE[row, name]
            mean = np.mean(errors)
            line += [f"{min(errors):.2e}", f"{published[0]:.2e}"]
            line += [f"{mean:.2e}", f"{published[1]:.2e}"]
            line += [f"{mean / floor[name]:.3g}"]
        lines.append(line)
    text = ", ".join(f"{name} {floor[name]:.2e}" for name in functions)
    return f"{markdown(header, lines)}\n\nBest function of 32 pieces: {text}.\n"


def sparse_table(runs, functions, rows, interpolation):
    header = ["10 points, test error", "rate"]
    for name in functions:
        header += [f"{name}: min", "published", "mean"]
    lines = []
    for row in rows:
        rate, _ = chosen(runs, "other", row)
        run = of_row(runs, "sparse", row)[rate]
        line = [row, f"{rate:g}"]
        for name, errors in zip(functions, run["test"], strict=True):
            published = PUBLISHED_SPARSE.get((row, name))
            line += [f"{min(errors):.2e}", f"{published:.2e}" if published else ""]
            line += [f"{np.mean(errors):.2e}"]
        lines.append(line)
    line = ["linear interpolation", ""]
    for name in functions:
        line += [f"{interpolation[name]:.2e}", "", ""]
    return markdown(header, [*lines, line]) + "\n"


def depth_table(runs):
    header = ["depth", "pieces", "constrained, median", "released, median"]
    header += ["best function of so many pieces", "rate"]
    lines = []
    for depth, rate, constrained, released in by_depth(runs):
        best = floors(runs, 2**depth).get("x^3")
        line = [f"{depth}", f"{2**depth}", f"{constrained:.2e}", f"{released:.2e}"]
        lines.append([*line, f"{best:.2e}" if best else "", f"{rate}"])
    return markdown(header, lines) + "\n"


def by_depth(runs):
    """Depth, rate, and median test errors at the release and at the end."""
    return sorted(
        (
            int(settings["depth"]),
            settings["rate"],
            np.median(run["released_at"]),
            np.median(run["test"]),
        )
        for settings, run in select(runs)
        if "depth" in settings
    )


def report(runs, functions, dense, rows, interpolation):
    return "\n".join(
        [
            dense_table(runs, dense, rows),
            sparse_table(runs, functions, rows, interpolation),
            depth_table(runs),
        ]
    )


def draw(runs, folder, rows, dense, constrained_steps):
    """Training curves, and the error against the depth."""
    import matplotlib.pyplot as plt

    floor = floors(runs)
    figure, axes = plt.subplots(1, len(dense), figsize=(10, 4), sharey=True)
    for k, (axis, name) in enumerate(zip(axes, dense, strict=True)):
        for row in rows:
            run = chosen(runs, "dense", row)[1]
            low, median, high = (curve[k] for curve in run["curves"])
            (line,) = axis.plot(run["curve_steps"], median, label=row)
            axis.fill_between(
                run["curve_steps"], low, high, color=line.get_color(), alpha=0.15
            )
        axis.axvline(constrained_steps, color="gray", linestyle=":", label="release")
        axis.axhline(floor[name], color="black", linestyle="--", label="32 best pieces")
        axis.set(title=name, xlabel="step", yscale="log")
    axes[0].set_ylabel("mean squared error, median and range of the seeds")
    axes[0].legend(fontsize="small")
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "paper_1d_training.png", dpi=100)

    depths, _, constrained, released = zip(*by_depth(runs), strict=True)
    figure, axis = plt.subplots(figsize=(5.5, 4))
    axis.semilogy(depths, constrained, "o-", label="constrained")
    axis.semilogy(depths, released, "s-", label="then released")
    best = [floors(runs, 2**depth).get("x^3", np.nan) for depth in depths]
    axis.semilogy(depths, best, "k--", label="best function of 2^depth pieces")
    axis.set(xlabel="depth", ylabel="mean squared error, x^3, median of the seeds")
    axis.legend()
    figure.tight_layout()
    figure.savefig(folder / "paper_1d_depth.png", dpi=100)
