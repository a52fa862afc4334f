"""Beyond one convex dimension: x^3 - x, a surface, and two spirals, 30 seeds.

Sawtooth layers between linear ones, constrained for good or released after half of
the steps, beside ReLU networks with He initialization and as many parameters: in
blocks (the released network's own shape: width 4 for every channel) and dense.

    python benchmarks/paper_2d.py [--quick]

- `cubic`: x^3 - x on [-1, 1] as a mixture of 2 channels of depth 5; 500 points.
- `surface`: r^3 on the square [-1, 1]^2 from 4 channels of depth 5; 400 points.
- `spirals`: two spirals of one and a half turns, two layers of 16 channels of depth
  3; 400 points, cross-entropy, accuracy on 2,000 other points.

All rows: Adam with a cosine to zero, 6,000 steps, batches of at most 500 points; the
rate is chosen for every row by the final training loss (geometric mean over seeds).
Sawtooth layers have their default arguments and Keras' default Adam.

Prints minimum and mean over the seeds on points that were not trained on. Writes
benchmarks/results/paper_2d.json and docs/images/paper_2d_*.png. The problems are from
Milkert, Hyde and Laine (ICML 2025, arXiv 2311.18022).
"""

import itertools
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from typing import NamedTuple

import keras
import members
import numpy as np
import paper_2d_report
from keras import ops
from runs import Progress
from runs import Runs
from runs import parse_arguments

import keras_sawtooth as ks

ROWS = ("He, dense", "He, blocks", "sawtooth constrained", "sawtooth released")
RATES = (3e-3, 1e-2, 3e-2)
SEEDS, STEPS, BATCH_SIZE, WIDTH = 30, 6000, 500, 4


class Problem(NamedTuple):
    inputs: int
    channels: tuple  # of every hidden layer
    depth: int
    points: object  # () -> x, y to train, x, y to judge
    batch_size: int = BATCH_SIZE


def cubic():
    x, x_test = (np.linspace(-1, 1, n)[:, None] for n in (500, 4001))
    return x, x**3 - x, x_test, x_test**3 - x_test


def surface():
    def grid(n):
        axis = np.linspace(-1, 1, n)
        x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        return x, np.linalg.norm(x, axis=1, keepdims=True) ** 3

    return *grid(20), *grid(75)


def spirals():
    def draw(rng, n):
        t = np.sqrt(rng.uniform(0.02, 1, (n, 1)))
        label = np.arange(n)[:, None] % 2
        x = (2 * label - 1) * t * np.hstack([np.cos(9.4 * t), np.sin(9.4 * t)])
        return x + 0.02 * rng.normal(size=x.shape), label.astype(float)

    return *draw(np.random.default_rng(0), 400), *draw(np.random.default_rng(1), 2000)


PROBLEMS = {
    "cubic": Problem(1, (2,), 5, cubic),
    "surface": Problem(2, (4,), 5, surface, batch_size=400),
    "spirals": Problem(2, (16, 16), 3, spirals, batch_size=100),
}


def sawtooth_parameters(problem):
    """Of one member in the released phase."""
    block = 8 + 20 * (problem.depth - 1) + 4 + 3
    sizes = [problem.inputs, *problem.channels, 1]
    linear = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    return linear + block * sum(problem.channels)


def dense_sizes(problem):
    """Widths of a ReLU network of the same depth and nearly as many parameters."""
    n_layers = problem.depth * len(problem.channels)

    def parameters(width):
        inner = (n_layers - 1) * (width + 1) * width
        return (problem.inputs + 1) * width + inner + width + 1

    wanted = sawtooth_parameters(problem)
    width = min(range(1, 200), key=lambda w: abs(parameters(w) - wanted))
    return [width] * n_layers


def relu_blocks(n_members, channels, depth):
    """A ReLU network of width 4 for every channel of every member."""
    n_blocks = n_members * channels
    layers = [keras.layers.Reshape((n_blocks, 1))]
    for _ in range(depth):
        layers += [members.dense(n_blocks, WIDTH, "he_normal"), keras.layers.ReLU()]
    layers.append(members.dense(n_blocks, 1, "he_normal"))
    return [*layers, keras.layers.Reshape((n_members, channels))]


def build(problem, row, n_members):
    layers = [keras.Input((n_members, problem.inputs))]
    if row == "He, dense":
        for width in dense_sizes(problem):
            layers += [
                members.dense(n_members, width, "he_normal"),
                keras.layers.ReLU(),
            ]
    else:
        for channels in problem.channels:
            layers.append(members.dense(n_members, channels, "lecun_normal"))
            if row == "He, blocks":
                layers += relu_blocks(n_members, channels, problem.depth)
            else:
                constraint = ks.RegionConstraint(problem.depth)
                layers.append(members.pointwise(constraint, n_members, channels))
    return keras.Sequential([*layers, members.dense(n_members, 1)])


def cross_entropy(labels, logits):
    """Summed over the members."""
    labels, logits = labels[..., 0], logits[..., 0]
    return ops.sum(ops.softplus(logits) - labels * logits, axis=-1)


def train(problem, row, rate, seeds, steps):
    keras.utils.set_random_seed(0)
    name, problem = problem, PROBLEMS[problem]
    x, y, x_test, y_test = (
        np.repeat(a[:, None], seeds, axis=1).astype("float32") for a in problem.points()
    )
    deviation = x[:, 0].std(axis=0)
    model = build(problem, row, seeds)
    loss = cross_entropy if name == "spirals" else members.squared_error
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), loss)
    batches = -(-len(x) // problem.batch_size)
    # Epochs of about 100 steps: what Keras does between epochs takes longer.
    copies = -(-100 // batches)
    epochs = max(2, round(steps / batches / copies))
    callbacks = [Progress()]
    if row == "sawtooth released":
        callbacks.append(ks.ReleaseConstraints(epoch=epochs // 2))
    model.fit(
        np.tile(x / deviation, (copies, 1, 1)),
        np.tile(y, (copies, 1, 1)),
        epochs=epochs,
        batch_size=problem.batch_size,
        shuffle=name == "spirals",
        callbacks=callbacks,
        verbose=0,
    )

    def outputs(points):
        return model.predict(points / deviation, batch_size=500, verbose=0)

    def losses(points, targets):
        values = ops.convert_to_numpy(outputs(points)).astype("float64")
        if name == "spirals":
            each = np.logaddexp(0, values) - targets * values
        else:
            each = (values - targets) ** 2
        return [float(f"{e:.4g}") for e in each.mean(axis=(0, 2))], values

    result = {"parameters": model.count_params() // seeds}
    result["train"], _ = losses(x, y)
    result["test"], values = losses(x_test, y_test)
    if name == "spirals":
        right = ((values > 0) == (y_test > 0.5)).mean(axis=(0, 2))
        result["accuracy"] = [round(float(a), 4) for a in right]
    best = int(np.argmin(result["train"]))
    axes = [np.linspace(-1, 1, paper_2d_report.GRID)] * problem.inputs
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 1, problem.inputs)
    drawn = outputs(np.repeat(grid, seeds, axis=1).astype("float32"))[:, best, 0]
    result["function"] = [round(float(v), 5) for v in drawn]
    return result


def main():
    arguments = parse_arguments(__doc__, "paper_2d.json")
    runs = Runs(arguments.output, arguments.quick)
    rows, seeds, steps, rates = ROWS, SEEDS, STEPS, RATES
    if arguments.quick:
        rows, seeds, steps, rates = ROWS[1::2], 2, 4, RATES[:1]
    for problem in PROBLEMS:
        for row in rows:
            for rate in rates:
                settings = {"problem": problem, "row": row, "rate": rate}
                runs(train, **settings, seeds=seeds, steps=steps)
    print()
    print(paper_2d_report.report(runs.results["runs"], PROBLEMS, rows))
    paper_2d_report.draw(runs.results["runs"], arguments.pictures, rows)


if __name__ == "__main__":
    main()
