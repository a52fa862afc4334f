"""One-dimensional functions, 30 seeds: how close does a network of width 4 come?

Tables 1 to 3 of Milkert, Hyde and Laine (ICML 2025, arXiv 2311.18022): networks of
width 4 and depth 5 on [0, 1], trained on 500 points (x^3, x^11) or on 10 (and
judged on 10 others), with five ways to begin:

    python benchmarks/paper_1d.py [--quick]

One recipe for every function and row: full batches, Adam(beta_1 = beta_2 = 0.98),
22,000 steps, the learning rate rising from a hundredth for 200 steps and falling to
zero along a cosine. Sawtooth layers have the domain (0, 1), on which all points are,
and a starting amplitude of 0.5, are released after 2,000 steps, and have an output
layer of one weight and one bias, as a ReLU network has one. On 10 points their peaks
stay between 0.3 and 0.7, and they move little after the release, as it matters what a
function is between the points. docs/trials.md says how the recipe was found.

The peak of the learning rate is chosen for every row by a geometric mean over seeds and
functions: of the training error on 500 points; on 10 points, where many networks go
through all of them, of the test error on 28 other functions that are in no table.

Prints the tables beside the published figures, and beside the best function of 32
pieces. Writes benchmarks/results/paper_1d.json and docs/images/paper_1d_*.png.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import free_knots
import keras
import members
import numpy as np
import paper_1d_report
from runs import Progress
from runs import Runs
from runs import parse_arguments

import keras_sawtooth as ks

FUNCTIONS = {
    "x^3": lambda x: x**3,
    "x^11": lambda x: x**11,
    "sin x": np.sin,
    "tanh 3x": lambda x: np.tanh(3 * x),
}
OTHER_FUNCTIONS = {
    f"{name} {k}": lambda x, f=function, k=k: f(x, k)
    for name, function, parameters in [
        ("x^k", lambda x, k: x**k, (1.5, 2, 2.5, 4, 5, 7, 9)),
        ("exp kx", lambda x, k: np.exp(k * x), (1, 3, 5, -2)),
        ("sin kx", lambda x, k: np.sin(k * x), (0.5, 1.5, 2)),
        ("cos kx", lambda x, k: np.cos(k * x), (1, 1.5)),
        ("tanh kx", lambda x, k: np.tanh(k * x), (1, 2, 4, 5)),
        ("arctan kx", lambda x, k: np.arctan(k * x), (2, 4)),
        ("log(1 + kx)", lambda x, k: np.log(1 + k * x), (1, 5)),
        ("1 / (k + x)", lambda x, k: 1 / (k + x), (1, 0.25, -1.2)),
        ("sqrt(k + x)", lambda x, k: np.sqrt(k + x), (0.1,)),
    ]
    for k in parameters
}
KNOWN_FUNCTIONS = FUNCTIONS | OTHER_FUNCTIONS
DENSE = ("x^3", "x^11")
TASKS = {"dense": DENSE, "other": tuple(OTHER_FUNCTIONS), "sparse": tuple(FUNCTIONS)}
ROWS = ("He", "RAAI", "no constrained phase", "free scales", "tied scales")
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
WIDTH, DEPTH = 4, 5
# Fewer where there are many functions.
SEEDS = {"dense": 30, "sparse": 30, "other": 10}
SAWTOOTH = {
    # The free phase is long: its weights may as well move at the full rate.
    "dense": {"relu_rate": 1},
    # Peaks near the middle make smooth functions, and small steps keep them smooth.
    "sparse": {"relu_rate": 1 / 128, "margin": 0.3},
}
SAWTOOTH["other"] = SAWTOOTH["sparse"]
STEPS, CONSTRAINED_STEPS, WARM_UP_STEPS = 22_000, 2_000, 200
STEPS_PER_EPOCH = 100
LARGEST_FLOOR_DEPTH = 6


def points(task):
    """Where to train and where to judge: two arrays on [0, 1]."""
    if task == "dense":
        return np.linspace(0, 1, 500), np.linspace(0, 1, 4001)
    return np.linspace(0, 1, 10), (np.arange(10) + 0.5) / 10


def values(x, functions, seeds):
    """`x` and the functions of it for every member, `(points, members, 1)`."""
    y = np.stack([KNOWN_FUNCTIONS[name](x) for name in functions], axis=1)
    y = np.repeat(y, seeds, axis=1)[..., None]
    return np.broadcast_to(x[:, None, None], y.shape).astype("float32"), y


def relu_network(n_members, depth):
    """`depth` layers of 4 ReLU units for every member, He initialization."""
    layers = []
    for _ in range(depth):
        layers += [members.dense(n_members, WIDTH, "he_normal"), keras.layers.ReLU()]
    layers.append(members.dense(n_members, 1, "he_normal"))
    return keras.Sequential([keras.Input((n_members, 1)), *layers])


def randomize_asymmetrically(model):
    """RAAI (Lu, Shin, Su and Karniadakis, 2019) for all hidden layers.

    The weights and the bias of a neuron are normal(0, 0.6007 / sqrt(inputs)), and one
    of them, at random, is from Beta(2, 1): it is positive, so fewer neurons die.
    """
    rng = np.random.default_rng(0)
    for layer in [layer for layer in model.layers if layer.weights][:-1]:
        n_members, inputs, units = layer.kernel.shape
        drawn = rng.normal(0, 0.6007 / np.sqrt(inputs), (n_members, inputs + 1, units))
        chosen = rng.integers(inputs + 1, size=(n_members, 1, units))
        beta = rng.beta(2, 1, chosen.shape)
        np.put_along_axis(drawn, chosen, beta, axis=1)
        layer.set_weights([drawn[:, :-1], drawn[:, -1]])


def sawtooth_network(n_members, depth, **arguments):
    """A channel for every member, and an output layer as the others have it."""
    constraint = ks.RegionConstraint(
        depth,
        domain=(0, 1),
        # No point lies outside.
        tails="line",
        amplitude_initializer=ks.RandomSign(0.5),
        **arguments,
    )
    return keras.Sequential(
        [
            keras.Input((n_members, 1)),
            members.pointwise(constraint, n_members, 1),
            members.dense(n_members, 1, "ones"),
        ]
    )


def build(task, row, n_members, depth):
    if row == "He":
        return relu_network(n_members, depth)
    if row == "RAAI":
        model = relu_network(n_members, depth)
        randomize_asymmetrically(model)
        return model
    scales = "free" if row == "free scales" else "tied"
    constrained = row != "no constrained phase"
    return sawtooth_network(
        n_members, depth, scales=scales, constrained=constrained, **SAWTOOTH[task]
    )


class Curve(keras.callbacks.Callback):
    """Mean squared error of every member on the training points, now and then."""

    def __init__(self, x, y, epochs):
        super().__init__()
        self.x, self.y, self.every = x, y, max(1, epochs // 55)
        self.steps, self.errors = [], []

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch < 10:
            self.steps.append((epoch + 1) * STEPS_PER_EPOCH)
            self.errors.append(members.mean_squared_errors(self.model, self.x, self.y))


def train(task, row, rate, functions, seeds, depth, steps):
    """All seeds of all functions; errors as lists `[function][seed]`."""
    keras.utils.set_random_seed(0)
    x, y = values(points(task)[0], functions, seeds)
    x_test, y_test = values(points(task)[1], functions, seeds)
    model = build(task, row, x.shape[1], depth)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-2 * rate,
        steps - WARM_UP_STEPS,
        warmup_target=rate,
        warmup_steps=WARM_UP_STEPS,
    )
    model.compile(keras.optimizers.Adam(schedule, 0.98, 0.98), members.squared_error)
    epochs = steps // STEPS_PER_EPOCH
    curve = Curve(x, y, epochs)
    callbacks = [Progress(), curve]
    released_at = []
    if row in ("free scales", "tied scales"):
        epoch = max(1, min(CONSTRAINED_STEPS, steps // 2) // STEPS_PER_EPOCH)
        before = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda e, logs: (
                e == epoch
                and released_at.extend(
                    members.mean_squared_errors(model, x_test, y_test)
                )
            )
        )
        callbacks += [before, ks.ReleaseConstraints(epoch=epoch)]
    # Many full batches an epoch: what Keras does between epochs takes longer.
    copies = (STEPS_PER_EPOCH, 1, 1)
    model.fit(
        *(np.tile(x, copies), np.tile(y, copies)),
        epochs=epochs,
        batch_size=len(x),
        shuffle=False,
        callbacks=callbacks,
        verbose=0,
    )

    def by_function(errors):
        errors = np.reshape(errors, (len(functions), seeds))
        return [[float(f"{e:.4g}") for e in row] for row in errors]

    curves = np.reshape(curve.errors, (-1, len(functions), seeds))
    return {
        "train": by_function(members.mean_squared_errors(model, x, y)),
        "test": by_function(members.mean_squared_errors(model, x_test, y_test)),
        "released_at": [float(f"{e:.4g}") for e in released_at],
        "curve_steps": curve.steps,
        # Lowest, median and highest of the seeds, `[function][point]`.
        "curves": [
            [[float(f"{e:.3g}") for e in function] for function in statistic(curves).T]
            for statistic in (
                lambda c: c.min(axis=-1),
                lambda c: np.median(c, axis=-1),
                lambda c: c.max(axis=-1),
            )
        ],
    }


def floor(function, pieces):
    x = points("dense")[0]
    y = KNOWN_FUNCTIONS[function](x)
    return {"error": free_knots.least_error(x, y, pieces)}


def interpolation(function):
    """Mean squared error of straight lines between the 10 points."""
    x, x_test = points("sparse")
    y, y_test = (KNOWN_FUNCTIONS[function](x) for x in (x, x_test))
    return np.mean((np.interp(x_test, x, y) - y_test) ** 2)


def main():
    arguments = parse_arguments(__doc__, "paper_1d.json")
    functions = {task: list(names) for task, names in TASKS.items()}
    runs = Runs(
        arguments.output, arguments.quick, sawtooth=SAWTOOTH, functions=functions
    )
    rows, seeds, steps, rates = ROWS, SEEDS, STEPS, RATES
    # About the trend: fewer seeds.
    depths, depth_seeds = range(2, 11), 3
    if arguments.quick:
        rows = ("RAAI", "tied scales")
        seeds, steps, rates = dict.fromkeys(SEEDS, 2), 400, RATES[:1]
        depths, depth_seeds = (2,), 1

    for name in FUNCTIONS:
        runs(floor, function=name, pieces=2**DEPTH)

    def train_row(task, row, rate):
        runs(
            lambda **s: train(**s, functions=TASKS[task], depth=DEPTH),
            **{"task": task, "row": row, "rate": rate},
            **{"seeds": seeds[task], "steps": steps},
        )

    def chosen(task, row):
        return paper_1d_report.chosen(runs.results["runs"], task, row)[0]

    for task in ("dense", "other"):
        for rate in rates:
            for row in rows:
                train_row(task, row, rate)
    for row in rows:
        train_row("sparse", row, chosen("other", row))
    rate = chosen("dense", "tied scales")
    for depth in depths:
        # More pieces than that are too many for 500 points.
        if depth <= LARGEST_FLOOR_DEPTH:
            runs(floor, function="x^3", pieces=2**depth)
        runs(
            lambda **s: train("dense", functions=("x^3",), **s),
            **{"row": "tied scales", "depth": depth, "rate": rate},
            **{"seeds": depth_seeds, "steps": steps},
        )
    results = runs.results["runs"]
    lines = {name: interpolation(name) for name in FUNCTIONS}
    print()
    report = paper_1d_report.report
    print(report(results, tuple(FUNCTIONS), DENSE, rows, lines))
    paper_1d_report.draw(results, arguments.pictures, rows, DENSE, CONSTRAINED_STEPS)


if __name__ == "__main__":
    main()
