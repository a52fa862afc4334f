"""Does the training loss jump at the release?

Trains the same model twice from the same seed: once it stays constrained, once
it is released by `ReleaseConstraints` with default arguments. Prints the ratio of
the two training losses (released / constrained) in the first epoch after the
release and ten epochs later, medians over the seeds, for four problems and several
optimizers:

    python benchmarks/release.py [--relu-rate 0.03125] [--optimizer Lion] [--quick]

and writes benchmarks/results/release.json.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from runs import Progress
from runs import Runs
from runs import parse_arguments
from tables import markdown

import keras_sawtooth as ks

ENERGY = Path(__file__).parents[1] / "examples" / "data" / "energy.csv"
SEEDS, RELEASE_EPOCH, LATER = 3, 50, 10


def energy(rng):
    """The demo's data: heating load of 768 buildings."""
    rows = np.loadtxt(ENERGY, delimiter=",", skiprows=1)
    return rows[:, :-1], rows[:, -1:]


def friedman(rng):
    """Friedman's first function of 5 of 10 variables, with noise."""
    x = rng.uniform(size=(2000, 10))
    y = (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
    )
    return x, y[:, None] + rng.normal(size=(2000, 1))


def ripple(rng):
    """A smooth wave in two dimensions, without noise."""
    x = rng.uniform(-1, 1, (2000, 2))
    return x, np.sin(6 * np.hypot(*x.T))[:, None]


def spirals(rng):
    """Two spirals, as a regression on their labels."""
    t = np.sqrt(rng.uniform(0.05, 1, (2000, 1)))
    label = rng.choice([-1.0, 1.0], (2000, 1))
    x = label * t * np.hstack([np.cos(9 * t), np.sin(9 * t)])
    return x + 0.02 * rng.normal(size=x.shape), label


PROBLEMS = {f.__name__: f for f in (energy, friedman, ripple, spirals)}
OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(),
    "Adam 3e-3": lambda: keras.optimizers.Adam(3e-3),
    "AdamW": lambda: keras.optimizers.AdamW(),
    "RMSprop": lambda: keras.optimizers.RMSprop(),
    "SGD 1e-2, momentum 0.9": lambda: keras.optimizers.SGD(1e-2, momentum=0.9),
    "Lion 3e-4": lambda: keras.optimizers.Lion(3e-4),
}


def losses(x, y, optimizer, seed, epochs, callbacks, relu_rate):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            ks.SawtoothDense(50, relu_rate=relu_rate),
            ks.SawtoothDense(50, relu_rate=relu_rate),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse")
    callbacks = [Progress(), *callbacks]
    history = model.fit(x, y, epochs=epochs, callbacks=callbacks, verbose=0)
    return history.history["loss"]


def ratios(problem, optimizer, seed, relu_rate, epoch):
    """Loss ratios in the first epoch after the release at `epoch`, and later."""
    rng = np.random.default_rng(seed)
    x, y = ((a - a.mean(axis=0)) / a.std(axis=0) for a in PROBLEMS[problem](rng))
    stays, released = (
        losses(
            x, y, OPTIMIZERS[optimizer](), seed, epoch + LATER + 1, callbacks, relu_rate
        )
        for callbacks in ([], [ks.ReleaseConstraints(epoch=epoch)])
    )
    return {"ratios": [released[e] / stays[e] for e in (epoch, epoch + LATER)]}


def main():
    def add_arguments(parser):
        default = ks.RegionConstraint().relu_rate
        parser.add_argument(
            "--relu-rate",
            type=float,
            default=default,
            help="of the layers (%(default)s)",
        )
        parser.add_argument(
            "--optimizer", default="", help="the start of its name (all of them)"
        )

    arguments = parse_arguments(__doc__, "release.json", add_arguments)
    optimizers = [o for o in OPTIMIZERS if o.startswith(arguments.optimizer)]
    if not optimizers:
        sys.exit(
            f"No optimizer of {', '.join(OPTIMIZERS)} starts with "
            f"--optimizer={arguments.optimizer!r}"
        )
    problems, seeds, epoch = list(PROBLEMS), SEEDS, RELEASE_EPOCH
    if arguments.quick:
        optimizers, problems, seeds, epoch = optimizers[:1], problems[:1], 1, 2
    runs = Runs(arguments.output, arguments.quick, later=LATER)
    rows = []
    for optimizer in optimizers:
        rows.append([optimizer])
        for problem in problems:
            found = [
                runs(
                    ratios,
                    problem=problem,
                    optimizer=optimizer,
                    seed=seed,
                    relu_rate=arguments.relu_rate,
                    epoch=epoch,
                )["ratios"]
                for seed in range(seeds)
            ]
            rows[-1].append("{:.2f}, {:.2f}".format(*np.median(found, axis=0)))
    print()
    print(markdown(["optimizer", *problems], rows))


if __name__ == "__main__":
    main()
